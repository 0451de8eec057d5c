/* pmix_watch.c - see pmix_watch.h. */
#include "pmix_watch.h"
#include "pmix_get.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_WATCHER_MS 2000 /* that a rank waits for it, if it leaves after one fence only */
#define WATCHERS 16 /* that can wait in a claim's queue: more than one only after deaths */

/* A rank puts it: names of abstract sockets mean the same in one network namespace only. */
#define NAMESPACE "net"

static uint64_t own_namespace(void)
{
    struct stat info;

    return stat("/proc/self/ns/net", &info) == 0 ? info.st_ino : 0;
}

/* ---- names ------------------------------------------------------------------------------------- */

/* FNV-1a. Namespaces of two launchers may have the same name, and their servers then differ. */
static uint64_t hash_of_job(void)
{
    static const char *const servers[] = {"PMIX_SERVER_URI41", "PMIX_SERVER_URI4",
                                          "PMIX_SERVER_URI3", "PMIX_SERVER_URI21",
                                          "PMIX_SERVER_URI2"};
    const char *texts[] = {getenv("PMIX_NAMESPACE"), NULL};
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < sizeof servers / sizeof *servers && texts[1] == NULL; i++)
        texts[1] = getenv(servers[i]);
    for (size_t i = 0; i < 2; i++)
        for (const char *at = texts[i]; at != NULL && *at != '\0'; at++)
            hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
    return hash;
}

static socklen_t name_of(uint32_t rank, struct sockaddr_un *name)
{
    *name = (struct sockaddr_un){.sun_family = AF_UNIX};
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                       (size_t)snprintf(name->sun_path + 1, sizeof name->sun_path - 1,
                                        "isomalloc-pmix-%016" PRIx64 "-%" PRIu32, hash_of_job(),
                                        rank));
}

/* Connects to the process that has claimed the rank: a descriptor, or -1 and errno. */
static int connect_to(uint32_t rank, struct ucred *peer_p)
{
    struct sockaddr_un name;
    socklen_t name_len = name_of(rank, &name), len = sizeof *peer_p;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&name, name_len) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer_p, &len) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* ---- being the rank ---------------------------------------------------------------------------- */

static iso_status_t is_claimed(const iso_pmix_link_t *link, uint32_t rank)
{
    struct ucred other = {0};
    int fd = connect_to(rank, &other);

    if (fd >= 0)
        close(fd);
    iso_pmix_log(link, ISO_LOG_ERROR,
                 "process %d cannot join as rank %u: process %d is that rank, and a rank is one "
                 "process; set ISO_BOOTSTRAP=single to run this one on its own",
                 (int)getpid(), rank, (int)other.pid);
    return ISO_ERR_BUSY;
}

iso_status_t iso_pmix_claim(iso_pmix_link_t *link, uint32_t rank)
{
    struct sockaddr_un name;
    socklen_t name_len = name_of(rank, &name);
    iso_status_t status = ISO_ERR_SYSTEM;
    int fd;

    link->watch.fences = 0;
    if (link->watch.claim_fd >= 0)
        return ISO_OK;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&name, name_len) != 0 || listen(fd, WATCHERS) != 0) {
        if (fd >= 0 && errno == EADDRINUSE)
            status = is_claimed(link, rank);
        else
            iso_pmix_log(link, ISO_LOG_ERROR, "no socket for rank %u: errno %d%s", rank, errno,
                         errno == EMFILE ? "; raise ulimit -n" : "");
        if (fd >= 0)
            close(fd);
        return status;
    }
    link->watch.claim_fd = fd;
    return ISO_OK;
}

/* ---- watching ---------------------------------------------------------------------------------- */

static void watch_end(iso_pmix_link_t *link)
{
    iso_pmix_watch_t *watch = &link->watch;

    if (watch->pid_fd >= 0) {
        news_remove(&link->news, watch->pid_fd); /* a child may have it, too */
        close(watch->pid_fd);
    }
    if (watch->bye_fd >= 0)
        close(watch->bye_fd);
    watch->pid_fd = watch->bye_fd = -1;
}

