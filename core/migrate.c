/* migrate.c - a migration seen from its source. See migrate.h and core/README.md. */
#include "core/migrate.h"
#include "core/ending.h"
#include "core/grant.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/left.h"
#include "core/prepare.h"
#include "core/put.h"
#include "core/stack.h"
#include "core/way.h"
#include <math.h>

/* A heap of not more than this, where the target has granted it already, is put while it is being begun: so that a target has
 * something to do while the caller begins more of them. A larger one would keep the caller waiting. */
#define PUT_AT_ONCE ((uint64_t)256 << 10)

static const char *const step_names[] = {"PREPARING", "FROZEN",   "RESERVING",
                                         "PUTTING",   "FLUSHING", "COMMITTED",
                                         "STOPPING",  "DOUBT",    "ENDED"};

const char *iso_step_name(iso_step_t step)
{
    return step_names[step];
}

static void reach(iso_request_t *request, iso_stage_t stage)
{
    iso_stage_reach(&request->job->stage_test, stage);
}

/* ---- steps forward ---- */

static void send_reserve(iso_request_t *request, uint32_t flags)
{
    const iso_hold_t *hold = request->hold;
    uint32_t parts = (hold->extent_count + ISO_WIRE_EXTENTS_MAX - 1) / ISO_WIRE_EXTENTS_MAX;
    iso_extent_t dense[ISO_WIRE_DENSE_MAX];
    iso_msg_t msg = {.type = ISO_MSG_RESERVE,
                     .heap = (uintptr_t)request->heap,
                     .epoch = request->epoch,
                     .flags = flags,
                     .bytes = request->runs.bytes,
                     .parts = parts,
                     .slots = hold->slot_count,
                     .dense = dense};
    for (msg.part = 0; msg.part < parts; msg.part++) {
        uint32_t from = msg.part * ISO_WIRE_EXTENTS_MAX;
        uint32_t count = hold->extent_count - from;
        msg.extent_count = count < ISO_WIRE_EXTENTS_MAX ? count : ISO_WIRE_EXTENTS_MAX;
        msg.extents = &hold->extents[from];
        if (msg.part + 1 == parts && request->path == ISO_PATH_PUT)
            msg.dense_count =
                iso_huge_dense(&request->job->space, &request->runs, dense, ISO_WIRE_DENSE_MAX);
        iso_peer_send(request->job, request->peer, &msg);
    }
}

static void send_commit(iso_request_t *request)
{
    iso_job_t *job = request->job;
    iso_way_end(request);
    if (request->path == ISO_PATH_PUT)
        request->promise = iso_left_promise(job, &request->runs, &request->idle);
    iso_msg_t msg = {.type = ISO_MSG_COMMIT,
                     .heap = (uintptr_t)request->heap,
                     .epoch = request->epoch,
                     .generation = request->grant,
                     .promise = request->promise,
                     .flags = iso_parcel_is_header(request->parcel) ? ISO_COMMIT_OBJECT : 0,
                     .bytes = request->runs.bytes,
                     .data = request->header,
                     .data_len = (uint32_t)request->header_len};
    if (request->path == ISO_PATH_PUT) {
        msg.flags |= request->inlined.head ? ISO_COMMIT_HEAD : 0;
        msg.pieces = request->inlined.pieces.list;
        msg.piece_count = (uint32_t)request->inlined.pieces.count;
        job->stats.bytes_inline += request->inlined.pieces.bytes;
    }
    if (request->decided_by_node) {
        iso_node_offer(&job->node, iso_space_slot(&job->space, request->heap), request->dest,
                       request->epoch);
        reach(request, ISO_STAGE_OFFERED);
    }
    iso_peer_send(job, request->peer, &msg);
    reach(request, ISO_STAGE_COMMIT_SENT);
    request->step = ISO_STEP_COMMITTED;
    iso_grant_unused(request);
    request->hold->grant.generation = 0; /* used up */
    iso_request_extend(request);
}

static void begin(iso_request_t *request)
{
    iso_hold_t *hold = request->hold;
    iso_grant_t *grant = &hold->grant;
    reach(request, ISO_STAGE_FROZEN);
    if (request->path == ISO_PATH_HANDOVER) {
        iso_retain_handover(request->job, hold->extents, hold->extent_count);
        iso_grant_drop(hold);
        send_reserve(request, ISO_RESERVE_HANDOVER);
        reach(request, ISO_STAGE_RESERVE_SENT);
        send_commit(request);
        return;
    }
    iso_inline_plan(hold, &request->runs, request->header_len, &request->inlined);
    iso_way_begin(request);
    if (grant->generation && grant->rank == request->dest &&
        grant->extents_version == hold->extents_version && iso_way_is_known(request->peer)) {
        request->grant = grant->generation;
        request->job->stats.grants_used++;
        request->step = ISO_STEP_PUTTING;
        return;
    }
    iso_grant_drop(hold);
    request->job->stats.reservations++;
    send_reserve(request, 0);
    request->step = ISO_STEP_RESERVING;
    reach(request, ISO_STAGE_RESERVE_SENT);
}

