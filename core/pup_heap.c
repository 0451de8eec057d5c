/*
 * pup_heap.c - a heap in the stream of a pup_er, whatever its kind.
 *
 * A record says which heap it is, then come the lists of its slots and live runs, and the runs' bytes follow, in order:
 * they go straight from the heap's pages to the pup_er, and straight into them. What becomes of the slots: contents.h.
 */
#include "core/contents.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/movable.h"
#include "core/object_pup.h"
#include "core/pup.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_MAGIC 0x50485349u /* "ISHP" */
#define RECORD_VERSION 2u
#define RECORD_MOVES 1u /* in flags */

typedef struct record {
    uint32_t magic, version;
    uint64_t layout; /* of the heap: iso_heap_layout_digest */
    uint64_t base;   /* of the space */
    uint64_t heap, epoch;
    uint32_t flags, extent_count;
    uint64_t run_count, run_bytes;
    uint8_t cookie[16]; /* of the job, if it moves: it is nobody's but there. Else 0 */
} record_t;

static const char call[] = "iso_pup_heap";

static iso_status_t refuse(const iso_job_t *job, iso_status_t status, uint64_t heap,
                           const char *why)
{
    return iso_contents_refuse(job, call, status, heap, why);
}

/* The lists: counted, packed, or unpacked into what is there for them. */
static void pass_lists(pup_er p, const iso_contents_t *contents)
{
    pup_bytes(p, contents->extents, contents->extent_count * sizeof *contents->extents);
    pup_bytes(p, contents->runs.list, contents->runs.count * sizeof *contents->runs.list);
}

static void pass_runs(pup_er p, const iso_contents_t *contents)
{
    for (uint64_t i = 0; i < contents->runs.count && iso_pup_status(p) == ISO_OK; i++)
        pup_bytes(p, (void *)contents->runs.list[i].address, contents->runs.list[i].length);
}

static record_t record_of(const iso_job_t *job, const iso_contents_t *contents)
{
    record_t record = {.magic = RECORD_MAGIC,
                       .version = RECORD_VERSION,
                       .layout = iso_heap_layout_digest(),
                       .base = (uintptr_t)job->space.base,
                       .heap = contents->heap,
                       .epoch = contents->epoch,
                       .flags = contents->own_slots ? RECORD_MOVES : 0,
                       .extent_count = contents->extent_count,
                       .run_count = contents->runs.count,
                       .run_bytes = contents->runs.bytes};
    if (contents->own_slots)
        memcpy(record.cookie, job->cookie, sizeof job->cookie);
    return record;
}

static iso_status_t pack(pup_er p, iso_job_t *job, iso_heap_t **heap_p)
{
    iso_contents_t contents = {.extents = NULL};
    const bool moves = pup_isPacking(p) && pup_isDeleting(p);
    iso_hold_t *hold;
    iso_status_t status = iso_contents_take(job, call, *heap_p, moves, &hold, &contents);
    if (status == ISO_OK) {
        record_t record = record_of(job, &contents);
        pup_bytes(p, &record, sizeof record);
        pass_lists(p, &contents);
        pass_runs(p, &contents);
        status = moves ? iso_pup_flush(p) : iso_pup_status(p);
        iso_job_lock(job);
        if (moves && status == ISO_OK) {
            iso_contents_let_go(job, hold, &contents);
            *heap_p = NULL;
        } else {
            iso_contents_put_back(hold);
        }
        iso_job_unlock(job);
    }
    iso_contents_free(&contents);
    return status;
}

