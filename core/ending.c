/* ending.c - see ending.h. */
#include "core/ending.h"
#include "core/grant.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/left.h"
#include "core/object.h"
#include "core/put.h"
#include "core/way.h"
#include <inttypes.h>

static void send_about(iso_request_t *request, iso_msg_type_t type)
{
    iso_msg_t msg = {.type = type,
                     .heap = (uintptr_t)request->heap,
                     .epoch = request->epoch,
                     .generation = request->grant};
    iso_peer_send(request->job, request->peer, &msg);
}

static void unlink_request(iso_request_t *request)
{
    iso_request_t **at = &request->job->requests;
    while (*at != request)
        at = &(*at)->next;
    *at = request->next;
}

void iso_request_end(iso_request_t *request, iso_status_t status)
{
    iso_way_end(request);
    if (request->in_doubt)
        request->job->stats.migrations_in_doubt--;
    else
        request->status = status;
    request->step = ISO_STEP_ENDED;
    request->hold = NULL;
    iso_runs_free(&request->runs);
    iso_runs_free(&request->inlined.pieces);
    unlink_request(request);
    if (request->detached)
        iso_request_free(request);
}

void iso_request_end_here(iso_request_t *request, iso_status_t status)
{
    iso_hold_t *hold = request->hold;
    iso_grant_unused(request);
    hold->epoch = request->epoch; /* not used again: late answers to this attempt are stale */
    hold->request = NULL;
    if (request->parcel)
        iso_parcel_split(request->parcel);
    iso_heap_thaw(hold);
    hold->state = ISO_HEAP_OWNED;
    request->job->stats.migrations_failed++;
    if (status != ISO_ERR_CANCELED)
        iso_log(&request->job->logger, ISO_LOG_WARN,
                "heap %p stays here: its migration to rank %" PRIu32 " ended at step %s: %s",
                (void *)request->heap, request->dest, iso_step_name(request->step),
                iso_status_string(status));
    if (request->parcel) {
        if (request->parcel->carrier)
            iso_heap_destroy(request->heap);
        if (request->in_doubt)
            iso_object_doubt_ended(request->job, request->parcel, true);
        else
            iso_parcel_free(request->parcel);
    }
    request->parcel = NULL;
    iso_request_end(request, status);
}

void iso_request_end_gone(iso_request_t *request)
{
    iso_job_t *job = request->job;
    iso_hold_t *hold = request->hold;
    iso_stage_reach(&job->stage_test, ISO_STAGE_LET_GO);
    job->stats.migrations_out++;
    request->peer->same_code |= request->has_stacks;
    hold->request = NULL;
    if (request->path == ISO_PATH_PUT)
        iso_left_leave(job, request->heap, hold->extents, hold->extent_count, &request->runs,
                       &request->idle,
                       &(iso_promise_t){request->dest, request->promise, request->epoch});
    else
        job->stats.handovers_out++;
    if (!request->decided_by_node)
        send_about(request, ISO_MSG_DONE);
    hold->stays_open = request->promise && !request->peer->link->caps.one_sided;
    iso_hold_drop(hold, false);
    if (request->parcel)
        iso_parcel_gone(request->parcel);
    if (request->parcel && request->in_doubt) { /* nobody waits for it any more */
        iso_object_doubt_ended(job, request->parcel, false);
        request->parcel = NULL;
    }
    iso_stage_reach(&job->stage_test, ISO_STAGE_DONE_SENT);
    iso_request_end(request, ISO_OK);
    iso_retain_trim(job);
}

void iso_request_stop(iso_request_t *request, iso_status_t status)
{
    request->stop_status = status;
    iso_way_end(request);
    if (!iso_puts_are_quiet(request)) {
        if (request->step != ISO_STEP_STOPPING)
            iso_request_extend(request);
        request->step = ISO_STEP_STOPPING;
        return;
    }
    if (request->step > ISO_STEP_FROZEN && !request->grant)
        send_about(request, ISO_MSG_CANCEL);
    iso_request_end_here(request, status);
}

bool iso_request_is_taken(const iso_request_t *request)
{
    const iso_job_t *job = request->job;
    return iso_node_taken(&job->node, iso_space_slot(&job->space, request->heap), job->rank,
                          request->dest, request->epoch);
}

void iso_request_decide_by_node(iso_request_t *request, iso_status_t status)
{
    iso_job_t *job = request->job;
    uint32_t slot = iso_space_slot(&job->space, request->heap);
    if (iso_node_decline(&job->node, slot, job->rank, request->dest, request->epoch)) {
        send_about(request, ISO_MSG_CANCEL);
        iso_request_end_here(request, status);
    } else if (iso_request_is_taken(request)) {
        iso_request_end_gone(request);
    } else {
        iso_request_end_here(request, status); /* the target had declined */
    }
}

void iso_request_give_up(iso_request_t *request, iso_status_t status)
{
    if (request->step == ISO_STEP_PREPARING)
        iso_request_end(request, status);
    else if (request->step < ISO_STEP_COMMITTED)
        iso_request_stop(request, status);
    else if (request->step == ISO_STEP_COMMITTED && request->decided_by_node)
        iso_request_decide_by_node(request, status);
}

void iso_request_fall_in_doubt(iso_request_t *request, const char *what)
{
    iso_job_t *job = request->job;
    iso_log(&job->logger, ISO_LOG_ERROR,
            "heap %p is in doubt: rank %" PRIu32
            " has not %s for %g s (ISO_TIMEOUT); it stays frozen "
            "here until that rank answers or iso_peer_declare_dead says that it is gone",
            (void *)request->heap, request->dest, what, job->params.timeout);
    request->status = ISO_ERR_IN_DOUBT;
    request->in_doubt = true;
    request->hold->state = ISO_HEAP_IN_DOUBT;
    if (request->parcel)
        iso_parcel_set_state(request->parcel, ISO_HEAP_IN_DOUBT);
    job->stats.migrations_in_doubt++;
}
