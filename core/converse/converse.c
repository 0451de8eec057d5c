/*
 * converse.c - isomalloc by the names of Converse, see <isomalloc/converse.h>. A user of the library like any other: of
 * its public headers only.
 *
 * What a context has beside its blocks, its protections, is in a block of its heap, the root, and so comes along.
 * A protected page cannot be read by who puts it: protections are lifted before a context is packed.
 */
#include "core/converse/job.h"
#include <errno.h>
#include <isomalloc/converse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- the job --------------------------------------------------------------------------------------- */

static pthread_mutex_t job_lock = PTHREAD_MUTEX_INITIALIZER;
static iso_job_t *the_job;
static bool tried; /* to start one; not again */

/* At the process's exit. A thread that has called that stands on memory of the job's, and cannot take it away. */
static void end_job(void)
{
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
        if (iso_init(NULL, &the_job) == ISO_OK)
            atexit(end_job);
    }
    iso_job_t *found = the_job;
    pthread_mutex_unlock(&job_lock);
    return found;
}

iso_status_t CmiIsomallocUseJob(iso_job_t *own)
{
    pthread_mutex_lock(&job_lock);
    iso_status_t status = the_job ? ISO_ERR_BUSY : ISO_OK;
    if (!the_job)
        the_job = own;
    pthread_mutex_unlock(&job_lock);
    return status;
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

typedef struct range {
    struct range *next;
    char *start;
    size_t length;
    int prot;
} range_t;

/* The heap's root. */
typedef struct context {
    range_t *ranges;
} context_t;

static iso_heap_t *heap_of(CmiIsomallocContext ctx)
{
    return ctx.opaque;
}

static context_t *context_of(CmiIsomallocContext ctx)
{
    return iso_heap_root(heap_of(ctx));
}

CmiIsomallocContext CmiIsomallocContextCreate(int myunit, int numunits)
{
    const CmiIsomallocContext nothing = {NULL};
    iso_job_t *where = iso_converse_job();
    iso_heap_t *heap;
    (void)myunit, (void)numunits;
    if (!where || iso_heap_create(where, &heap) != ISO_OK)
        return nothing;
    context_t *context = iso_calloc(heap, 1, sizeof *context);
    if (!context) {
        iso_heap_destroy(heap);
        return nothing;
    }
    iso_heap_set_root(heap, context);
    return (CmiIsomallocContext){heap};
}

static void say(const char *what, const void *address, size_t length, const char *why)
{
    fprintf(stderr, "CmiIsomallocContextProtect: %s of %zu bytes at %p: %s\n", what, length,
            address, why);
}

static bool protect(char *start, size_t length, int prot)
{
    if (mprotect(start, length, prot) == 0)
        return true;
    say("protection", start, length, strerror(errno));
    return false;
}

static void lift(CmiIsomallocContext ctx)
{
    for (const range_t *range = context_of(ctx)->ranges; range; range = range->next)
        protect(range->start, range->length, PROT_READ | PROT_WRITE);
}

static void restore(CmiIsomallocContext ctx)
{
    for (const range_t *range = context_of(ctx)->ranges; range; range = range->next)
        protect(range->start, range->length, range->prot);
}

void CmiIsomallocContextJustMigrated(CmiIsomallocContext ctx)
{
    restore(ctx);
    if (iso_converse_take_back)
        iso_converse_take_back(heap_of(ctx));
}

void CmiIsomallocContextDelete(CmiIsomallocContext ctx)
{
    if (!ctx.opaque)
        return;
    lift(ctx);
    iso_heap_destroy(heap_of(ctx));
}

void CmiIsomallocContextPup(pup_er p, CmiIsomallocContext *ctxptr)
{
    iso_job_t *where = iso_converse_job();
    iso_heap_t *heap = ctxptr->opaque;
    const bool gone = iso_pup_is_gone(p);
    const bool packs = pup_isPacking(p) && !gone && heap && iso_heap_state(heap) == ISO_HEAP_OWNED;
    if (!where) {
        iso_pup_fail(p, ISO_ERR_NOT_OWNER);
        return;
    }
    if (packs)
        lift(*ctxptr);
    iso_pup_heap(p, where, &heap);
    if (iso_pup_status(p) == ISO_OK)
        ctxptr->opaque = heap;
    /* it is here, and not on its way */
    if (ctxptr->opaque && !gone && !pup_isSizing(p) && iso_heap_state(heap) == ISO_HEAP_OWNED)
        restore(*ctxptr);
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
    const context_t *context; /* which is nobody's block */
    char *start, *end;
} extent_t;

static bool is_own(const context_t *context, const void *block)
{
    const range_t *range = context->ranges;
    while (range && range != block)
        range = range->next;
    return block == context || range;
}

static bool widen(void *block, size_t size, void *arg)
{
    extent_t *extent = arg;
    char *start = block;
    if (is_own(extent->context, block))
        return true;
    if (!extent->start || start < extent->start)
        extent->start = start;
    if (start + size > extent->end)
        extent->end = start + size;
    return true;
}

CmiIsomallocRegion CmiIsomallocContextGetUsedExtent(CmiIsomallocContext ctx)
{
    extent_t extent = {.context = context_of(ctx)};
    iso_heap_walk(heap_of(ctx), widen, &extent);
    return (CmiIsomallocRegion){extent.start, extent.end};
}

void *CmiIsomallocContextMalloc(CmiIsomallocContext ctx, size_t size)
{
    return iso_malloc(heap_of(ctx), size);
}

void *CmiIsomallocContextMallocAlign(CmiIsomallocContext ctx, size_t align, size_t size)
{
    return iso_aligned_alloc(heap_of(ctx), align, size);
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

/* Is the range inside one live block? */
typedef struct holder {
    const char *start, *end;
    bool found;
} holder_t;

static bool holds(void *block, size_t size, void *arg)
{
    holder_t *holder = arg;
    const char *start = block;
    holder->found = holder->start >= start && holder->end <= start + size;
    return !holder->found;
}

/* What the new range covers of the old ones is its: parts that stick out stay. false: no memory. */
static bool cut(iso_heap_t *heap, context_t *context, const char *start, char *end)
{
    for (range_t **at = &context->ranges, *range; (range = *at) != NULL;) {
        char *range_end = range->start + range->length;
        if (range_end <= start || range->start >= end) {
            at = &range->next;
            continue;
        }
        if (range->start < start && range_end > end) {
            range_t *behind = iso_malloc(heap, sizeof *behind);
            if (!behind)
                return false;
            *behind = (range_t){range->next, end, (size_t)(range_end - end), range->prot};
            range->next = behind;
            range->length = (size_t)(start - range->start);
            at = &behind->next;
        } else if (range->start < start) {
            range->length = (size_t)(start - range->start);
            at = &range->next;
        } else if (range_end > end) {
            range->start = end;
            range->length = (size_t)(range_end - end);
            at = &range->next;
        } else {
            *at = range->next;
            iso_free(range);
        }
    }
    return true;
}

void CmiIsomallocContextProtect(CmiIsomallocContext ctx, void *addr, size_t len, int prot)
{
    const int all = PROT_READ | PROT_WRITE;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    iso_heap_t *heap = heap_of(ctx);
    context_t *context = context_of(ctx);
    holder_t holder = {addr, (char *)addr + len, false};
    if (len == 0)
        return;
    if ((uintptr_t)addr % page != 0 || len % page != 0) {
        say("protection", addr, len, "it must be whole pages");
        return;
    }
    iso_heap_walk(heap, holds, &holder);
    if (!holder.found) {
        say("protection", addr, len, "it is not inside of a block of this context");
        return;
    }
    range_t *range = prot == all ? NULL : iso_malloc(heap, sizeof *range);
    if ((prot != all && !range) || !cut(heap, context, addr, (char *)addr + len)) {
        say("protection", addr, len, "no memory");
        iso_free(range);
        return;
    }
    if (range) {
        *range = (range_t){context->ranges, addr, len, prot};
        context->ranges = range;
    }
    protect(addr, len, prot);
}

void *CmiIsomallocContextPermanentAlloc(CmiIsomallocContext ctx, size_t size)
{
    return iso_malloc(heap_of(ctx), size);
}

void *CmiIsomallocContextPermanentAllocAlign(CmiIsomallocContext ctx, size_t align, size_t size)
{
    return iso_aligned_alloc(heap_of(ctx), align, size);
}
