/*
 * attach.c - from COMMIT to runnable, against the number of blocks.
 *
 * Measured at rank 0, to which the heap comes back: from the beginning of the iso_progress that meets the
 * COMMIT to the arrival callback. Between nodes that has the way of ACK and DONE in it.
 */
#include "load.h"
#include "options.h"
#include "pair.h"
#include "table.h"
#include <inttypes.h>
#include <stdio.h>

static double watch_attach(pair_t *pair, iso_heap_t *heap)
{
    double began = 0;
    while (pair->here_count == 0) {
        double before = table_now();
        pair_turn(pair);
        if (began == 0 &&
            (pair->here_count > 0 || (!pair->same_node && iso_heap_state(heap) == ISO_HEAP_MOVING)))
            began = before;
    }
    return pair->arrived - began;
}

static uint64_t reservations(pair_t *pair)
{
    iso_stats_t stats;
    uint64_t mine, theirs;
    iso_stats(pair->job, &stats);
    mine = stats.reservations;
    pair_exchange(pair, &mine, &theirs, sizeof mine, NULL, NULL);
    return theirs;
}

static void measure(pair_t *pair, const plan_t *plan, table_t *table, size_t blocks)
{
    char stage[32];
    series_t series;
    uint64_t reserved = 0;
    iso_heap_t *heap = NULL;
    if (pair->first)
        heap = load_new(pair, blocks * plan->node_size, plan->node_size);
    series_open(&series, table, plan->iterations, 0);
    for (size_t i = 0; i < plan->warm_up + plan->iterations; i++) {
        if (i == plan->warm_up)
            reserved = reservations(pair);
        if (pair->first) {
            pair_send(pair, &heap, 1, NULL, 0);
            double seconds = watch_attach(pair, heap);
            if (i >= plan->warm_up)
                series_add(&series, seconds, 1, false);
            pair_receive(pair, &heap, 1);
        } else {
            pair_receive(pair, &heap, 1);
            pair_send(pair, &heap, 1, NULL, 0);
        }
    }
    reserved = reservations(pair) - reserved;
    snprintf(stage, sizeof stage, "%zu", blocks);
    if (reserved > 0)
        table_note(table,
                   "%zu blocks: %" PRIu64 " of the migrations reserved slots first: when the "
                   "COMMIT came is not known",
                   blocks, reserved);
    else
        series_row(&series, stage, true);
    series_close(&series);
    if (pair->first) {
        load_check(heap, blocks * plan->node_size, plan->node_size);
        pair_check(iso_heap_destroy(heap), "iso_heap_destroy");
    }
}

void test_attach(pair_t *pair, const plan_t *plan, table_t *table)
{
    table_note(table, "the stage is the number of blocks, of %zu bytes each", plan->node_size);
    for (size_t blocks = 1; blocks <= plan->size / plan->node_size; blocks *= 10)
        measure(pair, plan, table, blocks);
}
