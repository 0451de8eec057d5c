/*
 * outside.c - what a program of somebody else does first: a job, a heap, a block. Prints the rank,
 * the version and the transports that it can see.
 */
#include <isomalloc/bootstrap.h>
#include <isomalloc/isomalloc.h>
#include <isomalloc/transport.h>
#include <stdio.h>
#include <string.h>

static void print_module(const iso_module_info_t *info, void *arg)
{
    (void)arg;
    printf("module %s %s\n", info->name, info->path);
}

int main(void)
{
    iso_params_t params;
    iso_job_t *job;
    iso_heap_t *heap;
    char *block;

    if (iso_params_init(&params) != ISO_OK || iso_init(&params, &job) != ISO_OK)
        return 1;
    if (iso_heap_create(job, &heap) != ISO_OK)
        return 2;
    block = iso_malloc(heap, 100);
    if (block == NULL || !iso_in_range(block) || iso_heap_of(block) != heap)
        return 3;
    strcpy(block, "hello");
    printf("rank %u of %u: %s from %s\n", iso_rank(job), iso_size(job), block,
           iso_version(NULL, NULL, NULL));
    iso_free(block);
    iso_modules(&params, print_module, NULL);
    return iso_finalize(job) == ISO_OK ? 0 : 4;
}
