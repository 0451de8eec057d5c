/*
 * ux_ep.c - the table of peers, making the way to one, and its end.
 *
 * Every endpoint has UCP_ERR_HANDLING_MODE_PEER: without it UCX can neither close by force nor give back
 * what is under way, and a put with a stale key ends this process. What it costs is not to be seen where lanes are the
 * same (ucx_put -L with -e and without: 8 bytes put, flushed and told of in 1.28 us over posix, either way).
 *
 * UCX says that an endpoint has failed, and not why. A peer whose process can be watched (a pidfd, on this
 * host) is given UX_GRACE_MS to turn out to be dead, since an ending process closes its connections a
 * moment before it has ended; meanwhile nothing is sent to it and nothing of it is reported. A peer that is
 * watched and does not die then, or that cannot be watched, is unreachable, for good: what was lost on the
 * way is not known. Of peers on other hosts only the launcher can say that they are dead.
 */
#include "ucx.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* ---- the table ------------------------------------------------------------------------------- */

iso_status_t ux_peers_open(iso_transport_t *tp)
{
    if (by_rank_open(&tp->by_rank, tp->host->size))
        return ISO_OK;
    ux_log(tp, ISO_LOG_ERROR, "no memory for the table of %u ranks", tp->host->size);
    return ISO_ERR_NO_MEMORY;
}

static void unwatch(iso_transport_t *tp, ux_peer_t *peer)
{
    if (peer->pidfd < 0)
        return;
    /* Not left to close: a child forked meanwhile may still have the descriptor open. */
    epoll_ctl(tp->watch_fd, EPOLL_CTL_DEL, peer->pidfd, NULL);
    close(peer->pidfd);
    peer->pidfd = -1;
}

void ux_peers_close(iso_transport_t *tp)
{
    while (tp->peers != NULL) {
        ux_peer_t *peer = tp->peers;
        tp->peers = peer->next;
        if (peer->pidfd >= 0)
            close(peer->pidfd);
        free(peer);
    }
    by_rank_close(&tp->by_rank);
}

ux_peer_t *ux_peer_find(const iso_transport_t *tp, uint32_t rank)
{
    return by_rank_get(&tp->by_rank, rank);
}

/* ux_land looks into the table in UCX's callbacks. */
static bool enter(iso_transport_t *tp, uint32_t rank, ux_peer_t *peer)
{
    ux_lock(&tp->landing.lock);
    const bool entered = by_rank_set(&tp->by_rank, rank, peer);
    ux_unlock(&tp->landing.lock);
    return entered;
}

ux_peer_t *ux_peer_get(iso_transport_t *tp, uint32_t rank)
{
    ux_peer_t *peer = ux_peer_find(tp, rank);

    if (peer != NULL)
        return peer;
    peer = calloc(1, sizeof *peer);
    if (peer != NULL) {
        peer->rank = rank;
        peer->pidfd = -1;
    }
    if (peer == NULL || !enter(tp, rank, peer)) {
        free(peer);
        ux_log(tp, ISO_LOG_ERROR, "no memory to keep track of rank %u", rank);
        return NULL;
    }
    peer->next = tp->peers;
    tp->peers = peer;
    return peer;
}

/* ---- connecting ------------------------------------------------------------------------------ */

/* UCX's callback. It does not come after the endpoint was closed. */
static void on_error(void *arg, ucp_ep_h ucp, ucs_status_t status)
{
    iso_endpoint_t *ep = arg;
    ux_inbox_t *inbox = &ep->tp->inbox;

    (void)ucp;
    ux_lock(&inbox->lock);
    if (ep->why == UCS_OK) {
        ep->why = status;
        ep->next_failed = inbox->failed;
        inbox->failed = ep;
        ux_inbox_added(inbox);
    }
    ux_unlock(&inbox->lock);
}

static iso_status_t create_ucp(iso_endpoint_t *ep, const ucp_address_t *address)
{
    const ucp_ep_params_t params = {
        .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .address = address,
        .err_mode = UCP_ERR_HANDLING_MODE_PEER,
        .err_handler = {.cb = on_error, .arg = ep},
    };
    const ucs_status_t status = ucp_ep_create(ep->tp->worker, &params, &ep->ucp);

    if (status == UCS_OK)
        return ISO_OK;
    ux_log(ep->tp, ISO_LOG_ERROR, "UCX has no way to rank %u: %s (here it has %s)", ep->peer->rank,
           ucs_status_string(status), ep->tp->devices.names);
    return status == UCS_ERR_NO_MEMORY ? ISO_ERR_NO_MEMORY : ISO_ERR_UNREACHABLE;
}

