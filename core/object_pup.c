/* object_pup.c - see object_pup.h. */
#include "core/object_pup.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/stack.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_FIRST ((size_t)2000) /* bytes; each has twice as many as the one before, to a limit */
#define PIECE_MOST ((size_t)1 << 20)
#define HEAP_MARK UINT64_C(0x50414548) /* "HEAP", before a heap's address */

/* ---- packing ------------------------------------------------------------------------------------ */

static iso_parcel_piece_t *add_piece(iso_pass_t *pass, size_t wanted)
{
    iso_parcel_list_t *list = iso_heap_root(pass->carrier);
    size_t room = pass->piece ? 2 * pass->piece->room : PIECE_FIRST;
    if (room > PIECE_MOST)
        room = PIECE_MOST;
    if (room < wanted)
        room = wanted;
    iso_parcel_piece_t *piece = iso_malloc(pass->carrier, sizeof *piece + room);
    if (!piece)
        return NULL;
    piece->next = NULL;
    piece->length = 0;
    piece->room = room;
    *(pass->piece ? &pass->piece->next : &list->pieces) = piece;
    return pass->piece = piece;
}

static iso_status_t pack_bytes(iso_pass_t *pass, const unsigned char *from, size_t left)
{
    while (left > 0) {
        iso_parcel_piece_t *piece = pass->piece;
        if ((!piece || piece->length == piece->room) && !(piece = add_piece(pass, left)))
            return ISO_ERR_NO_SPACE;
        size_t now = piece->room - piece->length < left ? piece->room - piece->length : left;
        memcpy(piece->bytes + piece->length, from, now);
        piece->length += now;
        from += now;
        left -= now;
    }
    return ISO_OK;
}

/* What was in the header is its first bytes. */
iso_status_t iso_pass_make_carrier(iso_pass_t *pass)
{
    iso_heap_t *carrier;
    iso_status_t status = iso_heap_make(pass->job, ISO_HEAP_CARRIER, &carrier);
    if (status != ISO_OK)
        return status;
    pass->carrier = carrier;
    if (!iso_parcel_write(carrier, pass->type, NULL, 0))
        return ISO_ERR_NO_SPACE;
    return pack_bytes(pass, pass->packed + ISO_OBJECT_HEADER, pass->header_len - ISO_OBJECT_HEADER);
}

static iso_status_t pack_items(void *context, void *data, size_t items, size_t size,
                               iso_pup_type_t type)
{
    iso_pass_t *pass = context;
    const size_t length = items * size;
    (void)type;
    if (!pass->carrier && length <= sizeof pass->packed - pass->header_len) {
        if (length > 0)
            memcpy(pass->packed + pass->header_len, data, length);
        pass->header_len += length;
        return ISO_OK;
    }
    iso_status_t status = pass->carrier ? ISO_OK : iso_pass_make_carrier(pass);
    return status == ISO_OK ? pack_bytes(pass, data, length) : status;
}

static iso_status_t pick(iso_pass_t *pass, iso_heap_t *heap)
{
    iso_job_t *job = pass->job;
    char in_use[ISO_STACK_WHY];
    const char *why = NULL;
    iso_status_t status = ISO_OK;
    iso_hold_t *hold = iso_hold_find(job, heap);
    if (!hold)
        status = ISO_ERR_NOT_OWNER, why = "it is not at this rank";
    else if (hold->state != ISO_HEAP_OWNED)
        status = ISO_ERR_BUSY, why = "it is migrating, or in an object already";
    else if ((why = iso_stack_in_use(hold, in_use)))
        status = ISO_ERR_BUSY;
    if (status != ISO_OK) {
        iso_log(&job->logger, ISO_LOG_ERROR, "iso_migrate_pup, heap %p: %s", (void *)heap, why);
        return status;
    }
    if (pass->member_count == pass->member_room) {
        uint32_t room = 2 * pass->member_room + 4;
        iso_hold_t **members = realloc(pass->members, room * sizeof *members);
        if (!members)
            return ISO_ERR_NO_MEMORY;
        pass->members = members;
        pass->member_room = room;
    }
    iso_hold_undirect(hold);       /* its state is not the one that it had */
    hold->state = ISO_HEAP_MOVING; /* so that nobody else takes it */
    pass->members[pass->member_count++] = hold;
    return ISO_OK;
}

const iso_pup_kind_t iso_pass_packer = {.struct_size = sizeof iso_pass_packer,
                                        .name = "to a rank",
                                        .direction = ISO_PUP_PACKING,
                                        .items = pack_items};

/* ---- unpacking ---------------------------------------------------------------------------------- */

