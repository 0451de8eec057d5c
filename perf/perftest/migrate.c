/*
 * migrate.c - tests of migrations: time, bandwidth, what fragments cost, first arrivals.
 *
 * Cold is what a heap meets the first time it comes to a rank, and has rows of its own. Times of a
 * heap that goes there and back are half of the round trip.
 */
#include "load.h"
#include "options.h"
#include "pair.h"
#include "table.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- what the library counted meanwhile ---- */

static void note_traffic(const pair_t *pair, const table_t *table, const iso_stats_t *before)
{
    iso_stats_t now;
    iso_stats(pair->job, &now);
    uint64_t out = now.migrations_out - before->migrations_out;
    uint64_t handed = now.handovers_out - before->handovers_out;
    if (out == 0)
        return;
    table_note(table,
               "%" PRIu64 " migrations from rank 0: %" PRIu64 " handed over, %" PRIu64
               " not; %.0f bytes by %.1f puts and %.0f in messages each; %" PRIu64
               " reserved first",
               out, handed, out - handed, (double)(now.bytes_put - before->bytes_put) / (double)out,
               (double)(now.puts - before->puts) / (double)out,
               (double)(now.bytes_inline - before->bytes_inline) / (double)out,
               now.reservations - before->reservations);
}

static uint64_t page_faults(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)(usage.ru_minflt + usage.ru_majflt) : 0;
}

/* Both ranks call it, at the end of what is measured. */
static void note_faults(pair_t *pair, const table_t *table, uint64_t mine)
{
    uint64_t theirs = 0;
    pair_exchange(pair, &mine, &theirs, sizeof mine, NULL, NULL);
    if (pair->first)
        table_note(table, "page faults meanwhile: %" PRIu64 " at rank 0, %" PRIu64 " at rank 1",
                   mine, theirs);
}

/* The bytes that a migration moves, for bandwidth, when one has been: none where heaps are handed over. */
static size_t moved(const pair_t *pair, size_t size)
{
    iso_stats_t stats;
    iso_stats(pair->job, &stats);
    return stats.handovers_out > 0 ? 0 : size;
}

/* ---- there and back ---- */

static void warm_up(pair_t *pair, iso_heap_t **heaps, size_t count, size_t times)
{
    while (times-- > 0)
        pair_round_trip(pair, heaps, count);
}

static void one_row(table_t *table, const char *stage, size_t bytes, double seconds,
                    unsigned operations)
{
    series_t series;
    series_open(&series, table, 1, bytes);
    series_add(&series, seconds, operations, false);
    series_row(&series, stage, false);
    series_close(&series);
}

void test_migrate_bw(pair_t *pair, const plan_t *plan, table_t *table)
{
    size_t count = plan->outstanding;
    unsigned operations = (unsigned)count;
    size_t waves = (plan->iterations + count - 1) / count;
    iso_stats_t before;
    series_t series;
    iso_heap_t **heaps = malloc(count * sizeof(iso_heap_t *));
    if (!heaps)
        pair_fail("the list of heaps", ISO_ERR_NO_MEMORY);
    for (size_t i = 0; pair->first && i < count; i++)
        heaps[i] = load_new(pair, plan->size, plan->node_size);
    double cold = pair_round_trip(pair, heaps, count);
    one_row(table, "Cold", moved(pair, plan->size), cold, operations);
    warm_up(pair, heaps, count, (plan->warm_up + count - 1) / count);
    iso_stats(pair->job, &before);
    series_open(&series, table, waves, moved(pair, plan->size));
    for (size_t i = 0; i < waves; i++)
        series_add(&series, pair_round_trip(pair, heaps, count), operations, true);
    note_traffic(pair, table, &before);
    series_row(&series, "Final", true);
    series_close(&series);
    for (size_t i = 0; pair->first && i < count; i++)
        load_check(heaps[i], plan->size, plan->node_size);
    free(heaps);
}

/* ---- latency, step by step ---- */

