/*
 * dispatch.h - what the links report: messages and failures, and who is to handle them.
 */
#ifndef ISO_CORE_DISPATCH_H
#define ISO_CORE_DISPATCH_H

#include <isomalloc/transport.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Called by transports, with the job's lock held; arg is the iso_link_t. A message that is malformed,
 * of another job, stale or out of turn is counted, logged and changes nothing. */
void iso_dispatch_message(void *arg, uint32_t source, const void *data, size_t len);
void iso_dispatch_failure(void *arg, uint32_t rank, iso_failure_t failure);

/* Marks the rank dead, whoever knows it; all that waits for it is settled. Everything that it sent
 * has been handled, or will never be. The caller holds the lock. */
void iso_dispatch_death(iso_job_t *job, uint32_t rank);

#ifdef __cplusplus
}
#endif
#endif
