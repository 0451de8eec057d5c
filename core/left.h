/*
 * left.h - what heaps left behind when they migrated, and the standing grants on it.
 *
 * Invariant: the pages of a left slot are touched by nobody here until the slot is claimed, and
 * never released while a grant on them stands. How many may stay is retain.h's.
 *
 * All functions want the job's lock held.
 */
#ifndef ISO_CORE_LEFT_H
#define ISO_CORE_LEFT_H

#include "core/retain.h"
#include "core/runs.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum iso_left_state {
    ISO_LEFT_IDLE,    /* nobody may put here: can be released at once */
    ISO_LEFT_GRANTED, /* holder may put here without asking */
    ISO_LEFT_REVOKING /* holder was asked to stop and has not answered yet */
} iso_left_state_t;

/* Of the slot at this address, the units that the run, which reaches into it, lies in: a mask. */
static inline uint32_t iso_units_of_run(const iso_run_t *run, uintptr_t slot_address)
{
    uintptr_t end = run->address + run->length, slot_end = slot_address + ISO_SLOT_SIZE;
    uintptr_t low = run->address > slot_address ? run->address : slot_address;
    uintptr_t high = end < slot_end ? end : slot_end;
    uint32_t first = (uint32_t)((low - slot_address) >> ISO_UNIT_SHIFT);
    uint32_t last = (uint32_t)((high - 1 - slot_address) >> ISO_UNIT_SHIFT);
    return (uint32_t)((UINT64_C(2) << last) - (UINT64_C(1) << first));
}

/* What one heap left behind. */
typedef struct iso_left {
    struct iso_left *next, *prev; /* oldest first */
    iso_heap_t *heap;
    iso_left_state_t state;
    uint32_t holder;     /* of the grant; valid unless IDLE */
    uint32_t generation; /* of the grant */
    uint64_t epoch;      /* that the heap went with */
    uint32_t units;      /* resident, in all its slots that are still left */
    iso_runs_t
        idle; /* ranges that hold nothing and may take memory, not counted in them yet (iso_stack_list_idle) */
    double went;         /* by the coarse clock, where there is something idle */
    uint32_t slots_left; /* slots not claimed since; freed at 0 */
    bool whole;          /* no slot was claimed: the grant still speaks of the whole heap */
    uint32_t extent_count;
    __extension__ iso_extent_t extents[]; /* as they were when the heap went */
} iso_left_t;

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
bool iso_left_claim(iso_job_t *job, const iso_heap_t *heap, const iso_extent_t *extents,
                    uint32_t count, iso_coming_t coming);
/* What was claimed for a heap has come: its slots are in this node. */
void iso_left_own(iso_job_t *job, const iso_extent_t *extents, uint32_t count);

/* If a heap with these live runs leaves, and idle ones (iso_stack_list_idle): the generation of the standing grant that its
 * next owner will have on the pages it leaves here; 0: none, they may be more than the limit. */
uint32_t iso_left_promise(iso_job_t *job, const iso_runs_t *runs, const iso_runs_t *idle);

/* What the next owner of a heap was promised. */
typedef struct iso_promise {
    uint32_t holder, generation; /* generation 0: nothing */
    uint64_t epoch;              /* that it has the heap with */
} iso_promise_t;

/* The heap has gone and left these runs. What is in memory of `idle`, which is taken over, is counted later: by
 * iso_left_look. */
void iso_left_leave(iso_job_t *job, iso_heap_t *heap, const iso_extent_t *extents, uint32_t count,
                    const iso_runs_t *runs, iso_runs_t *idle, const iso_promise_t *promise);
/* Counts what idle ranges have in memory, of heaps that went before this time (of the coarse clock; INFINITY: of all), and trims.
 * The system has to be asked for each: so a heap that is back at once, as one that goes to and fro, is not asked
 * for. */
void iso_left_look(iso_job_t *job, double before);
/* Of one heap; and nothing of its ranges any more, looked at or not. */
void iso_left_look_at(iso_job_t *job, iso_left_t *left);
void iso_left_idle_forget(iso_retain_t *retain, iso_left_t *left);
/* Where it is time for it; and when that will be: INFINITY: when another heap has left. */
void iso_left_advance(iso_job_t *job);
double iso_left_deadline(const iso_job_t *job);
/* The heap that was expected in these slots will not come: anything may have been put there. */
void iso_left_abandon(iso_job_t *job, iso_heap_t *heap, const iso_extent_t *extents,
                      uint32_t count);

/* A heap that never was here may come into these slots: a standing grant for the holder, who has the heap with
 * this epoch, as if it had left them. 0: none, the slots are in use here or were, or pages are shared. Trim when
 * the holder has been told. */
uint32_t iso_left_expect(iso_job_t *job, iso_heap_t *heap, const iso_extent_t *extents,
                         uint32_t count, uint32_t holder, uint64_t epoch);

/* Was a reservation for the heap made before it last went from here, with a grant that still stands? Then it
 * was given up since, and must not touch what the grant is on. */
bool iso_left_is_stale(const iso_job_t *job, const iso_heap_t *heap, uint64_t epoch);

/* The whole heap's left pages under a grant to `holder` of this generation, or NULL. */
iso_left_t *iso_left_granted(iso_job_t *job, const iso_heap_t *heap, uint32_t holder,
                             uint32_t generation);
/* The holder has given the grant up, on its own account or because it was revoked. */
void iso_left_ungrant(iso_job_t *job, const iso_heap_t *heap, uint32_t holder, uint32_t generation);
/* A rank is dead: its grants are void. */
void iso_left_holder_dead(iso_job_t *job, uint32_t holder);

/* Releases, or revokes the grant on, the oldest until `limit` units are retained in all. */
void iso_left_trim(iso_job_t *job, uint64_t limit);
/* Forgets all of it. */
void iso_left_close(iso_retain_t *retain);

#ifdef __cplusplus
}
#endif

#endif
