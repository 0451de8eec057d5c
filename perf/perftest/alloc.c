/*
 * alloc.c - iso_malloc and iso_free, by threads with a heap each.
 *
 * An operation frees one of a thread's live blocks at random, allocates another of the same size and
 * writes to it. Typical is one thread's time of an operation; the rates are of all threads together.
 */
#include "options.h"
#include "pair.h"
#include "table.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define LIVE 1024  /* blocks of a thread at a time */
#define SAMPLE 256 /* operations that are timed together */

typedef struct worker {
    pthread_t thread;
    pthread_barrier_t *start;
    iso_heap_t *heap;
    size_t size, samples;
    double *seconds; /* of each sample */
    double began, ended;
    void *blocks[LIVE];
} worker_t;

static void *new_block(const worker_t *worker)
{
    volatile char *block = iso_malloc(worker->heap, worker->size);
    if (block)
        *block = 1;
    else
        pair_fail("iso_malloc", ISO_ERR_NO_SPACE);
    return (void *)block;
}

static void *work(void *arg)
{
    worker_t *worker = arg;
    uint64_t random = (uintptr_t)worker;
    for (unsigned i = 0; i < LIVE; i++)
        worker->blocks[i] = new_block(worker);
    pthread_barrier_wait(worker->start);
    worker->began = table_now();
    for (size_t sample = 0; sample < worker->samples; sample++) {
        double start = table_now();
        for (unsigned i = 0; i < SAMPLE; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            void **block_p = &worker->blocks[random >> 54];
            iso_free(*block_p);
            *block_p = new_block(worker);
        }
        worker->seconds[sample] = table_now() - start;
    }
    worker->ended = table_now();
    return NULL;
}
_Static_assert(LIVE == 1 << (64 - 54), "random >> 54 picks a block");

void test_alloc(pair_t *pair, const plan_t *plan, table_t *table)
{
    const size_t threads = plan->threads;
    const size_t samples = (plan->iterations + SAMPLE - 1) / SAMPLE;
    pthread_barrier_t start;
    series_t series;
    if (!pair->first)
        return;
    if (threads > 1 && pair->params.thread_level != ISO_THREAD_MULTIPLE)
        pair_fail("-T with more than one thread needs ISO_THREAD_LEVEL=multiple", ISO_ERR_INVALID);
    worker_t *workers = calloc(threads, sizeof *workers);
    if (!workers || pthread_barrier_init(&start, NULL, (unsigned)threads) != 0)
        pair_fail("the threads", ISO_ERR_NO_MEMORY);
    series_open(&series, table, threads * samples, plan->size);
    for (size_t i = 0; i < threads; i++) {
        worker_t *worker = &workers[i];
        worker->start = &start;
        worker->size = plan->size;
        worker->samples = samples;
        worker->seconds = malloc(samples * sizeof *worker->seconds);
        if (!worker->seconds)
            pair_fail("the samples", ISO_ERR_NO_MEMORY);
        pair_check(iso_heap_create(pair->job, &worker->heap), "iso_heap_create");
        if (pthread_create(&worker->thread, NULL, work, worker) != 0)
            pair_fail("pthread_create", ISO_ERR_SYSTEM);
    }
    double began = 0, ended = 0, inside = 0;
    for (size_t i = 0; i < threads; i++) {
        worker_t *worker = &workers[i];
        pthread_join(worker->thread, NULL);
        began = i == 0 || worker->began < began ? worker->began : began;
        ended = worker->ended > ended ? worker->ended : ended;
        for (size_t sample = 0; sample < samples; sample++) {
            inside += worker->seconds[sample];
            series_add(&series, worker->seconds[sample], SAMPLE, false);
        }
        free(worker->seconds);
    }
    series_add_time(&series, ended - began - inside); /* the first's beginning to the last's end */
    series_row(&series, "Final", true);
    series_close(&series);
    pthread_barrier_destroy(&start);
    free(workers);
}
