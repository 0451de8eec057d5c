/*
 * scheduler.c - the threads of a job: open and closed, and turns, for programs that have no scheduler of their own.
 */
#include "core/thread/thread.h"
#include "core/thread/tool.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define JOBS_MAX 8

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static iso_threads_t *_Atomic table[JOBS_MAX]; /* read without the lock */

iso_threads_t *iso_threads_of(const void *address)
{
    for (unsigned i = 0; i < JOBS_MAX; i++) {
        iso_threads_t *threads = table[i];
        if (threads && (uintptr_t)address - threads->base < threads->size)
            return threads;
    }
    return NULL;
}

static iso_threads_t *threads_of_job(const iso_job_t *job)
{
    for (unsigned i = 0; i < JOBS_MAX; i++) {
        iso_threads_t *threads = table[i];
        if (threads && threads->job == job)
            return threads;
    }
    return NULL;
}

iso_threads_t *iso_threads_any(void)
{
    for (unsigned i = 0; i < JOBS_MAX; i++)
        if (table[i])
            return table[i];
    return NULL;
}

static void arrival(iso_job_t *job, const iso_arrival_t *what, void *arg)
{
    iso_threads_t *threads = arg;
    iso_threads_arrived(threads, what->heap);
    if (threads->params.arrival)
        threads->params.arrival(job, what, threads->params.arg);
}

/* ISO_ERR_BUSY: the job has some; ISO_ERR_LIMIT. */
static iso_status_t enter(iso_threads_t *threads)
{
    iso_status_t status = ISO_ERR_LIMIT;
    pthread_mutex_lock(&table_lock);
    if (threads_of_job(threads->job))
        status = ISO_ERR_BUSY;
    for (unsigned i = 0; i < JOBS_MAX && status == ISO_ERR_LIMIT; i++)
        if (!table[i]) {
            table[i] = threads;
            status = ISO_OK;
        }
    pthread_mutex_unlock(&table_lock);
    return status;
}

static void leave(const iso_threads_t *threads)
{
    pthread_mutex_lock(&table_lock);
    for (unsigned i = 0; i < JOBS_MAX; i++)
        if (table[i] == threads)
            table[i] = NULL;
    pthread_mutex_unlock(&table_lock);
}

static void drop(iso_threads_t *threads)
{
    leave(threads);
    iso_queue_close(&threads->queue);
    pthread_mutex_destroy(&threads->lock);
    free(threads);
}

/* The job ends, and they were not closed: another job may come to lie where this one was. */
static void job_ends(iso_job_t *job, void *arg)
{
    iso_threads_t *threads = arg;
    (void)job;
    iso_thread_refuse("iso_finalize", NULL,
                      "the job's threads are open: call iso_threads_close before", ISO_ERR_BUSY);
    for (iso_departure_t *departure = threads->departures, *next; departure; departure = next) {
        next = departure->next;
        free(departure); /* their requests are the job's */
    }
    drop(threads);
}

iso_status_t iso_threads_open(iso_job_t *job, const iso_threads_params_t *params)
{
    if (params && params->struct_size != sizeof *params)
        return iso_thread_refuse("iso_threads_open", NULL,
                                 "its parameters are of another size: of another version?",
                                 ISO_ERR_INVALID);
    if (!iso_code_is_compared(&table))
        return iso_thread_refuse(
            "iso_threads_open", NULL,
            "libisomalloc-thread was loaded after iso_init had begun, so ranks do not compare "
            "where it lies: link it, or load it before",
            ISO_ERR_CODE);
    iso_threads_t *threads = calloc(1, sizeof *threads);
    void *base;
    if (!threads)
        return ISO_ERR_NO_MEMORY;
    /* at random: an image of a heap may be of a process of which all else is the same */
    while (threads->nonce == 0)
        if (getrandom(&threads->nonce, sizeof threads->nonce, 0) < 0 && errno != EINTR) {
            free(threads);
            return iso_thread_refuse("iso_threads_open", NULL, "getrandom has failed",
                                     ISO_ERR_SYSTEM);
        }
    threads->job = job;
    if (params)
        threads->params = *params;
    iso_tool_look();
    iso_space(job, &base, &threads->size);
    threads->base = (uintptr_t)base;
    pthread_mutex_init(&threads->lock, NULL);
    iso_queue_open(&threads->queue);
    iso_status_t status = enter(threads);
    if (status != ISO_OK) {
        iso_queue_close(&threads->queue);
        pthread_mutex_destroy(&threads->lock);
        free(threads);
        return iso_thread_refuse("iso_threads_open", NULL,
                                 status == ISO_ERR_BUSY ? "the job's threads are open"
                                                        : "too many jobs have threads",
                                 status);
    }
    iso_set_arrival(job, arrival, threads);
    iso_set_end(job, job_ends, threads);
    return ISO_OK;
}

