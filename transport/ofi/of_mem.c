/*
 * of_mem.c - registered memory and the keys to it.
 *
 * All modes of registration that a provider may ask for (fi_mr(3)) are met the same way everywhere:
 *   FI_MR_LOCAL      buffers for messages are registered, and described, as regions are always
 *   FI_MR_VIRT_ADDR  where it is absent, peers name offsets into the region
 *   FI_MR_PROV_KEY   keys are numbers of our own, which a provider of this mode ignores; what the region
 *                    is told as its key is what peers get
 *   FI_MR_RAW        keys are longer than 64 bits: the rkey has the bytes, and the peer maps them
 *   FI_MR_ENDPOINT   the region is bound to the endpoint and enabled
 *   FI_MR_ALLOCATED  pages must be there: the instance says that it pins
 * tcp (of 1.17) has none of them, shm FI_MR_VIRT_ADDR; verbs;ofi_rxm has LOCAL, VIRT_ADDR, PROV_KEY and ALLOCATED.
 * RAW and ENDPOINT have not met a provider yet.
 *
 * Over shm, where puts are our own, the rkey names the memory object as well (transport/common/object.c), if there is one.
 */
#include "ofi.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define QUIESCE_MS 200
static const blob_kind_t rkey_kind = {0x6b69666fu /* "ofik" */, OF_VERSION, "an rkey", ""};

/* A raw key follows, where the provider has such: else `key` is it. */
typedef struct rkey_body {
    uint64_t address, length, base, key;
    uint64_t offset, inode; /* of the memory object, over shm; 0 without one */
    int32_t fd;             /* its owner's; -1: none */
    uint32_t zero;
} rkey_body_t;

static bool has_mode(const iso_transport_t *tp, int mode)
{
    return (tp->info->domain_attr->mr_mode & mode) != 0;
}

iso_status_t of_mem_open(iso_transport_t *tp, void *address, size_t len, uint64_t access,
                         struct fid_mr **mr_p)
{
    struct fid_mr *mr;
    int error = fi_mr_reg(tp->domain, address, len, access, 0, ++tp->keys, 0, &mr, NULL);

    if (error == 0 && has_mode(tp, FI_MR_ENDPOINT)) {
        error = fi_mr_bind(mr, &tp->ep->fid, 0);
        if (error == 0)
            error = fi_mr_enable(mr);
        if (error != 0)
            fi_close(&mr->fid);
    }
    if (error == 0) {
        *mr_p = mr;
        return ISO_OK;
    }
    of_log(tp, ISO_LOG_ERROR, "libfabric's provider %s cannot register %zu KiB at %p: %s%s",
           tp->info->fabric_attr->prov_name, len >> 10, address, fi_strerror(-error),
           of_provider_pins(tp) ? " (a device pins them: ulimit -l says how much may be)" : "");
    return error == -FI_EINVAL ? ISO_ERR_INVALID : ISO_ERR_LIMIT;
}

/* What is registered with a device that pins must fit the machine and the limit: providers say little of it. */
static iso_status_t check_pinned(const iso_transport_t *tp, uint64_t length)
{
    const uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

    if (!of_provider_pins(tp) || length <= memory)
        return ISO_OK;
    of_log(tp, ISO_LOG_ERROR,
           "registering %" PRIu64 " MiB with a device pins them, and this machine has %" PRIu64
           " MiB: set ISO_SPACE_SIZE to less",
           length >> 20, memory >> 20);
    return ISO_ERR_LIMIT;
}

