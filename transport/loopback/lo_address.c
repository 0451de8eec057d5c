/*
 * lo_address.c - who and where a process is: the address blob, and reaching a peer's descriptors.
 *
 * A process is known by pid and start time, because pids are used again. What a peer's descriptor
 * refers to is opened through /proc/<pid>/fd/<n>, which the kernel allows between processes of one
 * user (Yama's ptrace_scope does not restrict it). Pids, start times and abstract sockets mean
 * something only inside one PID, time and network namespace of one running kernel: an address says
 * which, and one from elsewhere is refused before anything of it is used.
 */
#include "loopback.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434 /* Linux 5.3 */
#endif

#define ADDRESS_MAGIC 0x6f6c2d6fu

typedef struct address_blob {
    uint32_t magic, version;
    uint32_t rank;
    int32_t inbox_fd;
    lo_process_t process;
    lo_host_t place;
} address_blob_t;
static_assert(sizeof(address_blob_t) <= ISO_TRANSPORT_ADDRESS_MAX, "addresses have a limit");

/* Reads a small file as a string, at most size-1 bytes; its length, or -1 with errno. */
static ssize_t read_text(const char *path, char *text, size_t size)
{
    ssize_t n;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    do
        n = read(fd, text, size - 1);
    while (n < 0 && errno == EINTR);
    close(fd);
    if (n >= 0)
        text[n] = '\0';
    return n;
}

static uint64_t namespace_of_self(const char *name)
{
    char path[64];
    struct stat st;

    snprintf(path, sizeof path, "/proc/self/ns/%s", name);
    return stat(path, &st) == 0 ? st.st_ino : 0; /* a kernel without this kind has only one */
}

/* 0: there is no such process, or /proc hides it. */
static uint64_t start_time(int32_t pid)
{
    char path[64], text[1024];

    snprintf(path, sizeof path, "/proc/%" PRId32 "/stat", pid);
    if (read_text(path, text, sizeof text) <= 0)
        return 0;
    /* Field 2 is the program's name in parentheses, which may hold blanks and parentheses. */
    char *field = strrchr(text, ')');
    for (int number = 2; field != NULL && number < 22; number++)
        field = strchr(field + 1, ' ');
    return field != NULL ? strtoull(field, NULL, 10) : 0;
}

iso_status_t lo_place_find(lo_host_t *place_p, lo_process_t *self_p, const char **why_p)
{
    char self[32] = "";
    lo_host_t place;
    lo_process_t process;

    if (readlink("/proc/self", self, sizeof self - 1) < 0) {
        *why_p = "/proc is not mounted, through which loopback reaches its peers: mount it";
        return ISO_ERR_SYSTEM;
    }
    if (strtol(self, NULL, 10) != getpid()) {
        *why_p = "/proc shows another PID namespace than this process's: mount the namespace's own";
        return ISO_ERR_SYSTEM;
    }
    memset(&place, 0, sizeof place);
    memset(&process, 0, sizeof process);
    process.pid = getpid();
    process.start = start_time(process.pid);
    if (process.start == 0 ||
        read_text("/proc/sys/kernel/random/boot_id", place.boot_id, sizeof place.boot_id) <= 0) {
        *why_p = "/proc/self/stat or /proc/sys/kernel/random/boot_id cannot be read";
        return ISO_ERR_SYSTEM;
    }
    place.pid_ns = namespace_of_self("pid");
    place.net_ns = namespace_of_self("net");
    place.time_ns = namespace_of_self("time");
    *place_p = place;
    *self_p = process;
    return ISO_OK;
}

iso_status_t lo_address(iso_transport_t *tp, void *buf, size_t *len_p)
{
    address_blob_t blob;

    if (*len_p < sizeof blob) {
        lo_log(tp, ISO_LOG_ERROR, "an address takes %zu bytes, the room is %zu", sizeof blob,
               *len_p);
        return ISO_ERR_INVALID;
    }
    memset(&blob, 0, sizeof blob);
    blob.magic = ADDRESS_MAGIC;
    blob.version = LO_VERSION;
    blob.rank = tp->host->rank;
    blob.inbox_fd = tp->inbox_fd;
    blob.process = tp->process;
    blob.place = tp->place;
    memcpy(buf, &blob, sizeof blob);
    *len_p = sizeof blob;
    return ISO_OK;
}

