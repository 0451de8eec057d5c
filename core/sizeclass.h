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
    uint32_t reciprocal; /* of size, times 2^32, rounded up */
    uint16_t first;      /* offset of the first block in its area: a chunk (tiny), or a unit */
    uint16_t count;      /* blocks of an area */
    uint16_t mask;       /* of an address: the offset in its area */
    uint64_t in_chunk;   /* all ones: tiny, an area has its free bits in itself; 0: it has not */
    uint64_t last_free;  /* free bits of an area's last word when all its blocks are free */
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

/* The number of the block that begins at this address, in its area; what is not less than the class's
 * count is none. One multiplication: for offsets below 64 KiB the product's upper half is the quotient,
 * and its lower half is less than the reciprocal if there is no remainder. An address before the first
 * block has a huge offset. */
static inline uint32_t iso_class_index(const iso_class_t *class_, const void *address)
{
    uint32_t offset = ((uint32_t)(uintptr_t)address & class_->mask) - class_->first;
    uint64_t product = (uint64_t)offset * class_->reciprocal;
    return (uint32_t)product < class_->reciprocal ? (uint32_t)(product >> 32) : UINT32_MAX;
}

#ifdef __cplusplus
}
#endif

#endif
