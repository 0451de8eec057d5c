/* request.c - migrations as their callers see them: started, tested, waited for, canceled. */
#include "core/ending.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/migrate.h"
#include "core/object.h"
#include "core/shared.h"
#include "core/stack.h"
#include "core/verify.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void iso_request_list(iso_request_t *request, iso_hold_t *hold)
{
    if (!iso_heap_list_runs(hold, &request->runs) || !iso_stack_list_idle(hold, &request->idle))
        request->status = ISO_ERR_NO_MEMORY;
}

void iso_request_free(iso_request_t *request)
{
    free(request->preparing);
    iso_runs_free(&request->runs);
    iso_runs_free(&request->idle);
    iso_runs_free(&request->inlined.pieces);
    free(request);
}

/* By the coarse clock, as who compares has it: it is read for each put, and a tick of it more or less is no matter. */
void iso_request_extend(iso_request_t *request)
{
    request->deadline = iso_os_now_coarse() + request->job->params.timeout;
}

static iso_status_t refuse(iso_job_t *job, iso_status_t status, const iso_heap_t *heap,
                           uint32_t dest, const char *why)
{
    iso_log(&job->logger, ISO_LOG_ERROR, "iso_migrate of heap %p to rank %" PRIu32 ": %s",
            (const void *)heap, dest, why);
    return status;
}

static iso_status_t request_new(iso_hold_t *hold, uint32_t dest, iso_peer_t *peer,
                                const void *header, size_t header_len, iso_request_t **request_p)
{
    iso_job_t *job = hold->job;
    iso_request_t *request = malloc(sizeof *request + header_len);
    if (!request)
        return ISO_ERR_NO_MEMORY;
    memset(request, 0,
           offsetof(iso_request_t, ops)); /* glibc's calloc has no cache of a thread's own */
    for (size_t i = 0; i < ISO_PUTS_IN_FLIGHT; i++)
        request->ops[i].busy = false;
    iso_runs_lend(&request->runs, request->few_runs, ISO_RUNS_FEW);
    iso_runs_lend(&request->inlined.pieces, request->few_pieces, ISO_RUNS_FEW);
    request->job = job;
    request->hold = hold;
    request->heap = hold->heap;
    request->peer = peer;
    request->dest = dest;
    request->epoch = hold->epoch + 1;
    request->step = ISO_STEP_FROZEN;
    request->path = ISO_PATH_PUT;
    if (!peer)
        request->path = ISO_PATH_SELF;
    else if (peer->same_node && job->space.backing == ISO_BACKING_SHARED)
        request->path = ISO_PATH_HANDOVER;
    request->decided_by_node = peer && peer->same_node;
    request->header_len = header_len;
    if (header_len > 0)
        memcpy(request->header, header, header_len);
    *request_p = request;
    return ISO_OK;
}

iso_status_t iso_request_open(iso_hold_t *hold, uint32_t dest, const void *header,
                              size_t header_len, iso_request_t **request_p)
{
    iso_job_t *job = hold->job;
    iso_peer_t *peer = NULL;
    if (dest >= job->size)
        return refuse(job, ISO_ERR_RANK, hold->heap, dest, "the job has no such rank");
    if (header_len > ISO_HEADER_MAX)
        return refuse(job, ISO_ERR_INVALID, hold->heap, dest,
                      "the header is longer than ISO_HEADER_MAX");
    if (header_len > 0 && !header)
        return refuse(job, ISO_ERR_INVALID, hold->heap, dest,
                      "the header is NULL and has a length");
    iso_status_t status = dest == job->rank ? ISO_OK : iso_peer_get(job, dest, &peer);
    if (peer && peer->refused_code && peer->refused_code == iso_stack_code(hold->heap))
        return refuse(job, ISO_ERR_CODE, hold->heap, dest,
                      "it has stacks, and the code there is another: that rank's log has said what "
                      "differs, of the first "
                      "heap that it has refused for it");
    return status == ISO_OK ? request_new(hold, dest, peer, header, header_len, request_p) : status;
}

iso_status_t iso_request_freeze(iso_request_t *request)
{
    iso_hold_t *hold = request->hold;
    /* all of it is about to be read; a heap that is handed over is passed on unseen, in O(extents) */
    if (request->path == ISO_PATH_PUT || request->job->params.verify_handover)
        iso_heap_verify(hold);
    iso_heap_freeze(hold);
    iso_heap_set_epoch(request->heap, request->epoch);
    if (request->path == ISO_PATH_PUT)
        iso_request_list(request, hold);
    if (request->status != ISO_OK) {
        iso_heap_thaw(hold);
        iso_request_free(request);
        return ISO_ERR_NO_MEMORY;
    }
    request->has_stacks |= iso_stack_code(hold->heap) != 0;
    hold->state = ISO_HEAP_MOVING;
    hold->request = request;
    return ISO_OK;
}

