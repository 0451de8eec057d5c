/*
 * checkpoint.c - heaps of this rank into a file: iso_checkpoint.
 *
 * All heaps are frozen before the first byte is written. Their pages go from where they are, a block at a time: its checksum is
 * made when it is about to be written, so that it is read from memory once. Then come the tables and the header, whose
 * place is before the pages.
 */
#include "core/checksum.h"
#include "core/contents.h"
#include "core/heap.h"
#include "core/image.h"
#include "core/job.h"
#include "core/os.h"
#include "core/quantity.h"
#include "core/replace.h"
#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char call[] = "iso_checkpoint";

/* A heap that is being saved. */
typedef struct saved {
    iso_hold_t *hold; /* NULL: not frozen (yet) */
    iso_contents_t contents;
} saved_t;

typedef struct checkpoint {
    iso_job_t *job;
    saved_t *heaps;
    uint32_t count;
    iso_image_header_t header;
    iso_image_tables_t tables;
    iso_replace_t file;
} checkpoint_t;

/* What a test can end the process at, as at the stages of a migration (stage.h): ISO_TEST_CHECKPOINT_AT=<step>. */
static void reach(const char *step)
{
    const char *wanted = getenv("ISO_TEST_CHECKPOINT_AT");
    if (wanted && strcmp(wanted, step) == 0)
        raise(SIGKILL);
}

/* ---- heaps ------------------------------------------------------------------------------------- */

static void put_back(checkpoint_t *checkpoint)
{
    iso_job_lock(checkpoint->job);
    for (uint32_t i = 0; i < checkpoint->count; i++)
        if (checkpoint->heaps[i].hold)
            iso_contents_put_back(checkpoint->heaps[i].hold);
    iso_job_unlock(checkpoint->job);
}

static iso_status_t freeze(checkpoint_t *checkpoint, iso_heap_t *const *heaps)
{
    iso_status_t status = ISO_OK;
    for (uint32_t i = 0; i < checkpoint->count && status == ISO_OK; i++)
        status = iso_contents_take(checkpoint->job, call, heaps[i], false,
                                   &checkpoint->heaps[i].hold, &checkpoint->heaps[i].contents);
    return status;
}

/* ---- the file ---------------------------------------------------------------------------------- */

static uint64_t round_up(uint64_t bytes, uint64_t multiple)
{
    return (bytes + multiple - 1) / multiple * multiple;
}

static void fill_header(checkpoint_t *checkpoint, size_t user_len)
{
    const iso_job_t *job = checkpoint->job;
    iso_image_header_t *header = &checkpoint->header;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *header = (iso_image_header_t){.byte_order = ISO_IMAGE_BYTE_ORDER,
                                   .version = ISO_IMAGE_VERSION,
                                   .layout = iso_heap_layout_digest(),
                                   .base = (uintptr_t)job->space.base,
                                   .space_size = job->space.size,
                                   .page_size = (uint32_t)iso_os_page_size(),
                                   .rank = job->rank,
                                   .size = job->size,
                                   .heap_count = checkpoint->count,
                                   .user_len = user_len,
                                   .seconds = now.tv_sec,
                                   .nanoseconds = (uint32_t)now.tv_nsec};
    memcpy(header->magic, ISO_IMAGE_MAGIC, sizeof header->magic);
    for (uint32_t i = 0; i < checkpoint->count; i++) {
        const iso_contents_t *contents = &checkpoint->heaps[i].contents;
        header->extent_count += contents->extent_count;
        header->run_count += contents->run_count;
        header->block_count += iso_image_blocks(contents->run_bytes);
        header->page_bytes += contents->run_bytes;
    }
    header->page_offset = round_up(sizeof *header + checkpoint->count * sizeof(iso_image_entry_t) +
                                       header->extent_count * sizeof(iso_extent_t) +
                                       header->run_count * sizeof(iso_run_t) +
                                       header->block_count * sizeof(uint64_t) + header->user_len,
                                   ISO_IMAGE_ALIGNMENT);
}

/* All but the checksums of blocks, and its own. */
static void fill_tables(checkpoint_t *checkpoint, const void *user)
{
    const iso_image_tables_t *tables = &checkpoint->tables;
    iso_image_entry_t next = {.offset = checkpoint->header.page_offset};
    assert(tables->heaps && tables->user);
    for (uint32_t i = 0; i < checkpoint->count; i++) {
        const iso_contents_t *contents = &checkpoint->heaps[i].contents;
        next.heap = contents->heap;
        next.epoch = contents->epoch;
        next.extent_count = contents->extent_count;
        next.run_count = contents->run_count;
        next.bytes = contents->run_bytes;
        tables->heaps[i] = next;
        memcpy(&tables->extents[next.extents], contents->extents,
               next.extent_count * sizeof *tables->extents);
        memcpy(&tables->runs[next.runs], contents->runs, next.run_count * sizeof *tables->runs);
        next.extents += next.extent_count;
        next.runs += next.run_count;
        next.blocks += iso_image_blocks(next.bytes);
        next.offset += next.bytes;
    }
    if (user)
        memcpy(tables->user, user, checkpoint->header.user_len);
}

