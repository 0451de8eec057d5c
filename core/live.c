/*
 * live.c - which pages of a heap hold something, which bytes of a few of them, and which blocks are live: three
 * walks over the same metadata.
 *
 * Of a slot: its header's 4 KiB, always; the heap, in its first one; of a tiny span the chunks marked live; of a small span the
 * chunks that a live block overlaps; of a medium or large block the pages of its usable bytes, but for what a
 * stack does not use. In 4 KiB chunks, rounded out to OS pages at the end.
 */
#include "core/live.h"
#include "core/depth.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/shared.h"
#include "core/span.h"
#include "core/stack.h"

#define MASK_WORDS (ISO_CHUNKS_PER_SLOT / 64)

/* ---- live runs ---- */

/* Sets bits [first, last]. */
static void mask_set(uint64_t mask[MASK_WORDS], unsigned first, unsigned last)
{
    for (unsigned word = first / 64; word <= last / 64; word++) {
        unsigned low = word == first / 64 ? first % 64 : 0;
        unsigned high = word == last / 64 ? last % 64 : 63;
        mask[word] |= (UINT64_MAX >> (63 - high)) & (UINT64_MAX << low);
    }
}

static void mask_bytes(uint64_t mask[MASK_WORDS], size_t offset, size_t length)
{
    mask_set(mask, (unsigned)(offset / ISO_CHUNK_SIZE),
             (unsigned)((offset + length - 1) / ISO_CHUNK_SIZE));
}

/* Is one of the blocks first to last in use? */
static bool any_live(const uint64_t *words, unsigned first, unsigned last)
{
    for (unsigned i = first / 64; i <= last / 64; i++) {
        unsigned low = i == first / 64 ? first % 64 : 0, high = i == last / 64 ? last % 64 : 63;
        if (~words[i] & (UINT64_MAX >> (63 - high)) & (UINT64_MAX << low))
            return true;
    }
    return false;
}

/* Chunks of a small span that a live block overlaps. Bits that no block has are set. */
static uint16_t small_chunks(const iso_span_t *span)
{
    const iso_class_t *class = &iso_classes[span->klass];
    unsigned chunks = 0;
    for (unsigned i = 0; i < ISO_CHUNKS_PER_UNIT; i++) { /* from the unit's end, as its blocks */
        unsigned first = (unsigned)(i * ISO_CHUNK_SIZE) / class->size;
        unsigned last = (unsigned)((i + 1) * ISO_CHUNK_SIZE - 1) / class->size;
        if (any_live(iso_small_bits(span), first, last))
            chunks |= 1u << (ISO_CHUNKS_PER_UNIT - 1 - i);
    }
    return (uint16_t)chunks;
}

static void mask_medium(uint64_t mask[MASK_WORDS], const iso_slot_t *slot, unsigned unit)
{
    const iso_span_t *span = &slot->spans[unit];
    const char *block = iso_unit_base(slot, unit);
    size_t unused = iso_stack_unused(block, span->stack);
    mask_bytes(mask, (size_t)(block - (const char *)slot) + unused, span->bytes - unused);
}

/* Does a span of the slot hold anything? The first slot's header is live by itself, the others' with
 * their blocks; but an empty slot still is linked through its header. */
static void mask_slot(uint64_t mask[MASK_WORDS], const iso_slot_t *slot)
{
    for (unsigned i = 0; i < MASK_WORDS; i++)
        mask[i] = 0;
    mask[0] = iso_slot_is_first(slot) ? 3 : 1;
    for (uint32_t used = iso_slot_used(slot); used; used &= used - 1) {
        const unsigned unit = (unsigned)__builtin_ctz(used);
        const iso_span_t *span = &slot->spans[unit];
        unsigned chunk = unit * ISO_CHUNKS_PER_UNIT;
        if (span->kind == ISO_SPAN_TINY)
            mask[chunk / 64] |= (uint64_t)span->live << chunk % 64;
        else if (span->kind == ISO_SPAN_SMALL)
            mask[chunk / 64] |= (uint64_t)small_chunks(span) << chunk % 64;
        else if (span->kind == ISO_SPAN_MEDIUM)
            mask_medium(mask, slot, unit);
    }
}

