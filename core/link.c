/* link.c - see link.h. */
#include "core/link.h"
#include "core/dispatch.h"
#include "core/job.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_log(void *arg, iso_log_level_t level, const char *text)
{
    iso_link_t *link = arg;
    if (link->quote && !link->quote[0])
        snprintf(link->quote, ISO_LINK_QUOTE, "%s: %s", link->ops->name, text);
    if (link->quote)
        return;
    iso_log(&link->job->logger, level, "%s: %s", link->ops->name, text);
}

iso_status_t iso_link_open(iso_job_t *job, const char *module, const iso_transport_shared_t *shared,
                           iso_link_t **link_p)
{
    iso_link_t *link = calloc(1, sizeof *link);
    if (!link)
        return ISO_ERR_NO_MEMORY;
    iso_status_t status =
        iso_module_open_transport(&job->logger, &job->params, module, &link->module);
    if (status != ISO_OK)
        goto free_link;
    link->job = job;
    link->ops = link->module.transport;
    link->host = (iso_transport_host_t){.struct_size = sizeof link->host,
                                        .rank = job->rank,
                                        .size = job->size,
                                        .arg = link,
                                        .message = iso_dispatch_message,
                                        .peer_failed = iso_dispatch_failure,
                                        .log = on_log,
                                        .shared = shared,
                                        .on_demand = job->params.registration == ISO_REGISTER_ODP,
                                        .provider = job->params.ofi_provider};
    memcpy(link->host.cookie, job->cookie, sizeof job->cookie);
    const char *why = NULL;
    status = link->ops->probe(&why);
    if (status != ISO_OK) {
        iso_log(&job->logger, ISO_LOG_ERROR, "transport %s cannot be used here: %s", module,
                why ? why : iso_status_string(status));
        goto close_module;
    }
    status = link->ops->open(&link->host, &link->tp);
    link->host.shared = NULL;
    if (status != ISO_OK)
        goto close_module;
    link->caps.struct_size = sizeof link->caps;
    link->ops->query(link->tp, &link->caps);
    link->address_len = sizeof link->address;
    status = link->ops->address(link->tp, link->address, &link->address_len);
    if (status != ISO_OK)
        goto close_transport;
    if (link->caps.max_send < ISO_WIRE_MAX) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "transport %s sends at most %zu bytes; the library needs %d", module,
                link->caps.max_send, ISO_WIRE_MAX);
        status = ISO_ERR_VERSION;
        goto close_transport;
    }
    *link_p = link;
    return ISO_OK;
close_transport:
    link->ops->close(link->tp);
close_module:
    iso_module_close(&link->module);
free_link:
    free(link);
    return status;
}

iso_status_t iso_link_register(iso_link_t *link)
{
    iso_job_t *job = link->job;
    iso_memory_t memory = {job->space.base, job->space.size, job->space.fd, 0};
    iso_status_t status = link->ops->mem_register(link->tp, &memory, &link->region);
    if (status != ISO_OK)
        return status;
    link->rkey_len = sizeof link->rkey;
    return link->ops->rkey_pack(link->region, link->rkey, &link->rkey_len);
}

void iso_link_close(iso_link_t *link)
{
    if (!link)
        return;
    if (link->region)
        link->ops->mem_deregister(link->region);
    link->ops->close(link->tp);
    iso_module_close(&link->module);
    free(link);
}
