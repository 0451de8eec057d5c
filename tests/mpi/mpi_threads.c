/*
 * mpi_threads.c - under a real mpirun, which starts ranks with addresses that differ: each executes itself again without
 * randomisation (iso_restart_without_aslr), before MPI_Init, and a thread of each rank then visits all the others.
 *
 *   mpi_threads [as_started]      as_started: they do not, and no thread leaves its rank
 */
#include <mpi.h>

#include <isomalloc/iso_mpi.h>
#include <isomalloc/thread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANKS 16 /* at most */
#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                \
        }                                                                           \
    } while (0)

static iso_job_t *job;
static uint32_t passed; /* threads that have come here from elsewhere */
static bool is_done;    /* this rank's own is home */

/* Not inlined: the process's own, wherever the thread was before. */
static __attribute__((noinline)) iso_job_t *job_here(void)
{
    __asm__ volatile("");
    return job;
}
static __attribute__((noinline)) void note(bool home)
{
    __asm__ volatile("");
    passed++;
    is_done = is_done || home;
}

static void *visits(void *arg)
{
    const uint32_t home = (uint32_t)(uintptr_t)arg, size = iso_size(job_here());
    uint32_t seen[RANKS], *at = seen; /* a pointer to its own stack */
    for (uint32_t i = 1; i <= size; i++) {
        const uint32_t dest = (home + i) % size;
        CHECK(iso_thread_migrate(dest) == ISO_OK);
        CHECK(iso_rank(job_here()) == dest);
        *at++ = dest;
        note(i == size);
    }
    for (uint32_t i = 1; i <= size; i++)
        CHECK(seen[i - 1] == (home + i) % size);
    return NULL;
}

static void *stays(void *arg)
{
    const uint32_t home = (uint32_t)(uintptr_t)arg, size = iso_size(job);
    CHECK(iso_thread_migrate((home + 1) % size) == ISO_ERR_CODE);
    passed = size;
    is_done = true;
    return NULL;
}

/* One thread of each rank has been here, this rank's own last of all or not. */
static bool all_were_here(void *arg)
{
    (void)arg;
    return is_done && passed == iso_size(job);
}

int main(int argc, char **argv)
{
    const bool as_started = argc > 1 && strcmp(argv[1], "as_started") == 0;
    iso_heap_t *heap;
    const iso_thread_attr_t attr = {.struct_size = sizeof attr, .detached = true};
    iso_thread_t *thread;
    if (!as_started) { /* the job first: where MPI's plug-ins come to lie differs from run to run */
        CHECK(iso_restart_without_aslr(argv) == ISO_OK);
        CHECK(iso_init(NULL, &job) == ISO_OK);
    }
    MPI_Init(&argc, &argv);
    if (as_started)
        CHECK(iso_mpi_init(MPI_COMM_WORLD, NULL, &job) == ISO_OK);
    CHECK(iso_threads_open(job, NULL) == ISO_OK);
    CHECK(iso_size(job) > 1 && iso_size(job) <= RANKS);
    CHECK(iso_heap_create(job, &heap) == ISO_OK);
    CHECK(iso_thread_create(heap, as_started ? stays : visits, (void *)(uintptr_t)iso_rank(job),
                            &attr, &thread) == ISO_OK);
    CHECK(iso_threads_run(job, all_were_here, NULL) == ISO_OK);
    CHECK(iso_barrier(job) == ISO_OK);
    while (iso_threads_close(job) == ISO_ERR_BUSY) /* the last that has left from here */
        iso_threads_progress(job);
    const unsigned rank = iso_rank(job);
    CHECK(iso_finalize(job) == ISO_OK);
    MPI_Finalize();
    printf("rank %u ok\n", rank);
    return 0;
}
