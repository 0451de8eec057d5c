/*
 * exchange.h - the exchanges among all ranks of which joining a job consists.
 *
 * After an exchange all ranks see the same records and decide alike, so that one rank's failure is
 * everyone's, said once and without waiting. A rank that has failed takes part in the next exchange,
 * to say so.
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
} iso_record_t;
#define ISO_RECORD_MAGIC UINT32_C(0x69736f31)

/* Collective: len bytes of each rank, in rank order; *all_p is the caller's to free. */
iso_status_t iso_exchange(iso_job_t *job, const void *mine, size_t len, void **all_p);

/* The first failure decides for all; the rank that met it has logged it, rank 0 says whose it was. */
iso_status_t iso_exchange_check(iso_job_t *job, const void *all, size_t len);

#ifdef __cplusplus
}
#endif

#endif
