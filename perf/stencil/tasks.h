/*
 * tasks.h - the plane's strips as threads that migrate, and how they run.
 *
 * A strip is a task: a heap with a thread in it, whose stack and rows go where the heap goes. Its thread sends its
 * edge rows to its neighbours, waits for theirs, computes; and every `period` steps waits until all have come so far. Then each
 * rank tells rank 0 what its tasks have cost, in seconds of processor, rank 0 makes a plan, and tasks whose place that
 * changes migrate.
 *
 * The load wanders: a quarter of the tasks computes its step several times over, and which these are goes once around
 * the plane from the first step to the last.
 */
#ifndef ISO_STENCIL_TASKS_H
#define ISO_STENCIL_TASKS_H

#include "grid.h"
#include <isomalloc/isomalloc.h>

typedef struct work {
    grid_t grid;
    uint32_t steps, period;
    uint32_t weight; /* times that the heavier compute their step, where others do once */
    uint32_t grain;  /* times more, for all */
    bool balance;
} work_t;

/* What rank 0 is told at the end of a period, of each rank. */
typedef struct share {
    double seconds; /* of processor, in the tasks of this rank */
    double planned; /* what those that it has from now on have cost */
} share_t;

typedef struct period {
    uint32_t step;         /* after so many steps */
    double elapsed;        /* seconds, without the time of balancing */
    double balancing;      /* seconds, with all migrations; rank 0's clock */
    uint32_t moved;        /* tasks */
    const share_t *shares; /* by rank */
} period_t;

typedef struct totals {
    double elapsed;             /* from the first step to the end */
    double busiest;             /* seconds of processor of the busiest rank, summed over periods */
    double work;                /* seconds of processor of all ranks, likewise */
    double balancing;           /* of elapsed */
    uint64_t migrations, bytes; /* heaps that have gone to another rank, bytes put */
} totals_t;

/* Before the first run, and after the last one. Collective. */
void tasks_open(iso_job_t *job);
void tasks_close(void);

/* Runs it once, on all ranks. `told` (rank 0; else NULL) is called at the end of each period. At rank 0 plane is as
 * long as grid_plane_bytes, and is filled with the result. Collective. */
void tasks_run(const work_t *work, void (*told)(const period_t *period, void *arg), void *arg,
               double *plane, totals_t *totals_p);

#endif
