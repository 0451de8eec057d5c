/* poison.c - see poison.h. */
#include "core/poison.h"
#include "core/heap_layout.h"
#include "core/job.h"
#include "core/live.h"
#include "core/os.h"
#ifdef ISO_HAVE_VALGRIND
#include <valgrind/memcheck.h>
#endif

/* Weak: there where the program was built with the sanitizer, whatever this library was built with. */
extern void __asan_poison_memory_region(const volatile void *, size_t) __attribute__((weak));
extern void __asan_unpoison_memory_region(const volatile void *, size_t) __attribute__((weak));

bool iso_poison_active;
static ISO_ATOMIC(unsigned) jobs; /* of this process that want it */

static bool has_asan(void)
{
    return __asan_poison_memory_region && __asan_unpoison_memory_region;
}

static bool has_valgrind(void)
{
#ifdef ISO_HAVE_VALGRIND
    return RUNNING_ON_VALGRIND > 0;
#else
    return false;
#endif
}

static void shut(const void *address, size_t length)
{
    if (has_asan())
        __asan_poison_memory_region(address, length);
#ifdef ISO_HAVE_VALGRIND
    VALGRIND_MAKE_MEM_NOACCESS(address, length);
#endif
}

static void open_up(const void *address, size_t length)
{
    if (has_asan())
        __asan_unpoison_memory_region(address, length);
#ifdef ISO_HAVE_VALGRIND
    VALGRIND_MAKE_MEM_DEFINED(address, length);
#endif
}

iso_status_t iso_poison_open(iso_job_t *job)
{
    if (!job->params.poison || (!has_asan() && !has_valgrind()))
        return ISO_OK;
    job->poisoned = iso_os_table_map(iso_space_slots(&job->space));
    if (!job->poisoned)
        return ISO_ERR_NO_MEMORY;
    jobs++;
    iso_poison_active = true;
    iso_log(&job->logger, ISO_LOG_INFO,
            "%s runs: it is told of every block, which makes iso_malloc and iso_free slow; "
            "ISO_POISON=n leaves that out",
            has_asan() ? "AddressSanitizer" : "Valgrind");
    return ISO_OK;
}

void iso_poison_close(iso_job_t *job)
{
    if (!job->poisoned)
        return;
    for (uint32_t slot = 0; slot < iso_space_slots(&job->space); slot++)
        if (job->poisoned[slot])
            open_up(iso_space_slot_address(&job->space, slot), ISO_SLOT_SIZE);
    iso_os_table_unmap(job->poisoned, iso_space_slots(&job->space));
    job->poisoned = NULL;
    iso_poison_active = --jobs > 0;
}

static void note(iso_job_t *job, const void *address, uint32_t count)
{
    uint32_t first = iso_space_slot(&job->space, address);
    for (uint32_t i = 0; job->poisoned && i < count; i++)
        job->poisoned[first + i] = true;
}

void iso_poison_slots(iso_job_t *job, const void *address, uint32_t count)
{
    if (!iso_poison_active)
        return;
    note(job, address, count);
    open_up(address, ISO_SLOT_HEADER);
    shut((const char *)address + ISO_SLOT_HEADER, count * ISO_SLOT_SIZE - ISO_SLOT_HEADER);
}

void iso_poison_unit(const void *blocks, size_t length)
{
    if (iso_poison_active)
        shut(blocks, length);
}

void iso_poison_chunk(const void *chunk, size_t first)
{
    if (!iso_poison_active)
        return;
    open_up(chunk, first);
    shut((const char *)chunk + first, ISO_CHUNK_SIZE - first);
}

/* ---- blocks ---- */

void iso_poison_block_new(const iso_heap_t *heap, const void *block, size_t size)
{
    if (!iso_poison_active || !block)
        return;
    if (has_asan())
        __asan_unpoison_memory_region(block, size);
#ifdef ISO_HAVE_VALGRIND
    VALGRIND_MEMPOOL_ALLOC(heap, block, size);
#endif
    (void)heap;
}

