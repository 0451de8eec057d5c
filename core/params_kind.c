/*
 * params_kind.c - see params_kind.h.
 */
#include "core/params_kind.h"
#include "core/quantity.h"
#include <inttypes.h>
#include <isomalloc/isomalloc.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

const char *iso_param_accepted(const iso_param_field_t *field, char *buf, size_t len)
{
    size_t used = 0;

    switch (field->kind) {
    case ISO_PARAM_SLOTS:
        return "0 or a multiple of 2M: a number of bytes, decimal or 0x..., with K, M, G, T or P";
    case ISO_PARAM_SIZE:
        return "a number of bytes, decimal or 0x..., with K, M, G, T or P";
    case ISO_PARAM_COUNT:
        return "a number from 0 to 4294967295";
    case ISO_PARAM_SECONDS:
        return "seconds in digits, more than 0, such as 10 or 0.5";
    case ISO_PARAM_BOOL:
        return "y, yes, on, 1, n, no, off or 0";
    case ISO_PARAM_NAME:
        return "auto or a module's name (letters, digits, '-' and '_')";
    case ISO_PARAM_STRING:
        return "any text";
    case ISO_PARAM_ENUM:
        buf[0] = '\0';
        for (size_t i = 0; field->names[i] != NULL && used < len; i++)
            used += (size_t)snprintf(buf + used, len - used, "%s%s", i == 0 ? "" : ", ",
                                     field->names[i]);
        return buf;
    }
    return "";
}

static bool parse_index(const char *text, const char *const *names, unsigned *index_p)
{
    for (unsigned i = 0; names[i] != NULL; i++) {
        if (strcasecmp(text, names[i]) == 0) {
            *index_p = i;
            return true;
        }
    }
    return false;
}

bool iso_param_is_module_name(const char *text)
{
    return text[0] != '\0' && text[strspn(text, "abcdefghijklmnopqrstuvwxyz"
                                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")] == '\0';
}

bool iso_param_parse(const iso_param_field_t *field, const char *text, iso_param_value_t *value_p)
{
    static const char *const bool_names[] = {"n", "y", "no", "yes", "off", "on", "0", "1", NULL};
    uint64_t size;
    unsigned index;

    switch (field->kind) {
    case ISO_PARAM_SLOTS:
        return iso_size_parse(text, &value_p->size) && value_p->size % ISO_SLOT_SIZE == 0;
    case ISO_PARAM_SIZE:
        return iso_size_parse(text, &value_p->size);
    case ISO_PARAM_COUNT:
        if (!iso_size_parse(text, &size) || size > UINT32_MAX)
            return false;
        value_p->count = (uint32_t)size;
        return true;
    case ISO_PARAM_SECONDS:
        return iso_seconds_parse(text, &value_p->seconds);
    case ISO_PARAM_BOOL:
        if (!parse_index(text, bool_names, &index))
            return false;
        value_p->flag = index % 2 != 0;
        return true;
    case ISO_PARAM_ENUM:
        return parse_index(text, field->names, &value_p->index);
    case ISO_PARAM_NAME:
        value_p->text = text;
        return iso_param_is_module_name(text);
    case ISO_PARAM_STRING:
        value_p->text = text;
        return true;
    }
    return false;
}

const char *iso_param_find_fault(const iso_param_field_t *field, const iso_param_value_t *value,
                                 char *buf, size_t len)
{
    switch (field->kind) {
    case ISO_PARAM_SLOTS:
        if (value->size % ISO_SLOT_SIZE == 0)
            return NULL;
        snprintf(buf, len, "%" PRIu64, value->size);
        return buf;
    case ISO_PARAM_SECONDS:
        if (value->seconds > 0 && isfinite(value->seconds))
            return NULL;
        snprintf(buf, len, "%g", value->seconds);
        return buf;
    case ISO_PARAM_ENUM:
        for (unsigned i = 0; field->names[i] != NULL; i++)
            if (value->index == i)
                return NULL;
        snprintf(buf, len, "%d", (int)value->index);
        return buf;
    case ISO_PARAM_NAME:
        return value->text == NULL || iso_param_is_module_name(value->text) ? NULL : value->text;
    case ISO_PARAM_SIZE:
    case ISO_PARAM_COUNT:
    case ISO_PARAM_BOOL:
    case ISO_PARAM_STRING:
        return NULL;
    }
    return NULL;
}
