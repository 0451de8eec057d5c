/*
 * of_progress.c - progress, sleeping, and who has died.
 *
 * libfabric's own descriptor (or none: shm), a pidfd for each peer that can be watched, and a timer are all
 * in one epoll set, which is the event_fd. A death is reported once, after everything that the peer had
 * sent has been delivered, and after the last of its puts that are still on the way here have landed: when a
 * pidfd has become readable nothing of the process runs any more, so libfabric is asked as often as it takes to
 * empty what buffers there are. The pidfd of a zombie is readable: nobody has to reap it.
 */
#include "ofi.h"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define LOOK_EVERY_MS 1 /* or as often as the coarse clock ticks, up to 10 ms */
#define LOOK_EVENTS 32
#define TURNS 16             /* of asking in a call, while nothing has come of it */
#define TIMER_TAG UINT64_MAX /* in watch_fd; a peer's is its rank */
#define NAP_LEAST_NS \
    50000L /* where there is something to do for which there is no event: at first */
#define NAP_MOST_NS 1000000L /* and when nothing has come for a while */
#define STUCK_MS 5           /* that libfabric is busy with nothing before it is not believed */

uint64_t of_now_ms(void)
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

iso_status_t of_events_open(iso_transport_t *tp)
{
    tp->nap = NAP_LEAST_NS;
    tp->event_fd = epoll_create1(EPOLL_CLOEXEC);
    tp->lives.watch_fd = epoll_create1(EPOLL_CLOEXEC);
    tp->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (tp->event_fd >= 0 && tp->lives.watch_fd >= 0 && tp->timer_fd >= 0 &&
        (tp->cq_fd < 0 || add(tp->event_fd, tp->cq_fd, 0)) &&
        add(tp->event_fd, tp->lives.watch_fd, 1) &&
        add(tp->lives.watch_fd, tp->timer_fd, TIMER_TAG))
        return ISO_OK;
    const bool too_many = errno == EMFILE || errno == ENFILE;
    of_log(tp, ISO_LOG_ERROR, "cannot set up the event descriptors: %s%s", strerror(errno),
           too_many ? " (raise ulimit -n)" : "");
    of_events_close(tp);
    return too_many ? ISO_ERR_LIMIT : ISO_ERR_SYSTEM;
}

void of_events_close(iso_transport_t *tp)
{
    close_if_open(tp->timer_fd);
    close_if_open(tp->lives.watch_fd);
    close_if_open(tp->event_fd);
}

/* ---- who is alive ---------------------------------------------------------------------------- */

unsigned of_drain(iso_transport_t *tp)
{
    unsigned events = 0;

    for (unsigned turn = 0; turn < OF_DRAIN_TURNS; turn++)
        turn = of_cq_take(tp) > 0 ? 0 : turn;
    events += of_eps_failed(tp);
    events += of_msgs_deliver(tp);
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
        of_peer_t *peer = of_peer_find(tp, (uint32_t)found[i].data.u64);
        if (peer != NULL && peer->life.pidfd >= 0) { /* no callback has settled it meanwhile */
            events += of_drain(tp) + 1;
            of_peer_died(tp, peer);
        }
    }
    return events;
}

/* ---- progress -------------------------------------------------------------------------------- */

static bool has_news(const iso_transport_t *tp)
{
    return tp->arrived != NULL || tp->landed != NULL || tp->ended != NULL || tp->failed != NULL ||
           tp->room > 0;
}

unsigned of_progress(iso_transport_t *tp)
{
    unsigned events = 0;

    if (tp->in_progress)
        return 0; /* from a callback */
    tp->in_progress = true;
    tp->turn++;
    unsigned turns = 0;
    while (turns < TURNS && of_cq_take(tp) > 0) {
        turns++;
        if (tp->arrived != NULL || tp->ended != NULL)
            break;
    }
    const uint64_t now = of_now_ms();
    if (turns > 0)
        tp->busy_until = now + STUCK_MS;
    if (tp->room > 0) {
        tp->room = 0;
        events++;
    }
    if (tp->failed != NULL)
        events += of_eps_failed(tp);
    if (tp->armed || now >= tp->look_at) {
        tp->armed = false;
        tp->look_at = now + LOOK_EVERY_MS;
        events += look(tp);
    }
    if (tp->lives.undecided > 0)
        events += of_peers_decide(tp);
    if (tp->arrived != NULL || tp->landed != NULL)
        events += of_msgs_deliver(tp);
    if (tp->ended != NULL || tp->held != NULL)
        events += of_ops_tell(tp);
    if (tp->busy != NULL)
        of_eps_advance(tp);
    if (tp->posted < OF_RECVS)
        of_recvs_post(tp);
    if (events > 0)
        tp->nap = NAP_LEAST_NS;
    tp->in_progress = false;
    return events;
}

/* ---- sleeping -------------------------------------------------------------------------------- */

int of_event_fd(iso_transport_t *tp)
{
    return tp->event_fd;
}

static void set_timer(const iso_transport_t *tp, bool on)
{
    struct itimerspec at = {.it_value = {0, 0}};

    if (on)
        at.it_value.tv_nsec = tp->nap;
    timerfd_settime(tp->timer_fd, 0, &at, NULL);
}

iso_status_t of_arm(iso_transport_t *tp)
{
    of_eps_advance(tp);
    tp->armed = true; /* the next progress looks at the descriptors as it should */
    if (has_news(tp))
        return ISO_ERR_BUSY;
    struct fid *fids[] = {&tp->cq->fid};
    const int error = tp->cq_fd >= 0 ? fi_trywait(tp->fabric, fids, 1) : 0;
    const bool stuck = error == -FI_EAGAIN && of_now_ms() > tp->busy_until;
    if (error == 0 || stuck) {
        set_timer(tp, tp->cq_fd < 0 || stuck || tp->lives.undecided > 0 || tp->busy != NULL);
        tp->nap = tp->nap * 2 < NAP_MOST_NS ? tp->nap * 2 : NAP_MOST_NS;
        return ISO_OK;
    }
    if (error != -FI_EAGAIN)
        of_log(tp, ISO_LOG_ERROR, "libfabric cannot be waited for: %s", fi_strerror(-error));
    return ISO_ERR_BUSY;
}
