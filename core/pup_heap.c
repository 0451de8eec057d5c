/*
 * pup_heap.c - a heap in the stream of a pup_er, whatever its kind.
 *
 * A record says which heap it is and where its slots and live runs lie, and the runs' bytes follow, in order: they
 * go straight from the heap's pages to the pup_er, and straight into them. The heap's own header, which is
 * the beginning of the first run, says that it is frozen, and with which epoch, as after a migration; and the
 * same is checked when it comes out.
 *
 * Slots when it comes out. A heap that was packed to move has its own: nobody else was given them, so that they
 * are unknown here, and are entered as those of an arriving heap are. A copy has none: its slots must be
 * free here. Both are entered before the first byte is read, and given back if the stream does not hold what
 * the record says.
 */
#include "core/borrow.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/left.h"
#include "core/migrate.h"
#include "core/movable.h"
#include "core/object_pup.h"
#include "core/poison.h"
#include "core/pup.h"
#include "core/shared.h"
#include "core/verify.h"
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

typedef struct contents {
    record_t record;
    iso_extent_t *extents;
    iso_run_t *runs;
    size_t run_room;
    bool failed;    /* no memory for a run */
    uint32_t *warm; /* unpacking a copy: units of each of its slots that were resident */
} contents_t;

static void free_contents(contents_t *contents)
{
    free(contents->extents);
    free(contents->runs);
    free(contents->warm);
}

static iso_status_t refuse(const iso_job_t *job, iso_status_t status, uint64_t heap,
                           const char *why)
{
    iso_log(&job->logger, ISO_LOG_ERROR, "iso_pup_heap of heap %#" PRIx64 ": %s", heap, why);
    return status;
}

/* The record and its lists: counted, packed, or unpacked into what is there for them. */
static void pass_lists(pup_er p, contents_t *contents)
{
    pup_bytes(p, contents->extents, contents->record.extent_count * sizeof *contents->extents);
    pup_bytes(p, contents->runs, (size_t)contents->record.run_count * sizeof *contents->runs);
}

static void pass_runs(pup_er p, const contents_t *contents)
{
    for (uint64_t i = 0; i < contents->record.run_count && iso_pup_status(p) == ISO_OK; i++)
        pup_bytes(p, (void *)contents->runs[i].address, contents->runs[i].length);
}

/* ---- in ---------------------------------------------------------------------------------------- */

static bool add_run(void *address, size_t length, void *arg)
{
    contents_t *contents = arg;
    if (contents->record.run_count == contents->run_room) {
        size_t room = contents->run_room ? contents->run_room * 2 : 16;
        iso_run_t *runs = realloc(contents->runs, room * sizeof *runs);
        if (!runs) {
            contents->failed = true;
            return false;
        }
        contents->runs = runs;
        contents->run_room = room;
    }
    contents->runs[contents->record.run_count++] = (iso_run_t){(uintptr_t)address, length};
    contents->record.run_bytes += length;
    return true;
}

/* The heap is usable again. Under the job's lock. */
static void put_back(iso_hold_t *hold)
{
    iso_heap_thaw(hold);
    hold->state = ISO_HEAP_OWNED;
}

/* Freezes the heap and lists what is in it. Under the job's lock. */
static iso_status_t take(iso_job_t *job, const iso_heap_t *heap, bool moves, iso_hold_t **hold_p,
                         contents_t *contents)
{
    iso_hold_t *hold = iso_hold_find(job, heap);
    if (!hold)
        return refuse(job, ISO_ERR_NOT_OWNER, (uintptr_t)heap, "it is not at this rank");
    if (hold->state != ISO_HEAP_OWNED)
        return refuse(job, ISO_ERR_BUSY, (uintptr_t)heap, "it is migrating");
    iso_heap_verify(hold);
    iso_heap_freeze(hold);
    hold->state = ISO_HEAP_MOVING;
    if (moves)
        iso_heap_set_epoch(hold->heap, ++hold->epoch);
    contents->record = (record_t){.magic = RECORD_MAGIC,
                                  .version = RECORD_VERSION,
                                  .layout = iso_heap_layout_digest(),
                                  .base = (uintptr_t)job->space.base,
                                  .heap = (uintptr_t)heap,
                                  .epoch = hold->epoch,
                                  .flags = moves ? RECORD_MOVES : 0,
                                  .extent_count = hold->extent_count};
    if (moves)
        memcpy(contents->record.cookie, job->cookie, sizeof job->cookie);
    contents->extents = malloc(hold->extent_count * sizeof *contents->extents);
    if (contents->extents)
        memcpy(contents->extents, hold->extents, hold->extent_count * sizeof *contents->extents);
    iso_heap_live_runs(hold, add_run, contents);
    if (!contents->extents || contents->failed) {
        put_back(hold);
        return refuse(job, ISO_ERR_NO_MEMORY, (uintptr_t)heap,
                      "no memory for the list of its runs");
    }
    *hold_p = hold;
    return ISO_OK;
}

