/* links.c - see links.h. */
#include "core/links.h"
#include "core/depth.h"
#include "core/exchange.h"
#include "core/job.h"
#include <inttypes.h>
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

static void fill_card(const iso_job_t *job, iso_card_t *card)
{
    const iso_link_t *links[2] = {job->node_link, job->net_link};
    memset(card, 0, sizeof *card);
    for (int i = 0; i < 2; i++)
        if (links[i]) {
            card->lengths[i] = (uint32_t)links[i]->address_len;
            memcpy(card->addresses[i], links[i]->address, links[i]->address_len);
        }
    if (job->net_link)
        strncpy(card->transport, job->net_link->ops->name, sizeof card->transport - 1);
}

iso_status_t iso_links_publish(iso_job_t *job)
{
    iso_card_t card;
    void *all;
    fill_card(job, &card);
    if (!job->bootstrap)
        return ISO_OK;
    iso_status_t status;
    if (job->bootstrap->publish) {
        iso_depth_enter();
        status = job->bootstrap->publish(job->bootstrap->ctx, &card, sizeof card);
        iso_depth_leave();
        return status;
    }
    status = iso_exchange_all(job, &card, sizeof card, &all);
    if (status == ISO_OK)
        job->blobs = all;
    return status;
}
