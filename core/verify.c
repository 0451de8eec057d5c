/* verify.c - see verify.h. */
#include "core/verify.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/log.h"
#include "core/protect.h"
#include "core/shared.h"
#include "core/stack.h"
#include <string.h>

#define CLASSES_AT_ONCE \
    8 /* that are looked at together: most often there is nothing of any of them */

const char iso_more_blocks[] = "blocks in use that do not exist";

/* ---- whose end was written past ---- */

/* The last block of a span, or of a tiny span's chunk, and its size; NULL: none in use. */
static const char *last_block(const iso_slot_t *slot, const char *before, size_t *size_p)
{
    unsigned unit = iso_unit_of(before);
    while (unit > 0 && slot->spans[unit].kind == ISO_SPAN_REST)
        unit--;
    const iso_span_t *span = &slot->spans[unit];
    const iso_class_t *class = &iso_classes[span->klass];
    *size_p = class->size;
    switch (span->kind) {
    case ISO_SPAN_TINY: {
        const char *chunk = (const char *)iso_chunk_of(before);
        bool live = span->live >> iso_chunk_number(chunk) & 1;
        return live && class->count ? chunk + iso_class_offset(class, 0) : NULL;
    }
    case ISO_SPAN_SMALL:
        return class->count ? iso_unit_base(slot, unit) + iso_class_offset(class, 0) : NULL;
    case ISO_SPAN_MEDIUM:
        *size_p = span->bytes;
        return iso_unit_base(slot, unit);
    default:
        return NULL;
    }
}

/* The block that ends where `metadata` begin, or a little before. Looks only at slots that the slot
 * table knows, and into headers whose own check word holds. */
static const char *block_before(const void *metadata, size_t *size_p)
{
    const char *before = (const char *)metadata - 1;
    const iso_job_row_t *row = iso_job_row_of(before);
    uintptr_t word =
        row ? atomic_load_explicit(&row->table[((uintptr_t)before - row->base) >> ISO_SLOT_SHIFT],
                                   memory_order_relaxed)
            : 0;
    if (!word)
        return NULL;
    const iso_slot_t *slot =
        (iso_slot_t *)((char *)iso_slot_of(before) - iso_slots_word_distance(word) * ISO_SLOT_SIZE);
    if (slot != metadata && !iso_check_holds(slot))
        return NULL;
    if (!slot->run_slots)
        return last_block(slot, before, size_p);
    *size_p = slot->run_bytes;
    return (const char *)slot + slot->run_offset;
}

void iso_check_failed(const iso_heap_t *heap, const void *metadata)
{
    size_t size;
    const char *block = block_before(metadata, &size);
    if (block)
        iso_fatal("heap %p: metadata at %p is damaged: its check word was overwritten; something "
                  "wrote past the end of the block before it, %p of %zu bytes, or wrote to freed "
                  "memory",
                  (const void *)heap, metadata, (const void *)block, size);
    iso_heap_damaged(heap, metadata, "its check word was overwritten");
}

/* ---- spans ---- */

/* Is the stack's beginning in the block, if it is one? */
static bool is_stack_in(uint64_t stack_at, uint64_t bytes)
{
    return stack_at <= bytes && (stack_at == 0 || bytes - stack_at >= sizeof(iso_stack_t));
}

bool iso_run_is_sound(const iso_slot_t *slot)
{
    return slot->run_slots > 0 &&
           (slot->run_offset == ISO_SLOT_HEADER || slot->run_offset == ISO_SLOT_SIZE) &&
           slot->run_bytes <= slot->run_slots * (uint64_t)ISO_SLOT_SIZE - slot->run_offset &&
           is_stack_in(slot->run_stack, slot->run_bytes);
}

bool iso_medium_is_inside(const iso_slot_t *slot, unsigned unit)
{
    const iso_span_t *span = &slot->spans[unit];
    return span->units > 0 && unit + span->units <= ISO_UNITS_PER_SLOT && !span->listed &&
           span->klass == ISO_CLASS_NONE && (unit > 0 || !iso_slot_is_first(slot)) &&
           span->bytes <= span->units * ISO_UNIT_SIZE - (unit ? 0 : ISO_SLOT_HEADER) &&
           is_stack_in(span->stack, span->bytes);
}

