/*
 * stack_guard.h - the pages below stacks that fault: made, kept, lifted, found again by an address. See stack.h.
 *
 * By the means of guard.h, and within its budget where each splits a mapping. The contents of such a page mean
 * nothing.
 *
 * A heap that goes to and fro would have each of its guards removed and made at each turn. So where no mapping is
 * split for them they are only put aside when it is frozen, and are kept when it has gone: the page goes on to fault, and
 * whoever makes a guard there again finds it. Invariant: kept guards lie in slots of frozen heaps, or that are not this
 * rank's. Nobody may meet one:
 *   - what is read of a frozen heap, or put, are live pages, which those below a stack never are;
 *   - who comes by a grant has the stacks that it had when it left, or some of them and no use of the grant (iso_stack_gone),
 *     so nothing is put there;
 *   - in all other ways slots come without them: iso_left_claim;
 *   - before anything of a heap that has come is read, but for the headers of its slots, those that are of none of
 *     its stacks are lifted: iso_stack_check_arrived.
 */
#ifndef ISO_CORE_STACK_GUARD_H
#define ISO_CORE_STACK_GUARD_H

#include "core/slots.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The page at the beginning of a unit. make: nothing where ISO_GUARD=none, where there is one, or (counted, warned of
 * once) where it cannot be. lift: nothing where there is none. All of these take the lock. */
void iso_stack_guard_make(iso_job_t *job, char *page);
void iso_stack_guard_lift(iso_job_t *job, char *page);
/* All in these slots. */
void iso_stack_guard_lift_all(iso_job_t *job, uint32_t first, uint32_t count);

/* How many in these slots are in use. */
uint64_t iso_stack_guard_count(iso_job_t *job, const iso_extent_t *extents, uint32_t count);

/* Those in these slots are kept, where that costs nothing, else lifted. */
void iso_stack_guard_keep(iso_job_t *job, uint32_t first, uint32_t count);
/* Is any kept in these slots? O(1) where none is in the process. */
bool iso_stack_guard_has_kept(iso_job_t *job, const iso_extent_t *extents, uint32_t count);
/* Those that are kept in these slots are lifted: all; or where the headers of slots may be. */
void iso_stack_guard_lift_kept(iso_job_t *job, const iso_extent_t *extents, uint32_t count);
void iso_stack_guard_lift_headers(iso_job_t *job, const iso_extent_t *extents, uint32_t count);

/* As iso_guard_pause and iso_guard_resume, whose parts they are. */
void iso_stack_guard_pause(iso_job_t *job, uint32_t first, uint32_t count);
void iso_stack_guard_resume(iso_job_t *job, uint32_t first, uint32_t count);

/* Is the address in one, of a stack that is in use here? In a handler as well. */
bool iso_stack_guard_has(const iso_job_t *job, uintptr_t address);

#ifdef __cplusplus
}
#endif

#endif
