/*
 * slots.h - which slots this rank owns, and which heap each belongs to.
 *
 * A slot is ISO_SLOT_SIZE bytes of the iso space. Of the slots that this rank knows anything about,
 * each is in one of two places, never both:
 *   - the free set: this rank's own and empty;
 *   - the table: it belongs to a heap that is at this rank (or is leaving it, or arriving).
 * All other slots are other ranks' affair: the table has 0 for them and the free set has them not.
 *
 * Everything here is process-local and sparse: nothing grows with the size of the job.
 */
#ifndef ISO_CORE_SLOTS_H
#define ISO_CORE_SLOTS_H

#include "core/atomic.h"
#include <isomalloc/isomalloc.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_SLOT_SHIFT 21
#define ISO_SLOT_MASK (ISO_SLOT_SIZE - 1)

/* Slots of a heap that lie together. In an ordinary extent each slot has a header of its own; a run
 * is one large block: only its first slot has. The order of extents has no meaning. */
typedef struct iso_extent {
    uint32_t first; /* slot index in the space */
    uint32_t count; /* slots; ISO_EXTENT_RUN or'ed in for a run */
} iso_extent_t;
#define ISO_EXTENT_RUN 0x80000000u
static inline uint32_t iso_extent_slots(const iso_extent_t *extent)
{
    return extent->count & ~ISO_EXTENT_RUN;
}

typedef struct iso_slots {
    uint32_t total;       /* slots of the space */
    uint32_t strip_first; /* this rank's strip: where its slots come from, its "home" */
    uint32_t strip_count;

    /* Per slot: 0, or the address of the first slot of the heap that has it, plus the distance in
     * slots from the head of its run (0 in ordinary slots). Written under the job's lock, read
     * without: a reader owns the heap, or asks about an address of its own. */
    ISO_ATOMIC(uintptr_t) * table;

    uint64_t *entered; /* bitmap: whose word in the table is not 0 */
    /* Bitmap: who is in the free set and was not when the job began, or the other way round. It began as the
     * strip, of which most is never used: those bits, of half a megabyte and more, are never touched. */
    uint64_t *moved;
    uint32_t free_count;
    uint32_t foreign_free; /* of those: not of this rank's strip */
    uint32_t lowest, high; /* all free slots lie in [lowest, high) */
} iso_slots_t;

static inline uintptr_t iso_slots_word_heap_slot(uintptr_t word)
{
    return word & ~(uintptr_t)ISO_SLOT_MASK;
}
static inline uint32_t iso_slots_word_distance(uintptr_t word)
{
    return (uint32_t)(word & ISO_SLOT_MASK);
}

iso_status_t iso_slots_open(iso_slots_t *slots, uint32_t total, uint32_t rank, uint32_t size);
void iso_slots_close(iso_slots_t *slots);

/* The strip of a rank of a job of `size` ranks: home of its slots. */
void iso_slots_strip(uint32_t total, uint32_t rank, uint32_t size, uint32_t *first_p,
                     uint32_t *count_p);
uint32_t iso_slots_home(uint32_t total, uint32_t size, uint32_t slot);

/* Takes the lowest `count` adjacent slots out of the free set (first fit: those that were used before, and may
 * still have their pages, go before untouched ones), or ISO_ERR_NO_SPACE. */
iso_status_t iso_slots_take(iso_slots_t *slots, uint32_t count, uint32_t *first_p);
/* Puts slots into the free set; they must be in neither place. */
void iso_slots_put(iso_slots_t *slots, uint32_t first, uint32_t count);
/* Takes exactly these slots out of the free set; false (and nothing done) if one is not in it. */
bool iso_slots_take_exact(iso_slots_t *slots, uint32_t first, uint32_t count);
/* The next run of free slots at or after `from` whose home is not this rank; false: no more. */
bool iso_slots_next_foreign(const iso_slots_t *slots, uint32_t from, uint32_t *first_p,
                            uint32_t *count_p);

/* Enters an extent of the heap whose first slot is at heap_slot into the table, or clears it. */
void iso_slots_enter(iso_slots_t *slots, const iso_extent_t *extent, uintptr_t heap_slot);
void iso_slots_clear(iso_slots_t *slots, const iso_extent_t *extent);
/* Is no slot of the extent in the table or in the free set? (May a heap of another rank have it?) */
bool iso_slots_unknown(const iso_slots_t *slots, const iso_extent_t *extent);

#ifdef __cplusplus
}
#endif

#endif
