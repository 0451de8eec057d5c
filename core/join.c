/*
 * join.c - how a job begins and ends.
 *
 * Joining is three exchanges among all ranks (exchange.h):
 *   1. who is where (host, pid), of which version, with which settings; rank 0's cookie and proposal
 *      for the space;
 *   2. are the addresses free everywhere, which descriptors does a node's leader share; if an address
 *      is taken somewhere, up to three rounds of holes offered, intersected and tried; if a node is to
 *      have anonymous memory, a trial of it (trial.h);
 *   3. is everything mapped and registered.
 * A rank sees what all have said combined into one record, and what its host's ranks have said. That is
 * freed at the end of iso_init: nothing of the size of the job stays, except where a caller's bootstrap
 * cannot look up a rank's card.
 */
#include "core/arrive.h"
#include "core/backing.h"
#include "core/exchange.h"
#include "core/fault.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/launch.h"
#include "core/migrate.h"
#include "core/os.h"
#include "core/params.h"
#include "core/poison.h"
#include "core/register.h"
#include "core/shared.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPACE_ROUNDS 3

typedef struct hello {
    iso_record_t head;
    uint32_t version, page_size;
    uint64_t layout, host;
    uint64_t base, size; /* proposed */
    uint64_t wish_base, wish_size;
    uint32_t backing, node_size;
    int32_t pid;
    uint64_t start; /* of the process */
    uint8_t cookie[16];
    char transport[32];
    /* of a combined one: the first that disagrees, if any */
    uint32_t other_hosts;
    uint32_t differs; /* 1 + the index in `agreed` of what it has otherwise; 0: nothing */
    uint32_t differs_rank, differs_from;
    uint64_t differs_theirs, differs_ours;
} hello_t;

typedef struct place {
    iso_record_t head;
    int32_t reserve;                /* ISO_OK, ISO_ERR_NO_SPACE */
    int32_t segment_fd, backing_fd; /* of a node's leader */
    uint32_t backing;               /* of a node's leader, for the node; else 0 */
    uint32_t anon;                  /* that backing is anon; combined: somewhere */
    uint32_t trials;                /* iso_trial_wanted */
} place_t;

typedef struct offer {
    iso_record_t head;
    uint32_t count;
    iso_os_hole_t holes[ISO_SPACE_HOLES];
} offer_t;

/* ---- 1: who ---- */

/* What all ranks must have alike. */
static const struct {
    const char *what;
    size_t offset, size;
    iso_status_t status;
} agreed[] = {
#define AGREED(field) offsetof(hello_t, field), sizeof((hello_t *)0)->field
    {"library version (major, minor, patch a byte each)", AGREED(version), ISO_ERR_VERSION},
    {"OS page size", AGREED(page_size), ISO_ERR_VERSION},
    {"heap layout (another build of the library)", AGREED(layout), ISO_ERR_VERSION},
    {"ISO_SPACE_SIZE", AGREED(wish_size), ISO_ERR_INVALID},
    {"ISO_SPACE_BASE", AGREED(wish_base), ISO_ERR_INVALID},
    {"ISO_BACKING (by number)", AGREED(backing), ISO_ERR_INVALID},
    {"ISO_NODE_SIZE", AGREED(node_size), ISO_ERR_INVALID},
    {"another ISO_TRANSPORT (first letter)", AGREED(transport), ISO_ERR_INVALID},
};

/* For messages: a number, or the first letter of a text. */
static uint64_t value_of(const void *field, size_t size)
{
    uint32_t half;
    uint64_t whole;
    memcpy(&half, field, sizeof half);
    if (size == sizeof half)
        return half;
    memcpy(&whole, field, sizeof whole);
    return size == sizeof whole ? whole : *(const unsigned char *)field;
}

static void compare(hello_t *into, const hello_t *from)
{
    for (size_t i = 0; i < sizeof agreed / sizeof *agreed && !into->differs; i++) {
        const char *ours = (const char *)into + agreed[i].offset;
        const char *theirs = (const char *)from + agreed[i].offset;
        if (memcmp(ours, theirs, agreed[i].size) == 0)
            continue;
        into->differs = (uint32_t)i + 1;
        into->differs_rank = from->head.rank;
        into->differs_from = into->head.rank;
        into->differs_theirs = value_of(theirs, agreed[i].size);
        into->differs_ours = value_of(ours, agreed[i].size);
    }
}

