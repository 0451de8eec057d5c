/*
 * of_put.c - puts, and when they are complete at the peer.
 *
 * A put is one or more fi_writemsg. How it is known that the bytes are in the peer's memory:
 *   - over a device each write has FI_DELIVERY_COMPLETE: its completion says so, which over verbs is the
 *     acknowledgement of the write, and a flush is to wait for those of the puts before it. There is no fence.
 *   - software's writes carry data for the completion queue of the target, which gets it when the bytes have been
 *     copied to their place. The target counts these: of_land.c. (tcp of 1.17 answers each write with
 *     FI_DELIVERY_COMPLETE by a packet of its own, and what comes after writes had to wait for it.)
 * Orders among writes and sends (FI_ORDER_RMA_WAW, FI_ORDER_SAW) are of transmission: verbs leaves it to the receiving
 * memory system when the bytes are seen. So nothing is built on them.
 *
 * Small puts that follow each other go in one write, where the provider has room for several addresses in one: the last
 * of them stays until the next call of progress, or a flush, which most likely follows.
 *
 * Over shm puts are our own, and complete when they return: of_cma.c says why. Where a memory object backs the memory, they are
 * stores into a mapping of it (transport/common/windows.c).
 */
#include "ofi.h"
#include <inttypes.h>

static iso_status_t check_put(const iso_endpoint_t *ep, const void *src, size_t len,
                              const iso_region_t *region, uint64_t remote, const iso_rkey_t *rkey)
{
    return caller_check_put(ep->tp->host, OF_MAX_PUT, region != NULL ? &region->memory : NULL, src,
                            len, ep->peer->base.rank,
                            (caller_target_t){rkey->rank, rkey->address, rkey->length}, remote);
}

/* The write of what the piece has parts in. */
static int write_piece(iso_endpoint_t *ep, of_piece_t *piece)
{
    struct iovec from[OF_PARTS];
    struct fi_rma_iov to[OF_PARTS];
    void *desc[OF_PARTS];

    for (unsigned i = 0; i < piece->count; i++) {
        const of_part_t *part = &piece->parts[i];
        /* libfabric only reads it */
        from[i] =
            (struct iovec){.iov_base = (void *)(uintptr_t)part->op->src, .iov_len = part->len};
        to[i] =
            (struct fi_rma_iov){.addr = part->op->remote, .len = part->len, .key = part->op->key};
        desc[i] = part->region->desc;
    }
    const struct fi_msg_rma message = {.msg_iov = from,
                                       .desc = desc,
                                       .iov_count = piece->count,
                                       .addr = ep->peer->address,
                                       .rma_iov = to,
                                       .rma_iov_count = piece->count,
                                       .context = &piece->context.fi,
                                       .data = of_land_data(ep)};
    /* the last before a flush is answered as well: a connection that breaks takes the question with it, unnoticed */
    const uint64_t how = !ep->tp->counted ? FI_DELIVERY_COMPLETE
                         : ep->unasked    ? FI_REMOTE_CQ_DATA | FI_DELIVERY_COMPLETE
                                          : FI_REMOTE_CQ_DATA;

    return (int)fi_writemsg(ep->tp->ep, &message, how | FI_COMPLETION);
}

static void taken(iso_endpoint_t *ep, const of_part_t *part)
{
    of_op_t *op = part->op;

    op->src += part->len;
    op->left -= part->len;
    op->remote += part->len;
    if (op->left > 0)
        return;
    ep->unsent = op->next_unsent;
    if (ep->last_unsent == op)
        ep->last_unsent = NULL;
    if (ep->fenced_put == op)
        ep->fenced_put = NULL;
}

/* Returns the bytes of the next write: of the first puts, as many as go in one. */
static size_t fill(const iso_endpoint_t *ep, of_piece_t *piece)
{
    const iso_transport_t *tp = ep->tp;
    size_t total = 0;

    for (of_op_t *op = ep->unsent; op != NULL && piece->count < tp->parts && total < tp->piece;
         op = op->next_unsent) {
        const size_t room = tp->piece - total, len = op->left < room ? op->left : room;
        of_piece_add(piece, op, len);
        total += len;
    }
    return total;
}

