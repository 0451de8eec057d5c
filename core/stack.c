/* stack.c - see stack.h. */
#include "core/stack.h"
#include "core/canary.h"
#include "core/depth.h"
#include "core/fault.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/os.h"
#include "core/stack_guard.h"
#include "core/unit.h"
#include "core/verify.h"
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

iso_stack_t *iso_stack_create(iso_heap_t *heap, size_t size, const char *name)
{
    const iso_job_row_t *row = iso_job_row_of(heap);
    size_t guard = iso_os_page_size();
    const iso_hold_t *hold = row ? iso_hold_find(row->job, heap) : NULL;
    if (!hold || hold->state != ISO_HEAP_OWNED || heap->flags & ISO_HEAP_SHARED)
        return refuse(heap, "a stack wants a heap of one thread at a time, that is here", EINVAL);
    if (size < LEAST_STACK)
        return refuse(heap, "a stack of less than 4096 bytes is too small", EINVAL);
    if (size > PTRDIFF_MAX / 2)
        return refuse(heap, "there is no room for a stack of that size", ENOMEM);
    /* it ends with a page, so that what is used of it is in as few of them as can be */
    size_t end = (guard + size + sizeof(iso_stack_t) + guard - 1) & ~(guard - 1);
    size_t stack_at = end - sizeof(iso_stack_t);
    if (iso_fault_want_stacks(row->job) != ISO_OK)
        return refuse(heap, "an overflow could not be told", ENOMEM);
    char *low = iso_aligned_alloc(heap, ISO_UNIT_SIZE, end);
    if (!low) {
        errno = ENOMEM;
        return NULL;
    }
    iso_block_t block = iso_block_find(low, "iso_stack_create");
    if (block.span)
        block.span->stack = (uint32_t)stack_at;
    else
        block.slot->run_stack = stack_at;
    if (heap->stacks++ == 0) { /* from now on it depends on the process that uses it */
        iso_stack_code_note(heap);
        heap->canary = iso_canary();
    }
    iso_stack_t *stack = (iso_stack_t *)(low + stack_at);
    *stack = (iso_stack_t){.low = low + guard, .sp = stack};
    snprintf(stack->name, sizeof stack->name, "%s", name ? name : "");
    iso_stack_guard_make(row->job, low);
    return stack;
}

static const char where_it_begins[] = "where a stack begins";

void iso_stack_destroy(iso_stack_t *stack)
{
    if (!stack)
        return;
    char *low = (char *)stack->low - iso_os_page_size();
    iso_block_t block = iso_block_find(low, "iso_stack_destroy");
    uint64_t stack_at = iso_stack_at(&block);
    if (!stack_at || low + stack_at != (char *)stack)
        iso_heap_damaged(block.heap, stack, where_it_begins);
    iso_free(low);
}

void iso_stack_gone(const iso_block_t *block, const void *ptr)
{
    if (!iso_stack_at(block))
        return;
    iso_job_t *job = iso_heap_job(block->heap);
    iso_stack_guard_lift(job, (char *)(uintptr_t)ptr);
    iso_job_lock(job); /* who gave a grant may have kept the guard, where now anything may be */
    iso_hold_find(job, block->heap)->extents_version++;
    iso_job_unlock(job);
    if (block->span)
        block->span->stack = 0;
    else
        block->slot->run_stack = 0;
    if (--block->heap->stacks == 0)
        iso_stack_code_forget(block->heap);
}

/* ---- all of a heap ---- */

/* Of one stack: its block, and where in it its iso_stack_t is. false: no more of them. */
typedef bool (*block_fn)(char *block, uint64_t stack_at, void *arg);

typedef struct walk {
    const iso_heap_t *heap;
    block_fn fn;
    void *arg;
    uint64_t left; /* stacks to visit: behind the last one nothing is looked at */
    bool all;      /* as many as there are, and each of their units */
    bool stopped;
    const void *unsound; /* metadata that cannot be right; nothing of it was followed */
} walk_t;