/* Collects ranges in ascending order and hands them on in whole pages, merged. */
typedef struct merger {
    uintptr_t start, end; /* not handed on yet; start == end: nothing */
    uintptr_t page;
    iso_live_run_fn emit;
    void *arg;
    bool stopped;
} merger_t;

static void merger_flush(merger_t *merger)
{
    if (merger->start != merger->end && !merger->stopped)
        merger->stopped =
            !merger->emit((void *)merger->start, merger->end - merger->start, merger->arg);
    merger->start = merger->end = 0;
}

static void merger_add(merger_t *merger, uintptr_t start, uintptr_t end)
{
    start &= ~(merger->page - 1);
    end = (end + merger->page - 1) & ~(merger->page - 1);
    if (start >= merger->start && start <= merger->end && merger->end != 0) {
        if (end > merger->end)
            merger->end = end;
        return;
    }
    merger_flush(merger);
    merger->start = start;
    merger->end = end;
}

static void merge_mask(merger_t *merger, uintptr_t slot, const uint64_t mask[MASK_WORDS])
{
    for (unsigned at = 0; at < ISO_CHUNKS_PER_SLOT && !merger->stopped;) {
        uint64_t word = mask[at / 64] >> at % 64;
        if (!word) {
            at = (at / 64 + 1) * 64;
            continue;
        }
        at += (unsigned)__builtin_ctzll(word);
        word = ~(mask[at / 64] >> at % 64);
        unsigned length = word ? (unsigned)__builtin_ctzll(word) : 64;
        if (length > 64 - at % 64)
            length = 64 - at % 64;
        merger_add(merger, slot + at * ISO_CHUNK_SIZE, slot + (at + length) * ISO_CHUNK_SIZE);
        at += length;
    }
}

void iso_live_runs(iso_hold_t *hold, size_t page, iso_live_run_fn emit, void *arg)
{
    merger_t merger = {.page = page, .emit = emit, .arg = arg};
    uint64_t mask[MASK_WORDS];
    for (uint32_t e = 0; e < hold->extent_count && !merger.stopped; e++) {
        const iso_extent_t *extent = &hold->extents[e];
        char *address = iso_space_slot_address(&hold->job->space, extent->first);
        if (extent->count & ISO_EXTENT_RUN) {
            const iso_slot_t *slot = iso_slot_checked(hold->heap, address);
            char *block = address + slot->run_offset;
            merger_add(&merger, (uintptr_t)address, (uintptr_t)address + ISO_SLOT_HEADER);
            merger_add(&merger, (uintptr_t)block + iso_stack_unused(block, slot->run_stack),
                       (uintptr_t)block + slot->run_bytes);
            continue;
        }
        for (uint32_t i = 0; i < extent->count && !merger.stopped; i++) {
            const iso_slot_t *slot = iso_slot_checked(hold->heap, address + i * ISO_SLOT_SIZE);
            mask_slot(mask, slot);
            merge_mask(&merger, (uintptr_t)slot, mask);
        }
    }
    merger_flush(&merger);
}

void iso_heap_live_runs(iso_hold_t *hold, iso_live_run_fn emit, void *arg)
{
    iso_live_runs(hold, iso_os_page_size(), emit, arg);
}

typedef struct listing {
    iso_runs_t *runs;
    bool failed;
} listing_t;

static bool list_run(void *address, size_t length, void *arg)
{
    listing_t *listing = arg;
    listing->failed = !iso_runs_add(listing->runs, (uintptr_t)address, length);
    return !listing->failed;
}

bool iso_heap_list_runs(iso_hold_t *hold, iso_runs_t *runs)
{
    listing_t listing = {runs, false};
    iso_heap_live_runs(hold, list_run, &listing);
    return !listing.failed;
}

/* ---- live blocks ---- */

typedef struct walk {
    iso_block_fn fn;
    void *arg;
} walk_t;

