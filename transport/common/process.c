/*
 * process.c - see process.h.
 *
 * A process is known by pid and start time, because pids are used again. Both mean something only
 * inside one PID and time namespace of one running kernel.
 */
#include "transport/common/process.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434 /* Linux 5.3 */
#endif

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

    /* Of its first thread, which began with it: qemu's user mode makes a process's own stat up. */
    snprintf(path, sizeof path, "/proc/%" PRId32 "/task/%" PRId32 "/stat", pid, pid);
    if (read_text(path, text, sizeof text) <= 0)
        return 0;
    /* Field 2 is the program's name in parentheses, which may hold blanks and parentheses. */
    char *field = strrchr(text, ')');
    for (int number = 2; field != NULL && number < 22; number++)
        field = strchr(field + 1, ' ');
    return field != NULL ? strtoull(field, NULL, 10) : 0;
}

iso_status_t process_find_self(process_place_t *place_p, process_id_t *self_p, const char **why_p)
{
    char self[32] = "";
    process_place_t place;
    process_id_t process;

    if (readlink("/proc/self", self, sizeof self - 1) < 0) {
        *why_p = "/proc is not mounted, through which processes of this host are known: mount it";
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

/* Do pids and start times of one place mean the same in the other? */
static bool is_shared(const process_place_t *a, const process_place_t *b)
{
    return memcmp(a->boot_id, b->boot_id, sizeof a->boot_id) == 0 && a->pid_ns == b->pid_ns &&
           a->time_ns == b->time_ns;
}

process_id_t process_seen(const process_place_t *place, const process_id_t *self,
                          const process_place_t *its_place, const process_id_t *it)
{
    const bool seen = self->pid != 0 && it->pid > 0 && is_shared(its_place, place);

    return seen ? *it : (process_id_t){.pid = 0};
}

bool process_same(const process_id_t *a, const process_id_t *b)
{
    return a->pid == b->pid && a->start == b->start;
}

bool process_ended(int pidfd)
{
    struct pollfd set = {.fd = pidfd, .events = POLLIN};

    return poll(&set, 1, 0) > 0;
}

int process_watch(const process_id_t *process, int *pidfd_p)
{
    int error = 0;
    const int pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);

    if (pidfd < 0)
        return errno;
    /* Looked at after opening: if it is right now, the pidfd cannot be of an earlier process. */
    const uint64_t start = start_time(process->pid);
    if (start == 0)
        error = process_ended(pidfd) ? ESRCH : errno == EMFILE || errno == ENFILE ? errno : EACCES;
    else if (start != process->start)
        error = ESRCH;
    if (error != 0) {
        close(pidfd);
        return error;
    }
    *pidfd_p = pidfd;
    return 0;
}
