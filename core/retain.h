/*
 * retain.h - pages that hold nothing but stay resident, up to ISO_RETAIN bytes of them.
 *
 * Touching a new page costs far more than copying it, so that pages are kept when what was in them
 * goes: units (64 KiB) of this rank's slots that became free ("dirty"), and the pages that a heap
 * left behind when it migrated ("left", landing pages for its return). Sums are upper bounds: a
 * page that was never touched may be counted. Over the limit the oldest go first, a quarter of the
 * limit at a time; what is left behind under a grant is revoked before it goes.
 */
#ifndef ISO_CORE_RETAIN_H
#define ISO_CORE_RETAIN_H

#include "core/slots.h"

#define ISO_UNIT_SHIFT 16
#define ISO_UNIT_SIZE ((size_t)1 << ISO_UNIT_SHIFT)
#define ISO_UNITS_PER_SLOT ((uint32_t)(ISO_SLOT_SIZE / ISO_UNIT_SIZE)) /* 32 */

/* Units of one slot of a heap that is here, as a bit mask (bit 0: the first 64 KiB). free: they
 * hold nothing any more; the pages that are needed still (the slot's header page in unit 0) must not
 * be in it, hence unit 0 is never passed unless the whole slot is free. use: they are about to be
 * used; returns those of them that are warm (resident as far as is known; the caller may populate
 * the others). Both take the job's lock; call them when a unit changes hands, never per block. */
void iso_retain_units_free(iso_job_t *job, const void *slot, uint32_t mask);
uint32_t iso_retain_units_use(iso_job_t *job, const void *slot, uint32_t mask);

#endif