static bool walk_area(const walk_t *walk, char *area, const uint64_t *words,
                      const iso_class_t *class)
{
    for (unsigned i = (class->count + 63) / 64; i-- > 0;) {
        uint64_t live = ~words[i] & iso_block_bits(class->count, i);
        while (live) {
            unsigned last = 63 - (unsigned)__builtin_clzll(live); /* has the lowest address */
            if (!walk->fn(area + iso_class_offset(class, (size_t)i * 64 + last), class->size,
                          walk->arg))
                return false;
            live &= ~(UINT64_C(1) << last);
        }
    }
    return true;
}

static bool walk_span(const walk_t *walk, iso_slot_t *slot, unsigned unit)
{
    const iso_span_t *span = &slot->spans[unit];
    const iso_class_t *class = &iso_classes[span->klass];
    bool more = true;
    if (span->kind == ISO_SPAN_TINY) {
        for (unsigned i = 0; more && i < ISO_CHUNKS_PER_UNIT; i++) {
            iso_chunk_t *chunk = iso_chunk_at(slot, unit, i);
            if (span->live >> i & 1)
                more = walk_area(walk, (char *)chunk, chunk->bits, class);
        }
    } else if (span->kind == ISO_SPAN_SMALL) {
        more = walk_area(walk, iso_unit_base(slot, unit), iso_small_bits(span), class);
    } else if (span->kind == ISO_SPAN_MEDIUM) {
        more = walk->fn(iso_unit_base(slot, unit), span->bytes, walk->arg);
    }
    return more;
}

void iso_live_blocks(iso_hold_t *hold, iso_block_fn fn, void *arg)
{
    const walk_t walk = {fn, arg};
    const iso_heap_t *heap = hold->heap;
    for (uint32_t e = 0; e < hold->extent_count; e++) {
        const iso_extent_t *extent = &hold->extents[e];
        char *address = iso_space_slot_address(&hold->job->space, extent->first);
        if (extent->count & ISO_EXTENT_RUN) {
            const iso_slot_t *slot = iso_slot_checked(heap, address);
            if (!fn(address + slot->run_offset, slot->run_bytes, arg))
                return;
            continue;
        }
        for (uint32_t i = 0; i < extent->count; i++) {
            iso_slot_t *slot = iso_slot_checked(heap, address + i * ISO_SLOT_SIZE);
            for (unsigned unit = 0; unit < ISO_UNITS_PER_SLOT; unit++)
                if (!walk_span(&walk, slot, unit))
                    return;
        }
    }
}

typedef struct own_blocks {
    const void *code, *protections;
    walk_t walk;
} own_blocks_t;

/* Of those that the caller allocated; a heap has blocks of its own as well. */
static bool call(void *block, size_t size, void *arg)
{
    const own_blocks_t *own = arg;
    return block == own->code || block == own->protections ||
           own->walk.fn(block, size, own->walk.arg);
}

iso_status_t iso_heap_walk(iso_heap_t *heap, iso_block_fn fn, void *arg)
{
    iso_shared_t *shared = iso_shared_lock(heap);
    iso_hold_t *hold = iso_hold_find(NULL, heap);
    bool here = hold && hold->state == ISO_HEAP_OWNED;
    iso_depth_enter();
    if (here) {
        own_blocks_t own = {heap->code, heap->protections, {fn, arg}};
        iso_live_blocks(hold, call, &own);
    }
    iso_depth_leave();
    iso_shared_leave(shared);
    return here ? ISO_OK : ISO_ERR_NOT_OWNER;
}

/* ---- live bytes ---- */

typedef struct bytes {
    uintptr_t start, end; /* only what lies there is handed on */
    iso_live_run_fn emit;
    void *arg;
    bool stopped;
} bytes_t;

static bool bytes_add(bytes_t *bytes, uintptr_t start, uintptr_t end)
{
    start = start > bytes->start ? start : bytes->start;
    end = end < bytes->end ? end : bytes->end;
    if (start < end && !bytes->stopped)
        bytes->stopped = !bytes->emit((void *)start, end - start, bytes->arg);
    return !bytes->stopped;
}

