/*
 * switching.c - threads that run, stop and go on: resume, yield, suspend, exit, and who the caller is.
 *
 * What is the system's thread's is read, in a thread, by functions that the compiler cannot merge into these: none of them has
 * an address of it on the stack when it switches. Who resumes may have one. What C++ keeps for each of the system's threads is exchanged by
 * who resumes, around the switch.
 */
#include "core/thread/thread.h"
#include "core/thread/tool.h"
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#define ALTERNATE_STACK ((size_t)64 << 10)

/* Of a thread of the system. */
typedef struct system_thread {
    iso_thread_t *current;
    bool prepared;   /* it can tell of an overflow */
    unsigned called; /* how many of the runtime's callbacks, by this library, it is inside of */
} system_thread_t;

static __thread system_thread_t system_thread __attribute__((tls_model("initial-exec")));

__attribute__((noinline)) iso_thread_t *iso_thread_self(void)
{
    __asm__ volatile("");
    return system_thread.current;
}

/* ---- an alternate signal stack, without which nobody could say that a stack is used up ---- */

static pthread_key_t alternate_key;

static void drop_alternate(void *stack)
{
    stack_t now, none = {.ss_flags = SS_DISABLE};
    if (sigaltstack(NULL, &now) == 0 &&
        now.ss_sp == stack) /* else the program has put its own there */
        sigaltstack(&none, NULL);
    munmap(stack, ALTERNATE_STACK);
}

static void make_key(void)
{
    pthread_key_create(&alternate_key, drop_alternate);
}

static __attribute__((noinline)) void prepare(system_thread_t *of)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    stack_t now;
    of->prepared = true;
    if (sigaltstack(NULL, &now) != 0 || !(now.ss_flags & SS_DISABLE))
        return;
    pthread_once(&once, make_key);
    void *stack =
        mmap(NULL, ALTERNATE_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED)
        return; /* an overflow ends the process, all the same */
    stack_t alternate = {.ss_sp = stack, .ss_size = ALTERNATE_STACK};
    if (pthread_setspecific(alternate_key, stack) == 0 && sigaltstack(&alternate, NULL) == 0)
        return;
    pthread_setspecific(alternate_key, NULL); /* it is unmapped once */
    munmap(stack, ALTERNATE_STACK);
}

/* ---- to a thread ---- */

/* Runs it until it stops. */
static inline iso_thread_state_t run(iso_thread_t *thread)
{
    system_thread_t *of = &system_thread; /* who resumes stays in its thread of the system */
    iso_exceptions_t *exceptions = iso_exceptions_of_system(), kept = {.caught = NULL};
    iso_thread_t *before = of->current;
    void *kept_stack = NULL;
    if (!of->prepared)
        prepare(of);
    of->current = thread;
    thread->state = ISO_THREAD_RUNNING;
    thread->depth = iso_call_depth() + of->called;
    if (exceptions) {
        kept = *exceptions;
        *exceptions = thread->exceptions;
    }
    if (iso_tool_watches)
        iso_tool_resume(thread, &kept_stack);
    void *to = thread->stack->sp;
    /* until it stops: its heap stays. Read by whoever would send that away, in whatever thread of the system */
    __atomic_store_n(&thread->stack->sp, ISO_STACK_RUNS, __ATOMIC_RELAXED);
    iso_thread_switch(&thread->back, to);
    if (iso_tool_watches)
        iso_tool_resumed(kept_stack);
    if (!exceptions)
        exceptions = iso_exceptions_of_system(); /* the thread may have loaded the run time */
    if (exceptions) {
        thread->exceptions = *exceptions;
        *exceptions = kept;
    }
    of->current = before;
    return thread->state;
}

static void finish(iso_threads_t *threads, iso_thread_t *thread)
{
    iso_thread_t *joiner = iso_thread_joiner(threads, thread);
    iso_tool_gone(thread);
    if (thread->detached) {
        iso_thread_gone(thread);
    } else if (joiner && joiner->state == ISO_THREAD_SUSPENDED) {
        joiner->state = ISO_THREAD_READY;
        iso_thread_ready(threads, joiner);
    }
}

