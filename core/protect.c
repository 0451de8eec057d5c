/* protect.c - see protect.h. */
#include "core/protect.h"
#include "core/heap.h"
#include "core/heap_layout.h"
#include "core/job.h"
#include "core/os.h"
#include "core/unit.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define PLAIN (PROT_READ | PROT_WRITE)

/* Do all slots of the range belong to the heap? */
static bool is_in(const iso_hold_t *hold, const void *start, uint64_t length)
{
    const iso_job_t *job = hold->job;
    const uint64_t offset = (uintptr_t)start - (uintptr_t)job->space.base;
    if (length == 0 || offset >= job->space.size || length > job->space.size - offset)
        return false;
    for (uint64_t slot = offset >> ISO_SLOT_SHIFT; slot <= (offset + length - 1) >> ISO_SLOT_SHIFT;
         slot++)
        if (iso_slots_word_heap_slot(atomic_load_explicit(
                &job->slots.table[slot], memory_order_relaxed)) != iso_heap_slot_of(hold->heap))
            return false;
    return true;
}

static bool is_sound(const iso_hold_t *hold, const iso_protection_t *range)
{
    const size_t page = iso_os_page_size();
    return (uintptr_t)range->start % page == 0 && range->length % page == 0 &&
           (range->prot & ~(PLAIN | PROT_EXEC)) == 0 && is_in(hold, range->start, range->length);
}

static void change(const iso_hold_t *hold, const iso_protection_t *range, int prot)
{
    const int error = iso_os_protect_as(range->start, range->length, prot);
    if (error)
        iso_log(&hold->job->logger, ISO_LOG_ERROR,
                "heap %p: %zu bytes at %p cannot be %s: mprotect: %s%s", (const void *)hold->heap,
                range->length, range->start,
                prot == PLAIN ? "made usable again" : "protected again", strerror(error),
                error == ENOMEM ? " (vm.max_map_count?)" : "");
}

static void each(const iso_hold_t *hold, bool lift)
{
    const iso_heap_t *heap = hold->heap;
    /* each has a page of its own, so a list that is longer goes round */
    uint64_t left = hold->slot_count * (ISO_SLOT_SIZE / ISO_CHUNK_SIZE);
    for (const iso_protection_t *range = heap->protections; range; range = range->next) {
        if (!is_in(hold, range, sizeof *range) || !is_sound(hold, range) || left-- == 0)
            iso_heap_damaged(heap, range, "its list of protections");
        change(hold, range, lift ? PLAIN : range->prot);
    }
}

void iso_protect_lift(const iso_hold_t *hold)
{
    if (hold->heap->protections)
        each(hold, true);
}

void iso_protect_make(const iso_hold_t *hold)
{
    if (hold->heap->protections)
        each(hold, false);
}

void iso_heap_set_protections(iso_heap_t *heap, const iso_protection_t *first)
{
    heap->protections = first;
}
