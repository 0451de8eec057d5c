/*
 * ending.h - how a migration ends for its source: the heap stays here, or it is the target's, or nobody knows yet.
 *
 * Up to COMMIT the source may give up at any time, once nothing that it has put can land later. From then on the node's
 * word decides, or the target's answer, or its certain death (core/README.md). Whatever ends a request may free it.
 * All under the job's lock.
 */
#ifndef ISO_CORE_ENDING_H
#define ISO_CORE_ENDING_H

#include "core/migrate.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The request has ended, of which the heap knows nothing. */
void iso_request_end(iso_request_t *request, iso_status_t status);
/* The heap stays here, usable; it is known that the target does not have it. */
void iso_request_end_here(iso_request_t *request, iso_status_t status);
/* The heap is the target's. */
void iso_request_end_gone(iso_request_t *request);

/* Before COMMIT: the heap will stay here, when what was put has landed. */
void iso_request_stop(iso_request_t *request, iso_status_t status);
/* After COMMIT, inside a node: has the target taken the heap? Whoever swaps the word first has decided. */
bool iso_request_is_taken(const iso_request_t *request);
void iso_request_decide_by_node(iso_request_t *request, iso_status_t status);
/* Ends the request with the heap here, if that can still be decided here; else changes nothing. */
void iso_request_give_up(iso_request_t *request, iso_status_t status);

/* The caller is told that the target has not `what` (answered, as the line says it) in time; what settles the matter may
 * still come. */
void iso_request_fall_in_doubt(iso_request_t *request, const char *what);

#ifdef __cplusplus
}
#endif

#endif
