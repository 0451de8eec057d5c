/* head.c - see head.h. */
#include "core/head.h"
#include "core/heap_layout.h"
#include "core/span.h"
#include <assert.h>
#include <string.h>

_Static_assert(ISO_HEAD_SIZE == ISO_HEAP_OFFSET + ISO_CHUNK_SIZE, "the slot's header and the heap");

/* What of a unit's span means something, from where to where; to 0: nothing. */
static size_t span_from(const iso_span_t *span, size_t *to_p)
{
    *to_p = sizeof *span;
    switch (span->kind) {
    case ISO_SPAN_TINY:
        return offsetof(iso_span_t, keyed);
    case ISO_SPAN_SMALL:
        return ISO_SMALL_BITS(iso_classes[span->klass].size);
    case ISO_SPAN_MEDIUM:
        *to_p = offsetof(iso_span_t, next); /* which no list of them has */
        return ISO_SPAN_FIELDS;
    default: /* ISO_SPAN_REST, too: the first span of the block says it all */
        *to_p = 0;
        return 0;
    }
}

_Static_assert(ISO_CLASS_COUNT % 4 == 0, "there is no rest");
static bool any_of_4(iso_span_t *const *spans)
{
    return ((uintptr_t)spans[0] | (uintptr_t)spans[1] | (uintptr_t)spans[2] |
            (uintptr_t)spans[3]) != 0;
}

bool iso_head_pieces(const iso_heap_t *heap, iso_live_run_fn emit, void *arg)
{
    const iso_slot_t *slot = iso_slot_of(heap);
    assert(iso_heap_magic(heap) == ISO_HEAP_MAGIC_FROZEN); /* so there are no current blocks */
    if (!emit((void *)(uintptr_t)slot, sizeof slot->spans[0], arg))
        return false;
    for (uint32_t used = iso_slot_used(slot) & ~1u; used; used &= used - 1) {
        const iso_span_t *span = &slot->spans[__builtin_ctz(used)];
        size_t to, from = span_from(span, &to);
        if (to > 0 && !emit((char *)(uintptr_t)span + from, to - from, arg))
            return false;
    }
    if (!emit((void *)(uintptr_t)heap, offsetof(struct iso_heap, current), arg))
        return false;
    for (unsigned klass = 0; klass < ISO_CLASS_COUNT; klass++) {
        if (klass % 4 == 0 && !any_of_4(&heap->spans[klass])) { /* of most classes there is none */
            klass += 3;
            continue;
        }
        if (heap->spans[klass] &&
            !emit((void *)(uintptr_t)&heap->spans[klass], sizeof heap->spans[klass], arg))
            return false;
    }
    for (uint64_t lists = heap->lists; lists; lists &= lists - 1) {
        iso_slot_t *const *list = &heap->slots[__builtin_ctzll(lists)];
        if (!emit((void *)(uintptr_t)list, sizeof *list, arg))
            return false;
    }
    return true;
}

/* All of it at once, though little would do: whole lines are written without being fetched, and what follows finds
 * them in the cache. A line here and there takes ten times as long. */
void iso_head_make(iso_heap_t *heap)
{
    iso_slot_t *slot = iso_slot_of(heap);
    memset(slot, 0, sizeof *slot);
    memset(heap, 0, sizeof *heap);
    for (unsigned unit = 0; unit < ISO_UNITS_PER_SLOT; unit++)
        slot->spans[unit].klass = ISO_CLASS_NONE; /* and of kind ISO_SPAN_FREE */
    for (unsigned klass = 0; klass < ISO_CLASS_COUNT; klass++)
        heap->current[klass].word = &heap->none; /* as iso_current_none */
}

void iso_head_complete(iso_heap_t *heap)
{
    iso_slot_t *slot = iso_slot_of(heap);
    for (uint32_t used = iso_slot_used(slot) & ~1u; used; used &= used - 1) {
        unsigned unit = (unsigned)__builtin_ctz(used);
        const unsigned units = slot->spans[unit].units;
        if (slot->spans[unit].kind != ISO_SPAN_MEDIUM)
            continue;
        for (unsigned i = 1; i < units && unit + 1 < ISO_UNITS_PER_SLOT; i++)
            iso_span_reset(&slot->spans[++unit], ISO_SPAN_REST, ISO_CLASS_NONE, (uint8_t)i);
    }
}

bool iso_head_is_all(const iso_heap_t *heap)
{
    return iso_slot_of(heap)->spans[0].kind == ISO_SPAN_FREE;
}
