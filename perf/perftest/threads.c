/*
 * threads.c - threads of libisomalloc-thread: a switch, beside those of swapcontext and Boost.Context; a migration, beside
 * that of the smallest heap.
 *
 * Where the library is not there (it is written for some processors), there are no such tests. Boost.Context is
 * compared with where it was there at build time.
 */
#ifdef ISO_PERFTEST_THREADS
#include "load.h"
#include "options.h"
#include "pair.h"
#include "table.h"
#include <isomalloc/thread.h>
#include <stdlib.h>
#include <ucontext.h>

#define SAMPLE 1000 /* switches that are timed together */
#define STACK ((size_t)64 << 10)
#define USED ((size_t)1 << 10)

static iso_thread_t *ready; /* the last that could be resumed; NULL: it was */

static void on_ready(iso_thread_t *thread, void *arg)
{
    (void)arg;
    ready = thread;
}

static void open_threads(pair_t *pair)
{
    iso_threads_params_t params = {.struct_size = sizeof params,
                                   .ready = on_ready,
                                   .arrival = pair->params.arrival,
                                   .arg = pair->params.arrival_arg};
    ready = NULL;
    pair_check(iso_threads_open(pair->job, &params), "iso_threads_open");
}

static void close_threads(pair_t *pair)
{
    iso_status_t status;
    while ((status = iso_threads_close(pair->job)) == ISO_ERR_BUSY)
        iso_threads_progress(pair->job);
    pair_check(status, "iso_threads_close");
}

static iso_thread_t *new_thread(iso_heap_t *heap, iso_thread_fn fn, void *arg, size_t stack)
{
    const iso_thread_attr_t attr = {
        .struct_size = sizeof attr, .stack_size = stack, .name = "iso_perftest"};
    iso_thread_t *thread;
    pair_check(iso_thread_create(heap, fn, arg, &attr, &thread), "iso_thread_create");
    return thread;
}

/* ---- a switch ---- */

/* Boost's switch loads MXCSR always, which is ten times as slow as all the rest where what is loaded differs, if only in what
 * exceptions were raised. Those that switch to and fro here have raised the same, as threads that compute have; but for
 * one of Boost's, which is as those that never do, in a program that did before. */
static void compute(void)
{
    volatile double third = 1;
    third /= 3;
    (void)third;
}

static void *yields(void *arg)
{
    compute();
    while (iso_thread_yield() == ISO_OK)
        ;
    return arg;
}

static double resumes(void *arg)
{
    iso_thread_t *thread = arg;
    double start = table_now();
    for (unsigned i = 0; i < SAMPLE / 2; i++)
        iso_thread_resume(thread, NULL);
    return table_now() - start;
}

static void *waits_here, *waits_there; /* stack pointers */

static void switches(void *arg)
{
    compute();
    for (;;)
        iso_thread_switch(&waits_there, waits_here);
    (void)arg;
}

static double bare(void *arg)
{
    (void)arg;
    double start = table_now();
    for (unsigned i = 0; i < SAMPLE / 2; i++)
        iso_thread_switch(&waits_here, waits_there);
    return table_now() - start;
}

static ucontext_t ucontext_here, ucontext_there;

static void swaps(void)
{
    compute();
    for (;;)
        swapcontext(&ucontext_there, &ucontext_here);
}

static double swapcontexts(void *arg)
{
    (void)arg;
    double start = table_now();
    for (unsigned i = 0; i < SAMPLE / 2; i++)
        swapcontext(&ucontext_here, &ucontext_there);
    return table_now() - start;
}

#ifdef ISO_PERFTEST_BOOST
/* Of C linkage, as its assembly is. */
typedef struct transfer {
    void *context, *data;
} transfer_t;
extern transfer_t jump_fcontext(void *to, void *data);
extern void *make_fcontext(void *top, size_t size, void (*fn)(transfer_t));

static void jumps_unlike(transfer_t transfer)
{
    for (;;)
        transfer = jump_fcontext(transfer.context, NULL);
}

static void jumps(transfer_t transfer)
{
    compute();
    jumps_unlike(transfer);
}

static double boosts(void *arg)
{
    transfer_t transfer = {.context = *(void **)arg};
    double start = table_now();
    for (unsigned i = 0; i < SAMPLE / 2; i++)
        transfer = jump_fcontext(transfer.context, NULL);
    double seconds = table_now() - start;
    *(void **)arg = transfer.context;
    return seconds;
}
#endif

typedef struct way {
    const char *name;
    double (*run)(void *arg); /* SAMPLE switches; seconds */
    void *arg;
    series_t series;
} way_t;

