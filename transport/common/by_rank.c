/* by_rank.c - see by_rank.h. */
#include "transport/common/by_rank.h"
#include <stddef.h>
#include <stdlib.h>

#define LEAF_RANKS 512u

bool by_rank_open(by_rank_t *table, uint32_t size)
{
    table->leaf_count = size / LEAF_RANKS + 1;
    table->leaves = calloc(table->leaf_count, sizeof *table->leaves);
    return table->leaves != NULL;
}

void by_rank_close(by_rank_t *table)
{
    for (uint32_t i = 0; i < table->leaf_count; i++)
        free(table->leaves[i]);
    free(table->leaves);
}

void *by_rank_get(const by_rank_t *table, uint32_t rank)
{
    void **leaf = __atomic_load_n(&table->leaves[rank / LEAF_RANKS], __ATOMIC_ACQUIRE);

    return leaf != NULL ? __atomic_load_n(&leaf[rank % LEAF_RANKS], __ATOMIC_ACQUIRE) : NULL;
}

bool by_rank_set(by_rank_t *table, uint32_t rank, void *entry)
{
    void ***at = &table->leaves[rank / LEAF_RANKS], **leaf = *at;

    if (leaf == NULL) {
        leaf = calloc(LEAF_RANKS, sizeof *leaf);
        if (leaf == NULL)
            return false;
        __atomic_store_n(at, leaf, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&leaf[rank % LEAF_RANKS], entry, __ATOMIC_RELEASE);
    return true;
}
