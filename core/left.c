/* left.c - see left.h. */
#include "core/left.h"
#include "core/grant.h"
#include "core/job.h"
#include "core/stack_guard.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void left_unlink(iso_retain_t *retain, iso_left_t *left)
{
    iso_left_idle_forget(retain, left);
    if (left->prev)
        left->prev->next = left->next;
    else
        retain->oldest = left->next;
    if (left->next)
        left->next->prev = left->prev;
    else
        retain->newest = left->prev;
    free(left);
}

void iso_left_close(iso_retain_t *retain)
{
    for (iso_left_t *left = retain->oldest, *next; left; left = next) {
        next = left->next;
        iso_runs_free(&left->idle);
        free(left);
    }
    retain->oldest = retain->newest = NULL;
    retain->unseen = 0;
}

static void left_detach_slot(iso_job_t *job, uint32_t slot)
{
    iso_retain_t *retain = &job->retain;
    iso_left_t *left = retain->left_of[slot];
    uint32_t units = iso_units_in(retain->resident[slot]);
    retain->left_of[slot] = NULL;
    retain->left_units -= units;
    if (left->state == ISO_LEFT_REVOKING)
        retain->revoking_units -= units;
    left->units -= units;
    left->whole = false;
    if (--left->slots_left == 0)
        left_unlink(retain, left);
}

/* Takes back what claim_words has done up to the slot. */
static void unclaim_words(iso_job_t *job, const iso_extent_t *extents, uint32_t count,
                          uint32_t until)
{
    for (uint32_t e = 0; e < count; e++)
        for (uint32_t i = 0; i < iso_extent_slots(&extents[e]); i++) {
            if (extents[e].first + i == until)
                return;
            iso_node_unclaim(&job->node, extents[e].first + i);
        }
}

/* The node's words. The heap's first slot says whether the heap is in the node: the others cannot, when
 * it was handed over since they were written. */
static bool claim_words(iso_job_t *job, const iso_heap_t *heap, const iso_extent_t *extents,
                        uint32_t count, iso_coming_t coming)
{
    iso_claim_t answer = ISO_CLAIM_YES;
    uint32_t heap_slot = heap ? iso_space_slot(&job->space, heap) : 0;
    if (coming == ISO_COMING_HANDOVER || !job->node.words || !job->node.shared_pages)
        return true;
    if (coming == ISO_COMING_RESERVED)
        answer = iso_node_claim(&job->node, heap_slot, false);
    if (answer == ISO_CLAIM_NO)
        return false;
    for (uint32_t e = 0; e < count; e++)
        for (uint32_t i = 0; i < iso_extent_slots(&extents[e]); i++) {
            uint32_t slot = extents[e].first + i;
            bool claimed = true;
            if (coming == ISO_COMING_FREE)
                iso_node_receive(&job->node, slot);
            else if (coming == ISO_COMING_GRANTED)
                claimed = iso_node_claim_left(&job->node, slot);
            else if (slot != heap_slot)
                claimed =
                    iso_node_claim(&job->node, slot, answer == ISO_CLAIM_OF_DEAD) != ISO_CLAIM_NO;
            if (!claimed) {
                unclaim_words(job, extents, count, slot);
                if (coming == ISO_COMING_RESERVED)
                    iso_node_unclaim(&job->node, heap_slot);
                return false;
            }
        }
    return true;
}

bool iso_left_claim(iso_job_t *job, const iso_heap_t *heap, const iso_extent_t *extents,
                    uint32_t count, iso_coming_t coming)
{
    iso_retain_t *retain = &job->retain;
    if (!claim_words(job, heap, extents, count, coming))
        return false;
    if (coming == ISO_COMING_GRANTED || coming == ISO_COMING_HANDOVER)
        iso_stack_guard_lift_headers(job, extents, count);
    else
        iso_stack_guard_lift_kept(job, extents, count);
    if (!retain->oldest && !iso_windows_pin(job))
        return true;
    for (uint32_t e = 0; e < count; e++)
        for (uint32_t i = 0; i < iso_extent_slots(&extents[e]); i++) {
            uint32_t slot = extents[e].first + i;
            iso_retain_settle(job, slot, false);
            if (!retain->left_of[slot])
                continue;
            if (coming !=
                ISO_COMING_GRANTED) /* its stacks may be gone by now: nobody would look again */
                iso_left_look_at(job, retain->left_of[slot]);
            left_detach_slot(job, slot);
            /* Which of these units the arriving heap uses is not known without a look at every
             * slot of it: the look is postponed until trim has a reason for it. */
            uint32_t mask = retain->resident[slot];
            retain->resident[slot] = 0;
            if (coming != ISO_COMING_HANDOVER)
                iso_retain_dirty(job, slot, mask);
        }
    return true;
}

