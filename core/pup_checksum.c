/* pup_checksum.c - a pup_er that computes a checksum of what packing would write. */
#include "core/checksum.h"
#include "core/pup.h"
#include <stdlib.h>

static iso_status_t add(void *context, void *data, size_t items, size_t size, iso_pup_type_t type)
{
    (void)type;
    iso_checksum_add(context, data, items * size);
    return ISO_OK;
}

static const iso_pup_kind_t checksum = {.struct_size = sizeof checksum,
                                        .name = "checksum",
                                        .direction = ISO_PUP_PACKING,
                                        .items = add,
                                        .destroy = free};

pup_er iso_pup_new_checksum(void)
{
    return iso_pup_new_own(&checksum, iso_checksum_new());
}

bool iso_pup_is_checksum(const iso_pup_t *pup)
{
    return pup->kind == &checksum;
}

uint64_t iso_pup_digest(const pup_er p)
{
    const iso_pup_t *pup = p;
    return iso_pup_is_checksum(pup) ? iso_checksum_value(pup->context) : 0;
}
