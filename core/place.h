/*
 * place.h - the second exchange of a job's ranks: where the iso space is, and on what memory.
 *
 * Each rank reserves the proposed range; if it is taken somewhere, holes are offered, intersected and
 * tried, a bounded number of times. A node's leader makes what the node shares (the node's segment, the
 * space's memory object) and the others of the node open it. If a node is to have anonymous memory, it is
 * tried first, see trial.h.
 */
#ifndef ISO_CORE_PLACE_H
#define ISO_CORE_PLACE_H

#include <isomalloc/isomalloc.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Collective, wants the job's links open. so_far: what this rank has met before, which everybody hears.
 * ISO_OK: the space is mapped, the node's segment attached. A failure is this rank's own, to be told in
 * the next exchange, or everyone's. */
iso_status_t iso_place_settle(iso_job_t *job, uint64_t base, uint64_t size, iso_status_t so_far);

#ifdef __cplusplus
}
#endif

#endif
