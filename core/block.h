/*
 * block.h - from an address to the block it is, with every check that free needs.
 */
#ifndef ISO_CORE_BLOCK_H
#define ISO_CORE_BLOCK_H

#include "core/span.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_block {
    iso_heap_t *heap;
    iso_slot_t *slot;
    iso_span_t *span; /* NULL: a run */
    uint64_t *word;   /* TINY, SMALL: its free bits; `bit` of them is this block's */
    uint64_t bit;
    size_t size; /* usable */
} iso_block_t;

/* The caller is the only one in the heap: of a shared one it has the lock. Aborts unless ptr is the start of a live block of a heap that is here; `what` is who asks. */
iso_block_t iso_block_find(const void *ptr, const char *what);

#ifdef __cplusplus
}
#endif

#endif
