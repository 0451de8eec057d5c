/* put.c - see put.h. */
#include "core/put.h"
#include "core/job.h"
#include "core/way.h"

/* Puts issued by one request before others have a turn. */
#define PUT_TURN_BYTES ((size_t)4 << 20)

static void on_put_end(iso_completion_t *completion, iso_status_t status)
{
    iso_put_op_t *op = (iso_put_op_t *)completion;
    iso_request_t *request = op->request;
    op->busy = false;
    request->ops_busy--;
    if (op->window)
        iso_window_unuse(op->window);
    if (status != ISO_OK) {
        if (request->put_status == ISO_OK)
            request->put_status = status;
    } else if (op->length > 0) {
        request->bytes_put += op->length;
        request->job->stats.bytes_put += op->length;
        iso_request_extend(request);
    } else {
        request->flush_done = true;
        if (op->covers > request->peer->keys.flushed)
            request->peer->keys.flushed = op->covers;
    }
}

static iso_put_op_t *free_op(iso_request_t *request)
{
    for (int i = 0; i < ISO_PUTS_IN_FLIGHT; i++)
        if (!request->ops[i].busy)
            return &request->ops[i];
    return NULL;
}

/* Accounts for an operation that the transport has accepted. */
static void op_started(iso_put_op_t *op, iso_status_t status)
{
    op->busy = true;
    op->request->ops_busy++;
    if (status == ISO_OK)
        on_put_end(&op->completion, ISO_OK);
}

bool iso_puts_fence(iso_request_t *request)
{
    /* where puts are one-sided a flush waits for nobody's processor, and says more */
    const iso_link_t *link = request->peer->link;
    request->fenced = !link->caps.one_sided && !iso_way_has_windows(request) &&
                      link->ops->fence(request->peer->ep) == ISO_OK;
    return request->fenced;
}

/* A flush that failed has ended all the same, and with it what it was for. */
iso_status_t iso_puts_flush(iso_request_t *request)
{
    iso_put_op_t *op = free_op(request);
    if (!op)
        return ISO_ERR_AGAIN;
    *op = (iso_put_op_t){
        .completion = {on_put_end}, .request = request, .covers = request->peer->keys.puts};
    iso_status_t status = request->peer->link->ops->flush(request->peer->ep, &op->completion);
    if (status == ISO_ERR_AGAIN)
        return status;
    request->unflushed = false;
    if (status >= 0)
        op_started(op, status);
    return status;
}

bool iso_puts_are_quiet(iso_request_t *request)
{
    if (request->ops_busy == 0 && request->unflushed && !request->peer->dead)
        iso_puts_flush(request);
    return request->ops_busy == 0 && (!request->unflushed || request->peer->dead);
}

/* The run to put from, at run_done; NULL: there are no more. What rides in the COMMIT is left out. */
static const iso_run_t *next_run(iso_request_t *request)
{
    for (; request->run_at < request->runs.count; request->run_at++, request->run_done = 0) {
        const iso_run_t *run = &request->runs.list[request->run_at];
        if (request->run_done == 0)
            request->run_done = iso_inline_skip(&request->inlined, &request->runs, request->run_at);
        if (request->run_done < run->length)
            return run;
    }
    return NULL;
}

unsigned iso_puts_issue(iso_request_t *request)
{
    iso_peer_t *peer = request->peer;
    iso_link_t *link = peer->link;
    size_t limit = ISO_PUT_PIECE < link->caps.max_put ? ISO_PUT_PIECE : link->caps.max_put;
    bool windows = iso_way_has_windows(request);
    size_t turn = 0;
    for (const iso_run_t *run; turn < PUT_TURN_BYTES && (run = next_run(request)) != NULL;) {
        size_t left = run->length - request->run_done;
        uintptr_t address = run->address + request->run_done;
        iso_way_t way = {left < limit ? left : limit, link->region, peer->rkey, NULL, NULL};
        iso_put_op_t *op = free_op(request);
        if (!op)
            break;
        iso_status_t status = windows ? iso_way_find(request, address, &way) : ISO_OK;
        *op = (iso_put_op_t){.completion = {on_put_end},
                             .request = request,
                             .length = way.length,
                             .window = way.window};
        if (status == ISO_OK)
            status = link->ops->put(peer->ep, (const void *)address, way.length, way.region,
                                    address, way.rkey, &op->completion);
        if (status == ISO_ERR_AGAIN)
            break;
        if (status < 0) {
            request->put_status = status;
            break;
        }
        request->unflushed = true;
        iso_way_use(&way);
        op_started(op, status);
        turn += way.length;
        request->puts++;
        request->job->stats.puts++;
        request->run_done += way.length;
        iso_stage_reach(&request->job->stage_test, ISO_STAGE_PUT_SOME);
    }
    return turn > 0;
}

bool iso_puts_to(const iso_job_t *job, const iso_peer_t *peer)
{
    for (const iso_request_t *request = job->requests; request; request = request->next)
        if (request->peer == peer && request->ops_busy > 0)
            return true;
    return false;
}
