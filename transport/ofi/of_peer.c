/*
 * of_peer.c - what the table of peers (transport/common/peers.h) has of this transport's own.
 *
 * shm does not look after its peers at all (1.17): what was put into a dead one's queue stays there, without an
 * error. The pidfd is what tells.
 */
#include "ofi.h"
#include <stdlib.h>

static void begin(peer_t *base)
{
    of_peer_t *peer = (of_peer_t *)(void *)base;

    peer->address = FI_ADDR_UNSPEC;
    peer->round = 1;
}

static void free_own(peer_t *base)
{
    of_peer_t *peer = (of_peer_t *)(void *)base;

    free(peer->rounds);
    free(peer->name);
}

static void end(iso_transport_t *tp, peer_t *base, peer_state_t state)
{
    of_peer_t *peer = (of_peer_t *)(void *)base;

    if (state != PEER_DEAD)
        return; /* what libfabric has may still end well */
    if (base->ep != NULL)
        of_ep_close(base->ep, FI_ENOTCONN);
    of_msgs_forget(tp, peer);
    of_shm_forget(tp, peer);
}

static const char *explain(int error)
{
    return fi_strerror(error);
}

iso_status_t of_peers_open(iso_transport_t *tp)
{
    static const peer_kind_t kind = {.size = sizeof(of_peer_t),
                                     .begin = begin,
                                     .free = free_own,
                                     .drain = of_drain,
                                     .end = end,
                                     .explain = explain};

    return peers_open(&tp->peers, tp, tp->host, &kind);
}

void of_peer_fail(iso_transport_t *tp, of_peer_t *peer, int error)
{
    life_fail(&tp->peers, &peer->base, error);
}
