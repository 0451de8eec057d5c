/*
 * of_cma.c - puts of our own between processes of this host, in place of shm's, to memory that no object backs.
 *
 * shm of libfabric 1.17 has two ways to write to a peer's memory, and neither comes through the end of a process:
 *   - without FI_DELIVERY_COMPLETE it calls process_vm_writev itself (smr_rma_fast), and holds the spin lock
 *     of the peer's queue for as long as the kernel copies. A process that is killed meanwhile leaves it
 *     locked, and every other that sends to that peer spins for ever;
 *   - with it the target copies and answers. Answers are taken in the order of the questions: one that a dead
 *     peer owes keeps back those of all others, for ever. (A kill of one rank of three showed it.)
 * So the same call of the kernel is made here, without shm's lock and queue: it needs nothing of the target's
 * CPU, is complete when it returns, and says ESRCH when the target has ended. The kernel pins page by page for it, at
 * 0.65 of memcpy's speed; memory of an object is mapped, and stored to (of_put.c). What is left to shm is
 * messages, in parts that it copies at once (of_msg.c): they ask for no answer, and hold the lock for a copy of 4 KiB.
 */
#include "ofi.h"
#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static ssize_t copy(pid_t pid, const void *src, size_t len, uint64_t remote)
{
    /* the kernel only reads from here */
    const struct iovec from = {.iov_base = (void *)(uintptr_t)src, .iov_len = len};
    const struct iovec to = {.iov_base = (void *)(uintptr_t)remote, .iov_len = len};

    return process_vm_writev(pid, &from, 1, &to, 1, 0);
}

iso_status_t of_cma_check(const iso_transport_t *tp)
{
    const char word = 1;
    char there = 0;

    if (tp->process.pid == 0) {
        of_log(tp, ISO_LOG_ERROR,
               "provider shm needs to know processes of this host, and /proc is not what it should "
               "be: name another in ISO_OFI_PROVIDER");
        return ISO_ERR_SYSTEM;
    }
    if (copy(tp->process.pid, &word, sizeof word, (uintptr_t)&there) == sizeof word)
        return ISO_OK;
    of_log(tp, ISO_LOG_ERROR,
           "provider shm needs process_vm_writev, which the system forbids (%s): allow it, or name "
           "another in ISO_OFI_PROVIDER",
           strerror(errno));
    return ISO_ERR_SYSTEM;
}

static iso_status_t complain(iso_endpoint_t *ep, uint64_t remote, int error)
{
    if (error == ESRCH) { /* its pidfd will say so */
        of_ep_fail(ep, FI_ENOTCONN);
        return ISO_ERR_AGAIN;
    }
    of_log(ep->tp, ISO_LOG_ERROR, "cannot write to memory of rank %u at %p: %s%s",
           ep->peer->base.rank, (void *)(uintptr_t)remote, strerror(error),
           error == EPERM ? " (kernel.yama.ptrace_scope must be 0, and both of one user)" : "");
    return ISO_ERR_INVALID;
}

iso_status_t of_cma_put(iso_endpoint_t *ep, const void *src, size_t len, uint64_t remote)
{
    const peer_t *peer = &ep->peer->base;
    const pid_t pid = peer->process.pid;

    if (peer->pidfd >= 0 && process_ended(peer->pidfd)) { /* its pid may be another's by now */
        of_ep_fail(ep, FI_ENOTCONN);
        return ISO_ERR_AGAIN;
    }
    for (size_t done = 0; done < len;) {
        const ssize_t copied = copy(pid, (const char *)src + done, len - done, remote + done);
        if (copied <= 0)
            return complain(ep, remote + done, copied == 0 ? EFAULT : errno);
        done += (size_t)copied;
    }
    return ISO_OK;
}
