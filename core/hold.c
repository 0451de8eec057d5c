/* hold.c - see hold.h. */
#include "core/hold.h"
#include "core/borrow.h"
#include "core/direct.h"
#include "core/grant.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/poison.h"
#include "core/protect.h"
#include "core/shared.h"
#include "core/stack_guard.h"
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

iso_hold_t *iso_hold_find(iso_job_t *job, const iso_heap_t *heap)
{
    if (!job) {
        const iso_job_row_t *row = iso_job_row_of(heap);
        if (!row)
            return NULL;
        job = row->job;
    } else if (iso_space_offset(&job->space, heap) >= job->space.size) {
        return NULL;
    }
    iso_hold_t *hold = job->hold_of[iso_space_slot(&job->space, heap)];
    return hold && hold->heap == heap ? hold : NULL;
}

iso_status_t iso_hold_room(iso_hold_t *hold, uint32_t count)
{
    if (hold->extent_room - hold->extent_count >= count)
        return ISO_OK;
    uint32_t room = hold->extent_room * 2 + count + 3;
    iso_extent_t *old = hold->extents == hold->few ? NULL : hold->extents;
    iso_extent_t *extents = realloc(old, room * sizeof *extents);
    if (!extents)
        return ISO_ERR_NO_MEMORY;
    if (!old)
        memcpy(extents, hold->few, hold->extent_count * sizeof *extents);
    hold->extents = extents;
    hold->extent_room = room;
    return ISO_OK;
}

static void extent_set(iso_hold_t *hold, uint32_t index, iso_extent_t extent)
{
    assert(hold->extents && index < hold->extent_room);
    hold->extents[index] = extent;
    hold->job->extent_at[extent.first] = index + 1;
}

/* Heaps mostly grow upwards slot by slot: the newest extent is the one to extend. */
static void extent_add(iso_hold_t *hold, uint32_t first, uint32_t count)
{
    iso_extent_t *last = hold->extent_count ? &hold->extents[hold->extent_count - 1] : NULL;
    if (last && !((last->count | count) & ISO_EXTENT_RUN) && last->first + last->count == first)
        last->count += count;
    else
        extent_set(hold, hold->extent_count++, (iso_extent_t){first, count});
    hold->slot_count += count & ~ISO_EXTENT_RUN;
    hold->extents_version++;
}

/* The extent that the slot, which is this heap's, lies in. */
static uint32_t extent_find(const iso_hold_t *hold, uint32_t slot)
{
    while (hold->job->extent_at[slot] == 0)
        slot--;
    return hold->job->extent_at[slot] - 1;
}

/* Takes [first, first + count) out of the extent; there is room for one more. */
static void extent_cut(iso_hold_t *hold, uint32_t index, uint32_t first, uint32_t count)
{
    iso_extent_t whole = hold->extents[index];
    uint32_t before = first - whole.first;
    uint32_t after = iso_extent_slots(&whole) - before - count;
    hold->job->extent_at[whole.first] = 0;
    if (after > 0)
        extent_set(hold, before > 0 ? hold->extent_count++ : index,
                   (iso_extent_t){first + count, after});
    if (before > 0)
        extent_set(hold, index, (iso_extent_t){whole.first, before});
    if (before == 0 && after == 0 && index != --hold->extent_count)
        extent_set(hold, index, hold->extents[hold->extent_count]);
    hold->slot_count -= count;
    hold->extents_version++;
}

static iso_status_t hold_new(iso_job_t *job, uint32_t heap_slot, uint32_t extent_room,
                             iso_hold_t **hold_p)
{
    iso_hold_t *hold = malloc(sizeof *hold);
    iso_extent_t *extents =
        extent_room <= ISO_EXTENTS_FEW ? NULL : malloc(extent_room * sizeof *extents);
    if (!hold || (extent_room > ISO_EXTENTS_FEW && !extents)) {
        free(hold);
        free(extents);
        iso_log(&job->logger, ISO_LOG_ERROR, "no memory for the description of a heap");
        return ISO_ERR_NO_MEMORY;
    }
    memset(hold, 0, offsetof(iso_hold_t, few)); /* as in request_new */
    hold->job = job;
    hold->state = ISO_HEAP_MOVING;
    hold->heap = iso_heap_at_slot((uintptr_t)iso_space_slot_address(&job->space, heap_slot));
    hold->extents = extents ? extents : hold->few;
    hold->extent_room = extents ? extent_room : ISO_EXTENTS_FEW;
    hold->next = job->holds;
    if (hold->next)
        hold->next->prev = hold;
    job->holds = hold;
    job->hold_of[heap_slot] = hold;
    *hold_p = hold;
    return ISO_OK;
}

void iso_hold_free(iso_hold_t *hold)
{
    if (hold->extents != hold->few)
        free(hold->extents);
    free(hold);
}

static uintptr_t heap_slot_address(const iso_hold_t *hold)
{
    return iso_heap_slot_of(hold->heap);
}

