/*
 * iso_mpi.h - an MPI program's ranks as a job of libisomalloc, in one call:
 *
 *     #include <mpi.h>
 *     #include <isomalloc/iso_mpi.h>
 *     ...
 *     MPI_Init(&argc, &argv);
 *     iso_job_t *job;
 *     if (iso_mpi_init(MPI_COMM_WORLD, NULL, &job) != ISO_OK) ...
 *     ...
 *     iso_finalize(job);    before MPI_Finalize
 *
 * Header only: the library knows nothing of MPI, and the program links whatever MPI it has. Ranks are
 * those of the communicator, of which a copy is used, so that nothing meets the program's messages.
 * MPI serves for the start, the end and iso_barrier; heaps move by the job's own transports.
 *
 * Threads. The thread that calls iso_mpi_init, iso_barrier or iso_finalize calls MPI in them: with more
 * than one, MPI needs the thread level for it (MPI_THREAD_SERIALIZED or MULTIPLE).
 *
 * Errors. MPI's error handler of the communicator decides what happens when MPI fails; if it returns,
 * the call gives ISO_ERR_SYSTEM. A rank that dies ends the whole job with most MPIs: nothing of it
 * is reported here.
 */
#ifndef ISOMALLOC_ISO_MPI_H
#define ISOMALLOC_ISO_MPI_H

#ifndef MPI_VERSION
#error "include <mpi.h> before <isomalloc/iso_mpi.h>"
#endif

#include <isomalloc/bootstrap.h>
#include <limits.h>
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_mpi_bootstrap {
    iso_bootstrap_t table;
    MPI_Comm comm;
    MPI_Request barrier;
} iso_mpi_bootstrap_t;

static inline iso_status_t iso_mpi_allgather_(void *ctx, const void *mine, void *all, size_t len)
{
    iso_mpi_bootstrap_t *self = (iso_mpi_bootstrap_t *)ctx;
    if (len > INT_MAX)
        return ISO_ERR_INVALID;
    int error = MPI_Allgather(mine, (int)len, MPI_BYTE, all, (int)len, MPI_BYTE, self->comm);
    return error == MPI_SUCCESS ? ISO_OK : ISO_ERR_SYSTEM;
}

static inline iso_status_t iso_mpi_barrier_start_(void *ctx)
{
    iso_mpi_bootstrap_t *self = (iso_mpi_bootstrap_t *)ctx;
    return MPI_Ibarrier(self->comm, &self->barrier) == MPI_SUCCESS ? ISO_OK : ISO_ERR_SYSTEM;
}

static inline iso_status_t iso_mpi_barrier_test_(void *ctx)
{
    iso_mpi_bootstrap_t *self = (iso_mpi_bootstrap_t *)ctx;
    int done = 0;
    if (MPI_Test(&self->barrier, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS)
        return ISO_ERR_SYSTEM;
    return done ? ISO_OK : ISO_INPROGRESS;
}

static inline void iso_mpi_close_(void *ctx)
{
    iso_mpi_bootstrap_t *self = (iso_mpi_bootstrap_t *)ctx;
    MPI_Comm_free(&self->comm);
    free(self);
}

/* As iso_init, with the ranks of comm, over which it is collective. params NULL: defaults and
 * environment; its caller_bootstrap is not looked at. ISO_ERR_SYSTEM: MPI failed, or is not
 * initialised. What it allocates, iso_finalize frees: call that before MPI_Finalize. */
static inline iso_status_t iso_mpi_init(MPI_Comm comm, const iso_params_t *params,
                                        iso_job_t **job_p)
{
    int initialized = 0, rank, size;
    iso_params_t mine;
    if (MPI_Initialized(&initialized) != MPI_SUCCESS || !initialized)
        return ISO_ERR_SYSTEM;
    iso_status_t status = ISO_OK;
    if (params)
        mine = *params;
    else
        status = iso_params_init(&mine);
    iso_mpi_bootstrap_t *self = (iso_mpi_bootstrap_t *)calloc(1, sizeof *self);
    /* one rank's failure is everyone's: nobody waits in the exchanges of iso_init for one that left */
    int well = self != NULL && status == ISO_OK, all_well = 0;
    if (MPI_Allreduce(&well, &all_well, 1, MPI_INT, MPI_MIN, comm) != MPI_SUCCESS)
        status = ISO_ERR_SYSTEM;
    else if (!all_well && status == ISO_OK)
        status = self ? ISO_ERR_INVALID : ISO_ERR_NO_MEMORY;
    if (status == ISO_OK && MPI_Comm_dup(comm, &self->comm) != MPI_SUCCESS)
        status = ISO_ERR_SYSTEM;
    if (status != ISO_OK) {
        free(self);
        return status;
    }
    MPI_Comm_rank(self->comm, &rank);
    MPI_Comm_size(self->comm, &size);
    self->table.abi_version = ISO_BOOTSTRAP_ABI;
    self->table.name = "mpi";
    self->table.ctx = self;
    self->table.rank = (uint32_t)rank;
    self->table.size = (uint32_t)size;
    self->table.allgather = iso_mpi_allgather_;
    self->table.barrier_start = iso_mpi_barrier_start_;
    self->table.barrier_test = iso_mpi_barrier_test_;
    self->table.event_fd = -1;
    self->table.close = iso_mpi_close_;
    mine.caller_bootstrap = &self->table;
    return iso_init(&mine, job_p); /* that closes the bootstrap if it fails */
}

#ifdef __cplusplus
}
#endif
#endif
