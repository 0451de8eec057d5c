/*
 * pup_file.c - pup_ers to and from files, by a descriptor or by stdio.
 *
 * By a descriptor small items go through a buffer; what is as large as the buffer, a heap's pages above all, goes
 * past it, straight from and to where it is.
 */
#include "core/log.h"
#include "core/pup.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_SIZE ((size_t)64 << 10)

static iso_status_t complain(const char *what, const char *why)
{
    iso_logger_t logger = iso_logger_default();
    iso_log(&logger, ISO_LOG_ERROR, "pup: a file cannot be %s: %s", what, why);
    return ISO_ERR_SYSTEM;
}

static iso_status_t too_short(size_t bytes)
{
    iso_logger_t logger = iso_logger_default();
    iso_log(&logger, ISO_LOG_ERROR, "pup: the file ends %zu bytes too soon", bytes);
    return ISO_ERR_INVALID;
}

/* ---- by a descriptor ---- */

typedef struct descriptor {
    int fd;
    bool seeks;       /* what is read ahead can be given back */
    size_t at, until; /* of the buffer, not written yet, or not unpacked yet */
    unsigned char buffer[BUFFER_SIZE];
} descriptor_t;

static iso_status_t write_all(int fd, const unsigned char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t n = write(fd, bytes, count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return complain("written", n < 0 ? strerror(errno) : "nothing was");
        bytes += n;
        count -= (size_t)n;
    }
    return ISO_OK;
}

static iso_status_t flush_fd(void *context)
{
    descriptor_t *file = context;
    iso_status_t status = write_all(file->fd, file->buffer, file->until);
    file->until = 0;
    return status;
}

static iso_status_t to_fd(void *context, void *data, size_t items, size_t size, iso_pup_type_t type)
{
    descriptor_t *file = context;
    size_t bytes = items * size;
    (void)type;
    if (bytes > BUFFER_SIZE - file->until) {
        iso_status_t status = flush_fd(file);
        if (status != ISO_OK)
            return status;
    }
    if (bytes > BUFFER_SIZE)
        return write_all(file->fd, data, bytes);
    memcpy(file->buffer + file->until, data, bytes);
    file->until += bytes;
    return ISO_OK;
}

/* At least `least` bytes, at most `most`. */
static iso_status_t read_some(int fd, unsigned char *bytes, size_t least, size_t most,
                              size_t *count_p)
{
    size_t count = 0;
    while (count < least) {
        ssize_t n = read(fd, bytes + count, most - count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return complain("read", strerror(errno));
        if (n == 0)
            return too_short(least - count);
        count += (size_t)n;
    }
    *count_p = count;
    return ISO_OK;
}

static iso_status_t from_fd(void *context, void *data, size_t items, size_t size,
                            iso_pup_type_t type)
{
    descriptor_t *file = context;
    unsigned char *to = data;
    size_t bytes = items * size, there = file->until - file->at;
    (void)type;
    size_t now = bytes < there ? bytes : there;
    memcpy(to, file->buffer + file->at, now);
    file->at += now;
    to += now;
    bytes -= now;
    if (bytes == 0)
        return ISO_OK;
    if (!file->seeks || bytes >= BUFFER_SIZE)
        return read_some(file->fd, to, bytes, bytes, &now);
    file->at = file->until = 0;
    iso_status_t status = read_some(file->fd, file->buffer, bytes, BUFFER_SIZE, &file->until);
    if (status != ISO_OK)
        return status;
    memcpy(to, file->buffer, bytes);
    file->at = bytes;
    return ISO_OK;
}

static void close_reading(void *context)
{
    descriptor_t *file = context;
    if (file->until > file->at)
        lseek(file->fd, -(off_t)(file->until - file->at), SEEK_CUR);
    free(file);
}

static const iso_pup_kind_t fd_packer = {.struct_size = sizeof fd_packer,
                                         .name = "to descriptor",
                                         .direction = ISO_PUP_PACKING,
                                         .items = to_fd,
                                         .flush = flush_fd,
                                         .destroy = free};
static const iso_pup_kind_t fd_unpacker = {.struct_size = sizeof fd_unpacker,
                                           .name = "from descriptor",
                                           .direction = ISO_PUP_UNPACKING,
                                           .items = from_fd,
                                           .destroy = close_reading};

static pup_er open_fd(const iso_pup_kind_t *kind, int fd)
{
    descriptor_t *file = malloc(sizeof *file);
    if (file) {
        file->fd = fd;
        file->seeks = lseek(fd, 0, SEEK_CUR) >= 0;
        file->at = file->until = 0;
    }
    return iso_pup_new_own(kind, file);
}

pup_er iso_pup_new_to_fd(int fd)
{
    return open_fd(&fd_packer, fd);
}

pup_er iso_pup_new_from_fd(int fd)
{
    return open_fd(&fd_unpacker, fd);
}

/* ---- by stdio, which has a buffer of its own ---- */

static iso_status_t to_file(void *context, void *data, size_t items, size_t size,
                            iso_pup_type_t type)
{
    (void)type;
    return fwrite(data, size, items, context) == items ? ISO_OK
                                                       : complain("written", strerror(errno));
}

static iso_status_t flush_file(void *context)
{
    return fflush(context) == 0 ? ISO_OK : complain("written", strerror(errno));
}

static iso_status_t from_file(void *context, void *data, size_t items, size_t size,
                              iso_pup_type_t type)
{
    FILE *file = context;
    (void)type;
    size_t got = fread(data, size, items, file);
    if (got == items)
        return ISO_OK;
    return ferror(file) ? complain("read", strerror(errno)) : too_short((items - got) * size);
}

static const iso_pup_kind_t file_packer = {.struct_size = sizeof file_packer,
                                           .name = "to file",
                                           .direction = ISO_PUP_PACKING,
                                           .items = to_file,
                                           .flush = flush_file};
static const iso_pup_kind_t file_unpacker = {.struct_size = sizeof file_unpacker,
                                             .name = "from file",
                                             .direction = ISO_PUP_UNPACKING,
                                             .items = from_file};

pup_er iso_pup_new_to_file(FILE *file)
{
    return iso_pup_new(&file_packer, file);
}

pup_er iso_pup_new_from_file(FILE *file)
{
    return iso_pup_new(&file_unpacker, file);
}
