/*
 * fatal.c - the end of a process that misuses a heap, or whose heap is damaged.
 *
 * Whoever finds it has an address and no job, and in a job of many ranks the line must say which it is of: so the
 * table of jobs is asked. Where the process is in several, as different ranks, the line leaves that open.
 */
#include "core/job.h"
#include <stdlib.h>

static int32_t rank_of_process(void)
{
    int32_t rank = -1;

    for (int i = 0; i < ISO_JOBS_MAX; i++) {
        const iso_job_t *job = iso_job_table[i].job;

        if (!job)
            continue;
        if (rank >= 0 && rank != (int32_t)job->rank)
            return -1;
        rank = (int32_t)job->rank;
    }
    return rank;
}

void iso_fatal(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    iso_log_last_words(rank_of_process(), format, args);
    va_end(args);
    abort();
}
