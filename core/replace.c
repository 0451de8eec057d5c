/* replace.c - see replace.h. */
#include "core/replace.h"
#include "core/os.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITE_BACK \
    ((uint64_t)16 << 20) /* bytes that the disk begins with while others are written */

static iso_status_t complain(const iso_replace_t *file, const char *what, int error)
{
    iso_log(file->logger, ISO_LOG_ERROR, "%s: %s: %s%s", file->path, what, strerror(error),
            error == ENOSPC || error == EDQUOT
                ? ": what was there of this name stays; make room, or give another place"
                : "");
    return ISO_ERR_SYSTEM;
}

/* Opens the part and locks it; *again: the one that was opened is another's, or nobody's, by now. */
static iso_status_t open_part(iso_replace_t *file, bool *again)
{
    struct stat opened, named;
    *again = false;
    file->fd = open(file->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (file->fd < 0)
        return complain(file, "cannot be written (as a file with .part behind its name)", errno);
    /* a file system without locks has none that we could meet */
    if (flock(file->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        iso_log(file->logger, ISO_LOG_ERROR,
                "%s: another process is writing it: wait, or give another name", file->path);
        return ISO_ERR_BUSY;
    }
    if (fstat(file->fd, &opened) != 0)
        return complain(file, "cannot be looked at", errno);
    if (!S_ISREG(opened.st_mode)) {
        iso_log(file->logger, ISO_LOG_ERROR, "%s: %s is no file: remove it", file->path,
                file->part);
        return ISO_ERR_INVALID;
    }
    /* its writer may have finished between our open and our lock */
    *again = stat(file->part, &named) != 0 || named.st_ino != opened.st_ino ||
             named.st_dev != opened.st_dev;
    if (!*again && ftruncate(file->fd, 0) != 0)
        return complain(file, "cannot be written", errno);
    return ISO_OK;
}

iso_status_t iso_replace_begin(iso_replace_t *file, const iso_logger_t *logger, const char *path)
{
    struct stat old;
    const size_t room = strlen(path) + sizeof ".part";
    *file = (iso_replace_t){.logger = logger, .path = path, .fd = -1};
    if (stat(path, &old) == 0 && !S_ISREG(old.st_mode)) {
        iso_log(logger, ISO_LOG_ERROR, "%s: cannot be written: it is there, and no file", path);
        return ISO_ERR_INVALID;
    }
    file->part = malloc(room);
    if (!file->part) {
        iso_log(logger, ISO_LOG_ERROR, "%s: no memory for its name", path);
        return ISO_ERR_NO_MEMORY;
    }
    snprintf(file->part, room, "%s.part", path);
    for (bool again = true; again;) {
        iso_status_t status = open_part(file, &again);
        if (status == ISO_OK && !again)
            return ISO_OK;
        if (file->fd >= 0)
            close(file->fd);
        file->fd = -1;
        if (status != ISO_OK) {
            free(file->part);
            file->part = NULL;
            return status;
        }
    }
    return ISO_OK;
}

iso_status_t iso_replace_write(iso_replace_t *file, uint64_t offset, struct iovec *pieces,
                               int count)
{
    while (count > 0) {
        ssize_t n = pwritev(file->fd, pieces, count, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return complain(file, "cannot be written", n < 0 ? errno : EIO);
        offset += (uint64_t)n;
        for (; count > 0 && (size_t)n >= pieces->iov_len; pieces++, count--)
            n -= (ssize_t)pieces->iov_len;
        if (count > 0) {
            pieces->iov_base = (char *)pieces->iov_base + n;
            pieces->iov_len -= (size_t)n;
        }
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
    if (!folder) {
        iso_log(file->logger, ISO_LOG_ERROR, "%s: no memory for its folder's name", file->path);
        return ISO_ERR_NO_MEMORY;
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    free(folder);
    /* EINVAL: a file system that has nothing to bring to a disk */
    return error == 0 || error == EINVAL
               ? ISO_OK
               : complain(file, "the folder cannot be brought to the disk", error);
}

void iso_replace_end(iso_replace_t *file)
{
    if (file->part)
        unlink(file->part);
    if (file->fd >= 0)
        close(file->fd);
    free(file->part);
}
