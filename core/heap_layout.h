/*
 * heap_layout.h - what lies in the iso space: the structures of a heap, which migrate as they are.
 *
 * Everything is of fixed width and means the same in every process: no pointer but into the heap's
 * own slots, no lock, no function. Free state is kept as bit masks outside the blocks, as in musl's
 * mallocng: a free block holds nothing, so its page need not be shipped.
 *
 *   slot (2 MiB)   header in its first 4 KiB: of each of its 32 units of 64 KiB what is in it, and the free
 *                  bits of small blocks. Unit 0 lacks the header's 4 KiB, and in a heap's first slot
 *                  those of the heap itself, behind it
 *   span           one unit of tiny or small blocks of one class (in unit 0 only tiny ones), or up to 32
 *                  units for one medium block (unit 0 only as a part of all 32)
 *   chunk (4 KiB)  of a tiny span: its own free bits, then its blocks: a page with a live block
 *                  brings its metadata along, one without is not shipped. Small blocks are few enough to a
 *                  page to have theirs in the header, where they are in a few cache lines
 *   run            several slots for one large block, behind one header
 *
 * Every 4 KiB that begin with metadata, tiny chunks and slot headers, begin with a check word, which
 * follows from its address: what runs over the end of the block before must write it first. Whoever
 * uses the metadata behind it compares (iso_check_holds).
 */
#ifndef ISO_CORE_HEAP_LAYOUT_H
#define ISO_CORE_HEAP_LAYOUT_H

#include "core/atomic.h"
#include "core/retain.h"
#include "core/sizeclass.h"
#include "core/slots.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_CHUNK_SIZE ((size_t)4096) /* whatever the OS page is: part of the layout */
#define ISO_CHUNKS_PER_UNIT 16
#define ISO_CHUNKS_PER_SLOT 512
#define ISO_SLOT_HEADER ISO_CHUNK_SIZE
#define ISO_MEDIUM_MAX (ISO_SLOT_SIZE - ISO_SLOT_HEADER)
#define ISO_SPAN_WORDS 12 /* enough for blocks of 96 bytes */

/* Magic numbers: a heap whose memory is anything else is not one. */
#define ISO_HEAP_MAGIC UINT64_C(0x70616568696f7331)        /* in use, by one thread at a time */
#define ISO_HEAP_MAGIC_SHARED UINT64_C(0x72616873696f7331) /* in use, under its lock: shared.h */
#define ISO_HEAP_MAGIC_FROZEN UINT64_C(0x6e7a7266696f7331) /* migrating, or a copy left behind */

/* A check word is its own address with these bits changed. The lowest byte of it, which an overflow
 * writes first, is neither 0 nor text; a constant of 32 signed bits is part of an instruction. */
#define ISO_CHECK_KEY ((uint64_t)INT64_C(-0x5c163a09)) /* 0xffffffffa3e9c5f7 */

typedef enum iso_span_kind {
    ISO_SPAN_FREE = 0, /* of a unit that no span uses; all else in the span is meaningless */
    ISO_SPAN_TINY,
    ISO_SPAN_SMALL,
    ISO_SPAN_MEDIUM, /* first unit of a medium block */
    ISO_SPAN_REST    /* another unit of it; klass: distance to its first */
} iso_span_kind_t;

/* Of one unit: two cache lines, the second of which is all that iso_free looks at for blocks of which there
 * are at most 256 in a unit. */
