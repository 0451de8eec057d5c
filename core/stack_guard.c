/* stack_guard.c - see stack_guard.h. */
#include "core/stack_guard.h"
#include "core/job.h"
#include "core/os.h"

static ISO_ATOMIC(uint32_t) * units_of(const iso_job_t *job, const void *address)
{
    return &job->guards.stacks[iso_space_slot(&job->space, address)];
}

static uint32_t unit_bit(uintptr_t address)
{
    return 1u << ((address & ISO_SLOT_MASK) >> ISO_UNIT_SHIFT);
}

void iso_stack_guard_make(iso_job_t *job, char *page)
{
    if (job->params.guard == ISO_GUARD_NONE)
        return;
    iso_job_lock(job);
    if (iso_guard_page_make(job, page) == 0) {
        atomic_fetch_or_explicit(units_of(job, page), unit_bit((uintptr_t)page),
                                 memory_order_relaxed);
        job->guards.stack_count++;
    }
    iso_job_unlock(job);
}

/* The lock is held. */
static void lift(iso_job_t *job, char *page)
{
    iso_guard_page_lift(job, page);
    atomic_fetch_and_explicit(units_of(job, page), ~unit_bit((uintptr_t)page),
                              memory_order_relaxed);
    job->guards.stack_count--;
}

void iso_stack_guard_lift(iso_job_t *job, char *page)
{
    iso_job_lock(job);
    if (atomic_load_explicit(units_of(job, page), memory_order_relaxed) & unit_bit((uintptr_t)page))
        lift(job, page);
    iso_job_unlock(job);
}

/* Calls fn for the page of each guard in these slots. */
static void each(iso_job_t *job, uint32_t first, uint32_t count,
                 void (*fn)(iso_job_t *job, char *page))
{
    for (uint32_t slot = first; slot < first + count && job->guards.stack_count > 0; slot++)
        for (uint32_t units = atomic_load_explicit(&job->guards.stacks[slot], memory_order_relaxed);
             units; units &= units - 1)
            fn(job, iso_space_slot_address(&job->space, slot) +
                        ((size_t)__builtin_ctz(units) << ISO_UNIT_SHIFT));
}

void iso_stack_guard_lift_all(iso_job_t *job, uint32_t first, uint32_t count)
{
    iso_job_lock(job);
    each(job, first, count, lift);
    iso_job_unlock(job);
}

void iso_stack_guard_pause(iso_job_t *job, uint32_t first, uint32_t count)
{
    each(job, first, count, iso_guard_page_pause);
}

void iso_stack_guard_resume(iso_job_t *job, uint32_t first, uint32_t count)
{
    each(job, first, count, iso_guard_page_resume);
}

bool iso_stack_guard_has(const iso_job_t *job, uintptr_t address)
{
    return address % ISO_UNIT_SIZE < iso_os_page_size() &&
           atomic_load_explicit(units_of(job, (const void *)address), memory_order_relaxed) &
               unit_bit(address);
}
