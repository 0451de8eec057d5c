/*
 * threads.c - Converse's threads, on top of libisomalloc-thread. See <isomalloc/converse.h>.
 *
 * Converse switches from any thread to any other, libisomalloc-thread only between a thread and who has resumed it. So
 * a thread that names its successor stops, and `run`, which is never on a thread's stack, resumes that one. Each thread is
 * resumed once when it is made, and suspends itself: so that those that wait to be awakened are all alike. The queue of those
 * that can be resumed is the library's, which knows of threads that have left, or are gone.
 *
 * What is static here is this process's; what a thread has to keep, wherever it goes, is in values of its own.
 */
#include "core/converse/job.h"
#include <isomalloc/converse.h>
#include <isomalloc/thread.h>
#include <stdio.h>

/* What a thread begins with: a block of its heap. */
typedef struct start {
    CthVoidFn fn;
    void *arg;
    bool own_heap; /* made for it, goes with it */
} start_t;

static char main_thread; /* its address stands for what runs outside of any thread */

static struct {
    bool open, tried, has_keys; /* tried: to open them, for those that come */
    iso_thread_key_t awakened;  /* not NULL: it was awakened before it stops */
    iso_thread_key_t own_heap;  /* the heap that goes with it */
    iso_thread_t *next;         /* named by the one that stops */
    bool to_main;               /* the one that stops has named the outside */
    bool main_awakened;
    iso_heap_t *finished; /* of the thread that ends, if it goes with it */
} threads = {.awakened = ISO_THREAD_KEYS, .own_heap = ISO_THREAD_KEYS}; /* no keys */

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

/* In the thread, as the last that it does, however it ends: keys that the program has made come before this one. */
static void leave_heap(void *heap)
{
    threads.finished = heap;
}

static bool have_keys(void)
{
    if (!threads.has_keys)
        threads.has_keys = iso_thread_key_create(NULL, &threads.awakened) == ISO_OK &&
                           iso_thread_key_create(leave_heap, &threads.own_heap) == ISO_OK;
    if (!threads.has_keys)
        say("CthCreateMigratable", "the program has made all keys of iso_thread_key_create: two "
                                   "are wanted for Converse's threads");
    return threads.has_keys;
}

/* Whoever wants threads opens the job's: who makes one, unpacks one, or runs those that come. */
static bool are_open(iso_job_t *job)
{
    if (!threads.open && job)
        threads.open = have_keys() && iso_threads_open(job, NULL) == ISO_OK;
    return threads.open;
}

/* ---- switching, outside of any thread --------------------------------------------------------------- */

/* It, and after it who is named by the one before. true: the last one has named the outside. */
static bool run(iso_thread_t *thread)
{
    iso_thread_state_t state;
    threads.to_main = false;
    while (thread) {
        threads.next = NULL;
        threads.finished = NULL;
        if (iso_thread_resume(thread, &state) != ISO_OK)
            break; /* a line has said why */
        if (state == ISO_THREAD_FINISHED && threads.finished)
            CmiIsomallocContextDelete((CmiIsomallocContext){threads.finished});
        thread = threads.next;
    }
    return threads.to_main;
}

static void *begin(void *arg)
{
    const start_t start = *(start_t *)arg;
    iso_free(arg);
    if (start.own_heap)
        iso_thread_set_value(threads.own_heap, iso_thread_heap(iso_thread_self()));
    iso_thread_suspend(); /* see above */
    start.fn(start.arg);
    return NULL;
}

/* ---- switching, in a thread --------------------------------------------------------------------------- */

/* Who is `ready`, or was awakened before it stops, goes on in its turn. It may go on in another process. */
static iso_status_t stop(bool ready)
{
    if (iso_thread_value(threads.awakened)) {
        iso_thread_set_value(threads.awakened, NULL);
        ready = true;
    }
    return ready ? iso_thread_yield() : iso_thread_suspend();
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
    const iso_thread_attr_t attr = {
        .struct_size = sizeof attr, .stack_size = (size_t)size, .detached = true};
    iso_thread_t *thread = NULL;
    start_t *start = iso_malloc(heap, sizeof *start);
    if (!start)
        return NULL;
    *start = (start_t){fn, arg, own_heap};
    if (iso_thread_create(heap, begin, start, &attr, &thread) != ISO_OK) {
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
    if (!thread) {
        threads.main_awakened = true;
    } else if (thread == iso_thread_self()) { /* it has not stopped yet */
        if (iso_thread_set_value(threads.awakened, thread) != ISO_OK)
            say("CthAwaken", "the caller's thread is none of Converse's: use thread.h's calls");
    } else if (iso_thread_state(thread) != ISO_THREAD_READY) { /* else it is in the queue */
        iso_thread_awaken(thread);
    }
}

void CthResume(CthThread th)
{
    iso_thread_t *thread = thread_of(th);
    if (thread && iso_thread_state(thread) != ISO_THREAD_SUSPENDED) {
        say("CthResume", "the thread is not suspended: it runs, was awakened, or is not here");
        return;
    }
    if (thread && iso_thread_awaken(thread) != ISO_OK)
        return;
    if (!iso_thread_self()) {
        run(thread);
        return;
    }
    threads.next = thread;
    threads.to_main = !thread;
    if (stop(false) != ISO_OK) { /* it goes on: a line has said why */
        threads.next = NULL;
        threads.to_main = false;
    }
}

/* Also at a rank where no thread was made: the heaps of those that come have waited. If the program has opened the threads itself, that
 * is said once. */
static iso_job_t *take_in_those_that_come(void)
{
    iso_job_t *job = iso_converse_job();
    if (!threads.tried && job) {
        threads.tried = true;
        are_open(job);
    }
    return job;
}

static void make_progress(iso_job_t *job, double seconds)
{
    if (job && iso_threads_progress(job) == 0 && seconds > 0 && iso_threads_waiting(job) == 0)
        iso_progress_wait(job, seconds);
}

void CthSuspend(void)
{
    if (iso_thread_self()) {
        stop(false);
        return;
    }
    iso_job_t *job = take_in_those_that_come();
    while (!threads.main_awakened && !run(iso_threads_next(job)))
        make_progress(job, threads.main_awakened ? 0 : 0.1);
    threads.main_awakened = false;
}

void CthYield(void)
{
    if (iso_thread_self()) {
        stop(true);
        return;
    }
    iso_job_t *job = take_in_those_that_come();
    for (uint32_t count = iso_threads_waiting(job); count > 0; count--) /* later ones wait */
        if (run(iso_threads_next(job)))
            return;
    make_progress(job, 0);
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

void iso_converse_forget_threads(void)
{
    threads.open = threads.tried = false; /* keys are the process's */
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
