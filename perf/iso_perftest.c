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

/* What is measured, above its rows; of final rows only the name, and that where there are several. */
static void describe(const pair_t *pair, const plan_t *plan, const table_t *table, bool several)
{
    char size[32] = "", nodes[48] = "", flight[32] = "", name[2 * OPTIONS_LABEL];
    const char *takes = plan->test->options;
    bool own = strcmp(plan->label, plan->test->name) != 0;
    snprintf(name, sizeof name, own ? "%s (%s)" : "%s", plan->label, plan->test->name);
    if (several && table->format.final_only && !table->format.csv)
        table_result(table, "%s:", name);
    if (strchr(takes, 's'))
        snprintf(size, sizeof size, ", %zu bytes", plan->size);
    if (plan->node_size)
        snprintf(nodes, sizeof nodes, " in nodes of %zu", plan->node_size);
    if (strchr(takes, 'O'))
        snprintf(flight, sizeof flight, ", %zu in flight", plan->outstanding);
    if (strchr(takes, 'T'))
        snprintf(flight, sizeof flight, ", %zu threads", plan->threads);
    table_note(table, "%s: backing %s, transport %s%s%s%s%s", name, table->backing,
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
    describe(&pair, plan, &table, options->plan_count > 1);
    if (size > 1)
        pair_check(iso_barrier(pair.job), "iso_barrier");
    if (rank < 2)
        plan->test->run(&pair, plan, &table);
    if (size > 1)
        pair_check(iso_barrier(pair.job), "iso_barrier");
    pair_close(&pair);
}

/* How many ranks has a launcher made? */
static uint32_t launched(void)
{
    iso_job_t *job;
    pair_check(iso_init(NULL, &job), "iso_init");
    uint32_t size = iso_size(job);
    pair_check(iso_finalize(job), "iso_finalize");
    return size;
}

/* Does a launcher, or the tests named, make a connection needless? */
static bool needs_server(const options_t *options)
{
    bool alone = options->named;
    for (size_t i = 0; i < options->plan_count; i++)
        alone = alone && options->plans[i].test->ranks == 1;
    return !alone && launched() == 1;
}

/* Finds the other process. NULL: a launcher has made the ranks, or none are needed. */
static server_t *meet(options_t *options, server_t *server)
{
    char *text = NULL;
    if (options->host) {
        if (launched() > 1) {
            fprintf(stderr,
                    "iso_perftest: %s: a HOST is for a client without a launcher; ranks of one "
                    "measure between each other\n",
                    options->host);
            exit(2);
        }
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

/* The kernel takes what there is of a set, and nothing of it is missed. */
static bool pin(const cpu_set_t *wanted)
{
    cpu_set_t set;
    int missing = 0;
    if (sched_setaffinity(0, sizeof *wanted, wanted) != 0 ||
        sched_getaffinity(0, sizeof set, &set) != 0) {
        perror("iso_perftest: -c: no such processors for this process");
        return false;
    }
    while (missing < CPU_SETSIZE && (!CPU_ISSET(missing, wanted) || CPU_ISSET(missing, &set)))
        missing++;
    if (missing < CPU_SETSIZE)
        fprintf(stderr, "iso_perftest: -c: no such processor for this process: %d\n", missing);
    return missing == CPU_SETSIZE;
}

int main(int argc, char **argv)
{
    options_t options;
    server_t connection = {.fd = -1};
    options_read(&options, argc, argv);
    if (options.pinned && !pin(&options.processors)) {
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
