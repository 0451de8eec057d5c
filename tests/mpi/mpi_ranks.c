/*
 * mpi_ranks.c - under a real mpirun: a job over MPI_COMM_WORLD and, beside it, one over half of the ranks.
 * A heap with a list goes round each, while MPI has messages of its own under way.
 */
#include <mpi.h>

#include <isomalloc/iso_mpi.h>
#include <isomalloc/isomalloc.h>
#include <stdio.h>
#include <string.h>

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            MPI_Abort(MPI_COMM_WORLD, 1);                                           \
        }                                                                           \
    } while (0)

typedef struct node {
    struct node *next;
    int value;
} node_t;

static iso_heap_t *arrived;

static void on_arrival(iso_job_t *job, const iso_arrival_t *arrival, void *arg)
{
    (void)job;
    (void)arg;
    arrived = arrival->heap;
}

static void go_round(iso_job_t *job)
{
    const uint32_t rank = iso_rank(job), size = iso_size(job);
    iso_set_arrival(job, on_arrival, NULL);
    arrived = NULL;
    if (rank == 0) {
        node_t *first = NULL;
        CHECK(iso_heap_create(job, &arrived) == ISO_OK);
        for (int i = 0; i < 10000; i++) {
            node_t *node = iso_malloc(arrived, sizeof *node);
            CHECK(node != NULL);
            *node = (node_t){first, i};
            first = node;
        }
        iso_heap_set_root(arrived, first);
    }
    for (uint32_t hop = 0; hop < size; hop++) {
        if (hop == rank) {
            while (!arrived)
                iso_progress_wait(job, 1);
            int expected = 9999;
            for (node_t *node = iso_heap_root(arrived); node; node = node->next)
                CHECK(node->value == expected--);
            CHECK(expected == -1);
            iso_heap_t *heap = arrived;
            iso_request_t *request;
            arrived = NULL;
            CHECK(iso_migrate(heap, (rank + 1) % size, NULL, 0, &request) == ISO_OK);
            CHECK(iso_wait(request) == ISO_OK);
        }
    }
    CHECK(iso_barrier(job) == ISO_OK);
    CHECK(rank != 0 || arrived != NULL);
}

int main(int argc, char **argv)
{
    int rank, size, message = 0;
    iso_job_t *all, *half;
    MPI_Comm part;
    MPI_Request incoming;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    CHECK(iso_mpi_init(MPI_COMM_WORLD, NULL, &all) == ISO_OK);
    CHECK(iso_rank(all) == (uint32_t)rank && iso_size(all) == (uint32_t)size);
    MPI_Irecv(&message, 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &incoming);
    go_round(all);

    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &part);
    iso_params_t params;
    CHECK(iso_params_init(&params) == ISO_OK);
    params.space_size = (uint64_t)1 << 30;
    CHECK(iso_mpi_init(part, &params, &half) == ISO_OK);
    go_round(half);
    go_round(all);
    CHECK(iso_finalize(half) == ISO_OK);
    CHECK(iso_finalize(all) == ISO_OK);

    MPI_Send(&size, 1, MPI_INT, (rank + 1) % size, 5, MPI_COMM_WORLD);
    MPI_Wait(&incoming, MPI_STATUS_IGNORE);
    CHECK(message == size);
    MPI_Comm_free(&part);
    MPI_Finalize();
    printf("rank %d ok\n", rank);
    return 0;
}
