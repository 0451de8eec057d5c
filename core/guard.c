/* guard.c - see guard.h. */
#include "core/guard.h"
#include "core/heap_layout.h"
#include "core/job.h"
#include "core/os.h"
#include "core/protect.h"
#include "core/stack_guard.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

iso_status_t iso_guard_open(iso_job_t *job)
{
    iso_guards_t *guards = &job->guards;
    memset(guards, 0, sizeof *guards);
    guards->total_slots = iso_space_slots(&job->space);
    guards->heap_of = iso_os_table_map(guards->total_slots * sizeof *guards->heap_of);
    guards->inside = iso_os_table_map(guards->total_slots * sizeof *guards->inside);
    guards->stacks = iso_os_table_map(guards->total_slots * sizeof *guards->stacks);
    guards->kept = iso_os_table_map(guards->total_slots * sizeof *guards->kept);
    if (!guards->heap_of || !guards->inside || !guards->stacks || !guards->kept)
        return ISO_ERR_NO_MEMORY;
    const char *without = getenv("ISO_TEST_NO_GUARD_INSTALL"); /* as on a kernel that has none */
    if (without && *without == '1')
        guards->means = ISO_GUARD_BY_PROTECTION;
    return ISO_OK;
}

void iso_guard_close(iso_job_t *job)
{
    /* the guards go with the mapping of the space */
    iso_os_table_unmap(job->guards.inside, job->guards.total_slots * sizeof *job->guards.inside);
    iso_os_table_unmap((void *)job->guards.kept,
                       job->guards.total_slots * sizeof *job->guards.kept);
    iso_os_table_unmap((void *)job->guards.stacks,
                       job->guards.total_slots * sizeof *job->guards.stacks);
    iso_os_table_unmap((void *)job->guards.heap_of,
                       job->guards.total_slots * sizeof *job->guards.heap_of);
    memset(&job->guards, 0, sizeof job->guards);
}

static uintptr_t heap_of(const iso_guards_t *guards, uint32_t slot)
{
    return slot < guards->total_slots
               ? atomic_load_explicit(&guards->heap_of[slot], memory_order_relaxed)
               : 0;
}

static void set_heap_of(iso_guards_t *guards, uint32_t first, uint32_t count, uintptr_t heap)
{
    for (uint32_t i = 0; i < count; i++)
        atomic_store_explicit(&guards->heap_of[first + i], heap, memory_order_relaxed);
}

/* What a range more costs a process: of whole runs those that adjoin are one. */
static bool is_in_budget(iso_job_t *job, uint32_t first, uint32_t count)
{
    const iso_guards_t *guards = &job->guards;
    uint64_t ranges = job->stats.guards;
    if (job->params.guard == ISO_GUARD_ALL)
        ranges -= (heap_of(guards, first - 1) != 0) + (heap_of(guards, first + count) != 0);
    return guards->means == ISO_GUARD_BY_KERNEL || ranges < job->params.guard_budget;
}

static void not_made(iso_job_t *job, const char *why, const char *remedy)
{
    job->stats.guards_not_made++;
    if (job->guards.warned)
        return;
    job->guards.warned = true;
    iso_log(&job->logger, ISO_LOG_WARN,
            "a freed large block or a stack is not guarded: %s; %s, or set ISO_GUARD=none "
            "(iso_stats counts further ones: guards_not_made)",
            why, remedy);
}

static const char used_up[] = "ISO_GUARD_BUDGET is used up";

static void not_made_for(iso_job_t *job, int error)
{
    not_made(job, strerror(error), "raise vm.max_map_count if this is ENOMEM");
}

/* Anonymous memory that a device has pinned: see guard.h. */
static void choose_means(iso_job_t *job)
{
    if ((job->space.pinned || iso_windows_pin(job)) && job->space.backing == ISO_BACKING_ANON)
        job->guards.means = ISO_GUARD_BY_PROTECTION;
}