/* Why pids of one place mean nothing in the other; NULL if they are the same place. */
static const char *apart(const lo_host_t *a, const lo_host_t *b)
{
    if (memcmp(a->boot_id, b->boot_id, sizeof a->boot_id) != 0)
        return "runs on another host: use a transport between nodes";
    if (a->pid_ns != b->pid_ns)
        return "is in another PID namespace: run the host's ranks in one container, or share its "
               "PID namespace (--pid)";
    if (a->net_ns != b->net_ns)
        return "is in another network namespace: run the host's ranks in one container, or share "
               "its network namespace (--net)";
    if (a->time_ns != b->time_ns)
        return "is in another time namespace: start the host's ranks in the same one";
    return NULL;
}

iso_status_t lo_address_read(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                             lo_process_t *process_p, int *inbox_fd_p)
{
    address_blob_t blob;
    const char *why;

    memset(&blob, 0, sizeof blob);
    memcpy(&blob, address, len < sizeof blob ? len : sizeof blob);
    if (blob.magic == ADDRESS_MAGIC && blob.version != LO_VERSION) {
        lo_log(tp, ISO_LOG_ERROR, "rank %u speaks version %u of loopback, this rank %u", rank,
               blob.version, LO_VERSION);
        return ISO_ERR_VERSION;
    }
    if (len != sizeof blob || blob.magic != ADDRESS_MAGIC || blob.rank != rank ||
        blob.process.pid <= 0 || blob.process.start == 0 || blob.inbox_fd < 0) {
        lo_log(tp, ISO_LOG_ERROR, "%zu bytes are not a loopback address of rank %u", len, rank);
        return ISO_ERR_INVALID;
    }
    why = apart(&blob.place, &tp->place);
    if (why != NULL) {
        lo_log(tp, ISO_LOG_ERROR, "rank %u cannot be reached: it %s", rank, why);
        return ISO_ERR_UNREACHABLE;
    }
    *process_p = blob.process;
    *inbox_fd_p = blob.inbox_fd;
    return ISO_OK;
}

bool lo_process_same(const lo_process_t *a, const lo_process_t *b)
{
    return a->pid == b->pid && a->start == b->start;
}

bool lo_process_ended(int pidfd)
{
    struct pollfd set = {.fd = pidfd, .events = POLLIN};

    return poll(&set, 1, 0) > 0;
}

int lo_process_watch(const lo_process_t *process, int *pidfd_p)
{
    int error = 0;
    const int pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);

    if (pidfd < 0)
        return errno;
    /* Looked at after opening: if it is right now, the pidfd cannot be of an earlier process. */
    const uint64_t start = start_time(process->pid);
    if (start == 0)
        error = lo_process_ended(pidfd)              ? ESRCH
                : errno == EMFILE || errno == ENFILE ? errno
                                                     : EACCES;
    else if (start != process->start)
        error = ESRCH;
    if (error != 0) {
        close(pidfd);
        return error;
    }
    *pidfd_p = pidfd;
    return 0;
}

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

iso_status_t lo_process_open(const iso_transport_t *tp, uint32_t rank, const lo_process_t *process,
                             int fd, const char *what, int *fd_p)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%" PRId32 "/fd/%d", process->pid, fd);
    const int opened = open(path, O_RDWR | O_CLOEXEC);
    if (opened < 0) {
        lo_log(tp, ISO_LOG_ERROR, "cannot open the %s of rank %u (process %" PRId32 "): %s", what,
               rank, process->pid, reason_of(errno));
        return ISO_ERR_UNREACHABLE;
    }
    *fd_p = opened;
    return ISO_OK;
}

iso_status_t lo_file_limit(const iso_transport_t *tp, uint64_t length)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur >= length)
        return ISO_OK;
    lo_log(tp, ISO_LOG_ERROR,
           "files may grow to %" PRIu64 " bytes here and %" PRIu64 " are needed: set ulimit -f "
           "unlimited",
           (uint64_t)limit.rlim_cur, length);
    return ISO_ERR_LIMIT;
}
