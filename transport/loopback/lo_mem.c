/*
 * lo_mem.c - registered memory and the keys to it.
 *
 * To register is to remember which memory object backs a range; nothing is pinned. Memory without one
 * is the process's: its rkey names the process, which must be the one that was connected to, and
 * lo_vm.c puts there.
 *
 * The rkey of an object names the object by descriptor number, and by inode, because the number may be used again. That
 * descriptor must stay open until the region is deregistered. A peer that unpacks the rkey opens
 * the object through /proc once, however many rkeys name it, and makes sure that it is a memfd that
 * holds the whole region. (Whoever has the object open can write to all of it: ranks of a job trust
 * each other.)
 */
#include "loopback.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RKEY_MAGIC 0x6f6c2d6bu

typedef struct rkey_blob {
    uint32_t magic, version;
    uint32_t rank; /* whose memory it is */
    uint32_t region_id;
    uint64_t address, length;
    uint64_t offset, inode; /* of the object, 0 without one */
    int32_t fd;             /* -1: without an object */
    uint32_t zero;
    process_id_t process;
} rkey_blob_t;
static_assert(sizeof(rkey_blob_t) <= ISO_TRANSPORT_RKEY_MAX, "rkeys have a limit");

/* A memory object (nothing else has seals) that has bytes [offset, offset + length)? */
static bool holds(int fd, uint64_t offset, uint64_t length, struct stat *st_p)
{
    return fcntl(fd, F_GET_SEALS) >= 0 && fstat(fd, st_p) == 0 && st_p->st_size >= 0 &&
           offset <= (uint64_t)st_p->st_size && length <= (uint64_t)st_p->st_size - offset;
}

