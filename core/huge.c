/* huge.c - see huge.h. */
#include "core/huge.h"
#include "core/job.h"
#include "core/os.h"
#include <errno.h>
#include <math.h>
#include <string.h>

#define CALL_SECONDS 0.003 /* what a call may cost by itself: the kernel asks every processor */
#define SLOT_SECONDS 0.001 /* what a slot may cost: small pages, mapped in one go, cost as much */
#define REST_SECONDS 1.0 /* after a call that cost more, and twice as long after each further one */
#define REST_DOUBLED_MAX 6
#define BATCH_SLOTS 8 /* in one call at most */
#define LEAST_SLOTS 8 /* for which a call made while a peer waits pays */

static uint64_t microseconds(double seconds)
{
    return (uint64_t)(seconds * 1e6);
}

static size_t bitmap_bytes(uint32_t total)
{
    return ((size_t)total + 63) / 64 * sizeof(uint64_t);
}

iso_status_t iso_huge_open(iso_job_t *job)
{
    iso_huge_t *huge = &job->huge;
    huge->total = iso_space_slots(&job->space);
    huge->made = iso_os_table_map(bitmap_bytes(huge->total));
    if (!huge->made)
        return ISO_ERR_NO_MEMORY;
    bool wanted = job->params.huge_pages == ISO_HUGE_PAGES_AUTO;
    bool pinned = job->space.pinned || iso_windows_pin(job);
    if (wanted && pinned)
        iso_log(&job->logger, ISO_LOG_INFO,
                "no huge pages are made: a transport has the iso space pinned");
    atomic_store(&huge->on, wanted && !pinned);
    return ISO_OK;
}

void iso_huge_close(iso_huge_t *huge)
{
    atomic_store(&huge->on, false);
    iso_os_table_unmap(huge->made, bitmap_bytes(huge->total));
    huge->made = NULL;
}

/* ---- making them ---- */

static void remember(iso_huge_t *huge, uint32_t first, uint32_t count)
{
    for (uint32_t slot = first; slot < first + count; slot++)
        atomic_fetch_or_explicit(&huge->made[slot / 64], UINT64_C(1) << slot % 64,
                                 memory_order_relaxed);
}

static void unavailable(iso_job_t *job, int error)
{
    if (atomic_exchange(&job->huge.on, false))
        iso_log(&job->logger, ISO_LOG_INFO,
                "no huge pages are made: madvise(MADV_COLLAPSE): %s; it takes Linux 6.1 with "
                "transparent huge pages of 2 MiB; ISO_HUGE_PAGES=n does without from the start",
                strerror(error));
}

/* After a call that was not good, a rest; the longer the more of them there were in a row. */
static void went(iso_huge_t *huge, bool good, double now)
{
    unsigned before = atomic_load_explicit(&huge->bad_calls, memory_order_relaxed);
    unsigned shift = before < REST_DOUBLED_MAX ? before : REST_DOUBLED_MAX;
    atomic_store_explicit(&huge->bad_calls, good ? 0 : before + 1, memory_order_relaxed);
    if (!good)
        atomic_store_explicit(&huge->rest_until, microseconds(now + REST_SECONDS * (1u << shift)),
                              memory_order_relaxed);
}

/* false: do not go on with others. */
static bool make(iso_job_t *job, uint32_t first, uint32_t count)
{
    iso_huge_t *huge = &job->huge;
    double start = iso_os_now();
    int error = iso_os_huge_make(iso_space_slot_address(&job->space, first), count * ISO_SLOT_SIZE,
                                 job->space.fd < 0);
    double end = iso_os_now();
    if (error == EINVAL &&
        !job->track.on && /* what is protected against writing is not collapsed */
        !atomic_load_explicit(&huge->works, memory_order_relaxed)) {
        unavailable(job, error); /* else it is something about these slots */
        return false;
    }
    if (!error)
        atomic_store_explicit(&huge->works, true, memory_order_relaxed);
    remember(huge, first, count); /* some of them, if there was an error */
    bool good = !error && end - start <= CALL_SECONDS + SLOT_SECONDS * count;
    went(huge, good, end);
    return good;
}

static bool is_new(const iso_job_t *job, uint32_t slot)
{
    char *address = iso_space_slot_address(&job->space, slot);
    return iso_os_resident(address, ISO_SLOT_SIZE) < ISO_SLOT_SIZE / 2;
}

/* From the end, since puts come from the other side. A call has a price of its own, and nobody knows
 * beforehand how long a slot takes: more at a time as long as it goes well. false: do not go on with
 * others. */
static bool prepare(iso_job_t *job, uint32_t first, uint32_t count, double deadline)
{
    uint32_t end = first + count, most = 1;
    while (end > first) {
        uint32_t batch = 0;
        while (batch < most && batch < end - first && is_new(job, end - 1 - batch))
            batch++;
        if (batch == 0) {
            end--;
            continue;
        }
        if (iso_os_now() > deadline || !make(job, end - batch, batch))
            return false;
        end -= batch;
        if (most < BATCH_SLOTS)
            most *= 2;
    }
    return true;
}

