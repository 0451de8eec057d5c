/*
 * pup.c - what all kinds of pup_er have in common: status, size, direction, and items of every type.
 *
 * An item reaches its kind's table only while there is no error: kinds need not ask. After one, what is unpacked
 * is zero.
 */
#include "core/pup.h"
#include "core/depth.h"
#include "core/log.h"
#include <stdlib.h>
#include <string.h>

#define USES                                                                          \
    (ISO_PUP_DELETING | ISO_PUP_USERLEVEL | ISO_PUP_RESTARTING | ISO_PUP_CHECKPOINT | \
     ISO_PUP_MIGRATION)

static iso_pup_t *of(const pup_er p)
{
    return p;
}

pup_er iso_pup_new(const iso_pup_kind_t *kind, void *context)
{
    iso_logger_t logger = iso_logger_default();
    if (kind->struct_size != sizeof *kind || !kind->items) {
        iso_log(&logger, ISO_LOG_ERROR,
                "iso_pup_new: the kind has %zu bytes and %s items: it must be an iso_pup_kind_t of "
                "%zu bytes, with them",
                kind->struct_size, kind->items ? "its" : "no", sizeof *kind);
        return NULL;
    }
    iso_pup_t *pup = calloc(1, sizeof *pup);
    if (!pup) {
        iso_log(&logger, ISO_LOG_ERROR, "no memory for a pup_er");
        return NULL;
    }
    pup->kind = kind;
    pup->context = context;
    return pup;
}

pup_er iso_pup_new_own(const iso_pup_kind_t *kind, void *context)
{
    pup_er p = context ? iso_pup_new(kind, context) : NULL;
    if (!p)
        free(context);
    return p;
}

void pup_destroy(pup_er p)
{
    if (!p)
        return;
    iso_pup_flush(p);
    iso_depth_enter();
    if (of(p)->kind->destroy)
        of(p)->kind->destroy(of(p)->context);
    iso_depth_leave();
    free(p);
}

/* ---- what it is -------------------------------------------------------------------------------- */

static int is(const pup_er p, iso_pup_direction_t direction)
{
    return of(p)->kind->direction == direction;
}

int pup_isSizing(const pup_er p)
{
    return is(p, ISO_PUP_SIZING);
}

int pup_isPacking(const pup_er p)
{
    return is(p, ISO_PUP_PACKING);
}

int pup_isUnpacking(const pup_er p)
{
    return is(p, ISO_PUP_UNPACKING);
}

static int is_used(const pup_er p, iso_pup_use_t use)
{
    return (of(p)->use & use) != 0;
}

int pup_isDeleting(const pup_er p)
{
    return is_used(p, ISO_PUP_DELETING);
}

int pup_isUserlevel(const pup_er p)
{
    return is_used(p, ISO_PUP_USERLEVEL);
}

int pup_isRestarting(const pup_er p)
{
    return is_used(p, ISO_PUP_RESTARTING);
}

int pup_isCheckpoint(const pup_er p)
{
    return is_used(p, ISO_PUP_CHECKPOINT);
}

int pup_isMigration(const pup_er p)
{
    return is_used(p, ISO_PUP_MIGRATION);
}

char *pup_typeString(const pup_er p)
{
    return (char *)(uintptr_t)of(p)->kind->name; /* as Converse declares it */
}

iso_status_t iso_pup_set_use(pup_er p, unsigned use)
{
    iso_logger_t logger = iso_logger_default();
    const char *why = NULL;
    const iso_pup_t *bottom = p;
    for (const iso_pup_t *below; (below = iso_pup_below(bottom)) != NULL;)
        bottom = below;
    if (use & ~(unsigned)USES)
        why = "has unknown bits";
    else if ((use & ISO_PUP_DELETING) && (!is(p, ISO_PUP_PACKING) || iso_pup_is_checksum(bottom)))
        why = "says DELETING, and nothing is kept of what is packed";
    else if (of(p)->size > 0)
        why = "comes after the first item";
    if (why) {
        iso_log(&logger, ISO_LOG_ERROR, "iso_pup_set_use: %#x %s (kind %s)", use, why,
                of(p)->kind->name);
        return ISO_ERR_INVALID;
    }
    of(p)->use = use;
    return ISO_OK;
}

size_t pup_size(const pup_er p)
{
    return of(p)->size;
}

iso_status_t iso_pup_status(const pup_er p)
{
    return of(p)->status;
}

