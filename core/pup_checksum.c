/* pup_checksum.c - a pup_er that computes a checksum of what packing would write: XXH3, in 64 bits, by xxHash
 * (Yann Collet), whose header is compiled in. */
#include "core/pup.h"
#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* XXH3_state_t wants 64 bytes' alignment, which malloc does not give. */
static iso_status_t add(void *context, void *data, size_t items, size_t size, iso_pup_type_t type)
{
    (void)type;
    return XXH3_64bits_update(context, data, items * size) == XXH_OK ? ISO_OK : ISO_ERR_SYSTEM;
}

static const iso_pup_kind_t checksum = {.struct_size = sizeof checksum,
                                        .name = "checksum",
                                        .direction = ISO_PUP_PACKING,
                                        .items = add,
                                        .destroy = free};

pup_er iso_pup_new_checksum(void)
{
    XXH3_state_t *state = aligned_alloc(_Alignof(XXH3_state_t), sizeof *state);
    if (state)
        XXH3_64bits_reset(state);
    return iso_pup_new_own(&checksum, state);
}

bool iso_pup_is_checksum(const iso_pup_t *pup)
{
    return pup->kind == &checksum;
}

uint64_t iso_pup_digest(const pup_er p)
{
    const iso_pup_t *pup = p;
    return iso_pup_is_checksum(pup) ? XXH3_64bits_digest(pup->context) : 0;
}