iso_status_t iso_hold_create(iso_job_t *job, iso_hold_t **hold_p, char **slot_p, uint32_t *warm_p)
{
    uint32_t slot;
    iso_job_lock(job);
    iso_status_t status = iso_borrow_take(job, 1, &slot);
    if (status == ISO_OK) {
        iso_hold_t *hold;
        status = hold_new(job, slot, 4, &hold);
        if (status == ISO_OK) {
            extent_add(hold, slot, 1);
            iso_slots_enter(&job->slots, &hold->extents[0], heap_slot_address(hold));
            iso_node_begin(&job->node, slot);
            iso_guard_lift(job, slot, 1);
            iso_poison_slots(job, iso_space_slot_address(&job->space, slot), 1);
            hold->state = ISO_HEAP_OWNED;
            hold->epoch = job->epoch_high;
            hold->counted = true;
            job->stats.heaps++;
            *hold_p = hold;
            *slot_p = iso_space_slot_address(&job->space, slot);
            *warm_p = iso_retain_slots_use(job, slot, 1);
        } else {
            iso_slots_put(&job->slots, slot, 1);
        }
    }
    iso_job_unlock(job);
    return status;
}

iso_status_t iso_hold_adopt(iso_job_t *job, iso_heap_t *heap, const iso_extent_t *extents,
                            uint32_t count, iso_hold_t **hold_p)
{
    iso_hold_t *hold;
    iso_status_t status = hold_new(job, iso_space_slot(&job->space, heap), count, &hold);
    if (status != ISO_OK)
        return status;
    bool sound = true;
    for (uint32_t i = 0; sound && i < count; i++) {
        bool run = extents[i].count & ISO_EXTENT_RUN;
        sound = iso_extent_slots(&extents[i]) > (run ? 1 : 0) &&
                iso_slots_unknown(&job->slots, &extents[i]);
        if (!sound)
            break;
        extent_add(hold, extents[i].first, extents[i].count);
        iso_slots_enter(&job->slots, &extents[i], heap_slot_address(hold));
    }
    uint32_t heap_slot = iso_space_slot(&job->space, heap);
    if (!sound || atomic_load(&job->slots.table[heap_slot]) != heap_slot_address(hold)) {
        iso_hold_drop(hold, false);
        return ISO_ERR_INVALID;
    }
    hold->state = ISO_HEAP_MOVING;
    iso_poison_heap_open(hold);
    *hold_p = hold;
    return ISO_OK;
}

iso_status_t iso_hold_expect(iso_job_t *job, iso_heap_t *heap, uint32_t extent_room,
                             iso_hold_t **hold_p)
{
    uint32_t slot = iso_space_slot(&job->space, heap);
    return job->hold_of[slot] ? ISO_ERR_INVALID : hold_new(job, slot, extent_room, hold_p);
}

void iso_hold_merge(iso_hold_t *carrier, iso_hold_t *member)
{
    for (uint32_t i = 0; i < member->extent_count; i++) {
        const iso_extent_t *extent = &member->extents[i];
        iso_slots_enter(&carrier->job->slots, extent, heap_slot_address(carrier));
        extent_set(carrier, carrier->extent_count++, *extent);
    }
    carrier->slot_count += member->slot_count;
    carrier->extents_version++;
    member->extent_count = member->slot_count = 0;
    member->extents_version++;
}

bool iso_hold_covers(const iso_hold_t *hold, uintptr_t from, uint64_t length)
{
    const iso_job_t *job = hold->job;
    const uint64_t offset = iso_space_offset(&job->space, (const void *)from);
    if (offset >= job->space.size || length == 0 || length > job->space.size - offset)
        return false;
    for (uint64_t slot = offset >> ISO_SLOT_SHIFT; slot <= (offset + length - 1) >> ISO_SLOT_SHIFT;
         slot++)
        if (iso_slots_word_heap_slot(atomic_load(&job->slots.table[slot])) !=
            heap_slot_address(hold))
            return false;
    return true;
}

bool iso_hold_has(const iso_hold_t *hold, const iso_extent_t *extent)
{
    const iso_slots_t *slots = &hold->job->slots;
    const uint32_t first = extent->first, count = iso_extent_slots(extent);
    if (count == 0 || first >= slots->total || count > slots->total - first ||
        iso_slots_word_heap_slot(atomic_load(&slots->table[first])) != heap_slot_address(hold))
        return false;
    const iso_extent_t *whole = &hold->extents[extent_find(hold, first)];
    if ((whole->count | extent->count) & ISO_EXTENT_RUN)
        return whole->first == first && whole->count == extent->count;
    return count <= whole->count - (first - whole->first);
}

void iso_hold_split(iso_hold_t *carrier, iso_hold_t *member, const iso_extent_t *extents,
                    uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const iso_extent_t extent = extents[i]; /* it may be the member's own list */
        extent_cut(carrier, extent_find(carrier, extent.first), extent.first,
                   iso_extent_slots(&extent));
        iso_slots_enter(&member->job->slots, &extent, heap_slot_address(member));
        extent_set(member, member->extent_count++, extent);
        member->slot_count += iso_extent_slots(&extent);
    }
    member->extents_version++;
}

