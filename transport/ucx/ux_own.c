/*
 * ux_own.c - own puts at the rank that puts: over lanes that are not one-sided.
 *
 * Where no device writes to the peer's memory a put has to be a message that the peer's processor copies. UCX 1.13
 * has such puts, and answers each piece of one; it ends the process that cannot answer because the one that put has
 * ended ("Fatal: unexpected error", ucp_request.inl), so that a rank's death would be an innocent one's too. Ours are
 * active messages, whose failures UCX reports. They need no answer but to a flush, and are faster for it.
 *
 * A put goes in pieces, each a single fragment of UCX's: one of several would be put together in memory that is
 * allocated for it, and copied once more. (Rendezvous has answers of its own, and pieces under way at the target
 * that cannot be called off.) Puts and flushes of an endpoint are a queue: a flush asks when the pieces before it
 * are given to UCX, with the last of them if it can, and ends when the peer answers that they are where they belong. UCX has UX_PIECES messages
 * at most; it copies small ones, and large ones stay where they are until they are sent.
 *
 * Whether the last piece should wait for a flush that may follow is foretold by what followed the put before. Where that was a
 * fence, a put that UCX takes at once is complete at once: the message after it need not wait for the next progress.
 */
#include "ucx.h"
#include <inttypes.h>
#include <string.h>

void ux_own_open(iso_endpoint_t *ep)
{
    ep->connection = ++ep->peer->connections;
    ep->flush = 1;
    ep->queue_last = &ep->queue;
    ep->asked_last = &ep->asked;
    ep->flush_follows = true;
}

/* A flush, or a fence, may be the first thing after a put. */
static void decide(iso_endpoint_t *ep, bool is_flush)
{
    if (ep->undecided)
        ep->flush_follows = is_flush;
    ep->undecided = false;
}

/* ---- messages ---------------------------------------------------------------------------------- */

/* A message with what all have in its header; the caller adds what belongs to its kind. */
static ux_piece_t *piece_new(iso_endpoint_t *ep, ux_own_kind_t kind, ux_own_t *own)
{
    const iso_transport_host_t *host = ep->tp->host;
    ux_piece_t *piece = (ux_piece_t *)(void *)ux_op_get(ep, UX_OP_PIECE, NULL);

    if (piece == NULL)
        return NULL;
    piece->own = own;
    piece->header.version = UX_VERSION;
    piece->header.kind = (uint16_t)kind;
    piece->header.source = host->rank;
    piece->header.connection = ep->connection;
    piece->header.region = piece->header.flush = piece->header.pieces = 0;
    piece->header.address = 0;
    memcpy(piece->header.cookie, host->cookie, sizeof piece->header.cookie);
    return piece;
}

static ucs_status_t emit(iso_endpoint_t *ep, ux_piece_t *piece, const void *data, size_t len)
{
    ux_own_t *own = piece->own;
    const ucp_request_param_t param = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                        UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_MEMORY_TYPE,
        .cb.send = ux_op_called_back,
        .user_data = piece,
        .flags = UCP_AM_SEND_FLAG_EAGER,
        .memory_type = UCS_MEMORY_TYPE_HOST,
    };
    const ucs_status_ptr_t request = ucp_am_send_nbx(ep->ucp, ep->am_id, &piece->header,
                                                     sizeof piece->header, data, len, &param);
    const bool under_way = UCS_PTR_IS_PTR(request);
    const ucs_status_t status = under_way ? UCS_OK : UCS_PTR_STATUS(request);
    if (own != NULL && under_way)
        own->pieces++;
    ux_op_started(&piece->op, request);
    return status;
}

/* A flush that follows: its question goes with the last piece before it. */
static ux_own_t *flush_after(const iso_endpoint_t *ep, const ux_own_t *put)
{
    return put->left <= ep->piece && put->next != NULL && put->next->op.kind == UX_OP_OWN_FLUSH
               ? put->next
               : NULL;
}

static void asked(iso_endpoint_t *ep, ux_own_t *flush)
{
    flush->flush = ep->flush++;
    ep->flush_pieces = 0;
}

static ucs_status_t send_piece(iso_endpoint_t *ep, ux_own_t *put)
{
    const size_t len = put->left < ep->piece ? put->left : ep->piece;
    ux_own_t *flush = flush_after(ep, put);
    ux_piece_t *piece = piece_new(ep, UX_OWN_PIECE, put);

    if (piece == NULL)
        return UCS_ERR_NO_MEMORY;
    piece->header.region = put->region;
    piece->header.flush = ep->flush;
    piece->header.pieces = flush != NULL ? (uint32_t)ep->flush_pieces + 1 : 0;
    piece->header.address = put->remote;
    const ucs_status_t status = emit(ep, piece, put->src, len);
    if (status != UCS_OK)
        return status;
    put->src += len;
    put->left -= len;
    put->remote += len;
    ep->flush_pieces++;
    if (flush != NULL)
        asked(ep, flush);
    return UCS_OK;
}

