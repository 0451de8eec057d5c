/* image.c - an image that is open for reading: what it says of itself. Its pages: image_pages.c. See image.h and
 * <isomalloc/checkpoint.h>. */
#include "core/image.h"
#include "core/checksum.h"
#include "core/heap.h"
#include "core/os.h"
#include "core/replace.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(iso_image_header_t) == ISO_IMAGE_PAGE && sizeof(iso_image_parent_t) == 256 &&
                   sizeof(iso_image_entry_t) == 64 && sizeof(iso_extent_t) == 8 &&
                   sizeof(iso_image_run_t) == 32 && sizeof ISO_IMAGE_MAGIC - 1 == ISO_REPLACE_MAGIC,
               "what is in files has no gaps, and the same layout in every build");

/* ---- tables ------------------------------------------------------------------------------------ */

uint64_t iso_image_lists_bytes(const iso_image_header_t *header)
{
    return header->parent_count * sizeof(iso_image_parent_t) +
           header->heap_count * sizeof(iso_image_entry_t) +
           header->extent_count * sizeof(iso_extent_t);
}

uint64_t iso_image_tables_bytes(const iso_image_header_t *header)
{
    return iso_image_lists_bytes(header) + header->run_count * sizeof(iso_image_run_t) +
           header->page_count * sizeof(uint64_t) + header->user_len;
}

void iso_image_tables_place(const iso_image_header_t *header, void *memory,
                            iso_image_tables_t *tables_p)
{
    iso_image_tables_t tables = {.parents = memory};
    tables.heaps = (void *)(tables.parents + header->parent_count);
    tables.extents = (void *)(tables.heaps + header->heap_count);
    tables.runs = (void *)(tables.extents + header->extent_count);
    tables.pages = (void *)(tables.runs + header->run_count);
    tables.user = (void *)(tables.pages + header->page_count);
    *tables_p = tables;
}

static uint64_t tables_offset(const iso_image_header_t *header)
{
    return sizeof *header + header->stored_count * ISO_IMAGE_PAGE;
}

/* Counts that neither overflow nor speak of more than there can be, and a space that ISO_SPACE_BASE and ISO_SPACE_SIZE could say. */
static bool header_fits(const iso_image_header_t *header, uint64_t file_bytes)
{
    uint64_t end;
    return header->base % ISO_SLOT_SIZE == 0 && header->space_size % ISO_SLOT_SIZE == 0 &&
           header->base > 0 && header->space_size > 0 &&
           !__builtin_add_overflow(header->base, header->space_size, &end) &&
           header->parent_count <= ISO_IMAGE_PARENTS_MAX &&
           header->extent_count <= file_bytes / sizeof(iso_extent_t) &&
           header->run_count <= file_bytes / sizeof(iso_image_run_t) &&
           header->page_count <= file_bytes / sizeof(uint64_t) &&
           header->stored_count <= file_bytes / ISO_IMAGE_PAGE &&
           header->user_len <= ISO_IMAGE_USER_MAX;
}

/* Do the lists say of heap `i` what can be? Each begins where the one before ends. */
static bool entry_fits(const iso_image_t *image, uint32_t i, iso_image_entry_t *expected)
{
    const iso_image_entry_t *entry = &image->tables.heaps[i];
    const iso_image_header_t *header = &image->header;
    if (entry->extents != expected->extents || entry->runs != expected->runs ||
        entry->pages != expected->pages ||
        entry->extent_count > header->extent_count - entry->extents ||
        entry->run_count > header->run_count - entry->runs ||
        entry->page_count > header->page_count - entry->pages || entry->extent_count > UINT32_MAX)
        return false;
    expected->extents += entry->extent_count;
    expected->runs += entry->run_count;
    expected->pages += entry->page_count;
    return true;
}

