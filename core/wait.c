/* wait.c - see wait.h. */
#include "core/wait.h"
#include "core/depth.h"
#include "core/job.h"
#include "core/left.h"
#include "core/migrate.h"
#include "core/os.h"
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* How often in a row a waiting rank only yields before it sleeps: long enough to catch an answer
 * that is on its way, short enough not to take a core from the rank that is to give it. */
#define IDLE_YIELDS 64
/* A yield that lasts so long went to a program that computes, which keeps the core for its slice, however soon the answer
 * comes; a sleeper it would have made room for. So for a while waiting ranks sleep at once. Seconds. */
#define LONG_YIELD 0.001
#define CROWDED_FOR 0.1
#define POLL_EVERY 0.001 /* seconds: what gives no event is looked at this often */

static iso_status_t watch(const iso_wait_t *wait, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    if (fd >= 0 && epoll_ctl(wait->event_fd, EPOLL_CTL_ADD, fd, &event) != 0 && errno != EEXIST)
        return ISO_ERR_SYSTEM;
    return ISO_OK;
}

static int link_fd(const iso_link_t *link)
{
    return link ? link->ops->event_fd(link->tp) : -1;
}

/* ---- sleepers: a thread that sleeps at ISO_THREAD_MULTIPLE, with the descriptor that wakes it ---- */

static iso_sleeper_t *sleeper_new(void)
{
    iso_sleeper_t *sleeper = malloc(sizeof *sleeper);
    if (!sleeper)
        return NULL;
    sleeper->next = NULL;
    sleeper->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (sleeper->fd >= 0)
        return sleeper;
    free(sleeper);
    return NULL;
}

static iso_sleeper_t *sleeper_enter(iso_wait_t *wait)
{
    iso_sleeper_t *sleeper = wait->spares;
    if (sleeper)
        wait->spares = sleeper->next;
    else if (!(sleeper = sleeper_new()))
        return NULL;
    sleeper->next = wait->sleepers;
    wait->sleepers = sleeper;
    return sleeper;
}

static void sleeper_leave(iso_wait_t *wait, iso_sleeper_t *sleeper)
{
    eventfd_t count;
    iso_sleeper_t **at = &wait->sleepers;
    while (*at != sleeper)
        at = &(*at)->next;
    *at = sleeper->next;
    eventfd_read(sleeper->fd, &count);
    sleeper->next = wait->spares;
    wait->spares = sleeper;
}

