/* unit.c - see unit.h. */
#include "core/unit.h"
#include "core/hold.h"
#include "core/job.h"
#include "core/log.h"
#include "core/verify.h"
#include <string.h>

void iso_heap_damaged(const iso_heap_t *heap, const void *where, const char *what)
{
    iso_fatal("heap %p: metadata at %p is damaged: %s; something wrote past the end of a block, or "
              "to freed memory",
              (const void *)heap, where, what);
}

iso_slot_t *iso_slot_checked(const iso_heap_t *heap, const void *address)
{
    iso_slot_t *slot = iso_slot_of(address);
    const iso_job_row_t *row = iso_job_row_of(slot);
    if (!row || atomic_load_explicit(&row->table[((uintptr_t)slot - row->base) >> ISO_SLOT_SHIFT],
                                     memory_order_relaxed) != (uintptr_t)iso_slot_of(heap))
        iso_heap_damaged(heap, address, "a link in the heap's metadata leads out of the heap");
    iso_check(heap, slot);
    if (slot->heap != (uintptr_t)heap)
        iso_heap_damaged(heap, slot, "a slot's header is not one of this heap");
    return slot;
}

/* ---- slots by their longest run of free units ---- */

static uint32_t free_units(const iso_slot_t *slot)
{
    return atomic_load_explicit(&slot->free_units, memory_order_relaxed);
}

static void set_free_units(iso_slot_t *slot, uint32_t mask)
{
    atomic_store_explicit(&slot->free_units, mask, memory_order_relaxed);
}

/* Could a block of a whole slot be here? */
static bool is_empty(const iso_slot_t *slot)
{
    return free_units(slot) == UINT32_MAX && !iso_slot_is_first(slot);
}

static unsigned longest_run(uint32_t mask)
{
    unsigned longest = 0;
    while (mask) { /* a run a turn: of most slots all free units are one */
        mask >>= __builtin_ctz(mask);
        const unsigned length = ~mask ? (unsigned)__builtin_ctz(~mask) : ISO_UNITS_PER_SLOT;
        longest = length > longest ? length : longest;
        mask = length < ISO_UNITS_PER_SLOT ? mask >> length : 0;
    }
    return longest;
}

unsigned iso_slot_longest(const iso_slot_t *slot)
{
    return is_empty(slot) ? ISO_UNITS_PER_SLOT : longest_run(free_units(slot) & ~1u);
}

static void check_slot_links(iso_heap_t *heap, const iso_slot_t *slot)
{
    if (slot->longest > ISO_UNITS_PER_SLOT || (!slot->prev && heap->slots[slot->longest] != slot) ||
        (slot->prev && iso_slot_checked(heap, slot->prev)->next != slot) ||
        (slot->next && iso_slot_checked(heap, slot->next)->prev != slot))
        iso_heap_damaged(heap, slot, "a list of slots is not linked both ways");
}

static void slot_unlist(iso_heap_t *heap, iso_slot_t *slot)
{
    if (slot->longest == 0)
        return;
    check_slot_links(heap, slot);
    if (slot->prev)
        slot->prev->next = slot->next;
    else
        heap->slots[slot->longest] = slot->next;
    if (slot->next)
        slot->next->prev = slot->prev;
    if (!heap->slots[slot->longest])
        heap->lists &= ~(UINT64_C(1) << slot->longest);
    slot->longest = 0;
}

static void slot_relist(iso_heap_t *heap, iso_slot_t *slot)
{
    unsigned longest = iso_slot_longest(slot);
    if (longest == slot->longest)
        return;
    slot_unlist(heap, slot);
    if (longest == 0)
        return;
    iso_slot_t *head = heap->slots[longest];
    slot->longest = longest;
    slot->prev = NULL;
    slot->next = head;
    if (head) {
        if (iso_slot_checked(heap, head)->prev)
            iso_heap_damaged(heap, head, "a list of slots is not linked both ways");
        head->prev = slot;
    }
    heap->slots[longest] = slot;
    heap->lists |= UINT64_C(1) << longest;
}

/* ---- units ---- */

iso_job_t *iso_heap_job(const iso_heap_t *heap)
{
    return iso_hold_find(NULL, heap)->job;
}

