/*
 * ux_msg.c - messages: sending, the inbox, delivering.
 *
 * A message is one active message with a header of ours. UCX promises no order among active messages
 * (larger ones may be cut, and go by several lanes), so each has a number, and one that comes before its
 * turn waits for it. What does not prove that it is of this job is dropped and counted.
 *
 * Own puts (ux_own.c) come by the same id, since a program that shares its worker spares one; they are what has a header of
 * UCX's.
 */
#include "ucx.h"
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* ---- sending --------------------------------------------------------------------------------- */

iso_status_t ux_send(iso_endpoint_t *ep, const void *data, size_t len)
{
    iso_transport_t *tp = ep->tp;
    ux_peer_t *peer = ep->peer;

    if (len > UX_MAX_SEND) {
        ux_log(tp, ISO_LOG_ERROR, "a message of %zu bytes to rank %u: at most %u can be sent", len,
               peer->base.rank, UX_MAX_SEND);
        return ISO_ERR_INVALID;
    }
    iso_status_t status = ux_ep_usable(ep);
    if (status != ISO_OK)
        return status;
    if (ep->sends >= UX_SENDS)
        return ISO_ERR_AGAIN;
    ux_send_t *send = (ux_send_t *)(void *)ux_op_get(ep, UX_OP_SEND, NULL);
    if (send == NULL)
        return ISO_ERR_NO_MEMORY;
    send->header =
        (ux_header_t){.envelope = envelope_new(tp->host, UX_MAGIC, UX_VERSION, len, peer->sent)};
    ux_own_fenced(ep, &send->header);
    const ux_header_t header = send->header;
    if (len > 0)
        memcpy(send->data, data, len);
    static_assert(offsetof(ux_send_t, data) == offsetof(ux_send_t, header) + sizeof(ux_header_t),
                  "header and data go in one piece");
    const ucp_request_param_t param = {
        .op_attr_mask =
            UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS,
        .cb.send = ux_op_called_back,
        .user_data = send,
        .flags = UCP_AM_SEND_FLAG_EAGER,
    };
    status = ux_op_started(&send->op, ucp_am_send_nbx(ep->ucp, ep->am_id, NULL, 0, &send->header,
                                                      sizeof send->header + len, &param));
    if (status < 0)
        return status;
    ux_own_fence_told(ep, &header);
    peer->sent++;
    return ISO_OK;
}

bool ux_is_sending(iso_transport_t *tp)
{
    return tp->sends > 0;
}

/* ---- the inbox ------------------------------------------------------------------------------- */

/* Messages that are kept for those that will come; what a burst of more has taken is given back. */
#define SPARES 64

static ux_message_t *take_spare(ux_inbox_t *inbox)
{
    ux_lock(&inbox->lock);
    ux_message_t *message = inbox->spares;
    if (message != NULL)
        inbox->spares = message->next;
    inbox->spare_count -= message != NULL;
    ux_unlock(&inbox->lock);
    return message != NULL ? message : malloc(sizeof *message);
}

static void give_back(ux_inbox_t *inbox, ux_message_t *message)
{
    ux_lock(&inbox->lock);
    const bool keeps = inbox->spare_count < SPARES;
    if (keeps) {
        message->next = inbox->spares;
        inbox->spares = message;
        inbox->spare_count++;
    }
    ux_unlock(&inbox->lock);
    if (!keeps)
        free(message);
}

static ux_message_t *message_of(turn_t *turn)
{
    return (ux_message_t *)(void *)turn;
}

/* A message of the rank is lost. With the inbox's lock. */
static void note_lost(ux_inbox_t *inbox, uint32_t rank)
{
    unsigned i = 0;

    while (i < inbox->lost_count && i < UX_LOST && inbox->lost[i] != rank)
        i++;
    if (i < UX_LOST)
        inbox->lost[i] = rank;
    if (i == inbox->lost_count)
        inbox->lost_count++;
}

/* There is no memory for what has come. */
static void lose_incoming(iso_transport_t *tp, const void *data, size_t len)
{
    ux_inbox_t *inbox = &tp->inbox;
    ux_header_t header;

    if (len < sizeof header)
        return; /* it would be dropped */
    memcpy(&header, data, sizeof header);
    if (!envelope_is_good(&header.envelope, tp->host, UX_MAGIC, UX_VERSION, len - sizeof header))
        return;
    ux_lock(&inbox->lock);
    note_lost(inbox, header.envelope.source);
    ux_inbox_added(inbox);
    ux_unlock(&inbox->lock);
}

