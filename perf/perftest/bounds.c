/*
 * bounds.c - tests of what costs next to nothing, or has a bound that iso_bounds checks: handing over,
 * progress, waiting, mappings.
 */
#include "load.h"
#include "options.h"
#include "pair.h"
#include "table.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SMALL ((size_t)1 << 20) /* what a large heap is compared with */
#define CALLS 10000             /* of iso_progress in one sample */

/* A large heap in turns with a small one: where no bytes move the time is nearly the same. */
void test_handover(pair_t *pair, const plan_t *plan, table_t *table)
{
    series_t cold, large, small, ratios;
    iso_heap_t *of_size = pair->first ? load_new(pair, plan->size, 0) : NULL;
    iso_heap_t *of_small = pair->first ? load_new(pair, SMALL, 0) : NULL;
    series_open(&cold, table, 1, 0);
    series_open(&large, table, plan->iterations, 0);
    series_open(&small, table, plan->iterations, 0);
    series_open(&ratios, table, plan->iterations, 0);
    series_add(&cold, pair_round_trip(pair, &of_size, 1), 1, false);
    for (size_t i = 0; i < plan->warm_up; i++) {
        pair_round_trip(pair, &of_small, 1);
        pair_round_trip(pair, &of_size, 1);
    }
    for (size_t i = 0; i < plan->iterations; i++) {
        double less = pair_round_trip(pair, &of_small, 1),
               more = pair_round_trip(pair, &of_size, 1);
        series_add(&small, less, 1, false);
        series_add(&large, more, 1, false);
        series_add(&ratios, more / less, 1, false);
    }
    series_row(&cold, "Cold", false);
    series_row(&small, "1 MiB", false);
    series_row(&large, "Final", true);
    table_result(table, "ratio %.2f of the time of 1 MiB", series_typical(&ratios));
    series_close(&cold);
    series_close(&large);
    series_close(&small);
    series_close(&ratios);
}

/* Rank 1 looks at every page of a heap that comes and goes; an operation is a page. */
void test_visit(pair_t *pair, const plan_t *plan, table_t *table)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const unsigned pages = (unsigned)((plan->size + page - 1) / page);
    series_t first, later;
    iso_heap_t *heap = pair->first ? load_new(pair, plan->size, 0) : NULL;
    series_open(&first, table, 1, page);
    series_open(&later, table, plan->iterations, page);
    for (size_t i = 0; i <= plan->iterations; i++) {
        double mine = 0, theirs;
        if (pair->first)
            pair_send(pair, &heap, 1, NULL, 0);
        pair_receive(pair, &heap, 1);
        if (!pair->first) {
            mine = load_look(heap, plan->size);
            pair_send(pair, &heap, 1, NULL, 0);
        }
        pair_exchange(pair, &mine, &theirs, sizeof mine, NULL, NULL);
        series_add(i == 0 ? &first : &later, theirs, pages, false);
    }
    series_row(&first, "First visit", false);
    series_row(&later, "Final", true);
    series_close(&first);
    series_close(&later);
}

/* Calls that find nothing to do, while the other ranks sleep. */
void test_progress(pair_t *pair, const plan_t *plan, table_t *table)
{
    series_t calls;
    if (!pair->first)
        return;
    series_open(&calls, table, plan->iterations, 0);
    for (size_t i = 0; i < plan->iterations; i++) {
        double start = table_now();
        for (unsigned call = 0; call < CALLS; call++)
            iso_progress(pair->job);
        series_add(&calls, table_now() - start, CALLS, true);
    }
    series_row(&calls, "Final", true);
    series_close(&calls);
}

void test_idle(pair_t *pair, const plan_t *plan, table_t *table)
{
    struct timespec before, after;
    double start = table_now();
    (void)plan;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    while (table_now() - start < 1)
        iso_progress_wait(pair->job, 1 - (table_now() - start));
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    table_result(table, "processor time in 1 s of waiting %12.3f ms",
                 (double)(after.tv_sec - before.tv_sec) * 1e3 +
                     (double)(after.tv_nsec - before.tv_nsec) * 1e-6);
}

/* Lines of /proc/self/maps. */
static unsigned mappings(void)
{
    unsigned lines = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    for (int c; maps && (c = fgetc(maps)) != EOF;)
        lines += c == '\n';
    if (maps)
        fclose(maps);
    return lines;
}

void test_heaps(pair_t *pair, const plan_t *plan, table_t *table)
{
    series_t series;
    if (!pair->first)
        return;
    series_open(&series, table, plan->iterations, 0);
    for (size_t i = 0; i < plan->iterations; i++) {
        iso_heap_t *heap;
        double start = table_now();
        pair_check(iso_heap_create(pair->job, &heap), "iso_heap_create");
        if (!iso_malloc(heap, plan->size))
            pair_fail("iso_malloc", ISO_ERR_NO_SPACE);
        series_add(&series, table_now() - start, 1, true);
    }
    series_row(&series, "Final", true);
    table_result(table, "mappings of the process %12u", mappings());
    series_close(&series);
}
