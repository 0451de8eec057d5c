/*
 * by_rank.h - a table of peers by rank, whose memory grows with the ranks that are spoken with and not with the job:
 * leaves of it are made when needed, and stay. One thread sets entries; others may get them meanwhile.
 *
 * Compiled into every module that wants it: a module needs nothing outside itself.
 */
#ifndef TRANSPORT_COMMON_BY_RANK_H
#define TRANSPORT_COMMON_BY_RANK_H

#include <stdbool.h>
#include <stdint.h>

typedef struct by_rank {
    void ***leaves;
    uint32_t leaf_count;
} by_rank_t;

/* For ranks below `size`; false: no memory. */
bool by_rank_open(by_rank_t *table, uint32_t size);
/* The entries are the caller's. */
void by_rank_close(by_rank_t *table);
/* NULL: there is none. */
void *by_rank_get(const by_rank_t *table, uint32_t rank);
/* What was written to the entry before is there for who gets it. false: no memory. */
bool by_rank_set(by_rank_t *table, uint32_t rank, void *entry);

#endif
