/*
 * sizeclass.h - sizes of blocks.
 *
 * 16 to 128 in steps of 16, then four steps an octave up to 32 KiB (as jemalloc and mimalloc have
 * them). Classes up to ISO_TINY_MAX keep their free bits in each 4 KiB chunk, the others in the
 * slot's header: see heap_layout.h. Larger blocks have no class.
 *
 * The blocks of an area, a chunk (tiny) or a unit, are flush with its end, and numbered from there: the
 * metadata that a tiny area begins with, or what is left over, is before them; and whatever runs over the
 * end of the last one meets the metadata behind it at once.
 */
#ifndef ISO_CORE_SIZECLASS_H
#define ISO_CORE_SIZECLASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_CLASS_COUNT 40
#define ISO_CLASS_NONE 255 /* of what has none */
#define ISO_CLASSES \
    256 /* as many as damaged metadata can ask for: all but the first have no blocks */
#define ISO_TINY_CLASSES 5
#define ISO_TINY_MAX 80
#define ISO_CLASS_MAX 32768

typedef struct iso_class {
    uint16_t size;
    uint16_t count; /* blocks of an area */
    uint32_t mask;  /* of an address: the offset in its area */
} iso_class_t;
extern __attribute__((visibility("hidden"))) const iso_class_t iso_classes[ISO_CLASSES];

/* The way from a block's address to its free bit. By columns: a column is found by one index that the
 * processor scales. */
typedef struct iso_class_ways {
    uint64_t reciprocal
        [ISO_CLASSES]; /* of the size, times 2^32, rounded up; 0: no address is a block's */
    uint64_t origin[ISO_CLASSES]; /* see iso_class_number */
    uint64_t base[ISO_CLASSES];   /* mask of an address: that of its chunk (tiny), or its slot */
    uint64_t area[ISO_CLASSES];   /* mask of an address: the offset in its area */
    uint64_t span
        [ISO_CLASSES]; /* all ones: the bits are in the span of the block's unit; 0: not (tiny) */
} iso_class_ways_t;
extern __attribute__((visibility("hidden"))) const iso_class_ways_t iso_class_ways;

/* Class of sizes up to 1024, by the number of 16-byte steps. */
extern __attribute__((visibility("hidden"))) const uint8_t iso_class_of_steps[65];

/* size: 0 to ISO_CLASS_MAX. */
static inline unsigned iso_class_of(size_t size)
{
    if (size <= 1024)
        return iso_class_of_steps[(size + 15) >> 4];
    unsigned log = 63u - (unsigned)__builtin_clzll(size - 1); /* 2^log < size <= 2^(log+1) */
    return 19 + (log - 10) * 4 + (unsigned)((size - 1) >> (log - 2) & 3) + 1;
}

/* Does a block of the class begin at this address, as far as its area's geometry goes? Then the upper half of
 * *number_p is where its free bit is, counted from the chunk's, or its span's, first bit: the block's number, which
 * may be one of no block (not less than the class's count), but has a free bit, and the bits before them. One
 * multiplication: from the address to the area's end is a multiple of the size if the product of that with the
 * reciprocal is less than one reciprocal beyond a multiple of 2^32. `origin` is the product of the whole
 * area, and what else does not depend on the address. */
static inline bool iso_class_number(unsigned klass, uintptr_t address, uint64_t *number_p)
{
    uint64_t offset = address & iso_class_ways.area[klass];
    uint64_t reciprocal = iso_class_ways.reciprocal[klass];
    *number_p = iso_class_ways.origin[klass] - offset * reciprocal;
    return (uint32_t)*number_p < (uint32_t)reciprocal;
}

/* Where block `index` begins, from the area's beginning. */
static inline size_t iso_class_offset(const iso_class_t *class_, size_t index)
{
    return class_->mask + 1 - (index + 1) * class_->size;
}

#ifdef __cplusplus
}
#endif

#endif
