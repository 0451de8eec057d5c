/*
 * ux_address.c - the address blob: who and where a process is, and the address of its worker.
 */
#include "ucx.h"
#include <string.h>

static const blob_kind_t address_kind = {
    0x61786375u /* "ucxa" */, UX_VERSION, "a UCX address",
    ": name fewer devices in UCX_NET_DEVICES or fewer transports in UCX_TLS"};

typedef struct address_body {
    uint32_t am_id, zero;
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
    body.process = tp->process;
    body.place = tp->place;
    const iso_status_t status =
        blob_write(tp->host, &address_kind, &body, sizeof body, address, len, buf, len_p);
    ucp_worker_release_address(tp->worker, address);
    return status;
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
    address_p->process = process_seen(&tp->place, &tp->process, &body.place, &body.process);
    address_p->am_id = body.am_id;
    address_p->ucp = ucp;
    return ISO_OK;
}
