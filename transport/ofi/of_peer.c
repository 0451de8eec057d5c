/*
 * of_peer.c - the table of peers, and who of them is alive.
 *
 * libfabric says that an operation has failed, and not why: transport/common/life.h.
 *
 * shm does not look after its peers at all (1.17): what was put into a dead one's queue stays there, without an
 * error. The pidfd is what tells.
 */
#include "ofi.h"
#include <stdlib.h>
#include <unistd.h>

iso_status_t of_peers_open(iso_transport_t *tp)
{
    if (by_rank_open(&tp->by_rank, tp->host->size))
        return ISO_OK;
    of_log(tp, ISO_LOG_ERROR, "no memory for the table of %u ranks", tp->host->size);
    return ISO_ERR_NO_MEMORY;
}

void of_peers_close(iso_transport_t *tp)
{
    while (tp->peers != NULL) {
        of_peer_t *peer = tp->peers;
        tp->peers = peer->next;
        if (peer->life.pidfd >= 0)
            close(peer->life.pidfd);
        free(peer->rounds);
        free(peer->name);
        free(peer);
    }
    by_rank_close(&tp->by_rank);
}

of_peer_t *of_peer_find(const iso_transport_t *tp, uint32_t rank)
{
    return by_rank_get(&tp->by_rank, rank);
}

of_peer_t *of_peer_get(iso_transport_t *tp, uint32_t rank)
{
    of_peer_t *peer = of_peer_find(tp, rank);

    if (peer != NULL)
        return peer;
    peer = calloc(1, sizeof *peer);
    if (peer != NULL) {
        peer->rank = rank;
        peer->life = life_new(rank);
        peer->address = FI_ADDR_UNSPEC;
        peer->round = 1;
    }
    if (peer == NULL || !by_rank_set(&tp->by_rank, rank, peer)) {
        free(peer);
        of_log(tp, ISO_LOG_ERROR, "no memory to keep track of rank %u", rank);
        return NULL;
    }
    peer->next = tp->peers;
    tp->peers = peer;
    return peer;
}

/* ---- decisions ------------------------------------------------------------------------------- */

static void give_up(iso_transport_t *tp, of_peer_t *peer)
{
    of_log(tp, ISO_LOG_INFO, "nothing gets through to rank %u any more: %s", peer->rank,
           fi_strerror(peer->error));
    life_settle(&tp->lives, &peer->life, LIFE_UNREACHABLE);
}

void of_peer_fail(iso_transport_t *tp, of_peer_t *peer, int error)
{
    if (peer->life.state != LIFE_ALIVE)
        return;
    peer->error = error;
    if (!life_failed(&tp->lives, &peer->life, clock_coarse_ms()))
        give_up(tp, peer);
}

void of_peer_died(iso_transport_t *tp, of_peer_t *peer)
{
    life_unwatch(&tp->lives, &peer->life);
    if (peer->life.state == LIFE_DEAD)
        return;
    if (peer->ep != NULL)
        of_ep_close(peer->ep, FI_ENOTCONN);
    of_msgs_forget(tp, peer);
    of_shm_forget(tp, peer);
    life_settle(&tp->lives, &peer->life, LIFE_DEAD);
}

unsigned of_peers_decide(iso_transport_t *tp)
{
    const uint64_t now = clock_coarse_ms();
    unsigned events = 0;

    for (of_peer_t *peer = tp->peers; peer != NULL && tp->lives.undecided > 0; peer = peer->next) {
        const life_state_t verdict = life_verdict(&peer->life, now);
        if (verdict == LIFE_DEAD) {
            events += of_drain(tp) + 1;
            of_peer_died(tp, peer);
        } else if (verdict == LIFE_UNREACHABLE) {
            events++;
            give_up(tp, peer);
        }
    }
    return events;
}
