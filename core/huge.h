/*
 * huge.h - huge pages for slots that are about to be filled.
 *
 * A slot is as long as a huge page of x86_64 and of aarch64 with 4 KiB pages. New pages cost most of
 * what a first migration costs; a huge page is had for a fraction of 512 small ones, from
 * madvise(MADV_COLLAPSE) (Linux 6.1), whatever the settings in /sys say, for memory objects as well.
 * It takes 2 MiB at once, so that it is for slots that will be full:
 *   - the whole slots of a large block that is about to be cleared (iso_calloc);
 *   - landing pages: with RESERVE comes a list of the heap's dense slots (no unit without a live page,
 *     three quarters of its pages live). When the target has answered, it prepares them, from the end,
 *     while the source puts from the beginning: nobody waits for it, and what it is late for is put
 *     into small pages.
 * Only where most of a slot is not resident; there is no gain otherwise. And for a heap of 16 MiB or more: a
 * call makes every processor do something (lru_add_drain_all), which takes milliseconds where they are busy. A slot prepared is as
 * resident as the puts would make it: since no unit of it is free, retain's accounts stay right.
 *
 * Measured (virtual machine, us a slot, memory that the machine has at hand): MADV_COLLAPSE of several
 * slots in one call 100 to 230, a slot a call 130 to 570, 512 pages mapped in one go 1100 to 1500, of a
 * memory object 1900 to 3000. Memory that the host had yet to find: 12000.
 *
 * Bounded: no call is begun for a reservation after ISO_HUGE_SECONDS, the other slots stay as they are.
 * A system without free huge pages takes long for each, as does a virtual machine whose host takes free
 * memory back: the first call is for one slot, and after a slow one nothing is prepared for a while. Where a transport pins memory nothing is (the pages would be replaced under the device).
 *
 * Off unless ISO_HUGE_PAGES=auto: MADV_COLLAPSE waits for a kernel thread on every processor. Measured with a first
 * migration of 64 MiB on quiet processors: up to 1.6 times as fast on anonymous memory, as fast as without on a
 * memory object; where two ranks with real-time priority spin, 17 times slower. No bound of ours ends such
 * a call once it has begun.
 *
 * Giving back a part of a huge page splits it. The kernel does so at once for a memory object; of
 * anonymous memory it keeps the pages until memory is scarce, unless the page is split before.
 */
#ifndef ISO_CORE_HUGE_H
#define ISO_CORE_HUGE_H

#include "core/atomic.h"
#include "core/runs.h"
#include "core/space.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_HUGE_SECONDS 0.02 /* of the target's progress, for one reservation */

typedef struct iso_huge {
    ISO_ATOMIC(bool) on;
    ISO_ATOMIC(bool) works;          /* was had once */
    ISO_ATOMIC(uint64_t) rest_until; /* microseconds */
    ISO_ATOMIC(unsigned) bad_calls;  /* in a row */
    ISO_ATOMIC(uint64_t) * made;     /* bitmap of slots with a huge page that may be whole */
    uint32_t total;
} iso_huge_t;

/* When the space is mapped and registered. */
iso_status_t iso_huge_open(iso_job_t *job);
void iso_huge_close(iso_huge_t *huge);

/* The dense slots of a heap with these runs, as ranges; returns how many, at most max. */
uint32_t iso_huge_dense(const iso_space_t *space, const iso_runs_t *runs, iso_extent_t *ranges,
                        uint32_t max);
/* These slots will be put to. A hint from a peer: those that are not the heap's (whose first slot is
 * at heap_slot) are passed over. The job's lock is held. */
void iso_huge_expect(iso_job_t *job, uintptr_t heap_slot, const iso_extent_t *ranges,
                     uint32_t count);
/* iso_os_populate of memory that is about to be written, of a heap that is here. Takes no lock. */
void iso_huge_populate(iso_job_t *job, void *address, size_t size);
/* A part of the space is about to be given back. */
void iso_huge_split(iso_job_t *job, uint64_t offset, uint64_t length);

#ifdef __cplusplus
}
#endif

#endif
