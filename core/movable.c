/* movable.c - see movable.h. */
#include "core/movable.h"
#include "core/heap.h"

void *iso_movable_more(iso_heap_t *heap, size_t size)
{
    return iso_aligned_alloc(heap, ISO_SLOT_SIZE, size);
}

void iso_movable_set(iso_heap_t *heap, void *block, size_t size)
{
    iso_heap_set_root(heap, block);
    heap->length = size;
}

size_t iso_movable_length(const void *block)
{
    const iso_heap_t *heap = block ? iso_heap_of(block) : NULL;
    return heap && iso_movable_is(heap, block) ? heap->length : 0;
}

void *iso_movable_alloc(iso_job_t *job, size_t size)
{
    iso_heap_t *heap;
    if (iso_heap_make(job, ISO_HEAP_MOVABLE, &heap) != ISO_OK)
        return NULL;
    void *block = iso_movable_more(heap, size);
    if (block)
        iso_movable_set(heap, block, size);
    else
        iso_heap_destroy(heap);
    return block;
}

bool iso_movable_is(const iso_heap_t *heap, const void *block)
{
    return (heap->flags & ISO_HEAP_MOVABLE) && iso_heap_root(heap) == block;
}
