/*
 * lo_mem.c - registered memory and the keys to it.
 *
 * To register is to remember which memory object backs a range; nothing is pinned. Memory without one
 * is the process's: its rkey names the process, which must be the one that was connected to, and
 * lo_vm.c puts there.
 *
 * The rkey of an object names its descriptor, which must stay open until the region is deregistered. A peer that unpacks
 * the rkey opens the object (transport/common/object.c).
 */
#include "loopback.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const blob_kind_t rkey_kind = {0x6f6c2d6bu, LO_VERSION, "an rkey", ""};

typedef struct rkey_body {
    uint64_t address, length;
    uint64_t offset, inode; /* of the object, 0 without one */
    int32_t fd;             /* -1: without an object */
    uint32_t region_id;
    process_id_t process; /* whose memory it is */
} rkey_body_t;
static_assert(sizeof(blob_head_t) + sizeof(rkey_body_t) <= ISO_TRANSPORT_RKEY_MAX,
              "rkeys have a limit");

iso_status_t lo_mem_register(iso_transport_t *tp, const iso_memory_t *memory,
                             iso_region_t **region_p)
{
    uint64_t inode = 0;
    const bool object = memory->fd >= 0;

    if (memory->length == 0 || memory->length > UINT64_MAX - (uintptr_t)memory->address ||
        (object && !object_holds(memory->fd, memory->offset, memory->length, &inode)) ||
        (!object && (memory->fd != -1 || memory->offset != 0))) {
        lo_log(tp, ISO_LOG_ERROR,
               "cannot register %" PRIu64
               " bytes at %p: descriptor %d is no memfd that has them at "
               "offset %" PRIu64,
               memory->length, memory->address, memory->fd, memory->offset);
        return ISO_ERR_INVALID;
    }
    iso_region_t *region = calloc(1, sizeof *region);
    if (region == NULL) {
        lo_log(tp, ISO_LOG_ERROR, "no memory for a region");
        return ISO_ERR_NO_MEMORY;
    }
    if (!object)
        lo_vm_permit(tp);
    region->tp = tp;
    region->memory = *memory;
    region->inode = inode;
    region->id = tp->next_region_id++;
    tp->regions++;
    *region_p = region;
    return ISO_OK;
}

void lo_mem_deregister(iso_region_t *region)
{
    region->tp->regions--;
    free(region);
}

iso_status_t lo_rkey_pack(iso_region_t *region, void *buf, size_t *len_p)
{
    rkey_body_t body;

    memset(&body, 0, sizeof body);
    body.address = (uintptr_t)region->memory.address;
    body.length = region->memory.length;
    body.offset = region->memory.offset;
    body.inode = region->inode;
    body.fd = region->memory.fd;
    body.region_id = region->id;
    body.process = region->tp->process;
    return blob_write(region->tp->host, &rkey_kind, &body, sizeof body, NULL, 0, buf, len_p);
}

static iso_status_t check_process(const iso_endpoint_t *ep, const rkey_body_t *body)
{
    if (process_same(&body->process, &ep->peer->base.process))
        return ISO_OK;
    lo_log(ep->tp, ISO_LOG_ERROR,
           "region %u of rank %u is memory of process %" PRId32
           ", and the rank is process %" PRId32,
           body->region_id, ep->peer->base.rank, body->process.pid, ep->peer->base.process.pid);
    return ISO_ERR_INVALID;
}

iso_status_t lo_rkey_unpack(iso_endpoint_t *ep, const void *buf, size_t len, iso_rkey_t **rkey_p)
{
    iso_transport_t *tp = ep->tp;
    const uint32_t rank = ep->peer->base.rank;
    rkey_body_t body;
    iso_status_t status =
        blob_read(tp->host, &rkey_kind, rank, buf, len, &body, sizeof body, NULL, NULL);

    if (status != ISO_OK)
        return status;
    if (body.fd < -1 || body.length == 0 || body.length > UINT64_MAX - body.address ||
        body.length > UINT64_MAX - body.offset) {
        lo_log(tp, ISO_LOG_ERROR, "an rkey of rank %u makes no sense", rank);
        return ISO_ERR_INVALID;
    }
    iso_rkey_t *rkey = calloc(1, sizeof *rkey);
    if (rkey == NULL) {
        lo_log(tp, ISO_LOG_ERROR, "no memory for an rkey of rank %u", rank);
        return ISO_ERR_NO_MEMORY;
    }
    const object_part_t part = {body.fd, body.inode, body.offset, body.length};
    status = body.fd < 0 ? check_process(ep, &body)
                         : object_open(tp->host, &tp->objects, rank, &ep->peer->base.process, &part,
                                       &rkey->object);
    if (status != ISO_OK) {
        free(rkey);
        return status;
    }
    rkey->tp = tp;
    rkey->rank = rank;
    rkey->address = body.address;
    rkey->length = body.length;
    rkey->offset = body.offset;
    tp->rkeys++;
    *rkey_p = rkey;
    return ISO_OK;
}

void lo_rkey_destroy(iso_rkey_t *rkey)
{
    iso_transport_t *tp = rkey->tp;

    tp->rkeys--;
    if (rkey->object != NULL && object_leave(rkey->object)) {
        windows_drop(&tp->windows, rkey->object);
        object_close(&tp->objects, rkey->object);
    }
    free(rkey);
}
