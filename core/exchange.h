/*
 * exchange.h - the exchanges among all ranks of which joining a job consists.
 *
 * After an exchange all ranks see the same and decide alike, so that one rank's failure is everyone's,
 * said once and without waiting. A rank that has failed takes part in the next exchange, to say so.
 *
 * What a rank gets is the records of all, combined into one, and those of its host's ranks one by one:
 * with a bootstrap that can gather, memory and messages of a rank do not grow with the job (but for the
 * logarithm that a tree of ranks has).
 */
#ifndef ISO_CORE_EXCHANGE_H
#define ISO_CORE_EXCHANGE_H

#include <isomalloc/isomalloc.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Every record begins with it. */
typedef struct iso_record {
    uint32_t magic; /* 0: the rank is dead */
    int32_t status; /* an iso_status_t: what the rank has met so far */
    uint32_t rank;  /* whose it is, set by iso_exchange; of a combined one, the lowest */
} iso_record_t;
#define ISO_RECORD_MAGIC UINT32_C(0x69736f31)

/* Adds to a record, combined from some ranks, what another one, combined from higher ranks, says. Both
 * are of ranks that have met no failure. */
typedef void (*iso_combine_fn)(void *into, const void *from);

/* Collective: each rank's record of len bytes. *total: all of them, combined; combine NULL: only
 * their status. *host_p, if not NULL: those of iso_exchange_host, in that order, the caller's to free;
 * a dead rank's is zeros. The failure of the lowest rank that has one is everyone's, and rank 0 says
 * whose it was; the rank that has met it has logged it. Output only on success. */
iso_status_t iso_exchange(iso_job_t *job, const void *mine, size_t len, iso_combine_fn combine,
                          void *total, void **host_p);
/* The ranks among which all of this one's host are, ascending: as many as *count_p; NULL: all ranks. */
const uint32_t *iso_exchange_host(const iso_job_t *job, uint32_t *count_p);

/* Collective, without a look at anybody's status: the record of one rank, which may be another one at
 * each rank; or those of all, in rank order, which is the caller's to free and grows with the job. */
iso_status_t iso_exchange_one(iso_job_t *job, const void *mine, size_t len, uint32_t rank,
                              void *theirs);
iso_status_t iso_exchange_all(iso_job_t *job, const void *mine, size_t len, void **all_p);

#ifdef __cplusplus
}
#endif

#endif