/* What rank 1 tells in the header when it sends the heap back. */
typedef struct held {
    double seconds;        /* from when the heap was attached there to when it was sent back */
    uint64_t reservations; /* that rank 1 has made so far */
} held_t;

/* Moments at this rank, by table_now. */
typedef struct moments {
    double attached; /* the COMMIT has come and the heap is attached */
    double owned;    /* it may be used */
} moments_t;

/* Waits for a heap whose address is known. It shows as moving from its COMMIT on, where a standing grant
 * spares it a reservation; inside a node one step does both. */
static moments_t watch_arrival(pair_t *pair, iso_heap_t *heap)
{
    moments_t at = {0};
    while (pair->here_count == 0) {
        pair_turn(pair);
        if (!pair->same_node && at.attached == 0 && pair->here_count == 0 &&
            iso_heap_state(heap) == ISO_HEAP_MOVING)
            at.attached = table_now();
    }
    at.owned = pair->arrived;
    if (at.attached == 0)
        at.attached = at.owned;
    pair_receive(pair, &heap, 1);
    return at;
}

static uint64_t reservations(const pair_t *pair)
{
    iso_stats_t stats;
    iso_stats(pair->job, &stats);
    return stats.reservations;
}

/* Rank 1's half of a round trip. */
static void reflect(pair_t *pair, iso_heap_t *heap)
{
    held_t held = {.reservations = reservations(pair)};
    moments_t at = watch_arrival(pair, heap);
    held.seconds = table_now() - at.attached;
    pair_send(pair, &heap, 1, &held, sizeof held);
}

typedef struct steps {
    series_t total, attached, ack, done;
    uint64_t reserved; /* by both ranks, so far */
} steps_t;

/* Rank 0's. Each figure is a difference of moments at one rank, so that clocks need not agree. */
static void send_and_watch(pair_t *pair, iso_heap_t *heap, steps_t *steps, bool ticking)
{
    held_t held;
    double call = table_now();
    pair_send(pair, &heap, 1, NULL, 0);
    double acked = table_now();
    moments_t at = watch_arrival(pair, heap);
    if (pair->header_len != sizeof held)
        pair_fail("what rank 1 tells", ISO_ERR_INVALID);
    memcpy(&held, pair->header, sizeof held);
    steps->reserved = held.reservations + reservations(pair);
    series_add(&steps->attached, (at.attached - call - held.seconds) / 2, 1, false);
    series_add(&steps->ack, acked - call, 1, false);
    series_add(&steps->done, at.owned - at.attached, 1, false);
    series_add(&steps->total, (at.owned - call) / 2, 1, ticking);
}

static void steps_open(steps_t *steps, table_t *table, size_t room, size_t bytes)
{
    series_open(&steps->total, table, room, bytes);
    series_open(&steps->attached, table, room, bytes);
    series_open(&steps->ack, table, room, 0);
    series_open(&steps->done, table, room, 0);
}

static void steps_close(steps_t *steps)
{
    series_close(&steps->total);
    series_close(&steps->attached);
    series_close(&steps->ack);
    series_close(&steps->done);
}

void test_migrate_lat(pair_t *pair, const plan_t *plan, table_t *table)
{
    steps_t cold, steps;
    iso_stats_t before;
    iso_heap_t *heap = pair->first ? load_new(pair, plan->size, plan->node_size) : NULL, *theirs;
    pair_exchange(pair, &heap, &theirs, sizeof(iso_heap_t *), NULL, NULL);
    if (!pair->first) {
        uint64_t faults = 0;
        for (size_t i = 0; i < 1 + plan->warm_up + plan->iterations; i++) {
            if (i == 1 + plan->warm_up)
                faults = page_faults();
            reflect(pair, theirs);
        }
        note_faults(pair, table, page_faults() - faults);
        return;
    }
    steps_open(&cold, table, 1 + plan->warm_up, 0);
    send_and_watch(pair, heap, &cold, false);
    cold.total.bytes = moved(pair, plan->size);
    series_row(&cold.total, "Cold", false);
    steps_open(&steps, table, plan->iterations, cold.total.bytes);
    for (size_t i = 0; i < plan->warm_up; i++)
        send_and_watch(pair, heap, &cold, false);
    iso_stats(pair->job, &before);
    uint64_t faults = page_faults();
    for (size_t i = 0; i < plan->iterations; i++)
        send_and_watch(pair, heap, &steps, true);
    faults = page_faults() - faults;
    note_traffic(pair, table, &before);
    note_faults(pair, table, faults);
    if (steps.reserved == cold.reserved && plan->warm_up > 0) {
        series_row(&steps.attached, "Attached", false);
        series_row(&steps.ack, "ACK", false);
        if (!pair->same_node) /* where to be attached is to be owned */
            series_row(&steps.done, "DONE", false);
    } else {
        table_note(table, "some of them reserved slots first, or there was no warm-up: when they "
                          "were attached is not known");
    }
    series_row(&steps.total, "Final", true);
    steps_close(&cold);
    steps_close(&steps);
    load_check(heap, plan->size, plan->node_size);
}

