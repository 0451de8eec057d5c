/*
 * life.h - who of the peers is alive, for transports that are told that an operation has failed, and not why.
 *
 * A peer whose process can be watched (a pidfd, on this host) is given LIFE_GRACE_MS to turn out to be dead, since an
 * ending process closes its connections a moment before it has ended; meanwhile nothing is sent to it and nothing
 * of it is reported. A peer that is watched and does not die then, or that cannot be watched, is unreachable, for
 * good: what was lost on the way is not known. Of peers on other hosts only the launcher can say that they are dead.
 *
 * Compiled into every module that wants it: a module needs nothing outside itself.
 */
#ifndef TRANSPORT_COMMON_LIFE_H
#define TRANSPORT_COMMON_LIFE_H

#include "transport/common/process.h"
#include <isomalloc/transport.h>

#define LIFE_GRACE_MS 1000u

typedef enum life_state {
    LIFE_ALIVE = 0,
    LIFE_FAILED =
        1, /* the network gave up on it; whether it is dead is looked at until `decide_at` */
    LIFE_UNREACHABLE = 2,
    LIFE_DEAD = 3
} life_state_t;

/* A peer's. */
typedef struct life {
    uint32_t rank;
    life_state_t state;
    uint64_t decide_at;   /* ms, in state LIFE_FAILED */
    bool death_due;       /* had ended before it could be watched: progress has to report it */
    process_id_t process; /* pid 0: not of this host, or not connected */
    int pidfd;            /* in lives.watch_fd, with its rank; -1: none */
} life_t;

/* An instance's. */
typedef struct lives {
    const iso_transport_host_t *host;
    int watch_fd;       /* epoll: pidfds, and what the transport has in it */
    uint32_t undecided; /* peers in state LIFE_FAILED, or with death_due */
} lives_t;

life_t life_new(uint32_t rank);
/* May the rank be connected to, as that process? Else it is said why not. */
iso_status_t life_check(const lives_t *lives, const life_t *life, const process_id_t *process);
/* Learns when the process ends, if it can be watched. */
iso_status_t life_watch(lives_t *lives, life_t *life);
void life_unwatch(const lives_t *lives, life_t *life);
/* What an operation to the peer is answered, before it is tried. */
iso_status_t life_usable(const life_t *life);
/* The network gave up on a peer that is alive. false: it cannot turn out to be dead, settle that it is unreachable. */
bool life_failed(lives_t *lives, life_t *life, uint64_t now_ms);
/* LIFE_DEAD, LIFE_UNREACHABLE: settle that; LIFE_ALIVE: there is nothing to settle now. */
life_state_t life_verdict(const life_t *life, uint64_t now_ms);
/* Dead or unreachable: tells the library. */
void life_settle(lives_t *lives, life_t *life, life_state_t state);

#endif
