/*
 * of_module.c - the transport as the library sees it: its table, probe, open, close and caps.
 *
 * An instance is made here from the parts of the other files, and taken apart in reverse.
 */
#include "ofi.h"
#include <stdlib.h>

#define QUIET_MS 500 /* that the last messages may take */

iso_status_t of_status(int error)
{
    switch (error) {
    case 0:
        return ISO_OK;
    case FI_ENOMEM:
        return ISO_ERR_NO_MEMORY;
    case FI_EAGAIN:
        return ISO_ERR_AGAIN;
    case FI_EINVAL:
    case FI_EACCES:
    case FI_EPERM:
    case FI_EFAULT:
    case FI_EKEYREJECTED:
    case FI_ENOKEY:
        return ISO_ERR_INVALID;
    case FI_ECANCELED:
        return ISO_ERR_CANCELED;
    default:
        return ISO_ERR_UNREACHABLE;
    }
}

static iso_status_t of_probe(const char **why_p)
{
    if (FI_VERSION_GE(fi_version(), OF_API))
        return ISO_OK;
    *why_p = "the libfabric that is loaded is older than 1.17: set LD_LIBRARY_PATH to a newer one";
    return ISO_ERR_VERSION;
}

static iso_status_t of_open(const iso_transport_host_t *host, iso_transport_t **tp_p)
{
    const char *why;
    iso_status_t status;
    iso_transport_t *tp = calloc(1, sizeof *tp);

    if (tp == NULL)
        return ISO_ERR_NO_MEMORY;
    tp->host = host;
    tp->arrived_last = &tp->arrived;
    tp->ended_last = &tp->ended;
    status = caller_check_host(host);
    if (status != ISO_OK)
        goto free_tp;
    if (process_find_self(&tp->place, &tp->process, &why) != ISO_OK)
        of_log(tp, ISO_LOG_INFO, "the end of processes on this host is not watched: %s", why);
    status = of_peers_open(tp);
    if (status != ISO_OK)
        goto free_tp;
    status = of_provider_choose(tp);
    if (status != ISO_OK)
        goto close_peers;
    if (tp->is_shm && !windows_open(&tp->windows, host)) {
        of_log(tp, ISO_LOG_ERROR, "no memory for the table of windows");
        status = ISO_ERR_NO_MEMORY;
        goto free_info;
    }
    status = of_fabric_open(tp);
    if (status != ISO_OK)
        goto close_windows;
    status = of_events_open(tp);
    if (status != ISO_OK)
        goto close_fabric;
    status = of_recvs_post(tp);
    if (status != ISO_OK)
        goto close_events;
    caller_check_descriptors(host, 2); /* its process, and a connection or its memory */
    *tp_p = tp;
    return ISO_OK;

close_events:
    events_close(&tp->events, &tp->peers);
close_fabric:
    of_fabric_close(tp);
close_windows:
    if (tp->is_shm)
        windows_close(&tp->windows);
free_info:
    fi_freeinfo(tp->info);
close_peers:
    peers_close(&tp->peers);
free_tp:
    free(tp);
    return status;
}

/* What was sent last should get there, though nobody waits for it any more. */
static void let_messages_go(iso_transport_t *tp)
{
    const uint64_t until = clock_coarse_ms() + QUIET_MS;

    while (tp->sends > 0 && clock_coarse_ms() < until)
        of_cq_take(tp);
}

static void of_close(iso_transport_t *tp)
{
    caller_check_close(tp->host, tp->endpoints, tp->regions, tp->rkeys);
    let_messages_go(tp);
    events_close(&tp->events, &tp->peers);
    of_fabric_close(tp); /* libfabric writes nowhere from here on */
    of_ops_free(tp);
    of_regions_free(tp);
    if (tp->is_shm)
        windows_close(&tp->windows);
    fi_freeinfo(tp->info);
    peers_close(&tp->peers);
    free(tp);
}

static void of_query(iso_transport_t *tp, iso_transport_caps_t *caps_p)
{
    *caps_p = (iso_transport_caps_t){
        .struct_size = sizeof *caps_p,
        .pins_memory = of_provider_pins(tp),
        .one_sided = of_provider_one_sided(tp),
        .needs_fd = false,
        .shares_host = tp->is_shm,
        .sees_death = false, /* on this host only */
        .max_send = OF_MAX_SEND,
        .max_put = OF_MAX_PUT,
        .description = tp->description,
        .on_demand = false, /* libfabric has no way to ask for it, nor to tell whether it is so */
    };
}

extern ISO_API const iso_transport_ops_t iso_transport_module;
const iso_transport_ops_t iso_transport_module = {
    .abi_version = ISO_TRANSPORT_ABI,
    .struct_size = sizeof(iso_transport_ops_t),
    .name = "ofi",
    .probe = of_probe,
    .open = of_open,
    .close = of_close,
    .query = of_query,
    .address = of_address,
    .connect = of_connect,
    .disconnect = of_disconnect,
    .mem_register = of_mem_register,
    .mem_deregister = of_mem_deregister,
    .rkey_pack = of_rkey_pack,
    .rkey_unpack = of_rkey_unpack,
    .rkey_destroy = of_rkey_destroy,
    .put = of_put,
    .fence = of_fence,
    .flush = of_flush,
    .send = of_send,
    .is_sending = of_is_sending,
    .progress = of_progress,
    .event_fd = of_event_fd,
    .arm = of_arm,
};
