/*
 * ux_op.c - operations in UCX's hands, and their ends.
 *
 * An operation that failed, or a flush that says it did not, of an endpoint that has failed is held until
 * it is known what became of the peer: then the library hears of the peer first, and of its operations
 * after that. A flush must not be believed then: UCX 1.13 ends one that waits for the peer's answers
 * without an error when it purges a failed endpoint (ucp_ep_reqs_purge).
 */
#include "ucx.h"
#include <stdlib.h>

#define QUIESCE_MS 2000

iso_status_t ux_status(ucs_status_t status)
{
    switch (status) {
    case UCS_OK:
        return ISO_OK;
    case UCS_ERR_NO_MEMORY:
        return ISO_ERR_NO_MEMORY;
    case UCS_ERR_NO_RESOURCE:
        return ISO_ERR_AGAIN;
    case UCS_ERR_INVALID_PARAM:
    case UCS_ERR_INVALID_ADDR:
    case UCS_ERR_UNSUPPORTED:
        return ISO_ERR_INVALID;
    default:
        return ISO_ERR_UNREACHABLE;
    }
}

/* Operations of one size have the spares of one. */
static unsigned size_class(ux_op_kind_t kind)
{
    switch (kind) {
    case UX_OP_SEND:
        return 1;
    case UX_OP_PIECE:
        return 2;
    case UX_OP_OWN_PUT:
    case UX_OP_OWN_FLUSH:
        return 3;
    case UX_OP_PUT:
    case UX_OP_FLUSH:
        break;
    }
    return 0;
}

static const size_t sizes[] = {sizeof(ux_op_t), sizeof(ux_send_t), sizeof(ux_piece_t),
                               sizeof(ux_own_t)};

/* UCX has it, and calls back. */
static bool is_given(const ux_op_t *op)
{
    return size_class(op->kind) != 3;
}

static bool is_put(const ux_op_t *op)
{
    return op->kind == UX_OP_PUT || op->kind == UX_OP_OWN_PUT;
}

static void count(iso_endpoint_t *ep, const ux_op_t *op, int by)
{
    ep->puts += (unsigned)(is_put(op) ? by : 0);
    ep->sends += (unsigned)(op->kind == UX_OP_SEND ? by : 0);
    ep->tp->sends += (unsigned)(op->kind == UX_OP_SEND ? by : 0);
    ep->pieces += (unsigned)(op->kind == UX_OP_PIECE ? by : 0);
    ep->flushes += (unsigned)(op->kind == UX_OP_OWN_FLUSH ? by : 0);
}

ux_op_t *ux_op_get(iso_endpoint_t *ep, ux_op_kind_t kind, iso_completion_t *completion)
{
    iso_transport_t *tp = ep->tp;
    ux_op_t **spares = &tp->spares[size_class(kind)], *op = *spares;

    if (op != NULL)
        *spares = op->queue;
    else
        op = malloc(sizes[size_class(kind)]);
    if (op == NULL) {
        ux_log(tp, ISO_LOG_ERROR, "no memory for an operation to rank %u", ep->peer->base.rank);
        return NULL;
    }
    *op = (ux_op_t){.tp = tp, .ep = ep, .completion = completion, .kind = kind};
    return op;
}

void ux_op_enter(ux_op_t *op)
{
    iso_endpoint_t *ep = op->ep;

    op->next = ep->ops;
    op->link = &ep->ops;
    if (op->next != NULL)
        op->next->link = &op->next;
    ep->ops = op;
    count(ep, op, 1);
}

static void leave_ep(iso_endpoint_t *ep, ux_op_t *op)
{
    *op->link = op->next;
    if (op->next != NULL)
        op->next->link = op->link;
    op->link = NULL;
    count(ep, op, -1);
    op->ep = NULL;
}

static void put_back(ux_op_t *op)
{
    iso_transport_t *tp = op->tp;
    ux_op_t **spares = &tp->spares[size_class(op->kind)];

    if (op->ep != NULL && op->link != NULL)
        leave_ep(op->ep, op);
    tp->closing -= op->closing;
    op->queue = *spares;
    *spares = op;
}

iso_status_t ux_op_started(ux_op_t *op, ucs_status_ptr_t request)
{
    if (UCS_PTR_IS_PTR(request)) {
        ux_op_enter(op);
        return ISO_INPROGRESS; /* it may have ended already, if another thread progresses the worker */
    }
    if (request == NULL && op->kind != UX_OP_FLUSH) /* there may be nothing to flush */
        op->ep->wired = true;
    put_back(op);
    return ux_status(UCS_PTR_STATUS(request));
}

