/*
 * workload.c - the workloads. Each writes to the ends of every block when it gets it and looks at
 * them before it frees it; what it remembers of its blocks is in tables outside all heaps.
 */
#include "workload.h"
#include "allocator.h"
#include <pthread.h>
#include <semaphore.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- random numbers and blocks ---- */

static uint64_t next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545F4914F6CDD1D);
}

/* From 0 to less than limit. */
static inline uint32_t below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(((next(state) >> 32) * limit) >> 32);
}

typedef struct slot {
    char *block;
    size_t size; /* at least 8 */
} slot_t;

#define SLOTS 100000
static slot_t slots[SLOTS];

/* What the ends of the slot's block say: eight bytes alike, since the ends of a small one overlap. */
static inline uint64_t stamp_of(const slot_t *slot)
{
    return ((size_t)(slot - slots) * 37 + slot->size) % 256 * UINT64_C(0x0101010101010101);
}

static inline void fill(slot_t *slot, iso_heap_t *heap, size_t size)
{
    *slot = (slot_t){.block = block_new(heap, size), .size = size};
    uint64_t stamp = stamp_of(slot);
    memcpy(slot->block, &stamp, sizeof stamp);
    memcpy(slot->block + size - sizeof stamp, &stamp, sizeof stamp);
}

static inline void check(const slot_t *slot)
{
    uint64_t stamp = stamp_of(slot);
    if (memcmp(slot->block, &stamp, sizeof stamp) != 0 ||
        memcmp(slot->block + slot->size - sizeof stamp, &stamp, sizeof stamp) != 0)
        die("a block's contents have changed");
}

static inline void empty(slot_t *slot)
{
    check(slot);
    allocator.free(slot->block);
    slot->block = NULL;
}

static void empty_all(slot_t *from, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (from[i].block)
            empty(&from[i]);
}

/* ---- one thread ---- */

static void small(void)
{
    iso_heap_t *heap = heap_new();
    uint64_t random = 1;
    for (unsigned i = 0; i < 4000000; i++) {
        slot_t *slot = &slots[below(&random, SLOTS)];
        if (slot->block)
            empty(slot);
        else
            fill(slot, heap, 8 + below(&random, 505));
    }
    empty_all(slots, SLOTS);
}

#define BATCH 10000
static unsigned reverse_order[BATCH], random_order[BATCH], same_order[BATCH];

static void batches(const unsigned *order)
{
    static const size_t sizes[] = {16, 32, 48, 64, 128, 256, 512, 1024};
    iso_heap_t *heap = heap_new();
    for (unsigned i = 0; i < 100 * COUNT(sizes); i++) {
        size_t size = sizes[i % COUNT(sizes)];
        for (unsigned j = 0; j < BATCH; j++)
            fill(&slots[j], heap, size);
        for (unsigned j = 0; j < BATCH; j++)
            empty(&slots[order[j]]);
    }
}

static void batch_same(void)
{
    batches(same_order);
}

static void batch_reverse(void)
{
    batches(reverse_order);
}

static void batch_random(void)
{
    batches(random_order);
}

#define VECTORS 200
#define VECTOR_MAX ((size_t)1 << 20)

/* A vector that is full grows by half, and its new part is written; at 1 MiB it starts anew. */
static void vectors(void)
{
    iso_heap_t *heap = heap_new();
    uint64_t random = 2;
    for (unsigned i = 0; i < 20000; i++) {
        slot_t *slot = &slots[below(&random, VECTORS)];
        if (!slot->block) {
            fill(slot, heap, 16);
        } else if (slot->size == VECTOR_MAX) {
            empty(slot);
        } else {
            size_t old = slot->size, size = old + old / 2;
            if (size > VECTOR_MAX)
                size = VECTOR_MAX;
            slot->block = block_resize(heap, slot->block, size);
            check(slot);
            slot->size = size;
            memset(slot->block + old, 1, size - old);
            uint64_t stamp = stamp_of(slot);
            memcpy(slot->block, &stamp, sizeof stamp);
            memcpy(slot->block + size - sizeof stamp, &stamp, sizeof stamp);
        }
    }
    empty_all(slots, VECTORS);
}

#define LARGE_SLOTS 32
#define PAGE 4096

