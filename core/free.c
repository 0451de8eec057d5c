/*
 * free.c - blocks: giving them back, and what else is asked by address.
 */
#include "core/block.h"
#include "core/hold.h"
#include "core/job.h"

static bool all_free(const uint64_t *words, uint32_t count)
{
    for (unsigned i = 0; i * 64 < count; i++)
        if (words[i] != iso_all_free(count, i))
            return false;
    return true;
}

static void free_tiny(iso_block_t *block, const void *ptr)
{
    char *chunk = iso_chunk_of(ptr);
    unsigned at = (unsigned)((uintptr_t)chunk >> 12) & (ISO_CHUNKS_PER_UNIT - 1);
    uint64_t now = *block->word |= block->bit;
    uint32_t count = iso_classes[block->span->klass].count;
    if (!(block->span->avail >> at & 1))
        iso_span_has_room(block->heap, block->span, at);
    if (now == iso_all_free(count, (unsigned)(block->word - (uint64_t *)chunk)) &&
        all_free((uint64_t *)chunk, count))
        iso_span_chunk_empty(block->heap, block->span, chunk);
}

static void free_small(iso_block_t *block, const void *ptr)
{
    unsigned unit = iso_unit_of(ptr);
    uint64_t *words = block->slot->bits[unit];
    uint32_t count = iso_small_count(block->span->klass, unit);
    uint64_t now = *block->word |= block->bit;
    if (!block->span->listed)
        iso_span_has_room(block->heap, block->span, 0);
    if (now == iso_all_free(count, (unsigned)(block->word - words)) && all_free(words, count))
        iso_span_small_empty(block->heap, block->span);
}

void iso_free(void *ptr)
{
    if (!ptr)
        return;
    iso_block_t block = iso_block_find(ptr, "iso_free");
    if (!block.span) {
        block.slot->magic = 0; /* a stale pointer to it finds no slot */
        iso_hold_shrink(iso_hold_find(NULL, block.heap), (char *)block.slot, block.slot->run_slots);
    } else if (block.span->kind == ISO_SPAN_TINY) {
        free_tiny(&block, ptr);
    } else if (block.span->kind == ISO_SPAN_SMALL) {
        free_small(&block, ptr);
    } else {
        iso_span_units_give(block.heap, block.slot, iso_unit_of(ptr), block.span->units);
    }
}

size_t iso_usable_size(const void *ptr)
{
    return ptr ? iso_block_find(ptr, "iso_usable_size").size : 0;
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
