/*
 * job.h - a process's membership of a job, and the job table.
 *
 * The job table is the only global state of the library: it answers which job an address belongs
 * to. A process may be in several jobs (a library in a program may have its own).
 */
#ifndef ISO_CORE_JOB_H
#define ISO_CORE_JOB_H

#include "core/log.h"
#include "core/slots.h"
#include <pthread.h>

#define ISO_JOBS_MAX 8

/* One row of the job table: all that the paths by address (iso_free and its like) need. */
typedef struct iso_job_row {
    uintptr_t base;               /* of the iso space; 0: the row is free */
    size_t size;                  /* 0 in a free row: no address lies in it */
    _Atomic(uintptr_t) *table;    /* the slot table, see slots.h */
    iso_job_t *job;
} iso_job_row_t;
extern iso_job_row_t iso_job_table[ISO_JOBS_MAX];

/* The row whose space the address lies in, or NULL. The first row is tried first. */
static inline const iso_job_row_t *iso_job_row_of(const void *address)
{
    for (int i = 0; i < ISO_JOBS_MAX; i++)
        if ((uintptr_t)address - iso_job_table[i].base < iso_job_table[i].size)
            return &iso_job_table[i];
    return NULL;
}

/* What the allocator needs of a job. */
const iso_logger_t *iso_job_logger(const iso_job_t *job);

#endif