void iso_left_own(iso_job_t *job, const iso_extent_t *extents, uint32_t count)
{
    if (!job->node.words || !job->node.shared_pages)
        return;
    for (uint32_t e = 0; e < count; e++)
        for (uint32_t i = 0; i < iso_extent_slots(&extents[e]); i++)
            iso_node_own(&job->node, extents[e].first + i);
}

static void mark_runs(iso_job_t *job, const iso_runs_t *runs)
{
    bool whole = iso_windows_pin(job);
    for (size_t r = 0; r < runs->count; r++) {
        const iso_run_t *run = &runs->list[r];
        uint32_t slot = iso_space_slot(&job->space, (void *)run->address);
        for (;; slot++) {
            uintptr_t address = (uintptr_t)iso_space_slot_address(&job->space, slot);
            if (address >= run->address + run->length)
                break;
            job->retain.resident[slot] |= whole ? ISO_UNITS_ALL : iso_units_of_run(run, address);
        }
    }
}

static void release_left(iso_job_t *job, iso_left_t *left)
{
    iso_retain_t *retain = &job->retain;
    iso_left_look_at(job, left);
    uint32_t remaining = left->slots_left; /* left itself is freed with its last slot */
    for (uint32_t e = 0; remaining > 0; e++)
        for (uint32_t i = 0; remaining > 0 && i < iso_extent_slots(&left->extents[e]); i++) {
            uint32_t slot = left->extents[e].first + i;
            if (retain->left_of[slot] != left)
                continue;
            if (iso_node_release_begin(&job->node, slot)) {
                iso_retain_punch(job, slot, retain->resident[slot]);
                iso_node_release_end(&job->node, slot);
            }
            remaining--;
            left_detach_slot(job, slot);
            retain->resident[slot] = 0;
        }
}

/* Slots of the run that the one before it is not in: runs are in order in each slot. */
static uint64_t new_slots(const iso_job_t *job, const iso_run_t *runs, size_t r)
{
    uint32_t first = iso_space_slot(&job->space, (void *)runs[r].address);
    uint32_t last = iso_space_slot(&job->space, (void *)(runs[r].address + runs[r].length - 1));
    bool known = r > 0 && first == iso_space_slot(&job->space, (void *)(runs[r - 1].address));
    return (uint64_t)last - first + !known;
}

static uint64_t bytes_of(const iso_job_t *job, const iso_runs_t *runs)
{
    uint64_t bytes = 0;
    bool whole = iso_windows_pin(job);
    for (size_t r = 0; r < runs->count && bytes <= job->retain.limit; r++)
        bytes +=
            whole ? new_slots(job, runs->list, r) << ISO_SLOT_SHIFT
                  : (runs->list[r].length + 2 * ISO_UNIT_SIZE - 1) & ~(uint64_t)(ISO_UNIT_SIZE - 1);
    return bytes;
}

/* From the first page on that is in memory. */
static uint64_t touched_bytes_of(const iso_job_t *job, const iso_runs_t *runs)
{
    uint64_t bytes = 0;
    for (size_t r = 0; r < runs->count && bytes <= job->retain.limit; r++) {
        const iso_run_t *run = &runs->list[r];
        const size_t first = iso_space_first_page(
            &job->space, iso_space_offset(&job->space, (const void *)run->address), run->length);
        iso_run_t touched = {run->address + first, run->length - first};
        if (first < run->length)
            bytes += bytes_of(job, &(iso_runs_t){.list = &touched, .count = 1});
    }
    return bytes;
}

uint32_t iso_left_promise(iso_job_t *job, const iso_runs_t *runs, const iso_runs_t *idle)
{
    iso_retain_t *retain = &job->retain;
    const uint64_t bytes = bytes_of(job, runs);
    if (bytes + bytes_of(job, idle) > retain->limit && /* where it matters the system is asked */
        bytes + touched_bytes_of(job, idle) > retain->limit)
        return 0;
    if (++retain->generation == 0)
        retain->generation = 1;
    return retain->generation;
}

