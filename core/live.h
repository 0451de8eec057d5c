/* live.h - live runs for a page size of the caller's: what a test can ask that heap.h fixes. */
#ifndef ISO_CORE_LIVE_H
#define ISO_CORE_LIVE_H

#include "core/heap.h"

#ifdef __cplusplus
extern "C" {
#endif

void iso_live_runs(iso_hold_t *hold, size_t page, iso_live_run_fn emit, void *arg);

/* Calls fn for every live block; stops when it returns false. The caller knows that the heap is here. */
void iso_live_blocks(iso_hold_t *hold, iso_block_fn fn, void *arg);

#ifdef __cplusplus
}
#endif

#endif
