/* slots.c - the free set and the slot table. See slots.h. The caller holds the job's lock. */
#include "core/slots.h"
#include "core/os.h"
#include <string.h>

#define WORD_BITS 64u

static size_t table_bytes(uint32_t total)
{
    return (size_t)total * sizeof(uintptr_t);
}

static size_t bitmap_bytes(uint32_t total)
{
    return (total + WORD_BITS - 1) / WORD_BITS * sizeof(uint64_t);
}

iso_status_t iso_slots_open(iso_slots_t *slots, uint32_t total, uint32_t rank, uint32_t size)
{
    memset(slots, 0, sizeof *slots);
    slots->table = iso_os_table_map(table_bytes(total));
    if (!slots->table)
        return ISO_ERR_NO_MEMORY;
    slots->total = total;
    slots->moved = iso_os_table_map(bitmap_bytes(total));
    slots->entered = iso_os_table_map(bitmap_bytes(total));
    if (!slots->moved || !slots->entered) {
        iso_slots_close(slots);
        return ISO_ERR_NO_MEMORY;
    }
    iso_slots_strip(total, rank, size, &slots->strip_first, &slots->strip_count);
    slots->lowest = slots->strip_first;
    slots->high = slots->strip_first + slots->strip_count;
    slots->free_count = slots->strip_count;
    return ISO_OK;
}

void iso_slots_close(iso_slots_t *slots)
{
    iso_os_table_unmap(slots->entered, bitmap_bytes(slots->total));
    iso_os_table_unmap(slots->moved, bitmap_bytes(slots->total));
    iso_os_table_unmap((void *)slots->table, table_bytes(slots->total));
    memset(slots, 0, sizeof *slots);
}

void iso_slots_strip(uint32_t total, uint32_t rank, uint32_t size, uint32_t *first_p,
                     uint32_t *count_p)
{
    uint32_t first = (uint32_t)((uint64_t)total * rank / size);
    *first_p = first;
    *count_p = (uint32_t)((uint64_t)total * (rank + 1) / size) - first;
}

uint32_t iso_slots_home(uint32_t total, uint32_t size, uint32_t slot)
{
    /* the largest rank with total * rank / size <= slot */
    return (uint32_t)((((uint64_t)slot + 1) * size - 1) / total);
}

static bool is_foreign(const iso_slots_t *slots, uint32_t slot)
{
    return slot - slots->strip_first >= slots->strip_count;
}

/* Sets or clears [first, first+count), a word at a time. */
static void bits_fill(uint64_t *bits, uint32_t first, uint32_t count, bool value)
{
    while (count > 0) {
        uint32_t shift = first % WORD_BITS;
        uint32_t n = WORD_BITS - shift < count ? WORD_BITS - shift : count;
        uint64_t mask = (n == WORD_BITS ? UINT64_MAX : (UINT64_C(1) << n) - 1) << shift;
        if (value)
            bits[first / WORD_BITS] |= mask;
        else
            bits[first / WORD_BITS] &= ~mask;
        first += n;
        count -= n;
    }
}

/* The first index in [from, to) whose bit is `value`, or `to`. */
static uint32_t bits_find(const uint64_t *bits, uint32_t from, uint32_t to, bool value)
{
    while (from < to) {
        uint64_t word = bits[from / WORD_BITS];
        if (!value)
            word = ~word;
        word >>= from % WORD_BITS;
        if (word) {
            uint32_t at = from + (uint32_t)__builtin_ctzll(word);
            return at < to ? at : to;
        }
        from = (from / WORD_BITS + 1) * WORD_BITS;
    }
    return to;
}

/* Where the slots from `from` on, up to `to` at most, are all of this rank's strip, or none of them. */
static uint32_t same_home(const iso_slots_t *slots, uint32_t from, uint32_t to)
{
    uint32_t stop = to;
    if (!is_foreign(slots, from))
        stop = slots->strip_first + slots->strip_count;
    else if (from < slots->strip_first)
        stop = slots->strip_first;
    return stop < to ? stop : to;
}

/* The first slot in [from, to) that is in the free set, or that is not (free false), or `to`. */
static uint32_t free_find(const iso_slots_t *slots, uint32_t from, uint32_t to, bool free)
{
    while (from < to) {
        uint32_t stop = same_home(slots, from, to);
        uint32_t at = bits_find(slots->moved, from, stop, free == is_foreign(slots, from));
        if (at < stop)
            return at;
        from = stop;
    }
    return to;
}

static void free_fill(iso_slots_t *slots, uint32_t first, uint32_t count, bool free)
{
    for (uint32_t end = first + count, stop; first < end; first = stop) {
        stop = same_home(slots, first, end);
        bits_fill(slots->moved, first, stop - first, free == is_foreign(slots, first));
    }
}