/* The heap is packed, and is nobody's until it is unpacked. Under the job's lock. */
static void let_go(iso_job_t *job, iso_hold_t *hold, const contents_t *contents)
{
    iso_left_leave(job, hold->heap, hold->extents, hold->extent_count, contents->runs,
                   (size_t)contents->record.run_count, &(iso_promise_t){job->rank, 0, hold->epoch});
    iso_hold_drop(hold, false);
    iso_retain_trim(job);
}

static iso_status_t pack(pup_er p, iso_job_t *job, iso_heap_t **heap_p)
{
    contents_t contents = {.extents = NULL};
    const bool moves = pup_isPacking(p) && pup_isDeleting(p);
    iso_hold_t *hold;
    iso_shared_t *shared = iso_shared_lock(*heap_p);
    iso_job_lock(job);
    iso_status_t status = take(job, *heap_p, moves, &hold, &contents);
    iso_job_unlock(job);
    iso_shared_leave(shared);
    if (status == ISO_OK) {
        pup_bytes(p, &contents.record, sizeof contents.record);
        pass_lists(p, &contents);
        pass_runs(p, &contents);
        status = moves ? iso_pup_flush(p) : iso_pup_status(p);
        iso_job_lock(job);
        if (moves && status == ISO_OK) {
            let_go(job, hold, &contents);
            *heap_p = NULL;
        } else {
            put_back(hold);
        }
        iso_job_unlock(job);
    }
    free_contents(&contents);
    return status;
}

/* ---- out --------------------------------------------------------------------------------------- */

/* What only a look at the record tells. */
static iso_status_t check_record(const iso_job_t *job, const record_t *record)
{
    const uint64_t runs_most = job->slots.total * (uint64_t)(ISO_SLOT_SIZE / 4096);
    uint64_t offset = record->heap - (uintptr_t)job->space.base;
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
    if (offset >= job->space.size ||
        (uintptr_t)iso_heap_at_slot((uintptr_t)record->heap & ~(uintptr_t)ISO_SLOT_MASK) !=
            record->heap ||
        (record->flags & ~RECORD_MOVES) || record->extent_count == 0 ||
        record->extent_count > job->slots.total || record->run_count == 0 ||
        record->run_count > runs_most || record->run_bytes > job->space.size ||
        record->run_count > record->run_bytes / 4096)
        return refuse(job, ISO_ERR_INVALID, record->heap,
                      "it is no heap that this iso space has room for: it needs one as large as "
                      "where it was packed (ISO_SPACE_SIZE), or the data are damaged");
    return ISO_OK;
}

static uint64_t slots_of(const contents_t *contents)
{
    uint64_t slots = 0;
    for (uint32_t i = 0; i < contents->record.extent_count; i++)
        slots += iso_extent_slots(&contents->extents[i]);
    return slots;
}

static bool extents_fit(const iso_job_t *job, const contents_t *contents)
{
    if (slots_of(contents) > job->slots.total)
        return false;
    for (uint32_t i = 0; i < contents->record.extent_count; i++) {
        uint32_t slots = iso_extent_slots(&contents->extents[i]);
        if (slots == 0 || contents->extents[i].first >= job->slots.total ||
            slots > job->slots.total - contents->extents[i].first)
            return false;
    }
    return true;
}