static void combine_hellos(void *into_record, const void *from_record)
{
    hello_t *into = into_record;
    const hello_t *from = from_record;
    if (from->other_hosts || from->host != into->host)
        into->other_hosts = 1;
    if (into->differs)
        return;
    compare(into, from);
    if (into->differs || !from->differs)
        return;
    into->differs = from->differs;
    into->differs_rank = from->differs_rank;
    into->differs_from = from->differs_from;
    into->differs_theirs = from->differs_theirs;
    into->differs_ours = from->differs_ours;
}

static iso_status_t agree(const iso_job_t *job, const hello_t *total)
{
    if (!total->differs)
        return ISO_OK;
    if (job->rank == 0)
        iso_log(&job->logger, ISO_LOG_ERROR,
                "rank %" PRIu32 " has %s %#" PRIx64 ", rank %" PRIu32 " has %#" PRIx64
                ": all ranks of a job must have the same",
                total->differs_rank, agreed[total->differs - 1].what, total->differs_theirs,
                total->differs_from, total->differs_ours);
    return agreed[total->differs - 1].status;
}

static bool same_node(const hello_t *a, uint32_t rank_a, const hello_t *b, uint32_t rank_b,
                      uint32_t node_size)
{
    return a->host == b->host && (node_size == 0 || rank_a / node_size == rank_b / node_size);
}

/* Which ranks are this one's node, among those of its host. */
static iso_status_t find_node(iso_job_t *job, const hello_t *mine, const hello_t *hellos)
{
    iso_node_t *node = &job->node;
    uint32_t host_count, count = 0;
    const uint32_t *host = iso_exchange_host(job, &host_count);
    for (uint32_t i = 0; i < host_count; i++)
        count += same_node(mine, job->rank, &hellos[i], host ? host[i] : i, job->params.node_size);
    if (count == 0) /* not even this rank: who was to tell has died */
        return ISO_ERR_PEER_DEAD;
    node->self = job->rank;
    node->ranks = malloc(count * sizeof *node->ranks);
    node->pids = malloc(count * sizeof *node->pids);
    node->starts = malloc(count * sizeof *node->starts);
    if (!node->ranks || !node->pids || !node->starts)
        return ISO_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < host_count; i++) {
        uint32_t rank = host ? host[i] : i;
        if (!same_node(mine, job->rank, &hellos[i], rank, job->params.node_size))
            continue;
        node->ranks[node->rank_count] = rank;
        node->starts[node->rank_count] = hellos[i].start;
        node->pids[node->rank_count++] = hellos[i].pid;
    }
    node->leader = node->ranks[0];
    return ISO_OK;
}

/* *own_p: what this rank alone has met then, to be told in the next exchange. */
static iso_status_t meet(iso_job_t *job, iso_status_t so_far, hello_t *total_p, iso_status_t *own_p)
{
    unsigned major, minor, patch;
    iso_version(&major, &minor, &patch);
    hello_t mine = {.head = {.magic = ISO_RECORD_MAGIC, .status = so_far},
                    .version = major << 16 | minor << 8 | patch,
                    .page_size = (uint32_t)iso_os_page_size(),
                    .layout = iso_heap_layout_digest(),
                    .host = iso_os_host_key(),
                    .wish_base = job->params.space_base,
                    .wish_size = job->params.space_size,
                    .backing = job->params.backing,
                    .node_size = job->params.node_size,
                    .pid = (int32_t)getpid(),
                    .start = iso_os_start_time((int32_t)getpid())};
    strncpy(mine.transport, job->params.transport, sizeof mine.transport - 1);
    iso_space_propose(&job->params, &mine.base, &mine.size);
    if (so_far == ISO_OK)
        mine.head.status = iso_os_random(mine.cookie, sizeof mine.cookie);
    void *hellos;
    iso_status_t status = iso_exchange(job, &mine, sizeof mine, combine_hellos, total_p, &hellos);
    if (status != ISO_OK)
        return status;
    status = agree(job, total_p);
    if (status == ISO_OK) {
        memcpy(job->cookie, total_p->cookie, sizeof job->cookie); /* rank 0's */
        *own_p = find_node(job, &mine, hellos);
    }
    free(hellos);
    return status;
}

