/*
 * stack_caller.c - who frees, destroys or sends away what he runs on: a stack in a heap, by its own thread. What is left of
 * the caller would be code that runs on memory that is another's, or at another rank.
 */
#include "core/job.h"
#include "core/stack.h"

const char iso_stack_callers[] =
    "the thread that calls has its stack in it: call from outside of the heap";

bool iso_stack_is_callers_heap(const iso_heap_t *heap)
{
    return iso_heap_of(__builtin_frame_address(0)) == heap;
}

bool iso_stack_is_callers_job(const iso_job_t *job)
{
    const iso_job_row_t *row = iso_job_row_of(__builtin_frame_address(0));
    return row && row->job == job;
}

typedef struct search {
    uintptr_t address;
    const iso_stack_t *found;
} search_t;

static bool holds(iso_stack_t *stack, void *arg)
{
    search_t *search = arg;
    if (search->address >= (uintptr_t)stack->low && search->address < (uintptr_t)stack)
        search->found = stack;
    return !search->found;
}

const char *iso_stack_callers_name(const iso_heap_t *heap)
{
    search_t search = {.address = (uintptr_t)__builtin_frame_address(0)};
    iso_stack_walk(heap, holds, &search);
    return search.found ? search.found->name : "";
}

void iso_stack_check_freed(const iso_block_t *block, const void *ptr)
{
    uint64_t stack_at;
    if ((uintptr_t)__builtin_frame_address(0) - (uintptr_t)ptr >= block->size)
        return;
    stack_at = iso_stack_at(block);
    iso_fatal("block %p of heap %p is the stack '%.48s', and who frees it runs on it: let somebody "
              "else do "
              "it, when its thread has ended",
              ptr, (const void *)block->heap,
              stack_at ? ((const iso_stack_t *)((const char *)ptr + stack_at))->name : "");
}
