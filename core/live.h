/* live.h - live runs for a page size of the caller's: what a test can ask that heap.h fixes. */
#ifndef ISO_CORE_LIVE_H
#define ISO_CORE_LIVE_H

#include "core/heap.h"

#ifdef __cplusplus
extern "C" {
#endif

void iso_live_runs(iso_hold_t *hold, size_t page, iso_live_run_fn emit, void *arg);

/* Calls emit, ascending, for all that means something of the live run from its byte `from` on: what is between is nobody's.
 * Adjacent ranges may come one by one. false: emit has stopped it, or that cannot be told: there is the header of a slot
 * of blocks, or what is another heap's, as in a carrier (parcel.h). */
bool iso_live_bytes(iso_hold_t *hold, const iso_run_t *run, size_t from, iso_live_run_fn emit,
                    void *arg);

/* Calls fn for every live block; stops when it returns false. The caller knows that the heap is here. */
void iso_live_blocks(iso_hold_t *hold, iso_block_fn fn, void *arg);

#ifdef __cplusplus
}
#endif

#endif