iso_status_t iso_threads_close(iso_job_t *job)
{
    iso_threads_t *threads = threads_of_job(job);
    if (!threads)
        return ISO_ERR_INVALID;
    if (threads->running || iso_thread_self() || iso_call_depth() > 0)
        return iso_thread_refuse("iso_threads_close", NULL,
                                 "a thread calls, or a callback, or iso_threads_run runs: they go "
                                 "on with them afterwards",
                                 ISO_ERR_BUSY);
    if (__atomic_load_n(&threads->departures, __ATOMIC_RELAXED))
        return ISO_ERR_BUSY;
    /* waits for a thread of the library's that is in ours */
    iso_set_arrival(job, threads->params.arrival, threads->params.arg);
    iso_set_end(job, NULL, NULL);
    drop(threads);
    return ISO_OK;
}

/* ---- told of who can be resumed ---- */

iso_status_t iso_thread_ready(iso_threads_t *threads, iso_thread_t *thread)
{
    if (!threads->params.ready)
        return iso_queue_push(threads, &thread, 1);
    iso_thread_tell(threads, thread);
    return ISO_OK;
}

/* ---- turns ---- */

unsigned iso_threads_progress(iso_job_t *job)
{
    iso_threads_t *threads = threads_of_job(job);
    unsigned events = iso_progress(job);
    return threads ? events + iso_threads_look_after(threads) : events;
}

static uint32_t count_waiting(iso_threads_t *threads)
{
    pthread_mutex_lock(&threads->queue.lock);
    const uint32_t count = threads->queue.count;
    pthread_mutex_unlock(&threads->queue.lock);
    return count;
}

uint32_t iso_threads_waiting(const iso_job_t *job)
{
    iso_threads_t *threads = threads_of_job(job);
    return threads ? count_waiting(threads) : 0;
}

iso_thread_t *iso_threads_next(iso_job_t *job)
{
    iso_threads_t *threads = threads_of_job(job);
    return threads && !threads->params.ready ? iso_queue_pop(threads) : NULL;
}

/* Who becomes ready meanwhile waits for the next one. false: there was none. */
static bool turn(iso_threads_t *threads)
{
    const uint32_t count = count_waiting(threads);
    for (uint32_t done = 0; done < count; done++) {
        iso_thread_t *thread = iso_queue_pop(threads);
        if (!thread)
            break;
        iso_thread_resume(thread, NULL);
    }
    return count > 0;
}

iso_status_t iso_threads_run(iso_job_t *job, bool (*until)(void *arg), void *arg)
{
    static const char call[] = "iso_threads_run";
    iso_threads_t *threads = threads_of_job(job);
    if (!threads || threads->params.ready)
        return iso_thread_refuse(call, NULL,
                                 threads ? "the job's threads have another scheduler"
                                         : "iso_threads_open was not called for the job",
                                 ISO_ERR_INVALID);
    if (threads->running || iso_thread_self() || iso_call_depth() > 0)
        return iso_thread_refuse(
            call, NULL, "the caller is a thread, a callback, or the second one", ISO_ERR_INVALID);
    threads->running = true;
    while (!until(arg)) {
        unsigned events = iso_threads_progress(job);
        if (!turn(threads) && events == 0)
            iso_progress_wait(job, 0.1);
    }
    threads->running = false;
    return ISO_OK;
}
