/*
 * of_msg.c - messages: sending, receiving, delivering.
 *
 * What goes in one piece is one fi_send with a header of ours and any number of messages, into one of OF_RECVS buffers that
 * always wait at the receiver; a provider keeps back or refuses what finds none (FI_RM_ENABLED), and here what libfabric
 * has no room for waits in its buffer, at most OF_SENDS to one peer. A piece costs some microseconds over tcp, a message
 * in one next to nothing. So what is said within progress, in answer to what came, goes together at its end; of what is
 * said elsewhere the first message after a call of progress goes at once, and others together with the next call
 * of progress, or arm. Over shm a piece costs half a microsecond, and OF_TOGETHER messages go without waiting for more: the
 * peer takes them while this rank puts the next heap, or answers the next message.
 *
 * A piece is at most what shm, or ofi_rxm, copies at once, and longer messages are cut. Longer pieces they would leave where
 * they are, for the receiver to fetch and answer; see of_cma.c for what becomes of answers when a peer dies of shm.
 *
 * Messages are asked to stay in order (FI_ORDER_SAS), but completions of receives may not (FI_ORDER_NONE). So each piece
 * has a number, and one that comes before its turn waits for it, at most OF_EARLY of a peer's. ofi_rxm promises no order
 * either, but what it copies at once it completes as it comes; where a piece of it comes before its turn those before it
 * were in a connection that is no more, and the peer is not heard any more (of_land.c). What does not prove that it is of
 * this job is dropped and counted.
 */
#include "ofi.h"
#include <string.h>

/* ---- sending --------------------------------------------------------------------------------- */

/* libfabric has it. */
static void enter_sent(iso_endpoint_t *ep, of_buffer_t *buffer)
{
    buffer->next = ep->sent;
    if (buffer->next != NULL)
        buffer->next->link = &buffer->next;
    buffer->link = &ep->sent;
    ep->sent = buffer;
    buffer->counted = true;
    ep->tp->sends++;
}

static void leave_sent(of_buffer_t *buffer)
{
    *buffer->link = buffer->next;
    if (buffer->next != NULL)
        buffer->next->link = buffer->link;
}

void of_sends_advance(iso_endpoint_t *ep)
{
    for (of_buffer_t *buffer; (buffer = ep->waiting) != NULL && !ep->failed;) {
        const ssize_t error = fi_send(ep->tp->ep, &buffer->header, buffer->len, buffer->desc,
                                      ep->peer->address, &buffer->context.fi);
        if (error == -FI_EAGAIN)
            return;
        if (error != 0) {
            of_ep_fail(ep, (int)-error);
            return;
        }
        ep->waiting = buffer->next;
        enter_sent(ep, buffer);
    }
}

/* All parts of a message are sent, or none. */
static bool have_buffers(iso_transport_t *tp, size_t count)
{
    of_buffer_t *taken = NULL, *buffer;

    for (; count > 0 && (buffer = of_buffer_get(tp)) != NULL; count--) {
        buffer->next = taken;
        taken = buffer;
    }
    while ((buffer = taken) != NULL) {
        taken = buffer->next;
        of_buffer_put(tp, buffer);
    }
    return count == 0;
}

static void add_buffer(iso_endpoint_t *ep, bool goes_on)
{
    iso_transport_t *tp = ep->tp;
    of_buffer_t *buffer = of_buffer_get(tp);

    buffer->context.kind = OF_SEND;
    buffer->ep = ep;
    buffer->goes_on = goes_on;
    buffer->len = sizeof buffer->header;
    buffer->header = envelope_new(tp->host, OF_MAGIC, OF_VERSION, 0, ep->peer->sent++);
    static_assert(offsetof(of_buffer_t, data) == offsetof(of_buffer_t, header) + sizeof(envelope_t),
                  "header and data go in one piece");
    static_assert(sizeof(envelope_t) % sizeof(of_record_t) == 0, "records are aligned");
    ep->sends++;
    *(ep->waiting != NULL ? &ep->last_waiting->next : &ep->waiting) = buffer;
    ep->last_waiting = buffer;
}

/* Of a record with so many bytes, and what it is filled up with. */
static size_t record_size(size_t len)
{
    const size_t unit = sizeof(of_record_t);

    return unit + (len + unit - 1) / unit * unit;
}

