/* replace.c - see replace.h. */
#include "core/replace.h"
#include "core/os.h"
#include "core/quantity.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITE_BACK \
    ((uint64_t)16 << 20) /* bytes that the disk begins with while others are written */

static iso_status_t complain(const iso_replace_t *file, const char *what, int error)
{
    if (error == EFBIG && iso_os_file_limit() != UINT64_MAX) {
        iso_log(file->logger, ISO_LOG_ERROR,
                "%s: %s: %s: ulimit -f lets a file have %s: raise it; what was there of this name "
                "stays",
                file->path, what, strerror(error), ISO_SIZE(iso_os_file_limit()));
        return ISO_ERR_SYSTEM;
    }
    iso_log(file->logger, ISO_LOG_ERROR, "%s: %s: %s%s", file->path, what, strerror(error),
            error == ENOSPC || error == EDQUOT
                ? ": what was there of this name stays; make room, or give another place"
                : "");
    return ISO_ERR_SYSTEM;
}

static iso_status_t refuse(const iso_replace_t *file, iso_status_t status, const char *why)
{
    iso_log(file->logger, ISO_LOG_ERROR, "%s: %s %s", file->path, file->part, why);
    return status;
}

/* ---- the part ---------------------------------------------------------------------------------- */

static const char part_end[] = ".part";

char *iso_replace_part_of(const char *path)
{
    const size_t room = strlen(path) + sizeof part_end;
    char *part = malloc(room);
    if (part)
        snprintf(part, room, "%s%s", path, part_end);
    return part;
}

static bool is_part(const char *path)
{
    const size_t length = strlen(path), end = sizeof part_end - 1;
    return length >= end && strcmp(path + length - end, part_end) == 0;
}

/* *created: it was not there. *again: it has gone meanwhile. */
static iso_status_t open_part(iso_replace_t *file, bool *created, bool *again)
{
    const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    file->fd = open(file->part, flags | O_CREAT | O_EXCL, 0666);
    *created = file->fd >= 0;
    const bool there = file->fd < 0 && errno == EEXIST;
    if (there)
        file->fd = open(file->part, flags);
    *again = there && file->fd < 0 && errno == ENOENT;
    return file->fd >= 0 || *again
               ? ISO_OK
               : complain(file, "cannot be written (as a file with .part behind its name)", errno);
}

/* *again: the one that was opened is another's, or nobody's, by now. */
static iso_status_t lock_part(iso_replace_t *file, bool created, bool *again)
{
    struct stat opened, named;
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    const int error = fcntl(file->fd, F_OFD_SETLK, &whole) != 0 ? errno : 0;
    if (error == EAGAIN || error == EACCES) {
        iso_log(file->logger, ISO_LOG_ERROR,
                "%s: another process is writing it: wait, or give another name", file->path);
        return ISO_ERR_BUSY;
    }
    if (error && !created) { /* without locks, who has created it has it */
        iso_log(file->logger, ISO_LOG_ERROR,
                "%s: %s is there, and cannot be locked to see if it is being written (%s): if no "
                "process does, remove it; or give another name",
                file->path, file->part, strerror(error));
        return ISO_ERR_BUSY;
    }
    if (fstat(file->fd, &opened) != 0)
        return complain(file, "cannot be looked at", errno);
    /* its writer may have finished between our open and our lock */
    *again = stat(file->part, &named) != 0 || named.st_ino != opened.st_ino ||
             named.st_dev != opened.st_dev;
    return ISO_OK;
}

/* Is it what a process that was killed left, or new? Whatever else is there of this name is the user's. */
static iso_status_t check_part(const iso_replace_t *file)
{
    struct stat opened;
    char magic[ISO_REPLACE_MAGIC];
    if (fstat(file->fd, &opened) != 0)
        return complain(file, "cannot be looked at", errno);
    if (!S_ISREG(opened.st_mode))
        return refuse(file, ISO_ERR_INVALID, "is no file: remove it, or give another name");
    if (opened.st_size > 0 && (pread(file->fd, magic, sizeof magic, 0) != sizeof magic ||
                               memcmp(magic, file->magic, sizeof magic) != 0))
        return refuse(file, ISO_ERR_INVALID,
                      "is there, and nothing that a checkpoint has left: move it, or give another "
                      "name");
    if (opened.st_nlink > 1)
        return refuse(file, ISO_ERR_INVALID,
                      "has another name as well, which may be in use: remove this one");
    return ISO_OK;
}

