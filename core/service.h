/*
 * service.h - the threads that the library makes, both only if they are asked for:
 *
 *   ISO_PROGRESS_THREAD   makes progress whenever there is something to do, for programs that compute
 *                         for long between their own calls;
 *   ISO_DUMP_SIGNAL       writes iso_dump to stderr when the process gets the signal. Not in the
 *                         handler: it needs the lock, and memory.
 */
#ifndef ISO_CORE_SERVICE_H
#define ISO_CORE_SERVICE_H

#include <isomalloc/isomalloc.h>
#include <pthread.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_service {
    pthread_t progress, dump;
    bool has_progress, has_dump;
    bool stop;   /* under the job's lock */
    int dump_fd; /* eventfd: the signal has come, or `stop` is set */
} iso_service_t;

/* ISO_ERR_INVALID: the settings ask for what cannot be; ISO_ERR_SYSTEM. Logged. */
iso_status_t iso_service_open(iso_job_t *job);
/* Ends them; no callback runs in them after that. */
void iso_service_close(iso_job_t *job);

#ifdef __cplusplus
}
#endif
#endif
