/*
 * heap.c - heaps as wholes: their life, freezing for a migration, what is checked on arrival.
 */
#include "core/heap.h"
#include "core/code.h"
#include "core/job.h"
#include "core/poison.h"
#include "core/protect.h"
#include "core/shared.h"
#include "core/span.h"
#include "core/stack.h"
#include "core/verify.h"
#include <string.h>

_Static_assert(sizeof(iso_slot_t) <= ISO_SLOT_HEADER && sizeof(struct iso_heap) <= ISO_CHUNK_SIZE,
               "each is one page where pages are smallest");

#define USER_FLAGS ((uint32_t)ISO_HEAP_SHARED)
#define HEAP_FLAGS (USER_FLAGS | ISO_HEAP_MOVABLE | ISO_HEAP_CARRIER) /* all that there are */

iso_heap_t *iso_heap_at_slot(uintptr_t slot_address)
{
    return (iso_heap_t *)(slot_address + ISO_HEAP_OFFSET);
}

uintptr_t iso_heap_slot_of(const iso_heap_t *heap)
{
    return (uintptr_t)heap - ISO_HEAP_OFFSET;
}

static uint64_t compute_digest(void)
{
    const uint64_t facts[] = {
        ISO_SLOT_SIZE,
        ISO_UNIT_SIZE,
        ISO_CHUNK_SIZE,
        ISO_HEAP_OFFSET,
        sizeof(struct iso_heap),
        sizeof(iso_span_t),
        offsetof(struct iso_heap, spans),
        offsetof(struct iso_heap, slots),
        offsetof(iso_slot_t, spans),
        offsetof(iso_span_t, bits),
        offsetof(iso_span_t, keyed),
        offsetof(iso_span_t, next),
        offsetof(iso_span_t, populate),
        offsetof(iso_span_t, key),
        offsetof(iso_slot_t, run_stack),
        offsetof(struct iso_heap, code_digest),
        offsetof(struct iso_heap, canary),
        offsetof(struct iso_heap, protections),
        sizeof(iso_protection_t),
        sizeof(iso_stack_t),
        offsetof(iso_stack_t, sp),
        sizeof(iso_code_object_t),
        sizeof(iso_current_t),
        ISO_HEAP_MAGIC,
        ISO_HEAP_MAGIC_SHARED,
        ISO_CHECK_KEY,
        offsetof(iso_chunk_t, bits),
    };
    uint64_t digest = 0xcbf29ce484222325u; /* FNV-1a, a word at a time */
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        digest = (digest ^ facts[i]) * 0x100000001b3u;
    for (size_t i = 0; i < ISO_CLASS_COUNT; i++)
        digest = (digest ^ (iso_classes[i].size + ((uint64_t)iso_classes[i].count << 32))) *
                 0x100000001b3u;
    return digest;
}

uint64_t iso_heap_layout_digest(void)
{
    static ISO_ATOMIC(uint64_t) computed; /* the same for ever; every migration asks */
    uint64_t digest = atomic_load_explicit(&computed, memory_order_relaxed);
    if (digest == 0) {
        digest = compute_digest();
        atomic_store_explicit(&computed, digest, memory_order_relaxed);
    }
    return digest;
}

static void set_magic(iso_heap_t *heap, uint64_t magic)
{
    atomic_store_explicit(&heap->magic, magic, memory_order_relaxed);
}

/* Whoever may use the heap may do so from here on. */
static void open_heap(iso_hold_t *hold)
{
    iso_heap_t *heap = hold->heap;
    iso_shared_t *shared = iso_shared_of(heap);
    set_magic(heap, shared ? ISO_HEAP_MAGIC_SHARED : ISO_HEAP_MAGIC);
    if (shared)
        iso_shared_open(shared, heap);
}

/* For the keys of a heap's spans, another one for each heap of the job: a mixing of bits as in SplitMix64
 * (Steele, Lea, Flood). */
