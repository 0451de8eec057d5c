/*
 * checkpoint.c - heaps of this rank into a file: iso_checkpoint.
 *
 * All heaps are frozen before the first byte is written. Their pages go from where they are: a page's checksum is made when it
 * is about to be written, so that it is read from memory once, or is not written, when an earlier image has it (and not read either, when the kernel
 * says that it is as it was, see track.h). A page of zeros is
 * a hole in the file; one that was never touched is not read either, so that it stays without memory. Then come the tables, and the
 * header, whose place is before the pages.
 */
#include "core/checksum.h"
#include "core/contents.h"
#include "core/heap.h"
#include "core/image.h"
#include "core/increment.h"
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
static const unsigned char zeros[ISO_IMAGE_PAGE];

/* A heap that is being saved. */
typedef struct saved {
    iso_hold_t *hold; /* NULL: not frozen (yet) */
    iso_contents_t contents;
    bool told; /* by `written`: which of its pages are as in the earlier image */
} saved_t;

#define BATCH ((size_t)1 << 20) /* bytes that are written at a time */

typedef struct checkpoint {
    iso_job_t *job;
    saved_t *heaps;
    uint32_t count;
    iso_increment_t increment;
    iso_replace_t file;

    uint64_t moment; /* how often the job had been at iso_barrier when its heaps were frozen */
    iso_image_header_t header;
    iso_image_entry_t *entries;
    iso_image_run_t *runs; /* so far */
    uint64_t run_room;
    uint64_t *pages;  /* checksums so far */
    uint64_t zeros;   /* the checksum of a page of them */
    uint8_t *written; /* a bit a page, in that order; NULL: it is not known */
    uint64_t passed;  /* pages that were not read for it */
    uint64_t looked, data,
        data_end; /* the space's object has no pages in [looked, data), and some in [data, data_end) */

    struct iovec pieces[BATCH / ISO_IMAGE_PAGE]; /* to be written next, at `offset` */
    int piece_count;
    size_t piece_bytes;
    uint64_t offset;
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
    iso_job_lock(checkpoint->job); /* another thread may be at a barrier */
    checkpoint->moment = checkpoint->job->barriers;
    iso_job_unlock(checkpoint->job);
    for (uint32_t i = 0; i < checkpoint->count && status == ISO_OK; i++)
        status = iso_contents_take(checkpoint->job, call, heaps[i], false,
                                   &checkpoint->heaps[i].hold, &checkpoint->heaps[i].contents);
    return status;
}

/* ---- the file ---------------------------------------------------------------------------------- */

static iso_status_t no_memory(const checkpoint_t *checkpoint)
{
    iso_log(&checkpoint->job->logger, ISO_LOG_ERROR, "iso_checkpoint: no memory for the tables");
    return ISO_ERR_NO_MEMORY;
}

/* What is known before the pages are looked at. */
static iso_status_t prepare(checkpoint_t *checkpoint, const iso_checkpoint_params_t *params)
{
    const iso_job_t *job = checkpoint->job;
    iso_image_header_t *header = &checkpoint->header;
    struct timespec now;
    uint64_t page_count = 0;
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
                                   .user_len = params->user_len,
                                   .set = params->set,
                                   .moment = checkpoint->moment,
                                   .seconds = now.tv_sec,
                                   .nanoseconds = (uint64_t)now.tv_nsec};
    memcpy(header->magic, ISO_IMAGE_MAGIC, sizeof header->magic);
    memcpy(header->cookie, job->cookie, sizeof header->cookie);
    for (uint32_t i = 0; i < checkpoint->count; i++) {
        header->extent_count += checkpoint->heaps[i].contents.extent_count;
        page_count += checkpoint->heaps[i].contents.runs.bytes / ISO_IMAGE_PAGE;
    }
    checkpoint->offset = sizeof *header;
    checkpoint->zeros = iso_checksum_of(zeros, sizeof zeros);
    checkpoint->entries = calloc(checkpoint->count + 1, sizeof *checkpoint->entries);
    checkpoint->pages = malloc((page_count + 1) * sizeof *checkpoint->pages);
    return checkpoint->entries && checkpoint->pages ? ISO_OK : no_memory(checkpoint);
}

static iso_status_t write_pieces(checkpoint_t *checkpoint)
{
    iso_status_t status = iso_replace_write(&checkpoint->file, checkpoint->offset,
                                            checkpoint->pieces, checkpoint->piece_count);
    checkpoint->offset += checkpoint->piece_bytes;
    checkpoint->piece_count = 0;
    checkpoint->piece_bytes = 0;
    return status;
}

