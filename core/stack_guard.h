/*
 * stack_guard.h - the pages below stacks that fault: made, lifted, found again by an address. See stack.h.
 *
 * By the means of guard.h, and within its budget where each splits a mapping. The contents of such a page mean
 * nothing.
 */
#ifndef ISO_CORE_STACK_GUARD_H
#define ISO_CORE_STACK_GUARD_H

#include "core/slots.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The page at the beginning of a unit. make: nothing where ISO_GUARD=none, or (counted, warned of once) where it
 * cannot be. lift: nothing where there is none. Both take the lock. */
void iso_stack_guard_make(iso_job_t *job, char *page);
void iso_stack_guard_lift(iso_job_t *job, char *page);
/* All in these slots. */
void iso_stack_guard_lift_all(iso_job_t *job, uint32_t first, uint32_t count);

/* As iso_guard_pause and iso_guard_resume, whose parts they are. */
void iso_stack_guard_pause(iso_job_t *job, uint32_t first, uint32_t count);
void iso_stack_guard_resume(iso_job_t *job, uint32_t first, uint32_t count);

/* Is the address in one? In a handler as well. */
bool iso_stack_guard_has(const iso_job_t *job, uintptr_t address);

#ifdef __cplusplus
}
#endif

#endif