static ucs_status_t send_ask(iso_endpoint_t *ep, ux_own_t *flush)
{
    ux_piece_t *piece = piece_new(ep, UX_OWN_ASK, NULL);

    if (piece == NULL)
        return UCS_ERR_NO_MEMORY;
    piece->header.flush = ep->flush;
    piece->header.pieces = (uint32_t)ep->flush_pieces;
    const ucs_status_t status = emit(ep, piece, NULL, 0);
    if (status == UCS_OK)
        asked(ep, flush);
    return status;
}

/* ---- the queue --------------------------------------------------------------------------------- */

static ux_own_t *take_first(ux_own_t **first, ux_own_t ***last)
{
    ux_own_t *own = *first;

    if (own != NULL && (*first = own->next) == NULL)
        *last = first;
    return own;
}

static void append(ux_own_t ***last, ux_own_t *own)
{
    own->next = NULL;
    **last = own;
    *last = &own->next;
}

/* All of the put that will be is in UCX's hands. It ends when UCX has let go of it. */
static void issued(ux_own_t *own, ucs_status_t status)
{
    own->left = 0;
    if (own->op.status == UCS_OK)
        own->op.status = status;
    if (own->pieces == 0)
        ux_op_ended(&own->op, own->op.status);
}

/* The last piece of all stays, if it may: most likely a flush follows. */
static void advance(iso_endpoint_t *ep, bool may_stay)
{
    while (ep->queue != NULL && ep->pieces < UX_PIECES) {
        ux_own_t *own = ep->queue;
        const bool is_put = own->op.kind == UX_OP_OWN_PUT;
        if (may_stay && is_put && own->next == NULL && own->left <= ep->piece)
            return;
        const ucs_status_t status = is_put ? send_piece(ep, own) : send_ask(ep, own);
        if (status == UCS_OK && own->left > 0)
            continue;
        take_first(&ep->queue, &ep->queue_last);
        if (is_put)
            issued(own, status);
        else if (status != UCS_OK)
            ux_op_ended(&own->op, status);
        else
            append(&ep->asked_last, own);
        if (is_put && ep->queue != NULL && ep->queue->flush > 0) /* its last piece has asked */
            append(&ep->asked_last, take_first(&ep->queue, &ep->queue_last));
    }
}

void ux_own_advance(iso_transport_t *tp)
{
    for (iso_endpoint_t **at = &tp->busy, *ep; (ep = *at) != NULL;) {
        advance(ep, false);
        if (ep->queue != NULL) {
            at = &ep->next_busy;
        } else {
            ep->busy = false;
            *at = ep->next_busy;
        }
    }
}

static iso_status_t begin(iso_endpoint_t *ep, ux_own_t *own)
{
    ux_op_enter(&own->op);
    append(&ep->queue_last, own);
    advance(ep, true);
    if (ep->queue != NULL && !ep->busy) {
        ep->busy = true;
        ep->next_busy = ep->tp->busy;
        ep->tp->busy = ep;
    }
    return ISO_INPROGRESS;
}

/* All of the put is in UCX's hands; false: some of it has to wait for room. */
static bool issue_at_once(iso_endpoint_t *ep, ux_own_t *own)
{
    while (ep->pieces < UX_PIECES && send_piece(ep, own) == UCS_OK)
        if (own->left == 0)
            return true;
    return false; /* what failed fails again, and is told then */
}

iso_status_t ux_own_put(iso_endpoint_t *ep, const void *src, size_t len, uint64_t remote,
                        const iso_rkey_t *rkey, iso_completion_t *completion)
{
    ux_own_t *own = (ux_own_t *)(void *)ux_op_get(ep, UX_OP_OWN_PUT, completion);

    if (own == NULL)
        return ISO_ERR_NO_MEMORY;
    own->src = src;
    own->left = len;
    own->remote = remote;
    own->region = rkey->region;
    own->pieces = 0;
    own->flush = 0;
    own->next = NULL;
    ep->undecided = true;
    if (ep->flush_follows || ep->queue != NULL || !issue_at_once(ep, own))
        return begin(ep, own);
    if (own->pieces == 0)
        return ux_op_started(&own->op, NULL);
    ux_op_enter(&own->op);
    return ISO_INPROGRESS;
}

iso_status_t ux_own_fence(iso_endpoint_t *ep)
{
    decide(ep, false);
    advance(ep, false);
    if (ep->queue != NULL || ep->flush - ep->answered >= UX_FENCES)
        return ISO_ERR_AGAIN;
    ep->fence_due = true;
    return ISO_OK;
}

/* The pieces sent so far become those of a flush that nobody asks for: the message tells how many there are. */
void ux_own_fenced(const iso_endpoint_t *ep, ux_header_t *header)
{
    header->connection = ep->connection;
    header->flush = ep->fenced;
    header->pieces = ep->fenced_pieces;
    if (ep->fence_due && ep->flush_pieces > 0) {
        header->flush = ep->flush;
        header->pieces = ep->flush_pieces + 1;
    } else if (ep->fence_due && ep->fenced != ep->flush - 1) {
        header->flush = ep->flush - 1;
        header->pieces = 0; /* a question told, or tells */
    }
}

