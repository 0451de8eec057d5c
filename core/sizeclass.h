/*
 * sizeclass.h - sizes of blocks.
 *
 * 16 to 128 in steps of 16, then four steps an octave up to 32 KiB (as jemalloc and mimalloc have
 * them). Classes up to ISO_TINY_MAX keep their free bits in each 4 KiB chunk, the others in the
 * slot's header: see heap_layout.h. Larger blocks have no class.
 */
#ifndef ISO_CORE_SIZECLASS_H
#define ISO_CORE_SIZECLASS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_CLASS_COUNT 40
#define ISO_TINY_CLASSES 11
#define ISO_TINY_MAX 224
#define ISO_CLASS_MAX 32768

typedef struct iso_class {
    uint32_t size;
    uint32_t reciprocal; /* of size, times 2^32, rounded up: exact for offsets below 64 KiB */
    uint16_t first;      /* tiny: offset of the first block in its chunk */
    uint16_t count;      /* tiny: blocks of a chunk; else: of a span */
} iso_class_t;
/* As long as a class read from damaged metadata can ask for: no offset but 0 fits the rows of zeros. */
extern const iso_class_t iso_classes[256];

/* Class of sizes up to 1024, by the number of 16-byte steps. */
extern const uint8_t iso_class_of_steps[65];

/* size: 0 to ISO_CLASS_MAX. */
static inline unsigned iso_class_of(size_t size)
{
    if (size <= 1024)
        return iso_class_of_steps[(size + 15) >> 4];
    unsigned log = 63u - (unsigned)__builtin_clzll(size - 1); /* 2^log < size <= 2^(log+1) */
    return 19 + (log - 10) * 4 + (unsigned)((size - 1) >> (log - 2) & 3) + 1;
}

/* Index of the block that begins `offset` bytes behind the first one; check that it is exact. */
static inline uint32_t iso_class_index(unsigned klass, uint32_t offset)
{
    return (uint32_t)((uint64_t)offset * iso_classes[klass].reciprocal >> 32);
}

#ifdef __cplusplus
}
#endif

#endif
