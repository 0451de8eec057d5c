/*
 * replace.h - a file that takes the place of an old one of its name when it is whole and on the disk.
 *
 * Until then it is called as the file with ".part" behind, and the old one is there as it was, whatever happens to the process or
 * the disk. Whoever writes a .part has a lock on it (of its open file: NFS and Lustre know those), so that one that a killed process
 * left is known as such, and written over by the next. On a file system without locks one that is there is taken for being written: it has
 * to be removed by hand. It begins with the magic of the file that it is to be, before anything else is in it: a file of this name that
 * does not, and is not empty, is not touched. Nor is one that has a second name.
 */
#ifndef ISO_CORE_REPLACE_H
#define ISO_CORE_REPLACE_H

#include "core/log.h"
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_replace {
    const iso_logger_t *logger;
    const char *path;  /* the caller's, as long as it is written */
    const char *magic; /* likewise, ISO_REPLACE_MAGIC bytes */
    char *part;        /* from malloc */
    int fd;            /* of the part */
    uint64_t told;     /* up to here the disk has begun to write */
} iso_replace_t;

#define ISO_REPLACE_MAGIC 8 /* bytes that all files of a kind begin with */

/* ISO_ERR_INVALID: path or the .part is something else than such a file, or path ends in .part. ISO_ERR_BUSY: another process is writing it.
 * ISO_ERR_SYSTEM, ISO_ERR_NO_MEMORY. All of these functions log. */
iso_status_t iso_replace_begin(iso_replace_t *file, const iso_logger_t *logger, const char *path,
                               const char *magic);
/* What it is called until then: from malloc. NULL: no memory. Does not log. */
char *iso_replace_part_of(const char *path);
/* All of the pieces, which are used up, at this place in the file. */
iso_status_t iso_replace_write(iso_replace_t *file, uint64_t offset, struct iovec *pieces,
                               int count);
/* What was written is on the disk, then it is the file, then that is on the disk; in these steps, between which a test may
 * end the process. After that only `end` is left. */
iso_status_t iso_replace_sync(iso_replace_t *file);
iso_status_t iso_replace_rename(iso_replace_t *file);
iso_status_t iso_replace_sync_folder(iso_replace_t *file);
/* Has it become the file? */
static inline bool iso_replace_is_done(const iso_replace_t *file)
{
    return !file->part;
}
/* Closes; a part that has not become the file is removed. */
void iso_replace_end(iso_replace_t *file);

#ifdef __cplusplus
}
#endif

#endif
