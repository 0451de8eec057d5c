/*
 * converse.c - isomalloc by the names of Converse, see <isomalloc/converse.h>. A user of the library like any other: of
 * its public headers only.
 */
#include "core/converse/job.h"
#include <errno.h>
#include <isomalloc/converse.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- the job --------------------------------------------------------------------------------------- */

static pthread_mutex_t job_lock = PTHREAD_MUTEX_INITIALIZER;
static iso_job_t *the_job;
static bool tried;       /* to start one; not again */
static pid_t started_by; /* 0: it is the program's own, or there is none */

/* At the process's exit, and that of each process it has forked, whose job it is not. A thread that has called that
 * stands on memory of the job's, and cannot take it away. */
static void end_job(void)
{
    if (getpid() != started_by)
        return;
    if (iso_heap_of(__builtin_frame_address(0))) {
        fprintf(
            stderr,
            "libisomalloc-converse: rank %u: exit was called by a thread: the process ends, and "
            "its job is left as it is; other ranks take it for dead: call exit outside of "
            "threads\n",
            (unsigned)iso_rank(the_job));
        return;
    }
    if (iso_converse_end_threads)
        iso_converse_end_threads(the_job);
    iso_finalize(the_job);
}

iso_job_t *iso_converse_job(void)
{
    pthread_mutex_lock(&job_lock);
    if (!the_job && !tried) {
        tried = true;
        if (iso_init(NULL, &the_job) == ISO_OK) {
            started_by = getpid();
            atexit(end_job);
        }
    }
    iso_job_t *found = the_job;
    pthread_mutex_unlock(&job_lock);
    return found;
}

iso_status_t CmiIsomallocUseJob(iso_job_t *own)
{
    pthread_mutex_lock(&job_lock);
    const bool is_taken = own ? the_job != NULL : started_by != 0;
    if (!is_taken) {
        the_job = own;
        if (iso_converse_forget_threads)
            iso_converse_forget_threads();
    }
    pthread_mutex_unlock(&job_lock);
    return is_taken ? ISO_ERR_BUSY : ISO_OK;
}

int CmiIsomallocEnabled(void)
{
    return iso_converse_job() != NULL;
}

static void *none(void)
{
    errno = ENOMEM;
    return NULL;
}

/* ---- blocks ---------------------------------------------------------------------------------------- */

void *CmiIsomalloc(int size)
{
    if (size < 0) {
        errno = EINVAL;
        return NULL;
    }
    iso_job_t *where = iso_converse_job();
    return where ? iso_movable_alloc(where, (size_t)size) : none();
}

void CmiIsomallocFree(void *doomedBlock)
{
    iso_free(doomedBlock);
}

void CmiIsomallocPup(pup_er p, void **block)
{
    iso_job_t *where = iso_converse_job();
    if (where)
        iso_pup_block(p, where, block);
    else
        iso_pup_fail(p, ISO_ERR_NOT_OWNER);
}

int CmiIsomallocLength(void *block)
{
    return (int)iso_movable_length(block);
}

int CmiIsomallocInRange(void *address)
{
    return iso_in_range(address);
}

/* ---- contexts --------------------------------------------------------------------------------------- */

static iso_heap_t *heap_of(CmiIsomallocContext ctx)
{
    return ctx.opaque;
}

CmiIsomallocContext CmiIsomallocContextCreate(int myunit, int numunits)
{
    const CmiIsomallocContext nothing = {NULL};
    iso_job_t *where = iso_converse_job();
    iso_heap_t *heap;
    (void)myunit, (void)numunits;
    if (!where || iso_heap_create(where, &heap) != ISO_OK)
        return nothing;
    return (CmiIsomallocContext){heap};
}

void CmiIsomallocContextJustMigrated(CmiIsomallocContext ctx)
{
    if (iso_converse_take_back)
        iso_converse_take_back(heap_of(ctx));
}

void CmiIsomallocContextDelete(CmiIsomallocContext ctx)
{
    if (ctx.opaque)
        iso_heap_destroy(heap_of(ctx));
}

void CmiIsomallocContextPup(pup_er p, CmiIsomallocContext *ctxptr)
{
    iso_job_t *where = iso_converse_job();
    iso_heap_t *heap = ctxptr->opaque;
    if (!where) {
        iso_pup_fail(p, ISO_ERR_NOT_OWNER);
        return;
    }
    iso_pup_heap(p, where, &heap);
    if (iso_pup_status(p) == ISO_OK)
        ctxptr->opaque = heap;
}

void CmiIsomallocContextEnableRandomAccess(CmiIsomallocContext ctx)
{
    (void)ctx;
}

void CmiIsomallocEnableRDMA(CmiIsomallocContext ctx, int enable)
{
    (void)ctx, (void)enable;
}

typedef struct extent {
    char *start, *end;
} extent_t;

static bool widen(void *block, size_t size, void *arg)
{
    extent_t *extent = arg;
    char *start = block;
    if (!extent->start || start < extent->start)
        extent->start = start;
    if (start + size > extent->end)
        extent->end = start + size;
    return true;
}

CmiIsomallocRegion CmiIsomallocContextGetUsedExtent(CmiIsomallocContext ctx)
{
    extent_t extent = {NULL, NULL};
    iso_heap_walk(heap_of(ctx), widen, &extent);
    return (CmiIsomallocRegion){extent.start, extent.end};
}

void *CmiIsomallocContextMalloc(CmiIsomallocContext ctx, size_t size)
{
    return iso_malloc(heap_of(ctx), size);
}

/* What is no power of two is rounded up to one, as there; above 2 MiB it stays what cannot be. */
static size_t alignment(size_t align)
{
    size_t power = 16;
    while (power < align && power <= ISO_SLOT_SIZE)
        power *= 2;
    return power;
}

void *CmiIsomallocContextMallocAlign(CmiIsomallocContext ctx, size_t align, size_t size)
{
    return iso_aligned_alloc(heap_of(ctx), alignment(align), size);
}

void *CmiIsomallocContextCalloc(CmiIsomallocContext ctx, size_t nelem, size_t size)
{
    return iso_calloc(heap_of(ctx), nelem, size);
}

void *CmiIsomallocContextRealloc(CmiIsomallocContext ctx, void *ptr, size_t size)
{
    return iso_realloc(heap_of(ctx), ptr, size);
}

void CmiIsomallocContextFree(CmiIsomallocContext ctx, void *ptr)
{
    (void)ctx;
    iso_free(ptr);
}

size_t CmiIsomallocContextGetLength(CmiIsomallocContext ctx, void *ptr)
{
    (void)ctx;
    return iso_usable_size(ptr);
}

void CmiIsomallocContextProtect(CmiIsomallocContext ctx, void *addr, size_t len, int prot)
{
    iso_protect(heap_of(ctx), addr, len, prot); /* which says why not */
}

void *CmiIsomallocContextPermanentAlloc(CmiIsomallocContext ctx, size_t size)
{
    return iso_malloc(heap_of(ctx), size);
}

void *CmiIsomallocContextPermanentAllocAlign(CmiIsomallocContext ctx, size_t align, size_t size)
{
    return iso_aligned_alloc(heap_of(ctx), alignment(align), size);
}