static iso_status_t write_pages(checkpoint_t *checkpoint)
{
    uint64_t offset = checkpoint->header.page_offset, *block_at = checkpoint->tables.blocks;
    iso_checksum_t *checksum = iso_checksum_new();
    iso_status_t status = checksum ? ISO_OK : ISO_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < checkpoint->count && status == ISO_OK; i++) {
        const iso_contents_t *contents = &checkpoint->heaps[i].contents;
        iso_image_walk_t walk = {contents->runs, contents->run_count, 0};
        for (iso_image_block_t block; status == ISO_OK && iso_image_walk_next(&walk, &block);) {
            *block_at++ = iso_image_block_checksum(checksum, &block);
            status = iso_replace_write(&checkpoint->file, offset, block.pieces, block.count);
            offset += block.bytes;
            reach("some");
        }
    }
    free(checksum);
    return status;
}

static iso_status_t write_tables(checkpoint_t *checkpoint)
{
    iso_image_header_t *header = &checkpoint->header;
    struct iovec pieces[] = {{header, sizeof *header},
                             {checkpoint->tables.heaps, checkpoint->tables.bytes}};
    header->tables = iso_checksum_of(checkpoint->tables.heaps, checkpoint->tables.bytes);
    header->check = iso_checksum_of(header, offsetof(iso_image_header_t, check));
    return iso_replace_write(&checkpoint->file, 0, pieces, 2);
}

/* The steps after which the process may be killed, in this order. */
static iso_status_t write_file(checkpoint_t *checkpoint)
{
    reach("begun");
    iso_status_t status = write_pages(checkpoint);
    reach("pages");
    if (status == ISO_OK)
        status = write_tables(checkpoint);
    reach("written");
    if (status == ISO_OK)
        status = iso_replace_sync(&checkpoint->file);
    reach("synced");
    if (status == ISO_OK)
        status = iso_replace_rename(&checkpoint->file);
    reach("renamed");
    if (status == ISO_OK)
        status = iso_replace_sync_folder(&checkpoint->file);
    return status;
}

static iso_status_t save(checkpoint_t *checkpoint, const char *path, const void *user,
                         size_t user_len)
{
    fill_header(checkpoint, user_len);
    iso_status_t status = iso_image_tables_new(&checkpoint->header, &checkpoint->tables);
    if (status != ISO_OK) {
        iso_log(&checkpoint->job->logger, ISO_LOG_ERROR,
                "iso_checkpoint to %s: no memory for the tables", path);
        return status;
    }
    fill_tables(checkpoint, user);
    status = iso_replace_begin(&checkpoint->file, &checkpoint->job->logger, path);
    if (status == ISO_OK) {
        status = write_file(checkpoint);
        iso_replace_end(&checkpoint->file);
        if (status != ISO_OK)
            iso_log(&checkpoint->job->logger, ISO_LOG_ERROR, "%s: the image needs %s", path,
                    ISO_SIZE(checkpoint->header.page_offset + checkpoint->header.page_bytes));
    }
    free(checkpoint->tables.heaps);
    return status;
}

/* What a program built with an older header gives is shorter, and the rest is 0. */
static iso_status_t import(const iso_job_t *job, const iso_checkpoint_params_t *given,
                           iso_checkpoint_params_t *params)
{
    *params = (iso_checkpoint_params_t){.struct_size = sizeof *params};
    if (given)
        memcpy(params, given,
               given->struct_size < sizeof *params ? given->struct_size : sizeof *params);
    if (params->user_len <= ISO_IMAGE_USER_MAX && (params->user || params->user_len == 0))
        return ISO_OK;
    iso_log(&job->logger, ISO_LOG_ERROR,
            "iso_checkpoint: %zu bytes of user data at %p: give %zu at most", params->user_len,
            params->user, ISO_IMAGE_USER_MAX);
    return ISO_ERR_INVALID;
}

iso_status_t iso_checkpoint(iso_job_t *job, const char *path, iso_heap_t *const *heaps,
                            uint32_t count, const iso_checkpoint_params_t *given)
{
    iso_checkpoint_params_t params;
    if (!iso_job_is_ours(job, call))
        return ISO_ERR_INVALID;
    iso_status_t status = import(job, given, &params);
    if (status != ISO_OK)
        return status;
    checkpoint_t checkpoint = {.job = job, .count = count};
    checkpoint.heaps = calloc(count ? count : 1, sizeof *checkpoint.heaps);
    if (!checkpoint.heaps) {
        iso_log(&job->logger, ISO_LOG_ERROR, "iso_checkpoint: no memory for %" PRIu32 " heaps",
                count);
        return ISO_ERR_NO_MEMORY;
    }
    status = freeze(&checkpoint, heaps);
    if (status == ISO_OK)
        status = save(&checkpoint, path, params.user, params.user_len);
    put_back(&checkpoint);
    for (uint32_t i = 0; i < count; i++)
        iso_contents_free(&checkpoint.heaps[i].contents);
    free(checkpoint.heaps);
    return status;
}