static void add_record(of_buffer_t *buffer, of_record_kind_t kind, const void *data, size_t len)
{
    const of_record_t record = {.len = (uint32_t)len, .kind = kind};
    unsigned char *at = buffer->data + buffer->header.len;
    const size_t size = record_size(len);

    memcpy(at, &record, sizeof record);
    memset(at + size - sizeof record, 0,
           len > 0 ? sizeof record : 0); /* what it is filled up with */
    if (len > 0)
        memcpy(at + sizeof record, data, len);
    buffer->header.len += (uint32_t)size;
    buffer->len += size;
}

/* Is there room in what waits? */
static bool fits(const iso_endpoint_t *ep, size_t len)
{
    return ep->waiting != NULL &&
           ep->last_waiting->header.len + record_size(len) <= ep->tp->message_room;
}

/* A message has been said: do those that wait go before the next call of progress? */
static bool goes_now(iso_endpoint_t *ep)
{
    const iso_transport_t *tp = ep->tp;

    if (!tp->in_progress && ep->turn != tp->turn)
        return true;
    return tp->is_shm && ++ep->together >= OF_TOGETHER;
}

iso_status_t of_send(iso_endpoint_t *ep, const void *data, size_t len)
{
    iso_transport_t *tp = ep->tp;

    if (len > OF_MAX_SEND) {
        of_log(tp, ISO_LOG_ERROR, "a message of %zu bytes to rank %u: at most %u can be sent", len,
               ep->peer->base.rank, OF_MAX_SEND);
        return ISO_ERR_INVALID;
    }
    const iso_status_t status = of_ep_usable(ep);
    if (status != ISO_OK)
        return status;
    if (!of_fence_tell(ep))
        return ISO_ERR_AGAIN;
    const size_t part = tp->message_room - sizeof(of_record_t);
    const size_t parts = fits(ep, len) ? 0 : len > 0 ? (len + part - 1) / part : 1;
    if (ep->sends + parts > OF_SENDS)
        return ISO_ERR_AGAIN;
    if (!have_buffers(tp, parts))
        return ISO_ERR_NO_MEMORY;
    if (parts == 0)
        add_record(ep->last_waiting, OF_WHOLE, data, len);
    for (size_t i = 0, at = 0; i < parts; i++, at += part) {
        const bool more = i + 1 < parts;
        add_buffer(ep, i > 0);
        add_record(ep->last_waiting, more ? OF_BEGUN : OF_WHOLE, (const char *)data + at,
                   more ? part : len - at);
    }
    if (goes_now(ep)) {
        ep->turn = tp->turn;
        ep->together = 0;
        of_sends_advance(ep);
    }
    of_ep_busy(ep);
    return ISO_OK;
}

bool of_is_sending(iso_transport_t *tp)
{
    for (const iso_endpoint_t *ep = tp->busy; ep != NULL; ep = ep->next_busy)
        if (ep->waiting != NULL)
            return true;
    return tp->sends > 0;
}

bool of_note(iso_endpoint_t *ep, of_record_kind_t kind, of_note_t note)
{
    if (!fits(ep, sizeof note)) {
        if (ep->sends >= OF_SENDS || !have_buffers(ep->tp, 1))
            return false;
        add_buffer(ep, false);
    }
    add_record(ep->last_waiting, kind, &note, sizeof note);
    of_ep_busy(ep);
    return true;
}

void of_sent(of_buffer_t *buffer, int error)
{
    iso_transport_t *tp = buffer->tp;
    iso_endpoint_t *ep = buffer->ep;

    tp->sends -= buffer->counted;
    buffer->counted = false;
    if (ep != NULL) {
        leave_sent(buffer);
        ep->sends--;
        tp->room++;
        if (error != 0)
            of_ep_fail(ep, error);
    }
    of_buffer_put(tp, buffer);
}

void of_sends_forget(iso_endpoint_t *ep, bool may_arrive)
{
    iso_transport_t *tp = ep->tp;

    /* The next way goes on with their numbers; but not in the middle of a message, which is lost, and shall be missed. */
    if (ep->waiting != NULL && !ep->waiting->goes_on)
        ep->peer->sent = ep->waiting->header.number;
    for (of_buffer_t *buffer; (buffer = ep->waiting) != NULL;) {
        ep->waiting = buffer->next;
        of_buffer_put(tp, buffer);
    }
    for (of_buffer_t *buffer; (buffer = ep->sent) != NULL;) {
        leave_sent(buffer);
        buffer->ep = NULL;
        if (!may_arrive) {
            buffer->counted = false;
            tp->sends--;
        }
    }
    ep->sends = 0;
}

