/* events.c - see events.h. */
#include "transport/common/events.h"
#include "transport/common/caller.h"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define TIMER_TAG UINT64_MAX /* in watch_fd; a peer's is its rank */

static bool add(int set, int fd, uint64_t tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag};

    return epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0;
}

iso_status_t events_open(events_t *events, peers_t *peers, int own_fd)
{
    events->event_fd = epoll_create1(EPOLL_CLOEXEC);
    peers->watch_fd = epoll_create1(EPOLL_CLOEXEC);
    events->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (events->event_fd >= 0 && peers->watch_fd >= 0 && events->timer_fd >= 0 &&
        (own_fd < 0 || add(events->event_fd, own_fd, 0)) &&
        add(events->event_fd, peers->watch_fd, 1) &&
        add(peers->watch_fd, events->timer_fd, TIMER_TAG))
        return ISO_OK;
    const bool too_many = errno == EMFILE || errno == ENFILE;
    caller_log(peers->host, ISO_LOG_ERROR, "cannot set up the event descriptors: %s%s",
               strerror(errno), too_many ? " (raise ulimit -n)" : "");
    events_close(events, peers);
    return too_many ? ISO_ERR_LIMIT : ISO_ERR_SYSTEM;
}

static void close_if_open(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void events_close(events_t *events, peers_t *peers)
{
    close_if_open(&events->timer_fd);
    close_if_open(&peers->watch_fd);
    close_if_open(&events->event_fd);
}

void events_set_timer(const events_t *events, long ns)
{
    const struct itimerspec at = {.it_value = {0, ns}};

    timerfd_settime(events->timer_fd, 0, &at, NULL);
}

unsigned events_look(const events_t *events, const peers_t *peers, uint32_t ranks[EVENTS_LOOK])
{
    struct epoll_event found[EVENTS_LOOK];
    uint64_t expirations;
    unsigned ended = 0;
    const int count = epoll_wait(peers->watch_fd, found, EVENTS_LOOK, 0);

    for (int i = 0; i < count; i++)
        if (found[i].data.u64 == TIMER_TAG)
            (void)!read(events->timer_fd, &expirations, sizeof expirations); /* it only wakes */
        else
            ranks[ended++] = (uint32_t)found[i].data.u64;
    return ended;
}
