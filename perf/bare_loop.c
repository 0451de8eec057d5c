/*
 * bare_loop.c - the timed loops. Without -L puts from one process to the other without a pause, with a flush at their
 * end; with -L a put, a flush and a message to and fro, which is the least that a migration of as many bytes can
 * be made of.
 */
#include "bare.h"

/* A sample is of as many as are in flight. The last of them is remotely complete within the series' time. */
static void stream(bare_side_t *side, size_t count, series_t *series)
{
    const bare_network_t *network = side->network;
    const size_t outstanding = side->options->outstanding;
    unsigned since = 0; /* the last sample */
    double last = table_now();
    for (size_t i = 0; i < count; i++) {
        network->finish(side, i % outstanding);
        network->put(side, i % outstanding);
        if (++since == outstanding || i + 1 == count) {
            double now = table_now();
            series_add(series, now - last, since, true);
            last = now;
            since = 0;
        }
    }
    for (size_t slot = 0; slot < outstanding; slot++)
        network->finish(side, slot);
    network->flush(side);
    series_add_time(series, table_now() - last);
}

void bare_bandwidth(bare_side_t *side, table_t *table)
{
    const bare_options_t *options = side->options;
    series_t cold, warm_up, series;
    if (!side->source)
        return; /* tear_down makes its progress */
    series_open(&cold, table, 1, options->size);
    series_open(&warm_up, table, 0, options->size);
    series_open(&series, table, options->iterations, options->size);
    double start = table_now();
    side->network->put(side, 0);
    side->network->finish(side, 0);
    side->network->flush(side);
    series_add(&cold, table_now() - start, 1, false);
    series_row(&cold, "Cold", false);
    stream(side, options->warm_up, &warm_up);
    stream(side, options->iterations, &series);
    series_row(&series, "Final", true);
    series_close(&cold);
    series_close(&warm_up);
    series_close(&series);
}

static double to_and_fro(bare_side_t *side)
{
    double start = table_now();
    if (!side->source)
        side->network->await(side);
    side->network->put(side, 0);
    side->network->finish(side, 0);
    side->network->flush(side);
    side->network->send(side);
    if (side->source)
        side->network->await(side);
    return (table_now() - start) / 2;
}

void bare_latency(bare_side_t *side, table_t *table)
{
    const bare_options_t *options = side->options;
    series_t cold, series;
    series_open(&cold, table, 1, options->size);
    series_open(&series, table, options->iterations, options->size);
    series_add(&cold, to_and_fro(side), 1, false);
    series_row(&cold, "Cold", false);
    for (size_t i = 0; i < options->warm_up; i++)
        to_and_fro(side);
    for (size_t i = 0; i < options->iterations; i++)
        series_add(&series, to_and_fro(side), 1, true);
    series_row(&series, "Final", true);
    series_close(&cold);
    series_close(&series);
}
