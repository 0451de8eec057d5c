/*
 * malloc.c - blocks: getting them. The owner's path is iso_malloc down to its first return: find the
 * class, take the lowest free bit, multiply; no lock, no call. All else is rare.
 */
#include "core/block.h"
#include "core/hold.h"
#include "core/huge.h"
#include "core/log.h"
#include "core/movable.h"
#include "core/poison.h"
#include "core/protect.h"
#include "core/shared.h"
#include "core/stack.h"
#include "core/verify.h"
#include <errno.h>
#include <string.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)

static void *no_room(void)
{
    errno = ENOMEM;
    return NULL;
}

/* Not on the owner's path: a heap that is frozen, or shared, has no current block in itself. Of a shared
 * heap it takes the lock; NULL: the heap is the caller's alone. */
static iso_shared_t *enter(const iso_heap_t *heap)
{
    uint64_t magic = iso_heap_magic(heap);
    if (LIKELY(magic == ISO_HEAP_MAGIC))
        return NULL;
    if (magic == ISO_HEAP_MAGIC_SHARED)
        return iso_shared_enter(heap, "iso_malloc");
    if (magic == ISO_HEAP_MAGIC_FROZEN)
        iso_fatal("iso_malloc: heap %p is migrating, or has left", (const void *)heap);
    iso_fatal("iso_malloc: %p is no heap, or its header is damaged", (const void *)heap);
}

static inline bool has_block(const iso_current_t *current)
{
    return (*current->word & current->blocks) != 0;
}

static inline void *take(const iso_heap_t *heap, iso_current_t *current)
{
    uint64_t bits = *current->word;
    if (!LIKELY(*current->check == current->expected))
        iso_check_failed(heap, current->check);
    unsigned index = (unsigned)__builtin_ctzll(bits & current->blocks);
    *current->word = bits & ~(UINT64_C(1) << index);
    return current->base + (int64_t)index * current->step;
}

static void *malloc_class(iso_heap_t *heap, unsigned klass, size_t size)
{
    iso_shared_t *shared = enter(heap);
    iso_current_t *current = shared ? &shared->current[klass] : &heap->current[klass];
    bool found = has_block(current) || iso_span_refill(heap, klass, current);
    void *block = found ? take(heap, current) : no_room();
    if (iso_poison_active) { /* the next one comes here again */
        iso_span_let_go(heap, klass, current);
        iso_poison_block_new(heap, block, size);
    }
    iso_shared_leave(shared);
    return block;
}

/* A tool looks on: a class with bytes to spare that aligns as the usual one does; ISO_CLASS_COUNT: none. */
static unsigned class_with_gap(size_t size, size_t alignment)
{
    if ((size & (size - 1)) == 0 && size > alignment && size <= ISO_CHUNK_SIZE)
        alignment = size;
    unsigned klass = iso_class_of(size);
    while (klass < ISO_CLASS_COUNT && (iso_classes[klass].size < size + ISO_POISON_GAP ||
                                       iso_classes[klass].size % alignment != 0))
        klass++;
    return klass;
}

/* size is at most ISO_MEDIUM_MAX. All but blocks of a whole slot are aligned to a unit. With room behind it to
 * grow to `capacity`, where there is such a place. */
static void *malloc_medium(iso_heap_t *heap, size_t size, size_t capacity)
{
    size_t bytes = (size + 15) & ~(size_t)15;
    unsigned unit, count = (unsigned)((bytes + ISO_UNIT_SIZE - 1) >> ISO_UNIT_SHIFT);
    size_t room = (capacity + ISO_UNIT_SIZE - 1) >> ISO_UNIT_SHIFT;
    if (room < count || count == ISO_UNITS_PER_SLOT)
        room = count;
    else if (room >= ISO_UNITS_PER_SLOT)
        room = ISO_UNITS_PER_SLOT - 1;
    iso_slot_t *slot = iso_units_take(heap, count, (unsigned)room, false, &unit);
    if (!slot)
        return no_room();
    uint32_t mask = (uint32_t)((UINT64_C(1) << (unit + count)) - (UINT64_C(1) << unit));
    if (mask & ~1u)
        iso_retain_units_use(iso_heap_job(heap), slot, mask & ~1u);
    iso_span_t *span = &slot->spans[unit];
    iso_span_reset(span, ISO_SPAN_MEDIUM, ISO_CLASS_NONE, (uint8_t)count);
    span->bytes = (uint32_t)bytes;
    for (unsigned i = 1; i < count; i++)
        iso_span_reset(&span[i], ISO_SPAN_REST, ISO_CLASS_NONE, (uint8_t)i);
    return iso_unit_base(slot, unit);
}

