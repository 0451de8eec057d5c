/* arrive.c - a migration seen from its target. See arrive.h and core/README.md. */
#include "core/arrive.h"
#include "core/depth.h"
#include "core/heap.h"
#include "core/inline.h"
#include "core/job.h"
#include "core/left.h"
#include "core/migrate.h"
#include "core/stack.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void send_about(iso_job_t *job, iso_peer_t *peer, iso_msg_type_t type, const iso_msg_t *msg)
{
    iso_msg_t reply = {.type = type, .heap = msg->heap, .epoch = msg->epoch};
    iso_peer_send(job, peer, &reply);
}

static void send_nack(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg, iso_status_t reason)
{
    iso_msg_t reply = {.type = ISO_MSG_NACK,
                       .heap = msg->heap,
                       .epoch = msg->epoch,
                       .reason = reason,
                       .about = msg->type};
    job->stats.nacks_sent++;
    iso_peer_send(job, peer, &reply);
}

static iso_incoming_t *find(iso_job_t *job, uint32_t source, uint64_t heap)
{
    for (iso_incoming_t *incoming = job->incoming; incoming; incoming = incoming->next)
        if (incoming->source == source && (uintptr_t)incoming->heap == heap)
            return incoming;
    return NULL;
}

static void forget(iso_job_t *job, iso_incoming_t *incoming)
{
    iso_incoming_t **at = &job->incoming;
    while (*at != incoming)
        at = &(*at)->next;
    *at = incoming->next;
    free(incoming->extents);
    free(incoming);
}

/* It will not come: the slots are nobody's here again, and what was put stays as left behind. */
static void abandon(iso_job_t *job, iso_incoming_t *incoming)
{
    iso_hold_t *hold = incoming->hold;
    if (incoming->parcel) {
        iso_parcel_gone(incoming->parcel);
        iso_parcel_free(incoming->parcel);
    }
    if (hold) {
        if (!incoming->handover)
            iso_left_abandon(job, incoming->heap, hold->extents, hold->extent_count);
        iso_hold_drop(hold, false);
    }
    forget(job, incoming);
    iso_retain_trim(job);
}

static void own(iso_job_t *job, iso_incoming_t *incoming)
{
    iso_hold_t *hold = incoming->hold;
    hold->state = ISO_HEAP_OWNED;
    hold->arrival = NULL;
    if (incoming->promise)
        hold->grant = (iso_grant_t){incoming->source, incoming->promise, hold->extents_version};
    if (!incoming->handover)
        iso_left_own(job, hold->extents, hold->extent_count);
    iso_retain_arrived(job, hold->extents, hold->extent_count);
    hold->counted = true;
    if (incoming->parcel) {
        iso_parcel_split(incoming->parcel);
        iso_parcel_free(incoming->parcel);
    }
    iso_heap_thaw(hold);
    job->stats.migrations_in++;
    job->stats.heaps++;
    iso_job_deliver(job, incoming->delivery);
    forget(job, incoming);
    iso_stage_reach(&job->stage_test, ISO_STAGE_OWNED);
}

static bool admitted(iso_job_t *job, iso_heap_t *heap, uint32_t source, uint64_t bytes,
                     const void *header, size_t header_len)
{
    iso_arrival_t arrival = {heap, source, bytes, header, header_len};
    iso_depth_enter(); /* the job's lock is held */
    bool yes = !job->params.admit || job->params.admit(job, &arrival, job->params.admit_arg);
    iso_depth_leave();
    return yes;
}

static iso_status_t incoming_new(iso_job_t *job, uint32_t source, const iso_msg_t *msg,
                                 iso_incoming_t **incoming_p)
{
    iso_incoming_t *incoming = malloc(sizeof *incoming);
    if (!incoming)
        return ISO_ERR_NO_MEMORY;
    memset(incoming, 0, sizeof *incoming); /* as in request_new: without glibc's calloc */
    incoming->source = source;
    incoming->heap = (iso_heap_t *)(uintptr_t)msg->heap;
    incoming->epoch = msg->epoch;
    incoming->bytes = msg->bytes;
    incoming->next = job->incoming;
    job->incoming = incoming;
    *incoming_p = incoming;
    return ISO_OK;
}

