/*
 * threads.c - Converse's threads, on top of libisomalloc-thread. See <isomalloc/converse.h>.
 *
 * Converse switches from any thread to any other, libisomalloc-thread only between a thread and who has resumed it. So
 * a thread that names its successor is suspended, and `run`, which is never on a thread's stack, resumes that one. Each thread is
 * resumed once when it is made, and suspends itself: so that those that wait to be awakened are all alike.
 *
 * What is static here is this process's.
 */
#include "core/converse/job.h"
#include <isomalloc/converse.h>
#include <isomalloc/thread.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a thread begins with: a block of its heap. */
typedef struct start {
    CthVoidFn fn;
    void *arg;
} start_t;

/* Their names, for messages; and of a thread whose context was made for it, and goes with it, this is how that is known wherever
 * it ends. */
static const char name_with_own[] = "a thread of Converse's, with its context";
static const char name_in_other[] = "a thread of Converse's";

static char main_thread; /* its address stands for what runs outside of any thread */

/* One that was awakened. It may leave with another one of its context, or end with that, before its turn: what tells is the
 * stack. */
typedef struct queued {
    iso_thread_t *thread;
    const iso_stack_t *stack;
    const void *low; /* of the stack */
} queued_t;

static struct {
    bool open;
    queued_t *queue; /* a ring */
    size_t first, count, room;
    iso_thread_t *next; /* named by the one that stops */
    bool main_awakened;
    bool main_resumed;    /* named by the one that stops */
    bool runner_awakened; /* the thread that runs, by itself or by who it has called */
} threads;

static pthread_mutex_t queue_lock =
    PTHREAD_MUTEX_INITIALIZER;           /* arrivals may be in a thread of the library's */
static _Thread_local bool ignores_ready; /* the thread is resumed at once, and not by the queue */

static void say(const char *call, const char *why)
{
    fprintf(stderr, "%s: %s\n", call, why);
}

static CthThread name_of(iso_thread_t *thread)
{
    return (CthThread)thread;
}

static iso_thread_t *thread_of(CthThread thread)
{
    return thread == (CthThread)(void *)&main_thread ? NULL : (iso_thread_t *)thread;
}

/* ---- the queue ------------------------------------------------------------------------------------ */

static bool make_room(void)
{
    const size_t room = 2 * threads.room + 64;
    queued_t *queue = malloc(room * sizeof *queue);
    if (!queue)
        return false;
    for (size_t i = 0; i < threads.count; i++)
        queue[i] = threads.queue[(threads.first + i) % threads.room];
    free(threads.queue);
    threads.queue = queue;
    threads.room = room;
    threads.first = 0;
    return true;
}

static void push(iso_thread_t *thread)
{
    pthread_mutex_lock(&queue_lock);
    if (threads.count == threads.room && !make_room()) {
        say("CthAwaken", "no memory for the queue of threads");
        abort();
    }
    const iso_stack_t *stack = iso_thread_stack(thread);
    threads.queue[(threads.first + threads.count++) % threads.room] =
        (queued_t){thread, stack, stack->low};
    pthread_mutex_unlock(&queue_lock);
}

static size_t queue_length(void)
{
    pthread_mutex_lock(&queue_lock);
    const size_t count = threads.count;
    pthread_mutex_unlock(&queue_lock);
    return count;
}

/* NULL: there was none, or its turn is no more. */
static iso_thread_t *pop(void)
{
    queued_t first = {.thread = NULL};
    pthread_mutex_lock(&queue_lock);
    if (threads.count > 0) {
        first = threads.queue[threads.first];
        threads.first = (threads.first + 1) % threads.room;
        threads.count--;
    }
    pthread_mutex_unlock(&queue_lock);
    const bool is_there = first.thread && iso_stack_find(first.low) == first.stack;
    return is_there && iso_thread_state(first.thread) == ISO_THREAD_READY ? first.thread : NULL;
}

static void on_ready(iso_thread_t *thread, void *arg)
{
    (void)arg;
    if (!ignores_ready)
        push(thread);
}

