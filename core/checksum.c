/* checksum.c - see checksum.h. */
#include "core/checksum.h"
#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

struct iso_checksum {
    XXH3_state_t state; /* wants 64 bytes' alignment, which malloc does not give */
};

iso_checksum_t *iso_checksum_new(void)
{
    iso_checksum_t *checksum = aligned_alloc(_Alignof(iso_checksum_t), sizeof *checksum);
    if (checksum)
        XXH3_64bits_reset(&checksum->state);
    return checksum;
}

void iso_checksum_add(iso_checksum_t *checksum, const void *bytes, size_t count)
{
    XXH3_64bits_update(&checksum->state, bytes, count); /* fails for no bytes at NULL only */
}

uint64_t iso_checksum_value(const iso_checksum_t *checksum)
{
    return XXH3_64bits_digest(&checksum->state);
}

uint64_t iso_checksum_of(const void *bytes, size_t count)
{
    return XXH3_64bits(bytes, count);
}