/* ---- links ---- */

/* Transports that `auto` prefers between nodes, the best first. */
static const char *const network_transports[] = {"ucx", "ofi"};

/* `auto`: the first network transport that is there, if ranks are on several hosts. Pretended nodes of one host
 * have loopback, which needs no network and comes through the death of a peer at any moment. */
static const char *choose_transport(const iso_job_t *job, bool other_hosts)
{
    if (strcmp(job->params.transport, "auto") != 0)
        return job->params.transport;
    if (job->params.transport_shared)
        return job->params.transport_shared->transport;
    for (size_t i = 0; other_hosts && i < sizeof network_transports / sizeof *network_transports;
         i++)
        if (iso_module_present(&job->params, network_transports[i]))
            return network_transports[i];
    return "loopback";
}

static iso_status_t open_links(iso_job_t *job, bool other_hosts)
{
    const char *name = choose_transport(job, other_hosts);
    const iso_transport_shared_t *shared = job->params.transport_shared;
    bool beyond = job->node.rank_count < job->size;
    iso_status_t status = ISO_OK;
    if (shared && strcmp(shared->transport, name) != 0) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "the program shares what is of transport %s (iso_params_t::transport_shared), and "
                "ISO_TRANSPORT is %s: set it to the same, or to auto",
                shared->transport, name);
        return ISO_ERR_INVALID;
    }
    if (job->node.rank_count > 1)
        status = iso_link_open(job, "loopback", NULL, &job->node_link);
    if (status != ISO_OK)
        return status;
    if (!beyond) {
        iso_module_t module; /* a transport that is named must be there, needed or not */
        if (strcmp(job->params.transport, "auto") == 0)
            return ISO_OK;
        status = iso_module_open_transport(&job->logger, &job->params, name, &module);
        if (status == ISO_OK)
            iso_module_close(&module);
        return status;
    }
    if (job->node_link && strcmp(name, "loopback") == 0)
        job->net_link = job->node_link;
    else
        status = iso_link_open(job, name, shared, &job->net_link);
    if (status == ISO_OK && other_hosts && job->net_link->caps.shares_host) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "ranks of this job are on several hosts, and transport %s reaches only its own: "
                "install a network transport's module (ISO_MODULE_PATH) and name it in "
                "ISO_TRANSPORT",
                name);
        return ISO_ERR_UNREACHABLE;
    }
    return status;
}

static void fill_card(const iso_job_t *job, iso_card_t *card)
{
    const iso_link_t *links[2] = {job->node_link, job->net_link};
    memset(card, 0, sizeof *card);
    for (int i = 0; i < 2; i++)
        if (links[i]) {
            card->lengths[i] = (uint32_t)links[i]->address_len;
            memcpy(card->addresses[i], links[i]->address, links[i]->address_len);
        }
    if (job->net_link)
        strncpy(card->transport, job->net_link->ops->name, sizeof card->transport - 1);
}

static iso_status_t publish(iso_job_t *job)
{
    iso_card_t card;
    void *all;
    fill_card(job, &card);
    if (!job->bootstrap)
        return ISO_OK;
    if (job->bootstrap->publish)
        return job->bootstrap->publish(job->bootstrap->ctx, &card, sizeof card);
    iso_status_t status = iso_exchange_all(job, &card, sizeof card, &all);
    if (status == ISO_OK)
        job->blobs = all;
    return status;
}

/* ---- 2: where ---- */

static void combine_places(void *into_record, const void *from_record)
{
    place_t *into = into_record;
    const place_t *from = from_record;
    if (into->reserve == ISO_OK)
        into->reserve = from->reserve;
    into->anon |= from->anon;
    into->trials |= from->trials;
}