typedef struct iso_span {
    /* SMALL: its free bits, see iso_small_bits. Unit 0 has none: the slot's own words are here. */
    uint64_t bits[ISO_SPAN_WORDS];
    uint8_t kind;
    uint8_t klass;
    uint8_t units;  /* MEDIUM: of the block */
    uint8_t listed; /* in the heap's list of spans of its class with room; 2: to be again after */
    uint16_t avail; /* TINY: chunks that were not yet looked into since the span was listed, live or
                       not. SMALL: words of free bits that were not, the last ones of all */
    uint16_t live;  /* TINY: chunks whose free bits are initialised; the others hold nothing.
                       SMALL: all. 0 in spans of other kinds: iso_free need not ask */
    union {
        uint32_t bytes; /* MEDIUM: usable size */
        /* TINY, SMALL: 0 when as many blocks were freed, since the span was listed, as make another
         * visit worth while; counted on from there */
        uint32_t until;
    };
    /* TINY: chunks that an iso_current_t is in; SMALL: bit 0, or none. They stay when their last block
     * is freed. None while the heap is frozen. */
    uint16_t current;
    /* Chunks that the OS was asked to map, of a TINY span from the unit's beginning, of a SMALL one from
     * its end; only a hint, wrong after a migration at worst. */
    uint16_t populate;
    struct iso_span *next, *prev;
} iso_span_t;
/* From here on all are of the span in unit 0, too. */
#define ISO_SPAN_FIELDS offsetof(iso_span_t, kind)

/* Free bits: 0 is a block in use, 1 a free one, or none: a number that no block has. So all is free where
 * all bits are set, and whoever frees what is no block finds it free already. */
typedef struct iso_slot {
    __extension__ union {
        __extension__ struct {
            uint64_t check;
            uint64_t heap;      /* address of the heap */
            uint64_t run_bytes; /* usable size of the large block; else 0, as the two below */
            /* More than 0: a run; then only the fields up to `run_offset` mean something. */
            uint32_t run_slots;
            uint32_t run_offset; /* of the block in the run */
            /* Mask; bit 0: the 60 KiB behind the header. Written by the heap's user, read by whatever
             * thread looks for pages to give back: units change hands under the job's lock, see
             * retain.h. */
            ISO_ATOMIC(uint32_t) free_units;
            /* Adjacent free units but unit 0, or all: the list it is in; 0: in none. */
            uint32_t longest;
            struct iso_slot *next, *prev;
        };
        iso_span_t spans[ISO_UNITS_PER_SLOT];
    };
} iso_slot_t;

/* A chunk of a TINY span that is live begins with this. */
typedef struct iso_chunk {
    uint64_t check;
    __extension__ uint64_t bits[]; /* free bits, as many words as the class needs */
} iso_chunk_t;

/* Where the next block of a class comes from: *word has the free bits of up to 64 blocks, the first
 * of which is at base. */
typedef struct iso_current {
    uint64_t *word; /* never NULL: &heap->none when there is none */
    char *base;
    uint64_t blocks; /* bits of *word that are of blocks in populated pages; 0: there is no word */
    int32_t step;    /* from one block to the next, which is before it: minus their size */
    uint32_t unit;   /* that the blocks are in: its address / ISO_UNIT_SIZE */
} iso_current_t;

struct iso_heap {
    ISO_ATOMIC(uint64_t) magic;
    uint64_t layout; /* iso_heap_layout_digest of who made it */
    uint64_t epoch;
    uint32_t flags; /* of iso_heap_flags_t */
    uint32_t
        tight; /* the iso space had no room: every free block counts. Until the heap migrates */
    ISO_ATOMIC(void *) root;
    uint64_t none;                             /* always 0: no free block */
    uint64_t lists;                            /* bit n: slots[n] is not empty */
    iso_current_t current[ISO_CLASS_COUNT];    /* all at `none` in a shared heap: see shared.h */
    iso_span_t *spans[ISO_CLASS_COUNT];        /* with room: a ring, in turn */
    iso_slot_t *slots[ISO_UNITS_PER_SLOT + 1]; /* by longest run of free units */
};

#define ISO_HEAP_OFFSET ISO_SLOT_HEADER

