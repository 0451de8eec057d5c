/*
 * ux_ep.c - making the way to a peer, and its end.
 *
 * Every endpoint has UCP_ERR_HANDLING_MODE_PEER: without it UCX can neither close by force nor give back
 * what is under way, and a put with a stale key ends this process. What it costs is not to be seen where lanes are the
 * same (ucx_put -L with -e and without: 8 bytes put, flushed and told of in 1.28 us over posix, either way).
 *
 * UCX says that an endpoint has failed, and not why: transport/common/life.h.
 */
#include "ucx.h"
#include <stdlib.h>
#include <unistd.h>

/* ---- peers ----------------------------------------------------------------------------------- */

static void end_peer(iso_transport_t *tp, peer_t *base, peer_state_t state);

static const char *explain(int error)
{
    return ucs_status_string((ucs_status_t)error);
}

iso_status_t ux_peers_open(iso_transport_t *tp)
{
    static const peer_kind_t kind = {
        .size = sizeof(ux_peer_t), .drain = ux_drain, .end = end_peer, .explain = explain};

    return peers_open(&tp->peers, tp, tp->host, &kind);
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
    ux_log(ep->tp, ISO_LOG_ERROR, "UCX has no way to rank %u: %s (here it has %s)",
           ep->peer->base.rank, ucs_status_string(status), ep->tp->devices.names);
    return status == UCS_ERR_NO_MEMORY ? ISO_ERR_NO_MEMORY : ISO_ERR_UNREACHABLE;
}

iso_status_t ux_connect(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                        iso_endpoint_t **ep_p)
{
    ux_address_t to;
    void *found;

    iso_status_t status = peers_check_rank(&tp->peers, rank);
    if (status == ISO_OK)
        status = ux_address_read(tp, rank, address, len, &to);
    if (status == ISO_OK)
        status = peers_admit(&tp->peers, rank, &to.process, &found);
    if (status != ISO_OK)
        return status;
    ux_peer_t *peer = found;
    status = life_watch(&tp->peers, &peer->base, &to.process);
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
    peer->base.ep = ep;
    tp->endpoints++;
    *ep_p = ep;
    return ISO_OK;

free_ep:
    free(ep);
unwatch:
    peers_unwatch(&tp->peers, &peer->base);
    return status;
}

/* ---- ends ------------------------------------------------------------------------------------ */

#define WIRE_UP_MS 500

/* UCX 1.13, built with its assertions as Debian's is, ends the process that closes an endpoint by force
 * while a message of its wire-up still waits to be sent over ud, as it does to a peer that is gone. So it is given
 * time, but not once there is one that must stay, and the worker with it: many peers that do not answer are not waited for one
 * after the other. false: the endpoint must stay. */
static bool may_close(iso_endpoint_t *ep)
{
    iso_transport_t *tp = ep->tp;
    iso_completion_t nobody = {NULL};
    const uint64_t until = clock_coarse_ms() + (tp->unclosed == 0 ? WIRE_UP_MS : 0);

    if (!tp->devices.ib || ep->wired || ep->why != UCS_OK)
        return true;
    /* ends when the lanes are there */
    if (ux_flush_ucp(ep, &nobody) == ISO_INPROGRESS)
        ep->ops->completion = NULL;
    while (!ep->wired && ep->why == UCS_OK && clock_coarse_ms() < until) {
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
               ep->peer->base.rank);
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
    else if (UCS_PTR_IS_ERR(request))
        ux_log(ep->tp, ISO_LOG_WARN, "UCX does not close its endpoint to rank %u: %s",
               ep->peer->base.rank, ucs_status_string(UCS_PTR_STATUS(request)));
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
    ep->peer->base.ep = NULL;
    tp->endpoints--;
    if (!ep->unclosed) /* else UCX still knows it */
        free(ep);
}

iso_status_t ux_ep_usable(const iso_endpoint_t *ep)
{
    return peer_usable(&ep->peer->base);
}

/* The peer's process has ended, or it is not reached any more. */
static void end_peer(iso_transport_t *tp, peer_t *base, peer_state_t state)
{
    (void)state;
    if (base->ep != NULL)
        close_ucp(base->ep);
    ux_landing_shut(tp, (ux_peer_t *)(void *)base);
}

void ux_ep_fail(iso_endpoint_t *ep, ucs_status_t why)
{
    close_ucp(ep);
    if (ep->peer->base.state == PEER_ALIVE)
        ep->why = why;
    life_fail(&ep->tp->peers, &ep->peer->base, why);
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
