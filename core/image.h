/*
 * image.h - the file that heaps are saved in, and an image that is open for reading.
 *
 *   header    one page of 4 KiB: what must fit (version, byte order, layout of heaps, base of the space), how much of everything there is
 *   pages     those of the heaps' live runs that are in this file
 *   tables    parents; heaps; their extents; their live runs; a checksum of each page; the program's own bytes
 *             The first three, the lists, are short, and have a checksum of their own: whoever wants to know what addresses are wanted
 *             reads no more.
 *
 * A run says in which file its pages are, and where: in this one, or in a parent, an earlier image that this one is an increment to. So an
 * increment knows all of its heaps' pages, and whoever restores one reads each page once, wherever it is. Parents are known by
 * their names in the same folder and by the checksum of their header, on which everything in them depends.
 *
 * There is no byte without a checksum: pages of 4 KiB (whatever the OS page is) have one each, the tables have one, which
 * the header has, and the header ends with its own. The file ends with the tables. All numbers are as the machine has them.
 */
#ifndef ISO_CORE_IMAGE_H
#define ISO_CORE_IMAGE_H

#include "core/log.h"
#include "core/slots.h"
#include <isomalloc/checkpoint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_IMAGE_MAGIC "isoimage" /* 8 bytes, without the end; also of one that is being written */
#define ISO_IMAGE_BYTE_ORDER 0x01020304u
#define ISO_IMAGE_VERSION 2u
#define ISO_IMAGE_PAGE ((size_t)4096)
#define ISO_IMAGE_USER_MAX ((size_t)1 << 20)
#define ISO_IMAGE_PARENTS_MAX 32u
#define ISO_IMAGE_NAME 248

typedef struct iso_image_header {
    char magic[8];
    uint32_t byte_order, version;
    uint64_t layout; /* iso_heap_layout_digest */
    uint64_t base, space_size;
    uint32_t page_size;
    uint32_t rank, size; /* of the job that saved it */
    uint32_t heap_count;
    uint64_t parent_count, extent_count, run_count;
    uint64_t page_count, stored_count; /* of all runs; of those in this file */
    uint64_t user_len;
    int64_t seconds; /* since 1970 */
    uint64_t nanoseconds;
    uint64_t tables;    /* their checksum */
    uint64_t lists;     /* that of the first three of them */
    uint8_t cookie[16]; /* of the job that saved it */
    uint64_t set;       /* iso_checkpoint_params_t::set */
    uint64_t moment;    /* how often that job had been at iso_barrier */
    uint8_t zeros[3920];
    uint64_t check; /* of the header up to here */
} iso_image_header_t;

typedef struct iso_image_parent {
    uint64_t check; /* of its header */
    char name[ISO_IMAGE_NAME];
} iso_image_parent_t;

typedef struct iso_image_entry {
    uint64_t heap, epoch;
    uint64_t extents, runs, pages; /* the first of them, in the tables */
    uint64_t extent_count, run_count, page_count;
} iso_image_entry_t;

typedef struct iso_image_run {
    uint64_t address, length;
    uint64_t offset; /* in the file */
    uint64_t file;   /* 0: this one, else 1 + the index of a parent */
} iso_image_run_t;

typedef struct iso_image_tables {
    iso_image_parent_t *parents;
    iso_image_entry_t *heaps;
    iso_extent_t *extents;
    iso_image_run_t *runs;
    uint64_t *pages; /* checksums, run by run */
    unsigned char *user;
} iso_image_tables_t;

/* How long a file is, and where its pages end: they begin behind its header. */
typedef struct iso_image_length {
    uint64_t bytes, pages_end;
} iso_image_length_t;

struct iso_image {
    int fds[1 + ISO_IMAGE_PARENTS_MAX];                    /* this file, and its parents */
    iso_image_length_t lengths[1 + ISO_IMAGE_PARENTS_MAX]; /* of those that were opened */
    char *path;                                            /* as it was given: for messages */
    char *real; /* absolute and without symbolic links: to find it again, and its parents */
    iso_image_header_t header;
    void *memory; /* of the tables */
    iso_image_tables_t tables;
};

/* Bytes of the tables that the header speaks of, and of the lists, with which they begin; where each is in memory that has as many. */
uint64_t iso_image_tables_bytes(const iso_image_header_t *header);
uint64_t iso_image_lists_bytes(const iso_image_header_t *header);
void iso_image_tables_place(const iso_image_header_t *header, void *memory,
                            iso_image_tables_t *tables_p);

/* Reads all of a heap's pages to where they belong, or nowhere, and compares checksums. ISO_ERR_INVALID, ISO_ERR_SYSTEM,
 * ISO_ERR_NO_MEMORY: logged. */
typedef enum iso_image_reading {
    ISO_IMAGE_TO_PLACE,
    ISO_IMAGE_TO_NOWHERE
} iso_image_reading_t;
/* Many pages of zeros in a row need not be written to where they belong, which would make them resident, if it can make them
 * zeros otherwise. false: it cannot, they are written. */
typedef struct iso_image_zeros {
    bool (*make)(void *address, size_t length, void *arg);
    void *arg;
} iso_image_zeros_t;
/* zeros NULL: all are written. */
iso_status_t iso_image_read_heap(iso_image_t *image, const iso_logger_t *logger, uint32_t number,
                                 iso_image_reading_t reading, const iso_image_zeros_t *zeros);

/* Is the file as long as it has to be? ISO_ERR_INVALID, ISO_ERR_SYSTEM: logged. */
iso_status_t iso_image_check_length(const iso_image_t *image, const iso_logger_t *logger,
                                    uint64_t file);
/* Maps all of a heap's pages to where they belong, copy-on-write, without looking at them (a file that was cut meanwhile is refused);
 * and makes that plain memory again, after an error as well; where that cannot be done it ends the process, since the memory is
 * about to be somebody else's. core_dump: as ISO_CORE_DUMP, of which a new mapping knows nothing. ISO_ERR_SYSTEM, ISO_ERR_INVALID: logged. */
iso_status_t iso_image_map_heap(const iso_image_t *image, const iso_logger_t *logger,
                                uint32_t number, bool core_dump);
void iso_image_unmap_heap(const iso_image_t *image, uint32_t number, bool core_dump);
/* How many mappings that takes. 0: pages of this system are larger than those of the image. */
uint64_t iso_image_mappings(const iso_image_t *image, uint32_t number);

/* For image_pages.c. Reads as many bytes as the pieces, which are used up, have room for; `file` is as in a run. Says that
 * some of them are damaged, and returns so. */
iso_status_t iso_image_read(const iso_image_t *image, const iso_logger_t *logger, uint64_t file,
                            uint64_t offset, struct iovec *pieces, int count);
iso_status_t iso_image_damaged(const iso_image_t *image, const iso_logger_t *logger, uint64_t file,
                               uint64_t offset, uint64_t bytes, const char *what);

/* iso_image_open that logs as the job does. In two steps: of an image whose lists are open no more is read than the header and
 * them, and its parents are not looked at; the other reads and checks the rest. */
iso_status_t iso_image_open_for(const iso_logger_t *logger, const char *path,
                                iso_image_t **image_p);
iso_status_t iso_image_open_lists(const iso_logger_t *logger, const char *path,
                                  iso_image_t **image_p);
iso_status_t iso_image_complete(iso_image_t *image, const iso_logger_t *logger);

#ifdef __cplusplus
}
#endif

#endif
