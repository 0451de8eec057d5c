/*
 * of_peer.c - the table of peers, and who of them is alive.
 *
 * libfabric says that an operation has failed, and not why. A peer whose process can be watched (a pidfd, on
 * this host) is given OF_GRACE_MS to turn out to be dead, since an ending process closes its connections a
 * moment before it has ended; meanwhile nothing is sent to it and nothing of it is reported. A peer that is
 * watched and does not die then, or that cannot be watched, is unreachable, for good: what was lost on the
 * way is not known. Of peers on other hosts only the launcher can say that they are dead.
 *
 * shm does not look after its peers at all (1.17): what was put into a dead one's queue stays there, without an
 * error. The pidfd is what tells.
 */
#include "ofi.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

iso_status_t of_peers_open(iso_transport_t *tp)
{
    if (by_rank_open(&tp->by_rank, tp->host->size))
        return ISO_OK;
    of_log(tp, ISO_LOG_ERROR, "no memory for the table of %u ranks", tp->host->size);
    return ISO_ERR_NO_MEMORY;
}

void of_peer_unwatch(iso_transport_t *tp, of_peer_t *peer)
{
    if (peer->pidfd < 0)
        return;
    /* Not left to close: a child forked meanwhile may still have the descriptor open. */
    epoll_ctl(tp->watch_fd, EPOLL_CTL_DEL, peer->pidfd, NULL);
    close(peer->pidfd);
    peer->pidfd = -1;
}

void of_peers_close(iso_transport_t *tp)
{
    while (tp->peers != NULL) {
        of_peer_t *peer = tp->peers;
        tp->peers = peer->next;
        if (peer->pidfd >= 0)
            close(peer->pidfd);
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
        peer->pidfd = -1;
        peer->address = FI_ADDR_UNSPEC;
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

iso_status_t of_peer_watch(iso_transport_t *tp, of_peer_t *peer)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = peer->rank};
    int pidfd, error;

    if (peer->pidfd >= 0 || peer->process.pid == 0 || peer->rank == tp->host->rank)
        return ISO_OK;
    error = process_watch(&peer->process, &pidfd);
    if (error == 0 && epoll_ctl(tp->watch_fd, EPOLL_CTL_ADD, pidfd, &event) != 0) {
        error = errno;
        close(pidfd);
    }
    if (error == 0) {
        peer->pidfd = pidfd;
        return ISO_OK;
    }
    if (error == ESRCH) {
        of_log(tp, ISO_LOG_ERROR, "rank %u cannot be reached: its process %" PRId32 " has ended",
               peer->rank, peer->process.pid);
        peer->death_due = true;
        tp->undecided++;
        return ISO_ERR_UNREACHABLE;
    }
    if (error == EMFILE || error == ENFILE) {
        of_log(tp, ISO_LOG_ERROR, "cannot watch process %" PRId32 " of rank %u: raise ulimit -n",
               peer->process.pid, peer->rank);
        return ISO_ERR_LIMIT;
    }
    of_log(tp, ISO_LOG_INFO, "the end of process %" PRId32 " of rank %u is not watched: %s",
           peer->process.pid, peer->rank, strerror(error));
    return ISO_OK;
}

/* ---- decisions ------------------------------------------------------------------------------- */

static void decide(iso_transport_t *tp, of_peer_t *peer, of_peer_state_t state)
{
    if (peer->state == OF_PEER_FAILED || peer->death_due)
        tp->undecided--;
    peer->death_due = false;
    peer->state = state;
    tp->host->peer_failed(tp->host->arg, peer->rank,
                          state == OF_PEER_DEAD ? ISO_FAILURE_DEAD : ISO_FAILURE_UNREACHABLE);
}

static void give_up(iso_transport_t *tp, of_peer_t *peer)
{
    of_log(tp, ISO_LOG_INFO, "nothing gets through to rank %u any more: %s", peer->rank,
           fi_strerror(peer->error));
    decide(tp, peer, OF_PEER_UNREACHABLE);
}

void of_peer_fail(iso_transport_t *tp, of_peer_t *peer, int error)
{
    if (peer->state != OF_PEER_ALIVE)
        return;
    peer->error = error;
    if (peer->pidfd < 0) {
        give_up(tp, peer);
        return;
    }
    peer->state = OF_PEER_FAILED;
    peer->decide_at = of_now_ms() + OF_GRACE_MS;
    tp->undecided++;
}

void of_peer_died(iso_transport_t *tp, of_peer_t *peer)
{
    of_peer_unwatch(tp, peer);
    if (peer->state == OF_PEER_DEAD)
        return;
    if (peer->ep != NULL)
        of_ep_close(peer->ep, FI_ENOTCONN);
    of_shm_forget(tp, peer);
    decide(tp, peer, OF_PEER_DEAD);
}

unsigned of_peers_decide(iso_transport_t *tp)
{
    const uint64_t now = of_now_ms();
    unsigned events = 0;

    for (of_peer_t *peer = tp->peers; peer != NULL && tp->undecided > 0; peer = peer->next) {
        if (peer->death_due ||
            (peer->state == OF_PEER_FAILED && peer->pidfd >= 0 && process_ended(peer->pidfd))) {
            events += of_drain(tp) + 1;
            of_peer_died(tp, peer);
        } else if (peer->state == OF_PEER_FAILED && now >= peer->decide_at) {
            events++;
            give_up(tp, peer);
        }
    }
    return events;
}