void ux_op_called_back(void *request, ucs_status_t status, void *arg)
{
    ux_op_t *op = arg;
    ux_inbox_t *inbox = &op->tp->inbox;

    op->status = status;
    op->queue = NULL;
    ux_lock(&inbox->lock);
    *inbox->ended_last = op;
    inbox->ended_last = &op->queue;
    ux_inbox_added(inbox);
    ux_unlock(&inbox->lock);
    ucp_request_free(request);
}

void ux_op_ended(ux_op_t *op, ucs_status_t status)
{
    op->status = status;
    op->queue = NULL;
    *op->tp->ended_last = op;
    op->tp->ended_last = &op->queue;
}

void ux_ops_closing(iso_endpoint_t *ep)
{
    for (ux_op_t *op = ep->ops; op != NULL; op = op->next)
        if (!op->closing && is_given(op)) {
            op->closing = true;
            ep->tp->closing++;
        }
}

void ux_ops_forget(iso_endpoint_t *ep)
{
    for (ux_op_t *op; (op = ep->ops) != NULL;) {
        op->completion = NULL;
        leave_ep(ep, op);
    }
}

static ux_op_t *empty_inbox(iso_transport_t *tp)
{
    ux_inbox_t *inbox = &tp->inbox;

    ux_lock(&inbox->lock);
    ux_op_t *ended = inbox->ended;
    inbox->ended = NULL;
    inbox->ended_last = &inbox->ended;
    ux_unlock(&inbox->lock);
    return ended;
}

/* What its caller is told. */
static iso_status_t status_of(const ux_op_t *op)
{
    return peer_outcome(&op->ep->peer->base, ux_status(op->status));
}

/* Returns events. */
static unsigned end(ux_op_t *op)
{
    iso_transport_t *tp = op->tp;
    iso_completion_t *completion = op->completion;
    iso_endpoint_t *ep = op->ep;

    if (ep != NULL && ep->peer->base.state == PEER_FAILED && completion != NULL) {
        op->queue = tp->held;
        tp->held = op;
        return 0;
    }
    const iso_status_t status = ep != NULL ? status_of(op) : ISO_ERR_CANCELED;
    const ucs_status_t why = op->status;
    const bool lost =
        ep != NULL && (op->kind == UX_OP_SEND || op->kind == UX_OP_PIECE) && why != UCS_OK;
    if (op->kind == UX_OP_PIECE)
        ux_own_piece_ended((const ux_piece_t *)(const void *)op);
    put_back(op);
    if (lost)
        ux_ep_fail(ep, why);
    else if (completion != NULL)
        completion->fn(completion, status);
    return 1; /* room for others, if nothing else */
}

void ux_ops_take(iso_transport_t *tp)
{
    *tp->ended_last = empty_inbox(tp);
    for (ux_op_t *op; (op = *tp->ended_last) != NULL; tp->ended_last = &op->queue) {
        tp->closing -= op->closing;
        op->closing = false;
        if (op->ep != NULL && op->status == UCS_OK)
            op->ep->wired = true;
    }
}

unsigned ux_ops_end(iso_transport_t *tp)
{
    unsigned events = 0;
    ux_op_t *held = tp->held, *ended = tp->ended;

    tp->held = tp->ended = NULL;
    tp->ended_last = &tp->ended;
    for (ux_op_t *op = held, *next; op != NULL; op = next) {
        next = op->queue;
        events += end(op);
    }
    for (ux_op_t *op = ended, *next; op != NULL; op = next) {
        next = op->queue;
        events += end(op);
    }
    return events;
}

bool ux_ops_quiesce(iso_transport_t *tp)
{
    const uint64_t until = clock_coarse_ms() + (tp->stuck ? 0 : QUIESCE_MS);

    for (ux_ops_take(tp); tp->closing > 0 && clock_coarse_ms() < until; ux_ops_take(tp))
        ucp_worker_progress(tp->worker);
    const bool was_stuck = tp->stuck;
    tp->stuck = tp->closing > 0;
    if (!tp->stuck || was_stuck)
        return !tp->stuck;
    ux_log(tp, ISO_LOG_WARN, "UCX has not let go of %u operations after %d ms", tp->closing,
           QUIESCE_MS);
    return false;
}

static void free_queue(ux_op_t *op)
{
    for (ux_op_t *next; op != NULL; op = next) {
        next = op->queue;
        free(op);
    }
}

void ux_ops_free(iso_transport_t *tp)
{
    ux_ops_take(tp);
    free_queue(tp->ended);
    free_queue(tp->held);
    for (size_t i = 0; i < sizeof tp->spares / sizeof *tp->spares; i++)
        free_queue(tp->spares[i]);
}
