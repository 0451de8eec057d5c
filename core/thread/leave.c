/*
 * leave.c - threads that go to another rank, and that come: their heaps migrate, and this looks after them.
 *
 * Whoever wants to leave has stopped, and so has every other thread of its heap: what starts the migration runs on
 * none of their stacks. From then on nothing of the heap is touched here, until the migration has ended and the
 * heap is still here. Then, or where it has arrived, all that can be resumed is the scheduler's again.
 */
#include "core/thread/signed.h"
#include "core/thread/thread.h"
#include "core/thread/tool.h"
#include <stdlib.h>
#include <string.h>

/* ---- may they? ---- */

typedef struct check {
    const char *why; /* NULL: yes */
    iso_status_t status;
    const iso_thread_t *thread;
    const iso_thread_t *leaver; /* the caller: it runs */
    const void *leaver_at;      /* the frame of its call */
} check_t;

static bool may_leave(iso_thread_t *thread, void *arg)
{
    check_t *check = arg;
    if (thread->state == ISO_THREAD_FINISHED)
        return true; /* from wherever: it does not go on */
    const iso_exceptions_t *exceptions =
        thread == check->leaver ? iso_exceptions_of_system() : &thread->exceptions;
    if (thread->state == ISO_THREAD_RUNNING && thread != check->leaver)
        check->why =
            "it runs: it has resumed another thread, or another one of the system's runs it";
    else if (exceptions && (exceptions->caught || exceptions->uncaught))
        check->why =
            "it is in a catch block, or in a destructor that an exception runs: the exception "
            "cannot leave the process";
    else if (iso_thread_is_signed(thread == check->leaver ? check->leaver_at : thread->stack->sp,
                                  thread)) {
        check->why = "a return address on its stack is signed (PAC) with a key of this process: "
                     "build what threads run with -mbranch-protection=bti, or none";
        check->status = ISO_ERR_CODE;
    }
    check->thread = thread;
    return !check->why;
}

static iso_status_t check_heap(const char *call, const iso_heap_t *heap, iso_thread_t *leaver)
{
    check_t check = {
        .status = ISO_ERR_BUSY, .leaver = leaver, .leaver_at = __builtin_frame_address(0)};
    if (iso_tool_has_fake_stack())
        return iso_thread_refuse(call, NULL,
                                 "AddressSanitizer keeps the locals of threads elsewhere: set "
                                 "ASAN_OPTIONS=detect_stack_use_after_return=0",
                                 ISO_ERR_INVALID);
    if (iso_thread_walk(heap, may_leave, &check) != ISO_OK)
        return iso_thread_refuse(call, NULL, "the heap is not at this rank", ISO_ERR_NOT_OWNER);
    return check.why ? iso_thread_refuse(call, check.thread, check.why, check.status) : ISO_OK;
}

/* ---- on their way ---- */

static bool is_leaving(const iso_threads_t *threads, const iso_heap_t *heap)
{
    iso_threads_t *mutable = (iso_threads_t *)threads;
    const iso_departure_t *departure;
    pthread_mutex_lock(&mutable->lock);
    for (departure = threads->departures; departure && departure->heap != heap;)
        departure = departure->next;
    pthread_mutex_unlock(&mutable->lock);
    return departure != NULL;
}

/* Whose own a heap's threads are: changed with the job's lock, so that a thread that is this rank's while others are not yet
 * cannot take the heap away meanwhile, and so that none is this rank's any more when the heap begins to leave. */

static bool let_go(iso_thread_t *thread, void *arg)
{
    iso_threads_t *threads = arg;
    iso_thread_set_here(thread, 0);
    if (!threads->params.ready)
        iso_queue_remove(threads, thread);
    iso_tool_gone(thread);
    return true;
}

/* What takes a heap in: first it collects all threads of the heap, then they are this rank's, then the scheduler is told
 * of those that can be resumed: from then on the heap may leave at any time, so nothing is walked any more. */
typedef struct taking {
    iso_threads_t *threads;
    iso_status_t status; /* of those that wanted to leave: they have arrived, or hear why not */
    uint64_t visit;
    iso_thread_t **all;
    size_t count, room, ready;
    iso_thread_t *few[16]; /* what `all` is at first */
} taking_t;

static void taking_begin(taking_t *taking, iso_threads_t *threads, iso_status_t status)
{
    taking->threads = threads;
    taking->status = status;
    taking->all = taking->few;
    taking->count = taking->ready = 0;
    taking->room = sizeof taking->few / sizeof taking->few[0];
}

