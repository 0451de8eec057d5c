/*
 * registry.c - what is registered at a rank, in memory that its peers map: a put is checked against what is registered at
 * its target at that moment, and a region that goes against the puts that are on their way to it.
 */
#include "checking.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

void ck_registry_open(iso_transport_t *tp)
{
    tp->fd = memfd_create("checking", MFD_CLOEXEC);
    if (tp->fd < 0 || ftruncate(tp->fd, sizeof *tp->registry) != 0)
        ck_die(tp, "cannot be set up: %s", strerror(errno));
    tp->registry = mmap(NULL, sizeof *tp->registry, PROT_READ | PROT_WRITE, MAP_SHARED, tp->fd, 0);
    if (tp->registry == MAP_FAILED)
        ck_die(tp, "cannot map its registry");
}

void ck_registry_close(iso_transport_t *tp)
{
    munmap(tp->registry, sizeof *tp->registry);
    close(tp->fd);
}

registry_t *ck_registry_map(const address_blob_t *blob)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)blob->pid, (int)blob->fd);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    registry_t *registry = mmap(NULL, sizeof *registry, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return registry != MAP_FAILED ? registry : NULL;
}

bool ck_is_alive(int32_t pid)
{
    char path[64], state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *stat = fopen(path, "re");
    if (stat == NULL)
        return false;
    if (fscanf(stat, "%*d (%*[^)]) %c", &state) != 1)
        state = 'Z';
    fclose(stat);
    return state != 'Z' && state != 'X';
}

/* The trial of anonymous memory registers a page, and does not flush. */
static bool is_trial(const iso_memory_t *memory)
{
    return memory->length <= (uint64_t)sysconf(_SC_PAGESIZE);
}

iso_status_t ck_mem_register(iso_transport_t *tp, const iso_memory_t *memory,
                             iso_region_t **region_p)
{
    registry_t *registry = tp->registry;
    uint32_t at = 0;
    if (!is_trial(memory) && tp->registered + memory->length > tp->limit)
        ck_die(tp, "%" PRIu64 " bytes would be registered, ISO_TEST_PIN_LIMIT is %" PRIu64,
               tp->registered + memory->length, tp->limit);
    if (!is_trial(memory) && tp->registered + memory->length > tp->memlock)
        return ISO_ERR_LIMIT;
    while (at < REGIONS_MAX && atomic_load(&registry->entries[at].id) != 0)
        at++;
    if (at == REGIONS_MAX)
        return ISO_ERR_LIMIT;
    if (tp->pin && madvise(memory->address, memory->length, MADV_POPULATE_WRITE) != 0)
        ck_die(tp, "pages at %p + %" PRIu64 " cannot be pinned: %s", memory->address,
               memory->length, strerror(errno));
    iso_region_t *region = calloc(1, sizeof *region);
    if (region == NULL)
        return ISO_ERR_NO_MEMORY;
    const iso_status_t status = tp->ops->mem_register(tp->inner, memory, &region->inner);
    if (status != ISO_OK) {
        free(region);
        return status;
    }
    region->tp = tp;
    region->memory = *memory;
    region->entry = at;
    registry->entries[at].address = (uintptr_t)memory->address;
    registry->entries[at].length = memory->length;
    atomic_store(&registry->entries[at].id, ++tp->next_id);
    tp->regions++;
    tp->registered += memory->length;
    *region_p = region;
    return ISO_OK;
}

static void check_pages(const iso_region_t *region)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = region->memory.length / page;
    unsigned char *resident = malloc(pages);
    if (resident == NULL || mincore(region->memory.address, region->memory.length, resident) != 0)
        ck_die(region->tp, "mincore: %s", strerror(errno));
    for (size_t i = 0; i < pages; i++)
        if ((resident[i] & 1) == 0)
            ck_die(region->tp, "the page at %p went while it was registered",
                   (void *)((char *)region->memory.address + i * page));
    free(resident);
}

void ck_mem_deregister(iso_region_t *region)
{
    iso_transport_t *tp = region->tp;
    entry_t *entry = &tp->registry->entries[region->entry];
    atomic_store(&entry->id, 0);
    for (uint32_t rank = 0; rank < RANKS_MAX; rank++) {
        const uint32_t puts = atomic_exchange(&entry->puts[rank], 0);
        if (puts > 0 && !is_trial(&region->memory) &&
            ck_is_alive(atomic_load(&tp->registry->pids[rank])))
            ck_die(tp, "the region at %p goes, and %u puts of rank %u into it were not flushed",
                   region->memory.address, puts, rank);
    }
    if (region->busy > 0)
        ck_die(tp, "the region at %p goes, and %u puts from it are under way",
               region->memory.address, region->busy);
    if (tp->pin && !is_trial(&region->memory))
        check_pages(region);
    tp->ops->mem_deregister(region->inner);
    tp->regions--;
    tp->registered -= region->memory.length;
    free(region);
}

iso_status_t ck_rkey_pack(iso_region_t *region, void *buf, size_t *len_p)
{
    rkey_blob_t blob = {.id = atomic_load(&region->tp->registry->entries[region->entry].id),
                        .entry = region->entry};
    size_t len = *len_p - sizeof blob;
    const iso_status_t status =
        region->tp->ops->rkey_pack(region->inner, (char *)buf + sizeof blob, &len);
    blob.len = (uint32_t)len;
    memcpy(buf, &blob, sizeof blob);
    if (status == ISO_OK)
        *len_p = len + sizeof blob;
    return status;
}

iso_status_t ck_rkey_unpack(iso_endpoint_t *ep, const void *buf, size_t len, iso_rkey_t **rkey_p)
{
    rkey_blob_t blob;
    if (len < sizeof blob)
        return ISO_ERR_INVALID;
    memcpy(&blob, buf, sizeof blob);
    iso_rkey_t *rkey = calloc(1, sizeof *rkey);
    if (rkey == NULL)
        return ISO_ERR_NO_MEMORY;
    const iso_status_t status = ep->tp->ops->rkey_unpack(ep->inner, (const char *)buf + sizeof blob,
                                                         len - sizeof blob, &rkey->inner);
    if (status != ISO_OK) {
        free(rkey);
        return status;
    }
    rkey->tp = ep->tp;
    rkey->id = blob.id;
    rkey->entry = blob.entry;
    *rkey_p = rkey;
    return ISO_OK;
}

void ck_rkey_destroy(iso_rkey_t *rkey)
{
    for (const op_t *op = rkey->tp->ops_under_way; op != NULL; op = op->next)
        if (op->rkey == rkey)
            ck_die(rkey->tp, "a key goes, and a put with it is under way");
    rkey->tp->ops->rkey_destroy(rkey->inner);
    free(rkey);
}
