/* peers.c - see peers.h. */
#include "transport/common/peers.h"
#include "transport/common/caller.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

/* ---- the table ------------------------------------------------------------------------------- */

iso_status_t peers_open(peers_t *peers, iso_transport_t *tp, const iso_transport_host_t *host,
                        const peer_kind_t *kind)
{
    *peers = (peers_t){.tp = tp, .host = host, .kind = kind, .watch_fd = -1};
    if (by_rank_open(&peers->by_rank, host->size))
        return ISO_OK;
    caller_log(host, ISO_LOG_ERROR, "no memory for the table of %u ranks", host->size);
    return ISO_ERR_NO_MEMORY;
}

void peers_close(peers_t *peers)
{
    for (peer_t *peer; (peer = peers->first) != NULL;) {
        peers->first = peer->next;
        peers_unwatch(peers, peer);
        if (peers->kind->free != NULL)
            peers->kind->free(peer);
        free(peer);
    }
    by_rank_close(&peers->by_rank);
}

void *peers_get(peers_t *peers, uint32_t rank)
{
    peer_t *peer = peers_find(peers, rank);

    if (peer != NULL)
        return peer;
    peer = calloc(1, peers->kind->size);
    if (peer != NULL) {
        peer->rank = rank;
        peer->pidfd = -1;
        if (peers->kind->begin != NULL)
            peers->kind->begin(peer);
    }
    if (peer == NULL || !by_rank_set(&peers->by_rank, rank, peer)) {
        free(peer);
        caller_log(peers->host, ISO_LOG_ERROR, "no memory to keep track of rank %u", rank);
        return NULL;
    }
    peer->next = peers->first;
    peers->first = peer;
    return peer;
}

/* ---- connecting ------------------------------------------------------------------------------ */

iso_status_t peers_check_rank(const peers_t *peers, uint32_t rank)
{
    if (rank < peers->host->size)
        return ISO_OK;
    caller_log(peers->host, ISO_LOG_ERROR, "rank %u is not in a job of %u ranks", rank,
               peers->host->size);
    return ISO_ERR_RANK;
}

static iso_status_t check(const peers_t *peers, const peer_t *peer, const process_id_t *process)
{
    if (peer->ep != NULL) {
        caller_log(peers->host, ISO_LOG_ERROR, "rank %u is connected already: disconnect it first",
                   peer->rank);
        return ISO_ERR_INVALID;
    }
    if (peer->state != PEER_ALIVE || peer->death_due) {
        caller_log(peers->host, ISO_LOG_ERROR, "rank %u cannot be reached: it %s", peer->rank,
                   peer->state == PEER_DEAD || peer->death_due ? "has ended"
                                                               : "could not be reached before");
        return ISO_ERR_UNREACHABLE;
    }
    if (peer->process.pid != 0 && process->pid != 0 && !process_same(&peer->process, process)) {
        caller_log(peers->host, ISO_LOG_ERROR,
                   "process %" PRId32 " says that it is rank %u, but process %" PRId32 " is",
                   process->pid, peer->rank, peer->process.pid);
        return ISO_ERR_UNREACHABLE;
    }
    return ISO_OK;
}

iso_status_t peers_admit(peers_t *peers, uint32_t rank, const process_id_t *process, void **peer_p)
{
    peer_t *peer = peers_get(peers, rank);

    if (peer == NULL)
        return ISO_ERR_NO_MEMORY;
    const iso_status_t status = check(peers, peer, process);
    if (status == ISO_OK)
        *peer_p = peer;
    return status;
}

/* ---- processes ------------------------------------------------------------------------------- */

int peers_watch(const peers_t *peers, peer_t *peer)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = peer->rank};
    int pidfd;

    if (peer->pidfd >= 0 || peer->rank == peers->host->rank)
        return 0;
    int error = process_watch(&peer->process, &pidfd);
    if (error != 0)
        return error;
    if (epoll_ctl(peers->watch_fd, EPOLL_CTL_ADD, pidfd, &event) != 0) {
        error = errno;
        close(pidfd);
        return error;
    }
    peer->pidfd = pidfd;
    return 0;
}

void peers_unwatch(const peers_t *peers, peer_t *peer)
{
    if (peer->pidfd < 0)
        return;
    /* Not left to close: a child forked meanwhile may still have the descriptor open. */
    if (peers->watch_fd >= 0)
        epoll_ctl(peers->watch_fd, EPOLL_CTL_DEL, peer->pidfd, NULL);
    close(peer->pidfd);
    peer->pidfd = -1;
}

/* ---- answers --------------------------------------------------------------------------------- */

iso_status_t peer_outcome(const peer_t *peer, iso_status_t own)
{
    return peer->state == PEER_DEAD          ? ISO_ERR_PEER_DEAD
           : peer->state == PEER_UNREACHABLE ? ISO_ERR_UNREACHABLE
                                             : own;
}

iso_status_t peer_usable(const peer_t *peer)
{
    return peer_outcome(peer, peer->state == PEER_FAILED ? ISO_ERR_AGAIN : ISO_OK);
}

void peers_settle(peers_t *peers, peer_t *peer, peer_state_t state)
{
    if (peer->state == PEER_FAILED || peer->death_due)
        peers->undecided--;
    peer->death_due = false;
    peer->state = state;
    peers->host->peer_failed(peers->host->arg, peer->rank,
                             state == PEER_DEAD ? ISO_FAILURE_DEAD : ISO_FAILURE_UNREACHABLE);
}
