/* sizeclass.c - see sizeclass.h. A unit test holds the tables against the sizes. */
#include "core/sizeclass.h"

/* All that follows from a size, and of a tiny class from where its first block is: behind the chunk's check word
 * and its free bits. */
#define RECIPROCAL(size) \
    (uint32_t)((UINT64_C(1) << 32) / (size) + ((UINT64_C(1) << 32) % (size) != 0))
#define CLASS(size, first, count, area)                                                  \
    {                                                                                    \
        size, RECIPROCAL(size), first, count, (area)-1, (area) == 4096 ? UINT64_MAX : 0, \
            UINT64_MAX >> (63 - ((count)-1) % 64)                                        \
    }
#define TINY(size, first) CLASS(size, first, (4096 - (first)) / (size), 4096)
#define SMALL(size) CLASS(size, 0, 65536 / (size), 65536)

const iso_class_t iso_classes[256] = {
    TINY(16, 48),  TINY(32, 32),   TINY(48, 32),  TINY(64, 64),  TINY(80, 32),  TINY(96, 32),
    TINY(112, 32), TINY(128, 128), TINY(160, 32), TINY(192, 64), TINY(224, 32), SMALL(256),
    SMALL(320),    SMALL(384),     SMALL(448),    SMALL(512),    SMALL(640),    SMALL(768),
    SMALL(896),    SMALL(1024),    SMALL(1280),   SMALL(1536),   SMALL(1792),   SMALL(2048),
    SMALL(2560),   SMALL(3072),    SMALL(3584),   SMALL(4096),   SMALL(5120),   SMALL(6144),
    SMALL(7168),   SMALL(8192),    SMALL(10240),  SMALL(12288),  SMALL(14336),  SMALL(16384),
    SMALL(20480),  SMALL(24576),   SMALL(28672),  SMALL(32768),
};

const uint8_t iso_class_of_steps[65] = {
    0,  0,  1,  2,  3,  4,  5,  6,  7,  8,  8,  9,  9,  10, 10, 11, 11, 12, 12, 12, 12, 13,
    13, 13, 13, 14, 14, 14, 14, 15, 15, 15, 15, 16, 16, 16, 16, 16, 16, 16, 16, 17, 17, 17,
    17, 17, 17, 17, 17, 18, 18, 18, 18, 18, 18, 18, 18, 19, 19, 19, 19, 19, 19, 19, 19,
};
