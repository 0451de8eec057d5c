/*
 * allocator.h - the allocators that are compared, behind one set of calls. A process uses one.
 */
#ifndef ISO_PERF_MALLOCBENCH_ALLOCATOR_H
#define ISO_PERF_MALLOCBENCH_ALLOCATOR_H

#include <isomalloc/isomalloc.h>
#include <stdlib.h>

/* Every call goes through a pointer, as it does from a program to a shared library. */
typedef struct allocator {
    iso_job_t *job; /* NULL: there are no heaps to choose from */
    void *(*iso_malloc)(iso_heap_t *heap, size_t size);
    void *(*iso_realloc)(iso_heap_t *heap, void *ptr, size_t size);
    void *(*malloc)(size_t size);
    void *(*realloc)(void *ptr, size_t size);
    void (*free)(void *ptr);
} allocator_t;

extern allocator_t allocator;

typedef enum allocator_id {
    ISO,
    ISO_SHARED, /* one heap for many threads, for everything */
    GLIBC,
    MIMALLOC,
    JEMALLOC,
    ALLOCATORS
} allocator_id_t;
extern const char *const allocator_names[ALLOCATORS];

/* Makes it the one that is used. false: it is not there; a line on stderr says why. */
bool allocator_open(allocator_id_t id);

/* Its version, if that is known, or "". After allocator_open. */
const char *allocator_version(allocator_id_t id);

/* A heap for what one thread at a time uses; NULL where there are no heaps. */
iso_heap_t *heap_new(void);

/* NULL is not returned: the program ends. */
__attribute__((noreturn)) void die(const char *what);

static inline void *block_new(iso_heap_t *heap, size_t size)
{
    void *block = heap ? allocator.iso_malloc(heap, size) : allocator.malloc(size);
    if (!block)
        die("no memory");
    return block;
}

static inline void *block_resize(iso_heap_t *heap, void *block, size_t size)
{
    block = heap ? allocator.iso_realloc(heap, block, size) : allocator.realloc(block, size);
    if (!block)
        die("no memory");
    return block;
}

#endif
