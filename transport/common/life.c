/* life.c - see life.h. */
#include "transport/common/life.h"
#include "transport/common/caller.h"
#include "transport/common/clock.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

iso_status_t life_watch(peers_t *peers, peer_t *peer, const process_id_t *process)
{
    peer->process = *process;
    const int error = process->pid != 0 ? peers_watch(peers, peer) : 0;

    if (error == 0)
        return ISO_OK;
    if (error == ESRCH) {
        caller_log(peers->host, ISO_LOG_ERROR,
                   "rank %u cannot be reached: its process %" PRId32 " has ended", peer->rank,
                   process->pid);
        peer->death_due = true;
        peers->undecided++;
        return ISO_ERR_UNREACHABLE;
    }
    if (error == EMFILE || error == ENFILE) {
        caller_log(peers->host, ISO_LOG_ERROR,
                   "cannot watch process %" PRId32 " of rank %u: raise ulimit -n", process->pid,
                   peer->rank);
        return ISO_ERR_LIMIT;
    }
    caller_log(peers->host, ISO_LOG_INFO,
               "the end of process %" PRId32 " of rank %u is not watched: %s", process->pid,
               peer->rank, strerror(error));
    return ISO_OK;
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void settle(peers_t *peers, peer_t *peer, peer_state_t state)
{
    peers->kind->end(peers->tp, peer, state);
    peers_settle(peers, peer, state);
}

static void give_up(peers_t *peers, peer_t *peer)
{
    caller_log(peers->host, ISO_LOG_INFO, "nothing gets through to rank %u any more: %s",
               peer->rank, peers->kind->explain(peer->error));
    settle(peers, peer, PEER_UNREACHABLE);
}

/* Its process has ended. Returns events. */
static unsigned bury(peers_t *peers, peer_t *peer)
{
    const unsigned events = peers->kind->drain(peers->tp);

    peers_unwatch(peers, peer);
    if (peer->state != PEER_DEAD)
        settle(peers, peer, PEER_DEAD);
    return events + 1;
}

void life_fail(peers_t *peers, peer_t *peer, int error)
{
    if (peer->state != PEER_ALIVE)
        return;
    peer->error = error;
    if (peer->pidfd < 0) { /* it cannot turn out to be dead */
        give_up(peers, peer);
        return;
    }
    peer->state = PEER_FAILED;
    peer->decide_at = clock_coarse_ms() + LIFE_GRACE_MS;
    peers->undecided++;
}

unsigned life_look(peers_t *peers, const events_t *events)
{
    uint32_t ranks[EVENTS_LOOK];
    unsigned done = 0;
    const unsigned count = events_look(events, peers, ranks);

    for (unsigned i = 0; i < count; i++) {
        peer_t *peer = peers_find(peers, ranks[i]);
        if (peer != NULL && peer->pidfd >= 0) /* no callback has settled it meanwhile */
            done += bury(peers, peer);
    }
    return done;
}

unsigned life_decide(peers_t *peers)
{
    const uint64_t now = clock_coarse_ms();
    unsigned done = 0;

    for (peer_t *peer = peers->first; peer != NULL && peers->undecided > 0; peer = peer->next) {
        const bool failed = peer->state == PEER_FAILED;
        if (peer->death_due || (failed && peer->pidfd >= 0 && process_ended(peer->pidfd))) {
            done += bury(peers, peer);
        } else if (failed && now >= peer->decide_at) {
            done++;
            give_up(peers, peer);
        }
    }
    return done;
}
