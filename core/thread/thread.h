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
    iso_status_t moved;     /* what its iso_thread_migrate returns */
    iso_thread_t *joiner;   /* waits for its end, if it is still there */
    const void *joiner_low; /* of its stack */
    void *values[ISO_THREAD_KEYS];
    iso_exceptions_t exceptions; /* while it does not run */

    /* One process's: */
    void *back;     /* the stack pointer of who resumed it */
    uint32_t dest;  /* LEAVING: to where */
    uint32_t depth; /* iso_call_depth of who resumed it */
    uint64_t
        here; /* the nonce of the process that takes it for its own; 0: none does. Set last, cleared first */
    uint64_t visit; /* which time it was taken in here */
    uint32_t place; /* in the queue: 0, or 1 + where the queue has it, which the queue checks */
    iso_thread_tool_t tool;
};

/* A heap that is on its way from here. */
typedef struct iso_departure {
    struct iso_departure *next;
    iso_heap_t *heap;       /* NULL: it has left, and come back since */
    iso_request_t *request; /* NULL: it is in doubt */
    bool looked_after;      /* somebody is at it, without the lock */
} iso_departure_t;

/* The threads that can be resumed, if iso_threads_run is the scheduler. None of it lies in a heap: a heap that goes with
 * threads that wait here, destroyed or by iso_migrate, takes nothing of the queue along; they are passed over. */
typedef struct iso_queue {
    pthread_mutex_t lock;   /* arrivals may be another thread's of the system */
    struct iso_queued *all; /* [room]: places, some of them free */
    uint32_t room, count;
    uint32_t first, last; /* who wait: 1 + place; 0: none */
    uint32_t unused;      /* the first of the free ones, the same */
} iso_queue_t;

/* The threads of a job in this process. */
typedef struct iso_threads {
    iso_job_t *job;
    uintptr_t base;
    size_t size; /* of the iso space */
    iso_threads_params_t params;
    bool running; /* iso_threads_run is */
    uint64_t
        nonce; /* of this process, while they are open: what iso_thread_t::here is compared with */
    iso_queue_t queue;
    /* Of what follows; and whoever takes a heap's threads in or sends them away has it: who is taken in cannot leave before
     * all are. Before the queue's. */
    pthread_mutex_t lock;
    iso_departure_t *departures;
    uint64_t visits; /* heaps that were taken in */
} iso_threads_t;

/* The threads of the job whose space the address lies in; NULL: they are not open. */
iso_threads_t *iso_threads_of(const void *address);
iso_threads_t *iso_threads_any(void); /* whose name messages are in */

/* Says why something is refused, as the library does; returns the status. */
iso_status_t iso_thread_refuse(const char *call, const iso_thread_t *thread, const char *why,
                               iso_status_t status);

/* The thread that a stack is of, if it is one's. */
iso_thread_t *iso_thread_of_stack(iso_stack_t *stack);
/* The one that waits for this one's end; NULL: none, or none any more. */
iso_thread_t *iso_thread_joiner(const iso_threads_t *threads, const iso_thread_t *thread);
/* Is it one that may be looked at: was made or taken in here, and has not been sent away or let go since? Its heap
 * may be here before that, while it lands. */
bool iso_thread_is_here(const iso_threads_t *threads, const iso_thread_t *thread);
/* From now on it is; and is not any more. */
static inline void iso_thread_set_here(iso_thread_t *thread, uint64_t nonce)
{
    __atomic_store_n(&thread->here, nonce, __ATOMIC_RELEASE);
}

/* It is READY: the scheduler is told. ISO_ERR_NO_MEMORY, logged: it is not; nothing else changes. */
iso_status_t iso_thread_ready(iso_threads_t *threads, iso_thread_t *thread);

/* Calls the runtime's scheduler: whoever does stays where it is until that returns. */
void iso_thread_tell(const iso_threads_t *threads, iso_thread_t *thread);

/* The queue. Nobody is twice in it. */
void iso_queue_open(iso_queue_t *queue);
void iso_queue_close(iso_queue_t *queue);
/* All of them at once: as soon as one of them can be taken out, none is touched here. ISO_ERR_NO_MEMORY, logged:
 * none. */
iso_status_t iso_queue_push(iso_threads_t *threads, iso_thread_t *const *list, size_t count);
/* Takes it out, if it is in. */
void iso_queue_remove(iso_threads_t *threads, iso_thread_t *thread);
/* The one that has waited longest; NULL: none. */
iso_thread_t *iso_queue_pop(iso_threads_t *threads);

/* What C++'s run time has of this thread of the system; NULL: no such run time is loaded. It is asked anew at each switch. */
iso_exceptions_t *iso_exceptions_of_system(void);

/* In a thread: stops it in this state, until it is resumed. */
void iso_thread_stop(iso_thread_t *self, iso_thread_state_t state);
/* The calling thread, if it may stop; else NULL, and *status_p is ISO_ERR_INVALID or ISO_ERR_BUSY, logged in the name of the
 * call. */
iso_thread_t *iso_thread_may_stop(const char *call, iso_status_t *status_p);

/* A thread has asked to leave, and runs no more. ISO_OK: its heap is on its way. Otherwise all is as before. */
iso_status_t iso_thread_leave(iso_threads_t *threads, iso_thread_t *thread);
/* Looks after those that are on their way. */
unsigned iso_threads_look_after(iso_threads_t *threads);
/* A heap of threads has come. ISO_ERR_NO_MEMORY, logged. */
iso_status_t iso_threads_arrived(iso_threads_t *threads, iso_heap_t *heap);

/* The end of its memory. */
void iso_thread_gone(iso_thread_t *thread);

/* Its stack begins with its function. */
void iso_thread_begin(iso_thread_t *thread);

/* The destructors of the values that a thread has. */
void iso_thread_destroy_values(iso_thread_t *self);

#ifdef __cplusplus
}
#endif

#endif
