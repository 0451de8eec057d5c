/* links.c - see links.h. */
#include "core/links.h"
#include "core/depth.h"
#include "core/exchange.h"
#include "core/job.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Transports that `auto` prefers between nodes, the best first. */
static const char *const network_transports[] = {"ucx", "ofi"};

/* `auto`: the first network transport that is there and can be loaded, if ranks are on several hosts: a package may bring the
 * modules without what each needs. Pretended nodes of one host have loopback, which needs no network and comes through the death of a
 * peer at any moment. */
static const char *choose_transport(const iso_job_t *job, bool other_hosts)
{
    if (strcmp(job->params.transport, "auto") != 0)
        return job->params.transport;
    if (job->params.transport_shared)
        return job->params.transport_shared->transport;
    for (size_t i = 0; other_hosts && i < sizeof network_transports / sizeof *network_transports;
         i++)
        if (iso_module_loads(&job->logger, job->rank == 0 ? ISO_LOG_WARN : ISO_LOG_INFO,
                             &job->params, network_transports[i]))
            return network_transports[i];
    return "loopback";
}

iso_status_t iso_links_open(iso_job_t *job, bool other_hosts)
{
    const char *name = choose_transport(job, other_hosts);
    const iso_transport_shared_t *shared = job->params.transport_shared;
    bool beyond = job->node.rank_count < job->size;
    iso_status_t status = ISO_OK;
    if (shared && strcmp(shared->transport, name) != 0) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "the program shares what is of transport %s (iso_params_t::transport_shared), and "
                "ISO_TRANSPORT is %s: set it to the same, or to auto",
                shared->transport, name);
        return ISO_ERR_INVALID;
    }
    if (job->node.rank_count > 1)
        status = iso_link_open(job, "loopback", NULL, &job->node_link);
    if (status != ISO_OK)
        return status;
    if (!beyond) {
        iso_module_t module; /* a transport that is named must be there, needed or not */
        if (strcmp(job->params.transport, "auto") == 0)
            return ISO_OK;
        status = iso_module_open_transport(&job->logger, &job->params, name, &module);
        if (status == ISO_OK)
            iso_module_close(&module);
        return status;
    }
    if (job->node_link && strcmp(name, "loopback") == 0)
        job->net_link = job->node_link;
    else
        status = iso_link_open(job, name, shared, &job->net_link);
    if (status == ISO_OK && other_hosts && job->net_link->caps.shares_host) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "ranks of this job are on several hosts, and transport %s reaches only its own: "
                "install a network transport's module (ISO_MODULE_PATH) and name it in "
                "ISO_TRANSPORT",
                name);
        return ISO_ERR_UNREACHABLE;
    }
    return status;
}

static iso_status_t fill_card(const iso_job_t *job, iso_card_t *card, size_t *len_p)
{
    const iso_link_t *links[2] = {job->node_link, job->net_link};
    size_t used = 0;
    memset(card, 0, sizeof *card);
    *len_p = offsetof(iso_card_t, addresses);
    for (int i = 0; i < 2; i++) {
        const size_t len = links[i] ? links[i]->address_len : 0;
        if (len > sizeof card->addresses - used) {
            iso_log(&job->logger, ISO_LOG_ERROR,
                    "the addresses of two transports take %zu bytes, the room is %zu: name fewer "
                    "devices to them",
                    used + len, sizeof card->addresses);
            return ISO_ERR_LIMIT;
        }
        if (len > 0)
            memcpy(card->addresses + used, links[i]->address, len);
        card->lengths[i] = (uint32_t)len;
        used += len;
        *len_p += len;
    }
    if (job->net_link)
        strncpy(card->transport, job->net_link->ops->name, sizeof card->transport - 1);
    return ISO_OK;
}

/* Where the bootstrap cannot look up. */
static iso_status_t exchange_cards(iso_job_t *job, const iso_card_t *card, size_t len)
{
    uint64_t mine = len, most = 0;
    void *all;
    iso_status_t status = iso_exchange_all(job, &mine, sizeof mine, &all);
    if (status != ISO_OK)
        return status;
    for (uint32_t r = 0; r < job->size; r++)
        most = ((uint64_t *)all)[r] > most ? ((uint64_t *)all)[r] : most;
    free(all);
    if (most > sizeof *card)
        return ISO_ERR_INVALID;
    status = iso_exchange_all(job, card, (size_t)most, &all);
    if (status != ISO_OK)
        return status;
    job->blobs = all;
    job->blob_len = (size_t)most;
    return ISO_OK;
}

iso_status_t iso_links_publish(iso_job_t *job)
{
    iso_card_t card;
    size_t len;
    const iso_status_t filled = fill_card(job, &card, &len);
    iso_status_t status = ISO_OK;
    if (!job->bootstrap)
        return filled;
    if (job->bootstrap->publish) {
        iso_depth_enter();
        status = job->bootstrap->publish(job->bootstrap->ctx, &card, len);
        iso_depth_leave();
    } else {
        status = exchange_cards(job, &card, len);
    }
    return filled != ISO_OK ? filled : status;
}