/* No memory to remember a slot by. Under a grant its pages must stay all the same. */
static void forget_left(iso_job_t *job, uint32_t slot, bool granted)
{
    if (!granted && iso_node_release_begin(&job->node, slot)) {
        iso_retain_punch(job, slot, job->retain.resident[slot]);
        iso_node_release_end(&job->node, slot);
    } else if (iso_windows_pin(job))
        job->space.pinned = true; /* no page goes from here on: nobody knows of the grant */
    job->retain.resident[slot] = 0;
}

/* What the resident bits of these slots say is left, by this rank. */
static void leave(iso_job_t *job, iso_heap_t *heap, const iso_extent_t *extents, uint32_t count,
                  iso_runs_t *idle, const iso_promise_t *promise, bool came)
{
    iso_retain_t *retain = &job->retain;
    iso_left_t *left = malloc(sizeof *left + count * sizeof *extents);
    if (!left) {
        mark_runs(job, idle); /* nobody will look again */
    } else {
        *left = (iso_left_t){.heap = heap,
                             .holder = promise->holder,
                             .generation = promise->generation,
                             .epoch = promise->epoch,
                             .state = promise->generation ? ISO_LEFT_GRANTED : ISO_LEFT_IDLE,
                             .extent_count = count,
                             .whole = true};
        memcpy(left->extents, extents, count * sizeof *extents);
    }
    for (uint32_t e = 0; e < count; e++)
        for (uint32_t i = 0; i < iso_extent_slots(&extents[e]); i++) {
            uint32_t slot = extents[e].first + i;
            if (came) {
                iso_node_leave(&job->node, slot);
            } else if (!iso_node_abandon(&job->node, slot)) {
                retain->resident[slot] = 0; /* another rank of the node answers for it */
                continue;
            }
            if (left) {
                retain->left_of[slot] = left;
                left->units += iso_units_in(retain->resident[slot]);
                left->slots_left++;
            } else {
                forget_left(job, slot, promise->generation != 0);
            }
        }
    if (!left || left->slots_left == 0) {
        free(left);
        return;
    }
    left->prev = retain->newest;
    if (left->prev)
        left->prev->next = left;
    else
        retain->oldest = left;
    retain->newest = left;
    retain->left_units += left->units;
    if (idle->count == 0)
        return;
    left->idle = *idle;
    left->went = iso_os_now_coarse();
    *idle = (iso_runs_t){.list = NULL};
    if (retain->unseen++ == 0)
        retain->look_at = left->went;
}

/* The slots' units are not counted as dirty any more. */
static void undirty(iso_job_t *job, const iso_extent_t *extents, uint32_t count, uint32_t resident)
{
    iso_retain_t *retain = &job->retain;
    for (uint32_t e = 0; e < count; e++)
        for (uint32_t i = 0; i < iso_extent_slots(&extents[e]); i++) {
            uint32_t slot = extents[e].first + i;
            retain->dirty_units -= iso_units_in(retain->resident[slot]);
            retain->resident[slot] |= resident;
        }
}

void iso_left_leave(iso_job_t *job, iso_heap_t *heap, const iso_extent_t *extents, uint32_t count,
                    const iso_runs_t *runs, iso_runs_t *idle, const iso_promise_t *promise)
{
    /* Of what is pinned a slot counts as a whole (retain.h): one in the middle of a stack, too, that no run is in, and
     * that the heap's next visit may put to. */
    undirty(job, extents, count, iso_windows_pin(job) ? ISO_UNITS_ALL : 0);
    mark_runs(job, runs);
    leave(job, heap, extents, count, idle, promise, true);
}

void iso_left_abandon(iso_job_t *job, iso_heap_t *heap, const iso_extent_t *extents, uint32_t count)
{
    const iso_promise_t nothing = {0, 0, 0};
    iso_runs_t none = {.list = NULL};
    undirty(job, extents, count, ISO_UNITS_ALL);
    leave(job, heap, extents, count, &none, &nothing, false);
}

static bool overlap(const iso_extent_t *a, const iso_extent_t *b)
{
    return a->first < b->first + iso_extent_slots(b) && b->first < a->first + iso_extent_slots(a);
}

