/*
 * thread.h - user-level threads that migrate with their stack: libisomalloc-thread, on top of
 * isomalloc.h and stack.h.
 *
 * A thread is made in a heap, its stack is a block of that heap, and it goes where the heap goes:
 * stack, registers and all. iso_thread_migrate(dest), called from inside, returns at rank dest, on
 * the same stack, at the same addresses, as if nothing had happened; and so a thread that is
 * suspended goes on where it was, when somebody else has moved it. All threads of a heap move
 * together; a thread that is to move alone has a heap of its own.
 *
 *     static void *work(void *arg)
 *     {
 *         mesh_t mesh[16];                      // on the stack
 *         mesh_init(mesh, arg);
 *         iso_thread_migrate(next_rank);        // in another process from here on; `mesh` is where it was
 *         return mesh_sum(mesh);
 *     }
 *
 * Scheduling is the runtime's: iso_thread_resume is a plain call that runs a thread until it
 * yields, suspends, ends or leaves. Programs that have no scheduler use iso_threads_run, which
 * resumes threads in turn. A switch is some thirty instructions, beside the call that makes it,
 * without a system call.
 *
 * What a thread may rely on in another process, and what not:
 *   - Addresses: its stack, its heap and other heaps of the iso space that are there. Of the process's own memory
 *     (malloc, static variables) the addresses mean something, but what is there is the other process's. What is
 *     called before and after a migration from one function is the same code: heaps with threads only come to ranks
 *     where the code is the same and at the same addresses (stack.h), else the migration ends in ISO_ERR_CODE, at once
 *     where that rank has refused another one for it, and the thread goes on here. Under the usual randomisation of addresses start ranks by `iso_run --no-aslr`, or call
 *     iso_restart_without_aslr.
 *   - The stack protector's canary is the process's. On x86_64 a thread carries its own, which is switched with it; on
 *     aarch64, where all of a process has one, those on a stack become the new process's where it arrives (stack.h).
 *     So code with -fstack-protector migrates.
 *   - Return addresses that are signed (PAC, on aarch64, by -mbranch-protection=standard or pac-ret, where the processor
 *     does it) are so with a key of the process. A thread with one on its stack does not leave (ISO_ERR_CODE, as far as frame
 *     records show them): build what threads run with -mbranch-protection=bti, or without. This library is.
 *   - Thread-local variables, errno too, are the operating system's thread's: their values are undefined after a
 *     call that switches threads, and compilers may keep their *addresses* across such a call, so do not use the
 *     same thread-local variable before and after one in one function. iso_thread_set_value is storage that moves.
 *     No function of this library carries such an address across a switch.
 *   - A jmp_buf or ucontext_t that was filled before a migration is void after it: the C library encodes them with
 *     a secret of the process (the pointer guard), which stays the process's own.
 *   - C++: exceptions are thrown and caught on a thread's stack as on any, and what was entered before a migration
 *     is unwound after it. Not so inside a catch block, or in a destructor that an exception runs: the exception itself
 *     lies in the process's memory, so migrating there is refused (ISO_ERR_BUSY), for each thread of the heap. What
 *     the language keeps for each of the system's threads (std::uncaught_exceptions) is switched, also where its run time
 *     is loaded (dlopen) when threads have been running. That holds for one run time in a process: of several (libstdc++
 *     and libc++abi, or copies that libraries bring along inside of them) only the first one's. While none is
 *     loaded, the library that was loaded last stays so until another one is, or the system's thread ends.
 *   - FILE pointers, descriptors, locks, memory maps are the process's. So are signal masks, handlers and
 *     alternate stacks. The rounding mode and other control bits of the floating-point units move; which flags they
 *     have raised (fetestexcept) is undefined after a switch.
 *   - AddressSanitizer and Valgrind are told of switches. A function's locals must be on its stack, so
 *     detect_stack_use_after_return must be off, as it is by default of gcc: else migrating is refused.
 *     ThreadSanitizer is not supported.
 *   - Shadow stacks (CET) and memory protection keys are the system's thread's: programs that use them cannot use these threads.
 *   - A signal's handler runs on the stack of the thread that it comes in, unless it has SA_ONSTACK: some KiB on today's
 *     processors, which the smallest stacks do not have.
 *   - This library is code on every stack that waits: it has to be loaded when iso_init begins, or ranks do not compare where it lies
 *     (iso_code_is_compared, stack.h), and iso_threads_open refuses.
 *   - pthread_exit, cancellation and what waits for other threads of the system (a mutex held across a switch) are
 *     not for these threads. A blocking system call blocks all of them that share the system's thread.
 * Processors: x86_64, and aarch64 (tested in an emulator only).
 *
 * Threads of the operating system. One at a time uses a heap, and so its threads: different ones may resume
 * threads of different heaps side by side. iso_threads_run is for one at a time. Everything else is as isomalloc.h
 * says. Functions that a thread calls on itself are refused outside of any (ISO_ERR_INVALID). A thread that
 * is inside of a call of the library (iso_call_depth: a callback, a pup routine of an object, a walk; or `ready` below) may
 * resume others, but does not stop itself: ISO_ERR_BUSY. Callbacks return: after an exception that has left one, or a longjmp, no
 * thread that the system's thread runs can stop any more. What a thread runs on stays, while it has resumed another one, too: neither it, nor a
 * thread that it has resumed, nor another thread of the system destroys, migrates, packs or saves the heap that its stack is in (ISO_ERR_BUSY,
 * with a line that names it), or ends the job, and to free its stack ends the process.
 */
