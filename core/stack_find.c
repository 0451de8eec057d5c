/*
 * stack_find.c - from an address to the stack that begins there, by what the heap's metadata say: for who has kept an
 * address, and cannot know whether the stack, or its heap, is still there.
 */
#include "core/hold.h"
#include "core/job.h"
#include "core/os.h"
#include "core/unit.h"
#include "core/verify.h"
#include <isomalloc/stack.h>

static bool is_owned(const iso_job_row_t *row, const iso_heap_t *heap)
{
    iso_job_lock(row->job);
    const iso_hold_t *hold = iso_hold_find(row->job, heap);
    bool owned = hold && hold->state == ISO_HEAP_OWNED;
    iso_job_unlock(row->job);
    return owned;
}

iso_stack_t *iso_stack_find(const void *low)
{
    char *block = (char *)((uintptr_t)low - iso_os_page_size()); /* low may be anything */
    const iso_job_row_t *row = iso_job_row_of(block);
    const iso_heap_t *heap = row ? iso_heap_of(block) : NULL;
    if (!heap || !is_owned(row, heap))
        return NULL;
    uintptr_t word = atomic_load_explicit(
        &row->table[((uintptr_t)block - row->base) >> ISO_SLOT_SHIFT], memory_order_relaxed);
    char *head = (char *)iso_slot_of(block) - iso_slots_word_distance(word) * ISO_SLOT_SIZE;
    iso_slot_t *slot = iso_slot_of(head);
    /* no damage to be told: where the stack was, another thread of the system may be making a slot of its own heap */
    if (!iso_check_holds(slot) || slot->heap != (uintptr_t)heap)
        return NULL;
    if (slot->run_slots)
        return iso_run_is_sound(slot) && slot->run_stack && block == head + slot->run_offset
                   ? (iso_stack_t *)(block + slot->run_stack)
                   : NULL;
    unsigned unit = iso_unit_of(block);
    const iso_span_t *span = &slot->spans[unit];
    return span->kind == ISO_SPAN_MEDIUM && iso_medium_is_sound(slot, unit) && span->stack &&
                   block == iso_unit_base(slot, unit)
               ? (iso_stack_t *)(block + span->stack)
               : NULL;
}