static bool add_block(void *block, size_t size, void *arg)
{
    return bytes_add(arg, (uintptr_t)block, (uintptr_t)block + size);
}

/* One that is live. */
static bool add_chunk(bytes_t *bytes, const iso_slot_t *slot, unsigned unit, unsigned number)
{
    const iso_span_t *span = &slot->spans[unit];
    const iso_class_t *class = &iso_classes[span->klass];
    iso_chunk_t *chunk = iso_chunk_at(slot, unit, number);
    const walk_t walk = {add_block, bytes};
    return bytes_add(bytes, (uintptr_t)chunk, (uintptr_t)&chunk->bits[(class->count + 63) / 64]) &&
           walk_area(&walk, (char *)chunk, chunk->bits, class);
}

/* The unit that the address is in; *next_p: where to go on. */
static bool add_unit(bytes_t *bytes, const iso_slot_t *slot, uintptr_t at, uintptr_t *next_p)
{
    unsigned unit = iso_unit_of((void *)at);
    const iso_span_t *span = &slot->spans[unit];
    const walk_t walk = {add_block, bytes};
    bool more = true;
    if (span->kind == ISO_SPAN_REST) {
        unit -= span->units;
        span -= span->units;
    }
    const unsigned units = span->kind == ISO_SPAN_MEDIUM ? span->units : 1;
    *next_p = (uintptr_t)slot + ((size_t)(unit + units) << ISO_UNIT_SHIFT);
    if (span->kind == ISO_SPAN_TINY) {
        for (unsigned live = span->live; more && live; live &= live - 1) {
            const unsigned number = (unsigned)__builtin_ctz(live);
            uintptr_t chunk = (uintptr_t)iso_chunk_at(slot, unit, number);
            if (chunk + ISO_CHUNK_SIZE > bytes->start && chunk < bytes->end)
                more = add_chunk(bytes, slot, unit, number);
        }
    } else if (span->kind == ISO_SPAN_SMALL) {
        more = walk_area(&walk, iso_unit_base(slot, unit), iso_small_bits(span),
                         &iso_classes[span->klass]);
    } else if (span->kind == ISO_SPAN_MEDIUM) {
        uintptr_t block = (uintptr_t)iso_unit_base(slot, unit);
        more = bytes_add(bytes, block + iso_stack_unused((char *)block, span->stack),
                         block + span->bytes);
    }
    return more;
}

/* A large block and its header. */
static bool add_run(bytes_t *bytes, const iso_slot_t *slot, uintptr_t *next_p)
{
    uintptr_t start = (uintptr_t)slot, block = start + slot->run_offset;
    *next_p = start + slot->run_slots * ISO_SLOT_SIZE;
    return bytes_add(bytes, start, start + offsetof(iso_slot_t, free_units)) &&
           bytes_add(bytes, block + iso_stack_unused((char *)block, slot->run_stack),
                     block + slot->run_bytes);
}

bool iso_live_bytes(iso_hold_t *hold, const iso_run_t *run, size_t from, iso_live_run_fn emit,
                    void *arg)
{
    bytes_t bytes = {run->address + from, run->address + run->length, emit, arg, false};
    bool more = true;
    for (uintptr_t at = bytes.start; more && at < bytes.end;) {
        uint32_t number = iso_space_slot(&hold->job->space, (void *)at);
        uintptr_t word =
            atomic_load_explicit(&hold->job->slots.table[number], memory_order_relaxed);
        const iso_slot_t *slot = (const iso_slot_t *)iso_space_slot_address(
            &hold->job->space, number - iso_slots_word_distance(word));
        if (iso_slots_word_heap_slot(word) != iso_heap_slot_of(hold->heap) ||
            slot->heap != (uintptr_t)hold->heap)
            return false;
        if (slot->run_slots > 0)
            more = add_run(&bytes, slot, &at);
        else if (at <
                 (uintptr_t)iso_unit_base(slot, 0) + (iso_slot_is_first(slot) ? ISO_CHUNK_SIZE : 0))
            return false;
        else
            more = add_unit(&bytes, slot, at, &at);
    }
    return more;
}
