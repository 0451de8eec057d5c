/* stack.c - see stack.h. */
#include "core/stack.h"
#include "core/code.h"
#include "core/depth.h"
#include "core/fault.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/os.h"
#include "core/stack_guard.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LEAST_STACK ((size_t)4096)

__thread unsigned iso_depth;

unsigned iso_call_depth(void)
{
    return iso_depth;
}

/* ---- what is known of a block ---- */

size_t iso_stack_unused(const char *block, uint64_t stack_at)
{
    if (!stack_at)
        return 0;
    size_t guard = iso_os_page_size();
    const iso_stack_t *stack = (const iso_stack_t *)(block + stack_at);
    size_t used = (size_t)((const char *)stack->sp - block);
    return used >= guard && used <= stack_at ? used : guard;
}

uint64_t iso_stack_at(const iso_block_t *block)
{
    if (!block->span)
        return block->slot->run_stack;
    return block->span->kind == ISO_SPAN_MEDIUM ? block->span->stack : 0;
}

/* ---- made and destroyed ---- */

static iso_stack_t *refuse(const iso_heap_t *heap, const char *why, int error)
{
    const iso_job_row_t *row = iso_job_row_of(heap);
    iso_logger_t logger = row ? row->job->logger : iso_logger_default();
    iso_log(&logger, ISO_LOG_ERROR, "iso_stack_create in heap %p: %s", (const void *)heap, why);
    errno = error;
    return NULL;
}

/* With its first stack a heap begins to depend on the code that it is used by. */
static bool note_code(iso_heap_t *heap)
{
    const iso_code_t *code = iso_code();
    if (heap->stacks > 0)
        return true;
    heap->code = iso_malloc(heap, iso_code_size(code));
    if (!heap->code)
        return false;
    memcpy(heap->code, code, iso_code_size(code));
    heap->code_digest = code->digest;
    return true;
}

static void forget_code(iso_heap_t *heap)
{
    iso_code_t *code = heap->code;
    if (heap->stacks > 0 || !code)
        return;
    heap->code = NULL;
    heap->code_digest = 0;
    iso_free(code);
}

iso_stack_t *iso_stack_create(iso_heap_t *heap, size_t size, const char *name)
{
    const iso_job_row_t *row = iso_job_row_of(heap);
    size_t guard = iso_os_page_size();
    if (!row || heap->flags & ISO_HEAP_SHARED)
        return refuse(heap, "a stack wants a heap of one thread at a time, that is here", EINVAL);
    if (size < LEAST_STACK)
        return refuse(heap, "a stack of less than 4096 bytes is too small", EINVAL);
    if (size > PTRDIFF_MAX / 2)
        return refuse(heap, "there is no room for a stack of that size", ENOMEM);
    size_t stack_at = guard + ((size + 63) & ~(size_t)63);
    if (iso_fault_want_stacks(row->job) != ISO_OK)
        return refuse(heap, "an overflow could not be told", ENOMEM);
    if (!note_code(heap))
        return NULL; /* as iso_malloc has left errno, which says no more either */
    char *low = iso_aligned_alloc(heap, ISO_UNIT_SIZE, stack_at + sizeof(iso_stack_t));
    if (!low) {
        forget_code(heap);
        errno = ENOMEM;
        return NULL;
    }
    iso_block_t block = iso_block_find(low, "iso_stack_create");
    if (block.span)
        block.span->stack = (uint32_t)stack_at;
    else
        block.slot->run_stack = stack_at;
    heap->stacks++;
    iso_stack_t *stack = (iso_stack_t *)(low + stack_at);
    *stack = (iso_stack_t){.low = low + guard, .sp = stack};
    snprintf(stack->name, sizeof stack->name, "%s", name ? name : "");
    iso_stack_guard_make(row->job, low);
    return stack;
}

void iso_stack_destroy(iso_stack_t *stack)
{
    if (stack)
        iso_free((char *)stack->low - iso_os_page_size());
}

void iso_stack_gone(const iso_block_t *block, const void *ptr)
{
    if (!iso_stack_at(block))
        return;
    iso_stack_guard_lift(iso_heap_job(block->heap), (char *)(uintptr_t)ptr);
    if (block->span)
        block->span->stack = 0;
    else
        block->slot->run_stack = 0;
    block->heap->stacks--;
    forget_code(block->heap);
}

/* ---- all of a heap ---- */

static bool walk_slot(iso_slot_t *slot, iso_stack_fn fn, void *arg)
{
    for (unsigned unit = 1; unit < ISO_UNITS_PER_SLOT; unit++) {
        const iso_span_t *span = &slot->spans[unit];
        if (span->kind != ISO_SPAN_MEDIUM)
            continue;
        if (span->stack && !fn((iso_stack_t *)(iso_unit_base(slot, unit) + span->stack), arg))
            return false;
        if (span->units > 0)
            unit += span->units - 1u;
    }
    return true;
}

static void walk(const iso_hold_t *hold, iso_stack_fn fn, void *arg)
{
    for (uint32_t e = 0; e < hold->extent_count && hold->heap->stacks > 0; e++) {
        const iso_extent_t *extent = &hold->extents[e];
        char *address = iso_space_slot_address(&hold->job->space, extent->first);
        if (extent->count & ISO_EXTENT_RUN) {
            const iso_slot_t *slot = iso_slot_checked(hold->heap, address);
            if (slot->run_stack &&
                !fn((iso_stack_t *)(address + slot->run_offset + slot->run_stack), arg))
                return;
            continue;
        }
        for (uint32_t i = 0; i < extent->count; i++)
            if (!walk_slot(iso_slot_checked(hold->heap, address + i * ISO_SLOT_SIZE), fn, arg))
                return;
    }
}

iso_status_t iso_stack_walk(const iso_heap_t *heap, iso_stack_fn fn, void *arg)
{
    const iso_hold_t *hold = iso_hold_find(NULL, heap);
    if (!hold || hold->state != ISO_HEAP_OWNED)
        return ISO_ERR_NOT_OWNER;
    walk(hold, fn, arg);
    return ISO_OK;
}

/* ---- a heap that moves ---- */

void iso_stack_freeze(const iso_hold_t *hold)
{
    for (uint32_t e = 0; e < hold->extent_count; e++)
        iso_stack_guard_lift_all(hold->job, hold->extents[e].first,
                                 iso_extent_slots(&hold->extents[e]));
}

static bool guard_again(iso_stack_t *stack, void *arg)
{
    iso_stack_guard_make(arg, (char *)stack->low - iso_os_page_size());
    return true;
}

void iso_stack_thaw(const iso_hold_t *hold)
{
    if (hold->heap->stacks == 0)
        return;
    iso_fault_want_stacks(hold->job); /* without it an overflow still ends the process */
    walk(hold, guard_again, hold->job);
}

iso_status_t iso_stack_check_arrived(const iso_heap_t *heap)
{
    char what[256];
    const iso_code_t *code = heap->code;
    if (heap->stacks == 0 || heap->code_digest == iso_code()->digest)
        return ISO_OK;
    if (!iso_heap_of(code) || code->count > ISO_CODE_OBJECTS_MAX ||
        ((uintptr_t)code & ISO_SLOT_MASK) + iso_code_size(code) > ISO_SLOT_SIZE)
        return ISO_ERR_INVALID;
    iso_code_differ(code, what, sizeof what);
    iso_log(&iso_job_row_of(heap)->job->logger, ISO_LOG_ERROR,
            "heap %p has stacks and cannot come here: %s", (const void *)heap, what);
    return ISO_ERR_CODE;
}
