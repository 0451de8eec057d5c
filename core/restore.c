/*
 * restore.c - a heap out of an image, to its addresses: iso_image_restore.
 *
 * Its slots are entered, then its pages are read to where they belong and their checksums compared on the way, or mapped
 * there from the file. If anything is wrong the slots are given back: nobody has seen the heap.
 */
#include "core/contents.h"
#include "core/image.h"
#include "core/images.h"
#include "core/job.h"
#include "core/os.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAPPINGS_MOST 1000 /* of a heap; Linux lets a process have 65530 by default */

static const char call[] = "iso_image_restore";

static iso_status_t check(const iso_job_t *job, const iso_image_t *image, uint32_t number)
{
    if (number >= image->header.heap_count) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "iso_image_restore: %s has no heap %" PRIu32 ", it has %" PRIu32, image->path,
                number, image->header.heap_count);
        return ISO_ERR_INVALID;
    }
    if (image->header.base != (uintptr_t)job->space.base) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "image %s is of an iso space at %#" PRIx64 ", this one is at %p: set "
                "ISO_SPACE_BASE=%#" PRIx64,
                image->path, image->header.base, (void *)job->space.base, image->header.base);
        return ISO_ERR_INVALID;
    }
    return ISO_OK;
}

/* The image's lists are its own: those of the contents are copies. */
static iso_status_t describe(const iso_job_t *job, const iso_image_t *image, uint32_t number,
                             iso_contents_t *contents)
{
    const iso_image_entry_t *entry = &image->tables.heaps[number];
    *contents = (iso_contents_t){
        .heap = entry->heap,
        .epoch = entry->epoch,
        .extent_count = (uint32_t)entry->extent_count,
        .runs = {.count = entry->run_count, .bytes = entry->page_count * ISO_IMAGE_PAGE}};
    iso_status_t status = iso_contents_check(job, call, contents);
    if (status != ISO_OK)
        return status;
    contents->extents = malloc(entry->extent_count * sizeof *contents->extents);
    contents->runs.list = malloc(entry->run_count * sizeof *contents->runs.list);
    if (!contents->extents || !contents->runs.list)
        return iso_contents_refuse(job, call, ISO_ERR_NO_MEMORY, entry->heap,
                                   "no memory for the list of its runs");
    memcpy(contents->extents, &image->tables.extents[entry->extents],
           entry->extent_count * sizeof *contents->extents);
    for (uint64_t i = 0; i < entry->run_count; i++) {
        const iso_image_run_t *run = &image->tables.runs[entry->runs + i];
        contents->runs.list[i] = (iso_run_t){run->address, run->length};
    }
    return iso_contents_check_slots(job, call, contents);
}

/* Under the job's lock. */
static iso_status_t enter(iso_job_t *job, const iso_image_t *image, uint32_t number,
                          iso_contents_t *contents, iso_hold_t **hold_p)
{
    iso_status_t status = iso_images_claim(job, image, number, &contents->own_slots);
    if (status != ISO_OK)
        return status;
    status = iso_contents_enter(job, call, contents, hold_p);
    if (status != ISO_OK && contents->own_slots)
        iso_images_unclaim(job, image, number);
    return status;
}

static bool pins_memory(const iso_job_t *job)
{
    return (job->node_link && job->node_link->caps.pins_memory) ||
           (job->net_link && job->net_link->caps.pins_memory);
}

/* The memory is what it was when the slots were entered: warm, maybe. Zeros are what it reads as when it is given back, but
 * where images were mapped, whose bytes those would be. */
static bool make_zeros(void *address, size_t length, void *arg)
{
    iso_job_t *job = arg;
    const uint64_t offset = iso_space_offset(&job->space, address);
    iso_job_lock(job);
    iso_huge_split(job, offset, length);
    const bool made =
        !job->maps_files && iso_space_give_back(&job->space, &job->logger, offset, length);
    iso_job_unlock(job);
    return made;
}

static iso_status_t read_pages(iso_job_t *job, iso_image_t *image, uint32_t number)
{
    const iso_image_zeros_t zeros = {make_zeros, job};
    const bool can = !pins_memory(job) && iso_os_page_size() == ISO_IMAGE_PAGE;
    return iso_image_read_heap(image, &job->logger, number, ISO_IMAGE_TO_PLACE,
                               can ? &zeros : NULL);
}

/* NULL: its pages can be mapped from the file. */
static const char *why_not_mapped(const iso_job_t *job, const iso_image_t *image, uint32_t number)
{
    const uint64_t mappings = iso_image_mappings(image, number);
    if (job->space.backing != ISO_BACKING_ANON)
        return "that takes ISO_BACKING=anon: other ranks, too, reach the memory of this one";
    if (pins_memory(job))
        return "the transport pins memory";
    if (mappings == 0)
        return "pages of this system are larger than those of the image";
    return mappings <= MAPPINGS_MOST ? NULL : "its pages lie in too many pieces";
}

static iso_status_t fill(iso_job_t *job, iso_image_t *image, uint32_t number, bool map,
                         const iso_contents_t *contents, iso_hold_t *hold)
{
    const char *why_not = map ? why_not_mapped(job, image, number) : NULL;
    if (why_not)
        iso_log(&job->logger, ISO_LOG_WARN, "image %s: heap %" PRIu32 " is read, not mapped: %s",
                image->path, number, why_not);
    map = map && !why_not;
    if (map) {
        iso_job_lock(job);
        job->maps_files = true;
        iso_job_unlock(job);
    }
    const bool core_dump = job->params.core_dump;
    iso_status_t status = map ? iso_image_map_heap(image, &job->logger, number, core_dump)
                              : read_pages(job, image, number);
    if (status == ISO_OK && map) /* what is damaged in it is found now, or never */
        status = iso_contents_looks_sound(job, call, hold);
    if (status == ISO_OK)
        status = iso_contents_own(job, call, hold, contents);
    if (status == ISO_OK)
        return ISO_OK;
    if (map) /* before its slots are free ones: those are plain memory */
        iso_image_unmap_heap(image, number, core_dump);
    iso_contents_abandon(job, hold, contents);
    return status;
}

static iso_status_t restore(iso_job_t *job, iso_image_t *image, uint32_t number, bool map,
                            iso_heap_t **heap_p)
{
    iso_contents_t contents = {.extents = NULL};
    iso_hold_t *hold = NULL;
    if (!iso_job_is_ours(job, call))
        return ISO_ERR_INVALID;
    iso_status_t status = check(job, image, number);
    if (status == ISO_OK)
        status = describe(job, image, number, &contents);
    if (status == ISO_OK) {
        iso_job_lock(job);
        status = enter(job, image, number, &contents, &hold);
        iso_job_unlock(job);
        if (status == ISO_OK) {
            status = fill(job, image, number, map, &contents, hold);
            if (status != ISO_OK && contents.own_slots) {
                iso_job_lock(job);
                iso_images_unclaim(job, image, number);
                iso_job_unlock(job);
            }
        }
    }
    if (status == ISO_OK)
        *heap_p = (iso_heap_t *)(uintptr_t)contents.heap;
    iso_contents_free(&contents);
    return status;
}

iso_status_t iso_image_restore(iso_job_t *job, iso_image_t *image, uint32_t number,
                               iso_heap_t **heap_p)
{
    return restore(job, image, number, false, heap_p);
}

iso_status_t iso_image_map(iso_job_t *job, iso_image_t *image, uint32_t number, iso_heap_t **heap_p)
{
    return restore(job, image, number, true, heap_p);
}