iso_status_t lo_mem_register(iso_transport_t *tp, const iso_memory_t *memory,
                             iso_region_t **region_p)
{
    struct stat st = {.st_ino = 0};
    const bool object = memory->fd >= 0;

    if (memory->length == 0 || memory->length > UINT64_MAX - (uintptr_t)memory->address ||
        (object && !holds(memory->fd, memory->offset, memory->length, &st)) ||
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
    region->inode = st.st_ino;
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
    const rkey_blob_t blob = {
        .magic = RKEY_MAGIC,
        .version = LO_VERSION,
        .rank = region->tp->host->rank,
        .region_id = region->id,
        .address = (uintptr_t)region->memory.address,
        .length = region->memory.length,
        .offset = region->memory.offset,
        .inode = region->inode,
        .fd = region->memory.fd,
        .process = region->tp->process,
    };

    if (*len_p < sizeof blob) {
        lo_log(region->tp, ISO_LOG_ERROR, "an rkey takes %zu bytes, the room is %zu", sizeof blob,
               *len_p);
        return ISO_ERR_INVALID;
    }
    memcpy(buf, &blob, sizeof blob);
    *len_p = sizeof blob;
    return ISO_OK;
}

static lo_file_t *find_file(const iso_transport_t *tp, const rkey_blob_t *blob)
{
    for (lo_file_t *file = tp->files; file != NULL; file = file->next)
        if (file->rank == blob->rank && file->remote_fd == blob->fd && file->inode == blob->inode)
            return file;
    return NULL;
}

static iso_status_t check_file(const iso_transport_t *tp, const rkey_blob_t *blob, int fd)
{
    struct stat st;

    if (holds(fd, blob->offset, blob->length, &st) && st.st_ino == blob->inode)
        return lo_file_limit(tp, blob->offset + blob->length);
    lo_log(tp, ISO_LOG_ERROR,
           "descriptor %" PRId32
           " of rank %u is not (any more) the memfd of its region %u, with %" PRIu64
           " bytes at offset %" PRIu64,
           blob->fd, blob->rank, blob->region_id, blob->length, blob->offset);
    return ISO_ERR_INVALID;
}

static iso_status_t open_file(iso_endpoint_t *ep, const rkey_blob_t *blob, lo_file_t **file_p)
{
    iso_transport_t *tp = ep->tp;
    iso_status_t status;
    int fd;

    status = lo_process_open(tp, blob->rank, &ep->peer->process, blob->fd, "memory", &fd);
    if (status != ISO_OK)
        return status;
    status = check_file(tp, blob, fd);
    if (status != ISO_OK)
        goto close_fd;
    lo_file_t *file = calloc(1, sizeof *file);
    if (file == NULL) {
        lo_log(tp, ISO_LOG_ERROR, "no memory for an rkey of rank %u", blob->rank);
        status = ISO_ERR_NO_MEMORY;
        goto close_fd;
    }
    file->rank = blob->rank;
    file->remote_fd = blob->fd;
    file->inode = blob->inode;
    file->fd = fd;
    file->next = tp->files;
    tp->files = file;
    *file_p = file;
    return ISO_OK;

close_fd:
    close(fd);
    return status;
}

static void release_file(iso_transport_t *tp, lo_file_t *file)
{
    lo_file_t **link = &tp->files;

    if (--file->rkeys > 0)
        return;
    while (*link != file)
        link = &(*link)->next;
    *link = file->next;
    lo_windows_drop(tp, file);
    close(file->fd);
    free(file);
}

static iso_status_t find_or_open_file(iso_endpoint_t *ep, const rkey_blob_t *blob,
                                      lo_file_t **file_p)
{
    lo_file_t *file = find_file(ep->tp, blob);

    if (file == NULL)
        return open_file(ep, blob, file_p);
    const iso_status_t status = check_file(ep->tp, blob, file->fd);
    if (status == ISO_OK)
        *file_p = file;
    return status;
}

static iso_status_t check_process(const iso_endpoint_t *ep, const rkey_blob_t *blob)
{
    if (process_same(&blob->process, &ep->peer->process))
        return ISO_OK;
    lo_log(ep->tp, ISO_LOG_ERROR,
           "region %u of rank %u is memory of process %" PRId32
           ", and the rank is process %" PRId32,
           blob->region_id, blob->rank, blob->process.pid, ep->peer->process.pid);
    return ISO_ERR_INVALID;
}

iso_status_t lo_rkey_unpack(iso_endpoint_t *ep, const void *buf, size_t len, iso_rkey_t **rkey_p)
{
    iso_transport_t *tp = ep->tp;
    rkey_blob_t blob;

    memset(&blob, 0, sizeof blob);
    memcpy(&blob, buf, len < sizeof blob ? len : sizeof blob);
    if (len != sizeof blob || blob.magic != RKEY_MAGIC || blob.version != LO_VERSION ||
        blob.rank != ep->peer->rank || blob.fd < -1 || blob.length == 0 ||
        blob.length > UINT64_MAX - blob.address || blob.length > UINT64_MAX - blob.offset) {
        lo_log(tp, ISO_LOG_ERROR, "%zu bytes are not an rkey of rank %u", len, ep->peer->rank);
        return ISO_ERR_INVALID;
    }
    iso_rkey_t *rkey = calloc(1, sizeof *rkey);
    if (rkey == NULL) {
        lo_log(tp, ISO_LOG_ERROR, "no memory for an rkey of rank %u", blob.rank);
        return ISO_ERR_NO_MEMORY;
    }
    const iso_status_t status =
        blob.fd < 0 ? check_process(ep, &blob) : find_or_open_file(ep, &blob, &rkey->file);
    if (status != ISO_OK) {
        free(rkey);
        return status;
    }
    if (rkey->file != NULL)
        rkey->file->rkeys++;
    rkey->tp = tp;
    rkey->rank = blob.rank;
    rkey->address = blob.address;
    rkey->length = blob.length;
    rkey->offset = blob.offset;
    tp->rkeys++;
    *rkey_p = rkey;
    return ISO_OK;
}

void lo_rkey_destroy(iso_rkey_t *rkey)
{
    rkey->tp->rkeys--;
    if (rkey->file != NULL)
        release_file(rkey->tp, rkey->file);
    free(rkey);
}
