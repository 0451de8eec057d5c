/*
 * object.c - see object.h.
 *
 * Three kinds of pup_er. One packs bytes into pieces, which are blocks of the carrier, and picks the heaps that are
 * to come along. One takes them out again at the target. And one passes over everything, so that the routine frees what
 * has gone.
 */
#include "core/object.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/migrate.h"
#include "core/peer.h"
#include "core/shared.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_FIRST ((size_t)2000) /* bytes; each has twice as many as the one before, to a limit */
#define PIECE_MOST ((size_t)1 << 20)
#define HEAP_MARK UINT64_C(0x50414548) /* "HEAP", before a heap's address */

typedef struct pass {
    iso_job_t *job;
    iso_heap_t *carrier;
    iso_parcel_piece_t *piece; /* packing: the last; unpacking: the one to go on with */
    uint64_t at;               /* unpacking: in it */
    iso_hold_t **members;      /* packing: picked so far */
    uint32_t member_count, member_room;
} pass_t;

/* ---- types -------------------------------------------------------------------------------------- */

static uint64_t hash_of(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return hash;
}

static const iso_object_kind_t *kind_of(const iso_job_t *job, uint64_t id)
{
    const iso_object_kind_t *kind = job->object_kinds;
    while (kind && kind->id != id)
        kind = kind->next;
    return kind;
}

static iso_status_t refuse_type(const iso_job_t *job, const char *name, const char *why)
{
    iso_log(&job->logger, ISO_LOG_ERROR, "iso_pup_register of %s: %s",
            name ? name : "a type without a name", why);
    return ISO_ERR_INVALID;
}

iso_status_t iso_pup_register(iso_job_t *job, const iso_object_type_t *type)
{
    if (type->struct_size != sizeof *type || !type->name || !*type->name || !type->pup ||
        !type->arrived || type->size == 0)
        return refuse_type(job, type->struct_size == sizeof *type ? type->name : NULL,
                           "a name, a size, a routine and an arrival callback are needed, and "
                           "struct_size");
    iso_object_kind_t *kind = malloc(sizeof *kind);
    char *name = strdup(type->name);
    if (!kind || !name) {
        free(kind);
        free(name);
        return ISO_ERR_NO_MEMORY;
    }
    *kind = (iso_object_kind_t){.id = hash_of(name), .type = *type};
    kind->type.name = name;
    iso_job_lock(job);
    const bool taken = kind_of(job, kind->id);
    if (!taken) {
        kind->next = job->object_kinds;
        job->object_kinds = kind;
        iso_wait_note(job, 1); /* what has waited for it can be delivered */
    }
    iso_job_unlock(job);
    if (!taken)
        return ISO_OK;
    free(name);
    free(kind);
    return refuse_type(job, type->name, "the name is taken");
}

void iso_object_kinds_close(iso_job_t *job)
{
    for (iso_object_kind_t *kind = job->object_kinds, *next; kind; kind = next) {
        next = kind->next;
        free((char *)(uintptr_t)kind->type.name);
        free(kind);
    }
    job->object_kinds = NULL;
}

/* ---- packing ------------------------------------------------------------------------------------ */

static iso_parcel_piece_t *add_piece(pass_t *pass, size_t wanted)
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

