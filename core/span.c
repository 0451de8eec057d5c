/* span.c - see span.h. */
#include "core/span.h"
#include "core/job.h"
#include "core/poison.h"
#include "core/shared.h"
#include "core/verify.h"
#include <string.h>

/* A page exception costs several times what it costs to have a page mapped along with others. The
 * first span of a class in a heap gets half as many pages again as it has used, so that a small heap stays
 * small; later spans, whose class is evidently in use, a few at a time. Larger blocks of a small span
 * are not populated: they may never be written to as a whole. */
#define POPULATE_BLOCK_MAX ((size_t)8 << 10)
#define POPULATE_STEP ((size_t)16 << 10)

static unsigned unit_of_span(const iso_slot_t *slot, const iso_span_t *span)
{
    return (unsigned)(span - slot->spans);
}

void iso_span_check(const iso_heap_t *heap, const iso_span_t *span)
{
    const iso_slot_t *slot = iso_slot_checked(heap, span);
    size_t offset = (size_t)((const char *)span - (const char *)slot->spans);
    if (offset >= sizeof slot->spans || offset % sizeof *span)
        iso_heap_damaged(heap, span, "a link to a span leads elsewhere");
}

/* ---- spans with room, by class ---- */

static void check_links(iso_heap_t *heap, const iso_span_t *span)
{
    iso_span_check(heap, span->next);
    iso_span_check(heap, span->prev);
    if (span->next->prev != span || span->prev->next != span)
        iso_heap_damaged(heap, span, "a list of spans is not linked both ways");
}

/* At the end of the ring: until its turn comes, more of its blocks will have become free, and one visit
 * serves many allocations. */
static void span_list(iso_heap_t *heap, iso_span_t *span)
{
    iso_span_t *head = heap->spans[span->klass];
    span->listed = 1;
    if (!head) {
        span->next = span->prev = span;
        heap->spans[span->klass] = span;
        return;
    }
    iso_span_check(heap, head);
    if (!head->listed || head->klass != span->klass)
        iso_heap_damaged(heap, head, "a span is in the list of another class");
    check_links(heap, head);
    span->next = head;
    span->prev = head->prev;
    head->prev->next = span;
    head->prev = span;
}

static void span_unlist(iso_heap_t *heap, iso_span_t *span)
{
    if (!span->listed)
        return;
    span->listed = 0;
    if (span->next == span) {
        heap->spans[span->klass] = NULL;
        return;
    }
    check_links(heap, span);
    span->prev->next = span->next;
    span->next->prev = span->prev;
    if (heap->spans[span->klass] == span)
        heap->spans[span->klass] = span->next;
}

static void span_free(iso_heap_t *heap, iso_span_t *span)
{
    iso_slot_t *slot = iso_slot_checked(heap, span);
    span_unlist(heap, span);
    iso_units_give(heap, slot, unit_of_span(slot, span), 1);
}

/* How many blocks have to be freed before a span that was used up is worth a visit: three sixteenths, or where
 * memory is tight, one. */
static uint32_t patience(const iso_heap_t *heap, const iso_span_t *span)
{
    const iso_class_t *class = &iso_classes[span->klass];
    uint32_t blocks = class->count * (iso_class_is_tiny(span->klass) ? ISO_CHUNKS_PER_UNIT : 1u);
    return heap->tight || blocks < 6 ? 1 : blocks * 3 / 16;
}

/* To be looked into once more, from the beginning. */
static void visit_anew(const iso_heap_t *heap, iso_span_t *span)
{
    unsigned unit = unit_of_span(iso_slot_of(span), span);
    span->listed = 1;
    if (span->kind == ISO_SPAN_SMALL)
        span->avail = (uint16_t)((iso_classes[span->klass].count + 63) / 64);
    else
        span->avail = iso_unit_chunks(iso_slot_of(span), unit);
    span->until = (uint16_t)patience(heap, span);
}

static void span_list_again(iso_heap_t *heap, iso_span_t *span)
{
    span_list(heap, span);
    visit_anew(heap, span);
}

void iso_span_has_room(iso_heap_t *heap, iso_span_t *span)
{
    if (span->listed)
        span->listed = 2; /* after this visit */
    else
        span_list_again(heap, span);
}

void iso_span_reset(iso_span_t *span, iso_span_kind_t kind, unsigned klass, uint8_t units)
{
    memset((char *)span + ISO_SPAN_FIELDS, 0, sizeof *span - ISO_SPAN_FIELDS);
    span->kind = (uint8_t)kind;
    span->klass = (uint8_t)klass;
    span->units = units;
}

/* ---- keys of tiny spans ---- */

