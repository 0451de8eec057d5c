/*
 * of_address.c - the address blob: who and where a process is, its provider, and the name of its endpoint.
 */
#include "ofi.h"
#include <string.h>

static const blob_kind_t address_kind = {0x6169666fu /* "ofia" */, OF_VERSION,
                                         "a libfabric address", ""};

typedef struct address_body {
    uint32_t format, zero; /* of the name, which follows: FI_SOCKADDR_IN and the like */
    char provider[OF_PROVIDER_NAME];
    process_id_t process;
    process_place_t place;
} address_body_t;

iso_status_t of_address(iso_transport_t *tp, void *buf, size_t *len_p)
{
    address_body_t body;
    char name[ISO_TRANSPORT_ADDRESS_MAX];
    size_t len = sizeof name;
    const int error = fi_getname(&tp->ep->fid, name, &len);

    if (error != 0) {
        of_log(tp, ISO_LOG_ERROR,
               "libfabric does not tell the endpoint's address, of %zu bytes: %s", len,
               fi_strerror(-error));
        return error == -FI_ETOOSMALL ? ISO_ERR_LIMIT : ISO_ERR_SYSTEM;
    }
    memset(&body, 0, sizeof body);
    body.format = tp->info->addr_format;
    snprintf(body.provider, sizeof body.provider, "%s", tp->info->fabric_attr->prov_name);
    body.process = tp->process;
    body.place = tp->place;
    return blob_write(tp->host, &address_kind, &body, sizeof body, name, len, buf, len_p);
}

static bool same_provider(const iso_transport_t *tp, const address_body_t *body)
{
    return body->format == tp->info->addr_format &&
           strncmp(body->provider, tp->info->fabric_attr->prov_name, sizeof body->provider - 1) ==
               0;
}

iso_status_t of_address_read(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                             of_address_t *address_p)
{
    address_body_t body;
    const void *name;
    size_t name_len;
    const iso_status_t status = blob_read(tp->host, &address_kind, rank, address, len, &body,
                                          sizeof body, &name, &name_len);

    if (status != ISO_OK)
        return status;
    if (name_len == 0) {
        of_log(tp, ISO_LOG_ERROR, "the address of rank %u has no name", rank);
        return ISO_ERR_INVALID;
    }
    body.provider[sizeof body.provider - 1] = '\0';
    if (!same_provider(tp, &body)) {
        of_log(tp, ISO_LOG_ERROR,
               "rank %u has libfabric's provider %s, this rank %s (or addresses of another kind): "
               "set ISO_OFI_PROVIDER to the same for all",
               rank, body.provider, tp->info->fabric_attr->prov_name);
        return ISO_ERR_UNREACHABLE;
    }
    address_p->process = process_seen(&tp->place, &tp->process, &body.place, &body.process);
    address_p->name = name;
    address_p->name_len = name_len;
    return ISO_OK;
}
