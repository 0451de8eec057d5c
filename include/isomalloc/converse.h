/*
 * converse.h - isomalloc as Converse (Charm++'s run-time layer) names it, on top of this library:
 * for runtimes that are written for it. In libisomalloc-converse, whose names a program of
 * Charm++'s own would have twice.
 *
 * With the folder isomalloc/converse in the include path (pkg-config isomalloc-converse says so) it
 * is <converse.h>, and pup.h is <pup_c.h>.
 *
 * The job. The first call that needs one (CmiIsomalloc, CmiIsomallocContextCreate,
 * CmiIsomallocEnabled, and packing and unpacking) starts it from the environment (iso_init with the
 * defaults; one rank without a launcher), and the process's exit ends it; or the program hands in
 * its own. Starting it is collective: in a job of several ranks all of them have to make such a
 * call, or the one that does waits for the others: CmiIsomallocEnabled() at the start of main will
 * do. Where it cannot be started CmiIsomallocEnabled is 0, and allocations are NULL.
 *
 * Differences to Charm++ 8. The number of contexts need not be known (`numunits` is accepted),
 * blocks of CmiIsomalloc move on their own as the manual first had it, and nothing is aborted for
 * want of memory: NULL. An alignment is 2 MiB at most. Blocks lie where there is room, not one
 * behind the other: see CmiIsomallocContextGetUsedExtent. CmiIsomallocInRange(NULL) is 0, as the
 * manual has it; there it is 1. Threads: as in isomalloc.h.
 */
#ifndef ISOMALLOC_CONVERSE_H
#define ISOMALLOC_CONVERSE_H

#include <isomalloc/pup.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The job that all of this is about, before any other call of it; it stays the caller's, who ends it when nothing of
 * it is used any more. NULL lets go of it, before or after the caller has ended it: another may be handed in then.
 * ISO_ERR_BUSY: there is one already; NULL: it was started here, and the process's exit ends it. */
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
/* iso_pup_heap; after deleting, opaque is NULL. Protections come along. */
ISO_API void CmiIsomallocContextPup(pup_er p, CmiIsomallocContext *ctxptr);
/* Blocks may always be freed in any order: nothing is done. */
ISO_API void CmiIsomallocContextEnableRandomAccess(CmiIsomallocContext ctx);
/* The context is here, or has stayed here: its threads, if there are any, are this rank's again
 * (see CthPup). Else nothing is to be done. */
ISO_API void CmiIsomallocContextJustMigrated(CmiIsomallocContext ctx);
/* Accepted: a context goes by one-sided puts where the pup_er moves it to a rank, whatever is said here. */
ISO_API void CmiIsomallocEnableRDMA(CmiIsomallocContext ctx, int enable);
/* From the lowest to behind the highest live block; both NULL: there is none. O(blocks). There
 * `start` is where the context's memory begins, and so its first block; here a block that was
 * allocated later may lie lower (one that is small, or in the place of one that was freed, or that
 * CthCreateMigratable made in the context): who wants the first block keeps its address. */
ISO_API CmiIsomallocRegion CmiIsomallocContextGetUsedExtent(CmiIsomallocContext ctx);

/* As iso_malloc and its like. */
ISO_API void *CmiIsomallocContextMalloc(CmiIsomallocContext ctx, size_t size);
/* An alignment that is no power of two is rounded up to one. */
ISO_API void *CmiIsomallocContextMallocAlign(CmiIsomallocContext ctx, size_t align, size_t size);
ISO_API void *CmiIsomallocContextCalloc(CmiIsomallocContext ctx, size_t nelem, size_t size);
ISO_API void *CmiIsomallocContextRealloc(CmiIsomallocContext ctx, void *ptr, size_t size);
ISO_API void CmiIsomallocContextFree(CmiIsomallocContext ctx, void *ptr);
ISO_API size_t CmiIsomallocContextGetLength(CmiIsomallocContext ctx, void *ptr);

