/*
 * ux_address.c - the address blob: who and where a process is, and the address of its worker.
 */
#include "ucx.h"
#include <string.h>

static const blob_kind_t address_kind = {
    0x61786375u /* "ucxa" */, UX_VERSION, "a UCX address",
    ": name fewer devices in UCX_NET_DEVICES or fewer transports in UCX_TLS"};

typedef struct address_body {
    uint32_t am_id;
    uint32_t queues; /* UX_QUEUES */
    process_id_t process;
    process_place_t place;
} address_body_t;

iso_status_t ux_address(iso_transport_t *tp, void *buf, size_t *len_p)
{
    address_body_t body;
    ucp_address_t *address;
    size_t len;
    const ucs_status_t got = ucp_worker_get_address(tp->worker, &address, &len);

    if (got != UCS_OK) {
        ux_log(tp, ISO_LOG_ERROR, "UCX does not tell the worker's address: %s",
               ucs_status_string(got));
        return ISO_ERR_SYSTEM;
    }
    memset(&body, 0, sizeof body);
    body.am_id = tp->am_id;
    body.queues = tp->queues;
    body.process = tp->process;
    body.place = tp->place;
    const iso_status_t status =
        blob_write(tp->host, &address_kind, &body, sizeof body, address, len, buf, len_p);
    ucp_worker_release_address(tp->worker, address);
    return status;
}

/* Are there queues of both in this host's memory, that are not the same? */
static bool differ(const iso_transport_t *tp, const address_body_t *body)
{
    return body->queues != 0 && tp->queues != 0 && body->queues != tp->queues &&
           memcmp(tp->place.boot_id, body->place.boot_id, sizeof tp->place.boot_id) == 0;
}

iso_status_t ux_address_read(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                             ux_address_t *address_p)
{
    address_body_t body;
    const void *ucp;
    size_t ucp_len;
    const iso_status_t status =
        blob_read(tp->host, &address_kind, rank, address, len, &body, sizeof body, &ucp, &ucp_len);

    if (status != ISO_OK)
        return status;
    if (differ(tp, &body)) {
        ux_log(tp, ISO_LOG_ERROR,
               "UCX's queues in shared memory are not the same at rank %u and here: one of them "
               "shares the program's UCX context, or has another environment; set "
               "UCX_POSIX_FIFO_SIZE, UCX_POSIX_FIFO_ELEM_SIZE and UCX_POSIX_SEG_SIZE, and those of "
               "UCX_SYSV_, alike everywhere",
               rank);
        return ISO_ERR_INVALID;
    }
    address_p->process = process_seen(&tp->place, &tp->process, &body.place, &body.process);
    address_p->am_id = body.am_id;
    address_p->ucp = ucp;
    return ISO_OK;
}