/* A run of slots; capacity beyond size costs addresses only. */
static void *malloc_large(iso_heap_t *heap, size_t size, size_t capacity, bool aligned)
{
    size_t offset = aligned ? ISO_SLOT_SIZE : ISO_SLOT_HEADER, bytes = (size + 15) & ~(size_t)15;
    if (capacity < bytes)
        capacity = bytes;
    uint64_t count = (capacity + offset + ISO_SLOT_SIZE - 1) >> ISO_SLOT_SHIFT;
    iso_hold_t *hold = iso_hold_find(NULL, heap);
    char *address;
    uint32_t warm;
    if (count > UINT32_MAX >> 2 || !hold ||
        iso_hold_grow(hold, (uint32_t)count, &address, &warm) != ISO_OK)
        return no_room();
    iso_slot_t *slot = (iso_slot_t *)address;
    memset(slot, 0, sizeof *slot); /* no unit of it is in a span */
    slot->check = iso_check_of(slot, ISO_CHECK_KEY);
    slot->heap = (uintptr_t)heap;
    slot->run_bytes = bytes;
    slot->run_slots = (uint32_t)count;
    slot->run_offset = (uint32_t)offset;
    return address + offset;
}

/* Blocks that are of no class, which are aligned to ISO_CHUNK_SIZE in any case. Large ones have room to
 * grow to `capacity`, medium ones where there is. */
static void *malloc_unclassed(iso_heap_t *heap, size_t size, size_t capacity, size_t alignment)
{
    iso_shared_t *shared = enter(heap);
    bool aligned = alignment > ISO_CHUNK_SIZE; /* to a unit, or a slot */
    size_t medium = ISO_MEDIUM_MAX;
    if (aligned)
        medium = alignment <= ISO_UNIT_SIZE ? (ISO_UNITS_PER_SLOT - 1) * ISO_UNIT_SIZE : 0;
    void *block = NULL;
    if (size <= medium)
        block = malloc_medium(heap, size, capacity);
    else if (size <= PTRDIFF_MAX)
        block = malloc_large(heap, size, capacity, aligned);
    else
        block = no_room();
    iso_shared_leave(shared);
    return block;
}

/* A tool looks on: every block, of any size and alignment, with a gap behind it. */
static __attribute__((noinline)) void *malloc_watched(iso_heap_t *heap, size_t size,
                                                      size_t alignment)
{
    if (size > PTRDIFF_MAX)
        return no_room();
    if (size <= ISO_CLASS_MAX && alignment <= ISO_CHUNK_SIZE) {
        unsigned klass = class_with_gap(size, alignment);
        if (klass < ISO_CLASS_COUNT)
            return malloc_class(heap, klass, size);
    }
    size_t padded = size + ISO_POISON_GAP;
    void *block = malloc_unclassed(heap, padded, padded, alignment);
    iso_poison_block_new(heap, block, size);
    return block;
}

static __attribute__((noinline)) void *malloc_big(iso_heap_t *heap, size_t size, size_t capacity,
                                                  size_t alignment)
{
    return iso_poison_active ? malloc_watched(heap, size, alignment)
                             : malloc_unclassed(heap, size, capacity, alignment);
}

/* iso_malloc finds no current block: the next one has to be looked for. */
static __attribute__((noinline)) void *malloc_small(iso_heap_t *heap, unsigned klass, size_t size)
{
    if (iso_poison_active)
        return malloc_watched(heap, size, 1);
    if (!LIKELY(iso_heap_magic(heap) == ISO_HEAP_MAGIC))
        return malloc_class(heap, klass, size);
    iso_current_t *current = &heap->current[klass]; /* as malloc_class, of the heap's one user */
    return iso_span_refill(heap, klass, current) ? take(heap, current) : no_room();
}

void *iso_malloc(iso_heap_t *heap, size_t size)
{
    unsigned klass;
    if (LIKELY(size <= 1024))
        klass = iso_class_of_steps[(size + 15) >> 4];
    else if (size <= ISO_CLASS_MAX)
        klass = iso_class_of(size);
    else
        return malloc_big(heap, size, size, 1);
    if (LIKELY(has_block(&heap->current[klass])))
        return take(heap, &heap->current[klass]);
    return malloc_small(heap, klass, size);
}

void *iso_calloc(iso_heap_t *heap, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return no_room();
    void *block = iso_malloc(heap, bytes);
    if (!block)
        return NULL;
    if (bytes > ISO_CLASS_MAX)
        iso_huge_populate(iso_heap_job(heap), block, bytes);
    /* always: whatever the pages have seen, here or at other ranks, the block is zero */
    return memset(block, 0, bytes);
}

void *iso_aligned_alloc(iso_heap_t *heap, size_t alignment, size_t size)
{
    if (alignment == 0 || alignment & (alignment - 1) || alignment > ISO_SLOT_SIZE) {
        errno = EINVAL;
        return NULL;
    }
    if (size > PTRDIFF_MAX)
        return no_room();
    if (size == 0)
        size = 1; /* a block of its own needs a byte of its own */
    if (alignment <= 16)
        return iso_malloc(heap, size);
    if (iso_poison_active)
        return malloc_watched(heap, size, alignment);
    if (alignment <= ISO_CHUNK_SIZE && size <= ISO_CLASS_MAX)
        /* blocks of a class whose size is a multiple of the alignment have it */
        for (unsigned klass = iso_class_of(size); klass < ISO_CLASS_COUNT; klass++)
            if (iso_classes[klass].size % alignment == 0)
                return iso_malloc(heap, iso_classes[klass].size);
    return malloc_big(heap, size, size, alignment);
}

