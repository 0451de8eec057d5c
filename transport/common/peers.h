/*
 * peers.h - the ranks that an instance has connected to or heard of: the table of them, and the processes that they are.
 *
 * A peer, once known, stays in the table until the instance closes. A transport's own struct of one begins with a peer_t;
 * how sure it is that one has failed is the transport's to know: over a network life.h finds out.
 *
 * Compiled into every module that wants it: a module needs nothing outside itself.
 */
#ifndef TRANSPORT_COMMON_PEERS_H
#define TRANSPORT_COMMON_PEERS_H

#include "transport/common/by_rank.h"
#include "transport/common/process.h"
#include <isomalloc/transport.h>

typedef enum peer_state {
    PEER_ALIVE = 0,
    PEER_FAILED = 1, /* the network gave up on it; whether it is dead is looked at (life.h) */
    PEER_UNREACHABLE = 2,
    PEER_DEAD = 3
} peer_state_t;

typedef struct peer {
    struct peer *next; /* in peers.first */
    uint32_t rank;
    peer_state_t state;
    iso_endpoint_t *ep;   /* NULL: not connected */
    process_id_t process; /* pid 0: not of this host, or not connected or heard yet */
    int pidfd;            /* in peers.watch_fd, with its rank; -1: none. None for the own rank */
    bool death_due;       /* had ended before it could be watched: progress has to report it */
    uint64_t decide_at;   /* ms, in state PEER_FAILED */
    int error;            /* why it failed: the network library's number */
} peer_t;

/* What a transport has of its own. */
typedef struct peer_kind {
    size_t size;                 /* of its struct of a peer */
    void (*begin)(peer_t *peer); /* sets what is not zero in a new one; NULL: nothing */
    void (*free)(peer_t *peer);  /* what one has beside itself; NULL: nothing */
    /* Of those that use life.h: */
    unsigned (*drain)(
        iso_transport_t *tp); /* hears what a process that has ended had sent; returns events */
    /* Dead, or unreachable: ends what is under way to it, before the library is told. */
    void (*end)(iso_transport_t *tp, peer_t *peer, peer_state_t state);
    const char *(*explain)(int error);
} peer_kind_t;

/* An instance's. */
typedef struct peers {
    iso_transport_t *tp;
    const iso_transport_host_t *host;
    const peer_kind_t *kind;
    peer_t *first;
    by_rank_t by_rank;  /* the same, to be found */
    int watch_fd;       /* epoll: pidfds, and what the transport has in it; -1: none */
    uint32_t undecided; /* in state PEER_FAILED, or with death_due */
} peers_t;

iso_status_t peers_open(peers_t *peers, iso_transport_t *tp, const iso_transport_host_t *host,
                        const peer_kind_t *kind);
void peers_close(peers_t *peers);
/* Of a rank of the job; NULL: not known. Another thread may find one meanwhile, also one that is being made. */
static inline void *peers_find(const peers_t *peers, uint32_t rank)
{
    return by_rank_get(&peers->by_rank, rank);
}
/* Finds it, or makes it known; NULL: no memory, logged. */
void *peers_get(peers_t *peers, uint32_t rank);

/* What connect is asked for. Is the rank of the job? */
iso_status_t peers_check_rank(const peers_t *peers, uint32_t rank);
/* May it be connected to, as that process? Else it is said why not. */
iso_status_t peers_admit(peers_t *peers, uint32_t rank, const process_id_t *process, void **peer_p);

/* Learns when peer->process ends. 0 or errno; ESRCH: it has. */
int peers_watch(const peers_t *peers, peer_t *peer);
void peers_unwatch(const peers_t *peers, peer_t *peer);

/* What an operation to the peer is answered, before it is tried. */
iso_status_t peer_usable(const peer_t *peer);
/* What the caller of an operation is told that has ended, with `own` as far as the network knows. */
iso_status_t peer_outcome(const peer_t *peer, iso_status_t own);
/* Dead or unreachable: tells the library. */
void peers_settle(peers_t *peers, peer_t *peer, peer_state_t state);

#endif
