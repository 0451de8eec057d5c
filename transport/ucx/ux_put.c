/*
 * ux_put.c - puts, and when they are complete at the peer.
 *
 * Where a device writes to the peer's memory a put is ucp_put_nbx, and a flush ucp_ep_flush_nbx, which ends when
 * all earlier puts of the endpoint are complete at the peer, as the device says. Elsewhere both are ours: ux_own.c.
 *
 * Own puts have a fence: messages say after which puts they come. A device's have none. ucp_worker_fence (ucp.h)
 * speaks of all operations of a worker, but what it does in UCX 1.13 (src/ucp/rma/flush.c) is uct_iface_fence on
 * each interface, one after the other: it orders what goes by one interface and says nothing about two. Puts and
 * messages go by different lanes as soon as there is an RDMA device. Later versions have several ways to
 * fence (UCX_FENCE_MODE), for the same reason.
 */
#include "ucx.h"
#include <inttypes.h>

static iso_status_t check_put(const iso_endpoint_t *ep, const void *src, size_t len,
                              const iso_region_t *region, uint64_t remote, const iso_rkey_t *rkey)
{
    return caller_check_put(ep->tp->host, UX_MAX_PUT, region != NULL ? &region->memory : NULL, src,
                            len, ep->peer->base.rank,
                            (caller_target_t){rkey->rank, rkey->address, rkey->length}, remote);
}

iso_status_t ux_put(iso_endpoint_t *ep, const void *src, size_t len, iso_region_t *region,
                    uint64_t remote, iso_rkey_t *rkey, iso_completion_t *completion)
{
    iso_status_t status = check_put(ep, src, len, region, remote, rkey);

    if (status == ISO_OK)
        status = ux_ep_usable(ep);
    if (status != ISO_OK || len == 0)
        return status;
    if (ep->puts >= UX_PUTS)
        return ISO_ERR_AGAIN;
    if (!ep->one_sided)
        return ux_own_put(ep, src, len, remote, rkey, completion);
    ux_op_t *op = ux_op_get(ep, UX_OP_PUT, completion);
    if (op == NULL)
        return ISO_ERR_NO_MEMORY;
    const ucp_request_param_t param = {
        .op_attr_mask =
            UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMH,
        .cb.send = ux_op_called_back,
        .user_data = op,
        .memh = region->memh,
    };
    return ux_op_started(op, ucp_put_nbx(ep->ucp, src, len, remote, rkey->ucp, &param));
}

iso_status_t ux_fence(iso_endpoint_t *ep)
{
    const iso_status_t status = ux_ep_usable(ep);

    if (status != ISO_OK)
        return status;
    return ep->one_sided ? ISO_ERR_INVALID : ux_own_fence(ep);
}

iso_status_t ux_flush_ucp(iso_endpoint_t *ep, iso_completion_t *completion)
{
    ux_op_t *op = ux_op_get(ep, UX_OP_FLUSH, completion);

    if (op == NULL)
        return ISO_ERR_NO_MEMORY;
    const ucp_request_param_t param = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
        .cb.send = ux_op_called_back,
        .user_data = op,
    };
    return ux_op_started(op, ucp_ep_flush_nbx(ep->ucp, &param));
}

iso_status_t ux_flush(iso_endpoint_t *ep, iso_completion_t *completion)
{
    const iso_status_t status = ux_ep_usable(ep); /* one after a failure would never end */

    if (status != ISO_OK)
        return status;
    return ep->one_sided ? ux_flush_ucp(ep, completion) : ux_own_flush(ep, completion);
}