/* From 64 KiB to 8 MiB, each power of two as often as the next; every page is written and read. */
static void large(void)
{
    iso_heap_t *heap = heap_new();
    uint64_t random = 3;
    for (unsigned i = 0; i < 600; i++) {
        slot_t *slot = &slots[below(&random, LARGE_SLOTS)];
        if (slot->block) {
            for (size_t at = PAGE; at + PAGE <= slot->size; at += PAGE)
                if (slot->block[at] != (char)(at / PAGE))
                    die("a block's contents have changed");
            empty(slot);
        }
        size_t least = (size_t)65536 << below(&random, 7);
        fill(slot, heap, least + below(&random, (uint32_t)least + 1));
        for (size_t at = PAGE; at + PAGE <= slot->size; at += PAGE)
            slot->block[at] = (char)(at / PAGE);
    }
    empty_all(slots, LARGE_SLOTS);
}

/* ---- two threads ---- */

#define THREADS 2

static void in_threads(void *(*run)(void *number))
{
    static unsigned numbers[THREADS] = {0, 1};
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run, &numbers[i]) != 0)
            die("no thread");
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* After Larson and Krishnan: sets of blocks that pass from thread to thread; with its heap, if any. */
#define SET 10000

static iso_heap_t *set_heaps[THREADS];
static pthread_barrier_t round_end;

static void *larson_thread(void *number)
{
    unsigned me = *(unsigned *)number;
    for (unsigned round = 0; round < 40; round++) {
        unsigned set = (me + round) % THREADS;
        slot_t *mine = &slots[(size_t)set * SET];
        uint64_t random = 4 + round * THREADS + me;
        for (unsigned i = 0; i < 100000; i++) {
            slot_t *slot = &mine[below(&random, SET)];
            if (slot->block)
                empty(slot);
            fill(slot, set_heaps[set], 8 + below(&random, 993));
        }
        pthread_barrier_wait(&round_end);
    }
    return NULL;
}

static void larson(void)
{
    for (unsigned i = 0; i < THREADS; i++)
        set_heaps[i] = heap_new();
    pthread_barrier_init(&round_end, NULL, THREADS);
    in_threads(larson_thread);
    pthread_barrier_destroy(&round_end);
    empty_all(slots, THREADS * SET);
}

/* One thread fills parcels, the other empties them; a ring is between them, which is full before the other
 * begins: so the peak of memory is the ring's and does not depend on who was how fast. */
#define RING 2
#define PARCEL 5000
#define PARCELS 800

static iso_heap_t *parcel_heaps[RING];
static sem_t full, free_again;

static void take(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0)
        ;
}

static void *pass_thread(void *number)
{
    bool producer = *(unsigned *)number == 0;
    uint64_t random = 5;
    for (unsigned i = 0; !producer && i < RING; i++)
        take(&full);
    for (unsigned i = 0; !producer && i < RING; i++)
        sem_post(&full);
    for (unsigned i = 0; i < PARCELS; i++) {
        slot_t *parcel = &slots[(size_t)(i % RING) * PARCEL];
        take(producer ? &free_again : &full);
        for (unsigned j = 0; j < PARCEL; j++) {
            if (producer)
                fill(&parcel[j], parcel_heaps[i % RING], 16 + below(&random, 497));
            else
                empty(&parcel[j]);
        }
        sem_post(producer ? &full : &free_again);
    }
    return NULL;
}

static void pass(void)
{
    for (unsigned i = 0; i < RING; i++)
        parcel_heaps[i] = heap_new();
    sem_init(&full, 0, 0);
    sem_init(&free_again, 0, RING);
    in_threads(pass_thread);
    sem_destroy(&full);
    sem_destroy(&free_again);
}

/* ---- the table ---- */

const workload_t workloads[WORKLOADS] = {
    {"small", "random blocks of 8 to 512 bytes, 100,000 slots", small},
    {"batch-same", "10,000 blocks of one size, freed in the same order", batch_same},
    {"batch-reverse", "the same, freed in reverse order", batch_reverse},
    {"batch-random", "the same, freed in random order", batch_random},
    {"larson", "2 threads replace blocks of 8 to 1000 bytes and swap their sets of them", larson},
    {"pass", "one thread allocates batches, another frees them", pass},
    {"vectors", "200 vectors that grow by half up to 1 MiB", vectors},
    {"large", "random blocks of 64 KiB to 8 MiB, written on every page", large},
};

void workload_prepare(void)
{
    uint64_t random = 6;
    for (unsigned i = 0; i < BATCH; i++) {
        same_order[i] = i;
        reverse_order[i] = BATCH - 1 - i;
        unsigned j = below(&random, i + 1);
        random_order[i] = random_order[j];
        random_order[j] = i;
    }
    memset(slots, 0, sizeof slots);
}
