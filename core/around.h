/*
 * around.h - from any address inside of a live block to that block. Where iso_block_find (block.h) aborts, the answer
 * is no: who asks has an address that may be anything, or metadata that another rank wrote.
 *
 * The slot table says which slot has the header; all that is read is in slots that have the same owner as the heap's
 * first one, so the heap may be one that is arriving, or a member of an object whose slots are its carrier's (parcel.h).
 */
#ifndef ISO_CORE_AROUND_H
#define ISO_CORE_AROUND_H

#include "core/heap_layout.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_around {
    uintptr_t start, end; /* of the usable bytes */
    uintptr_t alone;      /* nothing else lies before this; `end`, or beyond it */
    bool is_stack;
} iso_around_t;

/* false: the address is in no live block of the heap. O(1). The caller is the only one in the heap. */
bool iso_around_find(const iso_job_t *job, const iso_heap_t *heap, uintptr_t address,
                     iso_around_t *around_p);

#ifdef __cplusplus
}
#endif

#endif