bool iso_medium_is_sound(const iso_slot_t *slot, unsigned unit)
{
    const iso_span_t *span = &slot->spans[unit];
    if (!iso_medium_is_inside(slot, unit))
        return false;
    for (unsigned i = 1; i < span->units; i++)
        if (span[i].kind != ISO_SPAN_REST || span[i].klass != ISO_CLASS_NONE || span[i].units != i)
            return false;
    return true;
}

bool iso_current_is_sound(const iso_current_t *current, const iso_slot_t *slot, unsigned unit,
                          unsigned klass)
{
    const iso_class_t *class = &iso_classes[klass];
    const iso_span_t *span = &slot->spans[unit];
    bool tiny = iso_class_is_tiny(klass);
    unsigned at = tiny ? iso_chunk_number(current->word) : 0;
    if (span->kind != (tiny ? ISO_SPAN_TINY : ISO_SPAN_SMALL) || span->klass != klass ||
        current->step != -(int64_t) class->size || (tiny && !(span->live >> at & 1)) ||
        !(span->current >> at & 1))
        return false;
    const char *area = (const char *)slot + ((size_t)unit << ISO_UNIT_SHIFT) + at * ISO_CHUNK_SIZE;
    const uint64_t *bits = tiny ? ((const iso_chunk_t *)area)->bits : iso_small_bits(span);
    const uint64_t *check = tiny ? (const uint64_t *)area : &slot->check;
    size_t index = (size_t)(current->word - bits);
    return current->check == check && current->expected == iso_check_of(check, span->key) &&
           !current->unused && current->word >= bits && index * 64 < class->count &&
           current->word == bits + index && current->blocks &&
           !(current->blocks & (current->blocks + 1)) &&
           !(current->blocks & ~iso_block_bits(class->count, (unsigned)index)) &&
           current->base == area + iso_class_offset(class, index * 64);
}

static void verify_bits(const iso_heap_t *heap, const uint64_t *bits, uint32_t count)
{
    for (unsigned i = 0; i * 64 < count; i++)
        if (~bits[i] & ~iso_block_bits(count, i))
            iso_heap_damaged(heap, &bits[i], iso_more_blocks);
}

static void verify_tiny(const iso_heap_t *heap, const iso_slot_t *slot, unsigned unit)
{
    const iso_span_t *span = &slot->spans[unit];
    const iso_class_t *class = &iso_classes[span->klass];
    uint16_t chunks = iso_unit_chunks(slot, unit);
    if (!iso_class_is_tiny(span->klass))
        iso_heap_damaged(heap, span, "a span's class");
    if (((span->avail | span->live) & ~chunks))
        iso_heap_damaged(heap, span, "which chunks of a span are live");
    for (unsigned live = span->live; live; live &= live - 1) {
        const iso_chunk_t *chunk = iso_chunk_at(slot, unit, (unsigned)__builtin_ctz(live));
        iso_check_chunk(heap, span, chunk);
        verify_bits(heap, chunk->bits, class->count);
    }
}

static void verify_small(const iso_heap_t *heap, const iso_slot_t *slot, unsigned unit)
{
    const iso_span_t *span = &slot->spans[unit];
    const iso_class_t *class = &iso_classes[span->klass];
    if (!iso_class_is_small(span->klass) || unit == 0)
        iso_heap_damaged(heap, span, "a span's class");
    if (span->key != ISO_CHECK_KEY)
        iso_heap_damaged(heap, span, "a span's key");
    if (span->live || span->avail > (class->count + 63) / 64)
        iso_heap_damaged(heap, span, "whether a span has room");
    verify_bits(heap, iso_small_bits(span), class->count);
}

/* ---- slots ---- */

/* What is known of a heap beforehand, and what all its slots together have to add up to. */
typedef struct sums {
    const iso_current_t *current;             /* where blocks of each class come from */
    uint32_t listed[ISO_CLASS_COUNT];         /* spans with room */
    uint64_t classes;                         /* bit n: listed[n] is not 0 */
    uint32_t longest[ISO_UNITS_PER_SLOT + 1]; /* slots by their longest run of free units */
    uint64_t lists;                           /* bit n: longest[n] is not 0; none for 0 */
} sums_t;

