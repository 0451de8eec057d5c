/*
 * lo_ep.c - making and ending the way to a peer.
 *
 * To connect is to open the peer's inbox, to make sure that it is of this job and of that rank, and
 * to map its control block and this rank's ring in it. The peer takes no part. A peer, once known,
 * stays in the table until the instance closes; its resources (two mappings, a pidfd) do not.
 */
#include "loopback.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const peer_kind_t lo_peer_kind = {.size = sizeof(lo_peer_t)};

/* Is it the inbox of that rank of this job, whole, and never to shrink (a mapping of it cannot
 * fault)? Nothing is mapped before. */
static iso_status_t check_inbox(const iso_transport_t *tp, uint32_t rank,
                                const process_id_t *process, int fd)
{
    lo_inbox_id_t id, expected;
    struct stat st;
    const int seals = fcntl(fd, F_GET_SEALS);

    memset(&expected, 0, sizeof expected);
    expected.magic = LO_MAGIC;
    expected.version = LO_VERSION;
    expected.pid = process->pid;
    expected.start = process->start;
    expected.rank = rank;
    expected.size = tp->host->size;
    memcpy(expected.cookie, tp->host->cookie, sizeof expected.cookie);

    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(fd, &st) != 0 ||
        (uint64_t)st.st_size != lo_ring_offset(tp->host->size) ||
        pread(fd, &id, sizeof id, 0) != (ssize_t)sizeof id || id.magic != LO_MAGIC) {
        lo_log(tp, ISO_LOG_ERROR,
               "what process %" PRId32 " has open is not the inbox of a rank of this job: has "
               "rank %u closed the transport?",
               process->pid, rank);
        return ISO_ERR_UNREACHABLE;
    }
    if (memcmp(id.cookie, expected.cookie, sizeof id.cookie) != 0) {
        lo_log(tp, ISO_LOG_ERROR, "process %" PRId32 ", said to be rank %u, is of another job",
               process->pid, rank);
        return ISO_ERR_UNREACHABLE;
    }
    if (memcmp(&id, &expected, sizeof id) != 0) {
        lo_log(tp, ISO_LOG_ERROR,
               "process %" PRId32 " is rank %u of %u (version %u), not rank %u of %u (version %u)",
               process->pid, id.rank, id.size, id.version, rank, tp->host->size, LO_VERSION);
        return ISO_ERR_UNREACHABLE;
    }
    return ISO_OK;
}

/* Maps what this rank uses of the peer's inbox. */
static iso_status_t map_inbox(iso_endpoint_t *ep, int fd)
{
    iso_transport_t *tp = ep->tp;
    const off_t ring_at = (off_t)lo_ring_offset(tp->host->rank);
    void *control, *ring;

    control = mmap(NULL, LO_CONTROL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED)
        goto failed;
    ring = mmap(NULL, LO_RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, ring_at);
    if (ring == MAP_FAILED)
        goto unmap_control;
    /* Other ranks' memory is for their core files. */
    madvise(control, LO_CONTROL_BYTES, MADV_DONTDUMP);
    madvise(ring, LO_RING_BYTES, MADV_DONTDUMP);
    ep->control = control;
    ep->ring = ring;
    ep->doorbell = ep->control->doorbell;
    return ISO_OK;

unmap_control:
    munmap(control, LO_CONTROL_BYTES);
failed:
    lo_log(tp, ISO_LOG_ERROR, "cannot map the inbox of rank %u (2 x 64 KiB): %s",
           ep->peer->base.rank, strerror(errno));
    return ISO_ERR_SYSTEM;
}

static void unmap_inbox(iso_endpoint_t *ep)
{
    munmap(ep->ring, LO_RING_BYTES);
    munmap(ep->control, LO_CONTROL_BYTES);
}

static iso_status_t watch(iso_transport_t *tp, lo_peer_t *peer)
{
    const int error = peers_watch(&tp->peers, &peer->base);

    if (error == 0)
        return ISO_OK;
    if (error == ESRCH) {
        lo_log(tp, ISO_LOG_ERROR, "rank %u cannot be reached: its process %" PRId32 " has ended",
               peer->base.rank, peer->base.process.pid);
        return ISO_ERR_UNREACHABLE;
    }
    lo_log(tp, ISO_LOG_ERROR, "cannot watch process %" PRId32 " of rank %u: %s%s",
           peer->base.process.pid, peer->base.rank, strerror(error),
           error == EMFILE   ? " (raise ulimit -n)"
           : error == EACCES ? " (is /proc mounted with hidepid?)"
                             : "");
    return error == EMFILE || error == ENFILE ? ISO_ERR_LIMIT : ISO_ERR_SYSTEM;
}

iso_status_t lo_connect(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                        iso_endpoint_t **ep_p)
{
    process_id_t process;
    iso_endpoint_t *ep;
    void *found;
    int remote_fd, fd;

    iso_status_t status = peers_check_rank(&tp->peers, rank);
    if (status == ISO_OK)
        status = lo_address_read(tp, rank, address, len, &process, &remote_fd);
    if (status == ISO_OK)
        status = peers_admit(&tp->peers, rank, &process, &found);
    if (status != ISO_OK)
        return status;
    lo_peer_t *peer = found;
    const process_id_t process_before = peer->base.process;
    const bool watched_before = peer->base.pidfd >= 0;
    peer->base.process = process;
    status = watch(tp, peer);
    if (status != ISO_OK)
        goto restore_process;
    ep = calloc(1, sizeof *ep);
    if (ep == NULL) {
        lo_log(tp, ISO_LOG_ERROR, "no memory for the way to rank %u", rank);
        status = ISO_ERR_NO_MEMORY;
        goto unwatch;
    }
    ep->tp = tp;
    ep->peer = peer;
    status = object_reach(tp->host, rank, &process, remote_fd, "inbox", &fd);
    if (status != ISO_OK)
        goto free_ep;
    status = check_inbox(tp, rank, &process, fd);
    if (status == ISO_OK)
        status = map_inbox(ep, fd);
    close(fd); /* the mappings stay */
    if (status != ISO_OK)
        goto free_ep;
    status = lo_ring_claim(ep);
    if (status != ISO_OK)
        goto unmap;
    peer->base.ep = ep;
    tp->endpoints++;
    *ep_p = ep;
    return ISO_OK;

unmap:
    unmap_inbox(ep);
free_ep:
    free(ep);
unwatch:
    if (!watched_before)
        lo_peer_unwatch(tp, peer);
restore_process:
    peer->base.process = process_before;
    return status;
}

void lo_disconnect(iso_endpoint_t *ep)
{
    lo_peer_t *peer = ep->peer;

    lo_ep_forget_blocked(ep);
    if (!peer->heard) /* else its messages, and its end, still have to be told */
        lo_peer_unwatch(ep->tp, peer);
    unmap_inbox(ep);
    peer->base.ep = NULL;
    ep->tp->endpoints--;
    free(ep);
}