iso_status_t iso_wait_open(iso_job_t *job)
{
    iso_wait_t *wait = &job->wait;
    wait->event_fd = epoll_create1(EPOLL_CLOEXEC);
    wait->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    wait->loop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bool multiple = job->params.thread_level == ISO_THREAD_MULTIPLE;
    if (multiple) /* the first sleeper's: a job of one thread opens nothing later */
        wait->spares = sleeper_new();
    if (wait->event_fd >= 0 && wait->timer_fd >= 0 && wait->loop_fd >= 0 &&
        (!multiple || wait->spares) && watch(wait, wait->timer_fd) == ISO_OK &&
        watch(wait, wait->loop_fd) == ISO_OK &&
        watch(wait, job->bootstrap ? job->bootstrap->event_fd : -1) == ISO_OK &&
        watch(wait, link_fd(job->node_link)) == ISO_OK &&
        watch(wait, link_fd(job->net_link)) == ISO_OK)
        return ISO_OK;
    bool too_many = errno == EMFILE || errno == ENFILE;
    iso_log(&job->logger, ISO_LOG_ERROR, "cannot set up the event descriptors: %s%s",
            strerror(errno), too_many ? " (raise ulimit -n)" : "");
    return too_many ? ISO_ERR_LIMIT : ISO_ERR_SYSTEM;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

void iso_wait_close(iso_job_t *job)
{
    for (iso_sleeper_t *spare = job->wait.spares, *next; spare; spare = next) {
        next = spare->next;
        close(spare->fd);
        free(spare);
    }
    close_if_open(job->wait.loop_fd);
    close_if_open(job->wait.timer_fd);
    close_if_open(job->wait.event_fd);
}

/* ---- arming ---- */

static bool arm_link(iso_link_t *link)
{
    return !link || link->ops->arm(link->tp) == ISO_OK;
}

/* A timer in the event set stands for what must be looked at without an event. */
static void arm_timer(iso_job_t *job)
{
    const double deadlines[] = {iso_migrate_deadline(job), iso_windows_deadline(job),
                                iso_left_deadline(job), iso_job_delivery_deadline(job)};
    double first = INFINITY;
    for (size_t i = 0; i < sizeof deadlines / sizeof *deadlines; i++)
        first = deadlines[i] < first ? deadlines[i] : first;
    double wait = first - iso_os_now();
    bool polled = iso_peers_queued(job) || (job->net_link && link_fd(job->net_link) < 0);
    if (polled && wait > POLL_EVERY) /* room in a peer's queue gives no event */
        wait = POLL_EVERY;
    struct itimerspec at = {.it_value = {0, 0}};
    if (wait < 1e9) {
        if (wait < 1e-6)
            wait = 1e-6;
        at.it_value.tv_sec = (time_t)wait;
        at.it_value.tv_nsec = (long)((wait - (double)at.it_value.tv_sec) * 1e9);
    }
    timerfd_settime(job->wait.timer_fd, 0, &at, NULL);
}

/* false: there is something to do already. The lock is held. */
static bool arm(iso_job_t *job)
{
    job->wait.armed = true;
    if (iso_job_can_deliver(job) || !arm_link(job->node_link) ||
        (job->net_link != job->node_link && !arm_link(job->net_link)))
        return false;
    arm_timer(job);
    return true;
}

iso_status_t iso_event_arm(iso_job_t *job)
{
    iso_job_lock(job);
    eventfd_t count;
    eventfd_read(job->wait.loop_fd, &count);
    bool armed = arm(job);
    job->wait.loop_armed = armed && job->params.thread_level == ISO_THREAD_MULTIPLE;
    iso_job_unlock(job);
    return armed ? ISO_OK : ISO_ERR_BUSY;
}

int iso_event_fd(iso_job_t *job)
{
    return job->wait.event_fd;
}

/* ---- waking ---- */

static void wake_all(iso_job_t *job)
{
    for (const iso_sleeper_t *sleeper = job->wait.sleepers; sleeper; sleeper = sleeper->next)
        eventfd_write(sleeper->fd, 1);
    if (job->wait.loop_armed)
        eventfd_write(job->wait.loop_fd, 1);
    job->wait.loop_armed = false;
}

void iso_wait_note(iso_job_t *job, unsigned events)
{
    iso_wait_t *wait = &job->wait;
    if (events > 0)
        wait->activity++;
    if ((wait->sleepers || wait->loop_armed) && (events > 0 || !arm(job)))
        wake_all(job);
}

/* ---- sleeping ---- */

void iso_waiter_sleep(iso_job_t *job, double until, const iso_waiter_t *waiter)
{
    double now = iso_os_now();
    if (waiter->idle < IDLE_YIELDS &&
        now >= atomic_load_explicit(&job->wait.crowded_until, memory_order_relaxed)) {
        sched_yield();
        double then = iso_os_now();
        if (then - now >= LONG_YIELD)
            atomic_store_explicit(&job->wait.crowded_until, then + CROWDED_FOR,
                                  memory_order_relaxed);
        return;
    }
    double seconds = until - now;
    if (seconds <= 0)
        return;
    iso_sleeper_t *sleeper = NULL;
    iso_job_lock(job);
    bool sleeps = job->wait.activity == waiter->seen && arm(job);
    if (sleeps && job->params.thread_level == ISO_THREAD_MULTIPLE) {
        sleeper = sleeper_enter(&job->wait);
        if (!sleeper && seconds > POLL_EVERY) /* no descriptor left: nobody can wake this thread */
            seconds = POLL_EVERY;
    }
    iso_job_unlock(job);
    if (!sleeps)
        return;
    struct pollfd set[2] = {{.fd = job->wait.event_fd, .events = POLLIN},
                            {.fd = sleeper ? sleeper->fd : -1, .events = POLLIN}};
    poll(set, 2, seconds < 1e6 ? (int)(seconds * 1e3) + 1 : -1);
    if (!sleeper)
        return;
    iso_job_lock(job);
    sleeper_leave(&job->wait, sleeper);
    iso_job_unlock(job);
}

unsigned iso_waiter_advance(iso_job_t *job, iso_waiter_t *waiter)
{
    waiter->seen = job->wait.activity;
    unsigned events = iso_job_advance(job);
    waiter->idle = events > 0 ? 0 : waiter->idle + 1;
    return events;
}

unsigned iso_waiter_progress(iso_job_t *job, iso_waiter_t *waiter)
{
    iso_job_lock(job);
    waiter->seen = job->wait.activity;
    iso_job_unlock(job);
    unsigned events = iso_progress(job);
    waiter->idle = events > 0 ? 0 : waiter->idle + 1;
    return events;
}

/* ---- the caller's waits ---- */

iso_status_t iso_progress_wait(iso_job_t *job, double seconds)
{
    if (!iso_job_is_ours(job, "iso_progress_wait"))
        return ISO_ERR_INVALID;
    double until = seconds < 0 ? INFINITY : iso_os_now() + seconds;
    iso_job_lock(job);
    uint64_t before = job->wait.activity;
    iso_job_unlock(job);
    for (iso_waiter_t waiter = {0};;) {
        if (iso_waiter_progress(job, &waiter) > 0 || waiter.seen != before)
            return ISO_OK;
        if (iso_os_now() >= until)
            return ISO_ERR_TIMED_OUT;
        iso_waiter_sleep(job, until, &waiter);
    }
}

/* Does another thread run an arrival callback? */
static bool is_calling(iso_job_t *job)
{
    iso_job_lock(job);
    bool calling = job->calling > 0;
    iso_job_unlock(job);
    if (calling)
        sched_yield();
    return calling;
}

static bool is_sending(const iso_link_t *link)
{
    return link && link->ops->is_sending && link->ops->is_sending(link->tp);
}

/* What this rank has said leaves before it says that it has come to the barrier: a DONE that waits here for room would make
 * a heap arrive after it. A peer that takes nothing is not waited for any longer than for an answer. */
static void let_leave(iso_job_t *job)
{
    const double until = iso_os_now() + job->params.timeout;
    for (iso_waiter_t waiter = {0};;) {
        iso_waiter_progress(job, &waiter);
        iso_job_lock(job);
        bool sending =
            iso_peers_queued(job) || is_sending(job->node_link) || is_sending(job->net_link);
        iso_job_unlock(job);
        if (!sending || iso_os_now() >= until)
            return;
        iso_waiter_sleep(job, iso_os_now() + POLL_EVERY, &waiter);
    }
}

iso_status_t iso_barrier(iso_job_t *job)
{
    const iso_bootstrap_t *bootstrap = job->bootstrap;
    if (!iso_job_is_ours(job, "iso_barrier"))
        return ISO_ERR_INVALID;
    if (!bootstrap) {
        iso_progress(job);
        return ISO_OK;
    }
    let_leave(job);
    iso_job_lock(job);
    iso_depth_enter();
    iso_status_t status = bootstrap->barrier_start(bootstrap->ctx);
    iso_depth_leave();
    iso_job_unlock(job);
    for (iso_waiter_t waiter = {0}; status == ISO_OK;) {
        iso_waiter_progress(job, &waiter);
        iso_job_lock(job);
        iso_depth_enter();
        iso_status_t barrier = bootstrap->barrier_test(bootstrap->ctx);
        iso_depth_leave();
        job->barriers += barrier == ISO_OK;
        iso_job_unlock(job);
        if (barrier != ISO_INPROGRESS) {
            /* what the others sent before they came here is there: it counts as before, too */
            while (iso_progress(job) > 0 || is_calling(job))
                ;
            return barrier;
        }
        /* without a descriptor of its own the barrier is polled */
        iso_waiter_sleep(job, bootstrap->event_fd < 0 ? iso_os_now() + POLL_EVERY : INFINITY,
                         &waiter);
    }
    return status;
}