void test_thread_switch(pair_t *pair, const plan_t *plan, table_t *table)
{
    iso_heap_t *heap;
    char *stacks = malloc(4 * STACK);
    size_t samples = (plan->iterations + SAMPLE - 1) / SAMPLE;
    if (!pair->first) {
        free(stacks);
        return;
    }
    if (!stacks)
        pair_fail("the stacks", ISO_ERR_NO_MEMORY);
    open_threads(pair);
    pair_check(iso_heap_create(pair->job, &heap), "iso_heap_create");
    compute();
    getcontext(&ucontext_there);
    ucontext_there.uc_stack = (stack_t){.ss_sp = stacks, .ss_size = STACK};
    makecontext(&ucontext_there, swaps, 0);
    waits_there = iso_thread_prepare(stacks + 4 * STACK, switches, NULL);
    way_t ways[] = {
        {.name = "swapcontext", .run = swapcontexts},
#ifdef ISO_PERFTEST_BOOST
        {.name = "Boost",
         .run = boosts,
         .arg = &(void *){make_fcontext(stacks + 2 * STACK, STACK, jumps)}},
        {.name = "Boost-unlike",
         .run = boosts,
         .arg = &(void *){make_fcontext(stacks + 3 * STACK, STACK, jumps_unlike)}},
#endif
        {.name = "resume/yield", .run = resumes, .arg = new_thread(heap, yields, NULL, STACK)},
        {.name = "Final", .run = bare},
    };
    const size_t count = sizeof ways / sizeof *ways;
    for (size_t i = 0; i < count; i++)
        series_open(&ways[i].series, table, samples, 0);
    for (size_t sample = 0; sample < plan->warm_up / SAMPLE + samples; sample++)
        for (size_t i = 0; i < count; i++) { /* in turns: what else the machine does is all's */
            double seconds = ways[i].run(ways[i].arg);
            if (sample >= plan->warm_up / SAMPLE)
                series_add(&ways[i].series, seconds, SAMPLE, false);
        }
#ifndef ISO_PERFTEST_BOOST
    table_note(table,
               "Boost.Context was not there when this was built (Debian: libboost-context-dev)");
#endif
    double final = series_typical(&ways[count - 1].series);
    for (size_t i = 0; i < count; i++) {
        series_row(&ways[i].series, ways[i].name, i + 1 == count);
        if (i + 1 < count)
            table_result(table, "a switch takes %.2f of what %s takes",
                         final / series_typical(&ways[i].series), ways[i].name);
        series_close(&ways[i].series);
    }
    close_threads(pair);
    free(stacks);
}

/* ---- a migration ---- */

static void *travels(void *arg)
{
    volatile char used[USED];
    used[0] = 1;
    for (;;) {
        pair_check(iso_thread_migrate(1), "iso_thread_migrate");
        pair_check(iso_thread_migrate(0), "iso_thread_migrate");
        if (used[0] != 1)
            pair_fail("the thread's stack", ISO_ERR_INVALID);
        iso_thread_yield();
    }
    return arg;
}

/* Resumes the thread that has come. */
static void receive_thread(pair_t *pair)
{
    while (!ready) {
        iso_threads_progress(pair->job);
        if (pair->server)
            pair_turn(pair);
    }
    iso_thread_t *thread = ready;
    ready = NULL;
    pair_check(iso_thread_resume(thread, NULL), "iso_thread_resume");
}

/* The heap's arrival is in the pair's list as well. */
static double thread_round_trip(pair_t *pair, iso_thread_t *thread)
{
    iso_heap_t *heap;
    double start = table_now();
    if (pair->first)
        pair_check(iso_thread_resume(thread, NULL), "iso_thread_resume");
    receive_thread(pair);
    double seconds = (table_now() - start) / 2;
    pair_receive(pair, &heap, 1);
    return seconds;
}

void test_thread_migrate(pair_t *pair, const plan_t *plan, table_t *table)
{
    series_t small, series;
    iso_heap_t *heap = NULL, *least = NULL;
    iso_thread_t *thread = NULL;
    open_threads(pair);
    if (pair->first) {
        least = load_new(pair, 16, 0);
        pair_check(iso_heap_create(pair->job, &heap), "iso_heap_create");
        thread = new_thread(heap, travels, NULL, plan->size);
    }
    series_open(&small, table, plan->iterations, 0);
    series_open(&series, table, plan->iterations, 0);
    ready = NULL;
    for (size_t i = 0; i < 1 + plan->warm_up + plan->iterations; i++) {
        double of_heap = pair_round_trip(pair, &least, 1);
        double of_thread = thread_round_trip(pair, thread);
        if (i <= plan->warm_up)
            continue;
        series_add(&small, of_heap, 1, false);
        series_add(&series, of_thread, 1, false);
    }
    table_note(table,
               "a thread with a stack of %zu bytes, of which %zu are used; and the smallest heap",
               plan->size, USED);
    double ratio = series_typical(&series) / series_typical(&small);
    series_row(&small, "Heap", false);
    series_row(&series, "Final", true);
    table_result(table, "a thread takes %.2f of what the smallest heap takes", ratio);
    series_close(&small);
    series_close(&series);
    close_threads(pair);
}
#endif
