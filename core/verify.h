/*
 * verify.h - can a heap's metadata be what they say? Damage is found before anything follows from it.
 *
 * Two means. Check words (heap_layout.h) tell that something ran over the end of the block before;
 * they are compared by whoever uses the metadata behind them, iso_malloc and iso_free's own paths
 * included. And much is said twice: iso_heap_verify goes through all of a heap and compares. What
 * is found aborts with a line that names address, heap and cause.
 */
#ifndef ISO_CORE_VERIFY_H
#define ISO_CORE_VERIFY_H

#include "core/hold.h"
#include "core/span.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Everything of a heap that is here and not frozen: each slot's header, each chunk's. O(slots + live
 * chunks), a cache line a chunk. Not found, for there is nothing to compare with: a wild write that
 * turns free bits into others that can be, and to what means nothing now. */
void iso_heap_verify(const iso_hold_t *hold);

/* Only the heap's own words, not its lists. */
void iso_heap_verify_header(const iso_hold_t *hold);

/* Do the headers of the extent's slots say that they are the heap's, and what the extent says of them? Of one that came
 * from elsewhere: nothing else of them is looked at, and nothing aborts. */
bool iso_extent_is_of(const iso_job_t *job, const iso_extent_t *extent, uint64_t heap);

/* Aborts: the check word of this slot's header or chunk is not what it was. Names the block before it. */
__attribute__((noreturn)) void iso_check_failed(const iso_heap_t *heap, const void *metadata);
static inline void iso_check(const iso_heap_t *heap, const iso_slot_t *slot)
{
    if (__builtin_expect(!iso_check_holds(slot), 0))
        iso_check_failed(heap, slot);
}
static inline void iso_check_chunk(const iso_heap_t *heap, const iso_span_t *span,
                                   const iso_chunk_t *chunk)
{
    if (__builtin_expect(!iso_chunk_holds(span, chunk), 0))
        iso_check_failed(heap, chunk);
}

/* Parts of it, for those who are about to rely on them. */
bool iso_run_is_sound(const iso_slot_t *slot);
bool iso_medium_is_sound(const iso_slot_t *slot, unsigned unit);
/* The same without a look at what the units behind its first one say of themselves: for who follows none of that. */
bool iso_medium_is_inside(const iso_slot_t *slot, unsigned unit);
/* The places that blocks of the class come from, in this span of the heap. */
bool iso_current_is_sound(const iso_current_t *current, const iso_slot_t *slot, unsigned unit,
                          unsigned klass);
/* What a place in a heap's metadata is damaged by when it has bits of no block that are not set. */
extern const char iso_more_blocks[];

#ifdef __cplusplus
}
#endif

#endif
