/*
 * windows.c - the test of memory that is registered in windows (ISO_REGISTER=window): how much is registered at
 * most while heaps go whose addresses span far more than the limit, and how often a window is there once what
 * moves fits it.
 */
#include "load.h"
#include "options.h"
#include "pair.h"
#include "table.h"
#include <stdlib.h>

#define GROUP ((size_t)32)   /* heaps, a slot each, under way at a time: also what has to fit */
#define WORDS ((size_t)8192) /* bytes of each: more than rides in a message (ISO_INLINE_MAX) */

/* The peer's largest figure or this rank's own. */
static uint64_t most(pair_t *pair, uint64_t mine)
{
    uint64_t theirs;
    pair_exchange(pair, &mine, &theirs, sizeof mine, NULL, NULL);
    return mine > theirs ? mine : theirs;
}

static uint64_t sum(pair_t *pair, uint64_t mine)
{
    uint64_t theirs;
    pair_exchange(pair, &mine, &theirs, sizeof mine, NULL, NULL);
    return mine + theirs;
}

void test_windows(pair_t *pair, const plan_t *plan, table_t *table)
{
    const size_t groups = (plan->size + GROUP * ISO_SLOT_SIZE - 1) / (GROUP * ISO_SLOT_SIZE);
    series_t span, fits;
    iso_stats_t before, after;
    iso_heap_t **heaps = malloc(groups * GROUP * sizeof *heaps);
    if (!heaps)
        pair_fail("the table of heaps", ISO_ERR_NO_MEMORY);
    for (size_t i = 0; pair->first && i < groups * GROUP; i++)
        heaps[i] = load_new(pair, WORDS, 0);
    series_open(&span, table, groups, 0);
    series_open(&fits, table, plan->iterations, 0);
    for (size_t i = 0; i < groups; i++)
        series_add(&span, pair_round_trip(pair, heaps + i * GROUP, GROUP), GROUP, false);
    for (size_t i = 0; i < plan->warm_up; i++)
        pair_round_trip(pair, heaps, GROUP);
    iso_stats(pair->job, &before);
    for (size_t i = 0; i < plan->iterations; i++)
        series_add(&fits, pair_round_trip(pair, heaps, GROUP), GROUP, false);
    iso_stats(pair->job, &after);
    for (size_t i = 0; pair->first && i < groups * GROUP; i++)
        load_check(heaps[i], WORDS, 0);
    uint64_t high = most(pair, after.registered_high);
    uint64_t hits = sum(pair, after.window_hits - before.window_hits);
    uint64_t misses = sum(pair, after.window_misses - before.window_misses);
    series_row(&span, "Span", false);
    series_row(&fits, "Final", true);
    table_result(table, "registered at most %12.1f MiB", (double)high / (1 << 20));
    if (hits + misses > 0)
        table_result(table, "windows that were there %12.2f %%",
                     100 * (double)hits / (double)(hits + misses));
    else
        table_note(
            table,
            "no windows: set ISO_REGISTER=window, and ISO_NODE_SIZE=1 if the ranks share a host");
    series_close(&span);
    series_close(&fits);
    free(heaps);
}
