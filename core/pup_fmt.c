/*
 * pup_fmt.c - a pup_er that says of every item what it is: so that a routine that unpacks other than it packed is
 * found out where it does.
 *
 * Before each item stands a label; a mark is a label and its message. All of it is of the pup_er below.
 */
#include "core/log.h"
#include "core/pup.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_MARK 0xffu /* as type */

typedef struct label {
    uint8_t type; /* iso_pup_type_t */
    uint8_t size;
    uint16_t zero;
    uint32_t sync;  /* of a mark */
    uint64_t count; /* items, or bytes of the message */
} label_t;

static const char *name_of(unsigned type)
{
    static const char *const names[] = {
        [ISO_PUP_BYTES] = "bytes",   [ISO_PUP_CHAR] = "char",     [ISO_PUP_SHORT] = "short",
        [ISO_PUP_INT] = "int",       [ISO_PUP_LONG] = "long",     [ISO_PUP_UCHAR] = "uchar",
        [ISO_PUP_USHORT] = "ushort", [ISO_PUP_UINT] = "uint",     [ISO_PUP_ULONG] = "ulong",
        [ISO_PUP_FLOAT] = "float",   [ISO_PUP_DOUBLE] = "double", [ISO_PUP_POINTER] = "pointer",
        [ISO_PUP_INT8] = "int8",     [ISO_PUP_SIZE] = "size_t",
    };
    if (type == LABEL_MARK)
        return "mark";
    return type < sizeof names / sizeof *names ? names[type] : "nothing known";
}

static iso_status_t differs(const label_t *packed, const label_t *asked)
{
    iso_logger_t logger = iso_logger_default();
    iso_log(&logger, ISO_LOG_ERROR,
            "pup: the routine unpacks %" PRIu64 " %s (%#" PRIx32 ") where %" PRIu64 " %s (%#" PRIx32
            ") were packed",
            asked->count, name_of(asked->type), asked->sync, packed->count, name_of(packed->type),
            packed->sync);
    return ISO_ERR_INVALID;
}

/* Item by item, since the pup_er below may turn their bytes round. */
static void pass_fields(pup_er below, label_t *label)
{
    pup_uchar(below, &label->type);
    pup_uchar(below, &label->size);
    pup_ushort(below, &label->zero);
    pup_uint(below, &label->sync);
    iso_pup_items(below, &label->count, 1, sizeof label->count, ISO_PUP_ULONG);
}

/* Packs or counts the label, or unpacks one and compares. Of a mark only the number is compared; *label is what
 * was packed. */
static iso_status_t pass_label(pup_er below, label_t *label)
{
    label_t other = *label;
    pass_fields(below, &other);
    if (iso_pup_status(below) != ISO_OK || !pup_isUnpacking(below))
        return iso_pup_status(below);
    if (other.type != label->type || other.size != label->size || other.sync != label->sync ||
        (other.count != label->count && other.type != LABEL_MARK))
        return differs(&other, label);
    *label = other;
    return ISO_OK;
}

static iso_status_t pass_items(void *context, void *data, size_t count, size_t size,
                               iso_pup_type_t type)
{
    label_t label = {.type = (uint8_t)type, .size = (uint8_t)size, .count = count};
    iso_status_t status = pass_label(context, &label);
    if (status != ISO_OK)
        return status;
    iso_pup_items(context, data, count, size, type);
    return iso_pup_status(context);
}

static iso_status_t pass_mark(void *context, unsigned sync, const char *message)
{
    label_t label = {.type = LABEL_MARK, .sync = sync, .count = strlen(message)};
    iso_status_t status = pass_label(context, &label);
    if (status != ISO_OK)
        return status;
    if (!pup_isUnpacking(context)) {
        pup_bytes(context, (void *)(uintptr_t)message, label.count);
        return iso_pup_status(context);
    }
    char passed_over[256];
    for (uint64_t left = label.count; left > 0 && status == ISO_OK;) {
        size_t now = left < sizeof passed_over ? (size_t)left : sizeof passed_over;
        pup_bytes(context, passed_over, now);
        left -= now;
        status = iso_pup_status(context);
    }
    return status;
}

static iso_status_t flush(void *context)
{
    return iso_pup_flush(context);
}

/* One for each direction: the direction is the kind's. */
#define FMT(way)                                                                  \
    {                                                                             \
        .struct_size = sizeof(iso_pup_kind_t), .name = "fmt", .direction = (way), \
        .items = pass_items, .mark = pass_mark, .flush = flush                    \
    }
static const iso_pup_kind_t kinds[] = {[ISO_PUP_SIZING] = FMT(ISO_PUP_SIZING),
                                       [ISO_PUP_PACKING] = FMT(ISO_PUP_PACKING),
                                       [ISO_PUP_UNPACKING] = FMT(ISO_PUP_UNPACKING)};

pup_er pup_new_fmt(pup_er p)
{
    const iso_pup_t *below = p;
    pup_er fmt = iso_pup_new(&kinds[below->kind->direction], p);
    if (fmt)
        ((iso_pup_t *)fmt)->use = below->use;
    return fmt;
}

iso_pup_t *iso_pup_below(const iso_pup_t *pup)
{
    return pup->kind->items == pass_items ? pup->context : NULL;
}
