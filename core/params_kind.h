/*
 * params_kind.h - kinds of settings: what a value of each may be, as text and as a field of iso_params_t.
 *
 * params.c's table says of which kind a setting is; nothing here knows a setting's name.
 */
#ifndef ISO_CORE_PARAMS_KIND_H
#define ISO_CORE_PARAMS_KIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum iso_param_kind {
    ISO_PARAM_SLOTS,   /* uint64_t: bytes, a multiple of a slot */
    ISO_PARAM_SIZE,    /* uint64_t: bytes */
    ISO_PARAM_COUNT,   /* uint32_t */
    ISO_PARAM_SECONDS, /* double, more than 0 */
    ISO_PARAM_BOOL,    /* bool */
    ISO_PARAM_ENUM,    /* an enum whose values index names */
    ISO_PARAM_NAME,    /* const char *: becomes part of a module's file name */
    ISO_PARAM_STRING   /* const char * */
} iso_param_kind_t;

typedef struct iso_param_field {
    iso_param_kind_t kind;
    size_t offset, size; /* in iso_params_t */
    const char *const *names;
} iso_param_field_t;

typedef union iso_param_value {
    uint64_t size;
    uint32_t count;
    double seconds;
    bool flag;
    unsigned index; /* of an enum */
    const char *text;
} iso_param_value_t;

/* What a value of the field may be, for messages. */
const char *iso_param_accepted(const iso_param_field_t *field, char *buf, size_t len);

/* The value that the text means; false: none, and *value_p may have anything. */
bool iso_param_parse(const iso_param_field_t *field, const char *text, iso_param_value_t *value_p);

/* What a program assigned, as text; NULL: fine. */
const char *iso_param_find_fault(const iso_param_field_t *field, const iso_param_value_t *value,
                                 char *buf, size_t len);

/* Can it be a part of a module's file name, and of no other file's? */
bool iso_param_is_module_name(const char *text);

#endif