/* The chunk or unit of this span that blocks come from, as a bit; 0: they come from another span. */
static uint16_t current_in(const iso_slot_t *slot, unsigned unit, const sums_t *sums)
{
    const iso_span_t *span = &slot->spans[unit];
    const iso_current_t *current = &sums->current[span->klass];
    if (!current->base || current->unit != ((uintptr_t)slot >> ISO_UNIT_SHIFT) + unit)
        return 0;
    return span->kind == ISO_SPAN_TINY ? (uint16_t)(1u << iso_chunk_number(current->word)) : 1;
}

_Static_assert(offsetof(iso_span_t, klass) < ISO_SPAN_FIELDS + sizeof(uint64_t) &&
                   offsetof(iso_span_t, avail) < ISO_SPAN_FIELDS + sizeof(uint64_t) &&
                   offsetof(iso_span_t, live) + sizeof(uint16_t) <=
                       ISO_SPAN_FIELDS + sizeof(uint64_t),
               "what is compared of a free unit is in one word");

static uint64_t fields_of(const iso_span_t *span)
{
    uint64_t fields;
    memcpy(&fields, (const char *)span + ISO_SPAN_FIELDS, sizeof fields);
    return fields;
}

/* How many units there are from this one on that the slot calls free, and that say nothing else; 0, too, if one of them
 * does. Most units of most slots are: one line of each is read, and nothing branches on what it says. */
static unsigned free_run(const iso_slot_t *slot, unsigned unit)
{
    static const iso_span_t none = {.kind = ISO_SPAN_FREE, .klass = ISO_CLASS_NONE};
    static const iso_span_t compared = {
        .kind = UINT8_MAX, .klass = UINT8_MAX, .avail = UINT16_MAX, .live = UINT16_MAX};
    const uint32_t used = iso_slot_used(slot) >> unit;
    const unsigned end = used ? unit + (unsigned)__builtin_ctz(used) : ISO_UNITS_PER_SLOT;
    uint64_t other = 0;
    for (unsigned i = unit; i < end; i++)
        other |= fields_of(&slot->spans[i]) ^ fields_of(&none);
    return other & fields_of(&compared) ? 0 : end - unit;
}

static void verify_spans(const iso_heap_t *heap, const iso_slot_t *slot, sums_t *sums)
{
    uint32_t free = 0;
    for (unsigned unit = 0; unit < ISO_UNITS_PER_SLOT; unit++) {
        const iso_span_t *span = &slot->spans[unit];
        const unsigned run = free_run(slot, unit);
        if (run > 0) {
            free |= (uint32_t)((UINT64_C(1) << (unit + run)) - (UINT64_C(1) << unit));
            unit += run - 1;
            continue;
        }
        switch (span->kind) {
        case ISO_SPAN_FREE:
            if (span->klass != ISO_CLASS_NONE || span->live || span->avail)
                iso_heap_damaged(heap, span, "a unit that is in no span");
            free |= 1u << unit;
            break;
        case ISO_SPAN_TINY:
        case ISO_SPAN_SMALL:
            if (span->kind == ISO_SPAN_TINY)
                verify_tiny(heap, slot, unit);
            else
                verify_small(heap, slot, unit);
            if (span->current != current_in(slot, unit, sums))
                iso_heap_damaged(heap, span, "which chunks of a span blocks come from");
            if (span->listed > 2 || (span->listed != 0) != (span->avail != 0))
                iso_heap_damaged(heap, span, "whether a span is in its list");
            sums->listed[span->klass] += span->listed != 0;
            sums->classes |= (uint64_t)(span->listed != 0) << span->klass;
            break;
        case ISO_SPAN_MEDIUM:
            if (!iso_medium_is_sound(slot, unit))
                iso_heap_damaged(heap, span, "the span of a medium block");
            unit += span->units - 1u;
            break;
        default:
            iso_heap_damaged(heap, span, "a span is of no kind");
        }
    }
    if (free != ~iso_slot_used(slot))
        iso_heap_damaged(heap, slot, "which units of a slot are free");
}

