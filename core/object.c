/* object.c - see object.h. */
#include "core/object.h"
#include "core/depth.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/migrate.h"
#include "core/object_pup.h"
#include "core/peer.h"
#include "core/shared.h"
#include "core/stack.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

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

/* false: there is one of this name. */
static bool enter_kind(iso_job_t *job, iso_object_kind_t *kind)
{
    iso_job_lock(job);
    const bool taken = kind_of(job, kind->id);
    if (!taken) {
        kind->next = job->object_kinds;
        job->object_kinds = kind;
        iso_wait_note(job, 1); /* what has waited for it can be delivered */
    }
    iso_job_unlock(job);
    return !taken;
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
    if (enter_kind(job, kind))
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

/* ---- there ---------------------------------------------------------------------------------------- */

static uint64_t type_of(const iso_delivery_t *delivery)
{
    uint64_t type;
    if (delivery->has_carrier)
        return ((const iso_parcel_list_t *)iso_heap_root(delivery->heap))->type;
    memcpy(&type, delivery->header, sizeof type);
    return type;
}

bool iso_object_is_known(const iso_job_t *job, const iso_delivery_t *delivery)
{
    return kind_of(job, type_of(delivery)) != NULL;
}

static void deliver_alone(iso_job_t *job, iso_heap_t *heap, uint32_t source)
{
    iso_delivery_t *rest = iso_delivery_new(heap, source, 0, NULL, 0);
    iso_log(
        &job->logger, ISO_LOG_ERROR,
        "pup: heap %p came with an object whose routine did not unpack it: it stays here, and %s",
        (void *)heap, rest ? "has an arrival of its own" : "nobody is told");
    if (!rest)
        return;
    iso_job_lock(job);
    iso_job_deliver(job, rest);
    iso_job_unlock(job);
}

/* Heaps that the routine has not asked for are not lost: they arrive by themselves. */
static void deliver_rest(iso_job_t *job, const iso_pass_t *pass, uint32_t source)
{
    if (!pass->carrier) {
        if (pass->heap)
            deliver_alone(job, pass->heap, source);
        return;
    }
    iso_parcel_list_t *list = iso_heap_root(pass->carrier);
    for (uint32_t i = 0; i < list->member_count; i++) {
        iso_heap_t *heap = (iso_heap_t *)(uintptr_t)iso_parcel_members(list)[i].heap;
        if (heap)
            deliver_alone(job, heap, source);
    }
}

static void start_unpacking(iso_pass_t *pass, const iso_delivery_t *delivery)
{
    if (delivery->has_carrier) {
        pass->carrier = delivery->heap;
        pass->piece = ((iso_parcel_list_t *)iso_heap_root(delivery->heap))->pieces;
        return;
    }
    pass->heap = delivery->heap;
    pass->header = (const unsigned char *)delivery->header + ISO_OBJECT_HEADER;
    pass->header_len = delivery->header_len - ISO_OBJECT_HEADER;
}

bool iso_object_arrived(iso_job_t *job, const iso_delivery_t *delivery)
{
    iso_pass_t pass = {.job = job};
    start_unpacking(&pass, delivery);
    iso_job_lock(job);
    const iso_object_type_t type = kind_of(job, type_of(delivery))->type;
    iso_job_unlock(job);
    void *object = calloc(1, type.size);
    pup_er p = object ? iso_pup_new(&iso_pass_unpacker, &pass) : NULL;
    if (!p) { /* its source has no other: it waits in what has come */
        if (delivery->again == 0)
            iso_log(&job->logger, ISO_LOG_ERROR,
                    "no memory for an object of type %s from rank %" PRIu32
                    ": it waits until there is",
                    type.name, delivery->source);
        free(object);
        return false;
    }
    iso_pup_set_use(p, ISO_PUP_MIGRATION);
    type.pup(p, object);
    const iso_status_t status = iso_pup_status(p);
    if (status != ISO_OK)
        iso_log(&job->logger, ISO_LOG_ERROR,
                "an object of type %s from rank %" PRIu32
                " is not whole: its routine does not unpack what it packed",
                type.name, delivery->source);
    pup_destroy(p);
    deliver_rest(job, &pass, delivery->source);
    if (pass.carrier)
        iso_heap_destroy(pass.carrier);
    type.arrived(job, object, delivery->source, status, type.arg);
    return true;
}

/* ---- here ----------------------------------------------------------------------------------------- */

void iso_object_gone(iso_job_t *job, iso_parcel_t *parcel)
{
    pup_er p = iso_pup_new(&iso_pass_freer, NULL);
    if (p) {
        iso_pup_set_use(p, ISO_PUP_MIGRATION | ISO_PUP_DELETING);
        iso_depth_enter();
        parcel->kind->type.pup(p, parcel->object);
        iso_depth_leave();
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
static iso_status_t send_to_self(iso_parcel_t *parcel, iso_hold_t *hold, const iso_pass_t *pass,
                                 iso_request_t **request_p)
{
    iso_job_t *job = hold->job;
    iso_request_t *request = NULL;
    iso_delivery_t *delivery =
        iso_delivery_new(hold->heap, job->rank, 0, pass->packed, pass->header_len);
    iso_status_t status =
        delivery ? iso_request_open(hold, job->rank, NULL, 0, &request) : ISO_ERR_NO_MEMORY;
    if (status != ISO_OK) {
        free(delivery);
        return status;
    }
    delivery->is_object = true;
    delivery->has_carrier = parcel->carrier;
    iso_job_deliver(job, delivery);
    iso_parcel_set_state(parcel, ISO_HEAP_OWNED);
    request->parcel = parcel;
    request->step = ISO_STEP_ENDED;
    request->status = ISO_OK;
    job->stats.migrations_out++;
    job->stats.migrations_in++;
    *request_p = request;
    return ISO_OK;
}

/* The members' locks are taken. */
static iso_status_t send_carrier(iso_parcel_t *parcel, const iso_pass_t *pass, uint32_t dest,
                                 iso_request_t **request_p)
{
    iso_job_t *job = pass->job;
    const bool goes = dest != job->rank;
    if (goes) {
        iso_job_lock(job);
        iso_parcel_freeze(parcel);
        iso_job_unlock(job);
    }
    const bool written =
        iso_parcel_write(pass->carrier, pass->type, parcel->members, parcel->member_count);
    iso_status_t status = written ? ISO_OK : ISO_ERR_NO_SPACE;
    iso_job_lock(job);
    if (written)
        status = goes ? iso_parcel_send(parcel, dest, request_p)
                      : send_to_self(parcel, parcel->carrier, pass, request_p);
    if (status != ISO_OK && goes)
        iso_parcel_thaw(parcel);
    iso_job_unlock(job);
    return status;
}

/* Its one heap, with the rest in the header. The heap's lock is taken. */
static iso_status_t send_heap(iso_parcel_t *parcel, const iso_pass_t *pass, uint32_t dest,
                              iso_request_t **request_p)
{
    iso_job_t *job = pass->job;
    iso_hold_t *hold = parcel->members[0];
    iso_request_t *request = NULL;
    iso_job_lock(job);
    iso_parcel_set_state(parcel, ISO_HEAP_OWNED);
    parcel->member_count = 0; /* it is the request's own heap, and has the state of that */
    iso_status_t status =
        dest == job->rank ? send_to_self(parcel, hold, pass, request_p)
                          : iso_request_open(hold, dest, pass->packed, pass->header_len, &request);
    if (status == ISO_OK && request)
        status = iso_request_freeze(request);
    if (status == ISO_OK && request) {
        request->parcel = parcel;
        *request_p = request;
        iso_migrate_begin(request);
    }
    iso_job_unlock(job);
    return status;
}

/* The heaps are picked, and not frozen yet. */
static void bring_code(const iso_parcel_t *parcel, iso_job_t *job, uint32_t dest)
{
    iso_job_lock(job);
    for (uint32_t i = 0; i < parcel->member_count && dest != job->rank; i++)
        iso_stack_code_leave(parcel->members[i], iso_peer_find(job, dest));
    iso_job_unlock(job);
}

static iso_status_t send(iso_parcel_t *parcel, const iso_pass_t *pass, uint32_t dest,
                         iso_request_t **request_p)
{
    const uint32_t count = parcel->member_count; /* of members: the parcel may be gone soon */
    iso_shared_t **locks = calloc(count + 1, sizeof *locks);
    if (!locks)
        return ISO_ERR_NO_MEMORY;
    bring_code(parcel, pass->job, dest);
    /* all in one order, so that two threads do not wait for each other */
    if (count > 1)
        qsort(parcel->members, count, sizeof *parcel->members, by_address);
    for (uint32_t i = 0; i < count; i++) /* waits for those who are inside */
        locks[i] = iso_shared_lock(parcel->members[i]->heap);
    iso_status_t status = pass->carrier ? send_carrier(parcel, pass, dest, request_p)
                                        : send_heap(parcel, pass, dest, request_p);
    for (uint32_t i = 0; i < count; i++)
        iso_shared_leave(locks[i]);
    free(locks);
    return status;
}

static iso_status_t pack(iso_pass_t *pass, const iso_object_kind_t *kind, void *object)
{
    pup_er p = iso_pup_new(&iso_pass_packer, pass);
    if (!p)
        return ISO_ERR_NO_MEMORY;
    pass->type = kind->id;
    memcpy(pass->packed, &kind->id, ISO_OBJECT_HEADER);
    pass->header_len = ISO_OBJECT_HEADER;
    iso_pup_set_use(p, ISO_PUP_MIGRATION);
    iso_depth_enter();
    kind->type.pup(p, object);
    iso_depth_leave();
    iso_status_t status = iso_pup_status(p);
    pup_destroy(p);
    if (status == ISO_OK && !pass->carrier && pass->member_count != 1)
        status = iso_pass_make_carrier(pass);
    return status;
}

/* Nothing has become of it. */
static void take_back(iso_pass_t *pass, iso_parcel_t *parcel)
{
    iso_job_lock(pass->job);
    iso_parcel_set_state(parcel, ISO_HEAP_OWNED);
    iso_job_unlock(pass->job);
    if (pass->carrier)
        iso_heap_destroy(pass->carrier);
    iso_parcel_free(parcel);
}

iso_status_t iso_migrate_pup(iso_job_t *job, uint32_t dest, const char *type, void *object,
                             iso_request_t **request_p)
{
    iso_peer_t *peer;
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
    iso_pass_t pass = {.job = job};
    iso_parcel_t *parcel = calloc(1, sizeof *parcel);
    if (!parcel)
        return ISO_ERR_NO_MEMORY;
    status = pack(&pass, kind, object);
    *parcel = (iso_parcel_t){.carrier = pass.carrier ? iso_hold_find(job, pass.carrier) : NULL,
                             .members = pass.members,
                             .member_count = pass.member_count,
                             .kind = kind,
                             .object = object,
                             .delivery = iso_delivery_new(NULL, job->rank, 0, NULL, 0)};
    if (status == ISO_OK && !parcel->delivery)
        status = ISO_ERR_NO_MEMORY;
    if (status == ISO_OK)
        status = send(parcel, &pass, dest, request_p);
    if (status != ISO_OK)
        take_back(&pass, parcel);
    return status;
}