static iso_status_t try_holes(iso_job_t *job, uint64_t size)
{
    for (int round = 0; round < SPACE_ROUNDS; round++) {
        offer_t mine = {.head = {.magic = ISO_RECORD_MAGIC}};
        void *all;
        mine.count = (uint32_t)iso_space_holes(size, mine.holes);
        iso_status_t status = iso_exchange_all(job, &mine, sizeof mine, &all);
        if (status != ISO_OK)
            return status;
        const offer_t *offers = all;
        uint32_t *counts = malloc(job->size * sizeof *counts);
        iso_os_hole_t *holes = malloc(job->size * sizeof mine.holes);
        uint64_t base = 0;
        if (counts && holes) {
            for (uint32_t r = 0; r < job->size; r++) {
                counts[r] = offers[r].count < ISO_SPACE_HOLES ? offers[r].count : ISO_SPACE_HOLES;
                memcpy(&holes[(size_t)r * ISO_SPACE_HOLES], offers[r].holes, sizeof mine.holes);
            }
            base = iso_space_intersect(holes, counts, ISO_SPACE_HOLES, job->size, size);
        }
        free(holes);
        free(counts);
        free(all);
        place_t place = {.head = {.magic = ISO_RECORD_MAGIC}, .reserve = ISO_ERR_NO_SPACE};
        if (base) {
            place.reserve = iso_space_reserve(&job->space, &job->logger, base, size);
            if (place.reserve != ISO_OK && place.reserve != ISO_ERR_NO_SPACE)
                place.head.status = place.reserve;
        }
        place_t total;
        status = iso_exchange(job, &place, sizeof place, combine_places, &total, NULL);
        if (status != ISO_OK || total.reserve == ISO_OK)
            return status;
        iso_space_release(&job->space);
    }
    if (job->rank == 0)
        iso_log(&job->logger, ISO_LOG_ERROR,
                "no range of %" PRIu64 " MiB is free at the same addresses in every rank (%" PRIu32
                "): set ISO_SPACE_SIZE to less",
                size >> 20, job->size);
    return ISO_ERR_NO_SPACE;
}

static iso_status_t no_memory_object(const iso_job_t *job, uint64_t size, int error)
{
    iso_log(&job->logger, ISO_LOG_ERROR,
            "cannot create the memory object of the iso space (%" PRIu64 " MiB): %s; set %s",
            size >> 20, strerror(error),
            error == EFBIG                       ? "ulimit -f unlimited, or ISO_SPACE_SIZE to less"
            : error == EMFILE || error == ENFILE ? "ulimit -n to more"
                                                 : "ISO_SPACE_SIZE to less");
    return ISO_ERR_LIMIT;
}

/* The leader makes what the node shares. */
static iso_status_t make_shared(iso_job_t *job, uint64_t size, place_t *place)
{
    int fd, error;
    if (job->node.rank_count > 1) {
        iso_status_t status = iso_node_create(&job->node, &job->logger, job->cookie,
                                              (uint32_t)(size >> ISO_SLOT_SHIFT));
        if (status != ISO_OK)
            return status;
        place->segment_fd = job->node.fd;
    }
    if (place->backing != ISO_BACKING_SHARED)
        return ISO_OK;
    error = iso_os_memfd_create("iso-space", size, &fd);
    if (error)
        return no_memory_object(job, size, error);
    place->backing_fd = fd;
    return ISO_OK;
}

static iso_status_t open_backing(iso_job_t *job, uint64_t size, const place_t *leader, int *fd_p)
{
    int error;
    if (leader->backing != ISO_BACKING_SHARED) {
        error = iso_os_memfd_create("iso-space", size, fd_p);
        return error ? no_memory_object(job, size, error) : ISO_OK;
    }
    if (job->node.leader == job->rank) {
        *fd_p = leader->backing_fd;
        return ISO_OK;
    }
    error =
        iso_os_memfd_open_of(iso_node_pid(&job->node, job->node.leader), leader->backing_fd, fd_p);
    if (error) {
        iso_log(&job->logger, ISO_LOG_ERROR, "cannot open the memory object of the iso space: %s",
                strerror(error));
        return ISO_ERR_SYSTEM;
    }
    return ISO_OK;
}