iso_status_t iso_pup_flush(pup_er p)
{
    iso_pup_t *pup = of(p);
    iso_depth_enter();
    if (pup->status == ISO_OK && pup->kind->flush)
        iso_pup_fail(p, pup->kind->flush(pup->context));
    iso_depth_leave();
    return pup->status;
}

/* What labels are put on by pup_new_fmt is not whole either: who made that one looks at it. */
void iso_pup_fail(pup_er p, iso_status_t status)
{
    for (iso_pup_t *pup = p; pup && status != ISO_OK; pup = iso_pup_below(pup))
        if (pup->status == ISO_OK)
            pup->status = status;
}

/* ---- items ------------------------------------------------------------------------------------- */

void iso_pup_items(pup_er p, void *data, size_t count, size_t size, iso_pup_type_t type)
{
    iso_pup_t *pup = of(p);
    size_t bytes;
    if (count == 0)
        return;
    if (__builtin_mul_overflow(count, size,
                               &bytes)) { /* a count that was damaged: no memory has that */
        iso_pup_fail(p, ISO_ERR_INVALID);
        return;
    }
    if (pup->status == ISO_OK) {
        iso_depth_enter();
        iso_pup_fail(p, pup->kind->items(pup->context, data, count, size, type));
        iso_depth_leave();
        if (pup->status == ISO_OK) {
            pup->size += bytes;
            return;
        }
    }
    if (pup->kind->direction == ISO_PUP_UNPACKING)
        memset(data, 0, bytes);
}

/* NOLINTBEGIN(bugprone-macro-parentheses): a type */
#define PUP_TYPE(name, type, code)                           \
    void pup_##name(pup_er p, type *v)                       \
    {                                                        \
        iso_pup_items(p, v, 1, sizeof *v, code);             \
    }                                                        \
    void pup_##name##s(pup_er p, type *array, size_t count)  \
    {                                                        \
        iso_pup_items(p, array, count, sizeof *array, code); \
    }
/* NOLINTEND(bugprone-macro-parentheses) */
PUP_TYPE(char, char, ISO_PUP_CHAR)
PUP_TYPE(short, short, ISO_PUP_SHORT)
PUP_TYPE(int, int, ISO_PUP_INT)
PUP_TYPE(long, long, ISO_PUP_LONG)
PUP_TYPE(uchar, unsigned char, ISO_PUP_UCHAR)
PUP_TYPE(ushort, unsigned short, ISO_PUP_USHORT)
PUP_TYPE(uint, unsigned int, ISO_PUP_UINT)
PUP_TYPE(ulong, unsigned long, ISO_PUP_ULONG)
PUP_TYPE(float, float, ISO_PUP_FLOAT)
PUP_TYPE(double, double, ISO_PUP_DOUBLE)
PUP_TYPE(pointer, void *, ISO_PUP_POINTER)
PUP_TYPE(int8, int64_t, ISO_PUP_INT8)
PUP_TYPE(size_t, size_t, ISO_PUP_SIZE)

void pup_bytes(pup_er p, void *bytes, size_t count)
{
    iso_pup_items(p, bytes, count, 1, ISO_PUP_BYTES);
}

/* ---- marks ------------------------------------------------------------------------------------- */

void pup_syncComment(const pup_er p, unsigned sync, const char *message)
{
    iso_pup_t *pup = of(p);
    iso_depth_enter();
    if (pup->status == ISO_OK && pup->kind->mark)
        iso_pup_fail(p, pup->kind->mark(pup->context, sync, message ? message : ""));
    iso_depth_leave();
}

/* Numbers of ours, out of the way of a program's. */
enum {
    SYNC_COMMENT = 0x50757000,
    SYNC_BEGIN_OBJECT,
    SYNC_END_OBJECT,
    SYNC_BEGIN_ARRAY,
    SYNC_END_ARRAY,
    SYNC_ITEM
};

void pup_comment(const pup_er p, const char *message)
{
    pup_syncComment(p, SYNC_COMMENT, message);
}

void pup_fmt_sync_begin_object(pup_er p)
{
    pup_syncComment(p, SYNC_BEGIN_OBJECT, "begin of an object");
}

void pup_fmt_sync_end_object(pup_er p)
{
    pup_syncComment(p, SYNC_END_OBJECT, "end of an object");
}

void pup_fmt_sync_begin_array(pup_er p)
{
    pup_syncComment(p, SYNC_BEGIN_ARRAY, "begin of an array");
}

void pup_fmt_sync_end_array(pup_er p)
{
    pup_syncComment(p, SYNC_END_ARRAY, "end of an array");
}

void pup_fmt_sync_item(pup_er p)
{
    pup_syncComment(p, SYNC_ITEM, "item");
}
