/*
 * unit.h - the units of a heap's slots: which are free, and slots by how many of them are so side by side.
 *
 * Every function may assume that the heap is here, is not frozen, and that its user calls one at a
 * time. Links that are followed are checked: damage found aborts with the address.
 */
#ifndef ISO_CORE_UNIT_H
#define ISO_CORE_UNIT_H

#include "core/heap_layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Aborts: the heap's metadata at `where` cannot be right. */
__attribute__((noreturn)) void iso_heap_damaged(const iso_heap_t *heap, const void *where,
                                                const char *what);

/* A slot of the heap by any address in it, after checking that the slot table and its header say so:
 * a link can be followed through it wherever it leads. */
iso_slot_t *iso_slot_checked(const iso_heap_t *heap, const void *address);

/* The job of a heap that is here. */
iso_job_t *iso_heap_job(const iso_heap_t *heap);

/* The most adjacent free units of the slot. */
unsigned iso_slot_longest(const iso_slot_t *slot);

/* Makes the heap's new, raw slot usable: all units free; those in `warm` are resident. */
void iso_slot_init(iso_heap_t *heap, iso_slot_t *slot, uint32_t warm);

/* `count` adjacent units, in the fullest slot that has them, with as many free ones behind them as make
 * `room` if there is such a place, growing the heap if there is none at all. Unit 0, which lacks the header's
 * page, is only given for a whole slot, or as one unit if `any` will do. NULL: no room in the space. */
iso_slot_t *iso_units_take(iso_heap_t *heap, unsigned count, unsigned room, bool any,
                           unsigned *first_p);
/* Gives units back, and the slot if that was all of it (one empty slot is kept). */
void iso_units_give(iso_heap_t *heap, iso_slot_t *slot, unsigned first, unsigned count);
/* Takes the units behind a medium block as well, if they are free. */
bool iso_units_extend(iso_heap_t *heap, iso_slot_t *slot, unsigned first, unsigned count);
/* Gives back the empty slots that were kept. */
void iso_units_retire(iso_heap_t *heap);

#ifdef __cplusplus
}
#endif

#endif