/* Anonymous memory, at this node or at another, is not relied on before it has been tried. */
static iso_status_t try_anon(iso_job_t *job, uint32_t trials, place_t *leader)
{
    bool good, wanted = leader->backing == ISO_BACKING_ANON;
    iso_status_t status = iso_trial_run(job, trials, wanted, &good);
    if (status == ISO_OK && wanted && !good)
        leader->backing = ISO_BACKING_PRIVATE;
    return status;
}

static iso_status_t settle_space(iso_job_t *job, const hello_t *first, iso_status_t so_far)
{
    uint64_t size = first->size;
    place_t mine = {.head = {.magic = ISO_RECORD_MAGIC, .status = so_far},
                    .reserve = ISO_OK,
                    .segment_fd = -1,
                    .backing_fd = -1,
                    .trials = iso_trial_wanted(job)};
    if (mine.head.status == ISO_OK) {
        mine.reserve = iso_space_reserve(&job->space, &job->logger, first->base, size);
        if (mine.reserve == ISO_ERR_NO_SPACE && job->params.space_base)
            iso_space_explain(&job->logger, first->base, size);
        if (mine.reserve != ISO_OK && (mine.reserve != ISO_ERR_NO_SPACE || job->params.space_base))
            mine.head.status = mine.reserve;
    }
    if (mine.head.status == ISO_OK && job->node.leader == job->rank) { /* decides for its node */
        mine.backing = iso_backing_choose(&job->logger, job->params.backing, job->node.rank_count);
        mine.head.status = make_shared(job, size, &mine);
    }
    mine.anon = mine.backing == ISO_BACKING_ANON;
    place_t total;
    place_t leader;
    iso_status_t status = iso_exchange(job, &mine, sizeof mine, combine_places, &total, NULL);
    if (status == ISO_OK)
        status = iso_exchange_one(job, &mine, sizeof mine, job->node.leader, &leader);
    if (status != ISO_OK) {
        if (mine.backing_fd >= 0)
            close(mine.backing_fd);
        return status;
    }
    if (total.reserve != ISO_OK) {
        iso_space_release(&job->space);
        status = try_holes(job, size);
    }
    if (status == ISO_OK && total.anon)
        status = try_anon(job, total.trials, &leader);
    int fd = mine.backing_fd;
    if (status == ISO_OK) {
        job->space.backing = (iso_backing_t)leader.backing;
        job->node.shared_pages = leader.backing == ISO_BACKING_SHARED;
    }
    if (status == ISO_OK && leader.backing != ISO_BACKING_ANON) {
        status = open_backing(job, size, &leader, &fd);
        if (status == ISO_OK)
            status = iso_space_map(&job->space, &job->logger, fd, job->params.core_dump);
    }
    if (status != ISO_OK && fd >= 0)
        close(fd);
    if (status == ISO_OK && job->node.rank_count > 1 && job->node.leader != job->rank)
        status = iso_node_attach(&job->node, &job->logger, job->cookie,
                                 iso_space_slots(&job->space), leader.segment_fd);
    return status;
}

/* ---- 3: ready ---- */

static iso_status_t open_tables(iso_job_t *job)
{
    uint32_t slots = iso_space_slots(&job->space);
    job->hold_of = iso_os_table_map(slots * sizeof *job->hold_of);
    job->extent_at = iso_os_table_map(slots * sizeof *job->extent_at);
    job->shared_of = iso_os_table_map(slots * sizeof *job->shared_of);
    iso_status_t status =
        job->hold_of && job->extent_at && job->shared_of ? ISO_OK : ISO_ERR_NO_MEMORY;
    if (status == ISO_OK)
        status = iso_slots_open(&job->slots, slots, job->rank, job->size);
    if (status == ISO_OK)
        status = iso_retain_open(&job->retain, job->params.retain, slots);
    if (status == ISO_OK)
        status = iso_guard_open(job);
    if (status == ISO_OK)
        status = iso_poison_open(job);
    if (status != ISO_OK)
        iso_log(&job->logger, ISO_LOG_ERROR,
                "no room for the tables of an iso space of %" PRIu32
                " slots: set ISO_SPACE_SIZE to less",
                slots);
    return status;
}

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

