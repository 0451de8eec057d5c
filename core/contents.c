/* contents.c - see contents.h. */
#include "core/contents.h"
#include "core/borrow.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/left.h"
#include "core/migrate.h"
#include "core/shared.h"
#include "core/stack.h"
#include "core/verify.h"
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void iso_contents_free(iso_contents_t *contents)
{
    free(contents->extents);
    iso_runs_free(&contents->runs);
    iso_runs_free(&contents->idle);
    free(contents->warm);
}

iso_status_t iso_contents_refuse(const iso_job_t *job, const char *call, iso_status_t status,
                                 uint64_t heap, const char *why)
{
    iso_log(&job->logger, ISO_LOG_ERROR, "%s of heap %#" PRIx64 ": %s", call, heap, why);
    return status;
}

/* ---- out --------------------------------------------------------------------------------------- */

void iso_contents_put_back(iso_hold_t *hold)
{
    iso_heap_thaw(hold);
    hold->state = ISO_HEAP_OWNED;
}

/* Under the heap's lock and the job's. */
static iso_status_t take(iso_job_t *job, const char *call, const iso_heap_t *heap, bool moves,
                         iso_hold_t **hold_p, iso_contents_t *contents)
{
    iso_hold_t *hold = iso_hold_find(job, heap);
    if (!hold)
        return iso_contents_refuse(job, call, ISO_ERR_NOT_OWNER, (uintptr_t)heap,
                                   "it is not at this rank");
    if (hold->state != ISO_HEAP_OWNED)
        return iso_contents_refuse(job, call, ISO_ERR_BUSY, (uintptr_t)heap,
                                   "it is migrating, or being saved already");
    char why[ISO_STACK_WHY];
    if (iso_stack_in_use(hold, why))
        return iso_contents_refuse(job, call, ISO_ERR_BUSY, (uintptr_t)heap, why);
    iso_heap_verify(hold);
    iso_heap_freeze(hold);
    hold->state = ISO_HEAP_MOVING;
    if (moves)
        iso_heap_set_epoch(hold->heap, ++hold->epoch);
    *contents = (iso_contents_t){.heap = (uintptr_t)heap,
                                 .epoch = hold->epoch,
                                 .own_slots = moves,
                                 .extent_count = hold->extent_count};
    contents->extents = malloc(hold->extent_count * sizeof *contents->extents);
    if (contents->extents)
        memcpy(contents->extents, hold->extents, hold->extent_count * sizeof *contents->extents);
    if (!contents->extents || !iso_heap_list_runs(hold, &contents->runs) ||
        !iso_stack_list_idle(hold, &contents->idle)) {
        iso_contents_put_back(hold);
        return iso_contents_refuse(job, call, ISO_ERR_NO_MEMORY, (uintptr_t)heap,
                                   "no memory for the list of its runs");
    }
    *hold_p = hold;
    return ISO_OK;
}

iso_status_t iso_contents_take(iso_job_t *job, const char *call, const iso_heap_t *heap, bool moves,
                               iso_hold_t **hold_p, iso_contents_t *contents)
{
    iso_shared_t *shared = iso_shared_lock(heap);
    iso_job_lock(job);
    const iso_hold_t *hold = iso_hold_find(job, heap);
    if (hold && hold->state == ISO_HEAP_OWNED)
        iso_stack_code_leave(hold, NULL);
    iso_status_t status = take(job, call, heap, moves, hold_p, contents);
    iso_job_unlock(job);
    iso_shared_leave(shared);
    return status;
}

void iso_contents_let_go(iso_job_t *job, iso_hold_t *hold, iso_contents_t *contents)
{
    iso_left_leave(job, hold->heap, hold->extents, hold->extent_count, &contents->runs,
                   &contents->idle, &(iso_promise_t){job->rank, 0, hold->epoch});
    iso_hold_drop(hold, false);
    iso_retain_trim(job);
}

/* ---- in ---------------------------------------------------------------------------------------- */

iso_status_t iso_contents_check(const iso_job_t *job, const char *call,
                                const iso_contents_t *contents)
{
    const uint64_t runs_most = job->slots.total * (uint64_t)(ISO_SLOT_SIZE / 4096);
    uint64_t offset = contents->heap - (uintptr_t)job->space.base;
    if (offset >= job->space.size ||
        (uintptr_t)iso_heap_at_slot((uintptr_t)contents->heap & ~(uintptr_t)ISO_SLOT_MASK) !=
            contents->heap ||
        contents->extent_count == 0 || contents->extent_count > job->slots.total ||
        contents->runs.count == 0 || contents->runs.count > runs_most ||
        contents->runs.bytes > job->space.size ||
        contents->runs.count > contents->runs.bytes / 4096)
        return iso_contents_refuse(
            job, call, ISO_ERR_INVALID, contents->heap,
            "it is no heap that this iso space has room for: it needs one as large as "
            "where it was packed (ISO_SPACE_SIZE), or the data are damaged");
    return ISO_OK;
}