static iso_status_t store_page(checkpoint_t *checkpoint, uint64_t address)
{
    struct iovec *last =
        checkpoint->piece_count ? &checkpoint->pieces[checkpoint->piece_count - 1] : NULL;
    if (last && (uintptr_t)last->iov_base + last->iov_len == address)
        last->iov_len += ISO_IMAGE_PAGE;
    else
        checkpoint->pieces[checkpoint->piece_count++] =
            (struct iovec){(void *)(uintptr_t)address, ISO_IMAGE_PAGE};
    checkpoint->piece_bytes += ISO_IMAGE_PAGE;
    checkpoint->header.stored_count++;
    if (checkpoint->piece_bytes < BATCH)
        return ISO_OK;
    iso_status_t status = write_pieces(checkpoint);
    reach("some");
    return status;
}

/* The file has a hole there. */
static iso_status_t skip_page(checkpoint_t *checkpoint)
{
    iso_status_t status = checkpoint->piece_count ? write_pieces(checkpoint) : ISO_OK;
    checkpoint->offset += ISO_IMAGE_PAGE;
    checkpoint->header.stored_count++;
    return status;
}

/* Was it never touched, by any process? Of anonymous memory it need not be known: to read that costs no page. */
static bool is_untouched(checkpoint_t *checkpoint, uint64_t address)
{
    const iso_space_t *space = &checkpoint->job->space;
    const uint64_t offset = address - (uintptr_t)space->base;
    if (space->fd < 0)
        return false;
    if (offset < checkpoint->looked || offset >= checkpoint->data_end) {
        checkpoint->looked = offset;
        iso_os_memfd_data(space->fd, offset, &checkpoint->data, &checkpoint->data_end);
    }
    return offset < checkpoint->data;
}

/* The page is part of the last run, if that is of this heap and goes on like this. */
static iso_status_t add_page(checkpoint_t *checkpoint, const iso_image_entry_t *entry,
                             iso_image_run_t page)
{
    iso_image_header_t *header = &checkpoint->header;
    if (header->run_count > entry->runs) {
        iso_image_run_t *last = &checkpoint->runs[header->run_count - 1];
        if (last->address + last->length == page.address && last->file == page.file &&
            last->offset + last->length == page.offset) {
            last->length += ISO_IMAGE_PAGE;
            return ISO_OK;
        }
    }
    if (header->run_count == checkpoint->run_room) {
        const uint64_t room = checkpoint->run_room * 2 + 64;
        iso_image_run_t *runs = realloc(checkpoint->runs, room * sizeof *runs);
        if (!runs)
            return no_memory(checkpoint);
        checkpoint->runs = runs;
        checkpoint->run_room = room;
    }
    checkpoint->runs[header->run_count++] = page;
    return ISO_OK;
}

/* Has nobody written to the next page, which is in the earlier image? Then it need not be read. */
static bool is_known(checkpoint_t *checkpoint, const saved_t *saved, iso_image_run_t *page,
                     uint64_t *checksum_p)
{
    const uint64_t number = checkpoint->header.page_count;
    if (!saved->told || checkpoint->written[number / 8] & 1u << number % 8 ||
        !iso_increment_at(&checkpoint->increment, page->address, checksum_p, &page->file,
                          &page->offset))
        return false;
    checkpoint->passed++;
    return true;
}

static iso_status_t write_page(checkpoint_t *checkpoint, const saved_t *saved,
                               const iso_image_entry_t *entry, uint64_t address)
{
    uint64_t checksum;
    iso_image_run_t page = {.address = address,
                            .length = ISO_IMAGE_PAGE,
                            .offset = checkpoint->offset + checkpoint->piece_bytes};
    bool there = is_known(checkpoint, saved, &page, &checksum);
    if (!there) {
        checksum = is_untouched(checkpoint, address)
                       ? checkpoint->zeros
                       : iso_checksum_of((void *)(uintptr_t)address, ISO_IMAGE_PAGE);
        there =
            iso_increment_find(&checkpoint->increment, address, checksum, &page.file, &page.offset);
    }
    checkpoint->pages[checkpoint->header.page_count++] = checksum;
    iso_status_t status = add_page(checkpoint, entry, page);
    if (status != ISO_OK || there)
        return status;
    return checksum == checkpoint->zeros ? skip_page(checkpoint) : store_page(checkpoint, address);
}