static iso_status_t check_peer(const iso_transport_t *tp, const ux_peer_t *peer,
                               const process_id_t *process)
{
    if (peer->ep != NULL) {
        ux_log(tp, ISO_LOG_ERROR, "rank %u is connected already: disconnect it first", peer->rank);
        return ISO_ERR_INVALID;
    }
    if (peer->state != UX_PEER_ALIVE || peer->death_due) {
        ux_log(tp, ISO_LOG_ERROR, "rank %u cannot be reached: it %s", peer->rank,
               peer->state == UX_PEER_DEAD || peer->death_due ? "has ended"
                                                              : "could not be reached before");
        return ISO_ERR_UNREACHABLE;
    }
    if (peer->process.pid != 0 && process->pid != 0 && !process_same(&peer->process, process)) {
        ux_log(tp, ISO_LOG_ERROR,
               "process %" PRId32 " says that it is rank %u, but process %" PRId32 " is",
               process->pid, peer->rank, peer->process.pid);
        return ISO_ERR_UNREACHABLE;
    }
    return ISO_OK;
}

/* Learns when the process ends, if it can be watched. */
static iso_status_t watch(iso_transport_t *tp, ux_peer_t *peer)
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
        ux_log(tp, ISO_LOG_ERROR, "rank %u cannot be reached: its process %" PRId32 " has ended",
               peer->rank, peer->process.pid);
        peer->death_due = true;
        tp->undecided++;
        return ISO_ERR_UNREACHABLE;
    }
    if (error == EMFILE || error == ENFILE) {
        ux_log(tp, ISO_LOG_ERROR, "cannot watch process %" PRId32 " of rank %u: raise ulimit -n",
               peer->process.pid, peer->rank);
        return ISO_ERR_LIMIT;
    }
    ux_log(tp, ISO_LOG_INFO, "the end of process %" PRId32 " of rank %u is not watched: %s",
           peer->process.pid, peer->rank, strerror(error));
    return ISO_OK;
}

iso_status_t ux_connect(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                        iso_endpoint_t **ep_p)
{
    ux_address_t to;

    if (rank >= tp->host->size) {
        ux_log(tp, ISO_LOG_ERROR, "rank %u is not in a job of %u ranks", rank, tp->host->size);
        return ISO_ERR_RANK;
    }
    iso_status_t status = ux_address_read(tp, rank, address, len, &to);
    if (status != ISO_OK)
        return status;
    ux_peer_t *peer = ux_peer_get(tp, rank);
    if (peer == NULL)
        return ISO_ERR_NO_MEMORY;
    status = check_peer(tp, peer, &to.process);
    if (status != ISO_OK)
        return status;
    peer->process = to.process;
    status = watch(tp, peer);
    if (status != ISO_OK)
        return status;
    iso_endpoint_t *ep = calloc(1, sizeof *ep);
    if (ep == NULL) {
        ux_log(tp, ISO_LOG_ERROR, "no memory for the way to rank %u", rank);
        status = ISO_ERR_NO_MEMORY;
        goto unwatch;
    }
    ep->tp = tp;
    ep->peer = peer;
    ep->am_id = to.am_id;
    status = create_ucp(ep, to.ucp);
    if (status != ISO_OK)
        goto free_ep;
    ux_own_open(ep);
    ux_landing_let(tp, peer);
    peer->ep = ep;
    tp->endpoints++;
    *ep_p = ep;
    return ISO_OK;

free_ep:
    free(ep);
unwatch:
    unwatch(tp, peer);
    return status;
}

/* ---- ends ------------------------------------------------------------------------------------ */

#define WIRE_UP_MS 500

/* UCX 1.13, built with its assertions as Debian's is, ends the process that closes an endpoint by force
 * while a message of its wire-up still waits to be sent over ud, as it does to a peer that is gone. So it is given
 * time; false: the endpoint must stay. */
static bool may_close(iso_endpoint_t *ep)
{
    iso_transport_t *tp = ep->tp;
    iso_completion_t nobody = {NULL};
    const uint64_t until = ux_now_ms() + WIRE_UP_MS;

    if (!tp->devices.ib || ep->wired || ep->why != UCS_OK)
        return true;
    /* ends when the lanes are there */
    if (ux_flush_ucp(ep, &nobody) == ISO_INPROGRESS)
        ep->ops->completion = NULL;
    while (!ep->wired && ep->why == UCS_OK && ux_now_ms() < until) {
        ucp_worker_progress(tp->worker);
        ux_ops_take(tp);
    }
    return ep->wired || ep->why != UCS_OK;
}