static uint64_t slots_of(const iso_contents_t *contents)
{
    uint64_t slots = 0;
    for (uint32_t i = 0; i < contents->extent_count; i++)
        slots += iso_extent_slots(&contents->extents[i]);
    return slots;
}

static bool extents_fit(const iso_job_t *job, const iso_contents_t *contents)
{
    if (slots_of(contents) > job->slots.total)
        return false;
    for (uint32_t i = 0; i < contents->extent_count; i++) {
        uint32_t slots = iso_extent_slots(&contents->extents[i]);
        const bool run = contents->extents[i].count & ISO_EXTENT_RUN;
        if (slots < (run ? 2 : 1) || contents->extents[i].first >= job->slots.total ||
            slots > job->slots.total - contents->extents[i].first)
            return false;
    }
    return true;
}

iso_status_t iso_contents_check_slots(const iso_job_t *job, const char *call,
                                      iso_contents_t *contents)
{
    assert(contents->extent_count > 0); /* iso_contents_check */
    if (!extents_fit(job, contents))
        return iso_contents_refuse(job, call, ISO_ERR_INVALID, contents->heap,
                                   "its slots cannot be: the data are damaged, or the iso space is "
                                   "smaller than where it was packed (ISO_SPACE_SIZE)");
    contents->warm = calloc(slots_of(contents), sizeof *contents->warm);
    return contents->warm ? ISO_OK
                          : iso_contents_refuse(job, call, ISO_ERR_NO_MEMORY, contents->heap,
                                                "no memory for the list of its slots");
}

/* Every byte of them is of the heap's slots, which are entered; and every header comes with them, so that none is looked
 * at that is another life's. */
static bool runs_fit(const iso_job_t *job, const iso_contents_t *contents, const iso_hold_t *hold)
{
    const uintptr_t heap_slot = iso_heap_slot_of(hold->heap);
    uint64_t bytes = 0, headers = 0;
    for (uint32_t i = 0; i < contents->extent_count; i++)
        headers += contents->extents[i].count & ISO_EXTENT_RUN ? 1 : contents->extents[i].count;
    for (uint64_t i = 0; i < contents->runs.count; i++) {
        const iso_run_t *run = &contents->runs.list[i];
        uint64_t offset = run->address - (uintptr_t)job->space.base;
        if (offset >= job->space.size || run->length == 0 ||
            run->length > job->space.size - offset || (run->address | run->length) % 4096 != 0)
            return false;
        uint32_t last = (uint32_t)((offset + run->length - 1) >> ISO_SLOT_SHIFT);
        for (uint32_t slot = (uint32_t)(offset >> ISO_SLOT_SHIFT); slot <= last; slot++) {
            const uintptr_t word = atomic_load(&job->slots.table[slot]);
            const bool begins = offset <= (uint64_t)slot << ISO_SLOT_SHIFT;
            if (iso_slots_word_heap_slot(word) != heap_slot)
                return false;
            headers -= begins && iso_slots_word_distance(word) == 0;
        }
        bytes += run->length;
    }
    return bytes == contents->runs.bytes && headers == 0;
}

/* Free slots of this rank become nobody's. */
static bool take_free(iso_job_t *job, const iso_contents_t *contents)
{
    for (uint32_t i = 0; i < contents->extent_count; i++) {
        const iso_extent_t *extent = &contents->extents[i];
        if (iso_slots_take_exact(&job->slots, extent->first, iso_extent_slots(extent)))
            continue;
        while (i-- > 0)
            iso_slots_put(&job->slots, contents->extents[i].first,
                          iso_extent_slots(&contents->extents[i]));
        return false;
    }
    return true;
}

static void put_free(iso_job_t *job, const iso_contents_t *contents, bool used)
{
    for (uint32_t i = 0; i < contents->extent_count; i++) {
        const iso_extent_t *extent = &contents->extents[i];
        for (uint32_t slot = 0; used && slot < iso_extent_slots(extent); slot++)
            iso_retain_slot_free(job, extent->first + slot, ISO_UNITS_ALL);
        iso_borrow_put(job, extent->first, iso_extent_slots(extent));
    }
}

/* Under the job's lock. */
static void abandon(iso_job_t *job, iso_hold_t *hold, const iso_contents_t *contents)
{
    if (contents->own_slots)
        iso_left_abandon(job, hold->heap, hold->extents, hold->extent_count);
    iso_hold_drop(hold, false);
    if (!contents->own_slots)
        put_free(job, contents, true);
    iso_retain_trim(job);
}