static iso_status_t write_pages(checkpoint_t *checkpoint)
{
    iso_image_header_t *header = &checkpoint->header;
    iso_status_t status = ISO_OK;
    uint64_t extents = 0;
    for (uint32_t i = 0; i < checkpoint->count && status == ISO_OK; i++) {
        const iso_contents_t *contents = &checkpoint->heaps[i].contents;
        iso_image_entry_t *entry = &checkpoint->entries[i];
        *entry = (iso_image_entry_t){.heap = contents->heap,
                                     .epoch = contents->epoch,
                                     .extents = extents,
                                     .runs = header->run_count,
                                     .pages = header->page_count,
                                     .extent_count = contents->extent_count};
        for (uint64_t r = 0; r < contents->runs.count; r++)
            for (size_t at = 0; at < contents->runs.list[r].length && status == ISO_OK;
                 at += ISO_IMAGE_PAGE)
                status = write_page(checkpoint, &checkpoint->heaps[i], entry,
                                    contents->runs.list[r].address + at);
        entry->run_count = header->run_count - entry->runs;
        entry->page_count = header->page_count - entry->pages;
        extents += entry->extent_count;
    }
    return status == ISO_OK && checkpoint->piece_count ? write_pieces(checkpoint) : status;
}

/* Of the earlier images only those that have a page of this one. */
static uint64_t choose_parents(checkpoint_t *checkpoint,
                               iso_image_parent_t parents[ISO_IMAGE_PARENTS_MAX])
{
    uint64_t files[ISO_IMAGE_PARENTS_MAX + 1] = {0}, chosen = 0;
    const uint64_t count = iso_increment_parents(&checkpoint->increment, parents);
    for (uint64_t i = 0; i < checkpoint->header.run_count; i++)
        files[checkpoint->runs[i].file] = 1;
    for (uint64_t file = 1; file <= count; file++)
        if (files[file]) {
            parents[chosen++] = parents[file - 1];
            files[file] = chosen;
        }
    files[0] = 0;
    for (uint64_t i = 0; i < checkpoint->header.run_count; i++)
        checkpoint->runs[i].file = files[checkpoint->runs[i].file];
    return chosen;
}

static void copy(void *to, const void *from, uint64_t count, size_t size)
{
    if (count == 0)
        return;
    assert(from);
    memcpy(to, from, count * size);
}

static iso_status_t write_tables(checkpoint_t *checkpoint, const void *user)
{
    iso_image_header_t *header = &checkpoint->header;
    iso_image_parent_t parents[ISO_IMAGE_PARENTS_MAX];
    iso_image_tables_t tables;
    header->parent_count = choose_parents(checkpoint, parents);
    struct iovec whole = {.iov_len = iso_image_tables_bytes(header)};
    struct iovec beginning = {header, sizeof *header};
    void *memory = whole.iov_base = malloc(whole.iov_len + 1);
    if (!memory)
        return no_memory(checkpoint);
    iso_image_tables_place(header, memory, &tables);
    copy(tables.parents, parents, header->parent_count, sizeof *parents);
    copy(tables.heaps, checkpoint->entries, header->heap_count, sizeof *tables.heaps);
    for (uint32_t i = 0; i < checkpoint->count; i++)
        copy(&tables.extents[checkpoint->entries[i].extents], checkpoint->heaps[i].contents.extents,
             checkpoint->entries[i].extent_count, sizeof *tables.extents);
    copy(tables.runs, checkpoint->runs, header->run_count, sizeof *tables.runs);
    copy(tables.pages, checkpoint->pages, header->page_count, sizeof *tables.pages);
    copy(tables.user, user, header->user_len, 1);
    header->tables = iso_checksum_of(memory, whole.iov_len);
    header->lists = iso_checksum_of(memory, iso_image_lists_bytes(header));
    header->check = iso_checksum_of(header, offsetof(iso_image_header_t, check));
    iso_status_t status = ISO_OK;
    if (whole.iov_len > 0)
        status = iso_replace_write(&checkpoint->file, checkpoint->offset, &whole, 1);
    if (status == ISO_OK)
        status = iso_replace_write(&checkpoint->file, 0, &beginning, 1);
    free(memory);
    return status;
}

