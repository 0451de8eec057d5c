/* rank_collectives.c - what works: collectives, blobs, barriers that are polled. */
#include "bootstrap_rank.h"
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void scenario_collectives(void)
{
    static const size_t lengths[] = {4, 0, 1, 5000, 32768, 32769, 16};

    open_job();
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        gather_and_check(lengths[i]);
        CHECK(barrier() == ISO_OK);
    }
    close_job();
    say("done");
}

static void scenario_gather(void) /* argument: bytes */
{
    open_job();
    gather_and_check(strtoul(argument, NULL, 10));
    close_job();
    say("done");
}

static size_t blob_length(uint32_t rank, unsigned generation)
{
    return (rank * 977 + generation * 13) % 4097;
}

static void publish(unsigned generation)
{
    unsigned char blob[4096];
    size_t len = blob_length(job->rank, generation);

    for (size_t i = 0; i < len; i++)
        blob[i] = pattern(job->rank + generation, i);
    CHECK(job->publish(job->ctx, blob, len) == ISO_OK);
}

static void lookup_all(unsigned generation)
{
    unsigned char blob[4096];

    for (uint32_t rank = 0; rank < job->size; rank++) {
        size_t len = sizeof blob, expected = blob_length(rank, generation);

        CHECK(job->lookup(job->ctx, rank, blob, &len) == ISO_OK);
        CHECK(len == expected);
        for (size_t i = 0; i < len; i++)
            CHECK(blob[i] == pattern(rank + generation, i));
    }
}

static void scenario_generations(void) /* argument: how many */
{
    unsigned generations = (unsigned)strtoul(argument, NULL, 10);

    for (unsigned generation = 0; generation < generations; generation++) {
        open_job();
        publish(generation);
        gather_and_check(8 + generation);
        lookup_all(generation);
        if (job->rank % 3 == generation % 3)
            nap(0.02); /* some are still in this generation when others open the next */
        CHECK(barrier() == ISO_OK);
        close_job();
    }
    say("done");
}

/* An answer to a lookup, and one to a barrier that ends meanwhile, get to the right caller. */
static void scenario_lookup_in_barrier(void)
{
    open_job();
    publish(0);
    gather_and_check(1);
    for (int i = 0; i < 20; i++) {
        CHECK(job->barrier_start(job->ctx) == ISO_OK);
        nap(0.002 * job->rank);
        lookup_all(0);
        if (i % 2 == 0)
            gather_and_check(100); /* the next collective may be called before this one is tested */
        CHECK(wait_barrier() == ISO_OK);
    }
    CHECK(barrier() == ISO_OK); /* nobody ends while it is looked up */
    close_job();
    say("done");
}

static void scenario_idle_barrier(void)
{
    struct rusage before, after;
    unsigned wakes = 0;
    struct pollfd news;
    double busy;

    open_job();
    CHECK(barrier() == ISO_OK);
    if (job->rank == 0)
        nap(1.5);
    getrusage(RUSAGE_SELF, &before);
    news = (struct pollfd){.fd = job->event_fd, .events = POLLIN};
    CHECK(job->barrier_start(job->ctx) == ISO_OK);
    while (job->barrier_test(job->ctx) == ISO_INPROGRESS) {
        CHECK(poll(&news, 1, 20000) == 1);
        wakes++;
    }
    getrusage(RUSAGE_SELF, &after);
    busy = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec -
                    before.ru_stime.tv_sec) +
           1e-6 * (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec +
                           after.ru_stime.tv_usec - before.ru_stime.tv_usec);
    CHECK(wakes <= 2 && busy < 0.1);
    CHECK(poll(&news, 1, 0) == 0); /* all is fetched: nothing keeps the descriptor readable */
    CHECK(barrier() == ISO_OK);
    close_job();
    say("done");
}

static void scenario_hold(void) /* joined, and waiting for nothing until stdin ends */
{
    char byte;

    open_job();
    say("pid %d", (int)getpid());
    if (job->rank == 0)
        while (read(STDIN_FILENO, &byte, 1) > 0)
            ;
    CHECK(barrier() == ISO_OK);
    close_job();
    say("done");
}

const scenario_t collective_scenarios[] = {
    {"collectives", scenario_collectives},
    {"gather", scenario_gather},
    {"generations", scenario_generations},
    {"lookup-in-barrier", scenario_lookup_in_barrier},
    {"idle-barrier", scenario_idle_barrier},
    {"hold", scenario_hold},
    {NULL, NULL},
};
