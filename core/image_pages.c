/*
 * image_pages.c - the pages of an image's heaps: read to their places or nowhere, each compared with its checksum, or mapped. See
 * image.h.
 *
 * Pages of zeros, many in a row, are read beside their place: to write zeros there would make pages of memory that may
 * never be used.
 */
#include "core/checksum.h"
#include "core/image.h"
#include "core/os.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH ((size_t)1 << 20)  /* bytes that are read, and compared, at a time */
#define ZEROS_LEAST ((size_t)16) /* pages in a row; of fewer the calls cost more than the memory */

/* ---- reading ----------------------------------------------------------------------------------- */

/* Of up to BATCH bytes that lie together in one file. */
typedef struct batch {
    struct iovec pieces[BATCH / ISO_IMAGE_PAGE];
    int count;
    size_t bytes;
    uint64_t file, offset;
    bool zeros; /* all of them are, by their checksums, and they are one piece */
} batch_t;

/* Runs that are left of a heap's. */
typedef struct walk {
    const iso_image_run_t *runs;
    uint64_t count;
    uint64_t within;      /* bytes of the first that were passed */
    const uint64_t *sums; /* checksums from the page there on */
    bool apart;           /* zeros are batches of their own */
    uint64_t zeros;       /* the checksum of a page of them */
} walk_t;

/* How many bytes of the first run go on as they begin, `most` at most: many zeros in a row, or what is not such. */
static size_t alike(const walk_t *walk, size_t most, bool *zeros_p)
{
    const size_t left = (size_t)((walk->runs->length - walk->within) / ISO_IMAGE_PAGE);
    const size_t end = most / ISO_IMAGE_PAGE < left ? most / ISO_IMAGE_PAGE : left;
    size_t page = 0, row = 0; /* zeros before `page` */
    *zeros_p = false;
    if (!walk->apart)
        return end * ISO_IMAGE_PAGE;
    while (page < left && page < end + ZEROS_LEAST && walk->sums[page] == walk->zeros)
        page++;
    if (page >= ZEROS_LEAST) {
        *zeros_p = true;
        return (page < end ? page : end) * ISO_IMAGE_PAGE;
    }
    for (row = page; page < left && page - row < end && row < ZEROS_LEAST; page++)
        row = walk->sums[page] == walk->zeros ? row + 1 : 0;
    const size_t length = row >= ZEROS_LEAST ? page - row : page;
    return (length < end ? length : end) * ISO_IMAGE_PAGE;
}

static void pass(walk_t *walk, size_t length)
{
    walk->sums += length / ISO_IMAGE_PAGE;
    walk->within += length;
    if (walk->within == walk->runs->length) {
        walk->runs++;
        walk->count--;
        walk->within = 0;
    }
}

static bool next_batch(walk_t *walk, batch_t *batch)
{
    batch->count = 0;
    batch->bytes = 0;
    batch->zeros = false;
    while (walk->count > 0 && batch->bytes < BATCH && !batch->zeros) {
        const iso_image_run_t *run = walk->runs;
        const uint64_t offset = run->offset + walk->within;
        bool zeros;
        const size_t length = alike(walk, BATCH - batch->bytes, &zeros);
        if (batch->count == 0) {
            batch->file = run->file;
            batch->offset = offset;
        } else if (zeros || run->file != batch->file || offset != batch->offset + batch->bytes) {
            break;
        }
        batch->pieces[batch->count++] =
            (struct iovec){(char *)(uintptr_t)run->address + walk->within, length};
        batch->bytes += length;
        batch->zeros = zeros;
        pass(walk, length);
    }
    return batch->count > 0;
}

/* Checksums of the pages that were read, one after the other in *expected. */
static iso_status_t compare(const iso_image_t *image, const iso_logger_t *logger,
                            const batch_t *batch, uint64_t heap, const uint64_t **expected)
{
    uint64_t offset = batch->offset;
    char what[64];
    for (int i = 0; i < batch->count; i++)
        for (size_t at = 0; at < batch->pieces[i].iov_len; at += ISO_IMAGE_PAGE) {
            const char *page = (const char *)batch->pieces[i].iov_base + at;
            if (iso_checksum_of(page, ISO_IMAGE_PAGE) != *(*expected)++) {
                snprintf(what, sizeof what, "a page of heap %#" PRIx64, heap);
                return iso_image_damaged(image, logger, batch->file, offset, ISO_IMAGE_PAGE, what);
            }
            offset += ISO_IMAGE_PAGE;
        }
    return ISO_OK;
}

