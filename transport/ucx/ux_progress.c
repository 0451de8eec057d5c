/*
 * ux_progress.c - progress, sleeping, and who is alive.
 *
 * UCX's own descriptor, a pidfd for each peer that can be watched, and a timer are all in one epoll set,
 * which is the event_fd. A death is reported once, after everything that the peer had sent has been
 * delivered: when a pidfd has become readable, nothing of the process runs any more, so UCX is progressed
 * until it finds nothing. The pidfd of a zombie is readable: nobody has to reap it.
 */
#include "ucx.h"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define LOOK_EVERY_MS 1 /* or as often as the coarse clock ticks, up to 10 ms */
#define LOOK_EVENTS 32
#define TURNS 64             /* of UCX's progress in a call, while nothing has come of it */
#define TIMER_TAG UINT64_MAX /* in watch_fd; a peer's is its rank */
#define SLEEP_MS 1           /* while UCX has something to end for which it gives no event */
#define STUCK_MS 5           /* that UCX is busy with nothing before it is not believed */

uint64_t ux_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- descriptors ----------------------------------------------------------------------------- */

static bool add(int set, int fd, uint64_t tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag};

    return epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

iso_status_t ux_events_open(iso_transport_t *tp)
{
    int worker_fd = -1;
    const ucs_status_t status = ucp_worker_get_efd(tp->worker, &worker_fd);

    tp->polled = status != UCS_OK;
    if (tp->polled && !tp->shares_context) {
        ux_log(tp, ISO_LOG_ERROR, "UCX gives no event descriptor: %s", ucs_status_string(status));
        return ISO_ERR_SYSTEM;
    }
    if (tp->polled)
        ux_log(tp, ISO_LOG_INFO,
               "the program's UCX context has no UCP_FEATURE_WAKEUP: who waits polls");
    tp->event_fd = epoll_create1(EPOLL_CLOEXEC);
    tp->lives.watch_fd = epoll_create1(EPOLL_CLOEXEC);
    tp->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (tp->event_fd >= 0 && tp->lives.watch_fd >= 0 && tp->timer_fd >= 0 &&
        (tp->polled || add(tp->event_fd, worker_fd, 0)) &&
        add(tp->event_fd, tp->lives.watch_fd, 1) &&
        add(tp->lives.watch_fd, tp->timer_fd, TIMER_TAG))
        return ISO_OK;
    const bool too_many = errno == EMFILE || errno == ENFILE;
    ux_log(tp, ISO_LOG_ERROR, "cannot set up the event descriptors: %s%s", strerror(errno),
           too_many ? " (raise ulimit -n)" : "");
    ux_events_close(tp);
    return too_many ? ISO_ERR_LIMIT : ISO_ERR_SYSTEM;
}

void ux_events_close(iso_transport_t *tp)
{
    close_if_open(tp->timer_fd);
    close_if_open(tp->lives.watch_fd);
    close_if_open(tp->event_fd);
}

/* ---- who is alive ---------------------------------------------------------------------------- */

unsigned ux_drain(iso_transport_t *tp)
{
    unsigned events = 0;

    for (unsigned turn = 0; turn < UX_DRAIN_TURNS && ucp_worker_progress(tp->worker) > 0; turn++)
        ;
    events += ux_eps_failed(tp);
    events += ux_own_news(tp);
    events += ux_inbox_deliver(tp);
    return events;
}

static unsigned look(iso_transport_t *tp)
{
    struct epoll_event found[LOOK_EVENTS];
    unsigned events = 0;
    uint64_t expirations;
    const int count = epoll_wait(tp->lives.watch_fd, found, LOOK_EVENTS, 0);

    for (int i = 0; i < count; i++) {
        if (found[i].data.u64 == TIMER_TAG) {
            (void)!read(tp->timer_fd, &expirations, sizeof expirations); /* it only wakes */
            continue;
        }
        ux_peer_t *peer = ux_peer_find(tp, (uint32_t)found[i].data.u64);
        if (peer != NULL && peer->life.pidfd >= 0) { /* no callback has settled it meanwhile */
            events += ux_drain(tp) + 1;
            ux_peer_died(tp, peer);
        }
    }
    return events;
}

