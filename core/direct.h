/*
 * direct.h - slots whose blocks iso_free may free without a look at the slot table: ordinary ones of
 * heaps that are here, open, and of one thread at a time, without protected pages (protect.h).
 *
 * A cache beside the job table, of all jobs of the process, direct-mapped by the slot's address: iso_free
 * compares one word, and so does iso_heap_state. A slot comes in when a block of it is freed the long way, a heap's first one
 * also when its state is asked for, and pushes out the one that was in its place; so nothing has to be done when a heap
 * arrives. Before a heap freezes, before a slot of it goes, and when a page of one is protected, its slots are taken out, with the job's lock. Only the heap's
 * user brings its slots in, or who has the job's lock and finds the heap owned, so that nobody does while somebody takes
 * them out.
 */
#ifndef ISO_CORE_DIRECT_H
#define ISO_CORE_DIRECT_H

#include "core/atomic.h"
#include "core/slots.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_DIRECT_SLOTS 16384u /* 32 GiB, in 128 KiB that are touched where they are used */

/* The address of a slot's last byte, which is that of no slot where it is 0; see iso_direct_is. */
extern __attribute__((visibility("hidden"))) ISO_ATOMIC(uintptr_t) iso_direct[ISO_DIRECT_SLOTS];

#ifndef __cplusplus /* atomics: see atomic.h */
static inline ISO_ATOMIC(uintptr_t) * iso_direct_at(uintptr_t address)
{
    return &iso_direct[(address >> ISO_SLOT_SHIFT) % ISO_DIRECT_SLOTS];
}
/* Is it in such a slot? NULL is not. */
static inline bool iso_direct_is(const void *address)
{
    return atomic_load_explicit(iso_direct_at((uintptr_t)address), memory_order_relaxed) ==
           ((uintptr_t)address | ISO_SLOT_MASK);
}
static inline void iso_direct_set(const void *slot)
{
    atomic_store_explicit(iso_direct_at((uintptr_t)slot), (uintptr_t)slot | ISO_SLOT_MASK,
                          memory_order_relaxed);
}
#endif

/* Takes out `count` adjacent slots, those of them that are in. */
void iso_direct_clear(const void *slot, uint32_t count);

#ifdef __cplusplus
}
#endif

#endif
