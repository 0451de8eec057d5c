/* protect.c - see protect.h. */
#include "core/protect.h"
#include "core/around.h"
#include "core/direct.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/os.h"
#include "core/shared.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#define USABLE ((uint32_t)(PROT_READ | PROT_WRITE))
#define ALL ((uint32_t)(PROT_READ | PROT_WRITE | PROT_EXEC))
#define ROOM_FIRST 4u

const char iso_protect_list[] = "the list of a heap's protections";

/* 0 or errno. */
static int set(uint64_t start, uint64_t end, uint32_t protection)
{
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): addresses in the list are numbers of a fixed width */
    return iso_os_protect_as((void *)(uintptr_t)start, (size_t)(end - start), (int)protection);
}

static void set_usable(uint64_t start, uint64_t end)
{
    int error = set(start, end, USABLE);
    if (error) /* to go on would be to fault in memory that is in use */
        iso_fatal("the protection at %#" PRIx64 " cannot be lifted: %s; raise vm.max_map_count if "
                  "memory is short",
                  start, strerror(error));
}

/* ---- the list ---------------------------------------------------------------------------------- */

static size_t list_size(uint64_t room)
{
    return sizeof(iso_protections_t) + (size_t)room * sizeof(iso_protection_t);
}

/* The first one that ends behind the address; `count`: there is none. */
static uint64_t find(const iso_protections_t *protections, uint64_t address)
{
    uint64_t low = 0, high = protections->count;
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        if (protections->list[middle].end > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Takes the place of those from `first` to before `last`. There is room. */
static void replace(iso_protections_t *protections, uint64_t first, uint64_t last,
                    const iso_protection_t *pieces, uint64_t count)
{
    iso_protection_t *list = protections->list;
    memmove(&list[first + count], &list[last], (size_t)(protections->count - last) * sizeof *list);
    for (uint64_t i = 0; i < count; i++)
        list[first + i] = pieces[i];
    protections->count = protections->count - (last - first) + count;
}

/* Two that adjoin, are alike and of one block become one, so that a block that is protected page by page has few. */
static void join(iso_protections_t *protections, uint64_t at, const iso_around_t *block)
{
    iso_protection_t *left = &protections->list[at], *right = left + 1;
    if (at + 1 >= protections->count || left->end != right->start ||
        left->protection != right->protection || left->end <= block->start ||
        left->end >= block->alone)
        return;
    const iso_protection_t both = {left->start, right->end, left->protection, 0};
    replace(protections, at, at + 2, &both, 1);
}

/* What this covers of the others is its; parts that stick out stay. There is room for two more. */
static void enter(iso_protections_t *protections, const iso_protection_t *new,
                  const iso_around_t *block)
{
    const iso_protection_t *list = protections->list;
    const uint64_t first = find(protections, new->start);
    uint64_t last = first, count = 0;
    iso_protection_t pieces[3];
    while (last < protections->count && list[last].start < new->end)
        last++;
    if (last > first && list[first].start < new->start)
        pieces[count++] =
            (iso_protection_t){list[first].start, new->start, list[first].protection, 0};
    if (new->protection != USABLE)
        pieces[count++] = *new;
    if (last > first && list[last - 1].end > new->end)
        pieces[count++] =
            (iso_protection_t){new->end, list[last - 1].end, list[last - 1].protection, 0};
    replace(protections, first, last, pieces, count);
    for (uint64_t at = first + count; at-- > (first > 0 ? first - 1 : 0);)
        join(protections, at, block);
}

/* The heap's list, with room for two more than it has, in a new block if need be; what was there before is *old_p, to be
 * freed later. NULL: no memory. Without the job's lock, in which nothing may be allocated. */
static iso_protections_t *list_with_room(iso_job_t *job, iso_heap_t *heap,
                                         iso_protections_t **old_p)
{
    iso_protections_t *old = heap->protections, *new;
    const uint64_t count = old ? old->count : 0;
    *old_p = NULL;
    if (old && old->count + 2 <= old->room)
        return old;
    const uint64_t room = old ? 2 * old->room : ROOM_FIRST;
    new = iso_malloc(heap, list_size(room));
    if (!new)
        return NULL;
    *new = (iso_protections_t){.count = count, .room = room};
    if (old)
        memcpy(new->list, old->list, (size_t)count * sizeof *new->list);
    iso_job_lock(job);
    heap->protections = new;
    iso_job_unlock(job);
    *old_p = old;
    return new;
}

/* The list, to be freed, if none is in it any more; else NULL. Under the job's lock. */
static iso_protections_t *drop_if_empty(iso_hold_t *hold)
{
    iso_protections_t *protections = hold->heap->protections;
    if (protections->count > 0)
        return NULL;
    hold->heap->protections = NULL;
    hold->is_protected = false;
    return protections;
}

/* Its own block is as any other: it may have been written past, or come from elsewhere. */
bool iso_protect_is_sound(const iso_job_t *job, const iso_heap_t *heap)
{
    const size_t page = iso_os_page_size();
    const iso_protections_t *protections = heap->protections;
    iso_around_t around;
    if (!protections)
        return true;
    if (!iso_around_find(job, heap, (uintptr_t)protections, &around) ||
        around.start != (uintptr_t)protections || around.is_stack ||
        around.end - around.start < list_size(0) ||
        protections->room > (around.end - around.start) / sizeof(iso_protection_t) ||
        list_size(protections->room) > around.end - around.start || protections->count == 0 ||
        protections->count > protections->room)
        return false;
    uint64_t before = 0;
    for (uint64_t i = 0; i < protections->count; i++) {
        const iso_protection_t *at = &protections->list[i];
        if (at->start < before || at->start >= at->end || (at->start | at->end) % page != 0 ||
            at->protection & ~ALL || at->protection == USABLE ||
            !iso_around_find(job, heap, (uintptr_t)at->start, &around) || around.is_stack ||
            at->end > around.alone)
            return false;
        before = at->end;
    }
    return true;
}

/* ---- a heap that comes and goes ----------------------------------------------------------------- */

void iso_protect_lift(iso_hold_t *hold)
{
    if (!hold->is_protected) /* it may be gone, and another rank's */
        return;
    const iso_protections_t *protections = hold->heap->protections;
    if (!protections || !iso_protect_is_sound(hold->job, hold->heap))
        iso_heap_damaged(hold->heap, protections, iso_protect_list);
    for (uint64_t i = 0; i < protections->count; i++)
        set_usable(protections->list[i].start, protections->list[i].end);
    hold->is_protected = false;
}

void iso_protect_make(iso_hold_t *hold)
{
    const iso_protections_t *protections = hold->heap->protections;
    uint64_t failed = 0;
    int error = 0;
    if (!protections)
        return;
    for (uint64_t i = 0; i < protections->count; i++) {
        const iso_protection_t *at = &protections->list[i];
        const int why = set(at->start, at->end, at->protection);
        failed += why != 0;
        error = why ? why : error;
    }
    hold->is_protected = true;
    if (error)
        iso_log(&hold->job->logger, ISO_LOG_ERROR,
                "heap %p: %" PRIu64 " of its %" PRIu64
                " protections do not hold here: %s; raise vm.max_map_count if memory is short",
                (void *)hold->heap, failed, protections->count, strerror(error));
}

/* ---- blocks ------------------------------------------------------------------------------------- */

void iso_protect_end(const iso_block_t *block, const void *ptr)
{
    iso_heap_t *heap = block->heap;
    const uint64_t page = iso_os_page_size(), start = (uintptr_t)ptr;
    const uint64_t end = (start + block->size + page - 1) & ~(page - 1);
    if (!heap->protections)
        return;
    iso_hold_t *hold = iso_hold_find(NULL, heap);
    iso_job_lock(hold->job);
    iso_protections_t *protections = heap->protections;
    const uint64_t first = find(protections, start);
    uint64_t last = first;
    for (; last < protections->count && protections->list[last].start < end; last++)
        set_usable(protections->list[last].start, protections->list[last].end);
    replace(protections, first, last, NULL, 0);
    protections = drop_if_empty(hold);
    iso_job_unlock(hold->job);
    iso_free(protections);
}

bool iso_protect_is_in(const iso_heap_t *heap, const void *slot)
{
    const iso_protections_t *protections = heap->protections;
    if (!protections)
        return false;
    const uint64_t at = find(protections, (uintptr_t)slot);
    return at < protections->count && protections->list[at].start < (uintptr_t)slot + ISO_SLOT_SIZE;
}

static iso_status_t refuse(const iso_logger_t *logger, const void *address, size_t length,
                           iso_status_t status, const char *why)
{
    iso_log(logger, ISO_LOG_ERROR, "iso_protect of %zu bytes at %p: %s", length, address, why);
    return status;
}

/* Whole pages. The heap is the caller's alone. */
static iso_status_t protect(iso_hold_t *hold, const char *address, size_t length,
                            uint32_t protection)
{
    iso_job_t *job = hold->job;
    iso_heap_t *heap = hold->heap;
    const uint64_t start = (uintptr_t)address, end = start + length;
    const iso_protection_t new = {start, end, protection, 0};
    iso_around_t around;
    iso_protections_t *old;
    if (!iso_around_find(job, heap, start, &around) || end > around.alone)
        return refuse(&job->logger, address, length, ISO_ERR_INVALID,
                      "it is not inside of one block of the heap");
    if (around.is_stack)
        return refuse(&job->logger, address, length, ISO_ERR_INVALID,
                      "the block is a stack, of which only the part in use migrates");
    if (protection == USABLE && !heap->protections)
        return ISO_OK;
    if (!list_with_room(job, heap, &old))
        return refuse(&job->logger, address, length, ISO_ERR_NO_MEMORY,
                      "the heap has no room for the list of its protections");
    iso_job_lock(job);
    const int error = set(start, end, protection);
    if (!error) {
        enter(heap->protections, &new, &around);
        iso_direct_clear(iso_slot_of(address), 1); /* iso_free has to look */
        hold->is_protected = true;
    } else { /* a part of it may have been set */
        set(start, end, USABLE);
        iso_protect_make(hold);
    }
    iso_protections_t *empty = drop_if_empty(hold);
    iso_job_unlock(job);
    iso_free(old);
    iso_free(empty);
    if (error)
        return refuse(
            &job->logger, address, length, error == ENOMEM ? ISO_ERR_LIMIT : ISO_ERR_SYSTEM,
            error == ENOMEM ? "mprotect has no memory: raise vm.max_map_count" : strerror(error));
    return ISO_OK;
}

iso_status_t iso_protect(iso_heap_t *heap, void *address, size_t length, int protection)
{
    const iso_job_row_t *row = iso_job_row_of(heap);
    const iso_logger_t logger = row ? row->job->logger : iso_logger_default();
    const size_t page = iso_os_page_size(), whole = (length + page - 1) & ~(page - 1);
    if (!row)
        return refuse(&logger, address, length, ISO_ERR_NOT_OWNER, "there is no such heap");
    if (!iso_job_is_ours(row->job, "iso_protect"))
        return ISO_ERR_INVALID;
    if ((uintptr_t)address % page != 0)
        return refuse(&logger, address, length, ISO_ERR_INVALID, "it has to begin with a page");
    if (length > row->job->space.size)
        return refuse(&logger, address, length, ISO_ERR_INVALID, "the iso space is not so large");
    if ((uint32_t)protection & ~ALL)
        return refuse(&logger, address, length, ISO_ERR_INVALID,
                      "only PROT_READ, PROT_WRITE and PROT_EXEC are known");
    iso_shared_t *shared = iso_shared_lock(heap);
    iso_hold_t *hold = iso_hold_find(row->job, heap);
    iso_status_t status = ISO_OK;
    if (!hold)
        status =
            refuse(&logger, address, length, ISO_ERR_NOT_OWNER, "the heap is not at this rank");
    else if (hold->state != ISO_HEAP_OWNED)
        status = refuse(&logger, address, length, ISO_ERR_BUSY, "the heap is migrating");
    else if (length > 0)
        status = protect(hold, address, whole, (uint32_t)protection);
    iso_shared_leave(shared);
    return status;
}

/* ---- while pages are pinned --------------------------------------------------------------------- */

static void set_all(iso_job_t *job, uint32_t first, uint32_t count, uint32_t more)
{
    const uint64_t from = (uintptr_t)iso_space_slot_address(&job->space, first);
    const uint64_t to = from + ((uint64_t)count << ISO_SLOT_SHIFT);
    for (const iso_hold_t *hold = job->holds; hold; hold = hold->next) {
        if (!hold->is_protected) /* its pages may not have come yet */
            continue;
        const iso_protections_t *protections = hold->heap->protections;
        for (uint64_t i = find(protections, from);
             i < protections->count && protections->list[i].start < to; i++) {
            const iso_protection_t *at = &protections->list[i];
            const int error = set(at->start, at->end, at->protection | more);
            if (error) /* registering will say what comes of it */
                iso_log(&job->logger, ISO_LOG_WARN,
                        "the protection at %#" PRIx64 " cannot be %s: %s", at->start,
                        more ? "lifted" : "made again", strerror(error));
        }
    }
}

void iso_protect_pause(iso_job_t *job, uint32_t first, uint32_t count)
{
    set_all(job, first, count, USABLE);
}

void iso_protect_resume(iso_job_t *job, uint32_t first, uint32_t count)
{
    set_all(job, first, count, 0);
}

/* ---- for who explains faults -------------------------------------------------------------------- */

bool iso_protect_has(const iso_job_t *job, const iso_heap_t *heap, uintptr_t address)
{
    const uint64_t magic = iso_heap_magic(heap);
    if ((magic != ISO_HEAP_MAGIC && magic != ISO_HEAP_MAGIC_SHARED) || !heap->protections ||
        !iso_protect_is_sound(job, heap))
        return false;
    const iso_protections_t *protections = heap->protections;
    const uint64_t at = find(protections, address);
    return at < protections->count && protections->list[at].start <= address;
}
