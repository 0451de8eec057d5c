/* job.c - the job table, progress, waiting. See job.h; how a job begins and ends: join.c. */
#include "core/job.h"
#include "core/arrive.h"
#include "core/borrow.h"
#include "core/migrate.h"
#include "core/os.h"
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* How often in a row a waiting rank only yields before it sleeps: long enough to catch an answer
 * that is on its way, short enough not to take a core from the rank that is to give it. */
#define IDLE_YIELDS 64

iso_job_row_t iso_job_table[ISO_JOBS_MAX];

const iso_logger_t *iso_job_logger(const iso_job_t *job)
{
    return &job->logger;
}

uint32_t iso_rank(const iso_job_t *job)
{
    return job->rank;
}

uint32_t iso_size(const iso_job_t *job)
{
    return job->size;
}

iso_status_t iso_same_node(iso_job_t *job, uint32_t rank, bool *same_p)
{
    if (rank >= job->size)
        return ISO_ERR_RANK;
    *same_p = rank == job->rank || iso_node_has(&job->node, rank);
    return ISO_OK;
}

void iso_space(const iso_job_t *job, void **base_p, size_t *size_p)
{
    *base_p = job->space.base;
    *size_p = (size_t)job->space.size;
}

const char *iso_backing_name(const iso_job_t *job)
{
    return job->space.backing == ISO_BACKING_SHARED ? "shared" : "private";
}

const char *iso_transport_name(const iso_job_t *job)
{
    const iso_link_t *link = job->net_link ? job->net_link : job->node_link;
    return link ? link->ops->name : "none";
}

iso_heap_state_t iso_heap_state(const iso_heap_t *heap)
{
    const iso_job_row_t *row = iso_job_row_of(heap);
    if (!row)
        return ISO_HEAP_ELSEWHERE;
    iso_job_lock(row->job);
    const iso_hold_t *hold = iso_hold_find(row->job, heap);
    iso_heap_state_t state = hold ? hold->state : ISO_HEAP_ELSEWHERE;
    iso_job_unlock(row->job);
    return state;
}

iso_status_t iso_peer_declare_dead(iso_job_t *job, uint32_t rank)
{
    if (rank >= job->size || rank == job->rank)
        return ISO_ERR_RANK;
    iso_job_lock(job);
    iso_peer_declare(job, rank);
    iso_job_unlock(job);
    return ISO_OK;
}

/* ---- arrivals ---- */

iso_delivery_t *iso_delivery_new(iso_heap_t *heap, uint32_t source, uint64_t bytes,
                                 const void *header, size_t header_len)
{
    iso_delivery_t *delivery = malloc(sizeof *delivery + header_len);
    if (!delivery)
        return NULL;
    *delivery =
        (iso_delivery_t){.heap = heap, .source = source, .bytes = bytes, .header_len = header_len};
    if (header_len > 0)
        memcpy(delivery->header, header, header_len);
    return delivery;
}

void iso_job_deliver(iso_job_t *job, iso_delivery_t *delivery)
{
    delivery->next = NULL;
    *job->deliveries_end = delivery;
    job->deliveries_end = &delivery->next;
}

void iso_set_arrival(iso_job_t *job, iso_arrival_fn fn, void *arg)
{
    iso_job_lock(job);
    job->params.arrival = fn;
    job->params.arrival_arg = arg;
    iso_job_unlock(job);
}

static unsigned call_arrivals(iso_job_t *job)
{
    for (unsigned called = 0;; called++) {
        iso_job_lock(job);
        iso_arrival_fn fn = job->params.arrival;
        void *arg = job->params.arrival_arg;
        iso_delivery_t *delivery = fn ? job->deliveries : NULL;
        if (delivery) {
            job->deliveries = delivery->next;
            if (!job->deliveries)
                job->deliveries_end = &job->deliveries;
        }
        iso_job_unlock(job);
        if (!delivery)
            return called;
        iso_arrival_t arrival = {.heap = delivery->heap,
                                 .source = delivery->source,
                                 .bytes = delivery->bytes,
                                 .header = delivery->header,
                                 .header_len = delivery->header_len};
        fn(job, &arrival, arg);
        free(delivery);
    }
}

/* ---- progress ---- */

static unsigned advance_link(iso_link_t *link)
{
    return link ? link->ops->progress(link->tp) : 0;
}

static unsigned advance_links(iso_job_t *job)
{
    unsigned events = advance_link(job->node_link);
    if (job->net_link != job->node_link)
        events += advance_link(job->net_link);
    return events;
}

static unsigned hear_of_deaths(iso_job_t *job)
{
    unsigned events = 0;
    uint32_t rank;
    if (!job->bootstrap || !job->bootstrap->next_dead)
        return 0;
    while (job->bootstrap->next_dead(job->bootstrap->ctx, &rank) == ISO_OK) {
        advance_links(job); /* what it had sent comes first */
        iso_peer_declare(job, rank);
        events++;
    }
    return events;
}