iso_status_t of_mem_register(iso_transport_t *tp, const iso_memory_t *memory,
                             iso_region_t **region_p)
{
    if (memory->length == 0 || memory->length > UINT64_MAX - (uintptr_t)memory->address) {
        of_log(tp, ISO_LOG_ERROR, "cannot register %" PRIu64 " bytes at %p", memory->length,
               memory->address);
        return ISO_ERR_INVALID;
    }
    iso_status_t status = check_pinned(tp, memory->length);
    uint64_t inode = 0;
    if (status != ISO_OK)
        return status;
    if (tp->is_shm && memory->fd >= 0 &&
        !object_holds(memory->fd, memory->offset, memory->length, &inode)) {
        of_log(tp, ISO_LOG_ERROR,
               "cannot register %" PRIu64 " bytes at %p: descriptor %d is no memfd that has them",
               memory->length, memory->address, memory->fd);
        return ISO_ERR_INVALID;
    }
    iso_region_t *region = calloc(1, sizeof *region);
    if (region == NULL) {
        of_log(tp, ISO_LOG_ERROR, "no memory for a region");
        return ISO_ERR_NO_MEMORY;
    }
    region->tp = tp;
    region->memory = *memory;
    region->inode = inode;
    status = of_mem_open(tp, memory->address, (size_t)memory->length, FI_WRITE | FI_REMOTE_WRITE,
                         &region->mr);
    if (status != ISO_OK) {
        free(region);
        return status;
    }
    region->desc = fi_mr_desc(region->mr);
    tp->regions++;
    *region_p = region;
    return ISO_OK;
}

/* ---- its end ----------------------------------------------------------------------------------- */

void of_region_piece_back(iso_region_t *region)
{
    iso_transport_t *tp = region->tp;

    region->pieces--;
    if (!region->gone || region->pieces > 0)
        return;
    for (iso_region_t **at = &tp->gone; *at != NULL; at = &(*at)->next)
        if (*at == region) {
            *at = region->next;
            break;
        }
    free(region);
}

void of_regions_free(iso_transport_t *tp)
{
    for (iso_region_t *region; (region = tp->gone) != NULL;) {
        tp->gone = region->next;
        free(region);
    }
}

/* A device may still read for an endpoint that is gone; software gives back what it can at once, and shm
 * never what a dead peer has not taken, which nobody reads. */
static void let_go(iso_region_t *region)
{
    iso_transport_t *tp = region->tp;
    const uint64_t until = clock_coarse_ms() + QUIESCE_MS;

    of_cq_take(tp);
    while (region->pieces > 0 && !tp->is_shm && clock_coarse_ms() < until)
        of_cq_take(tp);
}

/* verbs of 1.17 has a cache of registrations, which keeps pinned what was given back. It can be told only by
 * the environment. Regions that go while others stay are windows: it matters that they are unpinned. */
static void warn_of_cache(iso_transport_t *tp)
{
    if (tp->warned_of_cache || tp->regions < 2 || !of_provider_pins(tp) ||
        getenv("FI_MR_CACHE_MAX_COUNT") != NULL)
        return;
    tp->warned_of_cache = true;
    of_log(tp, ISO_LOG_WARN,
           "libfabric may keep pinned what is deregistered, beyond ISO_PIN_LIMIT: set "
           "FI_MR_CACHE_MAX_COUNT=0");
}

void of_mem_deregister(iso_region_t *region)
{
    iso_transport_t *tp = region->tp;

    warn_of_cache(tp);
    if (region->pieces > 0)
        let_go(region);
    const int error = fi_close(&region->mr->fid);
    if (error != 0)
        of_log(tp, ISO_LOG_WARN, "libfabric cannot deregister %" PRIu64 " MiB at %p: %s",
               region->memory.length >> 20, region->memory.address, fi_strerror(-error));
    tp->regions--;
    if (region->pieces == 0) {
        free(region);
        return;
    }
    region->gone = true;
    region->next = tp->gone;
    tp->gone = region;
}

/* ---- keys -------------------------------------------------------------------------------------- */

static iso_status_t fill(iso_region_t *region, rkey_body_t *body, unsigned char raw[OF_RAW_KEY],
                         size_t *raw_len_p)
{
    iso_transport_t *tp = region->tp;
    uint64_t base = 0;
    size_t len = OF_RAW_KEY;

    memset(body, 0, sizeof *body);
    body->address = (uintptr_t)region->memory.address;
    body->length = region->memory.length;
    body->base = has_mode(tp, FI_MR_VIRT_ADDR) ? 0 : body->address;
    body->fd = region->inode != 0 ? region->memory.fd : -1;
    body->inode = region->inode;
    body->offset = region->inode != 0 ? region->memory.offset : 0;
    if (!has_mode(tp, FI_MR_RAW)) {
        body->key = fi_mr_key(region->mr);
        *raw_len_p = 0;
        return ISO_OK;
    }
    const int error = fi_mr_raw_attr(region->mr, &base, raw, &len, 0);
    if (error != 0) {
        of_log(tp, ISO_LOG_ERROR, "libfabric does not tell the raw key of a region: %s",
               fi_strerror(-error));
        return error == -FI_ETOOSMALL ? ISO_ERR_LIMIT : ISO_ERR_SYSTEM;
    }
    body->key = base; /* which the peer needs to map the bytes */
    *raw_len_p = len;
    return ISO_OK;
}

