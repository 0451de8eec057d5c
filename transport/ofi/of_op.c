/*
 * of_op.c - puts and flushes, and their ends.
 *
 * An operation ends when libfabric has completed all its writes, or when its endpoint is closed, whatever
 * libfabric still has of it: shm never gives back what a dead peer had not taken. Such an operation is told of,
 * and stays until its pieces come back, or until the instance is closed.
 *
 * Operations of an endpoint that has failed are held until it is known what became of the peer: then the
 * library hears of the peer first, and of its operations after that.
 *
 * A flush ends when every put that was begun before it has, where each put's completion says that its bytes are
 * there (of_put.c); if one was refused by the peer (a stale key, say), the next flush says so. Where the target counts
 * writes it ends when the peer has answered (of_land.c), and there a write that fails ends the way to the peer: what
 * comes after it would wait for ever.
 */
#include "ofi.h"
#include <stdlib.h>
#include <string.h>

/* Before every op and piece: what there is of them in libfabric's hands at the end goes with the others. */
typedef struct of_block {
    struct of_block *next;
    max_align_t start[];
} of_block_t;

static void *get(iso_transport_t *tp, size_t size)
{
    of_block_t *block = malloc(sizeof *block + size);

    if (block == NULL) {
        of_log(tp, ISO_LOG_ERROR, "no memory for an operation");
        return NULL;
    }
    block->next = tp->blocks;
    tp->blocks = block;
    return block->start;
}

void of_ops_free(iso_transport_t *tp)
{
    for (of_block_t *block; (block = tp->blocks) != NULL;) {
        tp->blocks = block->next;
        free(block);
    }
}

of_op_t *of_op_get(iso_endpoint_t *ep, bool is_put, iso_completion_t *completion)
{
    iso_transport_t *tp = ep->tp;
    of_op_t *op = tp->spare_ops;

    if (op != NULL)
        tp->spare_ops = op->queue;
    else if ((op = get(tp, sizeof *op)) == NULL)
        return NULL;
    *op = (of_op_t){
        .tp = tp, .ep = ep, .completion = completion, .is_put = is_put, .before = ep->last_op};
    *(ep->last_op != NULL ? &ep->last_op->next : &ep->ops) = op;
    ep->last_op = op;
    ep->puts += is_put;
    return op;
}

static void leave_ep(iso_endpoint_t *ep, of_op_t *op)
{
    *(op->before != NULL ? &op->before->next : &ep->ops) = op->next;
    *(op->next != NULL ? &op->next->before : &ep->last_op) = op->before;
    ep->puts -= op->is_put;
    ep->pieces -= op->pieces;
    op->ep = NULL;
}

static void put_back(of_op_t *op)
{
    if (op->ep != NULL)
        leave_ep(op->ep, op);
    op->queue = op->tp->spare_ops;
    op->tp->spare_ops = op;
}

static void leave_unsent(of_op_t *op)
{
    iso_endpoint_t *ep = op->ep;

    of_op_t *before = NULL;

    for (of_op_t *at = ep->unsent; at != op; at = at->next_unsent)
        before = at;
    *(before != NULL ? &before->next_unsent : &ep->unsent) = op->next_unsent;
    if (ep->last_unsent == op)
        ep->last_unsent = before;
    if (ep->fenced_put == op)
        ep->fenced_put = before;
}

/* ---- ends -------------------------------------------------------------------------------------- */

static void append_ended(of_op_t *op, int error)
{
    op->ended = true;
    op->error = error;
    op->queue = NULL;
    *op->tp->ended_last = op;
    op->tp->ended_last = &op->queue;
}

/* Flushes that no put is before. */
static void end_flushes(iso_endpoint_t *ep)
{
    for (of_op_t *op = ep->ops; op != NULL; op = op->next) {
        if (op->ended)
            continue;
        if (op->is_put)
            return;
        append_ended(op, ep->refused ? FI_EACCES : 0);
        ep->refused = false;
    }
}

void of_flushes_end(iso_endpoint_t *ep, uint32_t answered)
{
    for (of_op_t *op = ep->ops; op != NULL; op = op->next)
        if (!op->ended && !op->is_put && op->ask != 0 &&
            (int32_t)(answered - op->ask) >= 0) /* numbers go round */
            append_ended(op, 0);
}