iso_status_t iso_contents_enter(iso_job_t *job, const char *call, const iso_contents_t *contents,
                                iso_hold_t **hold_p)
{
    const uint32_t count = contents->extent_count;
    const bool own_slots = contents->own_slots;
    iso_heap_t *heap = (iso_heap_t *)(uintptr_t)contents->heap;
    static const char busy[] = "its slots are in use here, or are not this rank's";
    iso_hold_t *hold;
    iso_migrate_settle(job); /* it may be back before this rank has seen that it was taken */
    if (iso_hold_find(job, heap))
        return iso_contents_refuse(job, call, ISO_ERR_BUSY, contents->heap,
                                   "it is at this rank already");
    if (!own_slots && !take_free(job, contents))
        return iso_contents_refuse(job, call, ISO_ERR_BUSY, contents->heap, busy);
    iso_status_t status = iso_hold_adopt(job, heap, contents->extents, count, &hold);
    if (status == ISO_OK && own_slots &&
        !iso_left_claim(job, heap, contents->extents, count, ISO_COMING_RESERVED)) {
        iso_hold_drop(hold, false);
        status = ISO_ERR_INVALID;
    }
    if (status != ISO_OK) {
        if (!own_slots)
            put_free(job, contents, false);
        return status == ISO_ERR_INVALID
                   ? iso_contents_refuse(job, call, ISO_ERR_BUSY, contents->heap, busy)
                   : status;
    }
    hold->arrival = hold; /* nobody looks into it yet, see iso_hold_free_units */
    hold->epoch = contents->epoch;
    uint32_t *warm = contents->warm;
    for (uint32_t i = 0; i < count && !own_slots; i++) {
        const iso_extent_t *extent = &contents->extents[i];
        iso_guard_lift(job, extent->first, iso_extent_slots(extent));
        for (uint32_t slot = 0; slot < iso_extent_slots(extent); slot++)
            *warm++ = iso_retain_slots_use(job, extent->first + slot, 1);
    }
    if (!runs_fit(job, contents, hold)) {
        abandon(job, hold, contents);
        return iso_contents_refuse(job, call, ISO_ERR_INVALID, contents->heap,
                                   "its runs are not of its slots: the data are damaged");
    }
    *hold_p = hold;
    return ISO_OK;
}

/* What was resident of a copy's slots, and the heap does not use. */
static void count_warm(iso_job_t *job, const iso_contents_t *contents)
{
    const uint32_t *warm = contents->warm;
    for (uint32_t i = 0; i < contents->extent_count; i++) {
        const iso_extent_t *extent = &contents->extents[i];
        for (uint32_t at = 0; at < iso_extent_slots(extent); at++, warm++) {
            const char *slot = iso_space_slot_address(&job->space, extent->first + at);
            if (!(extent->count & ISO_EXTENT_RUN))
                iso_retain_dirty(job, extent->first + at, *warm & iso_heap_slot_free_units(slot));
        }
    }
}

/* Under the job's lock. */
static void own(iso_job_t *job, iso_hold_t *hold, const iso_contents_t *contents)
{
    hold->arrival = NULL;
    hold->state = ISO_HEAP_OWNED;
    hold->counted = true;
    job->stats.heaps++;
    if (hold->epoch < job->epoch_high) { /* a copy of earlier days */
        hold->epoch = job->epoch_high;
        iso_heap_set_epoch(hold->heap, hold->epoch);
    }
    if (contents->own_slots)
        iso_left_own(job, hold->extents, hold->extent_count);
    else
        count_warm(job, contents);
    iso_node_begin(&job->node, iso_space_slot(&job->space, hold->heap));
    iso_retain_arrived(job, hold->extents, hold->extent_count);
    iso_heap_thaw(hold);
    iso_retain_trim(job);
}

iso_status_t iso_contents_looks_sound(const iso_job_t *job, const char *call,
                                      const iso_hold_t *hold)
{
    iso_status_t status =
        iso_heap_check_arrived(hold->heap, hold->epoch, hold->extents, hold->extent_count);
    for (uint32_t i = 0; i < hold->extent_count && status == ISO_OK; i++)
        if (!iso_extent_is_of(job, &hold->extents[i], (uintptr_t)hold->heap))
            status = ISO_ERR_INVALID;
    if (status != ISO_OK && status != ISO_ERR_CODE) /* which has been said */
        iso_contents_refuse(job, call, status, (uintptr_t)hold->heap,
                            "what was unpacked is not that heap: the data are damaged");
    return status;
}

iso_status_t iso_contents_own(iso_job_t *job, const char *call, iso_hold_t *hold,
                              const iso_contents_t *contents)
{
    iso_status_t status = iso_contents_looks_sound(job, call, hold);
    iso_job_lock(job);
    if (status == ISO_OK)
        status = iso_heap_take_in(job, hold->heap);
    if (status == ISO_OK)
        own(job, hold, contents);
    iso_job_unlock(job);
    return status;
}

void iso_contents_abandon(iso_job_t *job, iso_hold_t *hold, const iso_contents_t *contents)
{
    iso_job_lock(job);
    abandon(job, hold, contents);
    iso_job_unlock(job);
}