static uint32_t foreign_in(const iso_slots_t *slots, uint32_t first, uint32_t count)
{
    uint32_t low = first > slots->strip_first ? first : slots->strip_first;
    uint32_t end = first + count, strip_end = slots->strip_first + slots->strip_count;
    uint32_t high = end < strip_end ? end : strip_end;
    return high > low ? count - (high - low) : count;
}

/* *lowest_p: the first free slot at all. */
static bool find_run(const iso_slots_t *slots, uint32_t from, uint32_t to, uint32_t count,
                     uint32_t *lowest_p, uint32_t *first_p)
{
    *lowest_p = from = free_find(slots, from, to, true);
    for (; from < to; from = free_find(slots, from, to, true)) {
        uint32_t limit = to - from < count ? to : from + count;
        uint32_t end = free_find(slots, from, limit, false);
        if (end - from >= count) {
            *first_p = from;
            return true;
        }
        from = end;
    }
    return false;
}

iso_status_t iso_slots_take(iso_slots_t *slots, uint32_t count, uint32_t *first_p)
{
    uint32_t first, lowest;
    if (count == 0 || slots->free_count < count ||
        !find_run(slots, slots->lowest, slots->high, count, &lowest, &first))
        return ISO_ERR_NO_SPACE;
    free_fill(slots, first, count, false);
    slots->free_count -= count;
    slots->foreign_free -= foreign_in(slots, first, count);
    slots->lowest = lowest < first ? lowest : first + count;
    *first_p = first;
    return ISO_OK;
}

void iso_slots_put(iso_slots_t *slots, uint32_t first, uint32_t count)
{
    free_fill(slots, first, count, true);
    if (slots->free_count == 0 || first < slots->lowest)
        slots->lowest = first; /* warm slots again before untouched ones */
    if (slots->free_count == 0 || first + count > slots->high)
        slots->high = first + count;
    slots->free_count += count;
    slots->foreign_free += foreign_in(slots, first, count);
}

bool iso_slots_take_exact(iso_slots_t *slots, uint32_t first, uint32_t count)
{
    if (free_find(slots, first, first + count, false) != first + count)
        return false;
    free_fill(slots, first, count, false);
    slots->free_count -= count;
    slots->foreign_free -= foreign_in(slots, first, count);
    return true;
}

bool iso_slots_next_foreign(const iso_slots_t *slots, uint32_t from, uint32_t *first_p,
                            uint32_t *count_p)
{
    uint32_t strip_end = slots->strip_first + slots->strip_count;
    if (slots->foreign_free == 0)
        return false;
    if (from < slots->lowest)
        from = slots->lowest;
    for (;;) {
        if (!is_foreign(slots, from) && slots->strip_count > 0)
            from = strip_end;
        uint32_t to = from < slots->strip_first ? slots->strip_first : slots->high;
        if (from >= slots->high)
            return false;
        if (to > slots->high)
            to = slots->high;
        uint32_t first = free_find(slots, from, to, true);
        if (first < to) {
            *first_p = first;
            *count_p = free_find(slots, first, to, false) - first;
            return true;
        }
        from = to;
    }
}

/* A heap of many GiB is handed over in microseconds only if these loops are one store a slot. */
void iso_slots_enter(iso_slots_t *slots, const iso_extent_t *extent, uintptr_t heap_slot)
{
    uintptr_t step = extent->count & ISO_EXTENT_RUN ? 1 : 0, word = heap_slot;
    ISO_ATOMIC(uintptr_t) *at = &slots->table[extent->first], *end = at + iso_extent_slots(extent);
    for (; at < end; at++, word += step)
        atomic_store_explicit(at, word, memory_order_release);
    bits_fill(slots->entered, extent->first, iso_extent_slots(extent), true);
}

void iso_slots_clear(iso_slots_t *slots, const iso_extent_t *extent)
{
    ISO_ATOMIC(uintptr_t) *at = &slots->table[extent->first], *end = at + iso_extent_slots(extent);
    for (; at < end; at++)
        atomic_store_explicit(at, 0, memory_order_release);
    bits_fill(slots->entered, extent->first, iso_extent_slots(extent), false);
}

bool iso_slots_unknown(const iso_slots_t *slots, const iso_extent_t *extent)
{
    uint32_t count = iso_extent_slots(extent), end = extent->first + count;
    if (count == 0 || end < extent->first || end > slots->total)
        return false;
    return free_find(slots, extent->first, end, true) == end &&
           bits_find(slots->entered, extent->first, end, true) == end;
}