/* ---- first arrivals ---- */

/* Each heap comes to rank 1 for the first time, and stays there to the end. */
void test_migrate_cold(pair_t *pair, const plan_t *plan, table_t *table)
{
    series_t series, looks;
    series_open(&series, table, plan->iterations, plan->size);
    series_open(&looks, table, plan->iterations, plan->size);
    for (size_t i = 0; i < plan->iterations; i++) {
        double mine = 0, theirs;
        iso_heap_t *heap;
        if (pair->first) {
            heap = load_new(pair, plan->size, plan->node_size);
            double start = table_now();
            pair_send(pair, &heap, 1, NULL, 0);
            series_add(&series, table_now() - start, 1, false);
        } else {
            pair_receive(pair, &heap, 1);
            if (plan->node_size == 0)
                mine = load_look(heap, plan->size);
            load_check(heap, plan->size, plan->node_size);
        }
        pair_exchange(pair, &mine, &theirs, sizeof mine, NULL, NULL);
        if (pair->first && plan->node_size == 0)
            series_add(&looks, theirs, 1, false);
    }
    series.bytes = moved(pair, plan->size);
    series_row(&looks, "First look", false);
    series_row(&series, "Final", true);
    series_close(&looks);
    series_close(&series);
}

/* ---- beside memcpy ---- */

/* The yardstick: both sides are shared mappings of memory objects, and warm. */
static void *memfd_map(size_t size)
{
    int fd = memfd_create("iso_perftest", MFD_CLOEXEC);
    void *map = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)size) == 0)
        map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        perror("iso_perftest: memory for the yardstick");
        exit(1);
    }
    close(fd);
    memset(map, 1, size);
    return map;
}

/* They take turns, since the machine's speed drifts, and the median of the ratios is told. */
void test_migrate_memcpy(pair_t *pair, const plan_t *plan, table_t *table)
{
    series_t times, copies, ratios;
    iso_heap_t *heap = pair->first ? load_new(pair, plan->size, plan->node_size) : NULL;
    void *from = pair->first ? memfd_map(plan->size) : NULL;
    void *to = pair->first ? memfd_map(plan->size) : NULL;
    double cold = pair_round_trip(pair, &heap, 1);
    series_open(&times, table, plan->iterations, moved(pair, plan->size));
    series_open(&copies, table, plan->iterations, plan->size);
    series_open(&ratios, table, plan->iterations, 0);
    one_row(table, "Cold", moved(pair, plan->size), cold, 1);
    warm_up(pair, &heap, 1, plan->warm_up);
    for (size_t i = 0; i < plan->iterations; i++) {
        double start = table_now();
        if (from && to)
            memcpy(to, from, plan->size);
        double copy = table_now() - start, time = pair_round_trip(pair, &heap, 1);
        series_add(&copies, copy, 1, false);
        series_add(&times, time, 1, false);
        series_add(&ratios, copy / time, 1, false);
    }
    series_row(&copies, "memcpy", false);
    series_row(&times, "Final", true);
    table_result(table, "ratio %.2f of memcpy's rate", series_typical(&ratios));
    if (pair->first) {
        load_check(heap, plan->size, plan->node_size);
        munmap(from, plan->size);
        munmap(to, plan->size);
    }
    series_close(&times);
    series_close(&copies);
    series_close(&ratios);
}