/* ---- realloc ---- */

static bool grow_medium(iso_block_t *block, size_t bytes)
{
    iso_span_t *span = block->span;
    unsigned unit = (unsigned)(span - block->slot->spans);
    size_t lost = unit ? 0 : ISO_SLOT_HEADER;
    size_t count = (bytes + lost + ISO_UNIT_SIZE - 1) >> ISO_UNIT_SHIFT;
    if (count > span->units) {
        unsigned more = (unsigned)count - span->units, first = unit + span->units;
        if (count > ISO_UNITS_PER_SLOT || !iso_units_extend(block->heap, block->slot, first, more))
            return false;
        iso_retain_units_use(iso_hold_find(NULL, block->heap)->job, block->slot,
                             (uint32_t)((UINT64_C(1) << (first + more)) - (UINT64_C(1) << first)));
        for (unsigned i = span->units; i < count; i++)
            iso_span_reset(&span[i], ISO_SPAN_REST, ISO_CLASS_NONE, (uint8_t)i);
        span->units = (uint8_t)count;
    }
    span->bytes = (uint32_t)bytes;
    return true;
}

static void shrink_medium(iso_block_t *block, size_t bytes)
{
    iso_span_t *span = block->span;
    unsigned unit = (unsigned)(span - block->slot->spans);
    size_t lost = unit ? 0 : ISO_SLOT_HEADER;
    unsigned count = (unsigned)((bytes + lost + ISO_UNIT_SIZE - 1) >> ISO_UNIT_SHIFT);
    unsigned before = span->units;
    span->bytes = (uint32_t)bytes;
    span->units = (uint8_t)count;
    if (count < before)
        iso_units_give(block->heap, block->slot, unit + count, before - count);
}

/* Can the block be made of this size where it is? */
static bool resize(iso_block_t *block, size_t size)
{
    size_t bytes = (size + 15) & ~(size_t)15;
    if (iso_poison_active)
        return false; /* so that the old address is one that must not be used */
    if (block->word)  /* keeps its class unless it would waste half of it */
        return size <= block->size && size > block->size / 2;
    if (!block->span) {
        iso_slot_t *slot = block->slot;
        size_t capacity = slot->run_slots * ISO_SLOT_SIZE - slot->run_offset;
        if (bytes > capacity || bytes < capacity / 4 || size <= ISO_CLASS_MAX)
            return false;
        slot->run_bytes = bytes;
        return true;
    }
    if (size <= ISO_CLASS_MAX)
        return false;
    if (bytes > block->size)
        return bytes <= ISO_MEDIUM_MAX && grow_medium(block, bytes);
    shrink_medium(block, bytes);
    return true;
}

void *iso_realloc(iso_heap_t *heap, void *ptr, size_t size)
{
    if (!ptr)
        return iso_malloc(heap, size);
    iso_shared_t *shared = iso_shared_enter_at(ptr, "iso_realloc");
    iso_block_t block = iso_block_find(ptr, "iso_realloc");
    if (heap && heap != block.heap)
        iso_fatal("iso_realloc(%p): the block is of heap %p, not of heap %p", ptr,
                  (void *)block.heap, (void *)heap);
    if (iso_stack_at(&block))
        iso_fatal("iso_realloc(%p): heap %p: the block is a stack", ptr, (void *)block.heap);
    bool done = size <= PTRDIFF_MAX && resize(&block, size);
    if (done)
        iso_protect_end(&block, ptr);
    iso_shared_leave(shared);
    const bool movable = iso_movable_is(block.heap, ptr);
    if (done && movable)
        iso_movable_set(block.heap, ptr, size);
    if (done)
        return ptr;
    size_t keep = size < block.size ? size : block.size;
    /* a block that grows gets room to grow into: addresses, not memory */
    void *moved =
        size > ISO_CLASS_MAX && size > block.size && !iso_poison_active && !movable
            ? malloc_big(block.heap, size, size > ISO_MEDIUM_MAX ? size + size / 2 : 2 * size, 1)
            : NULL;
    if (movable)
        moved = iso_movable_more(block.heap, size);
    else if (!moved) /* not wanted, or no room for that */
        moved = iso_malloc(block.heap, size);
    if (!moved)
        return NULL;
    shared = iso_shared_enter_at(ptr, "iso_realloc");
    iso_protect_end(&block, ptr); /* it is read, and freed */
    iso_shared_leave(shared);
    iso_poison_block_open(ptr, keep);
    memcpy(moved, ptr, keep);
    if (movable)
        iso_movable_set(block.heap, moved, size); /* so that the heap stays */
    iso_free(ptr);
    return moved;
}
