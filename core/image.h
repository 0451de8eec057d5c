/*
 * image.h - the file that heaps are saved in, and an image that is open for reading.
 *
 *   header    where everything else is, and what must fit: version, byte order, layout of heaps, base of the space
 *   tables    heaps; their extents; their live runs; checksums of blocks; the program's own bytes; zeros up to a multiple of 64 KiB
 *   pages     of one heap after the other, run after run
 *
 * A heap's pages are divided into blocks of 1 MiB, the last one shorter, with a checksum each: so that one heap can be
 * restored alone, and damage be named by its place. One more is of the tables, and one of the header. There is no byte in the
 * file without one, and the file ends with its last page.
 *
 * Runs lie at a multiple of the page size that they were saved with. All numbers are as the machine has them.
 */
#ifndef ISO_CORE_IMAGE_H
#define ISO_CORE_IMAGE_H

#include "core/checksum.h"
#include "core/left.h"
#include "core/log.h"
#include <isomalloc/checkpoint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_IMAGE_MAGIC "isoimage" /* 8 bytes, without the end */
#define ISO_IMAGE_BYTE_ORDER 0x01020304u
#define ISO_IMAGE_VERSION 1u
#define ISO_IMAGE_ALIGNMENT ((uint64_t)64 << 10)
#define ISO_IMAGE_BLOCK ((uint64_t)1 << 20)
#define ISO_IMAGE_USER_MAX ((size_t)1 << 20)

typedef struct iso_image_header {
    char magic[8];
    uint32_t byte_order, version;
    uint64_t layout; /* iso_heap_layout_digest */
    uint64_t base, space_size;
    uint32_t page_size;
    uint32_t rank, size; /* of the job that saved it */
    uint32_t heap_count;
    uint64_t extent_count, run_count, block_count, user_len;
    uint64_t page_offset, page_bytes; /* of the pages in the file */
    int64_t seconds;                  /* since 1970 */
    uint32_t nanoseconds, zero;
    uint64_t tables; /* the checksum of what is between the header and the pages */
    uint64_t check;  /* of the header up to here */
} iso_image_header_t;

typedef struct iso_image_entry {
    uint64_t heap, epoch;
    uint64_t extents, runs, blocks; /* the first of them, in the tables */
    uint64_t extent_count, run_count;
    uint64_t offset, bytes; /* of its pages, in the file */
} iso_image_entry_t;

/* Where each table is; `bytes` in all, with the zeros. */
typedef struct iso_image_tables {
    iso_image_entry_t *heaps;
    iso_extent_t *extents;
    iso_run_t *runs;
    uint64_t *blocks;
    unsigned char *user;
    uint64_t bytes;
} iso_image_tables_t;

struct iso_image {
    int fd;
    char *path; /* for messages */
    iso_image_header_t header;
    iso_image_tables_t tables; /* one piece of memory, which begins with `heaps` */
};

/* Memory for tables with as many of everything as the header says, zeroed; the caller frees tables_p->heaps. */
iso_status_t iso_image_tables_new(const iso_image_header_t *header, iso_image_tables_t *tables_p);

static inline uint64_t iso_image_blocks(uint64_t bytes)
{
    return (bytes + ISO_IMAGE_BLOCK - 1) / ISO_IMAGE_BLOCK;
}

/* A heap's runs, block by block. */
typedef struct iso_image_walk {
    const iso_run_t *runs; /* that are left */
    uint64_t count;
    size_t within; /* the first of them */
} iso_image_walk_t;

/* Runs are not shorter than that, but for where a block cuts one. */
#define ISO_IMAGE_PIECES (ISO_IMAGE_BLOCK / 4096 + 1)
typedef struct iso_image_block {
    struct iovec pieces[ISO_IMAGE_PIECES];
    int count;
    size_t bytes;
} iso_image_block_t;
/* The next block; false: there is none. */
bool iso_image_walk_next(iso_image_walk_t *walk, iso_image_block_t *block_p);
uint64_t iso_image_block_checksum(iso_checksum_t *checksum, const iso_image_block_t *block);

/* Reads all of a heap's pages to where they belong, or (into NULL) nowhere, and compares checksums. ISO_ERR_INVALID,
 * ISO_ERR_SYSTEM, ISO_ERR_NO_MEMORY: logged. */
typedef enum iso_image_reading {
    ISO_IMAGE_TO_PLACE,
    ISO_IMAGE_TO_NOWHERE
} iso_image_reading_t;
iso_status_t iso_image_read_heap(iso_image_t *image, const iso_logger_t *logger, uint32_t number,
                                 iso_image_reading_t reading);

/* iso_image_open that logs as the job does. */
iso_status_t iso_image_open_for(const iso_logger_t *logger, const char *path,
                                iso_image_t **image_p);

#ifdef __cplusplus
}
#endif

#endif
