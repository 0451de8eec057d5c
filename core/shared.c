/* shared.c - see shared.h. */
#include "core/shared.h"
#include "core/depth.h"
#include "core/job.h"
#include "core/log.h"
#include <stdlib.h>

static ISO_ATOMIC(iso_shared_t *) * entry_of(iso_job_t *job, const void *heap)
{
    return &job->shared_of[iso_space_slot(&job->space, heap)];
}

static iso_shared_t *shared_alloc(void)
{
    pthread_mutexattr_t recursive;
    iso_shared_t *shared = calloc(1, sizeof *shared);
    if (!shared || pthread_mutexattr_init(&recursive) != 0) {
        free(shared);
        return NULL;
    }
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    int error = pthread_mutex_init(&shared->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    if (error != 0) {
        free(shared);
        return NULL;
    }
    return shared;
}

iso_status_t iso_shared_new(iso_job_t *job, const iso_heap_t *heap)
{
    iso_shared_t *shared = job->shared_unused;
    if (shared) {
        job->shared_unused = shared->next;
    } else if (!(shared = shared_alloc())) {
        iso_log(&job->logger, ISO_LOG_ERROR, "no memory for the lock of heap %p",
                (const void *)heap);
        return ISO_ERR_NO_MEMORY;
    }
    for (unsigned klass = 0; klass < ISO_CLASS_COUNT; klass++)
        shared->current[klass] = iso_current_none(heap);
    atomic_store_explicit(entry_of(job, heap), shared, memory_order_release);
    return ISO_OK;
}

void iso_shared_drop(iso_job_t *job, const iso_heap_t *heap)
{
    iso_shared_t *shared = atomic_exchange(entry_of(job, heap), NULL);
    if (!shared)
        return;
    shared->next = job->shared_unused;
    job->shared_unused = shared;
}

void iso_shared_close_all(iso_job_t *job)
{
    for (iso_hold_t *hold = job->holds; hold; hold = hold->next)
        iso_shared_drop(job, hold->heap);
    while (job->shared_unused) {
        iso_shared_t *shared = job->shared_unused;
        job->shared_unused = shared->next;
        pthread_mutex_destroy(&shared->lock);
        free(shared);
    }
}

iso_shared_t *iso_shared_of(const iso_heap_t *heap)
{
    const iso_job_row_t *row = iso_job_row_of(heap);
    return row ? atomic_load_explicit(entry_of(row->job, heap), memory_order_acquire) : NULL;
}

void iso_shared_open(iso_shared_t *shared, const iso_heap_t *heap)
{
    atomic_store_explicit(&shared->heap, (uintptr_t)heap, memory_order_release);
}

void iso_shared_close(iso_shared_t *shared)
{
    atomic_store_explicit(&shared->heap, 0, memory_order_relaxed);
}

iso_shared_t *iso_shared_lock(const iso_heap_t *heap)
{
    iso_shared_t *shared = iso_shared_of(heap);
    if (!shared)
        return NULL;
    pthread_mutex_lock(&shared->lock);
    if (atomic_load_explicit(&shared->heap, memory_order_acquire) == (uintptr_t)heap) {
        iso_depth++;
        return shared;
    }
    pthread_mutex_unlock(&shared->lock);
    return NULL;
}

iso_shared_t *iso_shared_enter(const iso_heap_t *heap, const char *what)
{
    iso_shared_t *shared = iso_shared_lock(heap);
    if (!shared)
        iso_fatal("%s: heap %p is migrating, or has left", what, (const void *)heap);
    return shared;
}

iso_shared_t *iso_shared_enter_at(const void *ptr, const char *what)
{
    const iso_heap_t *heap = iso_heap_of(ptr);
    if (!heap || iso_heap_magic(heap) != ISO_HEAP_MAGIC_SHARED)
        return NULL;
    return iso_shared_enter(heap, what);
}

void iso_shared_leave(iso_shared_t *shared)
{
    if (!shared)
        return;
    iso_depth--;
    pthread_mutex_unlock(&shared->lock);
}