/* Every byte of them is of the heap's slots, which are entered. */
static bool runs_fit(const iso_job_t *job, const contents_t *contents, const iso_hold_t *hold)
{
    const uintptr_t heap_slot = iso_heap_slot_of(hold->heap);
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < contents->record.run_count; i++) {
        const iso_run_t *run = &contents->runs[i];
        uint64_t offset = run->address - (uintptr_t)job->space.base;
        if (offset >= job->space.size || run->length == 0 ||
            run->length > job->space.size - offset || (run->address | run->length) % 4096 != 0)
            return false;
        uint32_t last = (uint32_t)((offset + run->length - 1) >> ISO_SLOT_SHIFT);
        for (uint32_t slot = (uint32_t)(offset >> ISO_SLOT_SHIFT); slot <= last; slot++)
            if (iso_slots_word_heap_slot(atomic_load(&job->slots.table[slot])) != heap_slot)
                return false;
        bytes += run->length;
    }
    return bytes == contents->record.run_bytes;
}

/* Free slots of this rank become nobody's. */
static bool take_free(iso_job_t *job, const contents_t *contents)
{
    for (uint32_t i = 0; i < contents->record.extent_count; i++) {
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

static void put_free(iso_job_t *job, const contents_t *contents, bool used)
{
    for (uint32_t i = 0; i < contents->record.extent_count; i++) {
        const iso_extent_t *extent = &contents->extents[i];
        for (uint32_t slot = 0; used && slot < iso_extent_slots(extent); slot++)
            iso_retain_slot_free(job, extent->first + slot, ISO_UNITS_ALL);
        iso_borrow_put(job, extent->first, iso_extent_slots(extent));
    }
}

static bool moves(const contents_t *contents)
{
    return contents->record.flags & RECORD_MOVES;
}

/* Makes the slots the heap's. Under the job's lock. */
static iso_status_t enter(iso_job_t *job, const contents_t *contents, iso_hold_t **hold_p)
{
    const uint32_t count = contents->record.extent_count;
    iso_heap_t *heap = (iso_heap_t *)(uintptr_t)contents->record.heap;
    static const char busy[] = "its slots are in use here, or are not this rank's";
    iso_hold_t *hold;
    iso_migrate_settle(job); /* it may be back before this rank has seen that it was taken */
    if (iso_hold_find(job, heap))
        return refuse(job, ISO_ERR_BUSY, contents->record.heap, "it is at this rank already");
    if (!moves(contents) && !take_free(job, contents))
        return refuse(job, ISO_ERR_BUSY, contents->record.heap, busy);
    iso_status_t status = iso_hold_adopt(job, heap, contents->extents, count, &hold);
    if (status == ISO_OK && moves(contents) &&
        !iso_left_claim(job, heap, contents->extents, count, ISO_COMING_RESERVED)) {
        iso_hold_drop(hold, false);
        status = ISO_ERR_INVALID;
    }
    if (status != ISO_OK) {
        if (!moves(contents))
            put_free(job, contents, false);
        return status == ISO_ERR_INVALID ? refuse(job, ISO_ERR_BUSY, contents->record.heap, busy)
                                         : status;
    }
    hold->arrival = hold; /* nobody looks into it yet, see iso_hold_free_units */
    hold->epoch = contents->record.epoch;
    uint32_t *warm = contents->warm;
    for (uint32_t i = 0; i < count && !moves(contents); i++) {
        const iso_extent_t *extent = &contents->extents[i];
        iso_guard_lift(job, extent->first, iso_extent_slots(extent));
        for (uint32_t slot = 0; slot < iso_extent_slots(extent); slot++)
            *warm++ = iso_retain_slots_use(job, extent->first + slot, 1);
    }
    *hold_p = hold;
    return ISO_OK;
}

/* Nothing of it stays but warm pages. Under the job's lock. */
static void abandon(iso_job_t *job, iso_hold_t *hold, const contents_t *contents)
{
    if (moves(contents))
        iso_left_abandon(job, hold->heap, hold->extents, hold->extent_count);
    iso_hold_drop(hold, false);
    if (!moves(contents))
        put_free(job, contents, true);
    iso_retain_trim(job);
}

/* What was resident of a copy's slots, and the heap does not use. */
static void count_warm(iso_job_t *job, const contents_t *contents)
{
    const uint32_t *warm = contents->warm;
    for (uint32_t i = 0; i < contents->record.extent_count; i++) {
        const iso_extent_t *extent = &contents->extents[i];
        for (uint32_t at = 0; at < iso_extent_slots(extent); at++, warm++) {
            const char *slot = iso_space_slot_address(&job->space, extent->first + at);
            if (!(extent->count & ISO_EXTENT_RUN))
                iso_retain_dirty(job, extent->first + at, *warm & iso_heap_slot_free_units(slot));
        }
    }
}

/* Under the job's lock. */
static void own(iso_job_t *job, iso_hold_t *hold, const contents_t *contents)
{
    hold->arrival = NULL;
    hold->state = ISO_HEAP_OWNED;
    hold->counted = true;
    job->stats.heaps++;
    if (hold->epoch < job->epoch_high) { /* a copy of earlier days */
        hold->epoch = job->epoch_high;
        iso_heap_set_epoch(hold->heap, hold->epoch);
    }
    if (moves(contents))
        iso_left_own(job, hold->extents, hold->extent_count);
    else
        count_warm(job, contents);
    iso_node_begin(&job->node, iso_space_slot(&job->space, hold->heap));
    iso_retain_arrived(job, hold->extents, hold->extent_count);
    iso_heap_thaw(hold);
    iso_retain_trim(job);
}

/* The record's lists, from the pup_er. */
static iso_status_t read_lists(pup_er p, iso_job_t *job, contents_t *contents)
{
    contents->extents = calloc(contents->record.extent_count, sizeof *contents->extents);
    contents->runs = calloc((size_t)contents->record.run_count, sizeof *contents->runs);
    if (!contents->extents || !contents->runs)
        return refuse(job, ISO_ERR_NO_MEMORY, contents->record.heap,
                      "no memory for the list of its runs");
    pass_lists(p, contents);
    if (iso_pup_status(p) != ISO_OK)
        return iso_pup_status(p);
    if (!extents_fit(job, contents))
        return refuse(job, ISO_ERR_INVALID, contents->record.heap,
                      "its slots cannot be: the data are damaged, or the iso space is smaller "
                      "than where it was packed (ISO_SPACE_SIZE)");
    contents->warm = calloc(slots_of(contents), sizeof *contents->warm);
    return contents->warm ? ISO_OK
                          : refuse(job, ISO_ERR_NO_MEMORY, contents->record.heap,
                                   "no memory for the list of its slots");
}

static iso_status_t read_heap(pup_er p, iso_job_t *job, const contents_t *contents,
                              const iso_hold_t *hold)
{
    if (!runs_fit(job, contents, hold))
        return refuse(job, ISO_ERR_INVALID, contents->record.heap,
                      "its runs are not of its slots: the data are damaged");
    pass_runs(p, contents);
    if (iso_pup_status(p) != ISO_OK)
        return iso_pup_status(p);
    iso_status_t status = iso_heap_check_arrived(hold->heap, hold->epoch);
    return status == ISO_OK || status == ISO_ERR_CODE /* which has been said */
               ? status
               : refuse(job, status, contents->record.heap,
                        "what was unpacked is not that heap: the data are damaged");
}

static iso_status_t unpack(pup_er p, iso_job_t *job, iso_heap_t **heap_p)
{
    contents_t contents = {.extents = NULL};
    iso_hold_t *hold;
    pup_bytes(p, &contents.record, sizeof contents.record);
    iso_status_t status = iso_pup_status(p);
    if (status == ISO_OK)
        status = check_record(job, &contents.record);
    if (status == ISO_OK)
        status = read_lists(p, job, &contents);
    if (status == ISO_OK) {
        iso_job_lock(job);
        status = enter(job, &contents, &hold);
        iso_job_unlock(job);
    }
    if (status == ISO_OK) {
        status = read_heap(p, job, &contents, hold);
        iso_job_lock(job);
        if (status == ISO_OK)
            status = iso_heap_take_in(job, hold->heap);
        if (status == ISO_OK) {
            own(job, hold, &contents);
            *heap_p = hold->heap;
        } else {
            abandon(job, hold, &contents);
        }
        iso_job_unlock(job);
    }
    free_contents(&contents);
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