/* The steps after which the process may be killed, in this order. */
static iso_status_t write_file(checkpoint_t *checkpoint, const void *user)
{
    reach("begun");
    iso_status_t status = write_pages(checkpoint);
    reach("pages");
    if (status == ISO_OK)
        status = write_tables(checkpoint, user);
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

static uint64_t bytes_wanted(const checkpoint_t *checkpoint)
{
    uint64_t bytes = sizeof checkpoint->header;
    for (uint32_t i = 0; i < checkpoint->count; i++)
        bytes += checkpoint->heaps[i].contents.runs.bytes;
    return bytes;
}

/* Asks the kernel which pages were written since the earlier image, and to tell again from here on. */
static void track(checkpoint_t *checkpoint)
{
    iso_job_t *job = checkpoint->job;
    iso_increment_t *increment = &checkpoint->increment;
    const uint64_t since = increment->since ? increment->since->header.check : 0;
    const bool known = iso_track_begin(job, since);
    uint64_t pages = 0;
    if (!job->track.on)
        return;
    for (uint32_t i = 0; i < checkpoint->count; i++)
        pages += checkpoint->heaps[i].contents.runs.bytes / ISO_IMAGE_PAGE;
    checkpoint->written = calloc(pages / 8 + 1, 1);
    pages = 0;
    for (uint32_t i = 0; i < checkpoint->count && checkpoint->written; i++) {
        saved_t *saved = &checkpoint->heaps[i];
        const iso_contents_t *contents = &saved->contents;
        saved->told = iso_track_take(job, contents, checkpoint->written, pages) && known &&
                      iso_increment_has(increment, contents->heap, contents->epoch);
        pages += contents->runs.bytes / ISO_IMAGE_PAGE;
    }
}

/* The next one may be an increment to this image. */
static void track_end(checkpoint_t *checkpoint, const char *path)
{
    if (!checkpoint->written)
        return;
    iso_track_end(checkpoint->job, checkpoint->header.check);
    iso_log(&checkpoint->job->logger, ISO_LOG_INFO,
            "image %s: of %" PRIu64 " pages %" PRIu64
            " were not read: the kernel has seen no write to them",
            path, checkpoint->header.page_count, checkpoint->passed);
}

static iso_status_t save(checkpoint_t *checkpoint, const char *path,
                         const iso_checkpoint_params_t *params)
{
    const iso_logger_t *logger = &checkpoint->job->logger;
    iso_status_t status = prepare(checkpoint, params);
    if (status == ISO_OK)
        status = iso_increment_open(&checkpoint->increment, logger, path, params->since);
    if (status == ISO_OK)
        status = iso_replace_begin(&checkpoint->file, logger, path, ISO_IMAGE_MAGIC);
    if (status == ISO_OK) {
        track(checkpoint);
        status = write_file(checkpoint, params->user);
        if (status == ISO_OK)
            track_end(checkpoint, path);
        if (status != ISO_OK && !iso_replace_is_done(&checkpoint->file))
            iso_log(logger, ISO_LOG_ERROR, "%s: the image needs %s%s", path,
                    ISO_SIZE(bytes_wanted(checkpoint)), params->since ? " at most" : "");
        iso_replace_end(&checkpoint->file);
    }
    iso_increment_close(&checkpoint->increment);
    free(checkpoint->entries);
    free(checkpoint->pages);
    free(checkpoint->runs);
    free(checkpoint->written);
    return status;
}

/* What a program built with an older header gives is shorter, and the rest is 0. The first had `since` last. */
static iso_status_t import(const iso_job_t *job, const iso_checkpoint_params_t *given,
                           iso_checkpoint_params_t *params)
{
    *params = (iso_checkpoint_params_t){.struct_size = sizeof *params};
    if (given && given->struct_size < offsetof(iso_checkpoint_params_t, set)) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "iso_checkpoint: iso_checkpoint_params_t::struct_size is %zu: set it to sizeof "
                "(iso_checkpoint_params_t)",
                given->struct_size);
        return ISO_ERR_INVALID;
    }
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
    checkpoint_t *checkpoint = calloc(1, sizeof *checkpoint);
    saved_t *saved = calloc((size_t)count + 1, sizeof *saved);
    if (checkpoint && saved) {
        checkpoint->job = job;
        checkpoint->heaps = saved;
        checkpoint->count = count;
        status = freeze(checkpoint, heaps);
        if (status == ISO_OK)
            status = save(checkpoint, path, &params);
        put_back(checkpoint);
        for (uint32_t i = 0; i < count; i++)
            iso_contents_free(&saved[i].contents);
    } else {
        iso_log(&job->logger, ISO_LOG_ERROR, "iso_checkpoint: no memory for %" PRIu32 " heaps",
                count);
        status = ISO_ERR_NO_MEMORY;
    }
    free(saved);
    free(checkpoint);
    return status;
}