/* Enters the slots. After this the pages are the arriving heap's. ISO_ERR_BUSY: they are another rank's. */
static iso_status_t enter(iso_job_t *job, iso_incoming_t *incoming, const iso_extent_t *extents,
                          uint32_t count, iso_coming_t coming)
{
    iso_hold_t *hold;
    iso_status_t status = iso_hold_adopt(job, incoming->heap, extents, count, &hold);
    if (status != ISO_OK)
        return status;
    if (!iso_left_claim(job, incoming->heap, extents, count, coming)) {
        iso_hold_drop(hold, false);
        return ISO_ERR_BUSY;
    }
    incoming->hold = hold;
    hold->epoch = incoming->epoch;
    hold->arrival = incoming;
    incoming->step = ISO_INCOMING_RESERVED;
    return ISO_OK;
}

static bool is_heap_address(const iso_job_t *job, uint64_t heap)
{
    uint64_t offset = heap - (uintptr_t)job->space.base;
    if (offset >= job->space.size)
        return false;
    uintptr_t slot = (uintptr_t)heap & ~(uintptr_t)ISO_SLOT_MASK;
    return (uintptr_t)iso_heap_at_slot(slot) == heap;
}

/* This message and the extents of it cannot be right, or cannot be served: say so and forget. */
static iso_status_t turn_away(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg,
                              iso_incoming_t *incoming, iso_status_t reason)
{
    send_nack(job, peer, msg, reason);
    if (incoming)
        forget(job, incoming);
    return reason == ISO_ERR_INVALID ? ISO_ERR_INVALID : ISO_OK;
}

iso_status_t iso_arrive_on_reserve(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_heap_t *heap = (iso_heap_t *)(uintptr_t)msg->heap;
    iso_stage_reach(&job->stage_test, ISO_STAGE_RESERVE_CAME);
    if (!is_heap_address(job, msg->heap) || msg->slots > job->slots.total)
        return turn_away(job, peer, msg, NULL, ISO_ERR_INVALID);
    iso_incoming_t *incoming = find(job, peer->rank, msg->heap);
    if (msg->part == 0) {
        if (incoming)
            return turn_away(job, peer, msg, NULL, ISO_ERR_INVALID);
        iso_migrate_settle(job);
        if (iso_hold_find(job, heap) || iso_left_is_stale(job, heap, msg->epoch))
            return turn_away(job, peer, msg, NULL, ISO_ERR_BUSY);
        if (!admitted(job, heap, peer->rank, msg->bytes, NULL, 0))
            return turn_away(job, peer, msg, NULL, ISO_ERR_REFUSED);
        if (incoming_new(job, peer->rank, msg, &incoming) != ISO_OK)
            return turn_away(job, peer, msg, NULL, ISO_ERR_NO_MEMORY);
        incoming->parts = msg->parts;
        incoming->slots = msg->slots;
        incoming->handover = msg->flags & ISO_RESERVE_HANDOVER;
    }
    if (!incoming || incoming->step != ISO_INCOMING_LISTING || incoming->epoch != msg->epoch ||
        incoming->parts != msg->parts || incoming->parts_seen != msg->part)
        return ISO_ERR_INVALID; /* a part of a list that was turned away, or out of order */
    uint32_t count = incoming->extent_count + msg->extent_count;
    iso_extent_t *extents = realloc(incoming->extents, (count + 1) * sizeof *extents);
    if (!extents)
        return turn_away(job, peer, msg, incoming, ISO_ERR_NO_MEMORY);
    memcpy(&extents[incoming->extent_count], msg->extents,
           msg->extent_count * sizeof *msg->extents);
    incoming->extents = extents;
    incoming->extent_count = count;
    if (++incoming->parts_seen < incoming->parts)
        return ISO_OK;

    uint64_t slots = 0;
    for (uint32_t i = 0; i < count; i++)
        slots += iso_extent_slots(&extents[i]);
    if (slots != incoming->slots || (incoming->handover && !peer->same_node))
        return turn_away(job, peer, msg, incoming, ISO_ERR_INVALID);
    iso_status_t status = enter(job, incoming, extents, count,
                                incoming->handover ? ISO_COMING_HANDOVER : ISO_COMING_RESERVED);
    if (status != ISO_OK)
        return turn_away(job, peer, msg, incoming, status);
    free(incoming->extents);
    incoming->extents = NULL;
    if (!incoming->handover) {
        send_about(job, peer, ISO_MSG_GRANT, msg);
        iso_stage_reach(&job->stage_test, ISO_STAGE_GRANT_SENT);
        iso_huge_expect(job, iso_heap_slot_of(heap), msg->dense, msg->dense_count);
    }
    return ISO_OK;
}

