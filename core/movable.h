/*
 * movable.h - blocks that move on their own: each is all of a heap that was made for it.
 *
 * The block is a large one, whatever its size, so that it begins a slot and a page, and what uses it after it was
 * freed faults as with any large block (guard.h). It costs 6 MiB of addresses and, beside its own, three pages.
 */
#ifndef ISO_CORE_MOVABLE_H
#define ISO_CORE_MOVABLE_H

#include "core/heap_layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Is it the block of such a heap, which is here? */
bool iso_movable_is(const iso_heap_t *heap, const void *block);

/* Another block for the heap; NULL: no room. set: it is the one, and what was asked for. */
void *iso_movable_more(iso_heap_t *heap, size_t size);
void iso_movable_set(iso_heap_t *heap, void *block, size_t size);

#ifdef __cplusplus
}
#endif

#endif