unsigned iso_job_advance(iso_job_t *job)
{
    unsigned events = 0;
    if (job->size > 1) {
        events += advance_links(job);
        events += iso_migrate_advance(job);
        events += iso_borrow_advance(job);
        events += iso_peers_flush(job);
        if (events == 0)
            events += hear_of_deaths(job);
    }
    return events;
}

unsigned iso_progress(iso_job_t *job)
{
    iso_job_lock(job);
    unsigned events = iso_job_advance(job);
    iso_job_unlock(job);
    return events + call_arrivals(job);
}

/* ---- waiting ---- */

static bool arm_link(iso_link_t *link)
{
    return !link || link->ops->arm(link->tp) == ISO_OK;
}

/* A timer in the event set stands for what must be looked at without an event. */
static void arm_timer(iso_job_t *job)
{
    double wait = iso_migrate_deadline(job) - iso_os_now();
    bool polled = iso_peers_queued(job) ||
                  (job->net_link && job->net_link->ops->event_fd(job->net_link->tp) < 0);
    if (polled && wait > 0.001) /* room in a peer's queue gives no event */
        wait = 0.001;
    struct itimerspec at = {.it_value = {0, 0}};
    if (wait < 1e9) {
        if (wait < 1e-6)
            wait = 1e-6;
        at.it_value.tv_sec = (time_t)wait;
        at.it_value.tv_nsec = (long)((wait - (double)at.it_value.tv_sec) * 1e9);
    }
    timerfd_settime(job->timer_fd, 0, &at, NULL);
}

iso_status_t iso_event_arm(iso_job_t *job)
{
    iso_job_lock(job);
    bool ready = job->deliveries && job->params.arrival;
    if (!ready)
        ready = !arm_link(job->node_link) ||
                (job->net_link != job->node_link && !arm_link(job->net_link));
    if (!ready)
        arm_timer(job);
    iso_job_unlock(job);
    return ready ? ISO_ERR_BUSY : ISO_OK;
}

int iso_event_fd(iso_job_t *job)
{
    return job->event_fd;
}

void iso_job_sleep(iso_job_t *job, double until, unsigned idle)
{
    if (idle < IDLE_YIELDS) {
        sched_yield();
        return;
    }
    double wait = until - iso_os_now();
    if (wait <= 0 || iso_event_arm(job) != ISO_OK)
        return;
    int timeout = wait < 1e6 ? (int)(wait * 1e3) + 1 : -1;
    struct pollfd set = {.fd = job->event_fd, .events = POLLIN};
    poll(&set, 1, timeout);
}

iso_status_t iso_progress_wait(iso_job_t *job, double seconds)
{
    double until = seconds < 0 ? INFINITY : iso_os_now() + seconds;
    for (unsigned idle = 0;; idle++) {
        if (iso_progress(job) > 0)
            return ISO_OK;
        if (iso_os_now() >= until)
            return ISO_ERR_TIMED_OUT;
        iso_job_sleep(job, until, idle);
    }
}

iso_status_t iso_barrier(iso_job_t *job)
{
    const iso_bootstrap_t *bootstrap = job->bootstrap;
    if (!bootstrap) {
        iso_progress(job);
        return ISO_OK;
    }
    iso_job_lock(job);
    iso_status_t status = bootstrap->barrier_start(bootstrap->ctx);
    iso_job_unlock(job);
    for (unsigned idle = 0; status == ISO_OK; idle++) {
        if (iso_progress(job) > 0)
            idle = 0;
        iso_job_lock(job);
        iso_status_t barrier = bootstrap->barrier_test(bootstrap->ctx);
        iso_job_unlock(job);
        if (barrier != ISO_INPROGRESS) {
            /* what the others sent before they came here is there: it counts as before, too */
            while (iso_progress(job) > 0)
                ;
            return barrier;
        }
        /* without a descriptor of its own the barrier is polled */
        iso_job_sleep(job, bootstrap->event_fd < 0 ? iso_os_now() + 0.001 : INFINITY, idle);
    }
    return status;
}

/* ---- statistics ---- */

void iso_stats(iso_job_t *job, iso_stats_t *stats_p)
{
    iso_job_lock(job);
    *stats_p = job->stats;
    stats_p->slots_free = job->slots.free_count;
    stats_p->slots_total = job->slots.free_count;
    for (const iso_hold_t *hold = job->holds; hold; hold = hold->next)
        stats_p->slots_total += hold->arrival ? 0 : hold->slot_count;
    stats_p->retained_bytes = iso_retain_bytes(&job->retain);
    stats_p->peers = job->peers.count;
    iso_job_unlock(job);
}
