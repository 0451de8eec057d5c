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
 *                  units for one medium block (in unit 0 only one made of all 32)
 *   chunk (4 KiB)  of a tiny span: its own free bits, then its blocks: a page with a live block
 *                  brings its metadata along, one without is not shipped. Small blocks are few enough to a
 *                  page to have theirs in the header, where they are in a few cache lines
 *   run            several slots for one large block, behind one header
 *
 * Every 4 KiB that begin with metadata, tiny chunks and slot headers, begin with a check word, which
 * follows from its address, and of a chunk from its span's key: what runs over the end of the block before
 * must write it first, and what a page holds that is no chunk any more, or never was, has none. Whoever
 * uses the metadata behind it compares (iso_check_holds, iso_chunk_holds).
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
#define ISO_SPAN_SHIFT 7
#define ISO_SPAN_WORDS 12 /* enough for blocks of 96 bytes */

/* Magic numbers: a heap whose memory is anything else is not one. */
#define ISO_HEAP_MAGIC UINT64_C(0x70616568696f7331)        /* in use, by one thread at a time */
#define ISO_HEAP_MAGIC_SHARED UINT64_C(0x72616873696f7331) /* in use, under its lock: shared.h */
#define ISO_HEAP_MAGIC_FROZEN UINT64_C(0x6e7a7266696f7331) /* migrating, or a copy left behind */

/* A check word is its own address with the bits of a key changed: of this one, but for chunks, whose span has
 * one of its own. The lowest byte of it, which an overflow writes first, is neither 0 nor text. */
#define ISO_CHECK_KEY 0xa3e9c5f7u

typedef enum iso_span_kind {
    ISO_SPAN_FREE = 0, /* of a unit that no span uses; all else in the span is meaningless */
    ISO_SPAN_TINY,
    ISO_SPAN_SMALL,
    ISO_SPAN_MEDIUM, /* first unit of a medium block */
    ISO_SPAN_REST    /* another unit of it */
} iso_span_kind_t;

/* Of one unit: two cache lines, the second of which is all that iso_free looks at for blocks of which there
 * are at most 256 in a unit. */
