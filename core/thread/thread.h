/*
 * thread.h - what a thread is made of, and what its library's parts say to each other. The public view:
 * isomalloc/thread.h.
 *
 * A user of libisomalloc like any other, by its public headers. A thread lies at the high end of its stack, below the
 * iso_stack_t, and moves with it: nothing in it is one process's but what is marked so, which is void once it has arrived.
 */
#ifndef ISO_CORE_THREAD_THREAD_H
#define ISO_CORE_THREAD_THREAD_H

#include <isomalloc/thread.h>
#include <pthread.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_THREAD_MAGIC UINT64_C(0x64616572687431)

/* What C++'s run time keeps for each thread of the system (Itanium C++ ABI, 2.2.2). */
typedef struct iso_exceptions {
    void *caught; /* the innermost exception that a catch block is at */
    unsigned uncaught;
} iso_exceptions_t;

/* Of a tool that watches, see tool.h. All of it is one process's. */
typedef struct iso_thread_tool {
    void *fake_stack;     /* of the thread, while it waits */
    const void *back_low; /* of the stack that it goes back to */
    size_t back_size;
    uint64_t valgrind; /* 1 + the number that Valgrind has for the stack */
} iso_thread_tool_t;

struct iso_thread {
    uint64_t magic;
    iso_heap_t *heap;
    iso_stack_t *stack;
    iso_thread_fn fn;
    void *arg, *result;
    uint32_t state; /* iso_thread_state_t */
    bool detached;
    iso_status_t moved; /* what its iso_thread_migrate returns */
    iso_thread_t *joiner;
    void *values[ISO_THREAD_KEYS];
    iso_exceptions_t exceptions; /* while it does not run */

    /* One process's: */
    void *back;     /* the stack pointer of who resumed it */
    uint32_t dest;  /* LEAVING: to where */
    uint32_t depth; /* iso_call_depth of who resumed it */
    bool queued;
    iso_thread_t *next, *prev; /* of the scheduler's queue */
    iso_thread_tool_t tool;
};

/* A heap that is on its way from here. */
typedef struct iso_departure {
    struct iso_departure *next;
    iso_heap_t *heap;       /* NULL: it has left, and come back since */
    iso_request_t *request; /* NULL: it is in doubt */
    bool looked_after;      /* somebody is at it, without the lock */
} iso_departure_t;

/* The threads of a job in this process. */
typedef struct iso_threads {
    iso_job_t *job;
    uintptr_t base;
    size_t size; /* of the iso space */
    iso_threads_params_t params;
    bool running; /* iso_threads_run is */
    /* Those that can be resumed, if iso_threads_run is the scheduler. Arrivals may be another thread's of the system. */
    pthread_mutex_t queue_lock;
    iso_thread_t *first, *last;
    size_t ready_count;
    pthread_mutex_t lock; /* of what follows */
    iso_departure_t *departures;
} iso_threads_t;

/* The threads of the job whose space the address lies in; NULL: they are not open. */
iso_threads_t *iso_threads_of(const void *address);
iso_threads_t *iso_threads_of_job(const iso_job_t *job);
iso_threads_t *iso_threads_any(void); /* whose name messages are in */

/* Says why something is refused, as the library does; returns the status. */
iso_status_t iso_thread_refuse(const char *call, const iso_thread_t *thread, const char *why,
                               iso_status_t status);

/* The thread that a stack is of, if it is one's. */
iso_thread_t *iso_thread_of_stack(iso_stack_t *stack);
/* Is it one that may be looked at: in a heap that is here, and not leaving? */
bool iso_thread_is_here(const iso_threads_t *threads, const iso_thread_t *thread);

/* It is READY: the scheduler is told. */
void iso_thread_ready(iso_threads_t *threads, iso_thread_t *thread);
/* It is not the scheduler's any more. */
void iso_thread_unqueue(iso_threads_t *threads, iso_thread_t *thread);

/* What C++'s run time has of this thread of the system, NULL: there is none. */
iso_exceptions_t *iso_exceptions_of_system(void);

/* In a thread: stops it in this state, until it is resumed. */
void iso_thread_stop(iso_thread_t *self, iso_thread_state_t state);
/* The calling thread, if it may stop; else NULL, and *status_p is ISO_ERR_INVALID or ISO_ERR_BUSY, logged in the name of the
 * call. */
iso_thread_t *iso_thread_may_stop(const char *call, iso_status_t *status_p);

/* A thread has asked to leave, and runs no more. ISO_OK: its heap is on its way. Otherwise all is as before. */
iso_status_t iso_thread_leave(iso_threads_t *threads, iso_thread_t *thread);
bool iso_threads_is_leaving(const iso_threads_t *threads, const iso_heap_t *heap);
/* Looks after those that are on their way. */
unsigned iso_threads_look_after(iso_threads_t *threads);
/* A heap of threads has come. */
void iso_threads_arrived(iso_threads_t *threads, iso_heap_t *heap);

/* Its stack begins with its function. */
void iso_thread_begin(iso_thread_t *thread);

/* The destructors of the values that a thread has. */
void iso_thread_destroy_values(iso_thread_t *self);

#ifdef __cplusplus
}
#endif

#endif
