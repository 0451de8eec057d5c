/* around.c - see around.h. */
#include "core/around.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/os.h"
#include "core/verify.h"

/* What the slot table says of the address's slot; 0: it is of no slot that has the owner of the heap's first one. */
static uintptr_t word_of(const iso_job_t *job, const iso_heap_t *heap, uintptr_t address)
{
    const uintptr_t base = (uintptr_t)job->space.base;
    if (address - base >= job->space.size)
        return 0;
    const uintptr_t word = atomic_load_explicit(
        &job->slots.table[(address - base) >> ISO_SLOT_SHIFT], memory_order_relaxed);
    const uintptr_t own = atomic_load_explicit(&job->slots.table[iso_space_slot(&job->space, heap)],
                                               memory_order_relaxed);
    return word && iso_slots_word_heap_slot(word) == iso_slots_word_heap_slot(own) ? word : 0;
}

static uintptr_t up(uintptr_t address, size_t unit)
{
    return (address + unit - 1) & ~(uintptr_t)(unit - 1);
}

/* All of the run has to be in the table, as one. */
static bool in_run(const iso_job_t *job, const iso_heap_t *heap, const iso_slot_t *slot,
                   iso_around_t *around)
{
    if (!iso_run_is_sound(slot) || slot->run_bytes == 0)
        return false;
    around->start = (uintptr_t)slot + slot->run_offset;
    around->end = around->start + slot->run_bytes;
    around->alone = up(around->end, ISO_SLOT_SIZE);
    around->is_stack = slot->run_stack != 0;
    const uintptr_t last = word_of(job, heap, around->end - 1);
    return last &&
           iso_slots_word_distance(last) == ((around->end - 1 - (uintptr_t)slot) >> ISO_SLOT_SHIFT);
}

static bool in_medium(const iso_slot_t *slot, unsigned unit, iso_around_t *around)
{
    const iso_span_t *span = &slot->spans[unit];
    if (!iso_medium_is_sound(slot, unit))
        return false;
    around->start = (uintptr_t)iso_unit_base(slot, unit);
    around->end = around->start + span->bytes;
    around->alone = up(around->end, ISO_UNIT_SIZE);
    around->is_stack = span->stack != 0;
    return true;
}

/* Blocks of a class are flush with their area's end, which is `end`, and numbered from there. */
static bool in_class(const iso_span_t *span, const uint64_t *bits, uintptr_t end, uintptr_t address,
                     iso_around_t *around)
{
    const iso_class_t *class = &iso_classes[span->klass];
    const uintptr_t number = (end - 1 - address) / class->size;
    if (number >= class->count || bits[number / 64] >> number % 64 & 1)
        return false;
    around->end = end - number * class->size;
    around->start = around->end - class->size;
    around->alone = around->end;
    return true;
}

static bool in_tiny(const iso_slot_t *slot, unsigned unit, uintptr_t address, iso_around_t *around)
{
    const iso_span_t *span = &slot->spans[unit];
    const unsigned at = (unsigned)(address % ISO_UNIT_SIZE / ISO_CHUNK_SIZE);
    const iso_chunk_t *chunk = iso_chunk_at(slot, unit, at);
    return iso_class_is_tiny(span->klass) && span->live & iso_unit_chunks(slot, unit) & 1u << at &&
           iso_chunk_holds(span, chunk) &&
           in_class(span, chunk->bits, (uintptr_t)chunk + ISO_CHUNK_SIZE, address, around);
}

static bool in_small(const iso_slot_t *slot, unsigned unit, uintptr_t address, iso_around_t *around)
{
    const iso_span_t *span = &slot->spans[unit];
    return unit > 0 && iso_class_is_small(span->klass) &&
           in_class(span, iso_small_bits(span), (address & ~(ISO_UNIT_SIZE - 1)) + ISO_UNIT_SIZE,
                    address, around);
}

static bool in_slot(const iso_slot_t *slot, uintptr_t address, iso_around_t *around)
{
    unsigned unit = (unsigned)((address & ISO_SLOT_MASK) >> ISO_UNIT_SHIFT);
    const iso_span_t *span = &slot->spans[unit];
    if (span->kind == ISO_SPAN_REST && span->units <= unit)
        unit -= span->units;
    switch (slot->spans[unit].kind) {
    case ISO_SPAN_TINY:
        return in_tiny(slot, unit, address, around);
    case ISO_SPAN_SMALL:
        return in_small(slot, unit, address, around);
    case ISO_SPAN_MEDIUM:
        return in_medium(slot, unit, around);
    default:
        return false;
    }
}

bool iso_around_find(const iso_job_t *job, const iso_heap_t *heap, uintptr_t address,
                     iso_around_t *around_p)
{
    iso_around_t around = {0};
    const uintptr_t word = word_of(job, heap, address);
    const uint32_t distance = iso_slots_word_distance(word);
    if (!word)
        return false;
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): the address may be anything */
    const iso_slot_t *slot = (const iso_slot_t *)((address & ~(uintptr_t)ISO_SLOT_MASK) -
                                                  distance * (uintptr_t)ISO_SLOT_SIZE);
    if (!iso_check_holds(slot) || slot->heap != (uintptr_t)heap)
        return false;
    if (distance > 0 || slot->run_slots ? !in_run(job, heap, slot, &around)
                                        : !in_slot(slot, address, &around))
        return false;
    if (address < around.start || address >= around.end)
        return false;
    *around_p = around;
    return true;
}
