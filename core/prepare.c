/* prepare.c - see prepare.h. */
#include "core/prepare.h"
#include "core/grant.h"
#include "core/job.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Of the windows of so many slots that the extents lie in, the n-th; UINT32_MAX: there are not so many. A window
 * with two extents that are not neighbours in the list is counted twice, which is no harm. */
static uint32_t nth_window(const iso_prepare_t *prepare, uint32_t slots, uint32_t n)
{
    uint32_t before = UINT32_MAX;
    for (uint32_t e = 0; e < prepare->extent_count; e++) {
        const iso_extent_t *extent = &prepare->extents[e];
        uint32_t first = extent->first / slots;
        uint32_t last = (extent->first + iso_extent_slots(extent) - 1) / slots;
        first += first == before && first <= last;
        if (first <= last && n <= last - first)
            return first + n;
        n -= last + 1 - first;
        before = last;
    }
    return UINT32_MAX;
}

/* ---- there ---- */

static iso_status_t ask(iso_request_t *request)
{
    const iso_prepare_t *prepare = request->preparing;
    iso_peer_t *peer = request->peer;
    iso_status_t status = ISO_OK;
    uint32_t windows[64], count = 0, window;
    for (uint32_t n = 0; n < peer->keys.lendable && status == ISO_OK; n++) {
        window = nth_window(prepare, peer->keys.slots, n);
        if (window == UINT32_MAX)
            break;
        windows[count++] = window;
        if (count < sizeof windows / sizeof *windows)
            continue;
        status = iso_keys_want(request->job, peer, windows, count);
        count = 0;
    }
    return status == ISO_OK ? iso_keys_want(request->job, peer, windows, count) : status;
}

/* Have all been answered? Also by what has been called back since. */
static iso_status_t look_at_keys(iso_request_t *request)
{
    iso_prepare_t *prepare = request->preparing;
    const iso_peer_t *peer = request->peer;
    uint32_t asked = 0, answered = 0, window;
    iso_status_t status = ISO_OK;
    for (uint32_t n = 0; n < peer->keys.lendable; n++, asked++) {
        window = nth_window(prepare, peer->keys.slots, n);
        if (window == UINT32_MAX)
            break;
        iso_key_t *key = iso_key_find(peer, window);
        answered += !key || key->state != ISO_KEY_ASKED;
        if (key && key->state == ISO_KEY_DECLINED)
            status = iso_key_forget(key);
    }
    if (answered > prepare->answered)
        iso_request_extend(request);
    prepare->answered = answered;
    return status == ISO_OK && answered < asked ? ISO_INPROGRESS : status;
}

/* ---- the grant ---- */

/* The hold, if the heap is what it was when this began. */
static iso_hold_t *unchanged_hold(const iso_request_t *request)
{
    const iso_prepare_t *prepare = request->preparing;
    iso_hold_t *hold = iso_hold_find(request->job, request->heap);
    bool same =
        hold && hold->state == ISO_HEAP_OWNED && hold->epoch == request->epoch &&
        hold->extent_count == prepare->extent_count &&
        memcmp(hold->extents, prepare->extents, hold->extent_count * sizeof *hold->extents) == 0;
    return same ? hold : NULL;
}

static void ask_for_grant(iso_request_t *request)
{
    iso_prepare_t *prepare = request->preparing;
    const iso_hold_t *hold = unchanged_hold(request);
    bool stands = hold && hold->grant.generation && hold->grant.rank == request->dest &&
                  hold->grant.extents_version == hold->extents_version;
    prepare->grant_asked = true;
    prepare->granted = !hold || stands || prepare->extent_count > ISO_WIRE_EXTENTS_MAX;
    if (prepare->granted)
        return;
    iso_grant_drop(iso_hold_find(request->job, request->heap));
    iso_msg_t msg = {.type = ISO_MSG_PREPARE,
                     .heap = (uintptr_t)request->heap,
                     .epoch = request->epoch,
                     .extents = prepare->extents,
                     .extent_count = prepare->extent_count};
    iso_peer_send(request->job, request->peer, &msg);
}

iso_status_t iso_prepare_on_offer(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_heap_t *heap = (iso_heap_t *)(uintptr_t)msg->heap;
    iso_request_t *request = job->requests;
    while (request && !(request->step == ISO_STEP_PREPARING && request->peer == peer &&
                        request->heap == heap && request->epoch == msg->epoch &&
                        request->preparing->grant_asked && !request->preparing->granted))
        request = request->next;
    iso_hold_t *hold = request ? unchanged_hold(request) : NULL;
    if (request)
        request->preparing->granted = true;
    if (hold && msg->generation)
        iso_grant_take(hold, peer->rank, msg->generation);
    else if (msg->generation)
        iso_grant_decline(job, heap, peer->rank, msg->generation);
    return ISO_OK;
}

