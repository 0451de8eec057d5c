/*
 * of_land.c - writes that the target counts, so that a message can come after them without an answer to each.
 *
 * A write of software (tcp, say) goes with FI_REMOTE_CQ_DATA: the target's completion queue gets these 64 bits when the
 * bytes are in their place. They say whose the write is, and of which round. The first message after a fence ends a round:
 * a note before it says how many writes the round had, and what follows the note waits at the target until so many have
 * come. (Writes after the fence may be among them: the note goes with the message, since one alone costs a system
 * call.) A flush is a note and a question behind it, and ends with the answer.
 *
 * Of messages nothing is asked of any order: writes may come before or after the note, and later ones before earlier ones,
 * as each round has its own count, and notes come in order. But a fence is for the puts after it as well, so there is
 * one only where writes go in a stream (tcp, net); over sockets and udp there are flushes. Rounds go on when a peer is
 * connected to again, as writes of the time before may still come. Of a process that has ended, what waits for writes
 * that have not come is never delivered.
 *
 * What gets lost. A write or message that libfabric gives back with an error fails the way to the peer (of_op.c). But tcp of
 * 1.17 closes the connection on a stale key, and the next message opens another; what was in the first is lost, and
 * nobody is told. So the last write before a flush is answered by libfabric too; over tcp and net, whose writes and
 * messages go in one stream, a note that comes with writes missing says that they are lost; and over those and ofi_rxm
 * a piece of messages that comes before its turn says that those before it are. Then the rank whose they were is told, and
 * fails the way. What is lost with nothing after it nobody hears of before ISO_TIMEOUT; in no case is it believed to be there.
 */
#include "ofi.h"
#include <stdlib.h>

#define ROUNDS_FIRST 8

uint64_t of_land_data(const iso_endpoint_t *ep)
{
    return (uint64_t)ep->tp->host->rank << 32 | ep->peer->round;
}

/* ---- at the target ----------------------------------------------------------------------------- */

static of_round_t *find_round(of_peer_t *peer, uint32_t number)
{
    for (unsigned i = 0; i < peer->round_count; i++)
        if (peer->rounds[i].number == number)
            return &peer->rounds[i];
    return NULL;
}

/* NULL: no memory. */
static of_round_t *add_round(of_peer_t *peer, uint32_t number)
{
    if (peer->round_count == peer->round_room) {
        const unsigned room = peer->round_room > 0 ? 2 * peer->round_room : ROUNDS_FIRST;
        of_round_t *rounds = realloc(peer->rounds, room * sizeof *rounds);
        if (rounds == NULL)
            return NULL;
        peer->rounds = rounds;
        peer->round_room = room;
    }
    of_round_t *round = &peer->rounds[peer->round_count++];
    *round = (of_round_t){.number = number};
    return round;
}

/* Its messages are to be looked at. */
static void enter_landed(iso_transport_t *tp, of_peer_t *peer)
{
    if (peer->in_landed)
        return;
    peer->in_landed = true;
    peer->next_landed = tp->landed;
    tp->landed = peer;
}

void of_lost(iso_transport_t *tp, of_peer_t *peer, const char *what)
{
    if (peer->deaf)
        return;
    of_log(tp, ISO_LOG_ERROR, "what rank %u %s: it is not heard any more", peer->base.rank, what);
    peer->lost = peer->deaf = true;
    enter_landed(tp, peer); /* what was kept of it goes */
    if (peer->base.ep != NULL)
        of_ep_busy(peer->base.ep);
}

void of_landed(iso_transport_t *tp, uint64_t data)
{
    const uint32_t source = (uint32_t)(data >> 32), number = (uint32_t)data;
    of_peer_t *peer = source < tp->host->size ? peers_get(&tp->peers, source) : NULL;

    if (peer == NULL || peer->deaf)
        return;
    of_round_t *round = find_round(peer, number);
    if (round == NULL && peer->round_count == OF_ROUNDS) {
        of_lost(tp, peer, "has put is more than it tells of");
        return;
    }
    if (round == NULL && (round = add_round(peer, number)) == NULL) {
        of_log(tp, ISO_LOG_ERROR, "no memory to count what rank %u puts", source);
        of_peer_fail(tp, peer, FI_ENOMEM); /* what comes after it would wait for ever */
        return;
    }
    round->writes++;
    if (peer->waits)
        enter_landed(tp, peer);
}

/* Notes come in the order of the rounds, so no other will tell of those up to this one. */
static void forget_rounds(of_peer_t *peer, uint32_t last)
{
    for (unsigned i = 0; i < peer->round_count;)
        if ((int32_t)(peer->rounds[i].number - last) <= 0) /* numbers go round */
            peer->rounds[i] = peer->rounds[--peer->round_count];
        else
            i++;
}

bool of_landed_before(iso_transport_t *tp, of_peer_t *peer, const of_note_t *note)
{
    of_round_t *round = find_round(peer, note->number);

    if (round == NULL || round->writes != note->writes) {
        if (tp->in_stream)
            of_lost(tp, peer, "has put has not come, or was not for registered memory");
        return false;
    }
    forget_rounds(peer, note->number);
    return true;
}

/* ---- at the rank that writes --------------------------------------------------------------------- */

/* false: no room for the note now. */
static bool end_round(iso_endpoint_t *ep)
{
    of_peer_t *peer = ep->peer;

    if (peer->writes > 0) {
        if (!of_note(ep, OF_AFTER, (of_note_t){peer->round, peer->writes}))
            return false;
        peer->round++;
        peer->writes = 0;
    }
    ep->fenced = ep->fenced_put != NULL; /* a question of before may end a round meanwhile */
    return true;
}

iso_status_t of_fence(iso_endpoint_t *ep)
{
    if (!ep->tp->counted || !ep->tp->in_stream)
        return ISO_ERR_INVALID; /* puts after it could be there before those that it is for */
    const iso_status_t status = of_ep_usable(ep);
    if (status != ISO_OK)
        return status;
    ep->fenced = true;
    ep->fenced_put = ep->last_unsent; /* those that stay may go with the next heap's */
    return ISO_OK;
}

bool of_fence_tell(iso_endpoint_t *ep)
{
    if (ep->fenced_put != NULL)
        of_puts_advance(ep);
    return !ep->fenced || (ep->fenced_put == NULL && end_round(ep));
}

/* One question for all flushes that no put is before which libfabric does not have yet. */
static void ask(iso_endpoint_t *ep)
{
    of_peer_t *peer = ep->peer;
    of_op_t *op = ep->ops;

    while (op != NULL && (op->ended || op->is_put ? op->left == 0 : op->ask != 0))
        op = op->next;
    ep->unasked = op != NULL;
    const uint32_t number = peer->asked == UINT32_MAX ? 1 : peer->asked + 1; /* 0: none */
    if (op == NULL || op->is_put || !end_round(ep) || !of_note(ep, OF_ASK, (of_note_t){number, 0}))
        return;
    peer->asked = number;
    ep->dirty = ep->unsent != NULL;
    for (; op != NULL && op->left == 0; op = op->next)
        if (!op->is_put && !op->ended && op->ask == 0)
            op->ask = peer->asked;
    ep->unasked = op != NULL;
}

void of_land_advance(iso_endpoint_t *ep)
{
    of_peer_t *peer = ep->peer;

    if (ep->failed)
        return;
    if (ep->unasked)
        ask(ep);
    if (peer->owed != 0 && of_note(ep, OF_ANSWER, (of_note_t){peer->owed, 0}))
        peer->owed = 0;
    if (peer->lost && of_note(ep, OF_LOST, (of_note_t){0, 0}))
        peer->lost = false;
}
