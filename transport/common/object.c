/*
 * object.c - memory objects of peers on this host, opened here.
 *
 * What a peer's descriptor refers to is opened through /proc/<pid>/fd/<n>, which the kernel allows between processes of one
 * user (Yama's ptrace_scope does not restrict it). An object is named by descriptor number, and by inode, because the
 * number may be used again. It is opened once, however many rkeys name it, and only if it is a memfd that holds
 * the whole region. (Whoever has the object open can write to all of it: ranks of a job trust each other.)
 */
#include "transport/common/object.h"
#include "transport/common/caller.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *reason_of(int error)
{
    switch (error) {
    case EACCES:
    case EPERM:
        return "it belongs to another user, or is not dumpable (prctl PR_SET_DUMPABLE, "
               "set-user-ID)";
    case ENOENT:
    case ESRCH:
        return "it has ended, or has closed the transport";
    case EMFILE:
    case ENFILE:
        return "too many open files: raise ulimit -n";
    default:
        return strerror(error);
    }
}

iso_status_t object_reach(const iso_transport_host_t *host, uint32_t rank,
                          const process_id_t *process, int fd, const char *what, int *fd_p)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%" PRId32 "/fd/%d", process->pid, fd);
    const int opened = open(path, O_RDWR | O_CLOEXEC);
    if (opened < 0) {
        caller_log(host, ISO_LOG_ERROR, "cannot open the %s of rank %u (process %" PRId32 "): %s",
                   what, rank, process->pid, reason_of(errno));
        return ISO_ERR_UNREACHABLE;
    }
    *fd_p = opened;
    return ISO_OK;
}

iso_status_t object_limit(const iso_transport_host_t *host, uint64_t length)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur >= length)
        return ISO_OK;
    caller_log(host, ISO_LOG_ERROR,
               "files may grow to %" PRIu64 " bytes here and %" PRIu64 " are needed: set ulimit -f "
               "unlimited",
               (uint64_t)limit.rlim_cur, length);
    return ISO_ERR_LIMIT;
}

bool object_holds(int fd, uint64_t offset, uint64_t length, uint64_t *inode_p)
{
    struct stat st;

    /* nothing else has seals */
    if (fcntl(fd, F_GET_SEALS) < 0 || fstat(fd, &st) != 0 || st.st_size < 0 ||
        offset > (uint64_t)st.st_size || length > (uint64_t)st.st_size - offset)
        return false;
    *inode_p = st.st_ino;
    return true;
}

static object_t *find(object_t *all, uint32_t rank, const object_part_t *part)
{
    for (object_t *object = all; object != NULL; object = object->next)
        if (object->rank == rank && object->remote_fd == part->fd && object->inode == part->inode)
            return object;
    return NULL;
}

static iso_status_t check(const iso_transport_host_t *host, uint32_t rank,
                          const object_part_t *part, int fd)
{
    uint64_t inode;

    if (object_holds(fd, part->offset, part->length, &inode) && inode == part->inode)
        return object_limit(host, part->offset + part->length);
    caller_log(host, ISO_LOG_ERROR,
               "descriptor %" PRId32
               " of rank %u is not (any more) the memfd of its region, with %" PRIu64
               " bytes at offset %" PRIu64,
               part->fd, rank, part->length, part->offset);
    return ISO_ERR_INVALID;
}

static iso_status_t open_new(const iso_transport_host_t *host, object_t **all, uint32_t rank,
                             const process_id_t *process, const object_part_t *part,
                             object_t **object_p)
{
    int fd;
    iso_status_t status = object_reach(host, rank, process, part->fd, "memory", &fd);

    if (status != ISO_OK)
        return status;
    status = check(host, rank, part, fd);
    if (status != ISO_OK)
        goto close_fd;
    object_t *object = calloc(1, sizeof *object);
    if (object == NULL) {
        caller_log(host, ISO_LOG_ERROR, "no memory for an rkey of rank %u", rank);
        status = ISO_ERR_NO_MEMORY;
        goto close_fd;
    }
    *object = (object_t){.next = *all,
                         .rank = rank,
                         .remote_fd = part->fd,
                         .inode = part->inode,
                         .fd = fd,
                         .users = 1};
    *all = object;
    *object_p = object;
    return ISO_OK;

close_fd:
    close(fd);
    return status;
}

iso_status_t object_open(const iso_transport_host_t *host, object_t **all, uint32_t rank,
                         const process_id_t *process, const object_part_t *part,
                         object_t **object_p)
{
    object_t *object = find(*all, rank, part);

    if (object == NULL)
        return open_new(host, all, rank, process, part, object_p);
    const iso_status_t status = check(host, rank, part, object->fd);
    if (status != ISO_OK)
        return status;
    object->users++;
    *object_p = object;
    return ISO_OK;
}

bool object_leave(object_t *object)
{
    return --object->users == 0;
}

void object_close(object_t **all, object_t *object)
{
    while (*all != object)
        all = &(*all)->next;
    *all = object->next;
    close(object->fd);
    free(object);
}
