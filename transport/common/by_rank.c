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
    void **leaf = table->leaves[rank / LEAF_RANKS];

    return leaf != NULL ? leaf[rank % LEAF_RANKS] : NULL;
}

bool by_rank_set(by_rank_t *table, uint32_t rank, void *entry)
{
    void ***leaf = &table->leaves[rank / LEAF_RANKS];

    if (*leaf == NULL)
        *leaf = calloc(LEAF_RANKS, sizeof **leaf);
    if (*leaf == NULL)
        return false;
    (*leaf)[rank % LEAF_RANKS] = entry;
    return true;
}
