/*
 * free.c - blocks: giving them back, and what else is asked by address.
 */
#include "core/block.h"
#include "core/hold.h"
#include "core/job.h"
#include "core/shared.h"

#define LIKELY(x) __builtin_expect(!!(x), 1)

static bool all_free(const uint64_t *words, uint32_t count)
{
    for (unsigned i = 0; i * 64 < count; i++)
        if (words[i] != iso_all_free(count, i))
            return false;
    return true;
}

static unsigned chunk_number(const char *chunk)
{
    return (unsigned)((uintptr_t)chunk >> 12) & (ISO_CHUNKS_PER_UNIT - 1);
}

/* What a bit that was just set may have changed: the span has room again, or its blocks are all free
 * and their memory goes. */
static __attribute__((noinline)) void after_free(const void *ptr)
{
    iso_slot_t *slot = iso_slot_of(ptr);
    iso_heap_t *heap = (iso_heap_t *)(uintptr_t)slot->heap;
    iso_span_t *span = &slot->spans[iso_unit_of(ptr)];
    char *chunk = iso_chunk_of(ptr);
    unsigned at = chunk_number(chunk);
    if (!(span->avail >> at & 1))
        iso_span_has_room(heap, span, at);
    if (span->kind == ISO_SPAN_TINY) {
        if (all_free((uint64_t *)chunk, span->bytes))
            iso_span_chunk_empty(heap, span, chunk);
    } else if (all_free(slot->bits[iso_unit_of(ptr)], span->bytes)) {
        iso_span_small_empty(heap, span);
    }
}

/* Every check, and every kind of block and heap. */
static __attribute__((noinline)) void free_checked(void *ptr)
{
    if (!ptr)
        return;
    iso_shared_t *shared = iso_shared_enter_at(ptr, "iso_free");
    iso_block_t block = iso_block_find(ptr, "iso_free");
    if (!block.span) {
        block.slot->magic = 0; /* a stale pointer to it finds no slot */
        iso_hold_shrink(iso_hold_find(NULL, block.heap), (char *)block.slot, block.slot->run_slots);
    } else if (block.word) {
        *block.word |= block.bit;
        after_free(ptr);
    } else {
        iso_span_units_give(block.heap, block.slot, iso_unit_of(ptr), block.span->units);
    }
    iso_shared_leave(shared);
}

/* Of two addresses, without a branch. */
static inline uintptr_t either(bool first, uintptr_t a, uintptr_t b)
{
    return b + ((a - b) & (0 - (uintptr_t)first));
}

/* The owner's path down to the first after_free. It looks at what iso_block_find looks at, but for the
 * slot's magic number, and leaves whatever is not as it should be to free_checked. TINY and SMALL are
 * not told apart by a branch: which of them the next block is cannot be foretold. All calls are
 * the last thing that is done, so that no register has to be saved. */
void iso_free(void *ptr)
{
    const iso_job_row_t *row = &iso_job_table[0];
    uintptr_t from_base = (uintptr_t)ptr - row->base;
    if (!LIKELY(from_base < atomic_load_explicit(&row->size, memory_order_acquire))) {
        free_checked(ptr);
        return;
    }
    uintptr_t entry =
        atomic_load_explicit(&row->table[from_base >> ISO_SLOT_SHIFT], memory_order_relaxed);
    iso_heap_t *heap = (iso_heap_t *)(entry + ISO_HEAP_OFFSET);
    if (!LIKELY(entry && !(entry & ISO_SLOT_MASK) && iso_heap_magic(heap) == ISO_HEAP_MAGIC)) {
        free_checked(
            ptr); /* no heap's, inside a large block, of a shared heap, or one that leaves */
        return;
    }
    iso_slot_t *slot = iso_slot_of(ptr);
    unsigned unit = iso_unit_of(ptr);
    iso_span_t *span = &slot->spans[unit];
    const iso_class_t *class = &iso_classes[span->klass];
    unsigned kind = span->kind;
    const char *chunk = iso_chunk_of(ptr);
    bool tiny = kind == ISO_SPAN_TINY;
    uintptr_t base =
        either(tiny, (uintptr_t)chunk + class->first, (uintptr_t)iso_unit_base(slot, unit));
    uint64_t *words = (uint64_t *)either(tiny, (uintptr_t)chunk, (uintptr_t)slot->bits[unit]);
    uint32_t offset = (uint32_t)((uintptr_t)ptr - base);
    uint32_t index = (uint32_t)((uint64_t)offset * class->reciprocal >> 32);
    unsigned at = chunk_number(chunk);
    if (!LIKELY((kind == ISO_SPAN_TINY) | (kind == ISO_SPAN_SMALL)) ||
        !LIKELY((span->live >> at & 1) & (index < span->bytes) & (index * class->size == offset))) {
        free_checked(ptr);
        return;
    }
    uint64_t free = words[index / 64], bit = UINT64_C(1) << index % 64;
    if (!LIKELY(!(free & bit))) {
        free_checked(ptr);
        return;
    }
    free |= bit;
    words[index / 64] = free;
    if (!LIKELY(span->avail >> at & 1) || free == UINT64_MAX ||
        free == UINT64_MAX >> (-span->bytes & 63)) /* as it is when all are free */
        after_free(ptr);
}

size_t iso_usable_size(const void *ptr)
{
    if (!ptr)
        return 0;
    iso_shared_t *shared = iso_shared_enter_at(ptr, "iso_usable_size");
    size_t size = iso_block_find(ptr, "iso_usable_size").size;
    iso_shared_leave(shared);
    return size;
}

iso_heap_t *iso_heap_of(const void *ptr)
{
    const iso_job_row_t *row = iso_job_row_of(ptr);
    if (!row)
        return NULL;
    uintptr_t word = atomic_load_explicit(
        &row->table[((uintptr_t)ptr - row->base) >> ISO_SLOT_SHIFT], memory_order_relaxed);
    return word ? (iso_heap_t *)(iso_slots_word_heap_slot(word) + ISO_HEAP_OFFSET) : NULL;
}

bool iso_in_range(const void *ptr)
{
    return iso_job_row_of(ptr) != NULL;
}