#ifndef ISOMALLOC_THREAD_H
#define ISOMALLOC_THREAD_H

#include <isomalloc/stack.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A thread, at an address in its heap: the same at every rank. */
typedef struct iso_thread iso_thread_t;
typedef void *(*iso_thread_fn)(void *arg);

typedef enum iso_thread_state {
    ISO_THREAD_READY = 0,     /* can be resumed */
    ISO_THREAD_RUNNING = 1,   /* resumed; also while it has resumed another one itself */
    ISO_THREAD_SUSPENDED = 2, /* waits for iso_thread_awaken, or for a thread to end */
    ISO_THREAD_LEAVING = 3,   /* on its way to another rank, or not here */
    ISO_THREAD_FINISHED = 4   /* ended; waits for iso_thread_join */
} iso_thread_state_t;

/* ---- the threads of a job ---------------------------------------------------------------------- */

typedef struct iso_threads_params {
    size_t struct_size; /* sizeof(iso_threads_params_t) */
    /* For a runtime with a scheduler of its own; NULL: iso_threads_run is the scheduler, or who
     * calls iso_threads_next. The thread can be resumed, for another reason than that a resume of
     * it has returned READY: it was made, or awakened, or a thread that it waited for has ended; or
     * its heap has arrived, or has stayed here after it had begun to leave. It may be resumed from
     * then on, until a resume of a thread of its heap returns LEAVING, or iso_threads_move has made
     * it LEAVING (iso_thread_state): that calls it again, here or elsewhere. A move that ends
     * before it has begun, to this rank itself or in an error that is returned, does not: what
     * could be resumed still can. Runs where it happens: an arrival as an iso_arrival_fn does. It
     * may resume the thread at once, and that one may take its heap away: the others of the heap
     * are told of where they are then. Where several of the system's threads resume, one that has
     * been told of may have left with another one meanwhile: resuming it is refused
     * (ISO_ERR_NOT_OWNER). */
    void (*ready)(iso_thread_t *thread, void *arg);
    iso_arrival_fn
        arrival; /* in the place of the job's: called for each heap, after its threads. NULL: nothing */
    void *arg;
} iso_threads_params_t;

/* Makes threads possible in the heaps of a job: takes its arrival callback (iso_set_arrival) and
 * its iso_set_end over. NULL: all defaults. ISO_ERR_NO_MEMORY; and logged: ISO_ERR_BUSY: it is
 * open; ISO_ERR_LIMIT: eight jobs of this process have threads; ISO_ERR_CODE: this library was
 * loaded (dlopen) after the process's first iso_init; ISO_ERR_INVALID: struct_size;
 * ISO_ERR_SYSTEM. */
ISO_API iso_status_t iso_threads_open(iso_job_t *job, const iso_threads_params_t *params);
/* Before iso_finalize, which else does it and says so in a line. Threads that are not finished are
 * not resumed any more, unless the job's threads are opened again and their heap is taken in
 * (iso_threads_take_in). ISO_ERR_BUSY, and nothing happens: a heap is still on its way from here,
 * or in doubt; or, logged, a thread calls, or a callback, or iso_threads_run runs. ISO_ERR_INVALID:
 * not open. Afterwards the job's arrival callback is iso_threads_params_t::arrival, not the one
 * that the job had before (iso_set_arrival). Hold no lock that `ready` or `arrival` takes. */
ISO_API iso_status_t iso_threads_close(iso_job_t *job);

/* Makes progress, and looks after threads that are leaving. A runtime that has a scheduler of its
 * own calls it where it would call iso_progress. Returns the number of things that happened. */
ISO_API unsigned iso_threads_progress(iso_job_t *job);

/* The scheduler of programs that have none: resumes all that can be, in turn, and makes progress,
 * until `until` returns true: it is asked before each turn. Sleeps while there is nothing to do, at
 * most a tenth of a second before it asks again. Not from a thread or a callback. ISO_ERR_INVALID:
 * the job's threads have another scheduler, or there are none. */
ISO_API iso_status_t iso_threads_run(iso_job_t *job, bool (*until)(void *arg), void *arg);

