/*
 * heap.h - the allocator as the rest of core sees it. What is inside a heap: heap_layout.h.
 */
#ifndef ISO_CORE_HEAP_H
#define ISO_CORE_HEAP_H

#include "core/hold.h"
#include "core/runs.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A heap's address from that of its first slot, and back. */
iso_heap_t *iso_heap_at_slot(uintptr_t slot_address);
uintptr_t iso_heap_slot_of(const iso_heap_t *heap);

/* Flags of a heap beside iso_heap_flags_t. */
#define ISO_HEAP_MOVABLE 0x80000000u /* of one block, its root, which it ends with: movable.h */
#define ISO_HEAP_CARRIER 0x40000000u /* of an object that migrates: parcel.h */

/* iso_heap_create_flags, with these as well. */
iso_status_t iso_heap_make(iso_job_t *job, uint32_t flags, iso_heap_t **heap_p);

/* A digest of all that must be equal in two builds for one to read the other's heaps: layout of the
 * structures in the iso space, size classes, slot and unit size. Ranks compare it when they join. */
uint64_t iso_heap_layout_digest(void);

/* Before a migration: nothing of the heap is handed out any more (iso_malloc and iso_free on it
 * abort with a message), pages that hold nothing are known as such, slots that hold no block are
 * given up (but for the first), and its protections are lifted. Of a shared heap the caller has the lock (iso_shared_lock, before the
 * job's). thaw takes it back. Both O(slots + protections). */
void iso_heap_freeze(iso_hold_t *hold);
void iso_heap_thaw(iso_hold_t *hold);

/* Calls emit for every live run, ascending within an extent; adjacent ones of one extent (and of
 * extents that adjoin) are merged. Only OS pages that a live block or metadata overlaps are in a
 * run. The heap is frozen, or used by nobody meanwhile. emit returning false stops. */
typedef bool (*iso_live_run_fn)(void *address, size_t length, void *arg);
void iso_heap_live_runs(iso_hold_t *hold, iso_live_run_fn emit, void *arg);
/* Adds them to a list. false: no memory for all of them. */
bool iso_heap_list_runs(iso_hold_t *hold, iso_runs_t *runs);

/* Units of a slot with a header (of a heap that is here, given by the slot's address) that no span
 * uses: what retain.c may give back. Bit 0, the header's unit, is never set; the head of a run (a
 * large block) has none. May be asked by another thread than the heap's, under the job's lock: a
 * unit that iso_retain_units_use has not been called for yet may be reported free. */
uint32_t iso_heap_slot_free_units(const void *slot);

/* At the target, when the pages of these slots of its are here: is this a heap of our layout with this epoch, and if it
 * has stacks or protections, are they sound, and is the stacks' code ours (ISO_ERR_CODE, logged)? Touches the first slot's
 * header and the heap's own page only, if it has neither. The heap is frozen still: iso_heap_thaw makes it usable.
 * ISO_ERR_VERSION, ISO_ERR_INVALID. */
iso_status_t iso_heap_check_arrived(const iso_heap_t *heap, uint64_t epoch,
                                    const iso_extent_t *extents, uint32_t count);
/* Makes what is process-local of a heap that was checked. ISO_ERR_NO_MEMORY, logged. */
iso_status_t iso_heap_take_in(iso_job_t *job, const iso_heap_t *heap);
void iso_heap_set_epoch(iso_heap_t *heap, uint64_t epoch);

#ifdef __cplusplus
}
#endif

#endif
