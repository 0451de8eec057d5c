/*
 * lo_progress.c - progress, the doorbell that wakes a sleeper, and who is alive.
 *
 * A call of progress that finds nothing is a few loads and a read of the coarse clock. Descriptors
 * (the doorbell, a pidfd for each peer) are all in one epoll set, which is the event_fd; it is
 * asked after a sleep and otherwise once in LOOK_EVERY_MS.
 *
 * A death is reported once, after everything that the peer had sent has been delivered: when a
 * pidfd has become readable, nothing of the process runs any more, so its ring is final. The pidfd
 * of a zombie is readable: nobody has to reap it.
 */
#include "loopback.h"
#include "transport/common/clock.h"
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LOOK_EVERY_MS 1 /* or as often as the coarse clock ticks, up to 10 ms */
#define LOOK_EVENTS 32
#define DOORBELL_TAG UINT64_MAX /* in the epoll set; a peer's is its rank */

/* ---- the doorbell ---------------------------------------------------------------------------- */

static iso_status_t bind_doorbell(iso_transport_t *tp)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t len = sizeof name.sun_family; /* this short: the kernel chooses an abstract name */

    if (bind(tp->doorbell_fd, (struct sockaddr *)&name, len) != 0)
        return ISO_ERR_SYSTEM;
    len = sizeof name;
    if (getsockname(tp->doorbell_fd, (struct sockaddr *)&name, &len) != 0)
        return ISO_ERR_SYSTEM;
    len -= (socklen_t)offsetof(struct sockaddr_un, sun_path);
    if (len == 0 || len > sizeof tp->doorbell.bytes) {
        errno = ENAMETOOLONG;
        return ISO_ERR_SYSTEM;
    }
    tp->doorbell.len = (uint32_t)len;
    memcpy(tp->doorbell.bytes, name.sun_path, len);
    return ISO_OK;
}

iso_status_t lo_doorbell_create(iso_transport_t *tp)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = DOORBELL_TAG};

    tp->doorbell_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (tp->doorbell_fd < 0)
        goto failed;
    if (bind_doorbell(tp) != ISO_OK)
        goto close_doorbell;
    tp->peers.watch_fd = epoll_create1(EPOLL_CLOEXEC);
    if (tp->peers.watch_fd < 0)
        goto close_doorbell;
    if (epoll_ctl(tp->peers.watch_fd, EPOLL_CTL_ADD, tp->doorbell_fd, &event) != 0)
        goto close_epoll;
    return ISO_OK;

close_epoll:
    close(tp->peers.watch_fd);
    tp->peers.watch_fd = -1;
close_doorbell:
    close(tp->doorbell_fd);
failed:
    lo_log(tp, ISO_LOG_ERROR, "cannot make the socket that wakes this rank: %s", strerror(errno));
    return ISO_ERR_SYSTEM;
}

void lo_doorbell_close(iso_transport_t *tp)
{
    close(tp->peers.watch_fd);
    close(tp->doorbell_fd);
}

static ssize_t ring_from_socket(int fd, const struct sockaddr_un *to, socklen_t len)
{
    ssize_t n;

    do
        n = sendto(fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)to, len);
    while (n < 0 && errno == EINTR);
    return n;
}

void lo_doorbell_ring(iso_transport_t *tp, const lo_doorbell_name_t *name)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    ssize_t n;

    if (name->len == 0 || name->len > sizeof name->bytes)
        return; /* garbage from shared memory: the ring itself will be found broken */
    memcpy(to.sun_path, name->bytes, name->len);
    const socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + name->len);
    n = ring_from_socket(tp->doorbell_fd, &to, len);
    if (n < 0 && errno == EAGAIN) {
        /* Its queue is full: it has been rung and not heard yet. Or our own buffer is, with rings
         * that other sleepers have not heard yet: another socket has a buffer of its own. */
        const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd >= 0) {
            n = ring_from_socket(fd, &to, len);
            const int error = errno;
            close(fd);
            errno = error;
        }
    }
    /* ECONNREFUSED: nobody is there any more. */
    if (n < 0 && errno != EAGAIN && errno != ECONNREFUSED && !tp->doorbell_warned) {
        tp->doorbell_warned = true;
        lo_log(tp, ISO_LOG_WARN, "cannot wake a sleeping peer, messages may be late: %s",
               strerror(errno));
    }
}

static void empty_doorbell(const iso_transport_t *tp)
{
    char bytes[8];

    /* Bounded: what a flood leaves wakes the next sleep, which costs a look and no more. */
    for (int i = 0; i < 64; i++)
        if (recv(tp->doorbell_fd, bytes, sizeof bytes, MSG_DONTWAIT) < 0 && errno != EINTR)
            return;
}

/* ---- who is alive ---------------------------------------------------------------------------- */

void lo_peer_unwatch(iso_transport_t *tp, lo_peer_t *peer)
{
    if (peer->unwatched) {
        peer->unwatched = false;
        tp->unwatched--;
    }
    peers_unwatch(&tp->peers, &peer->base);
}