/* For a runtime whose scheduler wants no queue of its own (`ready` NULL), in the place of
 * iso_threads_run: the thread that has waited longest of those that can be resumed, which the
 * caller resumes. Threads that have left meanwhile, or are gone, are passed over. NULL: there is
 * none, or they have another scheduler, or are not open. */
ISO_API iso_thread_t *iso_threads_next(iso_job_t *job);
/* How many wait there for their turn, those that iso_threads_next would pass over as well. */
ISO_API uint32_t iso_threads_waiting(const iso_job_t *job);

/* ---- a thread's life --------------------------------------------------------------------------- */

typedef struct iso_thread_attr {
    size_t struct_size; /* sizeof(iso_thread_attr_t) */
    size_t stack_size;  /* bytes, 4 KiB at the least; 0: 256 KiB. Memory is used as it is touched */
    const char *name;   /* for messages, cut to 47 bytes; NULL: none */
    bool detached;      /* nobody joins it: it goes when it ends */
} iso_thread_attr_t;

/* Makes a thread, ready to run fn(arg), in a heap that is here and of one thread at a time. attr
 * NULL: defaults. It ends by returning, or with its heap (iso_heap_destroy), or its stack
 * (iso_stack_destroy), while it does not run. ISO_ERR_INVALID, logged: the stack is too small, the
 * heap is not here, is migrating or is one for many threads, or the job's threads are not open;
 * ISO_ERR_NO_SPACE; ISO_ERR_NO_MEMORY. */
ISO_API iso_status_t iso_thread_create(iso_heap_t *heap, iso_thread_fn fn, void *arg,
                                       const iso_thread_attr_t *attr, iso_thread_t **thread_p);

/* Runs a thread that is ready until it stops; *state_p (NULL: not wanted) says in what state:
 * READY, if it has yielded, SUSPENDED, LEAVING, or FINISHED, after which a detached one is gone.
 * From anywhere, also from another thread. Logged: ISO_ERR_INVALID: it has finished; ISO_ERR_BUSY:
 * it waits or runs; ISO_ERR_NOT_OWNER: it is not here, or its heap is leaving. */
ISO_API iso_status_t iso_thread_resume(iso_thread_t *thread, iso_thread_state_t *state_p);

/* Of a thread at this rank, or that was here (LEAVING); not of one that was joined, or was detached
 * and has ended: nothing is left of it. */
ISO_API iso_thread_state_t iso_thread_state(const iso_thread_t *thread);
/* A thread that waits can be resumed again. ISO_ERR_INVALID: it does not wait; ISO_ERR_NOT_OWNER:
 * it is not here, or not yet: its heap lands, and the job's arrival callback has not been called
 * for it; ISO_ERR_NO_MEMORY: it still waits. */
ISO_API iso_status_t iso_thread_awaken(iso_thread_t *thread);

/* Waits until the thread ends, and ends it for good: *result_p (NULL: not wanted) is what it
 * returned. From a thread: of one of the same heap. From outside: by running the scheduler
 * meanwhile; with a scheduler of the runtime's own the thread must have finished. ISO_ERR_INVALID,
 * logged: none of this, or it is detached; ISO_ERR_BUSY: another one waits for it, or did until it
 * ended; ISO_ERR_NOT_OWNER: it is not here, or leaves. */
ISO_API iso_status_t iso_thread_join(iso_thread_t *thread, void **result_p);

ISO_API iso_heap_t *iso_thread_heap(const iso_thread_t *thread);
/* Its stack: of one that may be gone, iso_stack_find of that one's `low`, kept from when it was
 * here, tells whether it is. */
ISO_API iso_stack_t *iso_thread_stack(const iso_thread_t *thread);
ISO_API const char *iso_thread_name(const iso_thread_t *thread);
/* Calls fn for every thread of a heap that is here; stops when it returns false. fn makes and ends
 * none. ISO_ERR_NOT_OWNER. */
typedef bool (*iso_thread_walk_fn)(iso_thread_t *thread, void *arg);
ISO_API iso_status_t iso_thread_walk(const iso_heap_t *heap, iso_thread_walk_fn fn, void *arg);

/* ---- from inside ------------------------------------------------------------------------------- */

/* The thread that calls; NULL: none. */
ISO_API iso_thread_t *iso_thread_self(void);
/* Lets others run; it can be resumed at once, or (suspend) when it is awakened. ISO_ERR_INVALID,
 * ISO_ERR_BUSY: see above. */
ISO_API iso_status_t iso_thread_yield(void);
ISO_API iso_status_t iso_thread_suspend(void);
/* Ends the thread, as returning from its function does; but destructors of C++ do not run. Outside
 * of any thread, or inside of a call of the library, it ends the process, with a line: there is
 * nothing to go back to. */
__attribute__((noreturn)) ISO_API void iso_thread_exit(void *result);