static void taking_end(taking_t *taking)
{
    if (taking->all != taking->few)
        free(taking->all);
}

/* false: no memory, and the walk ends. */
static bool collect(iso_thread_t *thread, void *arg)
{
    taking_t *taking = arg;
    if (taking->count == taking->room) {
        const size_t room = 4 * taking->room;
        const bool first = taking->all == taking->few;
        iso_thread_t **all = realloc(first ? NULL : taking->all, room * sizeof(iso_thread_t *));
        if (!all) {
            taking->room = 0;
            return false;
        }
        if (first)
            memcpy(all, taking->few, sizeof taking->few);
        taking->all = all;
        taking->room = room;
    }
    taking->all[taking->count++] = thread;
    return true;
}

/* It is this rank's; of one that was already, nothing changes. Can it be resumed? Asked before: from then on somebody
 * may awaken it, who tells the scheduler himself. */
static bool take_one(const taking_t *taking, iso_thread_t *thread)
{
    const uint64_t nonce = taking->threads->nonce;
    if (__atomic_load_n(&thread->here, __ATOMIC_RELAXED) == nonce)
        return thread->state == ISO_THREAD_READY;
    thread->back = NULL; /* what another process had there */
    thread->place = 0;
    thread->visit = taking->visit;
    iso_tool_new(thread);
    if (thread->state == ISO_THREAD_LEAVING) {
        thread->moved = taking->status;
        thread->state = ISO_THREAD_READY;
    }
    const bool ready = thread->state == ISO_THREAD_READY;
    iso_thread_set_here(thread, nonce);
    return ready;
}

/* Those that can be resumed, to the front. With the lock. */
static void take_all(taking_t *taking)
{
    taking->visit = ++taking->threads->visits;
    for (size_t i = 0; i < taking->count; i++) {
        iso_thread_t *thread = taking->all[i];
        if (take_one(taking, thread))
            taking->all[taking->ready++] = thread;
    }
}

/* One that is told of may have taken the heap away already, and it may even be back: then another visit's taking in has told,
 * or will tell, of the others. */
static void tell(const taking_t *taking)
{
    iso_threads_t *threads = taking->threads;
    for (size_t i = 0; i < taking->ready; i++) {
        iso_thread_t *thread = taking->all[i];
        if (iso_thread_is_here(threads, thread) && thread->visit == taking->visit &&
            thread->state == ISO_THREAD_READY)
            iso_thread_tell(threads, thread);
    }
}

/* Once only, however often it is called. */
static iso_status_t take_in(iso_threads_t *threads, iso_heap_t *heap, iso_status_t status)
{
    taking_t taking;
    iso_status_t taken = ISO_OK;
    taking_begin(&taking, threads, status);
    pthread_mutex_lock(&threads->lock);
    iso_thread_walk(heap, collect, &taking);
    if (taking.room == 0)
        taken = iso_thread_refuse("a heap's arrival", NULL,
                                  "no memory for a list of its threads: none is resumed before "
                                  "iso_threads_take_in is called for the heap",
                                  ISO_ERR_NO_MEMORY);
    else
        take_all(&taking);
    if (taken == ISO_OK && taking.ready > 0 && !threads->params.ready)
        taken = iso_queue_push(threads, taking.all, taking.ready);
    pthread_mutex_unlock(&threads->lock);
    if (taken == ISO_OK && threads->params.ready)
        tell(&taking);
    taking_end(&taking);
    return taken;
}

/* It has not even begun: a scheduler of the runtime's has not heard of it. */
static bool take_back(iso_thread_t *thread, void *arg)
{
    iso_threads_t *threads = arg;
    iso_tool_new(thread);
    iso_thread_set_here(thread, threads->nonce);
    if (thread->state == ISO_THREAD_READY && !threads->params.ready)
        iso_queue_push(threads, &thread, 1); /* into the place that it had */
    return true;
}

static iso_status_t depart(iso_threads_t *threads, iso_heap_t *heap, uint32_t dest)
{
    iso_departure_t *departure = malloc(sizeof *departure);
    if (!departure)
        return ISO_ERR_NO_MEMORY;
    *departure = (iso_departure_t){.heap = heap};
    /* from the moment that it has started, it may be gone, and be on its way back */
    pthread_mutex_lock(&threads->lock);
    iso_thread_walk(heap, let_go, threads);
    iso_status_t status = iso_migrate(heap, dest, NULL, 0, &departure->request);
    if (status == ISO_OK) {
        departure->next = threads->departures;
        __atomic_store_n(&threads->departures, departure, __ATOMIC_RELAXED);
    } else {
        iso_thread_walk(heap, take_back, threads);
    }
    pthread_mutex_unlock(&threads->lock);
    if (status != ISO_OK)
        free(departure);
    return status;
}