iso_status_t of_rkey_pack(iso_region_t *region, void *buf, size_t *len_p)
{
    unsigned char raw[OF_RAW_KEY];
    rkey_body_t body;
    size_t raw_len;
    const iso_status_t status = fill(region, &body, raw, &raw_len);

    if (status != ISO_OK)
        return status;
    return blob_write(region->tp->host, &rkey_kind, &body, sizeof body, raw, raw_len, buf, len_p);
}

static bool is_good(const iso_transport_t *tp, const rkey_body_t *body, size_t raw_len)
{
    return body->length > 0 && body->length <= UINT64_MAX - body->address &&
           body->length <= UINT64_MAX - body->offset && (body->fd < 0 || tp->is_shm) &&
           raw_len <= OF_RAW_KEY && (raw_len > 0) == has_mode(tp, FI_MR_RAW);
}

iso_status_t of_rkey_unpack(iso_endpoint_t *ep, const void *buf, size_t len, iso_rkey_t **rkey_p)
{
    iso_transport_t *tp = ep->tp;
    const uint32_t rank = ep->peer->base.rank;
    unsigned char raw[OF_RAW_KEY];
    const void *rest;
    size_t raw_len;
    rkey_body_t body;
    const iso_status_t good =
        blob_read(tp->host, &rkey_kind, rank, buf, len, &body, sizeof body, &rest, &raw_len);

    if (good != ISO_OK)
        return good;
    if (!is_good(tp, &body, raw_len)) {
        of_log(tp, ISO_LOG_ERROR, "an rkey of rank %u makes no sense", rank);
        return ISO_ERR_INVALID;
    }
    memcpy(raw, rest, raw_len);
    if (ep->peer->base.state == PEER_DEAD)
        return ISO_ERR_PEER_DEAD;
    if (ep->peer->base.state != PEER_ALIVE)
        return ISO_ERR_UNREACHABLE;
    iso_rkey_t *rkey = calloc(1, sizeof *rkey);
    if (rkey == NULL) {
        of_log(tp, ISO_LOG_ERROR, "no memory for an rkey of rank %u", rank);
        return ISO_ERR_NO_MEMORY;
    }
    *rkey = (iso_rkey_t){.tp = tp,
                         .rank = rank,
                         .address = body.address,
                         .length = body.length,
                         .base = body.base,
                         .key = body.key,
                         .mapped = raw_len > 0};
    if (rkey->mapped) {
        const int error = fi_mr_map_raw(tp->domain, body.key, raw, raw_len, &rkey->key, 0);
        if (error != 0) {
            of_log(tp, ISO_LOG_ERROR, "libfabric cannot use the rkey of rank %u: %s", rank,
                   fi_strerror(-error));
            free(rkey);
            return of_status(-error);
        }
    }
    if (body.fd >= 0) {
        const object_part_t part = {body.fd, body.inode, body.offset, body.length};
        const iso_status_t status = object_open(tp->host, &tp->objects, rank,
                                                &ep->peer->base.process, &part, &rkey->object);
        if (status != ISO_OK) {
            free(rkey);
            return status;
        }
        rkey->offset = body.offset;
    }
    tp->rkeys++;
    *rkey_p = rkey;
    return ISO_OK;
}

void of_rkey_destroy(iso_rkey_t *rkey)
{
    iso_transport_t *tp = rkey->tp;

    tp->rkeys--;
    if (rkey->mapped)
        fi_mr_unmap_key(tp->domain, rkey->key);
    if (rkey->object != NULL && object_leave(rkey->object)) {
        windows_drop(&tp->windows, rkey->object);
        object_close(&tp->objects, rkey->object);
    }
    free(rkey);
}
