/*
 * iso_perftest.c - figures of the library in the manner of ucx_perftest: between a server and a client,
 * between two ranks of a launcher's, or, of what one rank does alone, in this process.
 *
 * Every test has a job of its own, so that none finds memory warm that another has left. Ranks beyond the
 * first two sleep in its barriers.
 */
#include "perftest/options.h"
#include "perftest/pair.h"
#include "perftest/server.h"
#include "perftest/table.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void describe(const pair_t *pair, const plan_t *plan, const table_t *table)
{
    char size[32] = "", nodes[48] = "", flight[32] = "";
    const char *takes = plan->test->options;
    if (strchr(takes, 's'))
        snprintf(size, sizeof size, ", %zu bytes", plan->size);
    if (plan->node_size)
        snprintf(nodes, sizeof nodes, " in nodes of %zu", plan->node_size);
    if (strchr(takes, 'O'))
        snprintf(flight, sizeof flight, ", %zu in flight", plan->outstanding);
    if (strchr(takes, 'T'))
        snprintf(flight, sizeof flight, ", %zu threads", plan->threads);
    table_note(table, "%s: backing %s, transport %s%s%s%s%s", plan->test->name, table->backing,
               table->transport, pair->params.node_size == 1 ? ", every rank its own node" : "",
               size, nodes, flight);
}

static void run(const options_t *options, const plan_t *plan, server_t *server)
{
    pair_t pair;
    pair_open(&pair, options->transport, server);
    uint32_t rank = iso_rank(pair.job), size = iso_size(pair.job);
    if (size < plan->test->ranks) {
        fprintf(stderr, "iso_perftest: %s takes two ranks: see -h for the ways to start them\n",
                plan->test->name);
        exit(2);
    }
    table_t table = {.format = options->format,
                     .test = plan->label,
                     .transport = iso_transport_name(pair.job),
                     .backing = iso_backing_name(pair.job),
                     .bytes = plan->size,
                     .outstanding = (unsigned)plan->outstanding,
                     .silent = rank != 0};
    describe(&pair, plan, &table);
    if (size > 1)
        pair_check(iso_barrier(pair.job), "iso_barrier");
    if (rank < 2)
        plan->test->run(&pair, plan, &table);
    if (size > 1)
        pair_check(iso_barrier(pair.job), "iso_barrier");
    pair_close(&pair);
}

/* Does a launcher, or the tests named, make a connection needless? */
static bool needs_server(const options_t *options)
{
    iso_job_t *job;
    bool alone = options->named;
    for (size_t i = 0; i < options->plan_count; i++)
        alone = alone && options->plans[i].test->ranks == 1;
    if (alone)
        return false;
    pair_check(iso_init(NULL, &job), "iso_init");
    uint32_t size = iso_size(job);
    pair_check(iso_finalize(job), "iso_finalize");
    return size == 1;
}

/* Finds the other process. NULL: a launcher has made the ranks, or none are needed. */
static server_t *meet(options_t *options, server_t *server)
{
    char *text = NULL;
    if (options->host) {
        text = options_tell(options);
        if (!text)
            pair_fail("the list of tests", ISO_ERR_NO_MEMORY);
        server_reach(server, options->host, options->port, text);
    } else if (needs_server(options)) {
        if (options->named)
            fputs(
                "iso_perftest: no launcher and no HOST: this is a server, and its client says what "
                "is measured\n",
                stderr);
        server_await(server, options->port, &text);
        if (!options_hear(options, text))
            exit(1);
        server_ready(server);
    } else {
        return NULL;
    }
    free(text);
    return server;
}

int main(int argc, char **argv)
{
    options_t options;
    server_t connection = {.fd = -1};
    options_read(&options, argc, argv);
    if (options.pinned &&
        sched_setaffinity(0, sizeof options.processors, &options.processors) != 0) {
        perror("iso_perftest: -c: no such processors for this process");
        options_free(&options);
        return 2;
    }
    server_t *server = meet(&options, &connection);
    for (size_t i = 0; i < options.plan_count; i++)
        run(&options, &options.plans[i], server);
    server_close(&connection);
    options_free(&options);
    return 0;
}
