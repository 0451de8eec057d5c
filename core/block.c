/* block.c - see block.h. */
#include "core/block.h"
#include "core/job.h"
#include "core/log.h"
#include "core/verify.h"

_Noreturn static void no_block(const iso_heap_t *heap, const void *ptr, const char *what,
                               const char *why)
{
    iso_fatal("%s(%p): heap %p: %s", what, ptr, (const void *)heap, why);
}

/* Which heap: not looking into any heap's memory before the slot table has named one. */
static iso_heap_t *heap_of(const void *ptr, const char *what, uint32_t *distance_p)
{
    const iso_job_row_t *row = iso_job_row_of(ptr);
    if (!row)
        iso_fatal("%s(%p): the address is in no iso space: it did not come from iso_malloc", what,
                  ptr);
    uintptr_t word = atomic_load_explicit(
        &row->table[((uintptr_t)ptr - row->base) >> ISO_SLOT_SHIFT], memory_order_relaxed);
    if (!word)
        iso_fatal("%s(%p): no heap at this rank has the address: its heap has left, or the block "
                  "was freed with its slot",
                  what, ptr);
    iso_heap_t *heap = (iso_heap_t *)(iso_slots_word_heap_slot(word) + ISO_HEAP_OFFSET);
    uint64_t magic = iso_heap_magic(heap);
    if (magic == ISO_HEAP_MAGIC_FROZEN)
        no_block(heap, ptr, what, "the heap is migrating, or has left");
    if (magic != ISO_HEAP_MAGIC && magic != ISO_HEAP_MAGIC_SHARED)
        iso_heap_damaged(heap, heap, "the heap's header");
    *distance_p = iso_slots_word_distance(word);
    return heap;
}

static const char in_block[] = "the address is not the start of a block, but inside of one or of "
                               "the heap's metadata";
static const char freed[] = "the block is free already (double free, or use after free)";

/* `before`: bits before those of the blocks. */
static void find_bit(iso_block_t *block, const void *ptr, size_t before, const char *what)
{
    unsigned klass = block->span->klass;
    uint64_t number;
    if (!iso_class_number(klass, (uintptr_t)ptr, &number) ||
        (number >> 32) - before >= iso_classes[klass].count)
        no_block(block->heap, ptr, what, in_block);
    block->word = iso_block_word(klass, (uintptr_t)ptr, number);
    block->bit = iso_block_bit(number);
    block->size = iso_classes[klass].size;
}

static void find_tiny(iso_block_t *block, const void *ptr, const char *what)
{
    iso_chunk_t *chunk = iso_chunk_of(ptr);
    if (!iso_class_is_tiny(block->span->klass))
        iso_heap_damaged(block->heap, block->span, "a span's class");
    if (!(iso_unit_chunks(block->slot, iso_unit_of(ptr)) >> iso_chunk_number(chunk) & 1))
        no_block(block->heap, ptr, what, in_block);
    if (!(block->span->live >> iso_chunk_number(chunk) & 1))
        no_block(block->heap, ptr, what, freed);
    iso_check_chunk(block->heap, block->span, chunk);
    find_bit(block, ptr, 8 * offsetof(iso_chunk_t, bits), what);
}

static void find_small(iso_block_t *block, const void *ptr, const char *what)
{
    if (!iso_class_is_small(block->span->klass))
        iso_heap_damaged(block->heap, block->span, "a span's class");
    if (block->span->key != ISO_CHECK_KEY)
        iso_heap_damaged(block->heap, block->span, "a span's key");
    find_bit(block, ptr, 8 * ISO_SMALL_BITS(iso_classes[block->span->klass].size), what);
}

static void find_large(iso_block_t *block, uint32_t distance, const void *ptr, const char *what)
{
    block->slot = (iso_slot_t *)((char *)iso_slot_of(ptr) - (size_t)distance * ISO_SLOT_SIZE);
    const iso_slot_t *slot = iso_slot_checked(block->heap, block->slot);
    if (!slot->run_slots || !iso_run_is_sound(slot))
        iso_heap_damaged(block->heap, slot, "the header of a large block");
    if ((const char *)ptr != (char *)block->slot + block->slot->run_offset)
        no_block(block->heap, ptr, what, in_block);
    block->size = block->slot->run_bytes;
}

iso_block_t iso_block_find(const void *ptr, const char *what)
{
    uint32_t distance;
    iso_block_t block = {.heap = heap_of(ptr, what, &distance)};
    block.slot = iso_slot_of(ptr);
    if (distance > 0 || iso_slot_checked(block.heap, ptr)->run_slots) {
        find_large(&block, distance, ptr, what);
        return block;
    }
    unsigned unit = iso_unit_of(ptr);
    block.span = &block.slot->spans[unit];
    switch (block.span->kind) {
    case ISO_SPAN_TINY:
        find_tiny(&block, ptr, what);
        break;
    case ISO_SPAN_SMALL:
        find_small(&block, ptr, what);
        break;
    case ISO_SPAN_MEDIUM:
        if (!iso_medium_is_sound(block.slot, unit))
            iso_heap_damaged(block.heap, block.span, "the span of a medium block");
        if ((const char *)ptr != iso_unit_base(block.slot, unit))
            no_block(block.heap, ptr, what, in_block);
        block.size = block.span->bytes;
        break;
    case ISO_SPAN_FREE:
        if (!(atomic_load_explicit(&block.slot->free_units, memory_order_relaxed) >> unit & 1))
            iso_heap_damaged(block.heap, block.span, "a unit in use has no span");
        no_block(block.heap, ptr, what, freed);
    case ISO_SPAN_REST:
        no_block(block.heap, ptr, what, in_block);
    default:
        iso_heap_damaged(block.heap, block.span, "a span is of no kind");
    }
    if (block.word && *block.word & block.bit)
        no_block(block.heap, ptr, what, freed);
    return block;
}
