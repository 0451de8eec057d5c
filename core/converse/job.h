/* job.h - the job that Converse's names are about. */
#ifndef ISO_CONVERSE_JOB_H
#define ISO_CONVERSE_JOB_H

#include <isomalloc/isomalloc.h>

/* Started now, if it has to be; NULL: it could not be started. */
iso_job_t *iso_converse_job(void);

/* threads.c, where it is in the library. A context's threads are this rank's again. */
__attribute__((weak)) void iso_converse_take_back(iso_heap_t *heap);
/* The same. The job that was started ends: no thread runs any more. */
__attribute__((weak)) void iso_converse_end_threads(iso_job_t *job);
/* The same. From here on it is about another job, or none: what was opened was the one's before. */
__attribute__((weak)) void iso_converse_forget_threads(void);

#endif