static bool lists_fit(const iso_image_t *image)
{
    const iso_image_header_t *header = &image->header;
    iso_image_entry_t expected = {.heap = 0};
    for (uint64_t i = 0; i < header->parent_count; i++)
        if (!memchr(image->tables.parents[i].name, 0, ISO_IMAGE_NAME) ||
            strchr(image->tables.parents[i].name, '/'))
            return false;
    for (uint32_t i = 0; i < header->heap_count; i++)
        if (!entry_fits(image, i, &expected))
            return false;
    return expected.extents == header->extent_count && expected.runs == header->run_count &&
           expected.pages == header->page_count;
}

/* Are the runs of a heap, whose entry fits, all its pages? */
static bool runs_fit(const iso_image_t *image, const iso_image_entry_t *entry)
{
    uint64_t pages = 0;
    for (uint64_t i = entry->runs; i < entry->runs + entry->run_count; i++) {
        const iso_image_run_t *run = &image->tables.runs[i];
        if (run->length == 0 || run->length % ISO_IMAGE_PAGE != 0 ||
            run->length / ISO_IMAGE_PAGE > entry->page_count - pages ||
            run->file > image->header.parent_count || run->offset % ISO_IMAGE_PAGE != 0)
            return false;
        pages += run->length / ISO_IMAGE_PAGE;
    }
    return pages == entry->page_count;
}

static bool tables_fit(const iso_image_t *image)
{
    if (!lists_fit(image))
        return false;
    for (uint32_t i = 0; i < image->header.heap_count; i++)
        if (!runs_fit(image, &image->tables.heaps[i]))
            return false;
    return true;
}

