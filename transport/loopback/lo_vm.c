/*
 * lo_vm.c - puts into memory that no memory object backs: the kernel copies it into the peer.
 *
 * process_vm_writev names a process by its pid, and pids are used again, though never while somebody
 * has yet to reap the process. So the peer's pidfd is asked, before every put, whether it has ended; an
 * endpoint's is open for as long as the endpoint. What remains is a process that ends, is reaped and
 * whose pid comes round again while one system call begins.
 *
 * The kernel allows it to whoever may ptrace the peer: a process of the same user, unless the peer is
 * not dumpable, Yama forbids it or a container's seccomp profile does. With Yama's ptrace_scope=1 (the
 * default of several distributions) a process may be traced by its ancestors, and by one more process
 * that it names, and that one's descendants. A rank names its parent, the launcher, whose descendants the
 * ranks are: other processes of the user stay locked out. (PR_SET_PTRACER_ANY, which other libraries
 * use, would open the rank to all of them.) A rank that a wrapper has started names the wrapper, and
 * its peers are refused. There is one name a process: of two libraries that name somebody the last wins.
 *
 * A new page is zeroed before it is written, so that puts into new pages are slower than by pwrite.
 * Measured (the virtual machine of lo_put.c, GB/s by size of a put):  4 KiB   64 KiB   1 MiB
 *   new page                                                           0.4      1.2      1.1
 *   resident                                                           0.8      2.7      3.6
 */
#include "loopback.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef PR_SET_PTRACER
#define PR_SET_PTRACER 0x59616d61 /* Yama */
#endif
#define YAMA_RELATED '1' /* ptrace_scope: only ancestors, and whom the process names */

static char yama_scope(void)
{
    char scope = '0';
    const int fd = open("/proc/sys/kernel/yama/ptrace_scope", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return scope; /* a kernel without Yama */
    if (read(fd, &scope, 1) != 1)
        scope = '0';
    close(fd);
    return scope;
}

void lo_vm_permit(const iso_transport_t *tp)
{
    const pid_t parent = getppid();

    if (yama_scope() != YAMA_RELATED)
        return;
    if (parent <= 1) /* of another PID namespace; or init, and every process descends from it */
        lo_log(tp, ISO_LOG_INFO,
               "no launcher to name to Yama: peers may not write to this process");
    else if (prctl(PR_SET_PTRACER, (unsigned long)parent, 0, 0, 0) != 0)
        lo_log(tp, ISO_LOG_INFO, "prctl(PR_SET_PTRACER, %d): %s", (int)parent, strerror(errno));
}

static ssize_t write_to(const iso_transport_t *tp, pid_t pid, const void *src, size_t len,
                        uint64_t remote)
{
    const struct iovec from = {(void *)(uintptr_t)src, len};
    const struct iovec to = {(void *)(uintptr_t)remote, len};

    if (tp->no_vm_writev) {
        errno = EPERM;
        return -1;
    }
    return process_vm_writev(pid, &from, 1, &to, 1, 0);
}

static const char *remedy(int error)
{
    switch (error) {
    case EPERM:
        return "; ranks must be of one user, dumpable, started by one launcher without a wrapper "
               "between or with kernel.yama.ptrace_scope=0, and a container must allow the call "
               "(seccomp, or --cap-add=SYS_PTRACE)";
    case ENOSYS:
        return "; the kernel lacks it (CONFIG_CROSS_MEMORY_ATTACH), or a container's seccomp "
               "profile forbids it";
    case EFAULT:
        return "; it is not mapped there, or guarded";
    default:
        return "";
    }
}

static bool has_ended(const iso_transport_t *tp, const lo_peer_t *peer)
{
    if (peer->base.rank == tp->host->rank) /* has no pidfd, and is here */
        return false;
    return peer->base.pidfd < 0 || process_ended(peer->base.pidfd);
}

iso_status_t lo_vm_put(const iso_endpoint_t *ep, const unsigned char *src, size_t len,
                       uint64_t remote)
{
    const iso_transport_t *tp = ep->tp;
    const lo_peer_t *peer = ep->peer;

    if (has_ended(tp, peer))
        return ISO_ERR_PEER_DEAD;
    while (len > 0) {
        const ssize_t n = write_to(tp, peer->base.process.pid, src, len, remote);
        if (n > 0) { /* part of it: the next call says what is wrong with the rest */
            src += n;
            remote += (uint64_t)n;
            len -= (size_t)n;
            continue;
        }
        const int error = n < 0 ? errno : EIO;
        if (error == EINTR)
            continue;
        if (error == ESRCH && has_ended(tp, peer))
            return ISO_ERR_PEER_DEAD;
        lo_log(tp, ISO_LOG_ERROR,
               "cannot put %zu bytes to %#" PRIx64 " of rank %u (process %" PRId32
               "): process_vm_writev: %s%s",
               len, remote, peer->base.rank, peer->base.process.pid, strerror(error),
               remedy(error));
        return error == ENOMEM ? ISO_ERR_NO_MEMORY : ISO_ERR_SYSTEM;
    }
    return ISO_OK;
}