static void close_ucp(iso_endpoint_t *ep)
{
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                       .flags = UCP_EP_CLOSE_FLAG_FORCE};

    if (ep->ucp == NULL)
        return;
    ux_own_close(ep);
    if (!may_close(ep)) {
        ux_log(ep->tp, ISO_LOG_INFO,
               "UCX has not reached rank %u yet: what it has for that stays until the process ends",
               ep->peer->rank);
        ep->unclosed = true;
        ep->why = UCS_ERR_CANCELED; /* it is not asked about any more */
        ep->tp->unclosed++;
        ep->ucp = NULL;
        return;
    }
    ux_ops_closing(ep);
    const ucs_status_ptr_t request = ucp_ep_close_nbx(ep->ucp, &param);
    if (UCS_PTR_IS_PTR(request))
        ucp_request_free(request); /* it goes on without us */
    ep->ucp = NULL;
}

/* Takes the endpoint out of those that UCX has failed. It is closed: there will be no more. */
static void leave_failed(iso_endpoint_t *ep)
{
    ux_inbox_t *inbox = &ep->tp->inbox;

    ux_lock(&inbox->lock);
    for (iso_endpoint_t **at = &inbox->failed; *at != NULL; at = &(*at)->next_failed)
        if (*at == ep) {
            *at = ep->next_failed;
            break;
        }
    ux_unlock(&inbox->lock);
}

void ux_disconnect(iso_endpoint_t *ep)
{
    iso_transport_t *tp = ep->tp;

    ux_landing_shut(tp, ep->peer);
    close_ucp(ep);
    leave_failed(ep);
    ux_ops_forget(ep);
    ep->peer->ep = NULL;
    tp->endpoints--;
    if (!ep->unclosed) /* else UCX still knows it */
        free(ep);
}

iso_status_t ux_ep_usable(const iso_endpoint_t *ep)
{
    switch (ep->peer->state) {
    case UX_PEER_DEAD:
        return ISO_ERR_PEER_DEAD;
    case UX_PEER_UNREACHABLE:
        return ISO_ERR_UNREACHABLE;
    case UX_PEER_FAILED:
        return ISO_ERR_AGAIN;
    case UX_PEER_ALIVE:
        break;
    }
    return ISO_OK;
}

static void decide(iso_transport_t *tp, ux_peer_t *peer, ux_peer_state_t state)
{
    if (peer->state == UX_PEER_FAILED || peer->death_due)
        tp->undecided--;
    peer->death_due = false;
    peer->state = state;
    ux_landing_shut(tp, peer);
    tp->host->peer_failed(tp->host->arg, peer->rank,
                          state == UX_PEER_DEAD ? ISO_FAILURE_DEAD : ISO_FAILURE_UNREACHABLE);
}

static void give_up(iso_transport_t *tp, ux_peer_t *peer, ucs_status_t why)
{
    ux_log(tp, ISO_LOG_INFO, "nothing gets through to rank %u any more: %s", peer->rank,
           ucs_status_string(why));
    decide(tp, peer, UX_PEER_UNREACHABLE);
}

void ux_ep_fail(iso_endpoint_t *ep, ucs_status_t why)
{
    iso_transport_t *tp = ep->tp;
    ux_peer_t *peer = ep->peer;

    close_ucp(ep);
    if (peer->state != UX_PEER_ALIVE)
        return;
    ep->why = why;
    if (peer->pidfd < 0) {
        give_up(tp, peer, why);
        return;
    }
    peer->state = UX_PEER_FAILED;
    peer->decide_at = ux_now_ms() + UX_GRACE_MS;
    tp->undecided++;
}

unsigned ux_eps_failed(iso_transport_t *tp)
{
    ux_inbox_t *inbox = &tp->inbox;
    unsigned events = 0;

    for (;; events++) {
        ux_lock(&inbox->lock);
        iso_endpoint_t *ep = inbox->failed;
        if (ep != NULL)
            inbox->failed = ep->next_failed;
        ux_unlock(&inbox->lock);
        if (ep == NULL)
            return events;
        ux_ep_fail(ep, ep->why);
    }
}

void ux_peer_died(iso_transport_t *tp, ux_peer_t *peer)
{
    unwatch(tp, peer);
    if (peer->state == UX_PEER_DEAD)
        return;
    if (peer->ep != NULL)
        close_ucp(peer->ep);
    decide(tp, peer, UX_PEER_DEAD);
}

unsigned ux_peers_decide(iso_transport_t *tp)
{
    const uint64_t now = ux_now_ms();
    unsigned events = 0;

    for (ux_peer_t *peer = tp->peers; peer != NULL && tp->undecided > 0; peer = peer->next) {
        if (peer->death_due ||
            (peer->state == UX_PEER_FAILED && peer->pidfd >= 0 && process_ended(peer->pidfd))) {
            events += ux_drain(tp) + 1;
            ux_peer_died(tp, peer);
        } else if (peer->state == UX_PEER_FAILED && now >= peer->decide_at) {
            events++;
            give_up(tp, peer, peer->ep != NULL ? peer->ep->why : UCS_ERR_ENDPOINT_TIMEOUT);
        }
    }
    return events;
}