static unsigned flush_turn(iso_request_t *request)
{
    if (!request->unflushed) { /* all of it rides in the COMMIT */
        request->step = ISO_STEP_FLUSHING;
        request->flush_done = true;
        return 1;
    }
    if (iso_puts_fence(request)) {
        request->step = ISO_STEP_FLUSHING;
        return 1;
    }
    iso_status_t status = iso_puts_flush(request);
    if (status == ISO_ERR_AGAIN)
        return 0;
    request->step = ISO_STEP_FLUSHING;
    if (status < 0)
        request->put_status = status;
    return 1;
}

static unsigned advance_puts(iso_request_t *request)
{
    unsigned events = 0;
    if (request->step == ISO_STEP_PUTTING && request->put_status == ISO_OK)
        events += iso_puts_issue(request);
    if (request->put_status == ISO_OK && request->step == ISO_STEP_PUTTING &&
        request->run_at == request->runs.count)
        events += flush_turn(request);
    if (request->put_status != ISO_OK) {
        iso_request_stop(request, request->put_status);
        return events + 1;
    }
    if (request->step == ISO_STEP_FLUSHING &&
        (request->flush_done || (request->fenced && request->ops_busy == 0))) {
        reach(request, ISO_STAGE_PUT_ALL);
        send_commit(request);
        events++;
    }
    return events;
}

static unsigned advance(iso_request_t *request, double now)
{
    switch (request->step) {
    case ISO_STEP_PREPARING: {
        iso_status_t status = iso_prepare_advance(request);
        if (status == ISO_INPROGRESS)
            break;
        iso_request_end(request, status);
        return 1;
    }
    case ISO_STEP_FROZEN:
        begin(request);
        return 1;
    case ISO_STEP_RESERVING:
        break;
    case ISO_STEP_PUTTING:
    case ISO_STEP_FLUSHING: {
        unsigned events = advance_puts(request);
        if (events > 0)
            return events;
        break;
    }
    case ISO_STEP_STOPPING:
        if (iso_puts_are_quiet(request)) {
            iso_request_stop(request, request->stop_status);
            return 1;
        }
        if (request->in_doubt)
            return 0;
        break;
    case ISO_STEP_COMMITTED:
        if (request->decided_by_node && iso_request_is_taken(request)) {
            iso_request_end_gone(request);
            return 1;
        }
        break;
    case ISO_STEP_DOUBT:
    case ISO_STEP_ENDED:
        return 0;
    }
    if (now < request->deadline)
        return 0;
    if (request->step == ISO_STEP_STOPPING) {
        iso_request_fall_in_doubt(request, "taken what was put to it");
    } else if (request->step == ISO_STEP_COMMITTED && !request->decided_by_node) {
        iso_request_fall_in_doubt(request, "answered the commit");
        request->step = ISO_STEP_DOUBT;
    } else {
        iso_request_give_up(request, ISO_ERR_TIMED_OUT);
    }
    return 1;
}

void iso_migrate_begin(iso_request_t *request)
{
    iso_request_t **at = &request->job->requests;
    while (*at)
        at = &(*at)->next;
    *at = request;
    const double now = iso_os_now_coarse();
    request->deadline = now + request->job->params.timeout;
    const bool is_frozen = request->step == ISO_STEP_FROZEN; /* it does not end in its first step */
    advance(request, now);
    if (is_frozen && request->step == ISO_STEP_PUTTING && request->runs.bytes <= PUT_AT_ONCE)
        advance(request, now);
}

/* Only a message moves it on, or its deadline. */
static bool waits(const iso_request_t *request, double now)
{
    return now < request->deadline &&
           (request->step == ISO_STEP_RESERVING ||
            (request->step == ISO_STEP_COMMITTED && !request->decided_by_node));
}

unsigned iso_migrate_advance(iso_job_t *job)
{
    unsigned events = 0;
    double now = job->requests ? iso_os_now_coarse() : 0;
    for (iso_request_t *request = job->requests, *next; request; request = next) {
        next = request->next; /* advance ends this request, or none */
        if (!waits(request, now))
            events += advance(request, now);
    }
    return events;
}

