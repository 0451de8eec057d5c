/* retain.c - see retain.h. */
#include "core/retain.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/left.h"
#include <stdlib.h>
#include <string.h>

#define QUEUE_LAST UINT32_MAX /* dirty_next of the last in the queue */

iso_status_t iso_retain_open(iso_retain_t *retain, uint64_t limit, uint32_t total_slots)
{
    memset(retain, 0, sizeof *retain);
    retain->limit = limit;
    retain->total_slots = total_slots;
    retain->resident = iso_os_table_map(total_slots * sizeof *retain->resident);
    retain->dirty_next = iso_os_table_map(total_slots * sizeof *retain->dirty_next);
    retain->left_of = iso_os_table_map(total_slots * sizeof *retain->left_of);
    retain->settled = iso_os_table_map(total_slots * sizeof *retain->settled);
    if (retain->resident && retain->dirty_next && retain->left_of && retain->settled)
        return ISO_OK;
    iso_retain_close(retain);
    return ISO_ERR_NO_MEMORY;
}

void iso_retain_close(iso_retain_t *retain)
{
    iso_left_close(retain);
    iso_os_table_unmap(retain->settled, retain->total_slots * sizeof *retain->settled);
    iso_os_table_unmap(retain->left_of, retain->total_slots * sizeof *retain->left_of);
    iso_os_table_unmap(retain->dirty_next, retain->total_slots * sizeof *retain->dirty_next);
    iso_os_table_unmap(retain->resident, retain->total_slots * sizeof *retain->resident);
    memset(retain, 0, sizeof *retain);
}

/* ---- pages of the space ---- */

void iso_retain_punch(iso_job_t *job, uint32_t slot, uint32_t mask)
{
    if (iso_window_pins(job, slot))
        return; /* see iso_retain_unpinned */
    while (mask) {
        uint32_t first = (uint32_t)__builtin_ctz(mask);
        uint32_t above = ~(mask >> first);
        uint32_t count = above ? (uint32_t)__builtin_ctz(above) : ISO_UNITS_PER_SLOT;
        if (count > ISO_UNITS_PER_SLOT - first)
            count = ISO_UNITS_PER_SLOT - first;
        uint64_t offset = ((uint64_t)slot << ISO_SLOT_SHIFT) + ((uint64_t)first << ISO_UNIT_SHIFT);
        uint64_t length = (uint64_t)count << ISO_UNIT_SHIFT;
        iso_huge_split(job, offset, length);
        if (iso_space_give_back(&job->space, &job->logger, offset, length))
            job->stats.released_bytes += length;
        mask &= count == ISO_UNITS_PER_SLOT ? 0 : ~(((1u << count) - 1) << first);
    }
}

/* ---- registered ---- */

void iso_retain_settle(iso_job_t *job, uint32_t slot, bool settled)
{
    if (iso_windows_pin(job))
        job->retain.settled[slot] = settled;
}

/* What nobody here or elsewhere has of the slot, and is not counted: of a left one that is nothing. */
static uint32_t idle_units(iso_job_t *job, uint32_t slot)
{
    const iso_retain_t *retain = &job->retain;
    uintptr_t word = atomic_load_explicit(&job->slots.table[slot], memory_order_relaxed);
    uint32_t mask = ISO_UNITS_ALL;
    if (word)
        mask = retain->settled[slot] ? iso_hold_free_units(job, word, slot) : 0;
    return mask & ~retain->resident[slot];
}

void iso_retain_unpinned(iso_job_t *job, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count && !job->space.pinned; i++)
        iso_retain_punch(job, first + i, idle_units(job, first + i));
}

void iso_retain_arrived(iso_job_t *job, const iso_extent_t *extents, uint32_t count)
{
    iso_windows_touch(job, extents, count);
    if (!iso_windows_pin(job))
        return;
    for (uint32_t e = 0; e < count; e++)
        for (uint32_t i = 0; i < iso_extent_slots(&extents[e]); i++) {
            iso_retain_settle(job, extents[e].first + i, !(extents[e].count & ISO_EXTENT_RUN));
            if (!iso_window_pins(job, extents[e].first + i))
                iso_retain_unpinned(job, extents[e].first + i, 1);
        }
}

/* ---- dirty ---- */

void iso_retain_dirty(iso_job_t *job, uint32_t slot, uint32_t mask)
{
    iso_retain_t *retain = &job->retain;
    retain->dirty_units += iso_units_in(mask & ~retain->resident[slot]);
    retain->resident[slot] |= mask;
    if (retain->dirty_next[slot])
        return;
    retain->dirty_next[slot] = QUEUE_LAST;
    if (retain->dirty_tail)
        retain->dirty_next[retain->dirty_tail - 1] = slot + 1;
    else
        retain->dirty_head = slot + 1;
    retain->dirty_tail = slot + 1;
}