/* Whoever wants threads opens the job's: who makes one, unpacks one, or runs those that come. */
static bool are_open(iso_job_t *job)
{
    const iso_threads_params_t params = {.struct_size = sizeof params, .ready = on_ready};
    if (!threads.open && job)
        threads.open = iso_threads_open(job, &params) == ISO_OK;
    return threads.open;
}

/* ---- switching, outside of any thread --------------------------------------------------------------- */

static void run(iso_thread_t *thread)
{
    while (thread) {
        iso_thread_state_t state;
        iso_heap_t *heap = iso_thread_heap(thread);
        const bool has_own = strcmp(iso_thread_name(thread), name_with_own) == 0;
        threads.next = NULL;
        threads.runner_awakened = false;
        if (iso_thread_resume(thread, &state) != ISO_OK)
            return; /* a line has said why */
        if (state == ISO_THREAD_READY)
            push(thread);
        if (state == ISO_THREAD_FINISHED && has_own)
            CmiIsomallocContextDelete((CmiIsomallocContext){heap});
        thread = threads.next;
    }
}

/* In a thread. Who has been awakened since it was resumed does not wait. */
static void stop(void)
{
    if (threads.runner_awakened)
        iso_thread_yield();
    else
        iso_thread_suspend();
}

static bool awaken(iso_thread_t *thread, bool at_once)
{
    ignores_ready = at_once;
    const iso_status_t status = iso_thread_awaken(thread);
    ignores_ready = false;
    return status == ISO_OK;
}

static void *begin(void *arg)
{
    const start_t start = *(start_t *)arg;
    iso_free(arg);
    iso_thread_suspend(); /* see above */
    start.fn(start.arg);
    return NULL;
}

/* ---- Converse's -------------------------------------------------------------------------------------- */

int CthMigratable(void)
{
    return 1;
}

CthThread CthSelf(void)
{
    iso_thread_t *thread = iso_thread_self();
    return thread ? name_of(thread) : (CthThread)(void *)&main_thread;
}

CmiIsomallocContext CmiIsomallocGetThreadContext(CthThread th)
{
    iso_thread_t *thread = thread_of(th);
    return (CmiIsomallocContext){thread ? iso_heap_of(thread) : NULL};
}

static iso_thread_t *create(CthVoidFn fn, void *arg, int size, iso_heap_t *heap, bool own_heap)
{
    const iso_thread_attr_t attr = {.struct_size = sizeof attr,
                                    .stack_size = (size_t)size,
                                    .name = own_heap ? name_with_own : name_in_other,
                                    .detached = true};
    iso_thread_t *thread = NULL;
    start_t *start = iso_malloc(heap, sizeof *start);
    if (!start)
        return NULL;
    *start = (start_t){fn, arg};
    ignores_ready = true;
    const iso_status_t status = iso_thread_create(heap, begin, start, &attr, &thread);
    ignores_ready = false;
    if (status != ISO_OK) {
        iso_free(start);
        return NULL;
    }
    iso_thread_resume(thread, NULL); /* up to where it suspends itself */
    return thread;
}

CthThread CthCreateMigratable(CthVoidFn fn, void *arg, int size, CmiIsomallocContext ctx)
{
    if (size < 0) {
        say("CthCreateMigratable", "the size of the stack is negative: give bytes, or 0");
        return NULL;
    }
    if (!are_open(iso_converse_job()))
        return NULL;
    CmiIsomallocContext context = ctx.opaque ? ctx : CmiIsomallocContextCreate(0, 0);
    if (!context.opaque)
        return NULL;
    iso_thread_t *thread = create(fn, arg, size, context.opaque, !ctx.opaque);
    if (!thread && !ctx.opaque)
        CmiIsomallocContextDelete(context);
    return thread ? name_of(thread) : NULL;
}

void CthAwaken(CthThread th)
{
    iso_thread_t *thread = thread_of(th);
    if (!thread)
        threads.main_awakened = true;
    else if (thread == iso_thread_self())
        threads.runner_awakened = true;                    /* it has not stopped yet */
    else if (iso_thread_state(thread) != ISO_THREAD_READY) /* else it is in the queue */
        awaken(thread, false);
}