static void verify_slot(const iso_heap_t *heap, const void *address, sums_t *sums)
{
    const iso_slot_t *slot = iso_slot_checked(heap, address);
    /* after an arrival by non-temporal stores it is in no cache, and what of it is in use is about to be read, one thing
     * after the other: for a small heap that is most of what leaving costs */
    for (uint32_t used = iso_slot_used(slot); used; used &= used - 1) {
        const char *span = (const char *)&slot->spans[__builtin_ctz(used)];
        for (size_t at = 0; at < sizeof(iso_span_t); at += 64)
            __builtin_prefetch(span + at);
    }
    if (slot->run_slots || slot->run_bytes || slot->run_offset || slot->run_stack)
        iso_heap_damaged(heap, slot, "the header of a slot");
    verify_spans(heap, slot, sums);
    unsigned longest = iso_slot_longest(slot);
    if (slot->longest != longest)
        iso_heap_damaged(heap, slot, "the longest run of free units of a slot");
    sums->longest[longest]++;
    sums->lists |= (UINT64_C(1) << longest) & ~UINT64_C(1);
}

static void verify_run(const iso_heap_t *heap, const void *address, uint32_t slots)
{
    const iso_slot_t *slot = iso_slot_checked(heap, address);
    if (slot->run_slots != slots || !iso_run_is_sound(slot))
        iso_heap_damaged(heap, slot, "the header of a large block");
}

bool iso_extent_is_of(const iso_job_t *job, const iso_extent_t *extent, uint64_t heap)
{
    const uint32_t slots = iso_extent_slots(extent);
    const uint32_t run_slots = extent->count & ISO_EXTENT_RUN ? slots : 0;
    for (uint32_t i = 0; i < slots; i += run_slots ? run_slots : 1) {
        const iso_slot_t *slot =
            (const iso_slot_t *)iso_space_slot_address(&job->space, extent->first + i);
        if (!iso_check_holds(slot) || slot->heap != heap || slot->run_slots != run_slots)
            return false;
    }
    return true;
}

/* ---- the heap's header ---- */

/* Links are followed only into headers of the heap's slots, and no longer than there are spans. */
static void verify_ring(const iso_heap_t *heap, unsigned klass, uint32_t count)
{
    const iso_span_t *first = heap->spans[klass], *span = first;
    if (!first != !count)
        iso_heap_damaged(heap, &heap->spans[klass], "a list of spans");
    for (; count > 0; count--, span = span->next) {
        iso_span_check(heap, span);
        iso_span_check(heap, span->next);
        if (!span->listed || span->klass != klass || span->next->prev != span)
            iso_heap_damaged(heap, span, "a list of spans is not linked both ways");
    }
    if (span != first)
        iso_heap_damaged(heap, span, "a list of spans");
}

static void verify_list(const iso_heap_t *heap, unsigned longest, uint32_t count)
{
    const iso_slot_t *prev = NULL;
    for (const iso_slot_t *slot = heap->slots[longest]; slot || count; slot = slot->next, count--) {
        if (!count || !slot || iso_slot_checked(heap, slot) != slot)
            iso_heap_damaged(heap, &heap->slots[longest], "a list of slots");
        if (slot->prev != prev || slot->longest != longest)
            iso_heap_damaged(heap, slot, "a list of slots is not linked both ways");
        prev = slot;
    }
}

/* What is looked at by the dozen is looked at two words at a time. */
typedef uint64_t two_t __attribute__((vector_size(16), aligned(8), may_alias));
_Static_assert(sizeof(iso_current_t) == 4 * sizeof(two_t) && offsetof(iso_current_t, word) == 0,
               "as other_than_none has it");

/* All that this place says else than that no blocks come from it: 0, nothing. */
static inline two_t other_than_none(const iso_heap_t *heap, const iso_current_t *current)
{
    const two_t *words = (const two_t *)current, none = {(uintptr_t)&heap->none, 0};
    return (words[0] ^ none) | words[1] | words[2] | words[3];
}

static inline bool is_any(two_t words)
{
    return (words[0] | words[1]) != 0;
}

static bool is_sound(const iso_heap_t *heap, const iso_current_t *current, unsigned klass)
{
    if (current->unit == 0)
        return false;
    const iso_slot_t *slot =
        iso_slot_checked(heap, (const void *)((uintptr_t)current->unit << ISO_UNIT_SHIFT));
    return iso_current_is_sound(current, slot, current->unit % ISO_UNITS_PER_SLOT, klass);
}

static void verify_current(const iso_heap_t *heap, const iso_current_t *current, unsigned klass)
{
    if (is_any(other_than_none(heap, current)) &&
        (current->word == &heap->none || !is_sound(heap, current, klass)))
        iso_heap_damaged(heap, current, "where blocks of a class come from");
}