/* Known to nobody here, and each only once. */
static bool are_strange(const iso_job_t *job, const iso_extent_t *extents, uint32_t count)
{
    for (uint32_t e = 0; e < count; e++) {
        for (uint32_t other = 0; other < e; other++)
            if (overlap(&extents[e], &extents[other]))
                return false;
        if (!iso_slots_unknown(&job->slots, &extents[e]))
            return false;
        for (uint32_t i = 0; i < iso_extent_slots(&extents[e]); i++)
            if (job->retain.left_of[extents[e].first + i])
                return false;
    }
    return count > 0;
}

uint32_t iso_left_expect(iso_job_t *job, iso_heap_t *heap, const iso_extent_t *extents,
                         uint32_t count, uint32_t holder, uint64_t epoch)
{
    iso_retain_t *retain = &job->retain;
    if (job->node.shared_pages || !are_strange(job, extents, count))
        return 0;
    if (++retain->generation == 0)
        retain->generation = 1;
    uint32_t generation = retain->generation;
    iso_stack_guard_lift_kept(job, extents, count);
    undirty(job, extents, count, iso_windows_pin(job) ? ISO_UNITS_ALL : 0);
    leave(job, heap, extents, count, &(iso_runs_t){.list = NULL},
          &(iso_promise_t){holder, generation, epoch}, true);
    bool remembered = retain->newest && retain->newest->generation == generation;
    return remembered ? generation : 0;
}

bool iso_left_is_stale(const iso_job_t *job, const iso_heap_t *heap, uint64_t epoch)
{
    const iso_left_t *left = job->retain.left_of[iso_space_slot(&job->space, heap)];
    return left && left->heap == heap && left->state != ISO_LEFT_IDLE && epoch <= left->epoch;
}

static bool is_grant(const iso_left_t *left, const iso_heap_t *heap, uint32_t holder,
                     uint32_t generation)
{
    return left->heap == heap && left->state != ISO_LEFT_IDLE && left->holder == holder &&
           left->generation == generation;
}

iso_left_t *iso_left_granted(iso_job_t *job, const iso_heap_t *heap, uint32_t holder,
                             uint32_t generation)
{
    iso_left_t *left = job->retain.left_of[iso_space_slot(&job->space, heap)];
    return left && left->whole && is_grant(left, heap, holder, generation) ? left : NULL;
}

static void ungrant(iso_job_t *job, iso_left_t *left)
{
    if (left->state == ISO_LEFT_REVOKING) {
        job->retain.revoking_units -= left->units;
        left->state = ISO_LEFT_IDLE;
        release_left(job, left);
    } else {
        left->state = ISO_LEFT_IDLE;
        if (left->units == 0) /* it never was here */
            release_left(job, left);
    }
}

void iso_left_ungrant(iso_job_t *job, const iso_heap_t *heap, uint32_t holder, uint32_t generation)
{
    iso_left_t *left = job->retain.left_of[iso_space_slot(&job->space, heap)];
    /* the heap's first slot may have been claimed since, and the rest still be left */
    if (!left || !is_grant(left, heap, holder, generation))
        for (left = job->retain.newest; left; left = left->prev)
            if (is_grant(left, heap, holder, generation))
                break;
    if (left)
        ungrant(job, left);
}

void iso_left_holder_dead(iso_job_t *job, uint32_t holder)
{
    for (iso_left_t *left = job->retain.oldest, *next; left; left = next) {
        next = left->next;
        if (left->state != ISO_LEFT_IDLE && left->holder == holder)
            ungrant(job, left);
    }
}

static void revoke(iso_job_t *job, iso_left_t *left)
{
    left->state = ISO_LEFT_REVOKING;
    job->retain.revoking_units += left->units;
    job->stats.grants_revoked++;
    iso_grant_revoke(job, left->heap, left->holder, left->generation);
}

void iso_left_trim(iso_job_t *job, uint64_t limit)
{
    const iso_retain_t *retain = &job->retain;
    for (iso_left_t *left = retain->oldest, *next;
         left && retain->dirty_units + retain->left_units - retain->revoking_units > limit;
         left = next) {
        next = left->next;
        if (left->units == 0)
            continue;
        if (left->state == ISO_LEFT_IDLE)
            release_left(job, left);
        else if (left->state == ISO_LEFT_GRANTED)
            revoke(job, left);
    }
}