static iso_status_t migrate(iso_job_t *job, iso_heap_t *heap, uint32_t dest, const void *header,
                            size_t header_len, iso_request_t **request_p)
{
    iso_request_t *request;
    iso_hold_t *hold = iso_hold_find(job, heap);
    if (!hold)
        return refuse(job, ISO_ERR_NOT_OWNER, heap, dest, "the heap is not at this rank");
    if (hold->state != ISO_HEAP_OWNED)
        return refuse(job, ISO_ERR_BUSY, heap, dest, "a migration of it is under way already");
    char why[ISO_STACK_WHY];
    if (iso_stack_in_use(hold, why))
        return refuse(job, ISO_ERR_BUSY, heap, dest, why);
    iso_status_t status = iso_request_open(hold, dest, header, header_len, &request);
    if (status != ISO_OK)
        return status;
    if (!request->peer) {
        iso_delivery_t *delivery = iso_delivery_new(heap, dest, 0, header, header_len);
        if (!delivery) {
            iso_request_free(request);
            return ISO_ERR_NO_MEMORY;
        }
        iso_job_deliver(job, delivery);
        request->step = ISO_STEP_ENDED;
        request->status = ISO_OK;
        job->stats.migrations_out++;
        job->stats.migrations_in++;
        *request_p = request;
        return ISO_OK;
    }
    status = iso_request_freeze(request);
    if (status != ISO_OK)
        return status;
    *request_p = request;
    iso_migrate_begin(request);
    return ISO_OK;
}

iso_status_t iso_request_job(const iso_heap_t *heap, const char *call, iso_job_t **job_p)
{
    const iso_job_row_t *row = iso_job_row_of(heap);
    if (!row) {
        iso_logger_t logger = iso_logger_default();
        iso_log(&logger, ISO_LOG_ERROR, "%s of %p: no heap of a job of this process", call,
                (const void *)heap);
        return ISO_ERR_NOT_OWNER;
    }
    if (!iso_job_is_ours(row->job, call))
        return ISO_ERR_INVALID;
    *job_p = row->job;
    return ISO_OK;
}

static void bring_code(iso_job_t *job, const iso_heap_t *heap, uint32_t dest)
{
    const iso_hold_t *hold = iso_hold_find(job, heap);
    if (hold && hold->state == ISO_HEAP_OWNED && dest != job->rank)
        iso_stack_code_leave(hold, iso_peer_find(job, dest));
}

iso_status_t iso_migrate(iso_heap_t *heap, uint32_t dest, const void *header, size_t header_len,
                         iso_request_t **request_p)
{
    iso_job_t *job;
    iso_status_t status = iso_request_job(heap, "iso_migrate", &job);
    if (status != ISO_OK)
        return status;
    iso_shared_t *shared = iso_shared_lock(heap); /* waits for those who are inside */
    iso_job_lock(job);
    bring_code(job, heap, dest);
    status = migrate(job, heap, dest, header, header_len, request_p);
    iso_job_unlock(job);
    iso_shared_leave(shared);
    return status;
}

/* The end of a request as its caller sees it; lets go of it. false: it has not ended. */
static bool take_end(iso_request_t *request, iso_status_t *status_p)
{
    iso_job_t *job = request->job;
    iso_parcel_t *parcel = NULL;
    iso_job_lock(job);
    bool ended = request->step == ISO_STEP_ENDED, in_doubt = request->in_doubt;
    if (ended || in_doubt)
        *status_p = request->status;
    if (ended) {
        parcel = request->parcel;
        iso_request_free(request);
    } else if (in_doubt) {
        request->detached = true; /* freed when the doubt is settled */
    }
    iso_job_unlock(job);
    if (parcel)
        iso_object_gone(job, parcel);
    return ended || in_doubt;
}

iso_status_t iso_test(iso_request_t *request)
{
    if (!iso_job_is_ours(request->job, "iso_test"))
        return ISO_ERR_INVALID;
    iso_progress(request->job);
    iso_status_t status = ISO_INPROGRESS;
    take_end(request, &status);
    return status;
}

iso_status_t iso_wait(iso_request_t *request)
{
    iso_job_t *job = request->job;
    if (!iso_job_is_ours(job, "iso_wait"))
        return ISO_ERR_INVALID;
    for (iso_waiter_t waiter = {0};;) {
        iso_waiter_progress(job, &waiter);
        iso_status_t status;
        if (take_end(request, &status))
            return status;
        iso_waiter_sleep(job, INFINITY, &waiter);
    }
}

iso_status_t iso_cancel(iso_request_t *request)
{
    iso_job_t *job = request->job;
    iso_status_t status = ISO_ERR_BUSY;
    iso_job_lock(job);
    if (request->step < ISO_STEP_COMMITTED ||
        (request->step == ISO_STEP_COMMITTED && request->decided_by_node)) {
        iso_request_give_up(request, ISO_ERR_CANCELED);
        if (request->step == ISO_STEP_STOPPING || request->status == ISO_ERR_CANCELED)
            status = ISO_OK;
    }
    iso_job_unlock(job);
    return status;
}

void iso_request_query(const iso_request_t *request, iso_request_info_t *info_p)
{
    iso_job_lock(request->job);
    *info_p = (iso_request_info_t){
        .step = iso_step_name(request->step),
        .path = request->path,
        .granted_before = request->grant != 0,
        .live_bytes = request->runs.bytes,
        .bytes_put = request->bytes_put,
        .puts = request->puts,
        .puts_complete = request->flush_done,
        .bytes_inline = request->inlined.pieces.bytes,
    };
    iso_job_unlock(request->job);
}
