/*
 * of_fabric.c - what is opened of the provider: fabric, domain, completion queue, table of addresses, endpoint.
 *
 * One queue takes the completions of everything. It gives a descriptor to wait for where the provider can;
 * else of_progress.c looks now and then.
 *
 * Signals. shm takes SIGBUS, SIGSEGV, SIGTERM and SIGINT, to remove its files, and does so whoever had them.
 * They are the program's: given back at once. What stays of shm then, of_shm.c removes.
 */
#include "ofi.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const int taken[] = {SIGBUS, SIGSEGV, SIGTERM, SIGINT};
#define OF_CQ_ENTRIES ((size_t)4 * OF_QUEUE)
#define TAKEN (sizeof taken / sizeof *taken)

static iso_status_t complain(const iso_transport_t *tp, const char *what, int error)
{
    /* ofi_rxm makes queues for FI_UNIVERSE_SIZE peers (256), which can be more than a device allows */
    const bool by_rxm = of_provider_is(tp->info->fabric_attr->prov_name, "ofi_rxm");

    of_log(tp, ISO_LOG_ERROR, "libfabric's provider %s: cannot open its %s: %s%s",
           tp->info->fabric_attr->prov_name, what, fi_strerror(-error),
           by_rxm && getenv("FI_UNIVERSE_SIZE") == NULL
               ? " (try FI_UNIVERSE_SIZE=8, or as many as the job has ranks)"
               : "");
    return error == -FI_ENOMEM                          ? ISO_ERR_NO_MEMORY
           : error == -FI_EMFILE || error == -FI_ENOSPC ? ISO_ERR_LIMIT
                                                        : ISO_ERR_SYSTEM;
}

static int open_cq(iso_transport_t *tp)
{
    /* room for all that is under way: what is left to the provider (65,536 entries in a ring) is gone
     * through page by page, a fault each */
    struct fi_cq_attr attr = {
        .size = OF_CQ_ENTRIES, .format = FI_CQ_FORMAT_DATA, .wait_obj = FI_WAIT_FD};
    int error = fi_cq_open(tp->domain, &attr, &tp->cq, tp);

    tp->cq_fd = -1;
    if (error == 0) {
        if (fi_control(&tp->cq->fid, FI_GETWAIT, &tp->cq_fd) == 0)
            return 0;
        fi_close(&tp->cq->fid); /* it has one only with a thread of its own (sockets) */
        tp->cq = NULL;
        tp->cq_fd = -1;
    }
    attr.wait_obj = FI_WAIT_NONE;
    error = fi_cq_open(tp->domain, &attr, &tp->cq, tp);
    if (error == 0)
        of_log(tp, ISO_LOG_INFO,
               "provider %s gives no descriptor to wait for: who waits looks every now and then, "
               "up to a millisecond apart",
               tp->info->fabric_attr->prov_name);
    return error;
}

static iso_status_t open_endpoint(iso_transport_t *tp)
{
    struct fi_av_attr attr = {.type = FI_AV_TABLE};
    int error = open_cq(tp);

    if (error != 0)
        return complain(tp, "completion queue", error);
    error = fi_av_open(tp->domain, &attr, &tp->av, tp);
    if (error != 0)
        return complain(tp, "table of addresses", error);
    error = fi_endpoint(tp->domain, tp->info, &tp->ep, tp);
    if (error != 0)
        return complain(tp, "endpoint", error);
    if (tp->is_shm)
        of_shm_set_name(tp);
    error = fi_ep_bind(tp->ep, &tp->av->fid, 0);
    if (error == 0)
        error = fi_ep_bind(tp->ep, &tp->cq->fid, FI_TRANSMIT | FI_RECV);
    if (error == 0)
        error = fi_enable(tp->ep);
    return error != 0 ? complain(tp, "endpoint for use", error) : ISO_OK;
}

static iso_status_t open_all(iso_transport_t *tp)
{
    int error = fi_fabric(tp->info->fabric_attr, &tp->fabric, tp);

    if (error != 0)
        return complain(tp, "fabric", error);
    error = fi_domain(tp->fabric, tp->info, &tp->domain, tp);
    if (error != 0)
        return complain(tp, "domain", error);
    return open_endpoint(tp);
}

iso_status_t of_fabric_open(iso_transport_t *tp)
{
    struct sigaction before[TAKEN];

    if (tp->is_shm) {
        const iso_status_t allowed = of_cma_check(tp);
        if (allowed != ISO_OK)
            return allowed;
        of_shm_clean(tp);
    }
    for (size_t i = 0; i < TAKEN; i++)
        sigaction(taken[i], NULL, &before[i]);
    const iso_status_t status = open_all(tp);
    for (size_t i = 0; i < TAKEN; i++)
        sigaction(taken[i], &before[i], NULL);
    if (status != ISO_OK)
        of_fabric_close(tp);
    return status;
}

static void close_fid(struct fid *fid)
{
    if (fid != NULL)
        fi_close(fid);
}

void of_fabric_close(iso_transport_t *tp)
{
    close_fid(tp->ep != NULL ? &tp->ep->fid : NULL);
    of_buffers_free(tp); /* its memory is registered with the domain */
    close_fid(tp->cq != NULL ? &tp->cq->fid : NULL);
    close_fid(tp->av != NULL ? &tp->av->fid : NULL);
    close_fid(tp->domain != NULL ? &tp->domain->fid : NULL);
    close_fid(tp->fabric != NULL ? &tp->fabric->fid : NULL);
}
