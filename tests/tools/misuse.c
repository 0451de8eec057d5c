/*
 * misuse.c - a program that uses what is not its own, for AddressSanitizer and Valgrind to report:
 *   misuse KIND SIZE
 * Each kind ends with 0 where no tool ends the program before. "right" does nothing wrong.
 */
#include <isomalloc/isomalloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static iso_job_t *job;
static iso_heap_t *arrived;

static void check(iso_status_t status)
{
    if (status != ISO_OK)
        exit(fprintf(stderr, "misuse: %s\n", iso_status_string(status)));
}

static void on_arrival(iso_job_t *of, const iso_arrival_t *arrival, void *arg)
{
    (void)of, (void)arg;
    arrived = arrival->heap;
}

static volatile char *block_of(iso_heap_t *heap, size_t size)
{
    volatile char *block = iso_malloc(heap, size);
    if (!block)
        exit(2);
    memset((void *)block, 1, size);
    return block;
}

/* Everything that a program may do, over and over: no report. */
static void right(iso_heap_t *heap, size_t size)
{
    enum {
        BLOCKS = 60
    };
    static char *blocks[BLOCKS];
    static size_t sizes[BLOCKS];
    for (unsigned turn = 0; turn < 3000; turn++) {
        unsigned i = (unsigned)rand() % BLOCKS;
        size_t want = 1 + (size_t)rand() % (turn % 3 ? 300 : size);
        for (size_t at = 0; at < sizes[i]; at += 16)
            if (blocks[i][at] != (char)i)
                exit(3);
        if (turn % 5 == 0 && blocks[i]) {
            blocks[i] = iso_realloc(heap, blocks[i], want);
        } else {
            iso_free(blocks[i]);
            blocks[i] = turn % 7 == 0 ? iso_aligned_alloc(heap, (size_t)16 << turn % 12, want)
                        : turn % 11   ? iso_malloc(heap, want)
                                      : iso_calloc(heap, 1, want);
        }
        if (!blocks[i])
            exit(2);
        sizes[i] = turn % 4 ? want : iso_usable_size(blocks[i]);
        memset(blocks[i], (int)i, sizes[i]);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        iso_free(blocks[i]);
        blocks[i] = NULL;
        sizes[i] = 0;
    }
}

/* Rank 0's heap goes to rank 1 and back; the block is as it was. Misused: when it is gone, or arrived. */
static void after_migration(iso_heap_t *heap, size_t size, const char *kind)
{
    unsigned rank = iso_rank(job);
    volatile char *block = NULL;
    iso_request_t *request;
    if (rank == 0) {
        block = block_of(heap, size);
        iso_free((void *)block_of(heap, size));
        iso_heap_set_root(heap, (void *)block);
        check(iso_migrate(heap, 1, NULL, 0, &request));
        check(iso_wait(request));
        if (strcmp(kind, "gone") == 0)
            exit(block[0] ? 0 : 4);
    }
    while (!arrived)
        check(iso_progress_wait(job, -1));
    block = iso_heap_root(arrived);
    for (size_t i = 0; i < size; i++)
        if (block[i] != 1)
            exit(3);
    if (rank == 1) {
        iso_free((void *)block_of(arrived, size * 2));
        if (strcmp(kind, "arrived") == 0) {
            iso_free((void *)block);
            exit(block[0] ? 0 : 4);
        }
        if (strcmp(kind, "gone") != 0) {
            check(iso_migrate(arrived, 0, NULL, 0, &request));
            check(iso_wait(request));
        }
    }
    check(iso_barrier(job));
}

int main(int argc, char **argv)
{
    iso_params_t params;
    iso_heap_t *heap;
    const char *kind = argc > 1 ? argv[1] : "";
    size_t size = argc > 2 ? strtoul(argv[2], NULL, 10) : 100;
    check(iso_params_init(&params));
    params.arrival = on_arrival;
    check(iso_init(&params, &job));
    check(iso_heap_create(job, &heap));
    if (iso_size(job) > 1) {
        after_migration(heap, size, kind);
    } else if (strcmp(kind, "right") == 0) {
        right(heap, size);
        check(iso_heap_destroy(heap));
        check(iso_finalize(job)); /* the same addresses again */
        check(iso_init(&params, &job));
        check(iso_heap_create(job, &heap));
        right(heap, size);
    } else {
        volatile char *block = block_of(heap, size);
        if (strcmp(kind, "over") == 0) {
            (void)block[size];
        } else if (strcmp(kind, "freed") == 0) {
            iso_free((void *)block);
            (void)block[size / 2];
        } else if (strcmp(kind, "destroyed") == 0) {
            check(iso_heap_destroy(heap));
            (void)block[size / 2];
        } else {
            return 5;
        }
    }
    check(iso_finalize(job));
    return 0;
}
