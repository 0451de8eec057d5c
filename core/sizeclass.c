/* sizeclass.c - see sizeclass.h. A unit test holds the tables against the sizes. */
#include "core/sizeclass.h"
#include "core/heap_layout.h"

/* TINY(size, words of free bits that there are behind the chunk's check word), SMALL(size). */
#define CLASSES(TINY, SMALL)                                                                       \
    TINY(16, 4), TINY(32, 2), TINY(48, 2), TINY(64, 1), TINY(80, 1), SMALL(96), SMALL(112),        \
        SMALL(128), SMALL(160), SMALL(192), SMALL(224), SMALL(256), SMALL(320), SMALL(384),        \
        SMALL(448), SMALL(512), SMALL(640), SMALL(768), SMALL(896), SMALL(1024), SMALL(1280),      \
        SMALL(1536), SMALL(1792), SMALL(2048), SMALL(2560), SMALL(3072), SMALL(3584), SMALL(4096), \
        SMALL(5120), SMALL(6144), SMALL(7168), SMALL(8192), SMALL(10240), SMALL(12288),            \
        SMALL(14336), SMALL(16384), SMALL(20480), SMALL(24576), SMALL(28672), SMALL(32768)

#define TINY_CLASS(size, words)                                                       \
    {                                                                                 \
        size, (ISO_CHUNK_SIZE - 8 - 8 * (size_t)(words)) / (size), ISO_CHUNK_SIZE - 1 \
    }
#define SMALL_CLASS(size)                               \
    {                                                   \
        size, ISO_UNIT_SIZE / (size), ISO_UNIT_SIZE - 1 \
    }
const iso_class_t iso_classes[ISO_CLASSES] = {CLASSES(TINY_CLASS, SMALL_CLASS)};

#define RECIPROCAL(size) ((UINT64_C(1) << 32) / (size) + ((UINT64_C(1) << 32) % (size) != 0))
#define TINY_RECIPROCAL(size, words) RECIPROCAL(size)
/* Of the product, the upper half is the number, from 1; what has bits in front, in bytes, is counted in. */
#define ORIGIN(size, area, bytes) \
    ((area)*RECIPROCAL(size) + (8 * (uint64_t)(bytes) << 32) - (UINT64_C(1) << 32))
#define TINY_ORIGIN(size, words) ORIGIN(size, ISO_CHUNK_SIZE, offsetof(iso_chunk_t, bits))
#define SMALL_ORIGIN(size) ORIGIN(size, ISO_UNIT_SIZE, ISO_SMALL_BITS(size))
#define TINY_BASE(size, words) ~(uint64_t)(ISO_CHUNK_SIZE - 1)
#define SMALL_BASE(size) ~(uint64_t)ISO_SLOT_MASK
#define TINY_AREA(size, words) (ISO_CHUNK_SIZE - 1)
#define SMALL_AREA(size) (ISO_UNIT_SIZE - 1)
#define TINY_SPAN(size, words) 0
#define SMALL_SPAN(size) UINT64_MAX
const iso_class_ways_t iso_class_ways = {
    .reciprocal = {CLASSES(TINY_RECIPROCAL, RECIPROCAL)},
    .origin = {CLASSES(TINY_ORIGIN, SMALL_ORIGIN)},
    .base = {CLASSES(TINY_BASE, SMALL_BASE)},
    .area = {CLASSES(TINY_AREA, SMALL_AREA)},
    .span = {CLASSES(TINY_SPAN, SMALL_SPAN)},
};
_Static_assert(sizeof(iso_span_t) == 1 << ISO_SPAN_SHIFT && offsetof(iso_slot_t, spans) == 0,
               "iso_block_word finds a unit's span by a shift");
_Static_assert(offsetof(iso_slot_t, prev) + 8 <= offsetof(iso_span_t, keyed),
               "a slot has room before what its first span needs");

const uint8_t iso_class_of_steps[65] = {
    0,  0,  1,  2,  3,  4,  5,  6,  7,  8,  8,  9,  9,  10, 10, 11, 11, 12, 12, 12, 12, 13,
    13, 13, 13, 14, 14, 14, 14, 15, 15, 15, 15, 16, 16, 16, 16, 16, 16, 16, 16, 17, 17, 17,
    17, 17, 17, 17, 17, 18, 18, 18, 18, 18, 18, 18, 18, 19, 19, 19, 19, 19, 19, 19, 19,
};
