/*
 * hold.h - what this process knows of a heap that is here, leaving or arriving.
 *
 * A heap itself holds nothing process-local. Its hold does: state, extents, request under way,
 * grants that peers gave for it. A hold exists for every heap that is in the slot table, found in
 * O(1) from the index of the heap's first slot.
 */
#ifndef ISO_CORE_HOLD_H
#define ISO_CORE_HOLD_H

#include "core/slots.h"

#ifdef __cplusplus
extern "C" {
#endif

struct iso_request;

/* A standing grant that another rank gave for this heap's slots: it keeps its pages of them as they
 * are until it has revoked the grant here. */
typedef struct iso_grant {
    uint32_t rank;       /* that gave it; valid only if generation != 0 */
    uint32_t generation; /* its number there */
    uint64_t
        extents_version; /* of the hold when it was given: the slots, and stacks, that it speaks of */
} iso_grant_t;

#define ISO_EXTENTS_FEW 4

typedef struct iso_hold {
    iso_job_t *job;
    iso_heap_t *heap;
    iso_heap_state_t state;
    /* Grows with each attempt to change the owner; the heap's header has the same number. A new heap begins with one
     * that is not earlier than that of any heap that was at its address before, at whatever rank: so that nothing that is
     * known of that one anywhere is taken for this one's (iso_left_is_stale). Slots bring it along, as clocks do by
     * messages (Lamport). */
    uint64_t epoch;

    iso_extent_t *extents; /* `few`, or from malloc; adjacent ordinary extents are merged */
    uint32_t extent_count, extent_room;
    uint32_t slot_count;
    uint64_t extents_version; /* counts the changes of `extents`, and the stacks that went */

    bool counted;      /* in the statistics' number of heaps: it was owned here */
    bool is_protected; /* protections of the heap hold in this process, see protect.h */
    bool stays_open;   /* this CPU may write here for a peer when it is gone, see poison.h */
    struct iso_request *request;  /* the migration under way from here, or NULL */
    void *arrival;                /* the arrival under way to here, or NULL */
    iso_grant_t grant;            /* the last rank that the heap came from may give one */
    struct iso_hold *next, *prev; /* all holds of the job */
    iso_extent_t few[ISO_EXTENTS_FEW];
} iso_hold_t;

/* The hold of the heap at this address, or NULL when it is not here. job NULL: found by address. */
iso_hold_t *iso_hold_find(iso_job_t *job, const iso_heap_t *heap);

/* For a new heap: takes its first slot (borrowing from other ranks if need be) and enters it.
 * *slot_p is the slot's address; its contents are unknown. *warm_p: units of it that are resident;
 * they count as in use until iso_retain_units_free says otherwise. State ISO_HEAP_OWNED.
 * ISO_ERR_NO_SPACE, ISO_ERR_NO_MEMORY. Takes the job's lock. */
iso_status_t iso_hold_create(iso_job_t *job, iso_hold_t **hold_p, char **slot_p, uint32_t *warm_p);

/* For a heap of another rank: enters the extents given under `heap`. State ISO_HEAP_MOVING.
 * ISO_ERR_INVALID, with nothing changed: they overlap, are known here already, or do not hold the
 * heap's first slot. The caller holds the lock. */
iso_status_t iso_hold_adopt(iso_job_t *job, iso_heap_t *heap, const iso_extent_t *extents,
                            uint32_t count, iso_hold_t **hold_p);

/* Forgets the heap: its slots leave the table. free_slots: they become this rank's free ones (and
 * their pages may stay warm), else they belong to another rank now. The caller holds the lock. */
void iso_hold_drop(iso_hold_t *hold, bool free_slots);
/* Only its memory: the job ends, and nobody knows of it any more. */
void iso_hold_free(iso_hold_t *hold);

/* Are all of these bytes, of which there are some, in slots that are the heap's here? */
bool iso_hold_covers(const iso_hold_t *hold, uintptr_t from, uint64_t length);

/* More slots for a heap that is here: `count` adjacent ones, entered as a run if count > 1. Their
 * contents are unknown; *warm_p as above, of the first. Takes the job's lock; may make progress
 * while it borrows. */
iso_status_t iso_hold_grow(iso_hold_t *hold, uint32_t count, char **address_p, uint32_t *warm_p);
/* The heap is not open any more: see direct.h. */
void iso_hold_undirect(const iso_hold_t *hold);
/* Gives back slots that hold nothing any more: one ordinary slot, or a whole run. Takes the lock. */
void iso_hold_shrink(iso_hold_t *hold, char *address, uint32_t count);

/* Several heaps that migrate as one (parcel.h): for a while their slots are all one's, the carrier's. The lock is
 * held. */
/* A hold without slots, for a heap that comes in the carrier's. State ISO_HEAP_MOVING. ISO_ERR_INVALID: the heap is
 * known here. */
iso_status_t iso_hold_expect(iso_job_t *job, iso_heap_t *heap, uint32_t extent_room,
                             iso_hold_t **hold_p);
/* Room for the slots of `count` extents more, so that the two below cannot fail. */
iso_status_t iso_hold_room(iso_hold_t *hold, uint32_t count);
/* The member's slots become the carrier's; its list of them stays, without being counted. */
void iso_hold_merge(iso_hold_t *carrier, iso_hold_t *member);
/* Are these slots, which may be any numbers, all of one extent of this hold's, and a run only if that is this run? */
bool iso_hold_has(const iso_hold_t *hold, const iso_extent_t *extent);
/* These slots of the carrier's, which has them, become the member's, which has none. */
void iso_hold_split(iso_hold_t *carrier, iso_hold_t *member, const iso_extent_t *extents,
                    uint32_t count);

/* Which units of a slot in the table (its word is `word`) hold nothing: none while the heap is on
 * its way here. The caller holds the lock. */
uint32_t iso_hold_free_units(iso_job_t *job, uintptr_t word, uint32_t slot);

#ifdef __cplusplus
}
#endif

#endif