/* Slots of the heap's become free. */
static void note_epoch(const iso_hold_t *hold)
{
    if (hold->job->epoch_high < hold->epoch)
        hold->job->epoch_high = hold->epoch;
}

/* The slots' headers, which are there still, tell what was in use. */
static void retain_extent(iso_job_t *job, const iso_extent_t *extent)
{
    bool run = extent->count & ISO_EXTENT_RUN;
    for (uint32_t i = 0; i < iso_extent_slots(extent); i++) {
        const char *slot = iso_space_slot_address(&job->space, extent->first + i);
        iso_retain_slot_free(job, extent->first + i,
                             run ? UINT32_MAX : ~iso_heap_slot_free_units(slot));
    }
}

/* Large blocks never are. */
static void undirect(const iso_job_t *job, const iso_extent_t *extent)
{
    if (!(extent->count & ISO_EXTENT_RUN))
        iso_direct_clear(iso_space_slot_address(&job->space, extent->first), extent->count);
}

void iso_hold_undirect(const iso_hold_t *hold)
{
    for (uint32_t i = 0; i < hold->extent_count; i++)
        undirect(hold->job, &hold->extents[i]);
}

void iso_hold_drop(iso_hold_t *hold, bool free_slots)
{
    iso_job_t *job = hold->job;
    iso_protect_lift(hold);
    iso_grant_drop(hold);
    if (free_slots)
        note_epoch(hold);
    if (hold->counted)
        job->stats.heaps--;
    job->hold_of[iso_space_slot(&job->space, hold->heap)] = NULL;
    iso_shared_drop(job, hold->heap);
    iso_hold_undirect(hold);
    for (uint32_t i = 0; i < hold->extent_count; i++) {
        const iso_extent_t *extent = &hold->extents[i];
        iso_slots_clear(&job->slots, extent);
        job->extent_at[extent->first] = 0;
        if (!free_slots) { /* what was taken in of a heap that does not come after all */
            iso_stack_guard_keep(job, extent->first, iso_extent_slots(extent));
        } else {
            iso_stack_guard_lift_all(job, extent->first, iso_extent_slots(extent));
            retain_extent(job, extent);
            if (extent->count & ISO_EXTENT_RUN)
                iso_guard_make(job, hold->heap, extent);
            iso_borrow_put(job, extent->first, iso_extent_slots(extent));
        }
    }
    iso_poison_heap_gone(hold);
    if (hold->next)
        hold->next->prev = hold->prev;
    if (hold->prev)
        hold->prev->next = hold->next;
    else
        job->holds = hold->next;
    iso_hold_free(hold);
}

iso_status_t iso_hold_grow(iso_hold_t *hold, uint32_t count, char **address_p, uint32_t *warm_p)
{
    iso_job_t *job = hold->job;
    uint32_t first;
    iso_job_lock(job);
    iso_status_t status = iso_hold_room(hold, 1);
    if (status == ISO_OK)
        status = iso_borrow_take(job, count, &first);
    if (status == ISO_OK) {
        iso_extent_t extent = {first, count > 1 ? count | ISO_EXTENT_RUN : count};
        extent_add(hold, extent.first, extent.count);
        if (hold->epoch < job->epoch_high) { /* the slots bring it along */
            hold->epoch = job->epoch_high;
            iso_heap_set_epoch(hold->heap, hold->epoch);
        }
        iso_slots_enter(&job->slots, &extent, heap_slot_address(hold));
        iso_guard_lift(job, first, count);
        *address_p = iso_space_slot_address(&job->space, first);
        iso_poison_slots(job, *address_p, count);
        *warm_p = iso_retain_slots_use(job, first, count);
    }
    iso_job_unlock(job);
    return status;
}

void iso_hold_shrink(iso_hold_t *hold, char *address, uint32_t count)
{
    iso_job_t *job = hold->job;
    uint32_t first = iso_space_slot(&job->space, address);
    iso_job_lock(job);
    /* splitting needs an entry more; without memory for it the slot stays with the heap, which is
     * no loss: it is empty, and the heap's end frees it */
    if (iso_hold_room(hold, 1) == ISO_OK) {
        uint32_t index = extent_find(hold, first);
        iso_extent_t gone = {first, count | (hold->extents[index].count & ISO_EXTENT_RUN)};
        extent_cut(hold, index, first, count);
        note_epoch(hold);
        undirect(job, &gone);
        iso_slots_clear(&job->slots, &gone);
        retain_extent(job, &gone);
        if (gone.count & ISO_EXTENT_RUN)
            iso_guard_make(job, hold->heap, &gone);
        iso_poison_slots_gone(job, &gone);
        iso_borrow_put(job, first, count);
    }
    iso_job_unlock(job);
}

uint32_t iso_hold_free_units(iso_job_t *job, uintptr_t word, uint32_t slot)
{
    uint32_t heap_slot = iso_space_slot(&job->space, (void *)iso_slots_word_heap_slot(word));
    const iso_hold_t *hold = job->hold_of[heap_slot];
    if (!hold || hold->arrival || iso_slots_word_distance(word) > 0)
        return 0;
    return iso_heap_slot_free_units(iso_space_slot_address(&job->space, slot));
}