iso_status_t iso_thread_leave(iso_threads_t *threads, iso_thread_t *thread)
{
    return depart(threads, thread->heap, thread->dest);
}

/* Is there something to be done about it? Asked at each turn of who waits for it: of the heap only, which is MOVING as long as it
 * has neither gone nor stayed. (When it is on its way back already, that is news when it has come.) */
static bool has_news(const iso_departure_t *departure)
{
    iso_heap_state_t state = departure->heap ? iso_heap_state(departure->heap) : ISO_HEAP_ELSEWHERE;
    const bool in_doubt_before = !departure->request;
    return state != ISO_HEAP_MOVING && !(state == ISO_HEAP_IN_DOUBT && in_doubt_before);
}

/* How it has ended; ISO_INPROGRESS: it has not. Callbacks may run. Who has marked it is alone with it. */
static iso_status_t settle(iso_departure_t *departure)
{
    if (!departure->request) /* has it stayed after all? */
        return departure->heap && iso_heap_state(departure->heap) == ISO_HEAP_OWNED
                   ? ISO_ERR_IN_DOUBT
                   : ISO_OK;
    iso_status_t status = iso_test(departure->request);
    if (status != ISO_INPROGRESS)
        departure->request = NULL;
    return status == ISO_ERR_IN_DOUBT ? ISO_INPROGRESS : status;
}

/* heap NULL: any. Nobody else settles it then. */
static iso_departure_t *next_with_news(iso_threads_t *threads, const iso_heap_t *heap)
{
    pthread_mutex_lock(&threads->lock);
    iso_departure_t *departure = threads->departures;
    while (departure &&
           (departure->looked_after || (heap && departure->heap != heap) || !has_news(departure)))
        departure = departure->next;
    if (departure)
        departure->looked_after = true;
    pthread_mutex_unlock(&threads->lock);
    return departure;
}

/* It has not ended yet: in doubt from now on, or in a moment. */
static void look_later(iso_threads_t *threads, iso_departure_t *departure)
{
    pthread_mutex_lock(&threads->lock);
    departure->looked_after = false;
    pthread_mutex_unlock(&threads->lock);
}

/* Its heap; NULL: that is none of this departure's any more. */
static iso_heap_t *forget(iso_threads_t *threads, iso_departure_t *departure)
{
    iso_departure_t **at = &threads->departures;
    pthread_mutex_lock(&threads->lock);
    while (*at != departure)
        at = &(*at)->next;
    __atomic_store_n(at, departure->next, __ATOMIC_RELAXED);
    iso_heap_t *heap = departure->heap;
    pthread_mutex_unlock(&threads->lock);
    free(departure);
    return heap;
}

unsigned iso_threads_look_after(iso_threads_t *threads)
{
    unsigned ended = 0;
    iso_departure_t *departure;
    while (__atomic_load_n(&threads->departures, __ATOMIC_RELAXED) &&
           (departure = next_with_news(threads, NULL))) {
        iso_status_t status = settle(departure);
        if (status == ISO_INPROGRESS) {
            look_later(threads, departure);
            break;
        }
        iso_heap_t *heap = forget(threads, departure);
        ended++;
        if (status != ISO_OK && heap)
            take_in(threads, heap, status);
    }
    return ended;
}

iso_status_t iso_threads_arrived(iso_threads_t *threads, iso_heap_t *heap)
{
    pthread_mutex_lock(&threads->lock);
    for (iso_departure_t *departure = threads->departures; departure; departure = departure->next)
        if (departure->heap == heap) /* its end has not been asked for yet */
            departure->heap = NULL;
    pthread_mutex_unlock(&threads->lock);
    return take_in(threads, heap, ISO_OK);
}

/* ---- asked for ---- */

iso_status_t iso_thread_migrate(uint32_t dest)
{
    static const char call[] = "iso_thread_migrate";
    iso_status_t status;
    iso_thread_t *self = iso_thread_may_stop(call, &status);
    if (!self)
        return status;
    const iso_job_t *job = iso_threads_of(self)->job;
    if (dest >= iso_size(job))
        return iso_thread_refuse(call, self, "the job has no such rank", ISO_ERR_RANK);
    status = check_heap(call, self->heap, self);
    if (status != ISO_OK || dest == iso_rank(job))
        return status;
    self->dest = dest;
    iso_thread_stop(self, ISO_THREAD_LEAVING);
    return self->moved;
}

