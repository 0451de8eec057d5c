/*
 * shared.h - heaps that any number of threads use at once (ISO_HEAP_SHARED): what of them is
 * process-local, and so lies outside them.
 *
 * One lock a heap. Order of locks: the heap's, then the job's; whoever has the job's lock (progress)
 * closes and opens heaps without theirs, which is sound as nobody is inside of a heap that is closed.
 *
 * An iso_shared_t is never given back to the system before the job ends, only used for another heap:
 * a thread that looks for a heap that is leaving finds it closed, at any time.
 */
#ifndef ISO_CORE_SHARED_H
#define ISO_CORE_SHARED_H

#include "core/heap_layout.h"
#include <pthread.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_shared {
    pthread_mutex_t lock;       /* recursive: a walk's callback may ask for a block's size */
    ISO_ATOMIC(uintptr_t) heap; /* whose; 0: closed. Becomes 0 only under the lock */
    struct iso_shared *next;    /* in the job's list of those that no heap has */
    iso_current_t current[ISO_CLASS_COUNT]; /* in the place of heap->current */
} iso_shared_t;

/* For a shared heap that was made here, or has arrived; closed. Under the job's lock.
 * ISO_ERR_NO_MEMORY, logged. */
iso_status_t iso_shared_new(iso_job_t *job, const iso_heap_t *heap);
/* The heap is not here any more; nothing if it has none. Under the job's lock. */
void iso_shared_drop(iso_job_t *job, const iso_heap_t *heap);
/* The job ends. */
void iso_shared_close_all(iso_job_t *job);

/* What there is of this heap, NULL: it is not shared, or not here. */
iso_shared_t *iso_shared_of(const iso_heap_t *heap);
/* From here on threads may enter. */
void iso_shared_open(iso_shared_t *shared, const iso_heap_t *heap);
/* From here on they may not. Under the heap's lock. */
void iso_shared_close(iso_shared_t *shared);

/* Takes the heap's lock if it is a shared one, here and open; else NULL. */
iso_shared_t *iso_shared_lock(const iso_heap_t *heap);
/* The same for a heap whose magic number is a shared one's; aborts in the name of `what` if it is
 * closed. */
iso_shared_t *iso_shared_enter(const iso_heap_t *heap, const char *what);
/* The same for the heap that the address lies in; NULL if that is none, or not a shared one. */
iso_shared_t *iso_shared_enter_at(const void *ptr, const char *what);
/* NULL is ignored. */
void iso_shared_leave(iso_shared_t *shared);

#ifdef __cplusplus
}
#endif

#endif
