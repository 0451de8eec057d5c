/*
 * links.h - which transports a job opens, and the card by which other ranks find this one's.
 *
 * Inside a node it is loopback; between nodes the one that ISO_TRANSPORT names or, with `auto`, the best
 * one that is there. A job of one node opens no other, but one that is named must be there all the same.
 */
#ifndef ISO_CORE_LINKS_H
#define ISO_CORE_LINKS_H

#include <isomalloc/isomalloc.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Wants the job's node known. What was opened before a failure stays in the job, for its end. */
iso_status_t iso_links_open(iso_job_t *job, bool other_hosts);
/* Collective, where the bootstrap cannot look up a rank's card: then all cards stay in the job. To be
 * called after a failure, too. */
iso_status_t iso_links_publish(iso_job_t *job);

#ifdef __cplusplus
}
#endif

#endif
