/*
 * poison.h - where AddressSanitizer or Valgrind runs, they know what is a block and what is not.
 *
 * Then a program's use of a freed block, or of what lies before or behind one, is reported by the tool, with the
 * place of the access and (Valgrind) those of the block's allocation and free. The library itself
 * need not be built for it. Off, all of this is a branch on rare paths. On (iso_poison_active):
 *   - no heap has a current block, and the first row of the job table stays empty, so that every
 *     iso_malloc and iso_free leaves its own path and comes here;
 *   - blocks are followed by at least 16 bytes of nobody, and realloc always moves them;
 *   - a tool's knowledge is of one process: it is dropped when a heap is frozen, so that its pages can be
 *     read and put, and made again from the metadata when the heap is thawed, here or at its target.
 *     (A block's size is then that of its class.)
 * Metadata is never poisoned; a heap that is not here is, and so are free slots: but what a heap left
 * behind under a standing grant is not, where the transport's puts are carried out by this process.
 */
#ifndef ISO_CORE_POISON_H
#define ISO_CORE_POISON_H

#include "core/hold.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_POISON_GAP 16 /* bytes behind a block, at least */

extern bool iso_poison_active; /* a job of this process wants it; changes when there is no heap */

/* Looks for the tools, if ISO_POISON wants them. close: the addresses are anybody's again. */
iso_status_t iso_poison_open(iso_job_t *job);
void iso_poison_close(iso_job_t *job);

/* All do nothing when it is not active. */

/* Slots that a heap has got, with only the first 4 KiB for metadata; a unit of blocks; a tiny span's
 * chunk whose blocks begin at `first`. All blocks free. */
void iso_poison_slots(iso_job_t *job, const void *address, uint32_t count);
void iso_poison_unit(const void *blocks, size_t length);
void iso_poison_chunk(const void *chunk, size_t first);

void iso_poison_block_new(const iso_heap_t *heap, const void *block, size_t size);
void iso_poison_block_freed(const iso_heap_t *heap, const void *block, size_t size);
/* All of the block may be used, whatever was asked for. */
void iso_poison_block_open(const void *block, size_t size);

/* A heap's life: new; frozen, or about to arrive (all of its slots may be read and written); thawed;
 * gone. Its slots, given back. */
void iso_poison_heap_new(const iso_heap_t *heap);
void iso_poison_heap_open(const iso_hold_t *hold);
void iso_poison_heap_thaw(iso_hold_t *hold);
void iso_poison_heap_gone(const iso_hold_t *hold);
void iso_poison_slots_gone(iso_job_t *job, const iso_extent_t *extent);

#ifdef __cplusplus
}
#endif

#endif