/* 0 or errno; afterwards the means may be another. */
static int install(iso_job_t *job, char *address, size_t length)
{
    int error = iso_os_guard_install(address, length);
    if (error == EINVAL) {
        iso_log(&job->logger, ISO_LOG_INFO,
                "this kernel has no MADV_GUARD_INSTALL for memory objects (Linux 6.15): freed "
                "large blocks and stacks are guarded by mprotect, ISO_GUARD_BUDGET=%" PRIu32
                " at most",
                job->params.guard_budget);
        job->guards.means = ISO_GUARD_BY_PROTECTION;
    }
    job->guards.used[ISO_GUARD_BY_KERNEL] |= !error;
    return error;
}

/* 0 or errno. */
static int protect(iso_job_t *job, char *address, size_t length)
{
    int error = iso_os_protect(address, length, false);
    job->guards.used[ISO_GUARD_BY_PROTECTION] |= !error;
    return error;
}

/* Of a guard that was taken away for a while. 0 or errno. */
static int make_again(iso_job_t *job, char *address, size_t length)
{
    return job->guards.means == ISO_GUARD_BY_PROTECTION ? protect(job, address, length)
                                                        : install(job, address, length);
}

/* Of a range that is a guard. It may be older than the means in use: either is undone that was ever used, which does
 * nothing to what is usable. 0 or errno. */
static int make_usable(const iso_job_t *job, char *address, size_t length)
{
    const iso_guards_t *guards = &job->guards;
    int error = guards->used[ISO_GUARD_BY_KERNEL] ? iso_os_guard_remove(address, length) : 0;
    return !error && guards->used[ISO_GUARD_BY_PROTECTION] ? iso_os_protect(address, length, true)
                                                           : error;
}

/* Where the guard of a run is: of all its slots, or of the page that the block begins in. */
static char *place(iso_job_t *job, const iso_extent_t *run, uint32_t *first_p, uint32_t *count_p,
                   size_t *length_p)
{
    char *address = iso_space_slot_address(&job->space, run->first);
    uint32_t offset = ((const iso_slot_t *)address)->run_offset;
    *first_p = run->first;
    *count_p = iso_extent_slots(run);
    *length_p = *count_p * ISO_SLOT_SIZE;
    if (job->params.guard == ISO_GUARD_ALL)
        return address;
    if (offset == ISO_SLOT_SIZE && *count_p > 1)
        ++*first_p;
    *count_p = 1;
    *length_p = iso_os_page_size();
    return iso_space_slot_address(&job->space, *first_p) +
           (offset == ISO_SLOT_SIZE ? 0 : ISO_SLOT_HEADER & ~(*length_p - 1));
}

void iso_guard_make(iso_job_t *job, const iso_heap_t *heap, const iso_extent_t *run)
{
    iso_guards_t *guards = &job->guards;
    uint32_t first, count;
    size_t length;
    if (job->params.guard == ISO_GUARD_NONE)
        return;
    char *address = place(job, run, &first, &count, &length);
    int error = EINVAL;
    choose_means(job);
    if (guards->means == ISO_GUARD_BY_KERNEL)
        error = install(job, address, length);
    if (guards->means == ISO_GUARD_BY_PROTECTION) {
        if (!is_in_budget(job, first, count)) {
            not_made(job, used_up, "raise it");
            return;
        }
        error = protect(job, address, length);
    }
    if (error) {
        not_made_for(job, error);
        return;
    }
    set_heap_of(guards, first, count, (uintptr_t)heap);
    guards->inside[first] = address != iso_space_slot_address(&job->space, first);
    guards->slots += count;
    job->stats.guards++;
    if (job->params.guard == ISO_GUARD_ALL)
        job->stats.guards -=
            (heap_of(guards, first - 1) != 0) + (heap_of(guards, first + count) != 0);
}