/* A block that the slot's metadata call a stack, and that is in the slots for certain. */
static void visit(walk_t *walk, const void *metadata, char *block, uint64_t stack_at)
{
    if ((uintptr_t)block % ISO_UNIT_SIZE != 0 || stack_at <= iso_os_page_size())
        walk->unsound = metadata;
    else
        walk->stopped = !walk->fn(block, stack_at, walk->arg) || --walk->left == 0;
}

static void walk_run(walk_t *walk, const iso_slot_t *slot, uint32_t slots)
{
    if (slot->run_slots != slots || !iso_run_is_sound(slot))
        walk->unsound = slot;
    else if (slot->run_stack)
        visit(walk, slot, (char *)(uintptr_t)slot + slot->run_offset, slot->run_stack);
}

/* Units that the slot calls free are passed over: that no stack is in one of them is verified where the heap is. */
static void walk_slot(walk_t *walk, const iso_slot_t *slot)
{
    uint32_t used = iso_slot_used(slot) & ~1u;
    while (used && !walk->stopped && !walk->unsound) {
        const unsigned unit = (unsigned)__builtin_ctz(used);
        const iso_span_t *span = &slot->spans[unit];
        used &= used - 1;
        if (span->kind != ISO_SPAN_MEDIUM)
            continue;
        if (!(walk->all ? iso_medium_is_sound(slot, unit) : iso_medium_is_inside(slot, unit))) {
            walk->unsound = span;
            return;
        }
        if (span->stack)
            visit(walk, span, iso_unit_base(slot, unit), span->stack);
        const unsigned next = unit + span->units;
        used = next < ISO_UNITS_PER_SLOT ? used >> next << next : 0;
    }
}

static void walk_extent(walk_t *walk, const iso_space_t *space, const iso_extent_t *extent)
{
    uint32_t slots = iso_extent_slots(extent);
    bool is_run = extent->count & ISO_EXTENT_RUN;
    for (uint32_t i = 0; i < (is_run ? 1 : slots) && !walk->stopped && !walk->unsound; i++) {
        const iso_slot_t *slot =
            (const iso_slot_t *)iso_space_slot_address(space, extent->first + i);
        if (!iso_check_holds(slot) || slot->heap != (uintptr_t)walk->heap)
            walk->unsound = slot;
        else if (is_run)
            walk_run(walk, slot, slots);
        else
            walk_slot(walk, slot);
    }
}

/* As many as the heap says; or all that there are. NULL, or metadata that cannot be right: what a heap says of its stacks
 * may be what another rank wrote. */
static const void *walk_slots(const iso_heap_t *heap, const iso_extent_t *extents, uint32_t count,
                              bool all, block_fn fn, void *arg)
{
    walk_t walk = {
        .heap = heap, .fn = fn, .arg = arg, .left = all ? UINT64_MAX : heap->stacks, .all = all};
    const iso_space_t *space = &iso_job_row_of(heap)->job->space;
    for (uint32_t e = 0; e < count && heap->stacks > 0 && !walk.stopped && !walk.unsound; e++)
        walk_extent(&walk, space, &extents[e]);
    return walk.unsound;
}

/* Of a heap that was found sound before: it has as many as it says. A thread that is alone in its heap goes to and fro
 * without a look at the units behind it. */
static void walk(const iso_hold_t *hold, block_fn fn, void *arg)
{
    const void *unsound = walk_slots(hold->heap, hold->extents, hold->extent_count, false, fn, arg);
    if (unsound)
        iso_heap_damaged(hold->heap, unsound, "the block of a stack");
}

/* Does the stack know where it begins? */
static bool is_whole(const char *block, uint64_t stack_at)
{
    return ((const iso_stack_t *)(block + stack_at))->low == block + iso_os_page_size();
}

/* And has its name an end, and nobody runs on it? */
static bool may_come(const char *block, uint64_t stack_at)
{
    const iso_stack_t *stack = (const iso_stack_t *)(block + stack_at);
    return memchr(stack->name, 0, sizeof stack->name) && !iso_stack_runs(stack);
}

typedef struct looking {
    iso_stack_look_fn fn;
    void *arg;
} looking_t;

static bool look(char *block, uint64_t stack_at, void *arg)
{
    const looking_t *looking = arg;
    return looking->fn((const iso_stack_t *)(block + stack_at), looking->arg);
}

