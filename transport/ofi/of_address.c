/*
 * of_address.c - the address blob: who and where a process is, its provider, and the name of its endpoint.
 */
#include "ofi.h"
#include <string.h>

#define ADDRESS_MAGIC 0x6169666fu /* "ofia" */

typedef struct address_blob {
    uint32_t magic, version;
    uint32_t rank, format; /* of the name: FI_SOCKADDR_IN and the like */
    uint32_t name_len, zero;
    uint64_t hash; /* of the name, which follows */
    char provider[OF_PROVIDER_NAME];
    process_id_t process;
    process_place_t place;
} address_blob_t;

iso_status_t of_address(iso_transport_t *tp, void *buf, size_t *len_p)
{
    address_blob_t blob;
    size_t room = *len_p > sizeof blob ? *len_p - sizeof blob : 0, len = room;
    const int error = fi_getname(&tp->ep->fid, (char *)buf + (room > 0 ? sizeof blob : 0), &len);

    if (room == 0 || error == -FI_ETOOSMALL) {
        of_log(tp, ISO_LOG_ERROR, "libfabric's address takes %zu bytes, the room is %zu", len,
               room);
        return ISO_ERR_LIMIT;
    }
    if (error != 0) {
        of_log(tp, ISO_LOG_ERROR, "libfabric does not tell the endpoint's address: %s",
               fi_strerror(-error));
        return ISO_ERR_SYSTEM;
    }
    memset(&blob, 0, sizeof blob);
    blob.magic = ADDRESS_MAGIC;
    blob.version = OF_VERSION;
    blob.rank = tp->host->rank;
    blob.format = tp->info->addr_format;
    blob.name_len = (uint32_t)len;
    blob.hash = hash_bytes(HASH_START, (char *)buf + sizeof blob, len);
    snprintf(blob.provider, sizeof blob.provider, "%s", tp->info->fabric_attr->prov_name);
    blob.process = tp->process;
    blob.place = tp->place;
    memcpy(buf, &blob, sizeof blob);
    *len_p = sizeof blob + len;
    return ISO_OK;
}

static bool same_provider(const iso_transport_t *tp, const address_blob_t *blob)
{
    return blob->format == tp->info->addr_format &&
           strncmp(blob->provider, tp->info->fabric_attr->prov_name, sizeof blob->provider - 1) ==
               0;
}

iso_status_t of_address_read(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                             of_address_t *address_p)
{
    const unsigned char *name = (const unsigned char *)address + sizeof(address_blob_t);
    address_blob_t blob;

    memset(&blob, 0, sizeof blob);
    memcpy(&blob, address, len < sizeof blob ? len : sizeof blob);
    if (blob.magic == ADDRESS_MAGIC && blob.version != OF_VERSION) {
        of_log(tp, ISO_LOG_ERROR, "rank %u speaks version %u of this transport, this rank %u", rank,
               blob.version, OF_VERSION);
        return ISO_ERR_VERSION;
    }
    if (len <= sizeof blob || blob.magic != ADDRESS_MAGIC || blob.rank != rank ||
        blob.name_len != len - sizeof blob ||
        blob.hash != hash_bytes(HASH_START, name, blob.name_len)) {
        of_log(tp, ISO_LOG_ERROR, "%zu bytes are not a libfabric address of rank %u", len, rank);
        return ISO_ERR_INVALID;
    }
    blob.provider[sizeof blob.provider - 1] = '\0';
    if (!same_provider(tp, &blob)) {
        of_log(tp, ISO_LOG_ERROR,
               "rank %u has libfabric's provider %s, this rank %s (or addresses of another kind): "
               "set ISO_OFI_PROVIDER to the same for all",
               rank, blob.provider, tp->info->fabric_attr->prov_name);
        return ISO_ERR_UNREACHABLE;
    }
    address_p->process = process_seen(&tp->place, &tp->process, &blob.place, &blob.process);
    address_p->name = name;
    address_p->name_len = blob.name_len;
    return ISO_OK;
}