static iso_status_t refuse_resume(const iso_threads_t *threads, const iso_thread_t *thread)
{
    static const char call[] = "iso_thread_resume";
    if (!threads || !iso_thread_is_here(threads, thread))
        return iso_thread_refuse(call, thread, "it is not at this rank, or its heap is leaving",
                                 ISO_ERR_NOT_OWNER);
    if (thread->state == ISO_THREAD_FINISHED)
        return iso_thread_refuse(call, thread, "it has finished", ISO_ERR_INVALID);
    return iso_thread_refuse(
        call, thread, thread->state == ISO_THREAD_RUNNING ? "it runs" : "it waits", ISO_ERR_BUSY);
}

iso_status_t iso_thread_resume(iso_thread_t *thread, iso_thread_state_t *state_p)
{
    iso_threads_t *threads = iso_threads_of(thread);
    if (!threads || !iso_thread_is_here(threads, thread) || thread->state != ISO_THREAD_READY)
        return refuse_resume(threads, thread);
    if (thread->place)
        iso_queue_remove(threads, thread);
    iso_thread_state_t state = run(thread);
    while (state == ISO_THREAD_LEAVING) {
        iso_status_t status = iso_thread_leave(threads, thread);
        if (status == ISO_OK)
            break;
        thread->moved = status; /* it stays, and hears why */
        state = run(thread);
    }
    if (state == ISO_THREAD_READY && !threads->params.ready)
        iso_thread_ready(threads, thread);
    else if (state == ISO_THREAD_FINISHED)
        finish(threads, thread);
    if (state_p)
        *state_p = state;
    return ISO_OK;
}

/* ---- from a thread ---- */

/* In its own function: the thread may go on in another process, and another thread of the system. */
static __attribute__((noinline)) iso_status_t stop_watched(iso_thread_t *self, bool last)
{
    iso_tool_stop(self, last);
    iso_thread_switch(&self->stack->sp, self->back);
    iso_tool_go_on(self);
    return ISO_OK;
}

static inline iso_status_t stop(iso_thread_t *self, iso_thread_state_t state, bool last)
{
    self->state = state;
    if (iso_tool_watches)
        return stop_watched(self, last);
    return (iso_status_t)iso_thread_switch(&self->stack->sp, self->back);
}

void iso_thread_stop(iso_thread_t *self, iso_thread_state_t state)
{
    stop(self, state, false);
}

iso_thread_t *iso_thread_may_stop(const char *call, iso_status_t *status_p)
{
    iso_thread_t *self = iso_thread_self();
    if (!self) {
        *status_p = iso_thread_refuse(call, NULL, "the caller is no thread of this library's",
                                      ISO_ERR_INVALID);
        return NULL;
    }
    if (iso_call_depth() + system_thread.called == self->depth)
        return self;
    *status_p = iso_thread_refuse(call, self,
                                  "it is inside of a call of the library: in a callback (which an "
                                  "exception must not leave), or it has a lock of a heap's",
                                  ISO_ERR_BUSY);
    return NULL;
}

void iso_thread_tell(const iso_threads_t *threads, iso_thread_t *thread)
{
    system_thread_t *of = &system_thread; /* who is called stays in it */
    of->called++;
    threads->params.ready(thread, threads->params.arg);
    of->called--;
}

iso_status_t iso_thread_yield(void)
{
    iso_status_t status;
    iso_thread_t *self = iso_thread_may_stop("iso_thread_yield", &status);
    return self ? stop(self, ISO_THREAD_READY, false) : status;
}

iso_status_t iso_thread_suspend(void)
{
    iso_status_t status;
    iso_thread_t *self = iso_thread_may_stop("iso_thread_suspend", &status);
    return self ? stop(self, ISO_THREAD_SUSPENDED, false) : status;
}

static void end(iso_thread_t *self, void *result)
{
    iso_thread_destroy_values(self);
    self->result = result;
    stop(self, ISO_THREAD_FINISHED, true);
    __builtin_trap(); /* nobody resumes what has finished */
}

void iso_thread_exit(void *result)
{
    iso_status_t status;
    iso_thread_t *self = iso_thread_may_stop("iso_thread_exit", &status);
    if (!self)
        __builtin_trap(); /* there is nothing to go back to; the reason has been said */
    end(self, result);
    __builtin_unreachable();
}

/* The first function on a thread's stack. */
static void begin(void *arg)
{
    iso_thread_t *self = arg;
    if (iso_tool_watches)
        iso_tool_begin(self);
    end(self, self->fn(self->arg));
}

void iso_thread_begin(iso_thread_t *thread)
{
    thread->stack->sp = iso_thread_prepare(thread, begin, thread);
}