/* The op that has no pieces any more, and will have none, ends. */
static void end_op(of_op_t *op, int error)
{
    iso_endpoint_t *ep = op->ep;

    if (op->ended)
        return;
    if (op->left > 0 && ep != NULL)
        leave_unsent(op);
    op->left = 0;
    append_ended(op, error);
    if (ep == NULL || op->tp->counted)
        return;
    if (of_status(error) == ISO_ERR_INVALID)
        ep->refused = true;
    end_flushes(ep);
}

void of_ops_end_all(iso_endpoint_t *ep, int error)
{
    for (of_op_t *op = ep->ops; op != NULL; op = op->next)
        if (!op->ended) {
            op->left = 0;
            append_ended(op, error);
        }
    ep->unsent = NULL;
    ep->last_unsent = ep->fenced_put = NULL;
    ep->unasked = false;
}

void of_ops_forget(iso_endpoint_t *ep)
{
    for (of_op_t *op = ep->ops, *next; op != NULL; op = next) {
        next = op->next;
        op->completion = NULL;
        leave_ep(ep, op);
    }
}

/* ---- pieces ------------------------------------------------------------------------------------ */

of_piece_t *of_piece_get(iso_transport_t *tp)
{
    of_piece_t *piece = tp->spare_pieces;

    if (piece != NULL)
        tp->spare_pieces = piece->next;
    else if ((piece = get(tp, sizeof *piece)) == NULL)
        return NULL;
    *piece = (of_piece_t){.context = {.kind = OF_WRITE}, .tp = tp};
    return piece;
}

void of_piece_add(of_piece_t *piece, of_op_t *op, size_t len)
{
    piece->parts[piece->count++] = (of_part_t){op, op->region, len};
    op->pieces++;
    op->ep->pieces++;
    op->region->pieces++;
}

void of_piece_drop(of_piece_t *piece)
{
    for (unsigned i = 0; i < piece->count; i++) {
        of_op_t *op = piece->parts[i].op;
        of_region_piece_back(piece->parts[i].region);
        op->pieces--;
        if (op->ep != NULL)
            op->ep->pieces--;
    }
    piece->next = piece->tp->spare_pieces;
    piece->tp->spare_pieces = piece;
}

/* One of its pieces is back. */
static void part_ended(of_op_t *op, int error)
{
    if (op->ended) {
        if (op->told && op->pieces == 0)
            put_back(op);
        return;
    }
    if (error != 0 && (op->tp->counted || of_status(error) != ISO_ERR_INVALID)) {
        of_ep_fail(op->ep, error); /* which ends the op */
        return;
    }
    if (error != 0 && op->error == 0) {
        op->error = error;
        if (op->left > 0)
            leave_unsent(op);
        op->left = 0;
    }
    if (op->pieces == 0 && op->left == 0)
        end_op(op, op->error);
}

void of_piece_put(of_piece_t *piece, int error)
{
    of_piece_drop(piece); /* and yet unchanged */
    piece->tp->room++;
    for (unsigned i = 0; i < piece->count; i++)
        part_ended(piece->parts[i].op, error);
}

/* ---- telling ----------------------------------------------------------------------------------- */

/* What its caller is told. */
static iso_status_t status_of(const of_op_t *op)
{
    return peer_outcome(&op->ep->peer->base, of_status(op->error));
}

/* Returns events. */
static unsigned tell(of_op_t *op)
{
    iso_transport_t *tp = op->tp;
    iso_completion_t *completion = op->completion;

    if (op->ep != NULL && op->ep->peer->base.state == PEER_FAILED) {
        op->queue = tp->held;
        tp->held = op;
        return 0;
    }
    const iso_status_t status = op->ep != NULL ? status_of(op) : ISO_ERR_CANCELED;
    op->told = true;
    if (op->pieces == 0)
        put_back(op);
    if (completion != NULL)
        completion->fn(completion, status);
    return 1;
}

unsigned of_ops_tell(iso_transport_t *tp)
{
    of_op_t *lists[2] = {tp->held, tp->ended};
    unsigned events = 0;

    tp->held = tp->ended = NULL;
    tp->ended_last = &tp->ended;
    for (int i = 0; i < 2; i++)
        for (of_op_t *op = lists[i], *next; op != NULL; op = next) {
            next = op->queue;
            events += tell(op);
        }
    return events;
}