/* A COMMIT without a RESERVE: it must rest on a standing grant of ours. */
static iso_status_t enter_granted(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg,
                                  iso_incoming_t **incoming_p)
{
    iso_heap_t *heap = (iso_heap_t *)(uintptr_t)msg->heap;
    iso_left_t *left = is_heap_address(job, msg->heap)
                           ? iso_left_granted(job, heap, peer->rank, msg->generation)
                           : NULL;
    if (!left)
        return ISO_ERR_AGAIN;
    const bool is_object = msg->flags & ISO_COMMIT_OBJECT;
    if (!admitted(job, heap, peer->rank, msg->bytes, msg->data, is_object ? 0 : msg->data_len))
        return ISO_ERR_REFUSED;
    iso_incoming_t *incoming = NULL;
    const uint32_t count = left->extent_count;
    iso_extent_t few[ISO_EXTENTS_FEW];
    iso_extent_t *extents = count <= ISO_EXTENTS_FEW ? few : malloc(count * sizeof *extents);
    iso_status_t status =
        extents ? incoming_new(job, peer->rank, msg, &incoming) : ISO_ERR_NO_MEMORY;
    if (status == ISO_OK) { /* entering frees what was left */
        memcpy(extents, left->extents, count * sizeof *extents);
        status = enter(job, incoming, extents, count, ISO_COMING_GRANTED);
    }
    if (extents != few)
        free(extents);
    if (status == ISO_ERR_BUSY)
        status = ISO_ERR_AGAIN; /* the grant's pages were claimed by another rank of the node */
    if (status == ISO_OK)
        *incoming_p = incoming;
    else if (incoming)
        forget(job, incoming);
    return status;
}

/* What rides in the COMMIT. Pages that are handed over have come by themselves, and are still the source's. */
static iso_status_t land(const iso_incoming_t *incoming, const iso_msg_t *msg)
{
    if (msg->piece_count == 0 && !(msg->flags & ISO_COMMIT_HEAD))
        return ISO_OK;
    return incoming->handover ? ISO_ERR_INVALID : iso_inline_land(incoming->hold, msg);
}

