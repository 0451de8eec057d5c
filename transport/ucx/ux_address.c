/*
 * ux_address.c - the address blob: who and where a process is, and the address of its worker.
 *
 * UCX reads an address without knowing its length, so that what is garbage must be found out before.
 */
#include "ucx.h"
#include <stdlib.h>
#include <string.h>

#define ADDRESS_MAGIC 0x61786375u /* "ucxa" */

typedef struct address_blob {
    uint32_t magic, version;
    uint32_t rank, am_id;
    uint32_t ucp_len;  /* length of the worker's address, which follows */
    uint32_t elements; /* ux_elements_t */
    uint64_t hash;     /* of it and am_id */
    process_id_t process;
    process_place_t place;
} address_blob_t;

static uint64_t hash_of(uint32_t am_id, const void *ucp, size_t len)
{
    return hash_bytes(hash_bytes(HASH_START, &am_id, sizeof am_id), ucp, len);
}

iso_status_t ux_address(iso_transport_t *tp, void *buf, size_t *len_p)
{
    address_blob_t blob;
    ucp_address_t *address;
    size_t len;
    iso_status_t status = ISO_OK;
    const ucs_status_t got = ucp_worker_get_address(tp->worker, &address, &len);

    if (got != UCS_OK) {
        ux_log(tp, ISO_LOG_ERROR, "UCX does not tell the worker's address: %s",
               ucs_status_string(got));
        return ISO_ERR_SYSTEM;
    }
    if (*len_p < sizeof blob + len) {
        ux_log(tp, ISO_LOG_ERROR,
               "UCX's address takes %zu bytes, the room is %zu: name fewer devices in "
               "UCX_NET_DEVICES or fewer transports in UCX_TLS",
               sizeof blob + len, *len_p);
        status = ISO_ERR_LIMIT;
        goto release;
    }
    memset(&blob, 0, sizeof blob);
    blob.magic = ADDRESS_MAGIC;
    blob.version = UX_VERSION;
    blob.rank = tp->host->rank;
    blob.am_id = tp->am_id;
    blob.ucp_len = (uint32_t)len;
    blob.elements = tp->elements;
    blob.hash = hash_of(blob.am_id, address, len);
    blob.process = tp->process;
    blob.place = tp->place;
    memcpy(buf, &blob, sizeof blob);
    memcpy((char *)buf + sizeof blob, address, len);
    *len_p = sizeof blob + len;

release:
    ucp_worker_release_address(tp->worker, address);
    return status;
}

/* Are there queues of both in this host's memory, with elements that are not the same? */
static bool differ(const iso_transport_t *tp, const address_blob_t *blob)
{
    return blob->elements != UX_ELEMENTS_NONE && tp->elements != UX_ELEMENTS_NONE &&
           blob->elements != tp->elements &&
           memcmp(tp->place.boot_id, blob->place.boot_id, sizeof tp->place.boot_id) == 0;
}

iso_status_t ux_address_read(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                             ux_address_t *address_p)
{
    const unsigned char *ucp = (const unsigned char *)address + sizeof(address_blob_t);
    address_blob_t blob;

    memset(&blob, 0, sizeof blob);
    memcpy(&blob, address, len < sizeof blob ? len : sizeof blob);
    if (blob.magic == ADDRESS_MAGIC && blob.version != UX_VERSION) {
        ux_log(tp, ISO_LOG_ERROR, "rank %u speaks version %u of this transport, this rank %u", rank,
               blob.version, UX_VERSION);
        return ISO_ERR_VERSION;
    }
    if (len < sizeof blob || blob.magic != ADDRESS_MAGIC || blob.rank != rank ||
        blob.ucp_len != len - sizeof blob || blob.hash != hash_of(blob.am_id, ucp, blob.ucp_len)) {
        ux_log(tp, ISO_LOG_ERROR, "%zu bytes are not a UCX address of rank %u", len, rank);
        return ISO_ERR_INVALID;
    }
    if (differ(tp, &blob)) {
        ux_log(tp, ISO_LOG_ERROR,
               "UCX's queues in shared memory are not the same at rank %u and here: one of them "
               "shares the program's UCX context, or has another environment; set "
               "UCX_POSIX_FIFO_ELEM_SIZE and UCX_SYSV_FIFO_ELEM_SIZE alike everywhere",
               rank);
        return ISO_ERR_INVALID;
    }
    address_p->process = process_seen(&tp->place, &tp->process, &blob.place, &blob.process);
    address_p->am_id = blob.am_id;
    address_p->ucp = (const ucp_address_t *)ucp;
    return ISO_OK;
}
