/*
 * stack_in_use.c - who frees, destroys, saves or sends away what somebody runs on: a stack in a heap, whose thread calls,
 * or has resumed who calls, or runs in another thread of the system. What is left of it would be code that runs on memory that
 * is another's, or at another rank. Of other stacks than the caller's own is known what who runs them says (ISO_STACK_RUNS).
 */
#include "core/job.h"
#include "core/stack.h"
#include <stdio.h>

bool iso_stack_is_callers_job(const iso_job_t *job)
{
    const iso_job_row_t *row = iso_job_row_of(__builtin_frame_address(0));
    return row && row->job == job;
}

typedef struct search {
    uintptr_t address;
    const iso_stack_t *found;
} search_t;

static bool holds(const iso_stack_t *stack, void *arg)
{
    search_t *search = arg;
    if (search->address >= (uintptr_t)stack->low && search->address < (uintptr_t)stack)
        search->found = stack;
    return !search->found;
}

static bool runs(const iso_stack_t *stack, void *arg)
{
    search_t *search = arg;
    if (iso_stack_runs(stack))
        search->found = stack;
    return !search->found;
}

const char *iso_stack_in_use(const iso_hold_t *hold, char why[ISO_STACK_WHY])
{
    search_t search = {.address = (uintptr_t)__builtin_frame_address(0)};
    const bool is_callers = iso_heap_of(__builtin_frame_address(0)) == hold->heap;
    if (!is_callers && hold->heap->stacks == 0)
        return NULL;
    iso_stack_each(hold, is_callers ? holds : runs, &search);
    if (!is_callers && !search.found)
        return NULL;
    if (!is_callers)
        snprintf(why, ISO_STACK_WHY,
                 "a thread runs on its stack '%.48s': it has resumed the caller, or another thread "
                 "of the system runs it; call when it has stopped",
                 search.found->name);
    else if (search.found)
        snprintf(why, ISO_STACK_WHY,
                 "the thread that calls has its stack '%.48s' in it: call from outside of the heap",
                 search.found->name);
    else
        snprintf(why, ISO_STACK_WHY,
                 "the thread that calls has its stack in it: call from outside of the heap");
    return why;
}

bool iso_stack_job_in_use(iso_job_t *job, char why[ISO_STACK_WHY])
{
    bool in_use = false;
    iso_job_lock(job);
    for (const iso_hold_t *hold = job->holds; hold && !in_use; hold = hold->next)
        in_use = hold->state == ISO_HEAP_OWNED && iso_stack_in_use(hold, why);
    iso_job_unlock(job);
    return in_use;
}

void iso_stack_check_freed(const iso_block_t *block, const void *ptr)
{
    const bool is_callers = (uintptr_t)__builtin_frame_address(0) - (uintptr_t)ptr < block->size;
    const uint64_t stack_at = iso_stack_at(block);
    const iso_stack_t *stack =
        stack_at ? (const iso_stack_t *)((const char *)ptr + stack_at) : NULL;
    if (is_callers || (stack && iso_stack_runs(stack)))
        iso_fatal("block %p of heap %p is the stack '%.48s', and %s: let somebody else do it, when "
                  "its thread has ended",
                  ptr, (const void *)block->heap, stack ? stack->name : "",
                  is_callers ? "who frees it runs on it" : "a thread runs on it");
}
