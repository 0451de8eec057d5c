/*
 * lo_module.c - the transport as the library sees it: its table, probe, open, close and caps.
 *
 * An instance is made here from the parts of the other files, and taken apart in reverse. All
 * that it has is anonymous (memfds, an abstract socket): the kernel removes it with the process.
 */
#include "loopback.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static iso_status_t lo_probe(const char **why_p)
{
    process_place_t place;
    process_id_t self;
    int pidfd, error;

    iso_status_t status = process_find_self(&place, &self, why_p);
    if (status != ISO_OK)
        return status;
    error = process_watch(&self, &pidfd);
    if (error != 0) {
        *why_p = error == ENOSYS || error == EPERM
                     ? "pidfd_open is missing or forbidden: Linux 5.3 or later is needed, and a "
                       "container's seccomp profile, or a Valgrind, that allows it"
                     : "a pidfd of this process cannot be opened: too many open files?";
        return ISO_ERR_SYSTEM;
    }
    close(pidfd);
    return ISO_OK;
}

static iso_status_t check_host(const iso_transport_t *tp)
{
    const iso_transport_host_t *host = tp->host;
    const iso_status_t status = caller_check_host(host);

    if (status != ISO_OK)
        return status;
    if (host->size > LO_MAX_RANKS) {
        lo_log(tp, ISO_LOG_ERROR, "the job has %u ranks, loopback can number %u", host->size,
               LO_MAX_RANKS);
        return ISO_ERR_LIMIT;
    }
    return ISO_OK;
}

static iso_status_t lo_open(const iso_transport_host_t *host, iso_transport_t **tp_p)
{
    const char *why;
    iso_status_t status;
    iso_transport_t *tp = calloc(1, sizeof *tp);

    if (tp == NULL)
        return ISO_ERR_NO_MEMORY;
    tp->host = host;
    tp->no_vm_writev = getenv("ISO_TEST_NO_VM_WRITEV") != NULL;
    status = check_host(tp);
    if (status != ISO_OK)
        goto free_tp;
    status = process_find_self(&tp->place, &tp->process, &why);
    if (status != ISO_OK) {
        lo_log(tp, ISO_LOG_ERROR, "%s", why);
        goto free_tp;
    }
    status = peers_open(&tp->peers, tp, host, &lo_peer_kind);
    if (status != ISO_OK)
        goto free_tp;
    if (!windows_open(&tp->windows, host)) {
        lo_log(tp, ISO_LOG_ERROR, "no memory for the table of windows");
        status = ISO_ERR_NO_MEMORY;
        goto free_peers;
    }
    status = lo_doorbell_create(tp);
    if (status != ISO_OK)
        goto close_windows;
    status = lo_inbox_create(tp);
    if (status != ISO_OK)
        goto close_doorbell;
    *tp_p = tp;
    return ISO_OK;

close_doorbell:
    lo_doorbell_close(tp);
close_windows:
    windows_close(&tp->windows);
free_peers:
    peers_close(&tp->peers);
free_tp:
    free(tp);
    return status;
}

static void lo_close(iso_transport_t *tp)
{
    caller_check_close(tp->host, tp->endpoints, tp->regions, tp->rkeys);
    lo_inbox_close(tp);
    peers_close(&tp->peers);
    lo_doorbell_close(tp);
    windows_close(&tp->windows);
    free(tp);
}

static void lo_query(iso_transport_t *tp, iso_transport_caps_t *caps_p)
{
    (void)tp;
    *caps_p = (iso_transport_caps_t){
        .struct_size = sizeof *caps_p,
        .pins_memory = false,
        .one_sided = true,
        .needs_fd = false,
        .shares_host = true,
        .sees_death = true,
        .max_send = LO_MAX_SEND,
        .max_put = LO_MAX_PUT,
        .description = "processes of one user on one host: the kernel's shared memory, or its "
                       "copying between processes",
    };
}

extern ISO_API const iso_transport_ops_t iso_transport_module;
const iso_transport_ops_t iso_transport_module = {
    .abi_version = ISO_TRANSPORT_ABI,
    .struct_size = sizeof(iso_transport_ops_t),
    .name = "loopback",
    .probe = lo_probe,
    .open = lo_open,
    .close = lo_close,
    .query = lo_query,
    .address = lo_address,
    .connect = lo_connect,
    .disconnect = lo_disconnect,
    .mem_register = lo_mem_register,
    .mem_deregister = lo_mem_deregister,
    .rkey_pack = lo_rkey_pack,
    .rkey_unpack = lo_rkey_unpack,
    .rkey_destroy = lo_rkey_destroy,
    .put = lo_put,
    .fence = lo_fence,
    .flush = lo_flush,
    .send = lo_send,
    .progress = lo_progress,
    .event_fd = lo_event_fd,
    .arm = lo_arm,
};