void iso_stack_each(const iso_hold_t *hold, iso_stack_look_fn fn, void *arg)
{
    looking_t looking = {fn, arg};
    walk(hold, look, &looking);
}

typedef struct callers {
    const iso_heap_t *heap;
    iso_stack_fn fn;
    void *arg;
} callers_t;

static bool call(char *block, uint64_t stack_at, void *arg)
{
    const callers_t *callers = arg;
    iso_stack_t *stack = (iso_stack_t *)(block + stack_at);
    if (!is_whole(block, stack_at))
        iso_heap_damaged(callers->heap, stack, where_it_begins);
    return callers->fn(stack, callers->arg);
}

iso_status_t iso_stack_walk(const iso_heap_t *heap, iso_stack_fn fn, void *arg)
{
    callers_t callers = {heap, fn, arg};
    const iso_hold_t *hold = iso_hold_find(NULL, heap);
    if (!hold || hold->state != ISO_HEAP_OWNED)
        return ISO_ERR_NOT_OWNER;
    iso_depth_enter();
    walk(hold, call, &callers);
    iso_depth_leave();
    return ISO_OK;
}

/* ---- a heap that moves ---- */

void iso_stack_freeze(const iso_hold_t *hold)
{
    for (uint32_t e = 0; e < hold->extent_count; e++)
        iso_stack_guard_keep(hold->job, hold->extents[e].first,
                             iso_extent_slots(&hold->extents[e]));
}

static bool guard_again(char *block, uint64_t stack_at, void *arg)
{
    (void)stack_at;
    iso_stack_guard_make(arg, block);
    return true;
}

static bool change_canaries(char *block, uint64_t stack_at, void *arg)
{
    const iso_heap_t *heap = arg;
    const size_t from = (iso_stack_unused(block, stack_at) + 7) & ~(size_t)7;
    iso_canary_replace((uint64_t *)(block + from), (const uint64_t *)(block + stack_at),
                       heap->canary, iso_canary());
    return true;
}

void iso_stack_thaw(const iso_hold_t *hold)
{
    iso_heap_t *heap = hold->heap;
    if (heap->stacks == 0)
        return;
    iso_fault_want_stacks(hold->job); /* without it an overflow still ends the process */
    if (heap->canary != iso_canary()) {
        walk(hold, change_canaries, heap);
        heap->canary = iso_canary();
    }
    if (iso_stack_guard_count(hold->job, hold->extents, hold->extent_count) < heap->stacks)
        walk(hold, guard_again, hold->job);
}

typedef struct listing {
    iso_runs_t *idle;
    bool failed;
} listing_t;

/* The unit that the used part begins in is in a run. */
static bool list_idle(char *block, uint64_t stack_at, void *arg)
{
    listing_t *listing = arg;
    size_t end = iso_stack_unused(block, stack_at) & ~(ISO_UNIT_SIZE - 1);
    if (end == 0)
        return true;
    listing->failed = !iso_runs_add(listing->idle, (uintptr_t)block, end);
    return !listing->failed;
}

bool iso_stack_list_idle(const iso_hold_t *hold, iso_runs_t *idle)
{
    listing_t listing = {idle, false};
    walk(hold, list_idle, &listing);
    return !listing.failed;
}

static bool count_whole(char *block, uint64_t stack_at, void *arg)
{
    *(uint64_t *)arg += is_whole(block, stack_at) && may_come(block, stack_at);
    return true;
}

iso_status_t iso_stack_check_arrived(const iso_heap_t *heap, const iso_extent_t *extents,
                                     uint32_t count)
{
    uint64_t whole = 0;
    iso_job_t *job = iso_job_row_of(heap)->job;
    if (iso_stack_guard_has_kept(job, extents,
                                 count)) { /* may be another heap's, of earlier days */
        walk_slots(heap, extents, count, false, guard_again, job);
        iso_stack_guard_lift_kept(job, extents, count);
    }
    if (heap->stacks == 0)
        return ISO_OK;
    if (walk_slots(heap, extents, count, true, count_whole, &whole) || whole != heap->stacks)
        return ISO_ERR_INVALID;
    return iso_stack_code_check(job, heap);
}
