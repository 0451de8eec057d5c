/*
 * meet.h - the first exchange of a job's ranks: who is where, and do all have the same?
 *
 * Each rank says where it is (host, process), of which version of the library, with which settings, and
 * what it would propose for the space. What all must have alike is compared, and the first rank that
 * differs is named; rank 0's cookie and proposal are everyone's. A node is found from who is on this host.
 */
#ifndef ISO_CORE_MEET_H
#define ISO_CORE_MEET_H

#include <isomalloc/isomalloc.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the ranks have said, as far as it is needed later. */
typedef struct iso_meeting {
    uint64_t base, size; /* of the space, proposed by rank 0 */
    bool other_hosts;    /* the ranks are on several hosts */
} iso_meeting_t;

/* Collective. so_far: what this rank has met before, which everybody hears. Sets the job's cookie and its
 * node's ranks. *own_p: what this rank alone has met in the end, to be told in the next exchange. Outputs
 * only on success, which is everyone's, as a failure is. */
iso_status_t iso_meet(iso_job_t *job, iso_status_t so_far, iso_meeting_t *meeting_p,
                      iso_status_t *own_p);

#ifdef __cplusplus
}
#endif

#endif