static void in_forked_child(void)
{
    for (int i = 0; i < ISO_JOBS_MAX; i++)
        if (iso_job_table[i].job)
            iso_job_table[i].job->forked = true;
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, in_forked_child);
}

static iso_status_t enter_table(iso_job_t *job)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    iso_status_t status = ISO_ERR_LIMIT;
    pthread_mutex_lock(&table_lock);
    for (int i = iso_poison_active ? 1 : 0; i < ISO_JOBS_MAX && status != ISO_OK; i++)
        if (!iso_job_table[i].job) {
            iso_job_row_t *row = &iso_job_table[i];
            row->base = (uintptr_t)job->space.base;
            row->table = job->slots.table;
            row->direct = job->slots.direct;
            row->job = job;
            atomic_store_explicit(&row->size, (size_t)job->space.size, memory_order_release);
            status = ISO_OK;
        }
    pthread_mutex_unlock(&table_lock);
    if (status != ISO_OK)
        iso_log(&job->logger, ISO_LOG_ERROR,
                "this process is in %d jobs already: finalize one of them first", ISO_JOBS_MAX);
    return status;
}

static void leave_table(iso_job_t *job)
{
    pthread_mutex_lock(&table_lock);
    for (int i = 0; i < ISO_JOBS_MAX; i++)
        if (iso_job_table[i].job == job) {
            atomic_store(&iso_job_table[i].size, 0);
            iso_job_table[i].job = NULL;
        }
    pthread_mutex_unlock(&table_lock);
}