void ux_own_fence_told(iso_endpoint_t *ep, const ux_header_t *header)
{
    if (header->flush == ep->flush) {
        ep->flush++;
        ep->flush_pieces = 0;
    }
    ep->fenced = header->flush;
    ep->fenced_pieces = header->pieces;
    ep->fence_due = false;
}

iso_status_t ux_own_flush(iso_endpoint_t *ep, iso_completion_t *completion)
{
    decide(ep, true);
    /* The peer tells UX_FLUSHES numbers apart: of these, those of fences, and of the one that pieces after them
     * belong to. */
    if (ep->flushes >= UX_FLUSHES - UX_FENCES - 2)
        return ISO_ERR_AGAIN;
    ux_own_t *own = (ux_own_t *)(void *)ux_op_get(ep, UX_OP_OWN_FLUSH, completion);
    if (own == NULL)
        return ISO_ERR_NO_MEMORY;
    own->left = 0;
    own->pieces = 0;
    own->flush = 0;
    return begin(ep, own);
}

/* ---- ends -------------------------------------------------------------------------------------- */

void ux_own_piece_ended(const ux_piece_t *piece)
{
    ux_own_t *own = piece->own;

    if (own == NULL)
        return;
    own->pieces--;
    if (own->op.status == UCS_OK)
        own->op.status = piece->op.status;
    if (own->pieces == 0 && own->left == 0)
        ux_op_ended(&own->op, own->op.status);
}

void ux_own_close(iso_endpoint_t *ep)
{
    for (ux_own_t *own; (own = take_first(&ep->queue, &ep->queue_last)) != NULL;)
        issued(own, UCS_ERR_CANCELED); /* a flush has no pieces */
    for (ux_own_t *own; (own = take_first(&ep->asked, &ep->asked_last)) != NULL;)
        ux_op_ended(&own->op, UCS_ERR_CANCELED);
    for (iso_endpoint_t **at = &ep->tp->busy; *at != NULL; at = &(*at)->next_busy)
        if (*at == ep) {
            *at = ep->next_busy;
            break;
        }
    ep->busy = false;
}

/* ---- what peers ask, and what they answer -------------------------------------------------------- */

static void answer(iso_endpoint_t *ep)
{
    iso_transport_t *tp = ep->tp;
    const ux_landed_t *landed = &ep->peer->landed;
    ux_piece_t *piece = piece_new(ep, UX_OWN_ANSWER, NULL);
    ucs_status_t status = UCS_ERR_NO_MEMORY;

    if (piece != NULL) {
        ux_lock(&tp->landing.lock);
        piece->header.connection = landed->connection;
        piece->header.flush = landed->done;
        piece->header.address = landed->refused;
        ux_unlock(&tp->landing.lock);
        status = emit(ep, piece, NULL, 0);
    }
    if (status != UCS_OK)
        ux_ep_fail(ep, status); /* the peer would wait for ever */
}

static void hear(iso_endpoint_t *ep, uint32_t connection, uint32_t flush, uint64_t refused)
{
    if (connection != ep->connection || flush >= ep->flush)
        return;
    const bool lost = refused > ep->refused;
    if (lost)
        ux_log(ep->tp, ISO_LOG_ERROR,
               "rank %u refused %" PRIu64 " pieces of what was put to it: the region is not "
               "registered there any more",
               ep->peer->base.rank, refused - ep->refused);
    ep->refused = refused;
    if (flush > ep->answered)
        ep->answered = flush;
    while (ep->asked != NULL && ep->asked->flush <= flush)
        ux_op_ended(&take_first(&ep->asked, &ep->asked_last)->op,
                    lost ? UCS_ERR_INVALID_PARAM : UCS_OK);
}

unsigned ux_own_news(iso_transport_t *tp)
{
    ux_inbox_t *inbox = &tp->inbox;
    unsigned events = 0;

    for (;; events++) {
        ux_lock(&inbox->lock);
        ux_peer_t *peer = inbox->news;
        if (peer == NULL) {
            ux_unlock(&inbox->lock);
            return events;
        }
        const bool asked = peer->asked, waits = peer->waits;
        const uint32_t connection = peer->answered_connection, flush = peer->answered;
        const uint64_t refused = peer->answered_refused;
        inbox->news = peer->next_news;
        peer->in_news = peer->asked = peer->waits = false;
        ux_unlock(&inbox->lock);
        if (waits)
            events += ux_inbox_go_on(tp, peer);
        if (peer->base.ep == NULL || peer->base.ep->ucp == NULL)
            continue;
        hear(peer->base.ep, connection, flush, refused);
        if (asked)
            answer(peer->base.ep);
    }
}