static void lift(iso_job_t *job, uint32_t first, uint32_t count)
{
    iso_guards_t *guards = &job->guards;
    char *address = iso_space_slot_address(&job->space, first);
    bool all = job->params.guard == ISO_GUARD_ALL;
    size_t page = iso_os_page_size();
    size_t length = all ? count * ISO_SLOT_SIZE : (ISO_SLOT_HEADER & ~(page - 1)) + page;
    int error = make_usable(job, address, length);
    if (error) /* to go on would be to fault in memory that is in use */
        iso_fatal("the guard at %p cannot be removed: %s; set ISO_GUARD=none", (void *)address,
                  strerror(error));
    set_heap_of(guards, first, count, 0);
    guards->slots -= count;
    job->stats.guards--;
    if (all)
        job->stats.guards +=
            (heap_of(guards, first - 1) != 0) + (heap_of(guards, first + count) != 0);
}

void iso_guard_lift(iso_job_t *job, uint32_t first, uint32_t count)
{
    const iso_guards_t *guards = &job->guards;
    uint32_t end = first + count, most = job->params.guard == ISO_GUARD_ALL ? count : 1;
    for (uint32_t slot = first; slot < end && guards->slots > 0; slot++) {
        if (!heap_of(guards, slot))
            continue;
        uint32_t length = 1;
        while (length < most && slot + length < end && heap_of(guards, slot + length))
            length++;
        lift(job, slot, length);
        slot += length - 1;
    }
}

/* ---- while pages are pinned ---- */

static void set_usable(iso_job_t *job, uint32_t slot, bool usable)
{
    const iso_guards_t *guards = &job->guards;
    char *address = iso_space_slot_address(&job->space, slot);
    size_t length = ISO_SLOT_SIZE, page = iso_os_page_size();
    if (job->params.guard != ISO_GUARD_ALL) {
        address += guards->inside[slot] ? ISO_SLOT_HEADER & ~(page - 1) : 0;
        length = page;
    }
    int error = usable ? make_usable(job, address, length) : make_again(job, address, length);
    if (error && usable) /* registering will say what comes of it */
        iso_log(&job->logger, ISO_LOG_WARN, "the guard at %p cannot be lifted: %s", (void *)address,
                strerror(error));
    else if (error)
        not_made_for(job, error);
}

static void set_all_usable(iso_job_t *job, uint32_t first, uint32_t count, bool usable)
{
    for (uint32_t i = 0; i < count && job->guards.slots > 0; i++)
        if (heap_of(&job->guards, first + i))
            set_usable(job, first + i, usable);
}

void iso_guard_pause(iso_job_t *job, uint32_t first, uint32_t count)
{
    set_all_usable(job, first, count, true);
    iso_stack_guard_pause(job, first, count);
    iso_protect_pause(job, first, count);
}

void iso_guard_resume(iso_job_t *job, uint32_t first, uint32_t count)
{
    set_all_usable(job, first, count, false);
    iso_stack_guard_resume(job, first, count);
    iso_protect_resume(job, first, count);
}

/* ---- single pages, below stacks ---- */

int iso_guard_page_make(iso_job_t *job, char *page)
{
    size_t length = iso_os_page_size();
    int error = EINVAL;
    choose_means(job);
    if (job->guards.means == ISO_GUARD_BY_KERNEL)
        error = install(job, page, length);
    if (job->guards.means == ISO_GUARD_BY_PROTECTION) {
        if (job->stats.guards >= job->params.guard_budget) {
            not_made(job, used_up, "raise it");
            return ENOMEM;
        }
        error = protect(job, page, length);
    }
    if (error)
        not_made_for(job, error);
    return error;
}

void iso_guard_page_lift(iso_job_t *job, char *page)
{
    int error = make_usable(job, page, iso_os_page_size());
    if (error) /* to go on would be to fault in memory that is in use */
        iso_fatal("the guard at %p cannot be removed: %s; set ISO_GUARD=none", (void *)page,
                  strerror(error));
}

void iso_guard_page_pause(iso_job_t *job, char *page)
{
    int error = make_usable(job, page, iso_os_page_size());
    if (error) /* registering will say what comes of it */
        iso_log(&job->logger, ISO_LOG_WARN, "the guard at %p cannot be lifted: %s", (void *)page,
                strerror(error));
}

void iso_guard_page_resume(iso_job_t *job, char *page)
{
    int error = make_again(job, page, iso_os_page_size());
    if (error)
        not_made_for(job, error);
}
