/* job.c - the job table and progress. See job.h; how a job begins and ends: join.c. */
#include "core/job.h"
#include "core/arrive.h"
#include "core/borrow.h"
#include "core/depth.h"
#include "core/direct.h"
#include "core/dispatch.h"
#include "core/heap_layout.h"
#include "core/left.h"
#include "core/migrate.h"
#include "core/object.h"
#include "core/os.h"
#include "core/poison.h"
#include "core/protect.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DRAIN_TURNS 1000
#define DEATHS_EVERY 0.001 /* seconds */
#define DELIVER_AGAIN 0.01 /* seconds: memory does not come back by asking all the time */

iso_job_row_t iso_job_table[ISO_JOBS_MAX];

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
    return job->space.backing == ISO_BACKING_SHARED ? "shared"
           : job->space.backing == ISO_BACKING_ANON ? "anon"
                                                    : "private";
}

const char *iso_registration(const iso_job_t *job)
{
    return job->registration;
}

const char *iso_transport_name(const iso_job_t *job)
{
    const iso_link_t *link = job->net_link ? job->net_link : job->node_link;
    return link ? link->ops->name : "none";
}

/* Asked for at each switch to a thread: of an open heap the answer is a word that only this process writes. */
iso_heap_state_t iso_heap_state(const iso_heap_t *heap)
{
    if (iso_direct_is(heap) && iso_slot_of(heap)->heap == (uintptr_t)heap)
        return ISO_HEAP_OWNED;
    const iso_job_row_t *row = iso_job_row_of(heap);
    if (!row)
        return ISO_HEAP_ELSEWHERE;
    iso_job_lock(row->job);
    const iso_hold_t *hold = iso_hold_find(row->job, heap);
    iso_heap_state_t state = hold ? hold->state : ISO_HEAP_ELSEWHERE;
    /* not one of several threads', or that is still being made: that has another magic number, or none */
    if (state == ISO_HEAP_OWNED && iso_heap_magic(heap) == ISO_HEAP_MAGIC && !iso_poison_active &&
        !iso_protect_is_in(heap, iso_slot_of(heap)))
        iso_direct_set(iso_slot_of(heap));
    iso_job_unlock(row->job);
    return state;
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

/* The lock is held once. Those that other threads are inside of; from inside of one that cannot be waited for. */
static void wait_for_callbacks(iso_job_t *job)
{
    const struct timespec moment = {.tv_nsec = 50000};
    while (job->calling > 0 && iso_depth == 0) {
        iso_job_unlock(job);
        nanosleep(&moment, NULL);
        iso_job_lock(job);
    }
}

void iso_set_arrival(iso_job_t *job, iso_arrival_fn fn, void *arg)
{
    iso_job_lock(job);
    job->params.arrival = fn;
    job->params.arrival_arg = arg;
    wait_for_callbacks(job);
    iso_job_unlock(job);
}

void iso_set_end(iso_job_t *job, iso_end_fn fn, void *arg)
{
    iso_job_lock(job);
    job->end = fn;
    job->end_arg = arg;
    iso_job_unlock(job);
}

static bool is_expected(const iso_job_t *job, const iso_delivery_t *delivery)
{
    if (delivery->settled)
        return true;
    if (delivery->again != 0 && iso_os_now() < delivery->again)
        return false;
    return delivery->is_object ? iso_object_is_known(job, delivery) : job->params.arrival != NULL;
}

bool iso_job_can_deliver(const iso_job_t *job)
{
    for (const iso_delivery_t *delivery = job->deliveries; delivery; delivery = delivery->next)
        if (is_expected(job, delivery))
            return true;
    return false;
}

double iso_job_delivery_deadline(const iso_job_t *job)
{
    double first = INFINITY;
    for (const iso_delivery_t *delivery = job->deliveries; delivery; delivery = delivery->next)
        if (delivery->again != 0 && delivery->again < first)
            first = delivery->again;
    return first;
}

/* The oldest that somebody is there for: others wait. Under the lock. */
static iso_delivery_t *take_delivery(iso_job_t *job)
{
    iso_delivery_t **at = &job->deliveries;
    while (*at && !is_expected(job, *at))
        at = &(*at)->next;
    iso_delivery_t *delivery = *at;
    if (delivery) {
        *at = delivery->next;
        if (!*at)
            job->deliveries_end = at;
        job->calling++;
    }
    return delivery;
}

/* It could not be delivered, and is the oldest still. Under the lock. */
static void put_back(iso_job_t *job, iso_delivery_t *delivery)
{
    delivery->again = iso_os_now() + DELIVER_AGAIN;
    delivery->next = job->deliveries;
    job->deliveries = delivery;
    if (!delivery->next)
        job->deliveries_end = &delivery->next;
}

static unsigned call_arrivals(iso_job_t *job)
{
    bool delivered;
    for (unsigned called = 0;; called += delivered) {
        iso_job_lock(job);
        iso_delivery_t *delivery = take_delivery(job);
        iso_arrival_fn fn = job->params.arrival;
        void *arg = job->params.arrival_arg;
        iso_job_unlock(job);
        if (!delivery)
            return called;
        iso_arrival_t arrival = {.heap = delivery->heap,
                                 .source = delivery->source,
                                 .bytes = delivery->bytes,
                                 .header = delivery->header,
                                 .header_len = delivery->header_len};
        delivered = true;
        iso_depth_enter();
        if (delivery->settled)
            iso_object_settled(job, delivery->settled);
        else if (delivery->is_object)
            delivered = iso_object_arrived(job, delivery);
        else
            fn(job, &arrival, arg);
        iso_depth_leave();
        if (delivered)
            free(delivery);
        iso_job_lock(job);
        if (!delivered)
            put_back(job, delivery);
        job->calling--;
        iso_job_unlock(job);
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

/* What a rank that is dead now had sent comes before its death. */
static void drain_links(iso_job_t *job)
{
    for (int i = 0; i < DRAIN_TURNS && advance_links(job) > 0; i++)
        ;
}

static iso_status_t next_dead(const iso_bootstrap_t *bootstrap, uint32_t *rank_p)
{
    iso_depth_enter();
    iso_status_t status = bootstrap->next_dead(bootstrap->ctx, rank_p);
    iso_depth_leave();
    return status;
}

/* The question may cost a system call: it is asked after a sleep and otherwise now and then. */
static unsigned hear_of_deaths(iso_job_t *job)
{
    unsigned events = 0;
    uint32_t rank;
    if (!job->bootstrap || !job->bootstrap->next_dead)
        return 0;
    double now = iso_os_now_coarse();
    if (!job->wait.armed && now < job->deaths_heard + DEATHS_EVERY)
        return 0;
    job->wait.armed = false;
    job->deaths_heard = now;
    while (next_dead(job->bootstrap, &rank) == ISO_OK) {
        const iso_peer_t *peer = iso_peer_find(job, rank);
        events++;
        /* a transport that sees deaths itself reports this one after the last message */
        if (peer && peer->ep && peer->link->caps.sees_death)
            continue;
        drain_links(job);
        iso_dispatch_death(job, rank);
    }
    return events;
}

iso_status_t iso_peer_declare_dead(iso_job_t *job, uint32_t rank)
{
    if (rank >= job->size || rank == job->rank)
        return ISO_ERR_RANK;
    iso_job_lock(job);
    drain_links(job);
    iso_dispatch_death(job, rank);
    iso_wait_note(job, 1);
    iso_job_unlock(job);
    return ISO_OK;
}

bool iso_job_is_ours(const iso_job_t *job, const char *call)
{
    if (job->forked)
        iso_log(&job->logger, ISO_LOG_ERROR,
                "%s in a process forked after iso_init: the job is its parent's", call);
    return !job->forked;
}

unsigned iso_job_advance(iso_job_t *job)
{
    unsigned events = 0;
    if (!job->forked)
        iso_left_advance(job); /* a job of one rank packs heaps away, too */
    if (job->size > 1 && !job->forked) {
        events += advance_links(job);
        events += iso_migrate_advance(job);
        events += iso_borrow_advance(job);
        events += iso_keys_advance(job);
        events += iso_windows_advance(job);
        events += iso_peers_flush(job);
        if (events == 0)
            events += hear_of_deaths(job);
        iso_wait_note(job, events);
    }
    return events;
}

unsigned iso_progress(iso_job_t *job)
{
    iso_job_lock(job);
    unsigned events = iso_job_advance(job);
    iso_job_unlock(job);
    unsigned called = call_arrivals(job);
    if (called > 0) {
        iso_job_lock(job);
        iso_wait_note(job, called);
        iso_job_unlock(job);
    }
    return events + called;
}

/* ---- statistics ---- */

void iso_stats(iso_job_t *job, iso_stats_t *stats_p)
{
    iso_job_lock(job);
    if (!job->forked)
        iso_left_look(job, INFINITY);
    *stats_p = job->stats;
    stats_p->slots_free = job->slots.free_count;
    stats_p->slots_total = job->slots.free_count;
    for (const iso_hold_t *hold = job->holds; hold; hold = hold->next)
        stats_p->slots_total += hold->arrival ? 0 : hold->slot_count;
    stats_p->retained_bytes = iso_retain_bytes(&job->retain);
    stats_p->peers = job->peers.count;
    iso_job_unlock(job);
}