unsigned lo_peer_ended(iso_transport_t *tp, lo_peer_t *peer)
{
    unsigned events = 0;

    lo_peer_unwatch(tp, peer);
    if (!peer->broken)
        events += lo_ring_drain(tp, peer);
    lo_peer_unwatch(tp, peer); /* a callback may have connected */
    if (peer->broken) {
        /* Not everything that it sent has been delivered, so what it owned stays undecided. */
        lo_log(tp, ISO_LOG_ERROR,
               "the process of rank %u has ended, but not all that it sent could be read",
               peer->base.rank);
        return events + 1;
    }
    peers_settle(&tp->peers, &peer->base, PEER_DEAD);
    return events + 1;
}

static unsigned watch_unwatched(iso_transport_t *tp)
{
    unsigned events = 0;

    for (peer_t *base = tp->peers.first; base != NULL; base = base->next) {
        lo_peer_t *peer = lo_peer(base);
        if (!peer->unwatched)
            continue;
        const int error = peers_watch(&tp->peers, &peer->base);
        if (error == ESRCH)
            events += lo_peer_ended(tp, peer);
        else if (error == 0) {
            peer->unwatched = false;
            tp->unwatched--;
        }
    }
    return events;
}

/* ---- progress -------------------------------------------------------------------------------- */

static unsigned look_at_descriptors(iso_transport_t *tp)
{
    struct epoll_event found[LOOK_EVENTS];
    unsigned events = 0;
    const int count = epoll_wait(tp->peers.watch_fd, found, LOOK_EVENTS, 0);

    for (int i = 0; i < count; i++) {
        if (found[i].data.u64 == DOORBELL_TAG) {
            empty_doorbell(tp);
            continue;
        }
        lo_peer_t *peer = peers_find(&tp->peers, (uint32_t)found[i].data.u64);
        if (peer != NULL && peer->base.pidfd >= 0) /* no callback has disconnected it meanwhile */
            events += lo_peer_ended(tp, peer);
    }
    if (tp->unwatched > 0)
        events += watch_unwatched(tp);
    return events;
}

static unsigned report_unreachable(iso_transport_t *tp)
{
    unsigned events = 0;

    for (peer_t *base = tp->peers.first; base != NULL && tp->reports_due > 0; base = base->next) {
        lo_peer_t *peer = lo_peer(base);
        if (!peer->unreachable_due)
            continue;
        peer->unreachable_due = false;
        tp->reports_due--;
        tp->host->peer_failed(tp->host->arg, peer->base.rank, ISO_FAILURE_UNREACHABLE);
        events++;
    }
    return events;
}

/* Room for a send that was refused is an event: the library has something to do. */
static unsigned unblock(iso_transport_t *tp)
{
    unsigned events = 0;

    for (iso_endpoint_t *ep = tp->blocked, *next; ep != NULL; ep = next) {
        next = ep->next_blocked;
        if (lo_ep_unblocked(ep)) {
            lo_ep_forget_blocked(ep);
            events++;
        }
    }
    return events;
}

unsigned lo_progress(iso_transport_t *tp)
{
    unsigned events = 0;

    if (tp->in_progress)
        return 0; /* from a callback: the message that it holds must not be written over */
    tp->in_progress = true;
    const uint64_t now = clock_coarse_ms();
    const bool look = tp->armed || now >= tp->look_at;
    if (tp->armed) {
        tp->armed = false;
        atomic_store(&tp->control->armed, 0);
        atomic_thread_fence(memory_order_seq_cst);
    }
    events += lo_inbox_receive(tp);
    if (look) {
        tp->look_at = now + LOOK_EVERY_MS;
        events += look_at_descriptors(tp);
    }
    if (tp->reports_due > 0)
        events += report_unreachable(tp);
    if (tp->blocked != NULL)
        events += unblock(tp);
    tp->in_progress = false;
    return events;
}

/* ---- sleeping -------------------------------------------------------------------------------- */

int lo_event_fd(iso_transport_t *tp)
{
    return tp->peers.watch_fd;
}

static bool has_work(const iso_transport_t *tp)
{
    if (lo_inbox_ready(tp) || tp->reports_due > 0)
        return true;
    for (iso_endpoint_t *ep = tp->blocked; ep != NULL; ep = ep->next_blocked)
        if (lo_ep_unblocked(ep))
            return true;
    return false;
}

iso_status_t lo_arm(iso_transport_t *tp)
{
    if (has_work(tp))
        return ISO_ERR_BUSY;
    tp->armed = true;
    tp->arm_number = tp->arm_number == UINT32_MAX ? 1 : tp->arm_number + 1;
    atomic_store(&tp->control->armed, tp->arm_number);
    for (iso_endpoint_t *ep = tp->blocked; ep != NULL; ep = ep->next_blocked)
        atomic_store(&ep->ring->sender_waits, 1);
    atomic_thread_fence(memory_order_seq_cst);
    /* Stays armed: the next progress undoes it, and looks at the descriptors as it should. */
    return has_work(tp) ? ISO_ERR_BUSY : ISO_OK;
}