/* ---- fragments ---- */

/* The pages that live blocks overlap, counted by a walk over the blocks, and the slots that have any. */
typedef struct pages {
    uintptr_t page, slot; /* the last one counted */
    size_t count, slots;
} pages_t;

static bool count_pages(void *block, size_t size, void *arg)
{
    pages_t *pages = arg;
    uintptr_t page_size = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)block;
    uintptr_t from = at / page_size, to = (at + size - 1) / page_size;
    if (from == pages->page)
        from++;
    if (to + 1 > from) {
        pages->count += to + 1 - from;
        pages->page = to;
    }
    for (uintptr_t slot = at / ISO_SLOT_SIZE; slot <= (at + size - 1) / ISO_SLOT_SIZE; slot++)
        if (slot != pages->slot) {
            pages->slot = slot;
            pages->slots++;
        }
    return true;
}

/* A heap of blocks, each of which lives or is freed by the toss of a coin. */
static iso_heap_t *fragmented_new(const pair_t *pair, size_t size, size_t block_size)
{
    iso_heap_t *heap;
    size_t blocks = size / block_size;
    uint64_t random = 1;
    void **all = malloc(blocks * sizeof *all);
    if (!all)
        pair_fail("the list of blocks", ISO_ERR_NO_MEMORY);
    pair_check(iso_heap_create(pair->job, &heap), "iso_heap_create");
    for (size_t i = 0; i < blocks; i++)
        if (!(all[i] = iso_malloc(heap, block_size)))
            pair_fail("iso_malloc", ISO_ERR_NO_SPACE);
    for (size_t i = 0; i < blocks; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        if (random >> 63)
            iso_free(all[i]);
        else
            memset(all[i], 1, block_size);
    }
    free(all);
    return heap;
}

/* What may be shipped: the pages of live blocks and 2 %, 64 KiB or 4 pages, and a page a slot. */
void test_migrate_frag(pair_t *pair, const plan_t *plan, table_t *table)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), slack = 4 * page > 65536 ? 4 * page : 65536;
    pages_t live = {0};
    iso_heap_stats_t heap_stats = {0};
    iso_stats_t before, after;
    series_t series;
    iso_heap_t *heap = NULL;
    if (pair->first) {
        heap = fragmented_new(pair, plan->size, plan->node_size);
        pair_check(iso_heap_walk(heap, count_pages, &live), "iso_heap_walk");
        pair_check(iso_heap_stats(heap, &heap_stats), "iso_heap_stats");
    }
    iso_stats(pair->job, &before);
    double cold = pair_round_trip(pair, &heap, 1);
    iso_stats(pair->job, &after);
    uint64_t shipped = after.bytes_put - before.bytes_put;
    shipped += after.bytes_inline - before.bytes_inline;
    double most = 1.02 * (double)(live.count * page) + (double)(slack + live.slots * page);
    table->bytes = heap_stats.live_bytes;
    one_row(table, "Cold", moved(pair, table->bytes), cold, 1);
    warm_up(pair, &heap, 1, plan->warm_up);
    series_open(&series, table, plan->iterations, moved(pair, table->bytes));
    for (size_t i = 0; i < plan->iterations; i++)
        series_add(&series, pair_round_trip(pair, &heap, 1), 1, true);
    table_note(table, "live blocks         %12.2f MiB", (double)heap_stats.block_bytes / (1 << 20));
    table_note(table, "their pages         %12.2f MiB", (double)(live.count * page) / (1 << 20));
    table_note(table, "shipped             %12.2f MiB", (double)shipped / (1 << 20));
    series_row(&series, "Final", true);
    if (pair->first)
        table_result(table, "ratio %.3f of what may be shipped", (double)shipped / most);
    series_close(&series);
}