static bool rests(const iso_huge_t *huge)
{
    return !atomic_load_explicit(&huge->on, memory_order_relaxed) ||
           microseconds(iso_os_now()) <
               atomic_load_explicit(&huge->rest_until, memory_order_relaxed);
}

static bool is_of(const iso_job_t *job, uintptr_t heap_slot, uint64_t slot)
{
    return slot < job->huge.total &&
           iso_slots_word_heap_slot(
               atomic_load_explicit(&job->slots.table[slot], memory_order_relaxed)) == heap_slot;
}

void iso_huge_expect(iso_job_t *job, uintptr_t heap_slot, const iso_extent_t *ranges,
                     uint32_t count)
{
    uint64_t all = 0;
    for (uint32_t r = 0; r < count; r++)
        all += iso_extent_slots(&ranges[r]);
    if (all < LEAST_SLOTS || rests(&job->huge))
        return;
    double deadline = iso_os_now() + ISO_HUGE_SECONDS;
    for (uint32_t r = count; r-- > 0;) {
        uint32_t first = ranges[r].first, slots = 0;
        while (slots < iso_extent_slots(&ranges[r]) &&
               is_of(job, heap_slot, first + (uint64_t)slots))
            slots++;
        if (!prepare(job, first, slots, deadline))
            return;
    }
}

void iso_huge_populate(iso_job_t *job, void *address, size_t size)
{
    uint64_t offset = iso_space_offset(&job->space, address);
    uint64_t first = (offset + ISO_SLOT_MASK) >> ISO_SLOT_SHIFT;
    uint64_t end = (offset + size) >> ISO_SLOT_SHIFT;
    if (first < end && !rests(&job->huge))
        prepare(job, (uint32_t)first, (uint32_t)(end - first), INFINITY);
    iso_os_populate(address, size); /* what is there already costs little */
}

void iso_huge_split(iso_job_t *job, uint64_t offset, uint64_t length)
{
    iso_huge_t *huge = &job->huge;
    uint32_t slot = (uint32_t)(offset >> ISO_SLOT_SHIFT);
    uint64_t bit = UINT64_C(1) << slot % 64;
    if (!(atomic_load_explicit(&huge->made[slot / 64], memory_order_relaxed) & bit))
        return;
    atomic_fetch_and_explicit(&huge->made[slot / 64], ~bit, memory_order_relaxed);
    if (job->space.fd < 0 && length < ISO_SLOT_SIZE)
        iso_os_huge_split(job->space.base + offset, (size_t)length);
}

/* ---- which slots are worth it ---- */

typedef struct dense {
    iso_extent_t *ranges;
    uint32_t count, max;
    uint32_t slot;  /* that the bytes and units are of */
    uint32_t units; /* with a live page */
    size_t bytes;   /* live */
} dense_t;

static bool dense_end_slot(dense_t *dense)
{
    iso_extent_t *last = dense->count > 0 ? &dense->ranges[dense->count - 1] : NULL;
    if (dense->units != UINT32_MAX || dense->bytes < ISO_SLOT_SIZE / 4 * 3)
        return true;
    if (last && last->first + last->count == dense->slot) {
        last->count++;
        return true;
    }
    if (dense->count == dense->max)
        return false;
    dense->ranges[dense->count++] = (iso_extent_t){dense->slot, 1};
    return true;
}

uint32_t iso_huge_dense(const iso_space_t *space, const iso_runs_t *runs, iso_extent_t *ranges,
                        uint32_t max)
{
    dense_t dense = {.ranges = ranges, .max = max};
    for (size_t r = 0; r < runs->count; r++) {
        uint64_t at = iso_space_offset(space, (void *)runs->list[r].address);
        uint64_t end = at + runs->list[r].length;
        while (at < end) {
            uint32_t slot = (uint32_t)(at >> ISO_SLOT_SHIFT);
            uint64_t slot_end = ((uint64_t)slot + 1) << ISO_SLOT_SHIFT;
            uint64_t stop = end < slot_end ? end : slot_end;
            if (slot != dense.slot) {
                if (!dense_end_slot(&dense))
                    return dense.count;
                dense.slot = slot;
                dense.units = 0;
                dense.bytes = 0;
            }
            uint32_t first = (uint32_t)((at & ISO_SLOT_MASK) >> ISO_UNIT_SHIFT);
            uint32_t last = (uint32_t)(((stop - 1) & ISO_SLOT_MASK) >> ISO_UNIT_SHIFT);
            dense.units |= (uint32_t)((UINT64_C(2) << last) - (UINT64_C(1) << first));
            dense.bytes += (size_t)(stop - at);
            at = stop;
        }
    }
    dense_end_slot(&dense);
    return dense.count;
}