void iso_poison_block_freed(const iso_heap_t *heap, const void *block, size_t size)
{
    if (!iso_poison_active)
        return;
#ifdef ISO_HAVE_VALGRIND
    VALGRIND_MEMPOOL_FREE(heap, block);
#endif
    shut(block, size);
    (void)heap;
}

void iso_poison_block_open(const void *block, size_t size)
{
    if (iso_poison_active)
        open_up(block, size);
}

/* ---- heaps ---- */

static void each_extent(const iso_hold_t *hold, void (*fn)(const void *, size_t))
{
    for (uint32_t e = 0; e < hold->extent_count; e++) {
        const void *address = iso_space_slot_address(&hold->job->space, hold->extents[e].first);
        uint32_t slots = iso_extent_slots(&hold->extents[e]);
        note(hold->job, address, slots);
        fn(address, slots * ISO_SLOT_SIZE);
    }
}

void iso_poison_heap_new(const iso_heap_t *heap)
{
    if (!iso_poison_active)
        return;
    open_up(heap, sizeof *heap);
#ifdef ISO_HAVE_VALGRIND
    VALGRIND_CREATE_MEMPOOL(heap, 0, 0);
#endif
}

static void forget_blocks(const iso_hold_t *hold)
{
#ifdef ISO_HAVE_VALGRIND
    if (VALGRIND_MEMPOOL_EXISTS(hold->heap))
        VALGRIND_DESTROY_MEMPOOL(hold->heap);
#endif
    (void)hold;
}

void iso_poison_heap_open(const iso_hold_t *hold)
{
    if (!iso_poison_active)
        return;
    forget_blocks(hold);
    each_extent(hold, open_up);
}

static bool live_again(void *block, size_t size, void *arg)
{
    iso_poison_block_new(arg, block, size);
    open_up(block, size); /* with contents */
    return true;
}

static void shut_slot(const iso_slot_t *slot)
{
    shut((const char *)slot + ISO_SLOT_HEADER, ISO_SLOT_SIZE - ISO_SLOT_HEADER);
    if (iso_slot_is_first(slot))
        open_up((const char *)slot + ISO_HEAP_OFFSET, sizeof(iso_heap_t));
    for (unsigned unit = 0; unit < ISO_UNITS_PER_SLOT; unit++) {
        const iso_span_t *span = &slot->spans[unit];
        for (unsigned i = 0; span->kind == ISO_SPAN_TINY && i < ISO_CHUNKS_PER_UNIT; i++)
            if (span->live >> i & 1)
                open_up(iso_chunk_at(slot, unit, i),
                        iso_class_offset(&iso_classes[span->klass],
                                         iso_classes[span->klass].count - 1));
    }
}

/* The heap is owned, and its metadata can be read: all is open. */
void iso_poison_heap_thaw(iso_hold_t *hold)
{
    if (!iso_poison_active)
        return;
    iso_poison_heap_new(hold->heap);
    for (uint32_t e = 0; e < hold->extent_count; e++) {
        const iso_extent_t *extent = &hold->extents[e];
        const char *address = iso_space_slot_address(&hold->job->space, extent->first);
        if (extent->count & ISO_EXTENT_RUN)
            iso_poison_slots(hold->job, address, iso_extent_slots(extent));
        else
            for (uint32_t i = 0; i < extent->count; i++)
                shut_slot((const iso_slot_t *)(address + i * ISO_SLOT_SIZE));
    }
    iso_live_blocks(hold, live_again, hold->heap);
}

void iso_poison_heap_gone(const iso_hold_t *hold)
{
    if (!iso_poison_active)
        return;
    forget_blocks(hold);
    if (!hold->stays_open)
        each_extent(hold, shut);
}

void iso_poison_slots_gone(iso_job_t *job, const iso_extent_t *extent)
{
    const void *address = iso_space_slot_address(&job->space, extent->first);
    if (!iso_poison_active)
        return;
    note(job, address, iso_extent_slots(extent));
    shut(address, iso_extent_slots(extent) * ISO_SLOT_SIZE);
}