/* A page may hold what a chunk left there: in an earlier life of the span, or while this one was at another
 * rank or had it live. Its check word is of another key, with one chance in 16 million; Knuth's MMIX
 * generator. The lowest byte stays what it is in ISO_CHECK_KEY. */
static void draw_key(iso_heap_t *heap, iso_span_t *span)
{
    heap->keys = heap->keys * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    span->key = ((uint32_t)(heap->keys >> 32) & ~0xffu) | (ISO_CHECK_KEY & 0xff);
    span->keyed = heap->epoch;
}

static iso_current_t *currents_of(iso_heap_t *heap)
{
    iso_shared_t *shared = iso_shared_of(heap);
    return shared ? shared->current : heap->current;
}

/* A chunk of it dies, whose page other ranks may have as it was when the heap left them: the chunks that live
 * get check words by which that one can be told from them should it meet them again. Once, after the heap
 * has moved; pages that left before have an older key. */
static void change_key(iso_heap_t *heap, iso_span_t *span)
{
    iso_slot_t *slot = iso_slot_of(span);
    unsigned unit = unit_of_span(slot, span);
    iso_span_t old = *span;
    draw_key(heap, span);
    for (unsigned i = 0; i < ISO_CHUNKS_PER_UNIT; i++) {
        iso_chunk_t *chunk = iso_chunk_at(slot, unit, i);
        if (!(span->live >> i & 1))
            continue;
        iso_check_chunk(heap, &old, chunk);
        chunk->check = iso_check_of(chunk, span->key);
    }
    iso_current_t *current = &currents_of(heap)[span->klass];
    if (current->unit == (uintptr_t)iso_chunk_at(slot, unit, 0) >> ISO_UNIT_SHIFT)
        current->expected = *current->check;
}

static iso_span_t *span_new(iso_heap_t *heap, unsigned klass)
{
    unsigned unit;
    iso_slot_t *slot = iso_units_take(heap, 1, 1, iso_class_is_tiny(klass), &unit);
    if (!slot)
        return NULL;
    iso_span_t *span = &slot->spans[unit];
    bool warm = unit && iso_retain_units_use(iso_heap_job(heap), slot, 1u << unit);
    iso_span_reset(span, iso_class_is_tiny(klass) ? ISO_SPAN_TINY : ISO_SPAN_SMALL, klass,
                   warm ? ISO_CHUNKS_PER_UNIT : 0);
    if (span->kind == ISO_SPAN_SMALL) {
        span->key = ISO_CHECK_KEY;
        memset(span->bits, 0xff, sizeof span->bits);
    } else {
        draw_key(heap, span);
    }
    size_t metadata = (size_t)__builtin_ctz(iso_unit_chunks(slot, unit)) * ISO_CHUNK_SIZE;
    iso_poison_unit((char *)slot + ((size_t)unit << ISO_UNIT_SHIFT) + metadata,
                    ISO_UNIT_SIZE - metadata);
    span_list_again(heap, span);
    return span;
}

static char *span_unit(const iso_span_t *span)
{
    iso_slot_t *slot = iso_slot_of(span);
    return (char *)slot + ((size_t)unit_of_span(slot, span) << ISO_UNIT_SHIFT);
}

/* Has the unit's first `length` bytes mapped, of a SMALL span its last ones, if they have not been. Returns
 * how many are. */
static size_t populate(iso_span_t *span, size_t length)
{
    size_t from = span->populate * ISO_CHUNK_SIZE;
    if (from >= length)
        return from;
    size_t to = (length + ISO_CHUNK_SIZE - 1) & ~(ISO_CHUNK_SIZE - 1);
    size_t more = from / 2 & ~(ISO_CHUNK_SIZE - 1);
    if (more > POPULATE_STEP || span->next != span)
        more = POPULATE_STEP;
    if (to < from + more)
        to = from + more;
    if (to > ISO_UNIT_SIZE)
        to = ISO_UNIT_SIZE;
    size_t first = span->kind == ISO_SPAN_SMALL ? ISO_UNIT_SIZE - to : from;
    iso_os_populate(span_unit(span) + first, to - from);
    span->populate = (uint8_t)(to / ISO_CHUNK_SIZE);
    return to;
}

/* ---- where blocks come from ---- */

static void chunk_init(iso_span_t *span, iso_chunk_t *chunk, unsigned at)
{
    const iso_class_t *class = &iso_classes[span->klass];
    populate(span, (at + 1) * ISO_CHUNK_SIZE);
    iso_poison_chunk(chunk, iso_class_offset(class, class->count - 1));
    chunk->check = iso_check_of(chunk, span->key);
    for (unsigned i = 0; i * 64 < class->count; i++)
        chunk->bits[i] = UINT64_MAX;
    span->live |= (uint16_t)(1u << at);
}

