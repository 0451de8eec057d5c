/*
 * ux_module.c - the transport as the library sees it: its table, probe, open, close and caps.
 *
 * An instance is made here from the parts of the other files, and taken apart in reverse.
 */
#include "ucx.h"
#include <stdlib.h>

static iso_status_t ux_probe(const char **why_p)
{
    unsigned major, minor, release;

    ucp_get_version(&major, &minor, &release);
    if (major == UCP_API_MAJOR && minor >= UCP_API_MINOR)
        return ISO_OK;
    *why_p = "the UCX library that is loaded is older than the one this module was built with: set "
             "LD_LIBRARY_PATH, or build the module again";
    return ISO_ERR_VERSION;
}

iso_status_t ux_lock_open(const iso_transport_t *tp, ux_lock_t *lock)
{
    lock->needed = tp->shares_worker;
    if (pthread_mutex_init(&lock->mutex, NULL) == 0)
        return ISO_OK;
    ux_log(tp, ISO_LOG_ERROR, "no memory for a mutex");
    return ISO_ERR_NO_MEMORY;
}

void ux_lock_close(ux_lock_t *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

static iso_status_t ux_open(const iso_transport_host_t *host, iso_transport_t **tp_p)
{
    const char *why;
    iso_status_t status;
    iso_transport_t *tp = calloc(1, sizeof *tp);

    if (tp == NULL)
        return ISO_ERR_NO_MEMORY;
    tp->host = host;
    status = caller_check_host(host);
    if (status != ISO_OK)
        goto free_tp;
    if (process_find_self(&tp->place, &tp->process, &why) != ISO_OK)
        ux_log(tp, ISO_LOG_INFO, "the end of processes on this host is not watched: %s", why);
    status = ux_peers_open(tp);
    if (status != ISO_OK)
        goto free_tp;
    status = ux_context_open(tp);
    if (status != ISO_OK)
        goto close_peers;
    status = ux_landing_open(tp);
    if (status != ISO_OK)
        goto close_context;
    status = ux_inbox_open(tp);
    if (status != ISO_OK)
        goto close_landing;
    status = ux_events_open(tp);
    if (status != ISO_OK)
        goto close_inbox;
    caller_check_descriptors(host, 3); /* its process, and over tcp and posix one each */
    if (host->on_demand)
        ux_mem_try_on_demand(tp);
    *tp_p = tp;
    return ISO_OK;

close_inbox:
    ux_inbox_close(tp);
close_landing:
    ux_landing_close(tp);
close_context:
    ux_context_close(tp);
close_peers:
    peers_close(&tp->peers);
free_tp:
    free(tp);
    return status;
}

static void ux_close(iso_transport_t *tp)
{
    caller_check_close(tp->host, tp->endpoints, tp->regions, tp->rkeys);
    const bool quiet = ux_ops_quiesce(tp);
    events_close(&tp->events, &tp->peers);
    ux_context_close(tp); /* a worker of our own calls nobody back from here on */
    if (tp->unclosed > 0 || (tp->shares_worker && !quiet))
        return; /* UCX may still write here */
    ux_inbox_close(tp);
    ux_ops_free(tp);
    peers_close(&tp->peers);
    ux_landing_close(tp);
    free(tp);
}

static void ux_query(iso_transport_t *tp, iso_transport_caps_t *caps_p)
{
    *caps_p = (iso_transport_caps_t){
        .struct_size = sizeof *caps_p,
        .pins_memory = tp->devices.pins && !tp->devices.on_demand,
        .one_sided = tp->devices.rdma,
        .needs_fd = false,
        .shares_host = !tp->devices.beyond_host,
        .sees_death = false, /* on this host only */
        .max_send = UX_MAX_SEND,
        .max_put = UX_MAX_PUT,
        .description = tp->devices.rdma
                           ? "UCX with RDMA devices: they carry puts where they reach the peer "
                             "(level info logs what carries them to each peer)"
                       : tp->devices.beyond_host
                           ? "UCX without RDMA devices: puts are active messages of our own, which "
                             "the target's CPU copies"
                           : "UCX inside a host: puts are active messages of our own, which the "
                             "target's CPU copies",
        .on_demand = tp->devices.on_demand,
        .own_pinned = tp->devices.pins ? UX_OWN_PINNED : 0,
    };
}

extern ISO_API const iso_transport_ops_t iso_transport_module;
const iso_transport_ops_t iso_transport_module = {
    .abi_version = ISO_TRANSPORT_ABI,
    .struct_size = sizeof(iso_transport_ops_t),
    .name = "ucx",
    .probe = ux_probe,
    .open = ux_open,
    .close = ux_close,
    .query = ux_query,
    .address = ux_address,
    .connect = ux_connect,
    .disconnect = ux_disconnect,
    .mem_register = ux_mem_register,
    .mem_deregister = ux_mem_deregister,
    .rkey_pack = ux_rkey_pack,
    .rkey_unpack = ux_rkey_unpack,
    .rkey_destroy = ux_rkey_destroy,
    .put = ux_put,
    .fence = ux_fence,
    .flush = ux_flush,
    .send = ux_send,
    .is_sending = ux_is_sending,
    .progress = ux_progress,
    .event_fd = ux_event_fd,
    .arm = ux_arm,
};