/* Elsewhere: not to where they belong, but there. */
static iso_status_t read_batch(const iso_image_t *image, const iso_logger_t *logger, batch_t *batch,
                               void *elsewhere, uint64_t heap, const uint64_t **expected)
{
    struct iovec pieces[BATCH / ISO_IMAGE_PAGE]; /* reading uses them up */
    if (elsewhere) {
        batch->pieces[0] = (struct iovec){elsewhere, batch->bytes};
        batch->count = 1;
    }
    memcpy(pieces, batch->pieces, (size_t)batch->count * sizeof *pieces);
    iso_status_t status =
        iso_image_read(image, logger, batch->file, batch->offset, pieces, batch->count);
    return status == ISO_OK ? compare(image, logger, batch, heap, expected) : status;
}

iso_status_t iso_image_read_heap(iso_image_t *image, const iso_logger_t *logger, uint32_t number,
                                 iso_image_reading_t reading, const iso_image_zeros_t *zeros)
{
    const iso_image_entry_t *entry = &image->tables.heaps[number];
    const bool nowhere = reading == ISO_IMAGE_TO_NOWHERE;
    const uint64_t *expected = &image->tables.pages[entry->pages];
    void *elsewhere = calloc(1, BATCH);
    if (!elsewhere) {
        iso_log(logger, ISO_LOG_ERROR, "image %s: no memory to read it", image->path);
        return ISO_ERR_NO_MEMORY;
    }
    walk_t walk = {.runs = &image->tables.runs[entry->runs],
                   .count = entry->run_count,
                   .sums = expected,
                   .apart = zeros && !nowhere,
                   .zeros = iso_checksum_of(elsewhere, ISO_IMAGE_PAGE)};
    iso_status_t status = ISO_OK;
    for (batch_t batch; status == ISO_OK && next_batch(&walk, &batch);) {
        const struct iovec place = batch.pieces[0];
        status = read_batch(image, logger, &batch, nowhere || batch.zeros ? elsewhere : NULL,
                            entry->heap, &expected);
        assert(!batch.zeros || zeros);
        if (status == ISO_OK && batch.zeros &&
            !zeros->make(place.iov_base, place.iov_len, zeros->arg))
            memset(place.iov_base, 0, place.iov_len);
    }
    free(elsewhere);
    return status;
}

/* ---- mapping ----------------------------------------------------------------------------------- */

uint64_t iso_image_mappings(const iso_image_t *image, uint32_t number)
{
    const iso_image_entry_t *entry = &image->tables.heaps[number];
    for (uint64_t i = 0; i < entry->run_count; i++) {
        const iso_image_run_t *run = &image->tables.runs[entry->runs + i];
        if ((run->address | run->length | run->offset) % iso_os_page_size() != 0)
            return 0;
    }
    return entry->run_count;
}

iso_status_t iso_image_map_heap(const iso_image_t *image, const iso_logger_t *logger,
                                uint32_t number, bool core_dump)
{
    const iso_image_entry_t *entry = &image->tables.heaps[number];
    iso_status_t status = ISO_OK;
    for (uint64_t file = 0; file <= image->header.parent_count && status == ISO_OK; file++)
        status = iso_image_check_length(image, logger, file);
    for (uint64_t i = 0; i < entry->run_count && status == ISO_OK; i++) {
        const iso_image_run_t *run = &image->tables.runs[entry->runs + i];
        const int error = iso_os_file_map((void *)(uintptr_t)run->address, (size_t)run->length,
                                          image->fds[run->file], run->offset);
        if (!error && !core_dump)
            iso_os_no_dump((void *)(uintptr_t)run->address, (size_t)run->length);
        if (!error)
            continue;
        iso_log(logger, ISO_LOG_ERROR, "image %s cannot be mapped: %s%s", image->path,
                strerror(error), error == ENOMEM ? " (vm.max_map_count?)" : "");
        status = ISO_ERR_SYSTEM;
    }
    return status;
}

void iso_image_unmap_heap(const iso_image_t *image, uint32_t number, bool core_dump)
{
    const iso_image_entry_t *entry = &image->tables.heaps[number];
    for (uint64_t i = 0; i < entry->run_count; i++) {
        const iso_image_run_t *run = &image->tables.runs[entry->runs + i];
        void *address = (void *)(uintptr_t)run->address;
        const int error = iso_os_anon_map(address, (size_t)run->length);
        if (error)
            iso_fatal("image %s, which was mapped, cannot be taken away from %p: mmap: %s%s",
                      image->path, address, strerror(error),
                      error == ENOMEM ? " (vm.max_map_count?)" : "");
        if (!core_dump)
            iso_os_no_dump(address, (size_t)run->length);
    }
}

iso_status_t iso_image_verify(iso_image_t *image)
{
    iso_logger_t logger = iso_logger_default();
    iso_status_t status = ISO_OK;
    for (uint32_t i = 0; i < image->header.heap_count && status == ISO_OK; i++)
        status = iso_image_read_heap(image, &logger, i, ISO_IMAGE_TO_NOWHERE, NULL);
    return status;
}