/* ---- progress -------------------------------------------------------------------------------- */

/* What was put into the inbox is taken out, but for failures, which come first. Returns events. */
static unsigned empty_inbox(iso_transport_t *tp)
{
    unsigned events = ux_own_news(tp);

    events += ux_inbox_deliver(tp);
    if (!tp->shares_worker)
        ux_ops_take(tp);
    return events;
}

unsigned ux_progress(iso_transport_t *tp)
{
    unsigned events = 0;

    if (tp->in_progress)
        return 0; /* from a callback */
    tp->in_progress = true;
    /* Where another thread progresses the worker, an operation may be seen to have ended before the failure
     * that ended it. Of what had ended before a turn of our own, which waits for the other thread's, the
     * failure is seen after it. */
    const unsigned before = atomic_load_explicit(&tp->inbox.added, memory_order_acquire);
    if (tp->shares_worker)
        ux_ops_take(tp);
    /* What UCX finds to do for itself (keepalive), and pieces of puts that land, are no event for the library. */
    unsigned turns = 0;
    while (turns < TURNS && ucp_worker_progress(tp->worker) > 0) {
        turns++;
        if (ux_inbox_ready(tp))
            break;
    }
    const uint64_t now = ux_now_ms();
    if (turns > 0)
        tp->busy_until = now + STUCK_MS;
    const unsigned added = atomic_load_explicit(&tp->inbox.added, memory_order_acquire);
    const bool filled = added != tp->seen;
    tp->seen = tp->shares_worker ? before : added;
    if (filled)
        events += ux_eps_failed(tp);
    if (tp->armed || now >= tp->look_at) {
        tp->armed = false;
        tp->look_at = now + LOOK_EVERY_MS;
        events += look(tp);
    }
    if (tp->lives.undecided > 0)
        events += ux_peers_decide(tp);
    if (filled)
        events += empty_inbox(tp);
    if (tp->ended != NULL || tp->held != NULL)
        events += ux_ops_end(tp);
    if (tp->busy != NULL)
        ux_own_advance(tp);
    tp->in_progress = false;
    return events;
}

/* ---- sleeping -------------------------------------------------------------------------------- */

int ux_event_fd(iso_transport_t *tp)
{
    return tp->polled ? -1 : tp->event_fd;
}

static void set_timer(const iso_transport_t *tp, bool on)
{
    struct itimerspec at = {.it_value = {0, 0}};

    if (on)
        at.it_value.tv_nsec = SLEEP_MS * 1000000L;
    timerfd_settime(tp->timer_fd, 0, &at, NULL);
}

/* Shared memory calls itself busy for as long as a peer's queue is full, which that of a stopped peer stays,
 * and that of a dead one for ever (UCX 1.13 waits to flush it). Who sleeps then looks now and then. */
iso_status_t ux_arm(iso_transport_t *tp)
{
    ux_own_advance(tp);
    tp->armed = true; /* the next progress looks at the descriptors as it should */
    if (ux_inbox_ready(tp) || tp->ended != NULL)
        return ISO_ERR_BUSY;
    const ucs_status_t status = tp->polled ? UCS_OK : ucp_worker_arm(tp->worker);
    const bool stuck = status == UCS_ERR_BUSY && ux_now_ms() > tp->busy_until;
    if (status == UCS_OK || stuck) {
        set_timer(tp, stuck || tp->lives.undecided > 0 || tp->closing > 0);
        return ISO_OK;
    }
    if (status != UCS_ERR_BUSY)
        ux_log(tp, ISO_LOG_ERROR, "UCX cannot be waited for: %s", ucs_status_string(status));
    return ISO_ERR_BUSY;
}