static uint32_t dirty_remove(iso_job_t *job, uint32_t slot, uint32_t mask)
{
    iso_retain_t *retain = &job->retain;
    mask &= retain->resident[slot];
    retain->resident[slot] &= ~mask;
    retain->dirty_units -= iso_units_in(mask);
    return mask; /* an empty slot leaves the queue when its turn comes */
}

void iso_retain_units_free(iso_job_t *job, const void *slot, uint32_t mask)
{
    iso_job_lock(job);
    iso_retain_settle(job, iso_space_slot(&job->space, slot), true);
    iso_retain_dirty(job, iso_space_slot(&job->space, slot), mask);
    iso_retain_trim(job);
    iso_job_unlock(job);
}

uint32_t iso_retain_units_use(iso_job_t *job, const void *slot, uint32_t mask)
{
    iso_job_lock(job);
    iso_retain_settle(job, iso_space_slot(&job->space, slot), true);
    uint32_t warm = dirty_remove(job, iso_space_slot(&job->space, slot), mask);
    iso_job_unlock(job);
    return warm;
}

uint32_t iso_retain_slots_use(iso_job_t *job, uint32_t first, uint32_t count)
{
    uint32_t warm = dirty_remove(job, first, ISO_UNITS_ALL);
    iso_retain_settle(job, first, false);
    for (uint32_t i = 1; i < count; i++) {
        dirty_remove(job, first + i, ISO_UNITS_ALL);
        iso_retain_settle(job, first + i, false);
    }
    return warm;
}

void iso_retain_slot_free(iso_job_t *job, uint32_t slot, uint32_t used)
{
    iso_retain_dirty(job, slot, used);
    iso_retain_trim(job);
}

void iso_retain_slots_leave(iso_job_t *job, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        iso_retain_punch(job, first + i, dirty_remove(job, first + i, ISO_UNITS_ALL));
        iso_node_give(&job->node, first + i);
    }
}

/* Of 8 slots: most of a large heap has nothing to give back, and handing it over should not be felt. */
static bool none_resident(const uint32_t resident[8])
{
    uint64_t pairs[4];
    memcpy(pairs, resident, sizeof pairs);
    return (pairs[0] | pairs[1] | pairs[2] | pairs[3]) == 0;
}

void iso_retain_handover(iso_job_t *job, const iso_extent_t *extents, uint32_t count)
{
    for (uint32_t e = 0; e < count; e++) {
        uint32_t end = extents[e].first + iso_extent_slots(&extents[e]);
        for (uint32_t slot = extents[e].first; slot < end; slot++) {
            if (end - slot >= 8 && none_resident(&job->retain.resident[slot])) {
                slot += 7;
                continue;
            }
            uint32_t dirty = dirty_remove(job, slot, ISO_UNITS_ALL);
            /* a bit may stand for a unit that came into use with an arrival, see claim; of a run none is
             * free, and only its first slot has a header: another may begin with a stack's guard */
            if (dirty && !(extents[e].count & ISO_EXTENT_RUN))
                iso_retain_punch(
                    job, slot,
                    dirty & iso_heap_slot_free_units(iso_space_slot_address(&job->space, slot)));
        }
    }
}

/* ---- over the limit ---- */

void iso_retain_trim(iso_job_t *job)
{
    iso_retain_t *retain = &job->retain;
    uint64_t limit = retain->limit >> ISO_UNIT_SHIFT;
    if (retain->dirty_units + retain->left_units - retain->revoking_units <= limit)
        return;
    limit -= limit / 4;
    while (retain->dirty_head && retain->dirty_units + retain->left_units > limit) {
        uint32_t slot = retain->dirty_head - 1, next = retain->dirty_next[slot];
        retain->dirty_next[slot] = 0;
        retain->dirty_head = next == QUEUE_LAST ? 0 : next;
        if (next == QUEUE_LAST)
            retain->dirty_tail = 0;
        if (retain->left_of[slot])
            continue; /* was dirty once; its units are counted as left now */
        uint32_t mask = dirty_remove(job, slot, ISO_UNITS_ALL);
        uintptr_t word = atomic_load_explicit(&job->slots.table[slot], memory_order_relaxed);
        if (mask && word)
            mask &= iso_hold_free_units(job, word, slot);
        iso_retain_punch(job, slot, mask);
    }
    iso_left_trim(job, limit);
}
