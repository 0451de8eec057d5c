/* The library as a guest in an MPI program that knows nothing of it: bootstrap pmix beside MPI's own use of
 * PMIx, begun and ended in every order. guest ORDER, of i (iso_init), M (MPI_Init), and f, F for their ends,
 * such as iMFf. A heap goes round while MPI's messages do. */
#include <isomalloc/isomalloc.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what)                                                              \
    do {                                                                         \
        if (!(what)) {                                                           \
            fprintf(stderr, "%s:%d: %s is not so\n", __FILE__, __LINE__, #what); \
            exit(1); /* the launcher ends the others */                          \
        }                                                                        \
    } while (0)

static iso_job_t *job;
static iso_heap_t *here;
static int mpi_is_up;

static void arrived(iso_job_t *of, const iso_arrival_t *arrival, void *arg)
{
    (void)of, (void)arg;
    here = arrival->heap;
}

static void speak_mpi(void)
{
    int rank, size, sum = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    CHECK(sum == size * (size - 1) / 2);
    if (job)
        CHECK(iso_rank(job) == (uint32_t)rank && iso_size(job) == (uint32_t)size);
}

/* Every rank adds one to a number in a heap that is at rank 0 first and last; a sum of MPI's is under way
 * meanwhile, and nobody blocks in it while others need this rank's progress. */
static void go_round(void)
{
    uint32_t rank = iso_rank(job), size = iso_size(job);
    iso_request_t *request;
    MPI_Request summing;
    int *number, one = 1, sum = 0;
    if (mpi_is_up)
        MPI_Iallreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD, &summing);
    iso_set_arrival(job, arrived, NULL);
    if (rank == 0) {
        CHECK(iso_heap_create(job, &here) == ISO_OK);
        number = iso_calloc(here, 1, sizeof *number);
        CHECK(number != NULL);
        iso_heap_set_root(here, number);
    }
    while (!here)
        iso_progress_wait(job, 1);
    number = iso_heap_root(here);
    CHECK(*number == (int)rank);
    ++*number;
    CHECK(iso_migrate(here, (rank + 1) % size, NULL, 0, &request) == ISO_OK);
    here = NULL;
    CHECK(iso_wait(request) == ISO_OK);
    if (rank == 0) {
        while (!here)
            iso_progress_wait(job, 1);
        CHECK(*(int *)iso_heap_root(here) == (int)size);
        CHECK(iso_heap_destroy(here) == ISO_OK);
        here = NULL; /* before the next round's can come */
    }
    CHECK(iso_barrier(job) == ISO_OK);
    if (mpi_is_up) {
        MPI_Wait(&summing, MPI_STATUS_IGNORE);
        CHECK(sum == (int)size);
    }
}

int main(int argc, char **argv)
{
    int steps = 0;
    uint32_t rank = 0;
    CHECK(argc == 2);
    for (const char *step = argv[1]; *step; step++, steps++) {
        switch (*step) {
        case 'i':
            CHECK(iso_init(NULL, &job) == ISO_OK);
            rank = iso_rank(job);
            break;
        case 'M':
            CHECK(MPI_Init(&argc, &argv) == MPI_SUCCESS);
            mpi_is_up = 1;
            break;
        case 'F':
            speak_mpi();
            mpi_is_up = 0;
            CHECK(MPI_Finalize() == MPI_SUCCESS);
            break;
        case 'f':
            go_round();
            CHECK(iso_finalize(job) == ISO_OK);
            job = NULL;
            break;
        default:
            CHECK(!"an order of i, M, f, F");
        }
        if (job)
            go_round();
        if (mpi_is_up)
            speak_mpi();
    }
    printf("rank %u ok\n", rank);
    return 0;
}