/* UCX's callback: data is valid during the call only. */
static ucs_status_t on_message(void *arg, const void *header, size_t header_len, void *data,
                               size_t len, const ucp_am_recv_param_t *param)
{
    iso_transport_t *tp = arg;
    ux_inbox_t *inbox = &tp->inbox;
    const size_t room = sizeof(ux_header_t) + UX_MAX_SEND;

    ux_own_header_t own;

    /* Of a rendezvous, which no rank of ours begins, the data are not here. */
    const bool whole = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) == 0;
    if (whole && header_len == sizeof own) {
        memcpy(&own, header, sizeof own); /* it may lie anywhere */
        if (ux_land(tp, &own, data, len))
            return UCS_OK;
    }
    const bool odd = !whole || header_len != 0 || len < sizeof(ux_header_t) || len > room;
    ux_message_t *message = take_spare(inbox);
    if (message == NULL) {
        lose_incoming(tp, data, odd ? 0 : len);
        return UCS_OK;
    }
    message->next = NULL;
    message->len = odd ? 0 : len;
    memcpy(&message->header, data, message->len);
    ux_lock(&inbox->lock);
    *inbox->last = message;
    inbox->last = &message->next;
    ux_inbox_added(inbox);
    ux_unlock(&inbox->lock);
    return UCS_OK;
}

iso_status_t ux_inbox_open(iso_transport_t *tp)
{
    const ucp_am_handler_param_t param = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                      UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = tp->am_id,
        .flags = UCP_AM_FLAG_WHOLE_MSG,
        .cb = on_message,
        .arg = tp,
    };

    static_assert(offsetof(ux_message_t, data) ==
                      offsetof(ux_message_t, header) + sizeof(ux_header_t),
                  "header and data come in one piece");
    if (ux_lock_open(tp, &tp->inbox.lock) != ISO_OK)
        return ISO_ERR_NO_MEMORY;
    tp->inbox.last = &tp->inbox.first;
    tp->inbox.ended_last = &tp->inbox.ended;
    tp->ended_last = &tp->ended;
    const ucs_status_t status = ucp_worker_set_am_recv_handler(tp->worker, &param);
    if (status == UCS_OK)
        return ISO_OK;
    ux_lock_close(&tp->inbox.lock);
    ux_log(tp, ISO_LOG_ERROR, "UCX does not take a handler of messages: %s",
           ucs_status_string(status));
    return ISO_ERR_SYSTEM;
}

static void free_messages(ux_message_t *message)
{
    for (ux_message_t *next; message != NULL; message = next) {
        next = message->next;
        free(message);
    }
}

void ux_inbox_close(iso_transport_t *tp)
{
    free_messages(tp->inbox.first);
    free_messages(tp->inbox.spares);
    for (peer_t *peer = tp->peers.first; peer != NULL; peer = peer->next)
        for (turn_t *turn; (turn = turns_take(&((ux_peer_t *)(void *)peer)->turns)) != NULL;)
            free(message_of(turn));
    ux_lock_close(&tp->inbox.lock);
}

bool ux_inbox_ready(const iso_transport_t *tp)
{
    return atomic_load_explicit(&tp->inbox.added, memory_order_acquire) != tp->seen;
}

/* ---- delivering ------------------------------------------------------------------------------ */

/* NULL: not of this job. */
static ux_peer_t *sender_of(iso_transport_t *tp, const ux_message_t *message)
{
    const envelope_t *envelope = &message->header.envelope;

    if (message->len >= sizeof message->header &&
        envelope_is_good(envelope, tp->host, UX_MAGIC, UX_VERSION,
                         message->len - sizeof message->header))
        return peers_get(&tp->peers, envelope->source);
    envelope_drop(tp->host, &tp->dropped);
    return NULL;
}

static unsigned hand_over(iso_transport_t *tp, ux_peer_t *peer, ux_message_t *message)
{
    peer->turns.heard++;
    tp->host->message(tp->host->arg, peer->base.rank, message->data, message->header.envelope.len);
    give_back(&tp->inbox, message);
    return 1;
}