/* Goes to rank dest, with its heap and all threads of it: ISO_OK is returned there. All else is
 * returned here, and nothing has changed: ends and errors of iso_migrate, ISO_ERR_CODE (see above),
 * and each with a line of the log ISO_ERR_INVALID: the caller is no thread, or AddressSanitizer has
 * its locals; ISO_ERR_RANK; ISO_ERR_BUSY: it is inside of a call of the library; or it, or another
 * of its heap, is inside of a catch block; or another one runs, because it has resumed this one.
 * ISO_ERR_IN_DOUBT is returned when the doubt has ended and the heap has stayed. To this rank
 * itself is nothing to do. */
ISO_API iso_status_t iso_thread_migrate(uint32_t dest);

/* ---- from outside, for a load balancer
 * ---------------------------------------------------------- */

/* Starts to move threads with their heaps, and all other threads of those, to rank dest; what was
 * ready is ready there, what waits waits. iso_threads_progress sees to the rest; what cannot leave
 * after all is ready here again. As long as nobody knows (ISO_HEAP_IN_DOUBT) they are LEAVING, and
 * refused as such. Errors, with nothing changed, logged: ISO_ERR_BUSY: one of these threads, or of
 * their heaps', runs or is in a catch block; ISO_ERR_NOT_OWNER: one is leaving, or not here, so it
 * is no matter of this rank's; those of iso_migrate, where some may have left. */
ISO_API iso_status_t iso_threads_move(iso_thread_t *const *threads, size_t count, uint32_t dest);
/* The same of a heap with all its threads. */
ISO_API iso_status_t iso_threads_move_heap(iso_heap_t *heap, uint32_t dest);

/* For heaps with threads that move in another way: packed by a pup routine (pup.h), to a file or as
 * a part of an object, or by iso_migrate. let_go, before: the scheduler forgets the heap's threads.
 * Until take_in none of them is resumed, or awakened: they count as not here (ISO_ERR_NOT_OWNER,
 * ISO_THREAD_LEAVING). take_in, where the heap is then, or here again: those that can be resumed
 * are the scheduler's. Of threads that are already, nothing changes; those of a heap that arrives
 * (iso_arrival_fn) are. ISO_ERR_BUSY, logged: one of them runs, or is in a catch block;
 * ISO_ERR_NOT_OWNER; ISO_ERR_NO_MEMORY, logged: take_in can be called again. */
ISO_API iso_status_t iso_threads_let_go(iso_heap_t *heap);
ISO_API iso_status_t iso_threads_take_in(iso_heap_t *heap);

/* ---- storage that moves
 * ------------------------------------------------------------------------- */

#define ISO_THREAD_KEYS 16 /* at most */

/* A key for a value of each thread, NULL at first. All ranks make the same keys in the same order,
 * before there are threads. destroy (NULL: nothing) is called at a thread's end with its value, in
 * the thread, which may still do what threads do, unless that is NULL; once for each key: a value
 * that it sets anew is not destroyed. ISO_ERR_LIMIT. */
typedef uint32_t iso_thread_key_t;
ISO_API iso_status_t iso_thread_key_create(void (*destroy)(void *value), iso_thread_key_t *key_p);
/* The calling thread's. NULL, or ISO_ERR_INVALID: no thread calls, or there is no such key. */
ISO_API void *iso_thread_value(iso_thread_key_t key);
ISO_API iso_status_t iso_thread_set_value(iso_thread_key_t key, void *value);

/* ---- a switch alone
 * ----------------------------------------------------------------------------- */

/* For runtimes that have threads and a scheduler of their own, on stacks of stack.h or any: what
 * the threads above are switched by, and no more. Nothing is checked, C++'s state of exceptions
 * stays where it is, and AddressSanitizer and Valgrind are the caller's to tell. Not
 * Boost.Context's, because the stack protector's canary has to be switched at the same point as the
 * stack, or the functions around it fail their check in another process, and because unwinders find
 * their way through it.
 *
 * Leaves the stack that the caller is on, whose stack pointer becomes *save, for the one that `to`
 * is the saved pointer of. Returns when somebody switches back: in another process, maybe.
 * Preserves what a call does, and the modes of floating point. Always 0, so that who has nothing
 * more to do can call it last: each function that returns after it does so where the processor did
 * not expect it. */
ISO_API int iso_thread_switch(void **save, void *to);
/* Makes a stack that ends at `end` (an iso_stack_t: at itself) one that waits: who switches to it
 * calls main(arg), which never returns, with the canary and the floating-point modes of who calls
 * this. Takes less than 256 bytes. Returns its stack pointer: what iso_stack_t::sp has to be, if it
 * migrates before. */
ISO_API void *iso_thread_prepare(void *end, void (*main)(void *arg), void *arg);

#ifdef __cplusplus
}
#endif
#endif
