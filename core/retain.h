/*
 * retain.h - pages that hold nothing but stay resident, up to ISO_RETAIN bytes of them.
 *
 * Touching a new page costs far more than copying it, so that pages are kept when what was in them
 * goes. Two kinds, both counted in units of 64 KiB, one bit each:
 *   dirty: units of slots that are this rank's (free, or of a heap that is here) and hold nothing;
 *   left:  units that a heap left behind when it migrated: landing pages for its return. See left.h.
 * Sums are upper bounds: a page that was never touched may be counted. Over the limit the oldest
 * go, dirty before left, down to three quarters of it. What is under a grant is revoked first and
 * goes when the holder has acknowledged.
 *
 * A device that pins windows (window.h) makes all pages of them resident, and none of them may be given
 * back while the window is registered. So what is to go from there goes when the window does, with all
 * else in it that holds nothing (iso_retain_unpinned); and a slot that is left counts as a whole.
 */
#ifndef ISO_CORE_RETAIN_H
#define ISO_CORE_RETAIN_H

#include "core/slots.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_UNIT_SHIFT 16
#define ISO_UNIT_SIZE ((size_t)1 << ISO_UNIT_SHIFT)
#define ISO_UNITS_PER_SLOT ((uint32_t)(ISO_SLOT_SIZE / ISO_UNIT_SIZE)) /* 32 */
#define ISO_UNITS_ALL UINT32_MAX                                       /* of a slot, as a mask */

static inline uint32_t iso_units_in(uint32_t mask)
{
    return (uint32_t)__builtin_popcount(mask);
}

typedef struct iso_retain {
    uint64_t limit;
    uint32_t total_slots;
    uint32_t *resident;              /* per slot: mask of units that are dirty or left */
    uint32_t *dirty_next;            /* per slot: the queue of dirty slots; 0: not in it */
    uint32_t dirty_head, dirty_tail; /* slot + 1, 0: empty */
    uint64_t dirty_units, left_units, revoking_units;
    uint32_t unseen; /* of what is left, what has idle ranges that nobody has looked at */
    double look_at; /* not before this, by the coarse clock, is there one that is to be looked at */
    struct iso_left **left_of; /* per slot */
    uint8_t *
        settled; /* per slot of a heap that is here: its header is written, and may be read under the
                             lock. Kept where windows are pinned only */
    struct iso_left *oldest, *newest;
    uint32_t generation;
} iso_retain_t;

iso_status_t iso_retain_open(iso_retain_t *retain, uint64_t limit, uint32_t total_slots);
void iso_retain_close(iso_retain_t *retain);
static inline uint64_t iso_retain_bytes(const iso_retain_t *retain)
{
    return (retain->dirty_units + retain->left_units) << ISO_UNIT_SHIFT;
}

/* Units of one slot of a heap that is here, as a bit mask (bit 0: the first 64 KiB). free: they
 * hold nothing any more; the pages that are needed still (the slot's header page in unit 0) must not
 * be in it, hence unit 0 is never passed unless the whole slot is free. use: they are about to be
 * used; returns those of them that are warm (resident as far as is known; the caller may populate
 * the others). Both take the job's lock; call them when a unit changes hands, never per block. */
void iso_retain_units_free(iso_job_t *job, const void *slot, uint32_t mask);
uint32_t iso_retain_units_use(iso_job_t *job, const void *slot, uint32_t mask);

/* The functions below want the job's lock held. */

/* Slots leave the free set for a heap: nothing of them counts as dirty. Which units of the first
 * were warm. */
uint32_t iso_retain_slots_use(iso_job_t *job, uint32_t first, uint32_t count);

/* A slot became free here; the units in `used` held something until now. */
void iso_retain_slot_free(iso_job_t *job, uint32_t slot, uint32_t used);

/* Releases the pages of slots that are this rank's and free, because they go to another rank. */
void iso_retain_slots_leave(iso_job_t *job, uint32_t first, uint32_t count);
/* Releases the units in `mask` that are dirty in the slots of a heap that is handed over: the next
 * owner does not know of them. */
void iso_retain_handover(iso_job_t *job, const iso_extent_t *extents, uint32_t count);

/* These slots are not registered any more: what no heap and no grant has of their pages goes. */
void iso_retain_unpinned(iso_job_t *job, uint32_t first, uint32_t count);
/* A heap is this rank's now: what is registered of its slots was used, and of what is not any more the pages
 * that hold nothing go. */
void iso_retain_arrived(iso_job_t *job, const iso_extent_t *extents, uint32_t count);

/* For left.c. Pages of these units go, now or when what pins them does. */
void iso_retain_punch(iso_job_t *job, uint32_t slot, uint32_t mask);
/* The units hold nothing any more. */
void iso_retain_dirty(iso_job_t *job, uint32_t slot, uint32_t mask);
/* Is the slot's header one that may be read? */
void iso_retain_settle(iso_job_t *job, uint32_t slot, bool settled);

/* Releases the oldest until the sum is within the limit. */
void iso_retain_trim(iso_job_t *job);

#ifdef __cplusplus
}
#endif

#endif
