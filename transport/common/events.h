/*
 * events.h - the descriptors of a transport over a network: what wakes a sleeper, and when they are looked at.
 *
 *   event_fd     the network library's own descriptor, and
 *     watch_fd   pidfds of peers (peers.h), and
 *       timer_fd for what gives no event
 *
 * To look at watch_fd is a system call: progress does it once after a sleep, and otherwise once in a while.
 *
 * Compiled into every module that wants it: a module needs nothing outside itself.
 */
#ifndef TRANSPORT_COMMON_EVENTS_H
#define TRANSPORT_COMMON_EVENTS_H

#include "transport/common/peers.h"

#define EVENTS_LOOK 32         /* ranks that one look finds */
#define EVENTS_LOOK_EVERY_MS 1 /* or as often as the coarse clock ticks, up to 10 ms */

typedef struct events {
    int event_fd, timer_fd;
    bool armed;       /* since the last look */
    uint64_t look_at; /* coarse ms at which watch_fd is looked at again */
} events_t;

/* Opens peers->watch_fd as well. own_fd: the network library's; -1: it has none. Errors are logged. */
iso_status_t events_open(events_t *events, peers_t *peers, int own_fd);
void events_close(events_t *events, peers_t *peers);

/* A sleeper wakes after `ns` at the latest; 0: when something happens. */
void events_set_timer(const events_t *events, long ns);

/* Is it time to look? Then it is not again, for a while. */
static inline bool events_due(events_t *events, uint64_t now_ms)
{
    if (!events->armed && now_ms < events->look_at)
        return false;
    events->armed = false;
    events->look_at = now_ms + EVENTS_LOOK_EVERY_MS;
    return true;
}
/* The ranks whose processes have ended. Returns how many; those that were not found this time are the next. */
unsigned events_look(const events_t *events, const peers_t *peers, uint32_t ranks[EVENTS_LOOK]);

#endif
