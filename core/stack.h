/*
 * stack.h - blocks that are stacks (isomalloc/stack.h): which part of them is in use, and the page below that faults.
 *
 * A stack begins a unit of its slot, or a slot, so its guard is the first OS page of one. Guards of stacks are in
 * slots of heaps that are here, owned and not frozen; those of guard.h are in free slots. They are made when a stack is, or
 * when its heap is thawed, and lifted when the heap is frozen or ends, or the stack does. Which there are is kept
 * by slot and unit outside of the heaps, since it is one process's, and its fault handler's, to know.
 */
#ifndef ISO_CORE_STACK_H
#define ISO_CORE_STACK_H

#include "core/block.h"
#include "core/hold.h"
#include "core/runs.h"
#include <isomalloc/stack.h>

struct iso_peer;

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes at the beginning of a block that hold nothing worth moving. stack_at: where its iso_stack_t is, 0: no stack. */
size_t iso_stack_unused(const char *block, uint64_t stack_at);
/* Where the iso_stack_t of this block is in it; 0: it is no stack. */
uint64_t iso_stack_at(const iso_block_t *block);

/* Does somebody run on it? As far as who runs it says so. */
static inline bool iso_stack_runs(const iso_stack_t *stack)
{
    return __atomic_load_n(&stack->sp, __ATOMIC_RELAXED) == ISO_STACK_RUNS;
}
/* Why a heap that is here and owned neither ends, goes nor is saved: the caller runs in it, on a stack or any other block, or
 * somebody on one of its stacks. NULL: nobody does. O(slots) where it has stacks. */
#define ISO_STACK_WHY 192
const char *iso_stack_in_use(const iso_hold_t *hold, char why[ISO_STACK_WHY]);
/* The same of all heaps of the job. */
bool iso_stack_job_in_use(iso_job_t *job, char why[ISO_STACK_WHY]);
/* Does the caller run anywhere in the job's iso space? */
bool iso_stack_is_callers_job(const iso_job_t *job);
/* Ends the process with a line, if somebody runs on this block, which is about to be freed. */
void iso_stack_check_freed(const iso_block_t *block, const void *ptr);

/* Calls fn for each stack of a heap that is here, until it returns false. */
typedef bool (*iso_stack_look_fn)(const iso_stack_t *stack, void *arg);
void iso_stack_each(const iso_hold_t *hold, iso_stack_look_fn fn, void *arg);

/* The block is about to be freed. */
void iso_stack_gone(const iso_block_t *block, const void *ptr);

/* A heap with stacks is frozen or ends here; is usable here (again). The job's lock is held, or the caller is the
 * heap's user. */
void iso_stack_freeze(const iso_hold_t *hold);
void iso_stack_thaw(const iso_hold_t *hold);

/* Adds the units of a frozen heap's stacks below what they use: they hold nothing, and what of them is in memory stays
 * behind when the heap goes. false: no memory. */
bool iso_stack_list_idle(const iso_hold_t *hold, iso_runs_t *idle);

/* A digest of the code that the stacks of a heap depend on; 0: it has none. */
uint64_t iso_stack_code(const iso_heap_t *heap);
/* The heap has got its first stack; has lost its last one. */
void iso_stack_code_note(iso_heap_t *heap);
void iso_stack_code_forget(iso_heap_t *heap);
/* A heap that the caller uses is about to go to this rank (NULL: one that is not known yet, or a file): the list of what its stacks depend on is
 * made a block of it, or is none any more. The job's lock is held, and let go of where that changes. */
void iso_stack_code_leave(const iso_hold_t *hold, const struct iso_peer *peer);
/* Is it the code that is here? ISO_ERR_CODE: logged. ISO_ERR_INVALID: the list cannot be one. */
iso_status_t iso_stack_code_check(const iso_job_t *job, const iso_heap_t *heap);
/* May this heap, which has come into these slots, be used here? ISO_ERR_CODE: logged. ISO_ERR_INVALID: its stacks are
 * not where its slots say that they are. O(slots) where it has some. */
iso_status_t iso_stack_check_arrived(const iso_heap_t *heap, const iso_extent_t *extents,
                                     uint32_t count);

#ifdef __cplusplus
}
#endif

#endif
