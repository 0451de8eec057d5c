/*
 * retain.h - pages that hold nothing but stay resident, up to ISO_RETAIN bytes of them.
 *
 * Touching a new page costs far more than copying it, so that pages are kept when what was in them
 * goes. Two kinds, both counted in units of 64 KiB, one bit each:
 *   dirty: units of slots that are this rank's (free, or of a heap that is here) and hold nothing;
 *   left:  units that a heap left behind when it migrated: landing pages for its return. The rank
 *          that has the heap now may hold a standing grant on them: it may put there without asking.
 * Sums are upper bounds: a page that was never touched may be counted. Over the limit the oldest
 * go, dirty before left, down to three quarters of it. What is under a grant is revoked first and
 * goes when the holder has acknowledged.
 *
 * Invariant: the pages of a left slot are touched by nobody here until the slot is claimed, and
 * never released while a grant on them stands.
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

typedef enum iso_left_state {
    ISO_LEFT_IDLE,    /* nobody may put here: can be released at once */
    ISO_LEFT_GRANTED, /* holder may put here without asking */
    ISO_LEFT_REVOKING /* holder was asked to stop and has not answered yet */
} iso_left_state_t;

/* What one heap left behind. */
typedef struct iso_left {
    struct iso_left *next, *prev; /* oldest first */
    iso_heap_t *heap;
    iso_left_state_t state;
    uint32_t holder;     /* of the grant; valid unless IDLE */
    uint32_t generation; /* of the grant */
    uint64_t epoch;      /* that the heap went with */
    uint32_t units;      /* resident, in all its slots that are still left */
    uint32_t slots_left; /* slots not claimed since; freed at 0 */
    bool whole;          /* no slot was claimed: the grant still speaks of the whole heap */
    uint32_t extent_count;
    __extension__ iso_extent_t extents[]; /* as they were when the heap went */
} iso_left_t;

typedef struct iso_retain {
    uint64_t limit;
    uint32_t total_slots;
    uint32_t *resident;              /* per slot: mask of units that are dirty or left */
    uint32_t *dirty_next;            /* per slot: the queue of dirty slots; 0: not in it */
    uint32_t dirty_head, dirty_tail; /* slot + 1, 0: empty */
    uint64_t dirty_units, left_units, revoking_units;
    iso_left_t **left_of; /* per slot */
    uint8_t *
        settled; /* per slot of a heap that is here: its header is written, and may be read under the
                             lock. Kept where windows are pinned only */
    iso_left_t *oldest, *newest;
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

/* How slots come here. */
typedef enum iso_coming {
    ISO_COMING_RESERVED, /* a heap is expected in them */
    ISO_COMING_GRANTED,  /* a heap has come, by a grant on what was left in them */
    ISO_COMING_HANDOVER, /* a heap from another rank of the node, with its pages */
    ISO_COMING_FREE      /* free slots */
} iso_coming_t;

/* These slots are about to be this rank's again: what was left in them becomes dirty, grants on them are
 * void. The new owner of the slots is the only rank that can have a grant on them, and it has given it
 * up: see core/README.md. false, with nothing changed: they, or their pages in the node, are another
 * rank's. Free ones never are, and have no heap (NULL). */
bool iso_retain_claim(iso_job_t *job, const iso_heap_t *heap, const iso_extent_t *extents,
                      uint32_t count, iso_coming_t coming);
/* What was claimed for a heap has come: its slots are in this node. */
void iso_retain_own(iso_job_t *job, const iso_extent_t *extents, uint32_t count);

/* Live runs as a migration has them. */
typedef struct iso_run {
    uintptr_t address;
    size_t length;
} iso_run_t;

/* If a heap with these runs leaves: the generation of the standing grant that its next owner will
 * have on the pages it leaves here; 0: none, they are more than the limit. */
uint32_t iso_retain_promise(iso_job_t *job, const iso_run_t *runs, size_t run_count);

/* What the next owner of a heap was promised. */
typedef struct iso_promise {
    uint32_t holder, generation; /* generation 0: nothing */
    uint64_t epoch;              /* that it has the heap with */
} iso_promise_t;

/* The heap has gone and left these runs. */
void iso_retain_leave(iso_job_t *job, iso_heap_t *heap, const iso_extent_t *extents, uint32_t count,
                      const iso_run_t *runs, size_t run_count, const iso_promise_t *promise);
/* The heap that was expected in these slots will not come: anything may have been put there. */
void iso_retain_abandon(iso_job_t *job, iso_heap_t *heap, const iso_extent_t *extents,
                        uint32_t count);

/* A heap that never was here may come into these slots: a standing grant for the holder, who has the heap with
 * this epoch, as if it had left them. 0: none, the slots are in use here or were, or pages are shared. Trim when
 * the holder has been told. */
uint32_t iso_retain_expect(iso_job_t *job, iso_heap_t *heap, const iso_extent_t *extents,
                           uint32_t count, uint32_t holder, uint64_t epoch);

/* Was a reservation for the heap made before it last went from here, with a grant that still stands? Then it
 * was given up since, and must not touch what the grant is on. */
bool iso_retain_is_stale(const iso_job_t *job, const iso_heap_t *heap, uint64_t epoch);

/* The whole heap's left pages under a grant to `holder` of this generation, or NULL. */
iso_left_t *iso_retain_granted(iso_job_t *job, const iso_heap_t *heap, uint32_t holder,
                               uint32_t generation);
/* The holder has given the grant up, on its own account or because it was revoked. */
void iso_retain_ungrant(iso_job_t *job, const iso_heap_t *heap, uint32_t holder,
                        uint32_t generation);
/* A rank is dead: its grants are void. */
void iso_retain_holder_dead(iso_job_t *job, uint32_t holder);

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

/* Releases the oldest until the sum is within the limit. */
void iso_retain_trim(iso_job_t *job);

#ifdef __cplusplus
}
#endif

#endif
