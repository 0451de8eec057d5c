/*
 * converse.h - isomalloc as Converse (Charm++'s run-time layer) names it, on top of this library: for runtimes that
 * are written for it. In libisomalloc-converse, whose names a program of Charm++'s own would have twice.
 *
 * With the folder isomalloc/converse in the include path (pkg-config isomalloc-converse says so) it is <converse.h>, and
 * pup.h is <pup_c.h>.
 *
 * The job. The first call that needs one starts it from the environment (iso_init with the defaults; one rank
 * without a launcher), and the process's exit ends it; or the program hands in its own. Where it cannot be started
 * CmiIsomallocEnabled is 0, and allocations are NULL.
 *
 * Differences, all to the better: the number of contexts need not be known (`numunits` is accepted), blocks of
 * CmiIsomalloc move on their own as the manual first had it, and nothing is aborted for want of memory: NULL. Threads: as
 * in isomalloc.h.
 */
#ifndef ISOMALLOC_CONVERSE_H
#define ISOMALLOC_CONVERSE_H

#include <isomalloc/pup.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The job that all of this is about, before any other call of it; it stays the caller's, who ends it when nothing of
 * it is used any more. ISO_ERR_BUSY: there is one already. */
ISO_API iso_status_t CmiIsomallocUseJob(iso_job_t *job);

/* 1: there is a job, or it could be started just now. */
ISO_API int CmiIsomallocEnabled(void);

/* ---- blocks, each with addresses of its own ---------------------------------------------------- */

/* `size` bytes at an address that no other rank has; page granularity, see iso_movable_alloc for what it costs. */
ISO_API void *CmiIsomalloc(int size);
/* The block and its addresses, which may be used again; what refers to it then likely faults. Twice aborts. */
ISO_API void CmiIsomallocFree(void *doomedBlock);
/* Packs, unpacks, moves (iso_pup_block): after unpacking the pointer has the value that it had. */
ISO_API void CmiIsomallocPup(pup_er p, void **block);
/* Bytes that were asked for. */
ISO_API int CmiIsomallocLength(void *block);
/* 1: the address may have been allocated here; 0 for what malloc returns. */
ISO_API int CmiIsomallocInRange(void *address);

/* ---- contexts: heaps that move as a whole -------------------------------------------------------- */

typedef struct CmiIsomallocContext {
    void *opaque; /* the iso_heap_t; NULL: none */
} CmiIsomallocContext;

typedef struct CmiIsomallocRegion {
    void *start, *end;
} CmiIsomallocRegion;

/* myunit and numunits are not needed. opaque NULL: no room, or no job. */
ISO_API CmiIsomallocContext CmiIsomallocContextCreate(int myunit, int numunits);
ISO_API void CmiIsomallocContextDelete(CmiIsomallocContext ctx);
/* iso_pup_heap; after deleting, opaque is NULL. Protections are lifted while it is packed, and are there again when it
 * is unpacked, or stays. If a migration of it fails (iso_migrate_pup), CmiIsomallocContextJustMigrated makes them again. */
ISO_API void CmiIsomallocContextPup(pup_er p, CmiIsomallocContext *ctxptr);
/* Blocks may always be freed in any order: nothing is done. */
ISO_API void CmiIsomallocContextEnableRandomAccess(CmiIsomallocContext ctx);
/* Makes the context's protections in this process. */
ISO_API void CmiIsomallocContextJustMigrated(CmiIsomallocContext ctx);
/* Accepted: a context goes by one-sided puts where the pup_er moves it to a rank, whatever is said here. */
ISO_API void CmiIsomallocEnableRDMA(CmiIsomallocContext ctx, int enable);
/* From the lowest to behind the highest live block; both NULL: there is none. O(blocks). */
ISO_API CmiIsomallocRegion CmiIsomallocContextGetUsedExtent(CmiIsomallocContext ctx);

/* As iso_malloc and its like. */
ISO_API void *CmiIsomallocContextMalloc(CmiIsomallocContext ctx, size_t size);
ISO_API void *CmiIsomallocContextMallocAlign(CmiIsomallocContext ctx, size_t align, size_t size);
ISO_API void *CmiIsomallocContextCalloc(CmiIsomallocContext ctx, size_t nelem, size_t size);
ISO_API void *CmiIsomallocContextRealloc(CmiIsomallocContext ctx, void *ptr, size_t size);
ISO_API void CmiIsomallocContextFree(CmiIsomallocContext ctx, void *ptr);
ISO_API size_t CmiIsomallocContextGetLength(CmiIsomallocContext ctx, void *ptr);

/* mprotect of pages inside of a block of the context's, for as long as the block is there; it survives migrations and
 * checkpoints. PROT_READ | PROT_WRITE ends it, which has to be before the block is freed. What is not whole pages of one block is refused with a line. */
ISO_API void CmiIsomallocContextProtect(CmiIsomallocContext ctx, void *addr, size_t len, int prot);

/* Blocks that stay as long as the context. */
ISO_API void *CmiIsomallocContextPermanentAlloc(CmiIsomallocContext ctx, size_t size);
ISO_API void *CmiIsomallocContextPermanentAllocAlign(CmiIsomallocContext ctx, size_t align,
                                                     size_t size);

#ifdef __cplusplus
}
#endif
#endif
