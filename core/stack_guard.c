/* stack_guard.c - see stack_guard.h. */
#include "core/stack_guard.h"
#include "core/job.h"
#include "core/os.h"

static uint32_t units_of(const iso_job_t *job, uint32_t slot)
{
    return atomic_load_explicit(&job->guards.stacks[slot], memory_order_relaxed);
}

static uint32_t kept_of(const iso_job_t *job, uint32_t slot)
{
    return atomic_load_explicit(&job->guards.kept[slot], memory_order_relaxed);
}

static uint32_t slot_of(const iso_job_t *job, uintptr_t address)
{
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): a handler has an address as a number */
    return iso_space_slot(&job->space, (const void *)address);
}

static uint32_t unit_bit(uintptr_t address)
{
    return 1u << ((address & ISO_SLOT_MASK) >> ISO_UNIT_SHIFT);
}

/* In use, none of them kept before. */
static void count_used(iso_job_t *job, uint32_t count)
{
    job->guards.stack_count += count;
    job->stats.guards += count;
}

static void count_unused(iso_job_t *job, uint32_t count)
{
    job->guards.stack_count -= count;
    job->stats.guards -= count;
}

/* The lock is held. */
static void set_kept(iso_job_t *job, uint32_t slot, uint32_t kept)
{
    job->guards.kept_count -= iso_units_in(kept_of(job, slot));
    job->guards.kept_count += iso_units_in(kept);
    atomic_store_explicit(&job->guards.kept[slot], kept, memory_order_relaxed);
}

void iso_stack_guard_make(iso_job_t *job, char *page)
{
    const uint32_t slot = slot_of(job, (uintptr_t)page), bit = unit_bit((uintptr_t)page);
    if (job->params.guard == ISO_GUARD_NONE)
        return;
    iso_job_lock(job);
    if (kept_of(job, slot) & bit) {
        set_kept(job, slot, kept_of(job, slot) & ~bit);
        count_used(job, 1);
    } else if (!(units_of(job, slot) & bit) && iso_guard_page_make(job, page) == 0) {
        atomic_fetch_or_explicit(&job->guards.stacks[slot], bit, memory_order_relaxed);
        count_used(job, 1);
    }
    iso_job_unlock(job);
}

/* Calls fn for the page of each guard that the mask has. */
static void each(iso_job_t *job, uint32_t slot, uint32_t units,
                 void (*fn)(iso_job_t *job, char *page))
{
    for (; units; units &= units - 1)
        fn(job, iso_space_slot_address(&job->space, slot) +
                    ((size_t)__builtin_ctz(units) << ISO_UNIT_SHIFT));
}

/* Those of the slot's guards that the mask has. The lock is held. */
static void lift(iso_job_t *job, uint32_t slot, uint32_t units)
{
    const uint32_t kept = kept_of(job, slot);
    units &= units_of(job, slot);
    if (!units)
        return;
    each(job, slot, units, iso_guard_page_lift);
    atomic_fetch_and_explicit(&job->guards.stacks[slot], ~units, memory_order_relaxed);
    count_unused(job, iso_units_in(units & ~kept));
    set_kept(job, slot, kept & ~units);
}

void iso_stack_guard_lift(iso_job_t *job, char *page)
{
    iso_job_lock(job);
    lift(job, slot_of(job, (uintptr_t)page), unit_bit((uintptr_t)page));
    iso_job_unlock(job);
}

static bool has_any(const iso_job_t *job)
{
    return job->guards.stack_count + job->guards.kept_count > 0;
}

void iso_stack_guard_lift_all(iso_job_t *job, uint32_t first, uint32_t count)
{
    iso_job_lock(job);
    for (uint32_t slot = first; slot < first + count && has_any(job); slot++)
        lift(job, slot, ISO_UNITS_ALL);
    iso_job_unlock(job);
}

uint64_t iso_stack_guard_count(iso_job_t *job, const iso_extent_t *extents, uint32_t count)
{
    uint64_t used = 0;
    iso_job_lock(job);
    for (uint32_t e = 0; e < count && job->guards.stack_count > 0; e++)
        for (uint32_t i = 0; i < iso_extent_slots(&extents[e]); i++) {
            const uint32_t slot = extents[e].first + i;
            used += iso_units_in(units_of(job, slot) & ~kept_of(job, slot));
        }
    iso_job_unlock(job);
    return used;
}

/* ---- kept ---- */

void iso_stack_guard_keep(iso_job_t *job, uint32_t first, uint32_t count)
{
    iso_job_lock(job);
    const bool costs = job->guards.means != ISO_GUARD_BY_KERNEL; /* a mapping, and of the budget */
    for (uint32_t slot = first; slot < first + count && job->guards.stack_count > 0; slot++) {
        const uint32_t used = units_of(job, slot) & ~kept_of(job, slot);
        if (costs) {
            lift(job, slot, used);
        } else if (used) {
            count_unused(job, iso_units_in(used));
            set_kept(job, slot, kept_of(job, slot) | used);
        }
    }
    iso_job_unlock(job);
}

bool iso_stack_guard_has_kept(iso_job_t *job, const iso_extent_t *extents, uint32_t count)
{
    bool found = false;
    iso_job_lock(job);
    for (uint32_t e = 0; e < count && !found && job->guards.kept_count > 0; e++)
        for (uint32_t i = 0; i < iso_extent_slots(&extents[e]) && !found; i++)
            found = kept_of(job, extents[e].first + i) != 0;
    iso_job_unlock(job);
    return found;
}

void iso_stack_guard_lift_kept(iso_job_t *job, const iso_extent_t *extents, uint32_t count)
{
    iso_job_lock(job);
    for (uint32_t e = 0; e < count; e++)
        for (uint32_t i = 0; i < iso_extent_slots(&extents[e]) && job->guards.kept_count > 0; i++)
            lift(job, extents[e].first + i, kept_of(job, extents[e].first + i));
    iso_job_unlock(job);
}

/* A run's later slots have none: a large block may begin there. */
void iso_stack_guard_lift_headers(iso_job_t *job, const iso_extent_t *extents, uint32_t count)
{
    iso_job_lock(job);
    for (uint32_t e = 0; e < count; e++) {
        const uint32_t headers =
            extents[e].count & ISO_EXTENT_RUN ? 1 : iso_extent_slots(&extents[e]);
        for (uint32_t i = 0; i < headers && job->guards.kept_count > 0; i++)
            lift(job, extents[e].first + i, kept_of(job, extents[e].first + i) & 1);
    }
    iso_job_unlock(job);
}

/* ---- while pages are pinned ---- */

void iso_stack_guard_pause(iso_job_t *job, uint32_t first, uint32_t count)
{
    for (uint32_t slot = first; slot < first + count && has_any(job); slot++)
        each(job, slot, units_of(job, slot), iso_guard_page_pause);
}

void iso_stack_guard_resume(iso_job_t *job, uint32_t first, uint32_t count)
{
    for (uint32_t slot = first; slot < first + count && has_any(job); slot++)
        each(job, slot, units_of(job, slot), iso_guard_page_resume);
}

bool iso_stack_guard_has(const iso_job_t *job, uintptr_t address)
{
    if (address % ISO_UNIT_SIZE >= iso_os_page_size())
        return false;
    const uint32_t slot = slot_of(job, address);
    return units_of(job, slot) & ~kept_of(job, slot) & unit_bit(address);
}
