/*
 * guard.h - freed large blocks fault when they are used. (What is below stacks: stack_guard.h.)
 *
 * A guard makes addresses fault in this process; contents and the accounting of pages (retain.h) stay
 * as they are. Invariant: these guards lie in this rank's free slots only. So they are made when a run of
 * slots becomes free, and lifted when slots leave the free set, for a heap here or for another
 * rank; slots of a heap that arrives were never free here. The pages of a free slot are given back
 * under a guard as without.
 *
 * ISO_GUARD says how much of a block is guarded. All of it costs its page table entries, a
 * microsecond or more a page until they are there again when the memory is used next: a loop of
 * malloc, write, free becomes nearly three times slower. The page that it begins in costs a few
 * microseconds, which is not seen there.
 *
 * The kernel's own guards (Linux 6.15 for memory objects) are used where they are: no mapping is split.
 * Elsewhere ranges are protected, no more of them than ISO_GUARD_BUDGET, since each splits a mapping and
 * the kernel allows a process so many. What is not guarded for that is counted, and warned of once.
 *
 * On anonymous memory a kernel's guard discards contents. A free slot's contents mean nothing, but its
 * pages are counted as resident when they are not: an upper bound still. Where a transport pins that
 * memory, or windows of it, ranges are protected instead: the device would go on writing to pages that are
 * gone.
 */
#ifndef ISO_CORE_GUARD_H
#define ISO_CORE_GUARD_H

#include "core/slots.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum iso_guard_means {
    ISO_GUARD_BY_KERNEL, /* until it says that it has none */
    ISO_GUARD_BY_PROTECTION,
    ISO_GUARD_MEANS
} iso_guard_means_t;

typedef struct iso_guards {
    iso_guard_means_t means;
    bool used[ISO_GUARD_MEANS]; /* a guard was made so; it may be there when the means are others */
    bool warned;
    uint32_t total_slots;
    uint32_t slots;  /* that have a guard */
    uint8_t *inside; /* per slot with a guard of one page: is it behind the slot's header? */
    /* Per slot: the heap whose block it was; 0: no guard. Written under the job's lock, read by the
     * fault handler. */
    ISO_ATOMIC(uintptr_t) * heap_of;
    /* Those below stacks, see stack_guard.h: per slot, a mask of the units that begin with one. Read by the
     * fault handler as well. */
    ISO_ATOMIC(uint32_t) * stacks;
    ISO_ATOMIC(uint32_t) * kept;      /* those of them that no stack here uses */
    uint64_t stack_count, kept_count; /* used, kept */
} iso_guards_t;

iso_status_t iso_guard_open(iso_job_t *job);
void iso_guard_close(iso_job_t *job);

/* The caller holds the lock. make: the extent, a run whose header can still be read, is about to be
 * free. lift: the slots have just left the free set. */
void iso_guard_make(iso_job_t *job, const iso_heap_t *heap, const iso_extent_t *run);
void iso_guard_lift(iso_job_t *job, uint32_t first, uint32_t count);

/* For stack_guard.h, which counts them: a page that faults. make: 0; else the errno, which is counted, and warned of once. */
int iso_guard_page_make(iso_job_t *job, char *page);
void iso_guard_page_lift(iso_job_t *job, char *page);
/* One that there is, for a while. */
void iso_guard_page_pause(iso_job_t *job, char *page);
void iso_guard_page_resume(iso_job_t *job, char *page);

/* A device cannot pin pages that fault: guards in these slots, and protections, are taken away until `resume`. That a device
 * has pages pinned does not mind guards: not by protection, and of a memory object the pages stay. */
void iso_guard_pause(iso_job_t *job, uint32_t first, uint32_t count);
void iso_guard_resume(iso_job_t *job, uint32_t first, uint32_t count);

#ifdef __cplusplus
}
#endif

#endif
