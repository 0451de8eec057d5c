/* sizeclass.c - see sizeclass.h. A unit test holds the tables against the sizes. */
#include "core/sizeclass.h"
#include "core/heap_layout.h"

/* All that follows from a size, and of a tiny class from how many words of free bits there are behind the
 * chunk's check word. */
#define RECIPROCAL(size) ((UINT64_C(1) << 32) / (size) + ((UINT64_C(1) << 32) % (size) != 0))
#define TINY(size, words)                                                   \
    {                                                                       \
        size, (4096 - 8 - 8 * (words)) / (size), 4095, RECIPROCAL(size),    \
            ~(uint64_t)(ISO_CHUNK_SIZE - 1), 0, offsetof(iso_chunk_t, bits) \
    }
/* Few free bits are in the line of the span's other words. */
#define SMALL(size)                                                                           \
    {                                                                                         \
        size, 65536 / (size), 65535, RECIPROCAL(size), ~(uint64_t)ISO_SLOT_MASK, UINT32_MAX,  \
            65536 / (size) > 256 ? offsetof(iso_span_t, bits) : offsetof(iso_span_t, bits[8]) \
    }
_Static_assert(sizeof(iso_span_t) == 1 << 7 && offsetof(iso_slot_t, spans) == 0,
               "iso_class_words finds a unit's span by a shift");
_Static_assert(offsetof(iso_slot_t, prev) + 8 <= ISO_SPAN_FIELDS,
               "a slot has room before its spans");

const iso_class_t iso_classes[256] = {
    TINY(16, 4),  TINY(32, 2),  TINY(48, 2),  TINY(64, 1),  TINY(80, 1),  SMALL(96),
    SMALL(112),   SMALL(128),   SMALL(160),   SMALL(192),   SMALL(224),   SMALL(256),
    SMALL(320),   SMALL(384),   SMALL(448),   SMALL(512),   SMALL(640),   SMALL(768),
    SMALL(896),   SMALL(1024),  SMALL(1280),  SMALL(1536),  SMALL(1792),  SMALL(2048),
    SMALL(2560),  SMALL(3072),  SMALL(3584),  SMALL(4096),  SMALL(5120),  SMALL(6144),
    SMALL(7168),  SMALL(8192),  SMALL(10240), SMALL(12288), SMALL(14336), SMALL(16384),
    SMALL(20480), SMALL(24576), SMALL(28672), SMALL(32768),
};

const uint8_t iso_class_of_steps[65] = {
    0,  0,  1,  2,  3,  4,  5,  6,  7,  8,  8,  9,  9,  10, 10, 11, 11, 12, 12, 12, 12, 13,
    13, 13, 13, 14, 14, 14, 14, 15, 15, 15, 15, 16, 16, 16, 16, 16, 16, 16, 16, 17, 17, 17,
    17, 17, 17, 17, 17, 18, 18, 18, 18, 18, 18, 18, 18, 19, 19, 19, 19, 19, 19, 19, 19,
};