typedef struct iso_span {
    __extension__ union {
        /* SMALL: its free bits, see iso_small_bits. Unit 0 has none: the slot's own words are here. */
        uint64_t bits[ISO_SPAN_WORDS];
        __extension__ struct {
            uint64_t of_slot[ISO_SPAN_WORDS - 1];
            uint64_t keyed; /* TINY: the heap's epoch when the key was drawn */
        };
    };
    uint8_t kind;
    uint8_t klass; /* TINY, SMALL; else ISO_CLASS_NONE: iso_free need not ask for the kind */
    __extension__ union {
        uint8_t units; /* MEDIUM: of the block; REST: distance to its first */
        /* TINY, SMALL: chunks that the OS was asked to map, of a TINY span from the unit's beginning, of a
         * SMALL one from its end; only a hint, wrong after a migration at worst. */
        uint8_t populate;
    };
    uint8_t listed; /* in the heap's list of spans of its class with room; 2: to be again after */
    uint16_t avail; /* TINY: chunks that were not yet looked into since the span was listed, live or
                       not. SMALL: words of free bits that were not, the last ones of all */
    uint16_t
        live; /* TINY: chunks whose check word and free bits are initialised; the others hold nothing */
    __extension__ union {
        uint32_t bytes; /* MEDIUM: usable size */
        __extension__ struct {
            /* TINY, SMALL: 0 when as many blocks were freed, since the span was listed, as make another
             * visit worth while; counted on from there */
            uint16_t until;
            /* TINY: chunks that an iso_current_t is in; SMALL: bit 0, or none. They stay when their last
             * block is freed. None while the heap is frozen. */
            uint16_t current;
        };
    };
    /* Of the check words: SMALL: ISO_CHECK_KEY. TINY: of its live chunks, and no other page has such a word:
     * iso_free need not ask which are live. */
    __extension__ union {
        uint32_t key;
        uint32_t stack; /* MEDIUM: where in the block its iso_stack_t is; 0: it is no stack */
    };
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
            /* More than 0: a run; then only the fields up to `run_stack` mean something. */
            uint32_t run_slots;
            uint32_t run_offset; /* of the block in the run */
            uint64_t run_stack;  /* where in the block its iso_stack_t is; 0: it is no stack */
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
 * of which is at base. A cache line. */
typedef struct iso_current {
    uint64_t *word; /* never NULL: &heap->none when there is none */
    char *base;
    uint64_t blocks; /* bits of *word that are of blocks in populated pages; 0: there is no word */
    const uint64_t *check; /* the check word before *word */
    uint64_t expected;     /* and what it is */
    int64_t step;          /* from one block to the next, which is before it: minus their size */
    uint64_t unit;         /* that the blocks are in: its address / ISO_UNIT_SIZE */
    uint64_t unused;       /* 0 */
} iso_current_t;

struct iso_heap {
    ISO_ATOMIC(uint64_t) magic;
    uint64_t layout; /* iso_heap_layout_digest of who made it */
    uint64_t epoch;
    uint32_t flags; /* of iso_heap_flags_t */
    uint32_t
        tight; /* the iso space had no room: every free block counts. Until the heap migrates */
    ISO_ATOMIC(void *) root;
    uint64_t none;         /* always 0: no free block */
    uint64_t lists;        /* bit n: slots[n] is not empty */
    uint64_t keys;         /* state of the generator of spans' keys */
    uint64_t length;       /* bytes that were asked for, of a movable block: see movable.h */
    uint64_t stacks;       /* blocks that are stacks, see stack.h */
    struct iso_code *code; /* what they run on, a block of the heap; NULL: it did not come along */
    uint64_t code_digest;  /* of that; 0: there are none */
    uint64_t canary;       /* on its stacks, see canary.h */
    struct iso_protections
        *protections; /* of pages, a block of the heap, see protect.h; NULL: there are none */
    iso_current_t current[ISO_CLASS_COUNT];    /* all at `none` in a shared heap: see shared.h */
    iso_span_t *spans[ISO_CLASS_COUNT];        /* with room: a ring, in turn */
    iso_slot_t *slots[ISO_UNITS_PER_SLOT + 1]; /* by longest run of free units */
};

#define ISO_HEAP_OFFSET ISO_SLOT_HEADER

/* What the check word of a slot's header, or with its span's key that of a live chunk, has to be. */
static inline uint64_t iso_check_of(const void *metadata, uint32_t key)
{
    return (uintptr_t)metadata ^ key;
}
static inline bool iso_check_holds(const void *slot)
{
    return *(const uint64_t *)slot == iso_check_of(slot, ISO_CHECK_KEY);
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
/* Units that are not free, as the slot's header has it: the same that their spans say, which iso_heap_verify compares.
 * Who wants to see them all looks at no others: there are few of them in a small heap. */
static inline uint32_t iso_slot_used(const iso_slot_t *slot)
{
    return ~atomic_load_explicit(&slot->free_units, memory_order_relaxed);
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
/* Where the block of a MEDIUM span begins. Unit 0 has tiny spans, and blocks that were made of a whole slot. */
static inline char *iso_unit_base(const iso_slot_t *slot, unsigned unit)
{
    return (char *)slot + (unit ? (size_t)unit << ISO_UNIT_SHIFT : ISO_SLOT_HEADER);
}
static inline bool iso_class_is_tiny(unsigned klass)
{
    return klass < ISO_TINY_CLASSES;
}
static inline bool iso_class_is_small(unsigned klass)
{
    return klass >= ISO_TINY_CLASSES && klass < ISO_CLASS_COUNT;
}
/* Where a unit's span is in its slot. */
static inline size_t iso_span_offset(uintptr_t address)
{
    return address >> (ISO_UNIT_SHIFT - ISO_SPAN_SHIFT) & (ISO_UNITS_PER_SLOT - 1)
                                                              << ISO_SPAN_SHIFT;
}
/* The free bit of a block, by what iso_class_number says. No branch: which class a program's next block is of
 * cannot be foretold. */
static inline uint64_t *iso_block_word(unsigned klass, uintptr_t address, uint64_t number)
{
    uintptr_t base = address & iso_class_ways.base[klass];
    return (uint64_t *)(base + (iso_span_offset(address) & iso_class_ways.span[klass])) +
           (number >> 38);
}
static inline uint64_t iso_block_bit(uint64_t number)
{
    return UINT64_C(1) << (number >> 32 & 63);
}
/* Of a live chunk of this span. */
static inline bool iso_chunk_holds(const iso_span_t *span, const iso_chunk_t *chunk)
{
    return chunk->check == iso_check_of(chunk, span->key);
}
/* The free bits of a SMALL span: few are in the cache line of its other words. */
#define ISO_SMALL_BITS(size) \
    ((size_t)(65536 / (size) > 256 ? offsetof(iso_span_t, bits) : offsetof(iso_span_t, bits[8])))
static inline uint64_t *iso_small_bits(const iso_span_t *span)
{
    return (uint64_t *)((uintptr_t)span + ISO_SMALL_BITS(iso_classes[span->klass].size));
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
