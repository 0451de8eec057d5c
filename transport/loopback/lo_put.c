/*
 * lo_put.c - puts: bytes written into a peer's memory object while the peer does nothing (transport/common/windows.c), or
 * into memory without one (lo_vm.c). They are complete, at the peer too, when they return.
 */
#include "loopback.h"

static iso_status_t check_put(const iso_endpoint_t *ep, const void *src, size_t len,
                              const iso_region_t *region, uint64_t remote, const iso_rkey_t *rkey)
{
    return caller_check_put(ep->tp->host, LO_MAX_PUT, region != NULL ? &region->memory : NULL, src,
                            len, ep->peer->base.rank,
                            (caller_target_t){rkey->rank, rkey->address, rkey->length}, remote);
}

iso_status_t lo_put(iso_endpoint_t *ep, const void *src, size_t len, iso_region_t *region,
                    uint64_t remote, iso_rkey_t *rkey, iso_completion_t *completion)
{
    iso_status_t status = check_put(ep, src, len, region, remote, rkey);

    (void)completion;
    if (status == ISO_OK && ep->peer->base.state == PEER_DEAD)
        status = ISO_ERR_PEER_DEAD;
    if (status != ISO_OK)
        return status;
    if (rkey->object == NULL)
        return lo_vm_put(ep, src, len, remote);
    return windows_put(&ep->tp->windows, rkey->object, rkey->offset + (remote - rkey->address), src,
                       len);
}

iso_status_t lo_fence(iso_endpoint_t *ep)
{
    (void)ep;
    atomic_thread_fence(memory_order_seq_cst);
    return ISO_OK;
}

iso_status_t lo_flush(iso_endpoint_t *ep, iso_completion_t *completion)
{
    (void)completion;
    return lo_fence(ep);
}