/* iso_protect: mprotect of pages of one block of the context's (a length is rounded up to whole
 * pages), for as long as the block is there: at whatever rank, in checkpoints too. PROT_READ |
 * PROT_WRITE ends it. What is refused is so with a line, and nothing is changed. */
ISO_API void CmiIsomallocContextProtect(CmiIsomallocContext ctx, void *addr, size_t len, int prot);

/* Blocks that stay as long as the context. An alignment as above. */
ISO_API void *CmiIsomallocContextPermanentAlloc(CmiIsomallocContext ctx, size_t size);
ISO_API void *CmiIsomallocContextPermanentAllocAlign(CmiIsomallocContext ctx, size_t align,
                                                     size_t size);

/* ---- threads ------------------------------------------------------------------------------------- */

/* Threads of thread.h, whose rules about what moves and what does not hold; they are in the library
 * where libisomalloc-thread is (x86_64, aarch64). One thread of the operating system makes and runs
 * all of them. A rank opens the job's threads (iso_threads_open), which takes its arrival callback,
 * and makes two keys (iso_thread_key_create), when it makes the first thread, unpacks one, or calls
 * CthSuspend or CthYield from outside of any: threads that have come by themselves
 * (iso_thread_migrate) wait for that. So the program makes keys of its own before, at every rank. A
 * program that has opened the job's threads itself gets none of these. Of a job of the program's
 * own (CmiIsomallocUseJob) it closes them (iso_threads_close) before iso_finalize.
 *
 * exit is for the outside (CthAwaken or CthResume of what CthSelf was there). Called by a thread it
 * ends the process, with the status that it is given, but the job is left as it is, with a line
 * that says so: nothing waits for the other ranks, which take this one for dead. */
typedef struct CthThreadStruct *CthThread;
typedef void (*CthVoidFn)(void *);

/* Makes a thread, suspended, in a context (opaque NULL: one of its own, which ends with it); `size`
 * bytes of stack, 0: 256 KiB. It ends when fn returns, or by iso_thread_exit, and is gone then.
 * NULL, with a line or errno: no room, no key, or no job. */
ISO_API CthThread CthCreateMigratable(CthVoidFn fn, void *arg, int size, CmiIsomallocContext ctx);
/* 1: threads can migrate. */
ISO_API int CthMigratable(void);
/* The one that calls; outside of any: what stands for that. */
ISO_API CthThread CthSelf(void);
/* The context that its stack is in. opaque NULL: of none. */
ISO_API CmiIsomallocContext CmiIsomallocGetThreadContext(CthThread th);

/* Puts a suspended thread into the queue of those that are run in turn: by CthSuspend and CthYield
 * from outside. A thread that awakens itself goes there when it stops next, wherever it is then. */
ISO_API void CthAwaken(CthThread th);
/* Switches to a suspended thread at once, or to the outside, where CthSuspend, CthYield or
 * CthResume returns; the caller is suspended until it is awakened (which may have been before) or
 * resumed. Outside of any thread it returns when the one that it has switched to, or one after it,
 * stops and names no successor. */
ISO_API void CthResume(CthThread th);
/* Stops until the caller is awakened or resumed. Outside of any thread: runs those that are awakened, and makes
 * progress, until somebody awakens that (CthSelf of it), or switches to it. */
ISO_API void CthSuspend(void);
/* Lets the others run that are awakened now. */
ISO_API void CthYield(void);

/* Packs, unpacks, moves a suspended thread, with its context and all that is in it
 * (CmiIsomallocContextPup), other threads too, which have to be suspended as well. Returns the
 * thread: it has the same value everywhere; NULL after deleting. In an object that migrates
 * (iso_migrate_pup) the thread is this rank's no more from when it is packed; if that migration
 * fails, CmiIsomallocContextJustMigrated of its context makes it so again. Errors are the pup_er's:
 * ISO_ERR_BUSY (not suspended), ISO_ERR_CODE. */
ISO_API CthThread CthPup(pup_er p, CthThread th);

#ifdef __cplusplus
}
#endif
#endif