/* Do all runs lie among the pages of their files, whose lengths are known? */
static bool runs_are_pages(const iso_image_t *image)
{
    for (uint64_t i = 0; i < image->header.run_count; i++) {
        const iso_image_run_t *run = &image->tables.runs[i];
        const uint64_t end = image->lengths[run->file].pages_end;
        if (run->offset < sizeof(iso_image_header_t) || run->offset > end ||
            run->length > end - run->offset)
            return false;
    }
    return true;
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

/* The name of a file that it consists of. */
static const char *name_of(const iso_image_t *image, uint64_t file)
{
    return file ? image->tables.parents[file - 1].name : "the file";
}

iso_status_t iso_image_damaged(const iso_image_t *image, const iso_logger_t *logger, uint64_t file,
                               uint64_t offset, uint64_t bytes, const char *what)
{
    iso_log(logger, ISO_LOG_ERROR,
            "image %s is damaged: bytes %" PRIu64 " to %" PRIu64
            " of %s (%s) are not those that were saved: restore from another image",
            image->path, offset, offset + bytes - 1, name_of(image, file), what);
    return ISO_ERR_INVALID;
}

iso_status_t iso_image_read(const iso_image_t *image, const iso_logger_t *logger, uint64_t file,
                            uint64_t offset, struct iovec *pieces, int count)
{
    while (count > 0) {
        ssize_t n = preadv(image->fds[file], pieces, count, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cannot_read(image, logger, errno);
        if (n == 0) {
            iso_log(logger, ISO_LOG_ERROR,
                    "image %s is cut: %s ends at byte %" PRIu64 ": restore from another image",
                    image->path, name_of(image, file), offset);
            return ISO_ERR_INVALID;
        }
        offset += (uint64_t)n;
        iso_os_pieces_done(&pieces, &count, (size_t)n);
    }
    return ISO_OK;
}

static iso_status_t read_bytes(const iso_image_t *image, const iso_logger_t *logger, uint64_t file,
                               uint64_t offset, void *bytes, size_t count)
{
    struct iovec piece = {bytes, count};
    return count ? iso_image_read(image, logger, file, offset, &piece, 1) : ISO_OK;
}

static iso_image_length_t length_by(const iso_image_header_t *header)
{
    const uint64_t pages_end = tables_offset(header);
    return (iso_image_length_t){pages_end + iso_image_tables_bytes(header), pages_end};
}

/* The length that a file has. */
static iso_status_t length_of(const iso_image_t *image, const iso_logger_t *logger, uint64_t file,
                              uint64_t *bytes_p)
{
    struct stat found;
    if (fstat(image->fds[file], &found) != 0)
        return cannot_read(image, logger, errno);
    if (!S_ISREG(found.st_mode)) {
        iso_log(logger, ISO_LOG_ERROR, "image %s: %s is no file", image->path,
                file ? name_of(image, file) : "it");
        return ISO_ERR_INVALID;
    }
    *bytes_p = (uint64_t)found.st_size;
    return ISO_OK;
}

iso_status_t iso_image_check_length(const iso_image_t *image, const iso_logger_t *logger,
                                    uint64_t file)
{
    uint64_t bytes;
    iso_status_t status = length_of(image, logger, file, &bytes);
    if (status != ISO_OK || bytes == image->lengths[file].bytes)
        return status;
    iso_log(logger, ISO_LOG_ERROR,
            "image %s is damaged: %s ends at byte %" PRIu64 ", not at byte %" PRIu64
            " where it ended when it was saved: restore from another image",
            image->path, name_of(image, file), bytes, image->lengths[file].bytes);
    return ISO_ERR_INVALID;
}

static iso_status_t read_header(iso_image_t *image, const iso_logger_t *logger)
{
    iso_image_header_t *header = &image->header;
    uint64_t bytes;
    iso_status_t status = length_of(image, logger, 0, &bytes);
    if (status == ISO_OK)
        status = read_bytes(image, logger, 0, 0, header, sizeof *header);
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
        return iso_image_damaged(image, logger, 0, 0, sizeof *header, "its header");
    if (header->layout != iso_heap_layout_digest())
        return refuse(image, logger, ISO_ERR_VERSION,
                      "was saved by a build of the library that lays heaps out differently");
    image->lengths[0] = length_by(header);
    status = iso_image_check_length(image, logger, 0);
    if (status != ISO_OK)
        return status;
    return header_fits(header, bytes)
               ? ISO_OK
               : refuse(image, logger, ISO_ERR_INVALID, "has a header that cannot be");
}

/* The first so many bytes of the tables, which have this checksum. */
static iso_status_t read_tables(iso_image_t *image, const iso_logger_t *logger, uint64_t bytes,
                                uint64_t checksum, bool (*fit)(const iso_image_t *image))
{
    const uint64_t offset = tables_offset(&image->header);
    free(image->memory);
    image->memory = malloc(bytes + 1);
    if (!image->memory)
        return refuse(image, logger, ISO_ERR_NO_MEMORY, "no memory for its tables");
    iso_status_t status = read_bytes(image, logger, 0, offset, image->memory, bytes);
    if (status != ISO_OK)
        return status;
    if (iso_checksum_of(image->memory, bytes) != checksum)
        return iso_image_damaged(image, logger, 0, offset, bytes, "its lists of heaps and pages");
    iso_image_tables_place(&image->header, image->memory, &image->tables);
    return fit(image) ? ISO_OK
                      : refuse(image, logger, ISO_ERR_INVALID, "has lists of heaps that cannot be");
}

/* The parent is there, and the one that it was. */
static iso_status_t open_parent(iso_image_t *image, const iso_logger_t *logger, uint64_t i)
{
    const iso_image_parent_t *parent = &image->tables.parents[i];
    const int folder = (int)(strrchr(image->real, '/') - image->real) + 1;
    iso_image_header_t header;
    char *path = malloc((size_t)folder + ISO_IMAGE_NAME);
    if (!path)
        return ISO_ERR_NO_MEMORY;
    snprintf(path, (size_t)folder + ISO_IMAGE_NAME, "%.*s%s", folder, image->real, parent->name);
    image->fds[i + 1] = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    free(path);
    if (image->fds[i + 1] < 0) {
        iso_log(logger, ISO_LOG_ERROR,
                "image %s is an increment to %s in the same folder, which cannot be read: %s",
                image->path, parent->name, strerror(errno));
        return ISO_ERR_SYSTEM;
    }
    uint64_t bytes;
    iso_status_t status = length_of(image, logger, i + 1, &bytes);
    if (status == ISO_OK)
        status = read_bytes(image, logger, i + 1, 0, &header, sizeof header);
    if (status != ISO_OK)
        return status;
    if (header.check == parent->check &&
        header.check == iso_checksum_of(&header, offsetof(iso_image_header_t, check))) {
        image->lengths[i + 1] = length_by(&header);
        return iso_image_check_length(image, logger, i + 1);
    }
    iso_log(logger, ISO_LOG_ERROR,
            "image %s is an increment to %s in the same folder, which was replaced since, or is "
            "damaged (bytes 0 to 4095): restore from another image",
            image->path, parent->name);
    return ISO_ERR_INVALID;
}

/* The header is read, nothing behind it. */
static iso_status_t open_header(const iso_logger_t *logger, const char *path, iso_image_t **image_p)
{
    iso_image_t *image = calloc(1, sizeof *image);
    if (!image)
        return ISO_ERR_NO_MEMORY;
    for (size_t i = 0; i <= ISO_IMAGE_PARENTS_MAX; i++)
        image->fds[i] = -1;
    image->path = strdup(path);
    iso_status_t status = image->path ? ISO_OK : ISO_ERR_NO_MEMORY;
    if (status == ISO_OK) {
        image->fds[0] = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* should it be no file */
        status = image->fds[0] < 0 ? cannot_read(image, logger, errno) : read_header(image, logger);
    }
    if (status == ISO_OK) {
        image->real = realpath(path, NULL);
        status = image->real ? ISO_OK : cannot_read(image, logger, errno);
    }
    if (status == ISO_OK)
        *image_p = image;
    else
        iso_image_close(image);
    return status;
}

iso_status_t iso_image_open_lists(const iso_logger_t *logger, const char *path,
                                  iso_image_t **image_p)
{
    iso_image_t *image;
    iso_status_t status = open_header(logger, path, &image);
    if (status != ISO_OK)
        return status;
    status = read_tables(image, logger, iso_image_lists_bytes(&image->header), image->header.lists,
                         lists_fit);
    if (status == ISO_OK)
        *image_p = image;
    else
        iso_image_close(image);
    return status;
}

iso_status_t iso_image_complete(iso_image_t *image, const iso_logger_t *logger)
{
    iso_status_t status = read_tables(image, logger, iso_image_tables_bytes(&image->header),
                                      image->header.tables, tables_fit);
    for (uint64_t i = 0; status == ISO_OK && i < image->header.parent_count; i++)
        status = open_parent(image, logger, i);
    if (status == ISO_OK && !runs_are_pages(image))
        status =
            refuse(image, logger, ISO_ERR_INVALID, "has a list of pages that no file of it has");
    return status;
}

iso_status_t iso_image_open_for(const iso_logger_t *logger, const char *path, iso_image_t **image_p)
{
    iso_image_t *image;
    iso_status_t status = open_header(logger, path, &image);
    if (status != ISO_OK)
        return status;
    status = iso_image_complete(image, logger);
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
    for (size_t i = 0; i <= ISO_IMAGE_PARENTS_MAX; i++)
        if (image->fds[i] >= 0)
            close(image->fds[i]);
    free(image->memory);
    free(image->path);
    free(image->real);
    free(image);
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
        .parents = (uint32_t)header->parent_count,
        .bytes = tables_offset(header) + iso_image_tables_bytes(header),
        .page_bytes = header->page_count * ISO_IMAGE_PAGE,
        .time = (double)header->seconds + (double)header->nanoseconds * 1e-9,
        .user = image->tables.user,
        .user_len = header->user_len,
        .set = header->set,
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
    *heap_p = (iso_image_heap_t){(iso_heap_t *)(uintptr_t)entry->heap, slots,
                                 entry->page_count * ISO_IMAGE_PAGE};
    return ISO_OK;
}