/* blocks: bits of the word that may be taken. */
static void come_from(iso_span_t *span, unsigned at, char *area, uint64_t *words, unsigned i,
                      uint64_t blocks, iso_current_t *current)
{
    const iso_class_t *class = &iso_classes[span->klass];
    span->current |= (uint16_t)(1u << at);
    current->word = &words[i];
    current->base = area + iso_class_offset(class, (size_t)i * 64);
    current->blocks = blocks;
    current->check =
        (const uint64_t *)(iso_class_is_tiny(span->klass) ? area : (char *)iso_slot_of(area));
    current->expected = iso_check_of(current->check, span->key);
    current->step = -(int64_t) class->size;
    current->unit = (uintptr_t)area >> ISO_UNIT_SHIFT;
}

static void check_bits(const iso_heap_t *heap, const uint64_t *word, uint64_t blocks)
{
    if (~*word & ~blocks)
        iso_heap_damaged(heap, word, iso_more_blocks);
}

/* Chunks that hold something come first, and rather than a new one those that got room meanwhile. */
static bool use_tiny(const iso_heap_t *heap, iso_span_t *span, iso_current_t *current)
{
    const iso_class_t *class = &iso_classes[span->klass];
    while (span->avail) {
        unsigned live = span->avail & span->live;
        if (!live && span->listed == 2) {
            visit_anew(heap, span);
            continue;
        }
        unsigned at = (unsigned)__builtin_ctz(live ? live : span->avail);
        iso_chunk_t *chunk = (iso_chunk_t *)(span_unit(span) + at * ISO_CHUNK_SIZE);
        if (!live)
            chunk_init(span, chunk, at);
        iso_check_chunk(heap, span, chunk);
        for (unsigned i = 0; i * 64 < class->count; i++) {
            uint64_t blocks = iso_block_bits(class->count, i);
            check_bits(heap, &chunk->bits[i], blocks);
            if (chunk->bits[i] & blocks) {
                come_from(span, at, (char *)chunk, chunk->bits, i, blocks, current);
                return true;
            }
        }
        span->avail &= (uint16_t) ~(1u << at);
    }
    return false;
}

/* Word by word; rather than one that nothing is in, those that got room meanwhile. */
static bool use_small(const iso_heap_t *heap, iso_span_t *span, iso_current_t *current)
{
    const iso_class_t *class = &iso_classes[span->klass];
    uint64_t *words = iso_small_bits(span);
    while (span->avail) {
        unsigned i = (class->count + 63) / 64 - span->avail;
        uint64_t blocks = iso_block_bits(class->count, i), word = words[i];
        check_bits(heap, &words[i], blocks);
        if (word == UINT64_MAX && span->listed == 2) {
            visit_anew(heap, span);
            continue;
        }
        if (word & blocks) {
            size_t lowest = (size_t)i * 64 + (size_t)__builtin_ctzll(word);
            if (class->size <= POPULATE_BLOCK_MAX && span->populate < ISO_CHUNKS_PER_UNIT)
                blocks &= iso_block_bits(
                    (uint32_t)(populate(span, (lowest + 1) * class->size) / class->size), i);
            come_from(span, 0, span_unit(span), words, i, blocks, current);
            return true;
        }
        span->avail--;
    }
    return false;
}

static bool use(const iso_heap_t *heap, iso_span_t *span, iso_current_t *current)
{
    return span->kind == ISO_SPAN_TINY ? use_tiny(heap, span, current)
                                       : use_small(heap, span, current);
}

iso_span_t *iso_span_let_go(iso_heap_t *heap, unsigned klass, iso_current_t *current)
{
    if (current->word == &heap->none)
        return NULL;
    if (current->unit == 0)
        iso_heap_damaged(heap, current, "where blocks of a class come from");
    const iso_slot_t *slot =
        iso_slot_checked(heap, (void *)((uintptr_t)current->unit << ISO_UNIT_SHIFT));
    unsigned unit = current->unit % ISO_UNITS_PER_SLOT, at = iso_chunk_number(current->word);
    if (!iso_current_is_sound(current, slot, unit, klass))
        iso_heap_damaged(heap, current, "where blocks of a class come from");
    iso_span_t *span = (iso_span_t *)&slot->spans[unit];
    span->current &= (uint16_t)(iso_class_is_tiny(klass) ? ~(1u << at) : 0);
    *current = iso_current_none(heap);
    return span;
}

