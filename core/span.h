/*
 * span.h - units and spans: the allocator's rare operations, between a heap and its slots.
 *
 * Every function may assume that the heap is here, is not frozen, and that its user calls one at a
 * time. Links that are followed are checked: damage found aborts with the address.
 */
#ifndef ISO_CORE_SPAN_H
#define ISO_CORE_SPAN_H

#include "core/heap_layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Aborts: the heap's metadata at `where` cannot be right. */
__attribute__((noreturn)) void iso_span_damaged(const iso_heap_t *heap, const void *where,
                                                const char *what);

/* A slot of the heap by any address in it, after checking that the slot table and its header say so:
 * a link can be followed through it wherever it leads. */
iso_slot_t *iso_span_slot(const iso_heap_t *heap, const void *address);

/* Aborts unless it is the address of a span of one of the heap's slots. */
void iso_span_check(const iso_heap_t *heap, const iso_span_t *span);
/* The most adjacent free units of the slot. */
unsigned iso_span_longest(const iso_slot_t *slot);

/* Makes the heap's new, raw slot usable: all units free; those in `warm` are resident. */
void iso_span_slot_init(iso_heap_t *heap, iso_slot_t *slot, uint32_t warm);

/* `count` adjacent units, in the fullest slot that has them, with as many free ones behind them as make
 * `room` if there is such a place, growing the heap if there is none at all. Unit 0, which lacks the header's
 * page, is only given for a whole slot, or as one unit if `any` will do. NULL: no room in the space. */
iso_slot_t *iso_span_units_take(iso_heap_t *heap, unsigned count, unsigned room, bool any,
                                unsigned *first_p);
/* Gives units back, and the slot if that was all of it (one empty slot is kept). */
void iso_span_units_give(iso_heap_t *heap, iso_slot_t *slot, unsigned first, unsigned count);
/* Takes the units behind a medium block as well, if they are free. */
bool iso_span_units_extend(iso_heap_t *heap, iso_slot_t *slot, unsigned first, unsigned count);

/* Makes the span one of this kind and class, with nothing in it yet. `units`: see iso_span_t. */
void iso_span_reset(iso_span_t *span, iso_span_kind_t kind, unsigned klass, uint8_t units);

/* Makes *current, which is of this class, one that has a free block. false: no room in the space. */
bool iso_span_refill(iso_heap_t *heap, unsigned klass, iso_current_t *current);

/* Makes *current none; the span that it was in, NULL: it was none already. */
iso_span_t *iso_span_let_go(iso_heap_t *heap, unsigned klass, iso_current_t *current);

/* Enough blocks were freed in a span that had none: it can be allocated from again. */
void iso_span_has_room(iso_heap_t *heap, iso_span_t *span);
/* The last block of a chunk (tiny), or of the span (small), was freed. */
void iso_span_chunk_empty(iso_heap_t *heap, iso_span_t *span, iso_chunk_t *chunk);
void iso_span_small_empty(iso_heap_t *heap, iso_span_t *span);

/* Lets go of the places that blocks come from, one a class, and of empty spans and slots that were
 * kept for them: what is left is in use. */
void iso_span_retire(iso_heap_t *heap, iso_current_t *current);

#ifdef __cplusplus
}
#endif

#endif
