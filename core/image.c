/* image.c - an image that is open for reading. See image.h and <isomalloc/checkpoint.h>. */
#include "core/image.h"
#include "core/checksum.h"
#include "core/heap.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(iso_image_header_t) == 136 && sizeof(iso_image_entry_t) == 72 &&
                   sizeof(iso_extent_t) == 8 && sizeof(iso_run_t) == 16,
               "what is in files has no gaps, and the same layout in every build");

/* ---- tables ------------------------------------------------------------------------------------ */

iso_status_t iso_image_tables_new(const iso_image_header_t *header, iso_image_tables_t *tables_p)
{
    const uint64_t heaps = header->heap_count * sizeof(iso_image_entry_t);
    const uint64_t extents = header->extent_count * sizeof(iso_extent_t);
    const uint64_t runs = header->run_count * sizeof(iso_run_t);
    const uint64_t blocks = header->block_count * sizeof(uint64_t);
    unsigned char *memory = calloc(1, header->page_offset - sizeof *header);
    if (!memory)
        return ISO_ERR_NO_MEMORY;
    *tables_p = (iso_image_tables_t){.heaps = (void *)memory,
                                     .extents = (void *)(memory + heaps),
                                     .runs = (void *)(memory + heaps + extents),
                                     .blocks = (void *)(memory + heaps + extents + runs),
                                     .user = memory + heaps + extents + runs + blocks,
                                     .bytes = header->page_offset - sizeof *header};
    return ISO_OK;
}

/* Does the file have room for as much as its header speaks of, and are there no counts that overflow? */
static bool counts_fit(const iso_image_header_t *header, uint64_t file_bytes)
{
    return header->page_offset >= sizeof *header && header->page_offset <= file_bytes &&
           header->page_offset % ISO_IMAGE_ALIGNMENT == 0 &&
           header->heap_count <= file_bytes / sizeof(iso_image_entry_t) &&
           header->extent_count <= file_bytes / sizeof(iso_extent_t) &&
           header->run_count <= file_bytes / sizeof(iso_run_t) &&
           header->block_count <= file_bytes / sizeof(uint64_t) &&
           header->user_len <= ISO_IMAGE_USER_MAX &&
           header->heap_count * sizeof(iso_image_entry_t) +
                   header->extent_count * sizeof(iso_extent_t) +
                   header->run_count * sizeof(iso_run_t) + header->block_count * sizeof(uint64_t) +
                   header->user_len <=
               header->page_offset - sizeof *header;
}

/* Do the tables say of heap `i` what can be? Each begins where the one before ends. */
static bool entry_fits(const iso_image_t *image, uint32_t i, iso_image_entry_t *expected)
{
    const iso_image_entry_t *entry = &image->tables.heaps[i];
    const iso_image_header_t *header = &image->header;
    const uint64_t end = header->page_offset + header->page_bytes;
    uint64_t bytes = 0;
    if (entry->extents != expected->extents || entry->runs != expected->runs ||
        entry->blocks != expected->blocks || entry->offset != expected->offset ||
        entry->extent_count > header->extent_count - entry->extents ||
        entry->run_count > header->run_count - entry->runs || entry->bytes > end - entry->offset ||
        entry->extent_count > UINT32_MAX ||
        iso_image_blocks(entry->bytes) > header->block_count - entry->blocks)
        return false;
    for (uint64_t run = entry->runs; run < entry->runs + entry->run_count; run++) {
        const size_t length = image->tables.runs[run].length;
        if (length == 0 || length % 4096 != 0 || length > entry->bytes - bytes)
            return false;
        bytes += length;
    }
    expected->extents += entry->extent_count;
    expected->runs += entry->run_count;
    expected->blocks += iso_image_blocks(entry->bytes);
    expected->offset += entry->bytes;
    return bytes == entry->bytes;
}

static bool entries_fit(const iso_image_t *image)
{
    const iso_image_header_t *header = &image->header;
    iso_image_entry_t expected = {.offset = header->page_offset};
    for (uint32_t i = 0; i < header->heap_count; i++)
        if (!entry_fits(image, i, &expected))
            return false;
    return expected.extents == header->extent_count && expected.runs == header->run_count &&
           expected.blocks == header->block_count &&
           expected.offset == header->page_offset + header->page_bytes;
}

/* ---- reading ----------------------------------------------------------------------------------- */

static iso_status_t refuse(const iso_image_t *image, const iso_logger_t *logger,
                           iso_status_t status, const char *why)
{
    iso_log(logger, ISO_LOG_ERROR, "image %s: %s", image->path, why);
    return status;
}

static iso_status_t cannot_read(const iso_image_t *image, const iso_logger_t *logger, int error)
{
    iso_log(logger, ISO_LOG_ERROR, "image %s cannot be read: %s", image->path, strerror(error));
    return ISO_ERR_SYSTEM;
}

static iso_status_t damaged(const iso_image_t *image, const iso_logger_t *logger, uint64_t offset,
                            uint64_t bytes, const char *what)
{
    iso_log(logger, ISO_LOG_ERROR,
            "image %s is damaged: bytes %" PRIu64 " to %" PRIu64
            " (%s) are not those that were saved: restore from another image",
            image->path, offset, offset + bytes - 1, what);
    return ISO_ERR_INVALID;
}