void CthResume(CthThread th)
{
    iso_thread_t *thread = thread_of(th);
    if (thread && iso_thread_state(thread) != ISO_THREAD_SUSPENDED) {
        say("CthResume", "the thread is not suspended: it runs, was awakened, or is not here");
        return;
    }
    if (thread && !awaken(thread, true))
        return;
    if (!iso_thread_self()) {
        run(thread);
        return;
    }
    threads.next = thread;
    threads.main_resumed = !thread;
    stop();
}

/* Also at a rank where no thread was made: their heaps have waited. If the program has opened the threads itself, that is said
 * once. */
static void take_in_those_that_come(void)
{
    static bool tried;
    if (threads.open || tried)
        return;
    iso_job_t *job = iso_converse_job();
    tried = job;
    are_open(job);
}

static void make_progress(double seconds)
{
    iso_job_t *job = iso_converse_job();
    if (job && iso_threads_progress(job) == 0 && seconds > 0 && queue_length() == 0)
        iso_progress_wait(job, seconds);
}

void CthSuspend(void)
{
    if (iso_thread_self()) {
        stop();
        return;
    }
    take_in_those_that_come();
    threads.main_resumed = false;
    while (!threads.main_awakened && !threads.main_resumed) {
        run(pop());
        make_progress(threads.main_awakened || threads.main_resumed ? 0 : 0.1);
    }
    threads.main_awakened = false;
}

void CthYield(void)
{
    if (iso_thread_self()) {
        iso_thread_yield();
        return;
    }
    take_in_those_that_come();
    threads.main_resumed = false;
    for (size_t count = queue_length(); count > 0 && !threads.main_resumed; count--)
        run(pop()); /* who is awakened meanwhile waits */
    make_progress(0);
}

void iso_converse_take_back(iso_heap_t *heap)
{
    if (threads.open)
        iso_threads_take_in(heap);
}

void iso_converse_end_threads(iso_job_t *job)
{
    if (threads.open)
        iso_threads_close(job);
}

static bool is_suspended(iso_thread_t *thread, void *arg)
{
    bool *all = arg;
    return *all = iso_thread_state(thread) == ISO_THREAD_SUSPENDED;
}

static bool are_suspended(const iso_heap_t *heap)
{
    bool all = true;
    iso_thread_walk(heap, is_suspended, &all);
    return all;
}

CthThread CthPup(pup_er p, CthThread th)
{
    CmiIsomallocContext context = {NULL};
    iso_thread_t *thread = pup_isUnpacking(p) ? NULL : thread_of(th);
    const bool leaves = pup_isPacking(p) && (pup_isDeleting(p) || pup_isMigration(p));
    if (iso_pup_is_gone(p)) {
        CmiIsomallocContextPup(p, &context);
        return NULL;
    }
    if (!pup_isUnpacking(p) && !thread) {
        say("CthPup", "what runs outside of any thread cannot be packed");
        iso_pup_fail(p, ISO_ERR_INVALID);
        return th;
    }
    if (thread)
        context = (CmiIsomallocContext){iso_heap_of(thread)};
    const bool here = context.opaque && iso_heap_state(context.opaque) == ISO_HEAP_OWNED;
    if (thread && !here) {
        say("CthPup", "the thread is not at this rank");
        iso_pup_fail(p, ISO_ERR_NOT_OWNER);
        return th;
    }
    if (here && !are_suspended(context.opaque)) {
        say("CthPup", "a thread of the context is not suspended: it runs, or was awakened");
        iso_pup_fail(p, ISO_ERR_BUSY);
        return th;
    }
    if (here && leaves && iso_threads_let_go(context.opaque) != ISO_OK) {
        iso_pup_fail(p, ISO_ERR_BUSY);
        return th;
    }
    void *address = thread;
    pup_pointer(p, &address);
    CmiIsomallocContextPup(p, &context);
    if (iso_pup_status(p) != ISO_OK) {
        if (here && leaves)
            iso_threads_take_in(iso_heap_of(thread));
        return th;
    }
    if (pup_isUnpacking(p) && are_open(iso_converse_job()))
        iso_threads_take_in(context.opaque);
    return pup_isDeleting(p) ? NULL : (CthThread)address;
}