/* ---- receiving ------------------------------------------------------------------------------- */

iso_status_t of_recvs_post(iso_transport_t *tp)
{
    while (tp->posted < OF_RECVS) {
        of_buffer_t *buffer = of_buffer_get(tp);
        if (buffer == NULL)
            return tp->posted > 0 ? ISO_OK : ISO_ERR_NO_MEMORY;
        buffer->context.kind = OF_RECV;
        const ssize_t error = fi_recv(tp->ep, &buffer->header, sizeof buffer->header + OF_ROOM,
                                      buffer->desc, FI_ADDR_UNSPEC, &buffer->context.fi);
        if (error == 0) {
            tp->posted++;
            continue;
        }
        of_buffer_put(tp, buffer);
        if (error == -FI_EAGAIN && tp->posted > 0)
            return ISO_OK; /* the next progress tries again */
        of_log(tp, ISO_LOG_ERROR, "libfabric does not take a buffer for messages: %s",
               fi_strerror((int)-error));
        return ISO_ERR_SYSTEM;
    }
    return ISO_OK;
}

/* ---- delivering ------------------------------------------------------------------------------ */

/* NULL: not of this job. */
static of_peer_t *sender_of(iso_transport_t *tp, const of_buffer_t *buffer)
{
    const envelope_t *header = &buffer->header;

    if (buffer->len >= sizeof *header &&
        envelope_is_good(header, tp->host, OF_MAGIC, OF_VERSION, buffer->len - sizeof *header))
        return peers_get(&tp->peers, header->source);
    envelope_drop(tp->host, &tp->dropped);
    return NULL;
}

/* Puts the parts of a message together. NULL: not all have come, or it makes no sense. */
static of_buffer_t *join(iso_transport_t *tp, of_peer_t *peer, const void *data,
                         const of_record_t *record)
{
    of_buffer_t *begun = peer->begun != NULL ? peer->begun : of_buffer_get(tp);

    if (begun == NULL) {
        of_peer_fail(tp, peer, FI_ENOMEM); /* the message is lost */
        return NULL;
    }
    if (peer->begun == NULL)
        begun->header.len = 0;
    peer->begun = record->kind == OF_BEGUN ? begun : NULL;
    if (begun->header.len + record->len > OF_MAX_SEND) {
        of_log(tp, ISO_LOG_ERROR, "a message of rank %u is longer than can be: it is dropped",
               peer->base.rank);
        peer->begun = NULL;
        of_buffer_put(tp, begun);
        return NULL;
    }
    memcpy(begun->data + begun->header.len, data, record->len);
    begun->header.len += record->len;
    return peer->begun == NULL ? begun : NULL;
}

/* Returns events. */
static unsigned take_message(iso_transport_t *tp, of_peer_t *peer, const void *data,
                             const of_record_t *record)
{
    if (peer->begun == NULL && record->kind == OF_WHOLE) {
        tp->host->message(tp->host->arg, peer->base.rank, data, record->len);
        return 1;
    }
    of_buffer_t *whole = join(tp, peer, data, record);
    if (whole == NULL)
        return 0;
    tp->host->message(tp->host->arg, peer->base.rank, whole->data, whole->header.len);
    of_buffer_put(tp, whole);
    return 1;
}

/* false: what it comes after has not. */
static bool take_note(iso_transport_t *tp, of_peer_t *peer, of_record_kind_t kind, const void *data)
{
    of_note_t note;

    memcpy(&note, data, sizeof note);
    if (kind == OF_AFTER)
        return of_landed_before(tp, peer, &note);
    if (kind == OF_ASK)
        peer->owed = note.number;
    else if (kind == OF_ANSWER && note.number - peer->answered - 1 < peer->asked - peer->answered)
        peer->answered = note.number;
    if (kind == OF_ANSWER && peer->base.ep != NULL)
        of_flushes_end(peer->base.ep, peer->answered);
    if (kind == OF_LOST && peer->base.ep != NULL)
        of_ep_fail(peer->base.ep, FI_EIO);
    else if (kind == OF_LOST)
        of_peer_fail(tp, peer, FI_EIO); /* it hears nothing of the next way either */
    if (peer->base.ep != NULL)
        of_ep_busy(peer->base.ep);
    return true;
}