/* What only a look at the record tells. */
static iso_status_t check_record(const iso_job_t *job, const record_t *record)
{
    if (record->magic != RECORD_MAGIC)
        return refuse(job, ISO_ERR_INVALID, record->heap, "what is unpacked is no heap");
    if (record->version != RECORD_VERSION || record->layout != iso_heap_layout_digest())
        return refuse(job, ISO_ERR_VERSION, record->heap,
                      "it was packed by another version of the library");
    static const uint8_t of_none[16];
    const uint8_t *cookie = record->flags & RECORD_MOVES ? job->cookie : of_none;
    if (memcmp(record->cookie, cookie, sizeof record->cookie) != 0)
        return refuse(
            job, ISO_ERR_INVALID, record->heap,
            "it was packed to move (ISO_PUP_DELETING), in another job, or the data are damaged");
    if (record->base != (uintptr_t)job->space.base) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "iso_pup_heap of heap %#" PRIx64 ": it is of an iso space at %#" PRIx64
                ", this one is at %p: set ISO_SPACE_BASE",
                record->heap, record->base, (void *)job->space.base);
        return ISO_ERR_INVALID;
    }
    if (record->flags & ~RECORD_MOVES)
        return refuse(job, ISO_ERR_INVALID, record->heap, "the data are damaged");
    return ISO_OK;
}

/* The record's lists, from the pup_er. */
static iso_status_t read_lists(pup_er p, iso_job_t *job, iso_contents_t *contents)
{
    contents->extents = calloc(contents->extent_count, sizeof *contents->extents);
    contents->runs.list = calloc(contents->runs.count, sizeof *contents->runs.list);
    if (!contents->extents || !contents->runs.list)
        return refuse(job, ISO_ERR_NO_MEMORY, contents->heap, "no memory for the list of its runs");
    pass_lists(p, contents);
    return iso_pup_status(p) == ISO_OK ? iso_contents_check_slots(job, call, contents)
                                       : iso_pup_status(p);
}

static iso_status_t unpack(pup_er p, iso_job_t *job, iso_heap_t **heap_p)
{
    record_t record = {.magic = 0};
    iso_hold_t *hold = NULL;
    pup_bytes(p, &record, sizeof record);
    iso_status_t status = iso_pup_status(p);
    if (status == ISO_OK)
        status = check_record(job, &record);
    iso_contents_t contents = {.heap = record.heap,
                               .epoch = record.epoch,
                               .own_slots = record.flags & RECORD_MOVES,
                               .extent_count = record.extent_count,
                               .runs = {.count = record.run_count, .bytes = record.run_bytes}};
    if (status == ISO_OK)
        status = iso_contents_check(job, call, &contents);
    if (status == ISO_OK)
        status = read_lists(p, job, &contents);
    if (status == ISO_OK) {
        iso_job_lock(job);
        status = iso_contents_enter(job, call, &contents, &hold);
        iso_job_unlock(job);
    }
    if (status == ISO_OK) {
        pass_runs(p, &contents);
        status = iso_pup_status(p);
        if (status == ISO_OK)
            status = iso_contents_own(job, call, hold, &contents);
        if (status == ISO_OK)
            *heap_p = (iso_heap_t *)(uintptr_t)record.heap;
        else
            iso_contents_abandon(job, hold, &contents);
    }
    iso_contents_free(&contents);
    return status;
}

void iso_pup_heap(pup_er p, iso_job_t *job, iso_heap_t **heap_p)
{
    if (iso_pup_status(p) != ISO_OK)
        return;
    if (!iso_job_is_ours(job, "iso_pup_heap"))
        iso_pup_fail(p, ISO_ERR_INVALID);
    else if (iso_object_is_by(p))
        iso_object_heap(p, job, heap_p);
    else
        iso_pup_fail(p, pup_isUnpacking(p) ? unpack(p, job, heap_p) : pack(p, job, heap_p));
}

void iso_pup_block(pup_er p, iso_job_t *job, void **block_p)
{
    iso_heap_t *heap = NULL;
    if (iso_pup_status(p) != ISO_OK)
        return;
    if (!pup_isUnpacking(p) && !iso_object_is_gone(p)) {
        heap = iso_heap_of(*block_p);
        if (!heap || !iso_movable_is(heap, *block_p)) {
            iso_log(&job->logger, ISO_LOG_ERROR,
                    "iso_pup_block: %p is not a block of iso_movable_alloc that is here", *block_p);
            iso_pup_fail(p, heap ? ISO_ERR_NOT_MOVABLE : ISO_ERR_NOT_OWNER);
            return;
        }
    }
    iso_pup_heap(p, job, &heap);
    if (iso_pup_status(p) == ISO_OK)
        *block_p = heap ? iso_heap_root(heap) : NULL;
}