double iso_migrate_deadline(const iso_job_t *job)
{
    double earliest = INFINITY;
    for (const iso_request_t *request = job->requests; request; request = request->next)
        if (request->step <= ISO_STEP_STOPPING && !request->in_doubt &&
            request->deadline < earliest)
            earliest = request->deadline;
    return earliest;
}

/* ---- messages ---- */

static iso_request_t *find(iso_job_t *job, const iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_hold_t *hold = iso_hold_find(job, (iso_heap_t *)(uintptr_t)msg->heap);
    iso_request_t *request = hold ? hold->request : NULL;
    return request && request->peer == peer && request->epoch == msg->epoch ? request : NULL;
}

iso_status_t iso_migrate_on_grant(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_request_t *request = find(job, peer, msg);
    if (!request || request->step != ISO_STEP_RESERVING || !iso_way_is_known(peer))
        return ISO_ERR_INVALID;
    request->step = ISO_STEP_PUTTING;
    iso_request_extend(request);
    reach(request, ISO_STAGE_GRANTED);
    return ISO_OK;
}

iso_status_t iso_migrate_on_ack(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_request_t *request = find(job, peer, msg);
    if (peer->same_node) /* a wake-up: the node's word has decided, and may have been seen first */
        return ISO_OK;
    if (!request || (request->step != ISO_STEP_COMMITTED && request->step != ISO_STEP_DOUBT))
        return ISO_ERR_INVALID;
    iso_request_end_gone(request);
    return ISO_OK;
}

iso_status_t iso_migrate_on_nack(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_request_t *request = find(job, peer, msg);
    if (!request || msg->reason >= 0)
        return ISO_ERR_INVALID;
    if (msg->about == ISO_MSG_RESERVE && request->step == ISO_STEP_RESERVING) {
        request->step = ISO_STEP_FROZEN; /* the target has nothing to cancel */
        iso_request_stop(request, (iso_status_t)msg->reason);
        return ISO_OK;
    }
    if (request->step != ISO_STEP_COMMITTED && request->step != ISO_STEP_DOUBT)
        return ISO_ERR_INVALID;
    if (msg->reason == ISO_ERR_AGAIN && request->grant && request->step == ISO_STEP_COMMITTED &&
        !(request->decided_by_node && iso_request_is_taken(request))) {
        /* the grant no longer stood: once more, with a reservation */
        request->grant = 0;
        request->epoch++;
        iso_heap_set_epoch(request->heap, request->epoch);
        request->run_at = request->run_done = 0;
        request->bytes_put = 0;
        request->flush_done = false;
        request->step = ISO_STEP_FROZEN;
        iso_request_extend(request);
        return ISO_OK;
    }
    if (msg->reason ==
        ISO_ERR_CODE) /* it has looked at it: no other heap of this code goes there */
        peer->refused_code = iso_stack_code(request->heap);
    if (request->decided_by_node)
        iso_request_decide_by_node(request, (iso_status_t)msg->reason);
    else
        iso_request_end_here(request, (iso_status_t)msg->reason);
    return ISO_OK;
}

void iso_migrate_on_death(iso_job_t *job, iso_peer_t *peer)
{
    for (iso_request_t *request = job->requests, *next; request; request = next) {
        next = request->next;
        if (request->peer != peer)
            continue;
        /* everything that the peer sent has been handled: without an ACK it never got a DONE, and
         * without that it never owned the heap */
        if (request->step >= ISO_STEP_COMMITTED && !request->decided_by_node &&
            request->step != ISO_STEP_STOPPING)
            iso_request_end_here(request, ISO_ERR_PEER_DEAD);
        else
            iso_request_give_up(request, ISO_ERR_PEER_DEAD);
    }
}

void iso_migrate_on_unreachable(iso_job_t *job, iso_peer_t *peer)
{
    for (iso_request_t *request = job->requests, *next; request; request = next) {
        next = request->next;
        if (request->peer == peer && request->step < ISO_STEP_COMMITTED)
            iso_request_give_up(request, ISO_ERR_UNREACHABLE);
    }
}

void iso_migrate_settle(iso_job_t *job)
{
    for (iso_request_t *request = job->requests, *next; request; request = next) {
        next = request->next;
        if (request->step == ISO_STEP_COMMITTED && request->decided_by_node &&
            iso_request_is_taken(request))
            iso_request_end_gone(request);
    }
}

void iso_migrate_close(iso_job_t *job)
{
    for (iso_request_t *request = job->requests, *next; request; request = next) {
        next = request->next;
        iso_parcel_free(request->parcel);
        request->parcel = NULL;
        if (request->detached) {
            iso_request_free(request);
        } else {
            request->step = ISO_STEP_ENDED;
            iso_runs_free(&request->runs);
            iso_runs_free(&request->inlined.pieces);
        }
    }
    job->requests = NULL;
}