/* ---- here ---- */

/* One more window. No more than there is room for beside those that are lent: the last would displace
 * the first. */
static iso_status_t register_next(iso_request_t *request)
{
    iso_job_t *job = request->job;
    iso_prepare_t *prepare = request->preparing;
    const iso_windows_t *windows = request->peer->link->windows;
    uint32_t index = nth_window(prepare, windows->slots, prepare->here);
    if (index == UINT32_MAX || prepare->here >= windows->room - windows->lent)
        return ISO_OK;
    iso_window_t *window;
    iso_status_t status = iso_window_get(job, index, &window);
    prepare->here++;
    iso_request_extend(request);
    return status == ISO_OK || status == ISO_ERR_AGAIN ? ISO_INPROGRESS : status;
}

iso_status_t iso_prepare_advance(iso_request_t *request)
{
    iso_prepare_t *prepare = request->preparing;
    iso_peer_t *peer = request->peer;
    iso_status_t status = ISO_OK;
    if (!peer->hello_received)
        return ISO_INPROGRESS;
    if (!prepare->grant_asked)
        ask_for_grant(request);
    if (peer->keys.slots && !prepare->asked) {
        status = ask(request);
        prepare->asked = true;
    }
    while (status == ISO_OK && peer->link->windows &&
           (status = register_next(request)) == ISO_INPROGRESS)
        status = ISO_OK; /* all at once: the answers of the peer come meanwhile */
    if (status == ISO_OK && peer->keys.slots)
        status = look_at_keys(request);
    return status == ISO_OK && !prepare->granted ? ISO_INPROGRESS : status;
}

/* ---- the call ---- */

static iso_status_t refuse(iso_job_t *job, iso_status_t status, const iso_heap_t *heap,
                           uint32_t dest, const char *why)
{
    iso_log(&job->logger, ISO_LOG_ERROR, "iso_prepare of heap %p for rank %" PRIu32 ": %s",
            (const void *)heap, dest, why);
    return status;
}

static iso_status_t prepare_heap(iso_job_t *job, iso_heap_t *heap, uint32_t dest,
                                 iso_request_t **request_p)
{
    iso_peer_t *peer = NULL;
    const iso_hold_t *hold = iso_hold_find(job, heap);
    if (!hold)
        return refuse(job, ISO_ERR_NOT_OWNER, heap, dest, "the heap is not at this rank");
    if (hold->state != ISO_HEAP_OWNED)
        return refuse(job, ISO_ERR_BUSY, heap, dest, "a migration of it is under way already");
    if (dest >= job->size)
        return refuse(job, ISO_ERR_RANK, heap, dest, "the job has no such rank");
    iso_status_t status = dest == job->rank ? ISO_OK : iso_peer_get(job, dest, &peer);
    if (status != ISO_OK)
        return status;
    iso_request_t *request = calloc(1, sizeof *request);
    iso_prepare_t *prepare =
        calloc(1, sizeof *prepare + hold->extent_count * sizeof *prepare->extents);
    if (!request || !prepare) {
        free(prepare);
        free(request);
        return ISO_ERR_NO_MEMORY;
    }
    prepare->extent_count = hold->extent_count;
    memcpy(prepare->extents, hold->extents, hold->extent_count * sizeof *hold->extents);
    *request = (iso_request_t){.job = job,
                               .heap = heap,
                               .peer = peer,
                               .dest = dest,
                               .epoch = hold->epoch,
                               .step = ISO_STEP_PREPARING,
                               .path = peer ? ISO_PATH_PUT : ISO_PATH_SELF,
                               .preparing = prepare};
    *request_p = request;
    if (!peer || (peer->same_node && job->space.backing == ISO_BACKING_SHARED))
        request->step = ISO_STEP_ENDED; /* nothing will be put */
    else
        iso_migrate_begin(request);
    return ISO_OK;
}

iso_status_t iso_prepare(iso_heap_t *heap, uint32_t dest, iso_request_t **request_p)
{
    iso_job_t *job;
    iso_status_t status = iso_request_job(heap, "iso_prepare", &job);
    if (status != ISO_OK)
        return status;
    iso_job_lock(job);
    status = prepare_heap(job, heap, dest, request_p);
    iso_job_unlock(job);
    return status;
}
