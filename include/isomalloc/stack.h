/*
 * stack.h - stacks that migrate with their heap: for runtimes that have threads of their own. Those
 * that have none find some in thread.h, which are made of this.
 *
 * A stack is a block of a heap, used from its end down. A migration of the heap, by whatever call,
 * moves the part of it that is in use, from the stack pointer up; what is below stays behind, and
 * is undefined afterwards. Below it lies a page that faults, at every rank that the heap comes to:
 * an overflow ends the process with a line that names the stack, and overwrites nothing; unless
 * there are none (ISO_GUARD=none) or no more of them (ISO_GUARD_BUDGET, warned of once), or a
 * function with more locals than a page steps over it (-fstack-clash-protection). Memory is used
 * where the stack was touched; what was touched and stays behind is kept or given back as all that
 * a heap leaves is (ISO_RETAIN).
 *
 * What is on a stack means something elsewhere only if the code is the same there, at the same
 * addresses: return addresses, pointers to functions and to constants. So a heap with a stack in it
 * comes only to ranks where the program and all libraries that were loaded when iso_init began are
 * the same, at the same addresses, and the processor has the same features: what the kernel tells
 * programs of them (AT_HWCAP, AT_HWCAP2), on x86_64 also what CPUID says in its leaves 1 and 7.
 * Those of other leaves, and the sizes of caches, by which libraries choose functions as well, are
 * not compared: run ranks on like processors. To other ranks it does not come: its migration ends
 * in ISO_ERR_CODE, the heap stays where it is, and a line of the log at the other rank names what
 * differs. That is found out when the heap has been put there, and once: what else depends on the
 * same code is refused at once, by the rank that it is at (but for heaps of an object that has
 * several). Under the usual randomisation of addresses the ranks of a job differ. `iso_run
 * --no-aslr` (or `setarch -R` under any launcher) starts them without, and iso_restart_without_aslr
 * does so from within a program. Libraries that are loaded later (dlopen) are not compared: nothing
 * of them may be on a stack that migrates, or be reached from it, unless the program sees to it
 * that they lie at the same addresses. Heaps without stacks need none of this.
 *
 * Code with -fstack-protector leaves copies of a secret of its process, the canary, on its stack.
 * On x86_64 whoever switches stacks switches that too (iso_thread_switch of thread.h does, which
 * runtimes may use): it is at a fixed place of the operating system's thread. On aarch64 it is one
 * word for all of a process, and the library sees to it: where a heap with stacks comes to another
 * process, each aligned word in the used part of a stack that is the canary of the one that it
 * comes from becomes the canary here. (So would a word of the program's own that is the same by
 * chance: one of 2^56.) Not seen to are return addresses that are signed with a key of the process
 * (PAC): code that is on stacks when they migrate must not sign them (-mbranch-protection=bti, or
 * none).
 */
#ifndef ISOMALLOC_STACK_H
#define ISOMALLOC_STACK_H

#include <isomalloc/isomalloc.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a stack begins with, at its high end: it is in use from right below this down. Part of what
 * migrates. */
typedef struct iso_stack {
    void *low; /* its lowest address, on a page; the page before it faults */
    /* Where it is in use from, while nobody runs on it: set it whenever somebody leaves it. What is below is not
     * moved. NULL, or anything outside of the stack: all of it moves. While somebody runs on it, ISO_STACK_RUNS, if who
     * switches sets that: then the heap stays. */
    void *sp;
    char name[48]; /* ends in 0 */
} iso_stack_t;

/* The `sp` of a stack that somebody runs on, also while he has gone on to another stack and will
 * come back. Whoever switches to a stack sets it just before (thread.h's threads have it), and
 * stores the stack pointer again where he leaves it for good or for later. No call destroys,
 * migrates, packs or saves a heap that has such a stack, or ends the job (ISO_ERR_BUSY, with a
 * line that names the stack), and to free it ends the process. A runtime that does not set it has
 * to know by itself; the caller's own stack is known in any case. */
#define ISO_STACK_RUNS ((void *)1)

/* Makes a stack of at least `size` bytes, 4 KiB at the least, for which a line about an overflow
 * will use the name (cut to 47 bytes; NULL: none). It takes a multiple of 64 KiB of addresses of
 * the heap, of memory what is touched; one of more than 1984 KiB, with its page that faults and
 * its iso_stack_t, takes a multiple of 2 MiB, and 2 MiB more, of which one page is used. A heap
 * with stacks that goes into a file, or to a rank for the first time, has a block more, of the
 * library's, which says what code they run on. From the first one on, this process has handlers
 * for SIGSEGV and SIGBUS in front of the program's own: the line about an overflow is from there,
 * if the operating system's thread has an alternate signal stack. NULL with errno EINVAL: too
 * small, or the heap is not here, is migrating, or is one for many threads (ISO_HEAP_SHARED),
 * logged; ENOMEM: no room. */
ISO_API iso_stack_t *iso_stack_create(iso_heap_t *heap, size_t size, const char *name);
/* NULL is ignored. Ends the process with a line if `low` is not what iso_stack_create set, or if
 * somebody runs on it (see above), as iso_free of its block does. */
ISO_API void iso_stack_destroy(iso_stack_t *stack);

/* Calls fn for every stack of a heap that is here, in address order within a run of slots; stops
 * when fn returns false. O(slots); nothing where the heap has none. fn makes and destroys none.
 * ISO_ERR_NOT_OWNER. A stack whose `low` was overwritten ends the process with a line. */
typedef bool (*iso_stack_fn)(iso_stack_t *stack, void *arg);
ISO_API iso_status_t iso_stack_walk(const iso_heap_t *heap, iso_stack_fn fn, void *arg);

/* The stack whose lowest address (iso_stack_t::low) this is, of a heap that is here; NULL: there is
 * none, or none any more. Any address may be asked for: nothing on a stack is looked at. O(1). */
ISO_API iso_stack_t *iso_stack_find(const void *low);

/* Is what lies at this address, a function or static data, of the program, or of a library that
 * was loaded when the first iso_init of the process began? Only of those do ranks compare where
 * they lie. Looks through all that is loaded. */
ISO_API bool iso_code_is_compared(const void *code);

/* How many calls of the library the calling thread is inside of: callbacks of the library that run
 * now (arrivals, walks, an object's routine, a pup_er's or a bootstrap's functions), and heaps for
 * many threads whose lock it has. A runtime's thread that is inside of one must not leave the
 * operating system's thread that it runs in, let alone the rank. */
ISO_API unsigned iso_call_depth(void);

/* For programs that iso_run does not start: executes the program again, with these arguments and
 * this environment, without randomisation of addresses; returns only if that is off already
 * (ISO_OK), or if it cannot be turned off, as in some containers, or comes back with each
 * execution, as with programs that have capabilities or are set-user-ID (ISO_ERR_SYSTEM, logged).
 * The variable ISO_RESTARTED_WITHOUT_ASLR is its own: it is set for the time from one execution to
 * the other. Call it first of all: before MPI_Init, before threads, before anything is open that
 * must not be twice. What is loaded later lies where there is room then, which other threads and
 * mappings decide: of an MPI with plug-ins, not even without randomisation always at the same
 * addresses. Where MPI_Init comes after iso_init, its plug-ins are not compared: those are not on
 * the stack of a thread that migrates. */
ISO_API iso_status_t iso_restart_without_aslr(char **argv);

#ifdef __cplusplus
}
#endif
#endif