/* Bytes that are there to be unpacked next; 0: no more. */
static size_t bytes_ahead(iso_pass_t *pass, const unsigned char **bytes_p)
{
    if (!pass->carrier) {
        *bytes_p = pass->header + pass->at;
        return pass->header_len - (size_t)pass->at;
    }
    while (pass->piece && pass->at == pass->piece->length) {
        pass->piece = pass->piece->next;
        pass->at = 0;
    }
    if (!pass->piece)
        return 0;
    *bytes_p = pass->piece->bytes + pass->at;
    return (size_t)(pass->piece->length - pass->at);
}

static iso_status_t unpack_items(void *context, void *data, size_t items, size_t size,
                                 iso_pup_type_t type)
{
    iso_pass_t *pass = context;
    unsigned char *to = data;
    size_t left = items * size;
    (void)type;
    while (left > 0) {
        const unsigned char *bytes;
        size_t now = bytes_ahead(pass, &bytes);
        if (now == 0) {
            iso_log(&pass->job->logger, ISO_LOG_ERROR,
                    "pup: the routine unpacks %zu bytes more than it packed", left);
            return ISO_ERR_INVALID;
        }
        if (now > left)
            now = left;
        memcpy(to, bytes, now);
        pass->at += now;
        to += now;
        left -= now;
    }
    return ISO_OK;
}

const iso_pup_kind_t iso_pass_unpacker = {.struct_size = sizeof iso_pass_unpacker,
                                          .name = "from a rank",
                                          .direction = ISO_PUP_UNPACKING,
                                          .items = unpack_items};

/* Takes it off the list of those that have come along. */
static iso_heap_t *take_member(iso_pass_t *pass, uint64_t heap)
{
    if (!pass->carrier && (uintptr_t)pass->heap == heap) {
        pass->heap = NULL;
        return (iso_heap_t *)(uintptr_t)heap;
    }
    iso_parcel_list_t *list = pass->carrier ? iso_heap_root(pass->carrier) : NULL;
    for (uint32_t i = 0; list && i < list->member_count; i++)
        if (iso_parcel_members(list)[i].heap == heap) {
            iso_parcel_members(list)[i].heap = 0;
            return (iso_heap_t *)(uintptr_t)heap;
        }
    return NULL;
}

/* ---- passing over -------------------------------------------------------------------------------- */

static iso_status_t pass_over(void *context, void *data, size_t items, size_t size,
                              iso_pup_type_t type)
{
    (void)context, (void)data, (void)items, (void)size, (void)type;
    return ISO_OK;
}

const iso_pup_kind_t iso_pass_freer = {.struct_size = sizeof iso_pass_freer,
                                       .name = "gone to a rank",
                                       .direction = ISO_PUP_PACKING,
                                       .items = pass_over};

/* ---- heaps, of all three -------------------------------------------------------------------------- */

/* A routine may label what it packs. */
static const iso_pup_t *bottom(const pup_er p)
{
    const iso_pup_t *pup = p;
    for (const iso_pup_t *below; (below = iso_pup_below(pup)) != NULL;)
        pup = below;
    return pup;
}

bool iso_object_is_gone(const pup_er p)
{
    return bottom(p)->kind == &iso_pass_freer;
}

int iso_pup_is_gone(const pup_er p)
{
    return iso_object_is_gone(p);
}

bool iso_object_is_by(const pup_er p)
{
    const iso_pup_kind_t *kind = bottom(p)->kind;
    return kind == &iso_pass_packer || kind == &iso_pass_unpacker || kind == &iso_pass_freer;
}

void iso_object_heap(pup_er p, iso_job_t *job, iso_heap_t **heap_p)
{
    const iso_pup_kind_t *kind = bottom(p)->kind;
    iso_pass_t *pass = bottom(p)->context;
    uint64_t mark[2] = {HEAP_MARK, (uintptr_t)*heap_p};
    if (kind == &iso_pass_freer) {
        *heap_p = NULL;
        return;
    }
    if (job != pass->job) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "iso_pup_heap of heap %p: the object that it is part of migrates in another job",
                (void *)*heap_p);
        iso_pup_fail(p, ISO_ERR_INVALID);
        return;
    }
    if (kind == &iso_pass_packer) {
        iso_job_lock(pass->job);
        iso_pup_fail(p, pick(pass, *heap_p));
        iso_job_unlock(pass->job);
    }
    pup_bytes(p, mark, sizeof mark);
    if (kind == &iso_pass_packer || iso_pup_status(p) != ISO_OK)
        return;
    iso_heap_t *heap = mark[0] == HEAP_MARK ? take_member(pass, mark[1]) : NULL;
    if (heap) {
        *heap_p = heap;
        return;
    }
    iso_log(&job->logger, ISO_LOG_ERROR, "pup: the routine unpacks a heap where it packed none");
    iso_pup_fail(p, ISO_ERR_INVALID);
}
