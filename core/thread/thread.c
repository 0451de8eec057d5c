/* thread.c - a thread from outside: made, looked at, awakened, joined; and the values that it has. */
#include "core/thread/thread.h"
#include "core/thread/tool.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_STACK ((size_t)256 << 10)

iso_status_t iso_thread_refuse(const char *call, const iso_thread_t *thread, const char *why,
                               iso_status_t status)
{
    char line[512], which[48] = "", rank[12] = "?";
    const iso_threads_t *threads = iso_threads_any();
    if (threads)
        snprintf(rank, sizeof rank, "%u", (unsigned)iso_rank(threads->job));
    if (thread)
        snprintf(which, sizeof which, " of thread %p", (const void *)thread);
    int length =
        snprintf(line, sizeof line, "[%s] isomalloc: ERROR %s%s: %s\n", rank, call, which, why);
    int kept = errno;
    if (write(STDERR_FILENO, line, (size_t)length) < 0)
        errno = kept; /* nobody listens */
    errno = kept;
    return status;
}

/* ---- made ---- */

iso_status_t iso_thread_create(iso_heap_t *heap, iso_thread_fn fn, void *arg,
                               const iso_thread_attr_t *attr, iso_thread_t **thread_p)
{
    iso_threads_t *threads = iso_threads_of(heap);
    iso_thread_attr_t plain = {.struct_size = sizeof plain};
    if (!attr)
        attr = &plain;
    if (!threads)
        return iso_thread_refuse("iso_thread_create", NULL,
                                 "iso_threads_open was not called for the heap's job",
                                 ISO_ERR_INVALID);
    if (attr->struct_size != sizeof *attr)
        return iso_thread_refuse("iso_thread_create", NULL,
                                 "its attributes are of another size: of another version?",
                                 ISO_ERR_INVALID);
    size_t size = attr->stack_size ? attr->stack_size : DEFAULT_STACK;
    if (size < 4096)
        return iso_thread_refuse("iso_thread_create", NULL,
                                 "a stack of less than 4096 bytes is too small", ISO_ERR_INVALID);
    /* the thread itself is at its end */
    size_t own = (sizeof(iso_thread_t) + 63) & ~(size_t)63;
    iso_stack_t *stack = iso_stack_create(heap, size + own, attr->name);
    if (!stack)
        return errno == EINVAL ? ISO_ERR_INVALID : ISO_ERR_NO_SPACE;
    iso_thread_t *thread = (iso_thread_t *)((char *)stack - own);
    memset(thread, 0, sizeof *thread);
    thread->magic = ISO_THREAD_MAGIC;
    thread->heap = heap;
    thread->stack = stack;
    thread->fn = fn;
    thread->arg = arg;
    thread->detached = attr->detached;
    iso_thread_begin(thread);
    iso_tool_new(thread);
    iso_thread_set_here(thread, threads->nonce);
    iso_status_t status = iso_thread_ready(threads, thread);
    if (status != ISO_OK) {
        iso_tool_gone(thread);
        iso_thread_gone(thread);
        return status;
    }
    *thread_p = thread;
    return ISO_OK;
}

void iso_thread_gone(iso_thread_t *thread)
{
    iso_thread_set_here(thread, 0);
    thread->magic = 0;
    iso_stack_destroy(thread->stack);
}

/* ---- looked at ---- */

iso_thread_t *iso_thread_of_stack(iso_stack_t *stack)
{
    iso_thread_t *thread =
        (iso_thread_t *)((char *)stack - ((sizeof(iso_thread_t) + 63) & ~(size_t)63));
    return thread->magic == ISO_THREAD_MAGIC && thread->stack == stack ? thread : NULL;
}

/* Asked of any heap at any time: of one that comes or goes meanwhile, in another thread of the system, what is read here is not to be
 * used yet, or any more, and AddressSanitizer says so. It is there, and what it says counts only if the heap is this rank's after it. */
__attribute__((no_sanitize("address"))) bool iso_thread_is_here(const iso_threads_t *threads,
                                                                const iso_thread_t *thread)
{
    const iso_heap_t *heap = iso_heap_of(thread);
    return heap && __atomic_load_n(&thread->here, __ATOMIC_ACQUIRE) == threads->nonce &&
           thread->magic == ISO_THREAD_MAGIC && thread->heap == heap &&
           iso_heap_state(heap) == ISO_HEAP_OWNED;
}

iso_thread_state_t iso_thread_state(const iso_thread_t *thread)
{
    const iso_threads_t *threads = iso_threads_of(thread);
    return threads && iso_thread_is_here(threads, thread) ? (iso_thread_state_t)thread->state
                                                          : ISO_THREAD_LEAVING;
}

iso_heap_t *iso_thread_heap(const iso_thread_t *thread)
{
    return thread->heap;
}

iso_stack_t *iso_thread_stack(const iso_thread_t *thread)
{
    return thread->stack;
}

const char *iso_thread_name(const iso_thread_t *thread)
{
    return thread->stack->name;
}

typedef struct walk {
    iso_thread_walk_fn fn;
    void *arg;
} walk_t;

static bool walk_stack(iso_stack_t *stack, void *arg)
{
    const walk_t *walk = arg;
    iso_thread_t *thread = iso_thread_of_stack(stack);
    return !thread || walk->fn(thread, walk->arg);
}

iso_status_t iso_thread_walk(const iso_heap_t *heap, iso_thread_walk_fn fn, void *arg)
{
    walk_t walk = {fn, arg};
    return iso_stack_walk(heap, walk_stack, &walk);
}

