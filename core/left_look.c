/*
 * left_look.c - what stacks left in memory, below what of them migrated: counted when their heap stays away (left.h).
 */
#include "core/job.h"
#include "core/left.h"
#include <math.h>

#define LOOK_AFTER 0.01 /* s: who is away for so long does not go to and fro */

void iso_left_idle_forget(iso_retain_t *retain, iso_left_t *left)
{
    retain->unseen -= left->idle.count > 0;
    iso_runs_free(&left->idle);
}

/* What is resident of this range is left's. It is from its first page in memory on: what a stack once used. */
static void look_at_range(iso_job_t *job, iso_left_t *left, const iso_run_t *range)
{
    iso_retain_t *retain = &job->retain;
    const uint64_t guard = iso_os_page_size(); /* it begins with one */
    const uint64_t offset = iso_space_offset(&job->space, (void *)range->address) + guard;
    uint64_t first = guard + iso_space_first_page(&job->space, offset, range->length - guard);
    if (first >= range->length)
        return;
    first &= ~(uint64_t)(ISO_UNIT_SIZE - 1);
    const iso_run_t run = {range->address + first, range->length - first};
    uint32_t slot = iso_space_slot(&job->space, (void *)run.address);
    for (;; slot++) {
        const uintptr_t address = (uintptr_t)iso_space_slot_address(&job->space, slot);
        if (address >= run.address + run.length)
            return;
        if (retain->left_of[slot] != left)
            continue;
        const uint32_t more = iso_units_of_run(&run, address) & ~retain->resident[slot];
        retain->resident[slot] |= more;
        retain->left_units += iso_units_in(more);
        left->units += iso_units_in(more);
        if (left->state == ISO_LEFT_REVOKING)
            retain->revoking_units += iso_units_in(more);
    }
}

void iso_left_look_at(iso_job_t *job, iso_left_t *left)
{
    for (size_t i = 0; i < left->idle.count; i++)
        look_at_range(job, left, &left->idle.list[i]);
    iso_left_idle_forget(&job->retain, left);
}

void iso_left_look(iso_job_t *job, double before)
{
    iso_retain_t *retain = &job->retain;
    double next = INFINITY;
    if (retain->unseen == 0 || retain->look_at > before)
        return;
    uint32_t waiting = 0;
    /* those that nobody has looked at are the newest, apart from what left without anything idle */
    for (iso_left_t *left = retain->newest; left && waiting < retain->unseen; left = left->prev) {
        if (left->idle.count == 0)
            continue;
        if (left->went <= before) {
            iso_left_look_at(job, left);
        } else {
            waiting++;
            next = left->went;
        }
    }
    retain->look_at = next;
    iso_retain_trim(job);
}

void iso_left_advance(iso_job_t *job)
{
    if (job->retain.unseen > 0)
        iso_left_look(job, iso_os_now_coarse() - LOOK_AFTER);
}

/* A little later: the coarse clock may be late by a tick. */
double iso_left_deadline(const iso_job_t *job)
{
    return job->retain.unseen > 0 ? job->retain.look_at + 2 * LOOK_AFTER : INFINITY;
}