static uint64_t seed(iso_job_t *job)
{
    iso_job_lock(job);
    uint64_t bits = ((uint64_t)job->rank << 40) + ++job->heaps_made, cookie;
    iso_job_unlock(job);
    memcpy(&cookie, job->cookie, sizeof cookie);
    bits = (bits ^ bits >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    bits = (bits ^ bits >> 27) * UINT64_C(0x94d049bb133111eb);
    return bits ^ bits >> 31 ^ cookie;
}

iso_status_t iso_heap_make(iso_job_t *job, uint32_t flags, iso_heap_t **heap_p)
{
    iso_hold_t *hold;
    char *address;
    uint32_t warm;
    iso_status_t status = iso_hold_create(job, &hold, &address, &warm);
    if (status != ISO_OK)
        return status;
    iso_heap_t *heap = hold->heap;
    iso_poison_heap_new(heap);
    memset(heap, 0, sizeof *heap);
    heap->layout = iso_heap_layout_digest();
    heap->flags = flags;
    heap->epoch = hold->epoch;
    heap->keys = seed(job);
    for (unsigned klass = 0; klass < ISO_CLASS_COUNT; klass++)
        heap->current[klass] = iso_current_none(heap);
    iso_slot_init(heap, (iso_slot_t *)address, warm);
    iso_job_lock(job);
    status = iso_heap_take_in(job, heap);
    if (status != ISO_OK)
        iso_hold_drop(hold, true);
    iso_job_unlock(job);
    if (status != ISO_OK)
        return status;
    open_heap(hold);
    *heap_p = heap;
    return ISO_OK;
}

iso_status_t iso_heap_create_flags(iso_job_t *job, uint32_t flags, iso_heap_t **heap_p)
{
    if (flags & ~USER_FLAGS) {
        iso_log(&job->logger, ISO_LOG_ERROR, "iso_heap_create_flags: 0x%x has unknown flags",
                flags);
        return ISO_ERR_INVALID;
    }
    return iso_heap_make(job, flags, heap_p);
}

iso_status_t iso_heap_create(iso_job_t *job, iso_heap_t **heap_p)
{
    return iso_heap_make(job, 0, heap_p);
}

iso_status_t iso_heap_take_in(iso_job_t *job, const iso_heap_t *heap)
{
    return heap->flags & ISO_HEAP_SHARED ? iso_shared_new(job, heap) : ISO_OK;
}

/* The hold of a heap that the caller wants to look at or end, under the job's lock. */
static iso_status_t hold_of(const iso_heap_t *heap, const char *what, iso_hold_t **hold_p)
{
    const iso_job_row_t *row = iso_job_row_of(heap);
    iso_logger_t logger = row ? row->job->logger : iso_logger_default();
    iso_status_t status = ISO_ERR_NOT_OWNER;
    if (row) {
        iso_job_lock(row->job);
        iso_hold_t *hold = iso_hold_find(row->job, heap);
        if (hold && hold->state != ISO_HEAP_OWNED)
            status = ISO_ERR_BUSY;
        else if (hold)
            status = ISO_OK;
        *hold_p = hold;
        iso_job_unlock(row->job);
    }
    if (status != ISO_OK)
        iso_log(&logger, ISO_LOG_ERROR, "%s of heap %p: %s", what, (const void *)heap,
                status == ISO_ERR_BUSY ? "it is migrating" : "it is not at this rank");
    return status;
}

iso_status_t iso_heap_destroy(iso_heap_t *heap)
{
    iso_hold_t *hold;
    iso_shared_t *shared = iso_shared_lock(heap);
    iso_status_t status = hold_of(heap, "iso_heap_destroy", &hold);
    char why[ISO_STACK_WHY];
    if (status == ISO_OK && iso_stack_in_use(hold, why)) {
        status = ISO_ERR_BUSY;
        iso_log(&hold->job->logger, ISO_LOG_ERROR, "iso_heap_destroy of heap %p: %s",
                (const void *)heap, why);
    }
    if (status == ISO_OK) {
        iso_job_t *job = hold->job;
        iso_job_lock(job);
        set_magic(heap, 0); /* a call on it from now on finds no heap */
        if (shared)
            iso_shared_close(shared);
        iso_hold_drop(hold, true);
        iso_job_unlock(job);
    }
    iso_shared_leave(shared);
    return status;
}

void iso_heap_set_root(iso_heap_t *heap, void *root)
{
    atomic_store_explicit(&heap->root, root, memory_order_release);
}

void *iso_heap_root(const iso_heap_t *heap)
{
    return atomic_load_explicit(&heap->root, memory_order_acquire);
}

void iso_heap_freeze(iso_hold_t *hold)
{
    iso_heap_t *heap = hold->heap;
    iso_shared_t *shared = iso_shared_of(heap);
    iso_heap_verify_header(hold);
    if (shared)
        iso_shared_close(shared);
    iso_hold_undirect(hold);
    iso_span_retire(heap, shared ? shared->current : heap->current);
    set_magic(heap, ISO_HEAP_MAGIC_FROZEN);
    iso_stack_freeze(hold);
    iso_protect_lift(hold); /* all of it is about to be read, and to be somebody else's */
    iso_poison_heap_open(hold);
}

void iso_heap_thaw(iso_hold_t *hold)
{
    iso_stack_thaw(hold);
    iso_protect_make(hold);
    iso_poison_heap_thaw(hold); /* threads may come as soon as the heap is open */
    open_heap(hold);
}

iso_status_t iso_heap_check_arrived(const iso_heap_t *heap, uint64_t epoch,
                                    const iso_extent_t *extents, uint32_t count)
{
    const iso_slot_t *slot = iso_slot_of(heap);
    if (heap->layout != iso_heap_layout_digest())
        return ISO_ERR_VERSION;
    if (iso_heap_magic(heap) != ISO_HEAP_MAGIC_FROZEN || heap->epoch != epoch ||
        heap->flags & ~HEAP_FLAGS || !iso_check_holds(slot) || slot->heap != (uintptr_t)heap)
        return ISO_ERR_INVALID;
    iso_status_t status = iso_stack_check_arrived(heap, extents, count);
    return status == ISO_OK && !iso_protect_is_sound(iso_job_row_of(heap)->job, heap)
               ? ISO_ERR_INVALID
               : status;
}

void iso_heap_set_epoch(iso_heap_t *heap, uint64_t epoch)
{
    heap->epoch = epoch;
}

uint32_t iso_heap_slot_free_units(const void *slot)
{
    const iso_slot_t *header = slot;
    if (!iso_check_holds(header) || header->run_slots)
        return 0;
    return atomic_load_explicit(&header->free_units, memory_order_relaxed) & ~1u;
}

/* ---- looking at a heap ---- */

typedef struct count {
    uint64_t blocks, bytes, runs, run_bytes;
} count_t;

static bool count_block(void *block, size_t size, void *arg)
{
    count_t *count = arg;
    (void)block;
    count->blocks++;
    count->bytes += size;
    return true;
}

static bool count_run(void *address, size_t length, void *arg)
{
    count_t *count = arg;
    (void)address;
    count->runs++;
    count->run_bytes += length;
    return true;
}

iso_status_t iso_heap_stats(iso_heap_t *heap, iso_heap_stats_t *stats_p)
{
    iso_hold_t *hold;
    count_t count = {0, 0, 0, 0};
    iso_shared_t *shared = iso_shared_lock(heap);
    iso_status_t status = hold_of(heap, "iso_heap_stats", &hold);
    if (status != ISO_OK) {
        iso_shared_leave(shared);
        return status;
    }
    iso_heap_verify(hold);
    iso_heap_walk(heap, count_block, &count);
    iso_heap_live_runs(hold, count_run, &count);
    *stats_p = (iso_heap_stats_t){.slots = hold->slot_count,
                                  .blocks = count.blocks,
                                  .block_bytes = count.bytes,
                                  .live_bytes = count.run_bytes,
                                  .live_runs = count.runs,
                                  .epoch = hold->epoch};
    iso_shared_leave(shared);
    return ISO_OK;
}

static bool populate_run(void *address, size_t length, void *arg)
{
    (void)arg;
    iso_os_populate(address, length);
    return true;
}

iso_status_t iso_heap_populate(iso_heap_t *heap)
{
    iso_hold_t *hold;
    iso_shared_t *shared = iso_shared_lock(heap);
    iso_status_t status = hold_of(heap, "iso_heap_populate", &hold);
    if (status == ISO_OK) {
        iso_job_lock(hold->job);
        iso_protect_lift(hold); /* pages that may not be written to would not be mapped */
        iso_heap_live_runs(hold, populate_run, NULL);
        iso_protect_make(hold);
        iso_job_unlock(hold->job);
    }
    iso_shared_leave(shared);
    return status;
}