/* ---- awakened, joined ---- */

iso_status_t iso_thread_awaken(iso_thread_t *thread)
{
    iso_threads_t *threads = iso_threads_of(thread);
    if (!threads || !iso_thread_is_here(threads, thread))
        return iso_thread_refuse("iso_thread_awaken", thread,
                                 "it is not at this rank, or its heap is leaving",
                                 ISO_ERR_NOT_OWNER);
    if (thread->state != ISO_THREAD_SUSPENDED)
        return ISO_ERR_INVALID;
    thread->state = ISO_THREAD_READY;
    iso_status_t status = iso_thread_ready(threads, thread);
    if (status != ISO_OK)
        thread->state = ISO_THREAD_SUSPENDED;
    return status;
}

static bool has_stopped_or_left(void *arg)
{
    iso_thread_state_t state = iso_thread_state(arg);
    return state == ISO_THREAD_FINISHED || state == ISO_THREAD_LEAVING;
}

static const char waited_for[] = "another one waits for it";

iso_thread_t *iso_thread_joiner(const iso_threads_t *threads, const iso_thread_t *thread)
{
    iso_stack_t *stack = thread->joiner ? iso_stack_find(thread->joiner_low) : NULL;
    iso_thread_t *joiner = stack ? iso_thread_of_stack(stack) : NULL;
    return joiner == thread->joiner && joiner && iso_thread_is_here(threads, joiner) ? joiner
                                                                                     : NULL;
}

/* Does somebody else wait for its end? It is that one's, also when it has come. */
static bool is_anothers(const iso_threads_t *threads, const iso_thread_t *thread,
                        const iso_thread_t *self)
{
    const iso_thread_t *joiner = iso_thread_joiner(threads, thread);
    return joiner && joiner != self;
}

/* From a thread of the same heap: they move together. */
static iso_status_t wait_inside(iso_thread_t *self, iso_thread_t *thread)
{
    static const char call[] = "iso_thread_join";
    if (thread->heap != self->heap || thread == self)
        return iso_thread_refuse(call, thread,
                                 "a thread joins others of its own heap, which move with it",
                                 ISO_ERR_INVALID);
    thread->joiner = self;
    thread->joiner_low = self->stack->low;
    while (thread->state != ISO_THREAD_FINISHED) /* somebody else may awaken the one that waits */
        iso_thread_stop(self, ISO_THREAD_SUSPENDED);
    return ISO_OK;
}

iso_status_t iso_thread_join(iso_thread_t *thread, void **result_p)
{
    static const char call[] = "iso_thread_join";
    iso_threads_t *threads = iso_threads_of(thread);
    iso_thread_t *self = iso_thread_self();
    iso_status_t status = ISO_OK;
    if (!threads || !iso_thread_is_here(threads, thread))
        return iso_thread_refuse(call, thread, "it is not at this rank, or its heap is leaving",
                                 ISO_ERR_NOT_OWNER);
    if (thread->detached)
        return iso_thread_refuse(call, thread, "it is detached", ISO_ERR_INVALID);
    if (is_anothers(threads, thread, self))
        return iso_thread_refuse(call, thread, waited_for, ISO_ERR_BUSY);
    if (thread->state != ISO_THREAD_FINISHED) {
        if (self && !iso_thread_may_stop(call, &status))
            return status;
        status = self ? wait_inside(self, thread)
                      : iso_threads_run(threads->job, has_stopped_or_left, thread);
        if (status != ISO_OK)
            return status;
        if (!self && iso_thread_state(thread) != ISO_THREAD_FINISHED)
            return iso_thread_refuse(call, thread, "it has left, or another one has joined it",
                                     ISO_ERR_NOT_OWNER);
        if (is_anothers(threads, thread, self)) /* since then */
            return iso_thread_refuse(call, thread, waited_for, ISO_ERR_BUSY);
    }
    if (result_p)
        *result_p = thread->result;
    iso_thread_gone(thread);
    return ISO_OK;
}

/* ---- values ---- */

static pthread_mutex_t key_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t key_count;
static void (*destroy_of[ISO_THREAD_KEYS])(void *value);

iso_status_t iso_thread_key_create(void (*destroy)(void *value), iso_thread_key_t *key_p)
{
    iso_status_t status = ISO_ERR_LIMIT;
    pthread_mutex_lock(&key_lock);
    if (key_count < ISO_THREAD_KEYS) {
        destroy_of[key_count] = destroy;
        *key_p = key_count++;
        status = ISO_OK;
    }
    pthread_mutex_unlock(&key_lock);
    return status;
}

static bool is_key(iso_thread_key_t key)
{
    pthread_mutex_lock(&key_lock);
    bool is = key < key_count;
    pthread_mutex_unlock(&key_lock);
    return is;
}

void *iso_thread_value(iso_thread_key_t key)
{
    const iso_thread_t *self = iso_thread_self();
    return self && key < ISO_THREAD_KEYS ? self->values[key] : NULL;
}

iso_status_t iso_thread_set_value(iso_thread_key_t key, void *value)
{
    iso_thread_t *self = iso_thread_self();
    if (!self || !is_key(key))
        return ISO_ERR_INVALID;
    self->values[key] = value;
    return ISO_OK;
}

void iso_thread_destroy_values(iso_thread_t *self)
{
    for (uint32_t key = 0; key < ISO_THREAD_KEYS; key++) {
        void *value = self->values[key];
        self->values[key] = NULL;
        if (value && destroy_of[key])
            destroy_of[key](value);
    }
}
