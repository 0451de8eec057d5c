/*
 * life.h - who of the peers is alive, for transports that are told that an operation has failed, and not why.
 *
 * A peer whose process can be watched (a pidfd, on this host) is given LIFE_GRACE_MS to turn out to be dead, since an
 * ending process closes its connections a moment before it has ended; meanwhile nothing is sent to it and nothing
 * of it is reported. A peer that is watched and does not die then, or that cannot be watched, is unreachable, for
 * good: what was lost on the way is not known. Of peers on other hosts only the launcher can say that they are dead.
 *
 * A death is reported once, after everything that the peer had sent has been delivered: when a pidfd has become
 * readable, nothing of the process runs any more, so what it has sent is final. The pidfd of a zombie is readable:
 * nobody has to reap it.
 */
#ifndef TRANSPORT_COMMON_LIFE_H
#define TRANSPORT_COMMON_LIFE_H

#include "transport/common/events.h"
#include "transport/common/peers.h"

#define LIFE_GRACE_MS 1000u

/* Learns when the process ends, if it can be watched. */
iso_status_t life_watch(peers_t *peers, peer_t *peer, const process_id_t *process);
/* The network gave up on it, with this number: is it dead? Known at once, or within LIFE_GRACE_MS. */
void life_fail(peers_t *peers, peer_t *peer, int error);
/* Whose processes have ended since the last look? Returns events. */
unsigned life_look(peers_t *peers, const events_t *events);
/* Decides about those whose time is up. Returns events. */
unsigned life_decide(peers_t *peers);

#endif