/* false: no room, or (where more puts may come soon) not worth a write yet. */
static bool advance(iso_endpoint_t *ep, bool may_stay)
{
    const iso_transport_t *tp = ep->tp;
    of_piece_t *piece = of_piece_get(ep->tp);

    if (piece == NULL)
        return false; /* later, perhaps */
    const bool full = fill(ep, piece) == tp->piece || piece->count == tp->parts;
    const of_part_t *last = &piece->parts[piece->count - 1];
    const bool is_last = last->op->next_unsent == NULL && last->len == last->op->left;
    /* where writes are counted the last one stays, full or not: a flush has it answered */
    if (may_stay && (!full || (tp->counted && is_last))) {
        of_piece_drop(piece);
        return false;
    }
    const int error = write_piece(ep, piece);
    if (error == -FI_EAGAIN) {
        of_piece_drop(piece);
        return false;
    }
    if (error != 0)
        of_piece_put(piece, -error);
    else
        ep->peer->writes++;
    for (unsigned i = 0; error == 0 && i < piece->count; i++)
        taken(ep, &piece->parts[i]);
    return true;
}

static void give(iso_endpoint_t *ep, bool may_stay)
{
    while (ep->unsent != NULL && ep->pieces < OF_PIECES && !ep->failed)
        if (!advance(ep, may_stay))
            return;
}

void of_puts_advance(iso_endpoint_t *ep)
{
    give(ep, false);
}

iso_status_t of_put(iso_endpoint_t *ep, const void *src, size_t len, iso_region_t *region,
                    uint64_t remote, iso_rkey_t *rkey, iso_completion_t *completion)
{
    iso_status_t status = check_put(ep, src, len, region, remote, rkey);

    if (status == ISO_OK)
        status = of_ep_usable(ep);
    if (status != ISO_OK || len == 0)
        return status;
    if (rkey->object != NULL)
        return windows_put(&ep->tp->windows, rkey->object, rkey->offset + (remote - rkey->address),
                           src, len);
    if (ep->tp->is_shm)
        return of_cma_put(ep, src, len, remote);
    if (ep->puts >= OF_PUTS)
        return ISO_ERR_AGAIN;
    of_op_t *op = of_op_get(ep, true, completion);
    if (op == NULL)
        return ISO_ERR_NO_MEMORY;
    op->src = src;
    op->left = len;
    op->remote = remote - rkey->base;
    op->key = rkey->key;
    op->region = region;
    ep->dirty = true;
    *(ep->unsent != NULL ? &ep->last_unsent->next_unsent : &ep->unsent) = op;
    ep->last_unsent = op;
    give(ep, true);
    of_ep_busy(ep);
    return ISO_INPROGRESS;
}

/* That a flush has to wait for. */
static bool has_puts(const iso_endpoint_t *ep)
{
    if (ep->tp->counted)
        return ep->dirty || ep->peer->asked != ep->peer->answered;
    for (const of_op_t *op = ep->ops; op != NULL; op = op->next)
        if (op->is_put && !op->ended)
            return true;
    return false;
}

iso_status_t of_flush(iso_endpoint_t *ep, iso_completion_t *completion)
{
    const iso_status_t status = of_ep_usable(ep);

    if (status != ISO_OK)
        return status;
    const bool unasked = ep->unasked; /* another flush's */
    ep->unasked = ep->tp->counted;
    of_puts_advance(ep); /* nothing more is to come for now */
    if (!has_puts(ep)) {
        ep->unasked = unasked;
        const bool refused = ep->refused;
        ep->refused = false;
        return refused ? ISO_ERR_INVALID : ISO_OK;
    }
    if (of_op_get(ep, false, completion) == NULL)
        return ISO_ERR_NO_MEMORY;
    of_land_advance(ep);
    of_ep_busy(ep);
    return ISO_INPROGRESS;
}