/* Of a piece that has come, what is at buffer->at. false: it makes no sense. */
static bool read_record(const of_buffer_t *buffer, of_record_t *record_p)
{
    const size_t left = buffer->header.len - buffer->at;

    if (left < sizeof *record_p)
        return false;
    memcpy(record_p, buffer->data + buffer->at, sizeof *record_p);
    return record_p->len <= left - sizeof *record_p && record_p->kind < OF_RECORD_KINDS &&
           (record_p->kind < OF_AFTER || record_p->len == sizeof(of_note_t));
}

/* The records of the piece whose turn it is; false: those that are left wait for writes. */
static bool hand_over(iso_transport_t *tp, of_peer_t *peer, of_buffer_t *buffer, unsigned *events)
{
    while (buffer->at < buffer->header.len) {
        const unsigned char *data = buffer->data + buffer->at + sizeof(of_record_t);
        of_record_t record;
        if (!read_record(buffer, &record)) {
            of_log(tp, ISO_LOG_ERROR, "a message of rank %u makes no sense: it is dropped",
                   peer->base.rank);
            return true;
        }
        if (record.kind < OF_AFTER)
            *events += take_message(tp, peer, data, &record);
        else if (take_note(tp, peer, record.kind, data))
            ++*events;
        else
            return false;
        buffer->at += record_size(record.len);
    }
    return true;
}

static of_buffer_t *buffer_of(turn_t *turn)
{
    return (of_buffer_t *)(void *)((char *)turn - offsetof(of_buffer_t, turn));
}

void of_msgs_forget(iso_transport_t *tp, of_peer_t *peer)
{
    for (turn_t *turn; (turn = turns_take(&peer->turns)) != NULL;)
        of_buffer_put(tp, buffer_of(turn));
    if (peer->begun != NULL)
        of_buffer_put(tp, peer->begun);
    peer->begun = NULL;
}

/* Hands over those whose turn it is. Returns events. */
static unsigned go_on(iso_transport_t *tp, of_peer_t *peer)
{
    unsigned events = 0;

    peer->waits = false;
    for (turn_t *turn; peer->base.state != PEER_DEAD && !peer->deaf &&
                       (turn = turns_due(&peer->turns)) != NULL;) {
        of_buffer_t *buffer = buffer_of(turn);
        const bool is_next = turn->number == peer->turns.heard; /* else it is one once more */
        if (is_next && !hand_over(tp, peer, buffer, &events)) {
            peer->waits = true;
            break;
        }
        peer->turns.heard += is_next;
        turns_take(&peer->turns);
        of_buffer_put(tp, buffer);
    }
    if (peer->turns.first != NULL && !peer->waits && tp->in_order && peer->base.state != PEER_DEAD)
        of_lost(tp, peer, "has said has not all come");
    if (peer->deaf)
        of_msgs_forget(tp, peer);
    return events;
}

static unsigned deliver(iso_transport_t *tp, of_buffer_t *buffer)
{
    of_peer_t *peer = sender_of(tp, buffer);

    if (peer == NULL || peer->deaf || peer->base.state == PEER_DEAD ||
        buffer->header.number < peer->turns.heard) {
        of_buffer_put(tp, buffer);
        return 0;
    }
    turns_keep(&peer->turns, &buffer->turn, buffer->header.number);
    if (peer->turns.count > OF_EARLY)
        of_lost(tp, peer, "says waits too long for what it has said, or put, before");
    return peer->waits && !peer->deaf ? 0 : go_on(tp, peer);
}

unsigned of_msgs_deliver(iso_transport_t *tp)
{
    of_buffer_t *buffer = tp->arrived;
    unsigned events = 0;

    for (of_peer_t *peer; (peer = tp->landed) != NULL;) {
        tp->landed = peer->next_landed;
        peer->in_landed = false;
        events += go_on(tp, peer);
    }
    tp->arrived = NULL;
    tp->arrived_last = &tp->arrived;
    for (of_buffer_t *next; buffer != NULL; buffer = next) {
        next = buffer->next;
        events += deliver(tp, buffer);
    }
    return events;
}