/* The iso space has no room: from here on no span waits for more frees. O(slots), once. */
static bool list_waiting(iso_heap_t *heap, unsigned klass)
{
    const iso_hold_t *hold = iso_hold_find(NULL, heap);
    if (heap->tight)
        return false;
    heap->tight = 1;
    for (uint32_t e = 0; e < hold->extent_count; e++) {
        const iso_extent_t *extent = &hold->extents[e];
        for (uint32_t i = 0; !(extent->count & ISO_EXTENT_RUN) && i < extent->count; i++) {
            iso_slot_t *slot =
                (iso_slot_t *)iso_space_slot_address(&hold->job->space, extent->first + i);
            for (unsigned unit = 0; unit < ISO_UNITS_PER_SLOT; unit++) {
                iso_span_t *span = &iso_slot_checked(heap, slot)->spans[unit];
                if (span->klass != ISO_CLASS_NONE && !span->listed)
                    span_list_again(heap, span);
            }
        }
    }
    return heap->spans[klass] != NULL;
}

/* Is it the first of its class's spans, as far as it says itself? */
static void check_first(const iso_heap_t *heap, const iso_span_t *span, unsigned klass)
{
    if (span->klass != klass || !span->listed ||
        span->kind != (iso_class_is_tiny(klass) ? ISO_SPAN_TINY : ISO_SPAN_SMALL))
        iso_heap_damaged(heap, span, "a span is in the list of another class");
}

/* From the span that blocks came from until now, of which the heap and *current say the same: so there is
 * nothing to look up. This is what mostly happens, once for each word of free bits. */
static bool stay(iso_heap_t *heap, unsigned klass, iso_current_t *current)
{
    iso_span_t *span = heap->spans[klass];
    uintptr_t slot = current->unit / ISO_UNITS_PER_SLOT << ISO_SLOT_SHIFT;
    size_t offset = current->unit % ISO_UNITS_PER_SLOT << ISO_SPAN_SHIFT;
    if (!span || (uintptr_t)span != slot + offset)
        return false;
    if (*current->check != current->expected)
        iso_check_failed(heap, current->check);
    check_first(heap, span, klass);
    unsigned at = iso_class_is_tiny(klass) ? iso_chunk_number(current->word) : 0;
    span->current &= (uint16_t) ~(1u << at);
    if (use(heap, span, current))
        return true;
    span->current |= (uint16_t)(1u << at);
    return false;
}

bool iso_span_refill(iso_heap_t *heap, unsigned klass, iso_current_t *current)
{
    if (stay(heap, klass, current))
        return true;
    const iso_span_t *checked = iso_span_let_go(heap, klass, current);
    for (;;) {
        iso_span_t *span = heap->spans[klass];
        if (span) {
            if (span != checked)
                iso_span_check(heap, span);
            check_first(heap, span, klass);
        } else {
            span = span_new(heap, klass);
            if (!span && !list_waiting(heap, klass))
                return false;
            if (!span)
                continue;
        }
        if (use(heap, span, current))
            return true;
        bool again = span->listed == 2; /* else it waits until enough is free in it */
        span_unlist(heap, span);
        if (again)
            span_list_again(heap, span);
    }
}

void iso_span_chunk_empty(iso_heap_t *heap, iso_span_t *span, iso_chunk_t *chunk)
{
    unsigned at = iso_chunk_number(chunk);
    if (span->current >> at & 1)
        return; /* blocks come from here: it would be wanted again at once */
    chunk->check = 0;
    span->live &= (uint16_t) ~(1u << at);
    if (span->live == 0)
        span_free(heap, span);
    else if (span->keyed != heap->epoch)
        change_key(heap, span);
}

void iso_span_small_empty(iso_heap_t *heap, iso_span_t *span)
{
    if (!span->current)
        span_free(heap, span);
}

void iso_span_retire(iso_heap_t *heap, iso_current_t *current)
{
    for (unsigned klass = 0; klass < ISO_CLASS_COUNT; klass++) {
        if (current[klass].word == &heap->none) /* most are, and every migration asks */
            continue;
        iso_chunk_t *chunk = iso_chunk_of(current[klass].word);
        iso_span_t *span = iso_span_let_go(heap, klass, &current[klass]);
        if (iso_class_is_tiny(klass)) {
            iso_check_chunk(heap, span, chunk);
            if (iso_all_free(chunk->bits, iso_classes[klass].count))
                iso_span_chunk_empty(heap, span, chunk);
        } else if (iso_all_free(iso_small_bits(span), iso_classes[klass].count)) {
            iso_span_small_empty(heap, span);
        }
    }
    heap->tight = 0;
    iso_units_retire(heap);
}