/* Has what it comes after come? If not, ux_inbox_go_on is called when it has. */
static bool is_ready(iso_transport_t *tp, ux_peer_t *peer, const ux_message_t *message)
{
    if (ux_landed_before(tp, peer, &message->header))
        return true;
    ux_lock(&tp->inbox.lock);
    peer->waits = true;
    ux_unlock(&tp->inbox.lock);
    return ux_landed_before(tp, peer, &message->header);
}

/* Those whose turn it is. Returns events. */
static unsigned go_on(iso_transport_t *tp, ux_peer_t *peer)
{
    unsigned events = 0;

    for (turn_t *turn; (turn = turns_due(&peer->turns)) != NULL;) {
        ux_message_t *message = message_of(turn);
        const bool is_next = turn->number == peer->turns.heard; /* else it is one once more */
        if (is_next && !is_ready(tp, peer, message))
            break;
        turns_take(&peer->turns);
        if (is_next)
            events += hand_over(tp, peer, message);
        else
            give_back(&tp->inbox, message);
    }
    return events;
}

unsigned ux_inbox_go_on(iso_transport_t *tp, ux_peer_t *peer)
{
    return peer->base.state == PEER_DEAD ? 0 : go_on(tp, peer);
}

static unsigned deliver(iso_transport_t *tp, ux_message_t *message)
{
    ux_peer_t *peer = sender_of(tp, message);

    if (peer == NULL || peer->deaf || peer->base.state == PEER_DEAD ||
        message->header.envelope.number < peer->turns.heard) {
        give_back(&tp->inbox, message);
        return 0;
    }
    const uint64_t number = message->header.envelope.number;
    if (number > peer->turns.heard || !is_ready(tp, peer, message)) {
        turns_keep(&peer->turns, &message->turn, number);
        return 0;
    }
    return hand_over(tp, peer, message) + go_on(tp, peer);
}

/* ---- loss ------------------------------------------------------------------------------------ */

/* A message of the peer is not there, and those after it would wait for it for ever. */
static void lose(iso_transport_t *tp, ux_peer_t *peer)
{
    if (peer->deaf)
        return;
    ux_log(tp, ISO_LOG_ERROR,
           "no memory for a message of rank %u: it is lost, and nothing more is heard from it",
           peer->base.rank);
    peer->deaf = true;
    for (turn_t *turn; (turn = turns_take(&peer->turns)) != NULL;)
        give_back(&tp->inbox, message_of(turn));
    life_fail(&tp->peers, &peer->base, UCS_ERR_NO_MEMORY);
}

/* After what came before it was delivered. Returns events. */
static unsigned lose_all(iso_transport_t *tp, const uint32_t ranks[UX_LOST], unsigned count)
{
    for (unsigned i = 0; i < count && i < UX_LOST; i++) {
        ux_peer_t *peer = peers_get(&tp->peers, ranks[i]);
        if (peer != NULL) {
            lose(tp, peer);
            continue;
        }
        ux_lock(&tp->inbox.lock); /* with the next message that comes it is tried again */
        note_lost(&tp->inbox, ranks[i]);
        ux_unlock(&tp->inbox.lock);
    }
    if (count > UX_LOST) /* whose the others are nobody knows */
        for (peer_t *peer = tp->peers.first; peer != NULL; peer = peer->next)
            lose(tp, (ux_peer_t *)(void *)peer);
    return count;
}

unsigned ux_inbox_deliver(iso_transport_t *tp)
{
    ux_inbox_t *inbox = &tp->inbox;
    uint32_t lost[UX_LOST];
    unsigned events = 0;

    ux_lock(&inbox->lock);
    ux_message_t *message = inbox->first;
    const unsigned lost_count = inbox->lost_count;
    inbox->first = NULL;
    inbox->last = &inbox->first;
    if (lost_count > 0)
        memcpy(lost, inbox->lost, sizeof lost);
    inbox->lost_count = 0;
    ux_unlock(&inbox->lock);
    for (ux_message_t *next; message != NULL; message = next) {
        next = message->next;
        events += deliver(tp, message);
    }
    if (lost_count > 0)
        events += lose_all(tp, lost, lost_count);
    return events;
}