/* What the block describes, from the file. Its pieces are used up. */
static iso_status_t read_block(const iso_image_t *image, const iso_logger_t *logger,
                               uint64_t offset, iso_image_block_t block)
{
    struct iovec *piece = block.pieces;
    while (block.bytes > 0) {
        ssize_t n = preadv(image->fd, piece, block.count, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cannot_read(image, logger, errno);
        if (n == 0) {
            iso_log(logger, ISO_LOG_ERROR,
                    "image %s ends at byte %" PRIu64 ", %zu bytes too soon: restore from another",
                    image->path, offset, block.bytes);
            return ISO_ERR_INVALID;
        }
        offset += (uint64_t)n;
        block.bytes -= (size_t)n;
        while (block.count > 0 && (size_t)n >= piece->iov_len) {
            n -= (ssize_t)piece->iov_len;
            piece++;
            block.count--;
        }
        if (block.count > 0) {
            piece->iov_base = (char *)piece->iov_base + n;
            piece->iov_len -= (size_t)n;
        }
    }
    return ISO_OK;
}

static iso_status_t read_bytes(const iso_image_t *image, const iso_logger_t *logger,
                               uint64_t offset, void *bytes, size_t count)
{
    iso_image_block_t block = {.count = 1, .bytes = count};
    block.pieces[0] = (struct iovec){bytes, count};
    return read_block(image, logger, offset, block);
}

static iso_status_t read_header(iso_image_t *image, const iso_logger_t *logger)
{
    iso_image_header_t *header = &image->header;
    struct stat file;
    iso_status_t status;
    if (fstat(image->fd, &file) != 0)
        return cannot_read(image, logger, errno);
    if (!S_ISREG(file.st_mode))
        return refuse(image, logger, ISO_ERR_INVALID, "is no file");
    status = read_bytes(image, logger, 0, header, sizeof *header);
    if (status != ISO_OK)
        return status;
    if (memcmp(header->magic, ISO_IMAGE_MAGIC, sizeof header->magic) != 0)
        return refuse(image, logger, ISO_ERR_INVALID,
                      "is no image of heaps: its bytes 0 to 7 are not " ISO_IMAGE_MAGIC);
    if (header->byte_order == __builtin_bswap32(ISO_IMAGE_BYTE_ORDER))
        return refuse(image, logger, ISO_ERR_VERSION,
                      "was saved by a machine with the other byte order");
    if (header->byte_order == ISO_IMAGE_BYTE_ORDER && header->version != ISO_IMAGE_VERSION) {
        iso_log(logger, ISO_LOG_ERROR,
                "image %s is of version %" PRIu32 ", or its bytes 12 to 15 are damaged: this "
                "library reads version %" PRIu32,
                image->path, header->version, ISO_IMAGE_VERSION);
        return ISO_ERR_VERSION;
    }
    if (header->check != iso_checksum_of(header, offsetof(iso_image_header_t, check)))
        return damaged(image, logger, 0, sizeof *header, "its header");
    if (header->layout != iso_heap_layout_digest())
        return refuse(image, logger, ISO_ERR_VERSION,
                      "was saved by a build of the library that lays heaps out differently");
    const uint64_t bytes = (uint64_t)file.st_size;
    if (bytes != header->page_offset + header->page_bytes) {
        iso_log(logger, ISO_LOG_ERROR,
                "image %s ends at byte %" PRIu64 ", not at byte %" PRIu64
                " where it ended when it was saved: restore from another",
                image->path, bytes, header->page_offset + header->page_bytes);
        return ISO_ERR_INVALID;
    }
    return counts_fit(header, bytes)
               ? ISO_OK
               : refuse(image, logger, ISO_ERR_INVALID, "has a header that cannot be");
}

static iso_status_t read_tables(iso_image_t *image, const iso_logger_t *logger)
{
    const iso_image_header_t *header = &image->header;
    iso_status_t status = iso_image_tables_new(header, &image->tables);
    if (status != ISO_OK)
        return refuse(image, logger, status, "no memory for its tables");
    void *tables = image->tables.heaps;
    status = read_bytes(image, logger, sizeof *header, tables, image->tables.bytes);
    if (status != ISO_OK)
        return status;
    if (iso_checksum_of(tables, image->tables.bytes) != header->tables)
        return damaged(image, logger, sizeof *header, image->tables.bytes,
                       "its lists of heaps and pages");
    return entries_fit(image)
               ? ISO_OK
               : refuse(image, logger, ISO_ERR_INVALID, "has lists of heaps that cannot be");
}

iso_status_t iso_image_open_for(const iso_logger_t *logger, const char *path, iso_image_t **image_p)
{
    iso_image_t *image = calloc(1, sizeof *image);
    if (!image)
        return ISO_ERR_NO_MEMORY;
    image->path = strdup(path);
    image->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* of what is no file: not to wait */
    iso_status_t status = ISO_OK;
    if (image->fd < 0)
        status = image->path ? cannot_read(image, logger, errno) : ISO_ERR_NO_MEMORY;
    if (status == ISO_OK)
        status = image->path ? read_header(image, logger) : ISO_ERR_NO_MEMORY;
    if (status == ISO_OK)
        status = read_tables(image, logger);
    if (status == ISO_OK)
        *image_p = image;
    else
        iso_image_close(image);
    return status;
}

iso_status_t iso_image_open(const char *path, iso_image_t **image_p)
{
    iso_logger_t logger = iso_logger_default();
    return iso_image_open_for(&logger, path, image_p);
}

void iso_image_close(iso_image_t *image)
{
    if (!image)
        return;
    if (image->fd >= 0)
        close(image->fd);
    free(image->tables.heaps);
    free(image->path);
    free(image);
}

/* ---- pages ------------------------------------------------------------------------------------- */

bool iso_image_walk_next(iso_image_walk_t *walk, iso_image_block_t *block_p)
{
    block_p->count = 0;
    block_p->bytes = 0;
    while (walk->count > 0 && block_p->bytes < ISO_IMAGE_BLOCK) {
        size_t length = walk->runs->length - walk->within;
        if (length > ISO_IMAGE_BLOCK - block_p->bytes)
            length = ISO_IMAGE_BLOCK - block_p->bytes;
        block_p->pieces[block_p->count++] =
            (struct iovec){(char *)walk->runs->address + walk->within, length};
        block_p->bytes += length;
        walk->within += length;
        if (walk->within == walk->runs->length) {
            walk->runs++;
            walk->count--;
            walk->within = 0;
        }
    }
    return block_p->count > 0;
}

uint64_t iso_image_block_checksum(iso_checksum_t *checksum, const iso_image_block_t *block)
{
    iso_checksum_begin(checksum);
    for (int i = 0; i < block->count; i++)
        iso_checksum_add(checksum, block->pieces[i].iov_base, block->pieces[i].iov_len);
    return iso_checksum_value(checksum);
}

iso_status_t iso_image_read_heap(iso_image_t *image, const iso_logger_t *logger, uint32_t number,
                                 iso_image_reading_t reading)
{
    const iso_image_entry_t *entry = &image->tables.heaps[number];
    iso_image_walk_t walk = {&image->tables.runs[entry->runs], entry->run_count, 0};
    const uint64_t *expected = &image->tables.blocks[entry->blocks];
    uint64_t offset = entry->offset;
    iso_checksum_t *checksum = iso_checksum_new();
    void *nowhere = reading == ISO_IMAGE_TO_NOWHERE ? malloc(ISO_IMAGE_BLOCK) : NULL;
    iso_status_t status = ISO_OK;
    if (!checksum || (reading == ISO_IMAGE_TO_NOWHERE && !nowhere))
        status = refuse(image, logger, ISO_ERR_NO_MEMORY, "no memory to read it");
    for (iso_image_block_t block; status == ISO_OK && iso_image_walk_next(&walk, &block);) {
        char what[64];
        if (nowhere) {
            block.pieces[0] = (struct iovec){nowhere, block.bytes};
            block.count = 1;
        }
        status = read_block(image, logger, offset, block);
        if (status == ISO_OK && iso_image_block_checksum(checksum, &block) != *expected++) {
            snprintf(what, sizeof what, "pages of heap %#" PRIx64, entry->heap);
            status = damaged(image, logger, offset, block.bytes, what);
        }
        offset += block.bytes;
    }
    free(nowhere);
    free(checksum);
    return status;
}

iso_status_t iso_image_verify(iso_image_t *image)
{
    iso_logger_t logger = iso_logger_default();
    iso_status_t status = ISO_OK;
    for (uint32_t i = 0; i < image->header.heap_count && status == ISO_OK; i++)
        status = iso_image_read_heap(image, &logger, i, ISO_IMAGE_TO_NOWHERE);
    return status;
}

/* ---- what is in it ----------------------------------------------------------------------------- */

void iso_image_query(const iso_image_t *image, iso_image_info_t *info_p)
{
    const iso_image_header_t *header = &image->header;
    *info_p = (iso_image_info_t){
        .heaps = header->heap_count,
        .rank = header->rank,
        .size = header->size,
        .page_size = header->page_size,
        .space_base = header->base,
        .space_size = header->space_size,
        .bytes = header->page_offset + header->page_bytes,
        .page_bytes = header->page_bytes,
        .time = (double)header->seconds + header->nanoseconds * 1e-9,
        .user = image->tables.user,
        .user_len = header->user_len,
    };
}

iso_status_t iso_image_heap(const iso_image_t *image, uint32_t number, iso_image_heap_t *heap_p)
{
    if (number >= image->header.heap_count)
        return ISO_ERR_INVALID;
    const iso_image_entry_t *entry = &image->tables.heaps[number];
    uint64_t slots = 0;
    for (uint64_t i = 0; i < entry->extent_count; i++)
        slots += iso_extent_slots(&image->tables.extents[entry->extents + i]);
    *heap_p = (iso_image_heap_t){(iso_heap_t *)(uintptr_t)entry->heap, slots, entry->bytes};
    return ISO_OK;
}