static iso_status_t pack_items(void *context, void *data, size_t items, size_t size,
                               iso_pup_type_t type)
{
    pass_t *pass = context;
    const unsigned char *from = data;
    size_t left = items * size;
    (void)type;
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

static iso_status_t pick(pass_t *pass, iso_heap_t *heap)
{
    iso_job_t *job = pass->job;
    const char *why;
    iso_status_t status = ISO_OK;
    iso_hold_t *hold = iso_hold_find(job, heap);
    if (!hold)
        status = ISO_ERR_NOT_OWNER, why = "it is not at this rank";
    else if (hold->state != ISO_HEAP_OWNED)
        status = ISO_ERR_BUSY, why = "it is migrating, or in an object already";
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
    hold->state = ISO_HEAP_MOVING; /* so that nobody else takes it */
    pass->members[pass->member_count++] = hold;
    return ISO_OK;
}

static const iso_pup_kind_t packer = {.struct_size = sizeof packer,
                                      .name = "to a rank",
                                      .direction = ISO_PUP_PACKING,
                                      .items = pack_items};

/* ---- unpacking ---------------------------------------------------------------------------------- */

static iso_status_t unpack_items(void *context, void *data, size_t items, size_t size,
                                 iso_pup_type_t type)
{
    pass_t *pass = context;
    unsigned char *to = data;
    size_t left = items * size;
    (void)type;
    while (left > 0) {
        while (pass->piece && pass->at == pass->piece->length) {
            pass->piece = pass->piece->next;
            pass->at = 0;
        }
        if (!pass->piece) {
            iso_log(&pass->job->logger, ISO_LOG_ERROR,
                    "pup: the routine unpacks %zu bytes more than it packed", left);
            return ISO_ERR_INVALID;
        }
        uint64_t there = pass->piece->length - pass->at;
        size_t now = there < left ? (size_t)there : left;
        memcpy(to, pass->piece->bytes + pass->at, now);
        pass->at += now;
        to += now;
        left -= now;
    }
    return ISO_OK;
}

static const iso_pup_kind_t unpacker = {.struct_size = sizeof unpacker,
                                        .name = "from a rank",
                                        .direction = ISO_PUP_UNPACKING,
                                        .items = unpack_items};

/* Takes it off the list of those that have come along. */
static iso_heap_t *take_member(const pass_t *pass, uint64_t heap)
{
    iso_parcel_list_t *list = iso_heap_root(pass->carrier);
    iso_parcel_member_t *members = iso_parcel_members(list);
    for (uint32_t i = 0; i < list->member_count; i++)
        if (members[i].heap == heap) {
            members[i].heap = 0;
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

static const iso_pup_kind_t freer = {.struct_size = sizeof freer,
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
    return bottom(p)->kind == &freer;
}

bool iso_object_is_by(const pup_er p)
{
    const iso_pup_kind_t *kind = bottom(p)->kind;
    return kind == &packer || kind == &unpacker || kind == &freer;
}

void iso_object_heap(pup_er p, iso_job_t *job, iso_heap_t **heap_p)
{
    const iso_pup_kind_t *kind = bottom(p)->kind;
    pass_t *pass = bottom(p)->context;
    uint64_t mark[2] = {HEAP_MARK, (uintptr_t)*heap_p};
    if (kind == &freer) {
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
    if (kind == &packer) {
        iso_job_lock(pass->job);
        iso_pup_fail(p, pick(pass, *heap_p));
        iso_job_unlock(pass->job);
    }
    pup_bytes(p, mark, sizeof mark);
    if (kind == &packer || iso_pup_status(p) != ISO_OK)
        return;
    iso_heap_t *heap = mark[0] == HEAP_MARK ? take_member(pass, mark[1]) : NULL;
    if (heap) {
        *heap_p = heap;
        return;
    }
    iso_log(&job->logger, ISO_LOG_ERROR, "pup: the routine unpacks a heap where it packed none");
    iso_pup_fail(p, ISO_ERR_INVALID);
}

/* ---- there ---------------------------------------------------------------------------------------- */

bool iso_object_is_known(const iso_job_t *job, const iso_delivery_t *delivery)
{
    const iso_parcel_list_t *list = iso_heap_root(delivery->heap);
    return kind_of(job, list->type) != NULL;
}

/* Heaps that the routine has not asked for are not lost: they arrive by themselves. */
static void deliver_rest(iso_job_t *job, iso_heap_t *carrier, const iso_delivery_t *delivery)
{
    iso_parcel_list_t *list = iso_heap_root(carrier);
    for (uint32_t i = 0; i < list->member_count; i++) {
        iso_heap_t *heap = (iso_heap_t *)(uintptr_t)iso_parcel_members(list)[i].heap;
        iso_delivery_t *rest = heap ? iso_delivery_new(heap, delivery->source, 0, NULL, 0) : NULL;
        if (!heap)
            continue;
        iso_log(
            &job->logger, ISO_LOG_ERROR,
            "pup: heap %p came with an object whose routine did not unpack it: it stays here, and "
            "%s",
            (void *)heap, rest ? "has an arrival of its own" : "nobody is told");
        if (!rest)
            continue;
        iso_job_lock(job);
        iso_job_deliver(job, rest);
        iso_job_unlock(job);
    }
}

void iso_object_arrived(iso_job_t *job, const iso_delivery_t *delivery)
{
    iso_parcel_list_t *list = iso_heap_root(delivery->heap);
    pass_t pass = {.job = job, .carrier = delivery->heap, .piece = list->pieces};
    iso_job_lock(job);
    const iso_object_type_t type = kind_of(job, list->type)->type;
    iso_job_unlock(job);
    void *object = calloc(1, type.size);
    pup_er p = iso_pup_new(&unpacker, &pass);
    iso_status_t status = ISO_ERR_NO_MEMORY;
    if (object && p) {
        iso_pup_set_use(p, ISO_PUP_MIGRATION);
        type.pup(p, object);
        status = iso_pup_status(p);
        if (status != ISO_OK)
            iso_log(&job->logger, ISO_LOG_ERROR,
                    "an object of type %s from rank %" PRIu32
                    " is not whole: its routine does not unpack what it packed",
                    type.name, delivery->source);
    } else {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "no memory for an object of type %s from rank %" PRIu32
                ": it is lost, but for its heaps",
                type.name, delivery->source);
    }
    pup_destroy(p);
    deliver_rest(job, delivery->heap, delivery);
    iso_heap_destroy(delivery->heap);
    if (object && p)
        type.arrived(job, object, delivery->source, status, type.arg);
    else
        free(object);
}

/* ---- here ----------------------------------------------------------------------------------------- */

void iso_object_gone(iso_job_t *job, iso_parcel_t *parcel)
{
    pup_er p = iso_pup_new(&freer, NULL);
    if (p) {
        iso_pup_set_use(p, ISO_PUP_MIGRATION | ISO_PUP_DELETING);
        parcel->kind->type.pup(p, parcel->object);
    } else {
        iso_log(&job->logger, ISO_LOG_ERROR, "no memory to free what an object of type %s had here",
                parcel->kind->type.name);
    }
    pup_destroy(p);
    iso_parcel_free(parcel);
}

void iso_object_doubt_ended(iso_job_t *job, iso_parcel_t *parcel, bool stayed)
{
    iso_delivery_t *delivery = parcel->delivery;
    parcel->delivery = NULL;
    parcel->stayed = stayed;
    delivery->settled = parcel;
    iso_job_deliver(job, delivery);
}

void iso_object_settled(iso_job_t *job, iso_parcel_t *parcel)
{
    if (!parcel->stayed) {
        iso_object_gone(job, parcel);
        return;
    }
    const iso_object_type_t *type = &parcel->kind->type;
    if (type->stayed)
        type->stayed(job, parcel->object, type->arg);
    iso_parcel_free(parcel);
}

static int by_address(const void *a, const void *b)
{
    const iso_hold_t *const *left = a, *const *right = b;
    return (*left)->heap < (*right)->heap ? -1 : (*left)->heap > (*right)->heap;
}

/* To the rank itself: the object is unpacked anew, its heaps are where they are. */
static iso_status_t send_to_self(iso_parcel_t *parcel, iso_request_t **request_p)
{
    iso_job_t *job = parcel->carrier->job;
    iso_request_t *request = NULL;
    iso_status_t status = iso_request_open(parcel->carrier, job->rank, NULL, 0, &request);
    if (status != ISO_OK)
        return status;
    parcel->delivery->is_object = true;
    iso_job_deliver(job, parcel->delivery);
    parcel->delivery = NULL;
    iso_parcel_set_state(parcel, ISO_HEAP_OWNED);
    request->parcel = parcel;
    request->step = ISO_STEP_ENDED;
    request->status = ISO_OK;
    job->stats.migrations_out++;
    job->stats.migrations_in++;
    *request_p = request;
    return ISO_OK;
}

static iso_status_t send(iso_job_t *job, iso_parcel_t *parcel, uint32_t dest,
                         iso_request_t **request_p)
{
    const uint64_t type = parcel->kind->id;
    const uint32_t count = parcel->member_count; /* of members: the parcel may be gone soon */
    iso_shared_t **locks = calloc(count + 1, sizeof *locks);
    if (!locks)
        return ISO_ERR_NO_MEMORY;
    /* all in one order, so that two threads do not wait for each other */
    if (count > 1)
        qsort(parcel->members, count, sizeof *parcel->members, by_address);
    for (uint32_t i = 0; i < count; i++) /* waits for those who are inside */
        locks[i] = iso_shared_lock(parcel->members[i]->heap);
    if (dest != job->rank) {
        iso_job_lock(job);
        iso_parcel_freeze(parcel);
        iso_job_unlock(job);
    }
    iso_heap_t *carrier = parcel->carrier->heap;
    const bool written = iso_parcel_write(carrier, type, parcel->members, count);
    iso_status_t status = written ? ISO_OK : ISO_ERR_NO_SPACE;
    iso_job_lock(job);
    if (written)
        status = dest == job->rank ? send_to_self(parcel, request_p)
                                   : iso_parcel_send(parcel, dest, request_p);
    if (status != ISO_OK && dest != job->rank)
        iso_parcel_thaw(parcel);
    iso_job_unlock(job);
    for (uint32_t i = 0; i < count; i++)
        iso_shared_leave(locks[i]);
    free(locks);
    return status;
}

static iso_status_t pack(iso_job_t *job, iso_heap_t *carrier, const iso_object_kind_t *kind,
                         void *object, iso_parcel_t *parcel)
{
    pass_t pass = {.job = job, .carrier = carrier};
    pup_er p = iso_pup_new(&packer, &pass);
    if (!p)
        return ISO_ERR_NO_MEMORY;
    iso_pup_set_use(p, ISO_PUP_MIGRATION);
    kind->type.pup(p, object);
    iso_status_t status = iso_pup_status(p);
    pup_destroy(p);
    parcel->members = pass.members;
    parcel->member_count = pass.member_count;
    return status;
}

iso_status_t iso_migrate_pup(iso_job_t *job, uint32_t dest, const char *type, void *object,
                             iso_request_t **request_p)
{
    iso_peer_t *peer;
    iso_heap_t *carrier;
    if (!iso_job_is_ours(job, "iso_migrate_pup"))
        return ISO_ERR_INVALID;
    iso_job_lock(job);
    const iso_object_kind_t *kind = type ? kind_of(job, hash_of(type)) : NULL;
    iso_status_t status = ISO_OK;
    if (!kind)
        status = ISO_ERR_INVALID;
    else if (dest >= job->size)
        status = ISO_ERR_RANK;
    else if (dest != job->rank)
        status = iso_peer_get(job, dest, &peer);
    iso_job_unlock(job);
    if (status != ISO_OK) {
        iso_log(&job->logger, ISO_LOG_ERROR, "iso_migrate_pup of type %s to rank %" PRIu32 ": %s",
                type ? type : "NULL", dest,
                !kind ? "it is not registered (iso_pup_register)" : iso_status_string(status));
        return status;
    }
    iso_parcel_t *parcel = calloc(1, sizeof *parcel);
    status = parcel ? iso_heap_make(job, ISO_HEAP_CARRIER, &carrier) : ISO_ERR_NO_MEMORY;
    if (status != ISO_OK) {
        free(parcel);
        return status;
    }
    parcel->carrier = iso_hold_find(job, carrier);
    parcel->kind = kind;
    parcel->object = object;
    parcel->delivery = iso_delivery_new(carrier, job->rank, 0, NULL, 0);
    status = parcel->delivery ? ISO_OK : ISO_ERR_NO_MEMORY;
    if (status == ISO_OK && !iso_parcel_write(carrier, kind->id, NULL, 0))
        status = ISO_ERR_NO_SPACE;
    if (status == ISO_OK)
        status = pack(job, carrier, kind, object, parcel);
    if (status == ISO_OK)
        status = send(job, parcel, dest, request_p);
    if (status != ISO_OK) {
        iso_job_lock(job);
        iso_parcel_set_state(parcel, ISO_HEAP_OWNED);
        iso_job_unlock(job);
        iso_heap_destroy(carrier);
        iso_parcel_free(parcel);
    }
    return status;
}
