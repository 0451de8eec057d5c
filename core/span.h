/*
 * span.h - spans of tiny and small blocks: where blocks of a class come from. The allocator's rare operations,
 * between a heap and its units.
 *
 * Every function may assume that the heap is here, is not frozen, and that its user calls one at a
 * time. Links that are followed are checked: damage found aborts with the address.
 */
#ifndef ISO_CORE_SPAN_H
#define ISO_CORE_SPAN_H

#include "core/unit.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Aborts unless it is the address of a span of one of the heap's slots. */
void iso_span_check(const iso_heap_t *heap, const iso_span_t *span);

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