/* Of the check word of a slot's header or a live chunk. */
static inline uint64_t iso_check_of(const void *metadata)
{
    return (uintptr_t)metadata ^ ISO_CHECK_KEY;
}
static inline uint64_t iso_check_difference(const void *metadata)
{
    return *(const uint64_t *)metadata ^ iso_check_of(metadata);
}
static inline bool iso_check_holds(const void *metadata)
{
    return iso_check_difference(metadata) == 0;
}
static inline iso_slot_t *iso_slot_of(const void *address)
{
    return (iso_slot_t *)((uintptr_t)address & ~(uintptr_t)ISO_SLOT_MASK);
}
static inline unsigned iso_unit_of(const void *address)
{
    return (unsigned)(((uintptr_t)address & ISO_SLOT_MASK) >> ISO_UNIT_SHIFT);
}
static inline iso_chunk_t *iso_chunk_of(const void *address)
{
    return (iso_chunk_t *)((uintptr_t)address & ~(uintptr_t)(ISO_CHUNK_SIZE - 1));
}
/* Which of its unit's chunks it is. */
static inline unsigned iso_chunk_number(const void *address)
{
    return (unsigned)((uintptr_t)address >> 12) & (ISO_CHUNKS_PER_UNIT - 1);
}
static inline iso_chunk_t *iso_chunk_at(const iso_slot_t *slot, unsigned unit, unsigned number)
{
    return (iso_chunk_t *)((char *)slot + ((size_t)unit << ISO_UNIT_SHIFT) +
                           number * ISO_CHUNK_SIZE);
}
#ifndef __cplusplus /* atomics: see atomic.h */
/* What a thread that is not the heap's user may ask. */
static inline uint64_t iso_heap_magic(const iso_heap_t *heap)
{
    return atomic_load_explicit(&heap->magic, memory_order_relaxed);
}
static inline iso_current_t iso_current_none(const iso_heap_t *heap)
{
    return (iso_current_t){.word = (uint64_t *)&heap->none};
}
#endif
/* A heap's first slot holds the heap as well. */
static inline bool iso_slot_is_first(const iso_slot_t *slot)
{
    return slot->heap == (uintptr_t)slot + ISO_HEAP_OFFSET;
}
/* Which chunks of the unit may hold blocks. */
static inline uint16_t iso_unit_chunks(const iso_slot_t *slot, unsigned unit)
{
    unsigned metadata = iso_slot_is_first(slot) ? 2 : 1;
    return (uint16_t)(unit ? 0xffff : 0xffffu << metadata);
}
/* Where the block of a MEDIUM span begins. Unit 0 has tiny spans, and blocks of a whole slot. */
static inline char *iso_unit_base(const iso_slot_t *slot, unsigned unit)
{
    return (char *)slot + (unit ? (size_t)unit << ISO_UNIT_SHIFT : ISO_SLOT_HEADER);
}
/* Where a block's free bits and their check word are. No branch: which class a program's next block is of
 * cannot be foretold. */
static inline char *iso_class_base(const iso_class_t *class_, const void *block)
{
    return (char *)((uintptr_t)block & class_->base_mask);
}
static inline uint64_t *iso_class_words(const iso_class_t *class_, const void *block)
{
    size_t span = (uintptr_t)block >> (ISO_UNIT_SHIFT - 7) & 31 << 7; /* see the assertion */
    return (uint64_t *)(iso_class_base(class_, block) + (span & class_->span_mask) +
                        class_->bits_at);
}
static inline bool iso_class_is_tiny(unsigned klass)
{
    return klass < ISO_TINY_CLASSES;
}
static inline bool iso_class_is_small(unsigned klass)
{
    return klass >= ISO_TINY_CLASSES && klass < ISO_CLASS_COUNT;
}
/* The free bits of a SMALL span. */
static inline uint64_t *iso_small_bits(const iso_span_t *span)
{
    return (uint64_t *)((uintptr_t)span + iso_classes[span->klass].bits_at);
}
/* Which bits of word `index` are of blocks, of which there are `count`. */
static inline uint64_t iso_block_bits(uint32_t count, unsigned index)
{
    uint32_t left = count > index * 64 ? count - index * 64 : 0;
    return left >= 64 ? UINT64_MAX : (UINT64_C(1) << left) - 1;
}
/* Are all the blocks of an area free? */
static inline bool iso_all_free(const uint64_t *words, uint32_t count)
{
    for (unsigned i = 0; i * 64 < count; i++)
        if (words[i] != UINT64_MAX)
            return false;
    return true;
}

#ifdef __cplusplus
}
#endif

#endif