typedef struct strangers {
    const iso_threads_t *threads;
    const iso_thread_t *found; /* one that is not here; NULL: none */
} strangers_t;

static bool is_here(iso_thread_t *thread, void *arg)
{
    strangers_t *strangers = arg;
    if (!iso_thread_is_here(strangers->threads, thread))
        strangers->found = thread;
    return !strangers->found;
}

/* The heap is the rank's from when it has landed, its threads are when it has been taken in: that is still to come, and
 * must not find the heap on its way from here. */
static const iso_thread_t *find_stranger(iso_threads_t *threads, const iso_heap_t *heap)
{
    strangers_t strangers = {threads, NULL};
    pthread_mutex_lock(&threads->lock);
    iso_thread_walk(heap, is_here, &strangers);
    pthread_mutex_unlock(&threads->lock);
    return strangers.found;
}

iso_status_t iso_threads_move_heap(iso_heap_t *heap, uint32_t dest)
{
    static const char call[] = "iso_threads_move_heap";
    iso_threads_t *threads = iso_threads_of(heap);
    if (!threads || iso_heap_of(heap) != heap || is_leaving(threads, heap))
        return iso_thread_refuse(call, NULL, "the heap is not at this rank, or is leaving",
                                 ISO_ERR_NOT_OWNER);
    const iso_thread_t *stranger = find_stranger(threads, heap);
    if (stranger)
        return iso_thread_refuse(
            call, stranger, "it is not here yet: its heap lands, or was let go", ISO_ERR_NOT_OWNER);
    iso_status_t status = check_heap(call, heap, NULL);
    if (status != ISO_OK || dest == iso_rank(threads->job))
        return status;
    return depart(threads, heap, dest);
}

iso_status_t iso_threads_move(iso_thread_t *const *list, size_t count, uint32_t dest)
{
    static const char call[] = "iso_threads_move";
    iso_status_t status = ISO_OK;
    for (size_t i = 0; i < count && status == ISO_OK; i++) {
        const iso_threads_t *threads = iso_threads_of(list[i]);
        if (!threads || !iso_thread_is_here(threads, list[i]))
            return iso_thread_refuse(call, list[i], "it is not at this rank, or is leaving",
                                     ISO_ERR_NOT_OWNER);
        status = check_heap(call, list[i]->heap, NULL);
    }
    for (size_t i = 0; i < count && status == ISO_OK; i++) {
        const iso_threads_t *threads = iso_threads_of(list[i]);
        if (iso_thread_is_here(threads, list[i])) /* else its heap has started, with another one */
            status = iso_threads_move_heap(list[i]->heap, dest);
    }
    return status;
}

/* ---- in another way ---- */

iso_status_t iso_threads_let_go(iso_heap_t *heap)
{
    static const char call[] = "iso_threads_let_go";
    iso_threads_t *threads = iso_threads_of(heap);
    if (!threads)
        return iso_thread_refuse(call, NULL, "iso_threads_open was not called for the heap's job",
                                 ISO_ERR_NOT_OWNER);
    iso_status_t status = check_heap(call, heap, NULL);
    if (status == ISO_OK) {
        pthread_mutex_lock(&threads->lock);
        iso_thread_walk(heap, let_go, threads);
        pthread_mutex_unlock(&threads->lock);
    }
    return status;
}

iso_status_t iso_threads_take_in(iso_heap_t *heap)
{
    iso_threads_t *threads = iso_threads_of(heap);
    if (!threads || iso_heap_state(heap) != ISO_HEAP_OWNED)
        return iso_thread_refuse("iso_threads_take_in", NULL,
                                 "the heap is not at this rank, or iso_threads_open was not called",
                                 ISO_ERR_NOT_OWNER);
    iso_departure_t *departure = next_with_news(threads, heap);
    iso_status_t status = departure ? settle(departure) : ISO_OK;
    if (departure && status != ISO_INPROGRESS)
        forget(threads, departure);
    else if (departure)
        look_later(threads, departure);
    if (status == ISO_OK || status == ISO_INPROGRESS)
        return iso_threads_arrived(threads, heap);
    return take_in(threads, heap,
                   status); /* it has stayed, and those that wanted to leave hear why */
}
