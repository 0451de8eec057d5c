/*
 * of_ep.c - the way to a peer, and its end.
 *
 * A way costs nothing until something is sent: the peer's address goes into libfabric's table, and the provider
 * connects, where it does, for the first operation. It answers FI_EAGAIN until then, so that what is begun
 * waits here, in bounded queues, and of_eps_advance tries again.
 *
 * An address stays in libfabric's table until the end: operations that nobody asks about any more may still
 * name it, and a rank that is connected to again has the same.
 */
#include "ofi.h"
#include <stdlib.h>
#include <string.h>

/* Puts the peer's address into libfabric's table, unless it is there. */
static iso_status_t insert(iso_transport_t *tp, of_peer_t *peer, const of_address_t *to)
{
    if (peer->name != NULL && peer->name_len == to->name_len &&
        memcmp(peer->name, to->name, to->name_len) == 0)
        return ISO_OK;
    void *name = calloc(1, to->name_len + 1); /* some are strings */
    if (name == NULL) {
        of_log(tp, ISO_LOG_ERROR, "no memory for the address of rank %u", peer->base.rank);
        return ISO_ERR_NO_MEMORY;
    }
    memcpy(name, to->name, to->name_len);
    fi_addr_t address;
    const int count = fi_av_insert(tp->av, name, 1, &address, 0, NULL);
    if (count != 1) {
        of_log(tp, ISO_LOG_ERROR,
               "libfabric's provider %s does not take the address of rank %u: %s",
               tp->info->fabric_attr->prov_name, peer->base.rank,
               count < 0 ? fi_strerror(-count) : "no room, or not an address");
        free(name);
        return count == -FI_ENOMEM ? ISO_ERR_NO_MEMORY : ISO_ERR_UNREACHABLE;
    }
    free(peer->name);
    peer->name = name;
    peer->name_len = to->name_len;
    peer->address = address;
    return ISO_OK;
}

iso_status_t of_connect(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                        iso_endpoint_t **ep_p)
{
    of_address_t to;
    void *found;

    iso_status_t status = peers_check_rank(&tp->peers, rank);
    if (status == ISO_OK)
        status = of_address_read(tp, rank, address, len, &to);
    if (status == ISO_OK)
        status = peers_admit(&tp->peers, rank, &to.process, &found);
    if (status != ISO_OK)
        return status;
    of_peer_t *peer = found;
    if (tp->is_shm && to.process.pid == 0) {
        of_log(tp, ISO_LOG_ERROR,
               "rank %u is on another host, or in another container, where provider shm does not "
               "reach: name another in ISO_OFI_PROVIDER",
               rank);
        return ISO_ERR_UNREACHABLE;
    }
    status = life_watch(&tp->peers, &peer->base, &to.process);
    if (status != ISO_OK)
        return status;
    status = insert(tp, peer, &to);
    if (status != ISO_OK)
        goto unwatch;
    iso_endpoint_t *ep = calloc(1, sizeof *ep);
    if (ep == NULL) {
        of_log(tp, ISO_LOG_ERROR, "no memory for the way to rank %u", rank);
        status = ISO_ERR_NO_MEMORY;
        goto unwatch;
    }
    ep->tp = tp;
    ep->peer = peer;
    peer->base.ep = ep;
    tp->endpoints++;
    of_ep_busy(ep); /* what it asked before there was a way */
    *ep_p = ep;
    return ISO_OK;

unwatch:
    peers_unwatch(&tp->peers, &peer->base);
    return status;
}

iso_status_t of_ep_usable(const iso_endpoint_t *ep)
{
    const iso_status_t status = peer_usable(&ep->peer->base);

    if (status != ISO_OK)
        return status;
    return ep->failed ? ISO_ERR_AGAIN : ISO_OK;
}

/* ---- what libfabric has not got yet ------------------------------------------------------------ */

static bool has_work(const iso_endpoint_t *ep)
{
    return !ep->failed && (ep->unsent != NULL || ep->waiting != NULL || ep->unasked ||
                           ep->peer->owed != 0 || ep->peer->lost);
}

void of_ep_busy(iso_endpoint_t *ep)
{
    if (ep->busy || !has_work(ep))
        return;
    ep->busy = true;
    ep->next_busy = ep->tp->busy;
    ep->tp->busy = ep;
}

void of_eps_advance(iso_transport_t *tp)
{
    for (iso_endpoint_t **at = &tp->busy, *ep; (ep = *at) != NULL;) {
        of_sends_advance(ep);
        of_puts_advance(ep);
        of_land_advance(ep);
        of_sends_advance(ep); /* what it asks */
        if (ep->peer->deaf && !ep->peer->lost && ep->waiting == NULL)
            of_ep_fail(ep, FI_EIO); /* it has been told, and no answer would be heard */
        if (has_work(ep)) {
            at = &ep->next_busy;
        } else {
            ep->busy = false;
            *at = ep->next_busy;
        }
    }
}

static void leave_busy(iso_endpoint_t *ep)
{
    for (iso_endpoint_t **at = &ep->tp->busy; *at != NULL; at = &(*at)->next_busy)
        if (*at == ep) {
            *at = ep->next_busy;
            break;
        }
    ep->busy = false;
}

/* ---- ends ------------------------------------------------------------------------------------ */

void of_ep_fail(iso_endpoint_t *ep, int error)
{
    if (ep->failed || ep->peer->base.state != PEER_ALIVE)
        return;
    ep->failed = true;
    ep->error = error;
    ep->next_failed = ep->tp->failed;
    ep->tp->failed = ep;
}

void of_ep_close(iso_endpoint_t *ep, int error)
{
    of_ops_end_all(ep, error);
    of_sends_forget(ep, error == FI_ECANCELED); /* else there is nobody for them */
    leave_busy(ep);
}

unsigned of_eps_failed(iso_transport_t *tp)
{
    unsigned events = 0;

    for (iso_endpoint_t *ep; (ep = tp->failed) != NULL; events++) {
        tp->failed = ep->next_failed;
        of_ep_close(ep, ep->error);
        of_peer_fail(tp, ep->peer, ep->error);
    }
    return events;
}

void of_disconnect(iso_endpoint_t *ep)
{
    iso_transport_t *tp = ep->tp;

    if (ep->peer->base.state == PEER_ALIVE)
        of_land_advance(ep); /* an answer that is owed */
    of_sends_advance(ep);    /* what was said before the end is */
    of_ep_close(ep, FI_ECANCELED);
    of_ops_forget(ep);
    for (iso_endpoint_t **at = &tp->failed; *at != NULL; at = &(*at)->next_failed)
        if (*at == ep) {
            *at = ep->next_failed;
            break;
        }
    ep->peer->base.ep = NULL;
    tp->endpoints--;
    free(ep);
}