static void destroy(iso_job_t *job)
{
    iso_fault_close(job);
    iso_threads_close(job);
    leave_table(job);
    iso_migrate_close(job);
    iso_arrive_close(job);
    iso_peers_close(job);
    iso_windows_close(job);
    for (iso_delivery_t *delivery = job->deliveries, *next; delivery; delivery = next) {
        next = delivery->next;
        free(delivery);
    }
    if (job->shared_of)
        iso_shared_close_all(job);
    for (iso_hold_t *hold = job->holds, *next; hold; hold = next) {
        next = hold->next;
        free(hold->extents);
        free(hold);
    }
    iso_wait_close(job);
    if (job->net_link != job->node_link)
        iso_link_close(job->net_link);
    iso_link_close(job->node_link);
    iso_guard_close(job);
    iso_poison_close(job);
    iso_trial_close(job->trials);
    iso_huge_close(&job->huge);
    iso_retain_close(&job->retain);
    iso_slots_close(&job->slots);
    iso_os_table_unmap(job->shared_of, iso_space_slots(&job->space) * sizeof *job->shared_of);
    iso_os_table_unmap(job->extent_at, iso_space_slots(&job->space) * sizeof *job->extent_at);
    iso_os_table_unmap(job->hold_of, iso_space_slots(&job->space) * sizeof *job->hold_of);
    iso_space_release(&job->space);
    iso_node_close(&job->node);
    free(job->blobs);
    if (job->bootstrap && job->bootstrap->close)
        job->bootstrap->close(job->bootstrap->ctx);
    iso_module_close(&job->bootstrap_module);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

/* All ranks have the same failure, and rank 0 says why. Nobody returns before it has: a launcher ends
 * the job when the first rank exits. */
static iso_status_t fail_together(iso_job_t *job, iso_status_t status)
{
    iso_record_t said = {.magic = ISO_RECORD_MAGIC}, total;
    iso_exchange(job, &said, sizeof said, NULL, &total, NULL);
    return status;
}

static iso_status_t join(iso_job_t *job, iso_status_t so_far)
{
    hello_t total;
    iso_status_t own, status = meet(job, so_far, &total, &own);
    if (status != ISO_OK)
        return fail_together(job, status);
    /* from here on a failure is told to the others in the next exchange */
    status = own == ISO_OK ? open_links(job, total.other_hosts) : own;
    iso_status_t published = publish(job);
    status = settle_space(job, &total, status == ISO_OK ? published : status);
    if (status == ISO_OK)
        status = open_tables(job);
    if (status == ISO_OK)
        status = iso_register_open(job);
    if (status == ISO_OK)
        status = iso_huge_open(job);
    if (status == ISO_OK)
        status = iso_wait_open(job);
    if (status == ISO_OK)
        status = enter_table(job);
    iso_job_lock(
        job); /* the library's own threads call the bootstrap, too: not before we are done */
    if (status == ISO_OK)
        status = iso_threads_open(job);
    if (status == ISO_OK)
        status = iso_fault_open(job);
    iso_record_t mine = {.magic = ISO_RECORD_MAGIC, .status = status}, all;
    iso_status_t gathered = iso_exchange(job, &mine, sizeof mine, NULL, &all, NULL);
    if (gathered != ISO_OK)
        fail_together(job, gathered);
    iso_job_unlock(job);
    return gathered;
}

iso_status_t iso_init(const iso_params_t *params, iso_job_t **job_p)
{
    iso_params_t imported;
    iso_logger_t logger = iso_logger_default();
    /* bad settings are this rank's failure, and it is told to the others, too */
    iso_status_t settings = iso_params_import(&logger, params, &imported);
    iso_job_t *job = calloc(1, sizeof *job);
    if (!job)
        return ISO_ERR_NO_MEMORY;
    job->params = imported;
    logger.level = job->params.log_level;
    job->logger = logger;
    job->space.fd = job->node.fd = -1;
    job->wait.event_fd = job->wait.timer_fd = job->wait.loop_fd = job->threads.dump_fd = -1;
    if (job->params.dump_signal && job->params.thread_level == ISO_THREAD_SINGLE)
        job->params.thread_level = ISO_THREAD_SERIALIZED; /* the thread that dumps needs the lock */
    job->deliveries_end = &job->deliveries;
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&job->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    iso_status_t status =
        iso_launch_open(&logger, &job->params, &job->bootstrap_module, &job->bootstrap);
    if (status != ISO_OK)
        goto fail;
    job->rank = job->bootstrap ? job->bootstrap->rank : 0;
    job->size = job->bootstrap ? job->bootstrap->size : 1;
    job->logger.rank = job->size > 1 ? (int32_t)job->rank : -1;
    if (settings == ISO_OK)
        settings = iso_stage_open(job);
    status = join(job, settings);
    if (status != ISO_OK)
        goto fail;
    iso_log(&job->logger, ISO_LOG_INFO,
            "rank %" PRIu32 " of %" PRIu32 ", iso space %p + %" PRIu64 " MiB, backing %s, node of "
            "%" PRIu32 ", transport between nodes %s",
            job->rank, job->size, (void *)job->space.base, job->space.size >> 20,
            iso_backing_name(job), job->node.rank_count, iso_transport_name(job));
    *job_p = job;
    return ISO_OK;
fail:
    destroy(job);
    return settings != ISO_OK ? settings : status;
}

/* Is a migration under way that will be settled within the timeout? One in doubt may never be. */
static bool migrating(iso_job_t *job)
{
    bool any = false;
    iso_job_lock(job);
    for (const iso_request_t *request = job->requests; request; request = request->next)
        any = any || !request->in_doubt;
    iso_job_unlock(job);
    return any;
}

iso_status_t iso_finalize(iso_job_t *job)
{
    if (!iso_job_is_ours(job, "iso_finalize"))
        return ISO_ERR_INVALID;
    for (iso_waiter_t waiter = {0}; migrating(job);) {
        iso_waiter_progress(job, &waiter);
        iso_waiter_sleep(job, iso_os_now() + 0.1, &waiter);
    }
    job->ending = true;
    iso_status_t status = iso_barrier(job);
    iso_threads_close(job);
    if (status != ISO_OK)
        iso_log(&job->logger, ISO_LOG_WARN, "not all ranks came to the end of the job: %s",
                iso_status_string(status));
    destroy(job);
    return status;
}
