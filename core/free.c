/*
 * free.c - blocks: giving them back, and what else is asked by address.
 */
#include "core/block.h"
#include "core/direct.h"
#include "core/hold.h"
#include "core/job.h"
#include "core/movable.h"
#include "core/poison.h"
#include "core/protect.h"
#include "core/shared.h"
#include "core/stack.h"

#define LIKELY(x) __builtin_expect(!!(x), 1)

/* What a bit that was just set may have changed: the span has room again, or its blocks are all free
 * and their memory goes. */
static __attribute__((noinline)) void after_free(const void *ptr)
{
    iso_slot_t *slot = iso_slot_of(ptr);
    iso_heap_t *heap = (iso_heap_t *)(uintptr_t)slot->heap;
    iso_span_t *span = &slot->spans[iso_unit_of(ptr)];
    uint32_t count = iso_classes[span->klass].count;
    iso_chunk_t *chunk = iso_chunk_of(ptr);
    if (span->until == 0)
        iso_span_has_room(heap, span);
    if (span->kind == ISO_SPAN_TINY) {
        if (iso_all_free(chunk->bits, count))
            iso_span_chunk_empty(heap, span, chunk);
    } else if (iso_all_free(iso_small_bits(span), count)) {
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
    iso_stack_check_freed(&block, ptr);
    iso_stack_gone(&block, ptr);
    iso_protect_end(&block, ptr);
    iso_poison_block_freed(block.heap, ptr, block.size);
    if (!block.span && iso_movable_is(block.heap, ptr)) {
        iso_heap_destroy(block.heap); /* takes it along, and its addresses */
    } else if (!block.span) {
        block.slot->check = 0; /* a stale pointer to it finds no slot */
        iso_hold_shrink(iso_hold_find(NULL, block.heap), (char *)block.slot, block.slot->run_slots);
    } else if (block.word) {
        if (!shared && !iso_poison_active && !iso_protect_is_in(block.heap, block.slot) &&
            iso_hold_find(NULL, block.heap)->state ==
                ISO_HEAP_OWNED) /* not in an object that is packed */
            iso_direct_set(block.slot);
        *block.word |= block.bit;
        block.span->until--;
        after_free(ptr);
    } else {
        iso_units_give(block.heap, block.slot, iso_unit_of(ptr), block.span->units);
    }
    iso_shared_leave(shared);
}

/* The owner's path down to the first after_free. It looks at what iso_block_find looks at, but for the slot's
 * links to its heap and half of each check word, and leaves whatever is not as it should be to free_checked. TINY
 * and SMALL are not told apart by a branch: which of them the next block is cannot be foretold. All calls
 * are the last thing that is done, so that no register has to be saved. What matters is the number of
 * instructions: the fewer they are, the more of the program's own loads are under way at once. */
void iso_free(void *ptr)
{
    uintptr_t address = (uintptr_t)ptr;
    if (!LIKELY(iso_direct_is(ptr))) {
        free_checked(
            ptr); /* no heap's, in a large block, of a shared heap, or of one that leaves; or its
                              slot has not been freed into for a while */
        return;
    }
    /* the address of the slot's last byte is known already */
    uintptr_t slot = (address | ISO_SLOT_MASK) - ISO_SLOT_MASK;
    iso_span_t *span = (iso_span_t *)(slot + iso_span_offset(address));
    unsigned klass = span->klass;
    uint64_t number;
    if (!LIKELY(iso_class_number(klass, address, &number))) {
        free_checked(ptr);
        return;
    }
    const uint64_t *check = (const uint64_t *)(address & iso_class_ways.base[klass]);
    if (!LIKELY(((uint32_t)*check ^ (uint32_t)(uintptr_t)check) == span->key)) {
        free_checked(ptr);
        return;
    }
    uint64_t *word = iso_block_word(klass, address, number);
    uint64_t free = *word, bit = iso_block_bit(number);
    if (!LIKELY(!(free & bit))) {
        free_checked(ptr);
        return;
    }
    free |= bit;
    *word = free;
    if (!LIKELY(--span->until)) {
        after_free(ptr);
        return;
    }
    if (!LIKELY(free != UINT64_MAX))
        after_free(ptr);
}

size_t iso_usable_size(const void *ptr)
{
    if (!ptr)
        return 0;
    iso_shared_t *shared = iso_shared_enter_at(ptr, "iso_usable_size");
    size_t size = iso_block_find(ptr, "iso_usable_size").size;
    iso_shared_leave(shared);
    iso_poison_block_open(ptr, size);
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