iso_status_t iso_arrive_on_commit(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_incoming_t *incoming = find(job, peer->rank, msg->heap);
    iso_status_t status = ISO_OK;
    iso_stage_reach(&job->stage_test, ISO_STAGE_COMMIT_CAME);
    if ((msg->flags & ISO_COMMIT_OBJECT) && msg->data_len < ISO_OBJECT_HEADER)
        return turn_away(job, peer, msg, NULL, ISO_ERR_INVALID);
    if (!incoming && msg->generation) {
        iso_migrate_settle(job); /* it may be back before this rank has seen that it was taken */
        status = enter_granted(job, peer, msg, &incoming);
        if (status != ISO_OK) {
            if (peer->same_node)
                iso_node_decline(&job->node,
                                 iso_space_slot(&job->space, (void *)(uintptr_t)msg->heap),
                                 peer->rank, job->rank, msg->epoch);
            return turn_away(job, peer, msg, NULL, status);
        }
    }
    if (!incoming) /* its RESERVE was turned away (and answered), or there was none */
        return peer->same_node ? ISO_OK : turn_away(job, peer, msg, NULL, ISO_ERR_INVALID);
    if (incoming->step != ISO_INCOMING_RESERVED || incoming->epoch != msg->epoch)
        return turn_away(job, peer, msg, NULL, ISO_ERR_INVALID);
    incoming->promise = msg->promise;
    status = land(incoming, msg);
    if (status == ISO_OK)
        status = iso_heap_check_arrived(incoming->heap, msg->epoch, incoming->hold->extents,
                                        incoming->hold->extent_count);
    if (status == ISO_OK)
        status = iso_heap_take_in(job, incoming->heap);
    if (status == ISO_OK && iso_parcel_is(incoming->heap))
        status = iso_parcel_open(job, incoming->hold, incoming, &incoming->parcel);
    if (status == ISO_OK) {
        incoming->delivery =
            iso_delivery_new(incoming->heap, peer->rank, msg->bytes, msg->data, msg->data_len);
        if (!incoming->delivery)
            status = ISO_ERR_NO_MEMORY;
    }
    if (status == ISO_OK) {
        incoming->delivery->is_object = incoming->parcel || (msg->flags & ISO_COMMIT_OBJECT);
        incoming->delivery->has_carrier = incoming->parcel;
    }
    peer->same_code |= status == ISO_OK && iso_stack_code(incoming->heap) != 0;
    uint32_t slot = iso_space_slot(&job->space, incoming->heap);
    if (status != ISO_OK && peer->same_node &&
        !iso_node_decline(&job->node, slot, peer->rank, job->rank, msg->epoch)) {
        abandon(job, incoming); /* the source has it back already, and uses it */
        return ISO_OK;
    }
    if (status != ISO_OK) {
        if (status != ISO_ERR_CODE) /* which has been said */
            iso_log(&job->logger, ISO_LOG_ERROR,
                    "what rank %" PRIu32 " committed as heap %p is not one: %s", peer->rank,
                    (void *)incoming->heap, iso_status_string(status));
        send_nack(job, peer, msg, status);
        abandon(job, incoming);
        return ISO_OK;
    }
    if (!peer->same_node) {
        incoming->step = ISO_INCOMING_ARRIVED;
        send_about(job, peer, ISO_MSG_ACK, msg);
        iso_stage_reach(&job->stage_test, ISO_STAGE_ACK_SENT);
    } else if (iso_node_take(&job->node, slot, peer->rank, msg->epoch)) {
        iso_stage_reach(&job->stage_test, ISO_STAGE_TAKEN);
        own(job, incoming);
        send_about(job, peer, ISO_MSG_ACK, msg);
    } else { /* the source was quicker and has it back */
        free(incoming->delivery);
        abandon(job, incoming);
    }
    return ISO_OK;
}

iso_status_t iso_arrive_on_done(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_incoming_t *incoming = find(job, peer->rank, msg->heap);
    if (!incoming || incoming->step != ISO_INCOMING_ARRIVED || incoming->epoch != msg->epoch)
        return ISO_ERR_INVALID;
    iso_stage_reach(&job->stage_test, ISO_STAGE_DONE_CAME);
    own(job, incoming);
    return ISO_OK;
}

iso_status_t iso_arrive_on_cancel(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_incoming_t *incoming = find(job, peer->rank, msg->heap);
    if (!incoming) /* was turned away, or the node's word had decided */
        return ISO_OK;
    if (incoming->step == ISO_INCOMING_ARRIVED || incoming->epoch != msg->epoch)
        return ISO_ERR_INVALID;
    abandon(job, incoming);
    return ISO_OK;
}

void iso_arrive_on_death(iso_job_t *job, uint32_t source)
{
    for (iso_incoming_t *incoming = job->incoming, *next; incoming; incoming = next) {
        next = incoming->next;
        if (incoming->source != source)
            continue;
        if (incoming->step == ISO_INCOMING_ARRIVED)
            own(job, incoming);
        else
            abandon(job, incoming);
    }
}

void iso_arrive_close(iso_job_t *job)
{
    while (job->incoming) {
        free(job->incoming->delivery);
        iso_parcel_free(job->incoming->parcel);
        forget(job, job->incoming);
    }
}
