/*
 * protect.h - pages of a heap that its user protects (iso_heap_set_protections): lifted wherever the heap is frozen or ends, made again
 * where it is thawed, in whatever process that is.
 *
 * Guarantees: whoever reads, puts or saves a frozen heap meets plain memory, and none of it is left protected in the slots that a heap
 * leaves. A heap without any pays one comparison.
 */
#ifndef ISO_CORE_PROTECT_H
#define ISO_CORE_PROTECT_H

#include "core/hold.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Both follow the heap's list, and abort where it is damaged: it leads out of the heap, or speaks of what is no whole pages of it. A
 * range that the system does not protect, or make usable again, is logged. */
void iso_protect_lift(const iso_hold_t *hold);
void iso_protect_make(const iso_hold_t *hold);

#ifdef __cplusplus
}
#endif

#endif