void iso_slot_init(iso_heap_t *heap, iso_slot_t *slot, uint32_t warm)
{
    memset(slot, 0, sizeof *slot);
    slot->check = iso_check_of(slot, ISO_CHECK_KEY);
    slot->heap = (uintptr_t)heap;
    for (unsigned unit = 0; unit < ISO_UNITS_PER_SLOT; unit++)
        slot->spans[unit].klass = ISO_CLASS_NONE;
    set_free_units(slot, UINT32_MAX);
    slot_relist(heap, slot);
    if (warm & ~1u)
        iso_retain_units_free(iso_heap_job(heap), slot, warm & ~1u);
}

static uint32_t unit_mask(unsigned first, unsigned count)
{
    return (uint32_t)((UINT64_C(1) << (first + count)) - (UINT64_C(1) << first));
}

/* Where the first run of `count` bits begins, 32: nowhere. */
static unsigned find_run(uint32_t mask, unsigned count)
{
    for (unsigned i = 1; i < count && mask; i++)
        mask &= mask >> 1;
    return mask ? (unsigned)__builtin_ctz(mask) : ISO_UNITS_PER_SLOT;
}

static iso_slot_t *grow(iso_heap_t *heap)
{
    char *address;
    uint32_t warm;
    iso_hold_t *hold = iso_hold_find(NULL, heap);
    if (!hold || iso_hold_grow(hold, 1, &address, &warm) != ISO_OK)
        return NULL;
    iso_slot_t *slot = (iso_slot_t *)address;
    iso_slot_init(heap, slot, warm);
    return slot;
}

iso_slot_t *iso_units_take(iso_heap_t *heap, unsigned count, unsigned room, bool any,
                           unsigned *first_p)
{
    uint64_t lists = heap->lists & ~((UINT64_C(1) << count) - 1);
    uint64_t roomy = lists & ~((UINT64_C(1) << room) - 1);
    if (lists >> ISO_UNITS_PER_SLOT > 1)
        iso_heap_damaged(heap, &heap->lists, "which lists of slots are empty");
    if (roomy)
        lists = roomy;
    iso_slot_t *slot =
        lists ? iso_slot_checked(heap, heap->slots[__builtin_ctzll(lists)]) : grow(heap);
    if (!slot)
        return NULL;
    uint32_t free = free_units(slot);
    bool from_0 = count == ISO_UNITS_PER_SLOT || (any && free & 1);
    unsigned first = from_0 ? 0 : find_run(free & ~1u, roomy ? room : count);
    if (first + count > ISO_UNITS_PER_SLOT)
        iso_heap_damaged(heap, slot, "a slot has less free units than its list says");
    set_free_units(slot, free & ~unit_mask(first, count));
    slot_relist(heap, slot);
    *first_p = first;
    return slot;
}

static void give_slot(iso_heap_t *heap, iso_slot_t *slot)
{
    slot_unlist(heap, slot);
    iso_hold_shrink(iso_hold_find(NULL, heap), (char *)slot, 1);
}

void iso_units_give(iso_heap_t *heap, iso_slot_t *slot, unsigned first, unsigned count)
{
    uint32_t mask = unit_mask(first, count);
    if (free_units(slot) & mask)
        iso_heap_damaged(heap, slot, "a unit that is in use is marked free");
    for (unsigned unit = first; unit < first + count; unit++) {
        iso_span_t *span = &slot->spans[unit];
        span->kind = ISO_SPAN_FREE;
        span->klass = ISO_CLASS_NONE;
        span->avail = span->live = 0;
    }
    set_free_units(slot, free_units(slot) | mask);
    if (mask & ~1u)
        iso_retain_units_free(iso_heap_job(heap), slot, mask & ~1u);
    slot_relist(heap, slot);
    iso_slot_t *empty = heap->slots[ISO_UNITS_PER_SLOT];
    if (is_empty(slot) && (empty != slot || slot->next))
        give_slot(heap, slot); /* another empty one is kept already */
}

bool iso_units_extend(iso_heap_t *heap, iso_slot_t *slot, unsigned first, unsigned count)
{
    if (first + count > ISO_UNITS_PER_SLOT)
        return false;
    uint32_t mask = unit_mask(first, count);
    if ((free_units(slot) & mask) != mask)
        return false;
    set_free_units(slot, free_units(slot) & ~mask);
    slot_relist(heap, slot);
    return true;
}

void iso_units_retire(iso_heap_t *heap)
{
    iso_slot_t *slot = heap->slots[ISO_UNITS_PER_SLOT];
    for (iso_slot_t *next; slot; slot = next) {
        next = iso_slot_checked(heap, slot)->next;
        give_slot(heap, slot);
    }
}