static void has_died(iso_pmix_link_t *link, uint32_t rank)
{
    if (iso_pmix_is_dead(link, rank))
        return;
    iso_pmix_add_dead(link, rank);
    iso_pmix_tell_dead(link, rank);
}

/* What a rank that leaves tells who watches it; its end is no death then. */
static bool said_bye(const iso_pmix_watch_t *watch)
{
    char bye;

    return recv(watch->bye_fd, &bye, sizeof bye, MSG_DONTWAIT) == sizeof bye;
}

/* false: it cannot be watched, or is gone. That tells of a death if ranks do not leave now; where one is found that
 * has left, they do. */
static bool watch_rank(iso_pmix_link_t *link, uint32_t rank, bool *leaving)
{
    iso_pmix_watch_t *watch = &link->watch;
    struct ucred peer = {0};
    uint64_t network = 0;
    size_t len = sizeof network;

    if (iso_pmix_is_dead(link, rank) ||
        iso_pmix_get(link, rank, NAMESPACE, &network, &len) != ISO_OK || network != own_namespace())
        return false;
    watch->bye_fd = connect_to(rank, &peer);
    if (watch->bye_fd < 0) {
        if (errno == ECONNREFUSED && !*leaving)
            has_died(link, rank);
        return false;
    }
    watch->rank = rank;
    if (peer.uid == geteuid()) { /* anybody may take a name */
        watch->pid_fd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
        if (watch->pid_fd < 0 && errno == ESRCH) {
            *leaving |= said_bye(watch);
            if (!*leaving)
                has_died(link, rank); /* a child of it keeps the name */
        }
    }
    if (watch->pid_fd >= 0 && news_add(&link->news, watch->pid_fd) == 0)
        return true;
    watch_end(link);
    return false;
}

/* The next after that rank, in the ring of this host. */
static void watch_next(iso_pmix_link_t *link, uint32_t after, bool leaving)
{
    uint32_t at = 0;

    while (at < link->host_count && link->host_ranks[at] <= after)
        at++;
    for (uint32_t i = 0; i < link->host_count; i++) {
        uint32_t rank = link->host_ranks[(at + i) % link->host_count];

        if (rank == link->self.rank || watch_rank(link, rank, &leaving))
            return;
    }
}

iso_status_t iso_pmix_watch_offer(iso_pmix_link_t *link)
{
    const uint64_t network = own_namespace();

    return iso_pmix_put(link, NAMESPACE, &network, sizeof network);
}

void iso_pmix_watch_begin(iso_pmix_link_t *link)
{
    if (link->watch.fences++ == 0)
        watch_next(link, link->self.rank, false);
}

void iso_pmix_watch_look(iso_pmix_link_t *link)
{
    iso_pmix_watch_t *watch = &link->watch;
    struct pollfd ended = {.fd = watch->pid_fd, .events = POLLIN};
    uint32_t rank = watch->rank;
    bool left;

    if (watch->pid_fd < 0 || poll(&ended, 1, 0) <= 0)
        return;
    left = said_bye(watch);
    watch_end(link);
    if (!left)
        has_died(link, rank);
    watch_next(link, rank, left);
}

void iso_pmix_watch_leave(iso_pmix_link_t *link)
{
    iso_pmix_watch_t *watch = &link->watch;
    const char bye = 0;
    int fd;

    watch_end(link);
    /* Who leaves so early may be gone before its watcher has come, and would be taken for dead. */
    if (watch->fences == 1 && link->host_count > 1)
        poll(&(struct pollfd){.fd = watch->claim_fd, .events = POLLIN}, 1, FIRST_WATCHER_MS);
    while ((fd = accept4(watch->claim_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        send(fd, &bye, sizeof bye, MSG_NOSIGNAL | MSG_DONTWAIT);
        close(fd);
    }
}