void iso_heap_verify_header(const iso_hold_t *hold)
{
    const iso_heap_t *heap = hold->heap;
    uint64_t magic = heap->flags & ISO_HEAP_SHARED ? ISO_HEAP_MAGIC_SHARED : ISO_HEAP_MAGIC;
    iso_slot_checked(heap, heap);
    if (iso_heap_magic(heap) != magic || heap->tight > 1 ||
        heap->layout != iso_heap_layout_digest() || heap->epoch != hold->epoch || heap->none)
        iso_heap_damaged(heap, heap, "the heap's header");
}

/* Of some classes, one after the other: where their blocks come from, and their lists of spans. Of most classes there is
 * nothing, so that is asked of all of them first, without a branch for what each says. */
static void verify_classes(const iso_heap_t *heap, const iso_current_t *currents,
                           const sums_t *sums, unsigned first)
{
    const unsigned end = first + CLASSES_AT_ONCE;
    two_t come = {0, 0}, listed = {0, 0};
    for (unsigned klass = first; klass < end; klass += 2) {
        come |=
            other_than_none(heap, &currents[klass]) | other_than_none(heap, &currents[klass + 1]);
        listed |= *(const two_t *)&heap->spans[klass];
    }
    for (unsigned klass = first; is_any(come) && klass < end; klass++)
        verify_current(heap, &currents[klass], klass);
    if (!is_any(listed) && !(sums->classes >> first & ((1u << CLASSES_AT_ONCE) - 1)))
        return;
    for (unsigned klass = first; klass < end; klass++)
        if (heap->spans[klass] || sums->listed[klass])
            verify_ring(heap, klass, sums->listed[klass]);
}

static void verify_lists(const iso_heap_t *heap, const sums_t *sums)
{
    _Static_assert(ISO_CLASS_COUNT % CLASSES_AT_ONCE == 0, "there is no rest");
    const iso_shared_t *shared = iso_shared_of(heap);
    for (unsigned klass = 0; shared && klass < ISO_CLASS_COUNT; klass++)
        if (is_any(other_than_none(heap, &heap->current[klass])))
            iso_heap_damaged(heap, &heap->current[klass], "where blocks of a class come from");
    for (unsigned first = 0; first < ISO_CLASS_COUNT; first += CLASSES_AT_ONCE)
        verify_classes(heap, shared ? shared->current : heap->current, sums, first);
    if (heap->lists != sums->lists)
        iso_heap_damaged(heap, &heap->lists, "which lists of slots are empty");
    unsigned lists = 0; /* that are not empty */
    for (unsigned longest = 0; longest <= ISO_UNITS_PER_SLOT; longest++)
        lists += heap->slots[longest] != NULL;
    for (uint64_t rest = sums->lists; rest; rest &= rest - 1, lists--) {
        const unsigned longest = (unsigned)__builtin_ctzll(rest);
        verify_list(heap, longest, sums->longest[longest]);
    }
    for (unsigned longest = 0; lists != 0 && longest <= ISO_UNITS_PER_SLOT; longest++)
        if (heap->slots[longest] && !(sums->lists >> longest & 1))
            iso_heap_damaged(heap, &heap->slots[longest], "a list of slots");
}

void iso_heap_verify(const iso_hold_t *hold)
{
    const iso_shared_t *shared = iso_shared_of(hold->heap);
    sums_t sums = {.current = shared ? shared->current : hold->heap->current};
    for (uint32_t e = 0; e < hold->extent_count; e++) {
        const iso_extent_t *extent = &hold->extents[e];
        const char *address = iso_space_slot_address(&hold->job->space, extent->first);
        if (extent->count & ISO_EXTENT_RUN)
            verify_run(hold->heap, address, iso_extent_slots(extent));
        else
            for (uint32_t i = 0; i < extent->count; i++)
                verify_slot(hold->heap, address + i * ISO_SLOT_SIZE, &sums);
    }
    iso_heap_verify_header(hold);
    verify_lists(hold->heap, &sums);
    if (!iso_protect_is_sound(hold->job, hold->heap))
        iso_heap_damaged(hold->heap, hold->heap->protections, iso_protect_list);
}