/* It is marked as one of ours before anything else is in it. */
static iso_status_t empty_part(iso_replace_t *file)
{
    char magic[ISO_REPLACE_MAGIC];
    struct iovec begin = {magic, sizeof magic};
    memcpy(magic, file->magic, sizeof magic);
    iso_status_t status = ftruncate(file->fd, 0) != 0 ? complain(file, "cannot be written", errno)
                                                      : iso_replace_write(file, 0, &begin, 1);
    if (status != ISO_OK)
        unlink(file->part);
    return status;
}

static void give_up_part(iso_replace_t *file)
{
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
}

iso_status_t iso_replace_begin(iso_replace_t *file, const iso_logger_t *logger, const char *path,
                               const char *magic)
{
    struct stat old;
    iso_status_t status = ISO_OK;
    *file = (iso_replace_t){.logger = logger, .path = path, .magic = magic, .fd = -1};
    if (stat(path, &old) == 0 && !S_ISREG(old.st_mode)) {
        iso_log(logger, ISO_LOG_ERROR, "%s: cannot be written: it is there, and no file", path);
        return ISO_ERR_INVALID;
    }
    if (is_part(path)) {
        iso_log(logger, ISO_LOG_ERROR,
                "%s: names that end in %s are those of files that are not whole yet: give another",
                path, part_end);
        return ISO_ERR_INVALID;
    }
    file->part = iso_replace_part_of(path);
    if (!file->part) {
        iso_log(logger, ISO_LOG_ERROR, "%s: no memory for its name", path);
        return ISO_ERR_NO_MEMORY;
    }
    for (bool created, again = true; again && status == ISO_OK;) {
        give_up_part(file);
        status = open_part(file, &created, &again);
        if (status == ISO_OK && !again)
            status = lock_part(file, created, &again);
    }
    if (status == ISO_OK)
        status = check_part(file);
    if (status == ISO_OK)
        status = empty_part(file);
    if (status != ISO_OK) {
        give_up_part(file);
        free(file->part);
        file->part = NULL;
    }
    return status;
}

/* ---- the file ---------------------------------------------------------------------------------- */

iso_status_t iso_replace_write(iso_replace_t *file, uint64_t offset, struct iovec *pieces,
                               int count)
{
    uint64_t end = offset;
    for (int i = 0; i < count; i++)
        end += pieces[i].iov_len;
    if (end > iso_os_file_limit())
        return complain(file, "cannot be written", EFBIG);
    while (count > 0) {
        ssize_t n = pwritev(file->fd, pieces, count, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return complain(file, "cannot be written", n < 0 ? errno : EIO);
        offset += (uint64_t)n;
        iso_os_pieces_done(&pieces, &count, (size_t)n);
    }
    if (offset >= file->told + WRITE_BACK) {
        iso_os_write_back(file->fd, file->told, offset - file->told);
        file->told = offset;
    }
    return ISO_OK;
}

iso_status_t iso_replace_sync(iso_replace_t *file)
{
    return fsync(file->fd) == 0 ? ISO_OK : complain(file, "cannot be brought to the disk", errno);
}

iso_status_t iso_replace_rename(iso_replace_t *file)
{
    if (rename(file->part, file->path) != 0)
        return complain(file, "cannot be given its name", errno);
    free(file->part);
    file->part = NULL; /* there is none any more */
    return ISO_OK;
}

iso_status_t iso_replace_sync_folder(iso_replace_t *file)
{
    const char *slash = strrchr(file->path, '/');
    char *folder = slash ? strndup(file->path, (size_t)(slash - file->path) + 1) : strdup(".");
    const int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    const int error = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    free(folder);
    if (error == 0 || error == EINVAL) /* a file system that has nothing to bring to a disk */
        return ISO_OK;
    iso_log(file->logger, ISO_LOG_ERROR,
            "%s: the new one is there, and whole, but its folder could not be brought to the disk "
            "(%s): after a crash of the machine the old one may be there again",
            file->path, strerror(error));
    return ISO_ERR_SYSTEM;
}

void iso_replace_end(iso_replace_t *file)
{
    if (file->part)
        unlink(file->part);
    if (file->fd >= 0)
        close(file->fd);
    free(file->part);
}
