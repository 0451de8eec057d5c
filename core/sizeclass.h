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
#define ISO_TINY_CLASSES 5
#define ISO_TINY_MAX 80
#define ISO_CLASS_MAX 32768

typedef struct iso_class {
    uint16_t size;
    uint16_t count;      /* blocks of an area */
    uint32_t mask;       /* of an address: the offset in its area */
    uint64_t reciprocal; /* of size, times 2^32, rounded up */
    /* where the free bits are, see iso_class_words: */
    uint64_t base_mask; /* of an address: of its chunk (tiny), or its slot */
    uint32_t span_mask; /* all ones: in the span of the block's unit; 0: not there (tiny) */
    uint32_t bits_at;   /* from there */
} iso_class_t;
/* As long as a class read from damaged metadata can ask for: no address is a block of the rows of zeros. */
extern __attribute__((visibility("hidden"))) const iso_class_t iso_classes[256];

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

/* Does a block of the class begin at this address, as far as its area's geometry goes? *index_p is its number,
 * which may be one of no block (not less than the class's count), but has a free bit. One
 * multiplication: the distance to the area's last byte is a multiple of the size, less one, if the
 * product's lower half is within one reciprocal of its end, and then its upper half is the number. */
static inline bool iso_class_index(const iso_class_t *class_, const void *address,
                                   uint32_t *index_p)
{
    uint32_t distance = ~(uint32_t)(uintptr_t)address & class_->mask;
    uint64_t product = distance * class_->reciprocal;
    *index_p = (uint32_t)(product >> 32);
    return (uint32_t)((uint32_t)product + (uint32_t)class_->reciprocal) <
           (uint32_t)class_->reciprocal;
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
