/*
 * scheduler.c - the threads of a job: open and closed, and the queue of those that can be resumed, for programs that
 * have no scheduler of their own.
 */
#include "core/thread/thread.h"
#include "core/thread/tool.h"
#include <stdlib.h>

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

iso_threads_t *iso_threads_of_job(const iso_job_t *job)
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
    if (iso_threads_of_job(threads->job))
        status = ISO_ERR_BUSY;
    for (unsigned i = 0; i < JOBS_MAX && status == ISO_ERR_LIMIT; i++)
        if (!table[i]) {
            table[i] = threads;
            status = ISO_OK;
        }
    pthread_mutex_unlock(&table_lock);
    return status;
}

iso_status_t iso_threads_open(iso_job_t *job, const iso_threads_params_t *params)
{
    if (params && params->struct_size != sizeof *params)
        return iso_thread_refuse("iso_threads_open", NULL,
                                 "its parameters are of another size: of another version?",
                                 ISO_ERR_INVALID);
    iso_threads_t *threads = calloc(1, sizeof *threads);
    void *base;
    if (!threads)
        return ISO_ERR_NO_MEMORY;
    threads->job = job;
    if (params)
        threads->params = *params;
    iso_tool_look();
    iso_space(job, &base, &threads->size);
    threads->base = (uintptr_t)base;
    pthread_mutex_init(&threads->lock, NULL);
    pthread_mutex_init(&threads->queue_lock, NULL);
    iso_status_t status = enter(threads);
    if (status != ISO_OK) {
        pthread_mutex_destroy(&threads->queue_lock);
        pthread_mutex_destroy(&threads->lock);
        free(threads);
        return iso_thread_refuse("iso_threads_open", NULL,
                                 status == ISO_ERR_BUSY ? "the job's threads are open"
                                                        : "too many jobs have threads",
                                 status);
    }
    iso_set_arrival(job, arrival, threads);
    return ISO_OK;
}

iso_status_t iso_threads_close(iso_job_t *job)
{
    iso_threads_t *threads = iso_threads_of_job(job);
    if (!threads)
        return ISO_ERR_INVALID;
    if (threads->departures)
        return ISO_ERR_BUSY;
    iso_set_arrival(job, threads->params.arrival, threads->params.arg);
    for (unsigned i = 0; i < JOBS_MAX; i++)
        if (table[i] == threads)
            table[i] = NULL;
    pthread_mutex_destroy(&threads->queue_lock);
    pthread_mutex_destroy(&threads->lock);
    free(threads);
    return ISO_OK;
}

/* ---- the queue ---- */

static void push(iso_threads_t *threads, iso_thread_t *thread)
{
    thread->queued = true;
    thread->next = NULL;
    thread->prev = threads->last;
    if (threads->last)
        threads->last->next = thread;
    else
        threads->first = thread;
    threads->last = thread;
    threads->ready_count++;
}

static void take_out(iso_threads_t *threads, iso_thread_t *thread)
{
    if (thread->prev)
        thread->prev->next = thread->next;
    else
        threads->first = thread->next;
    if (thread->next)
        thread->next->prev = thread->prev;
    else
        threads->last = thread->prev;
    thread->queued = false;
    threads->ready_count--;
}

void iso_thread_unqueue(iso_threads_t *threads, iso_thread_t *thread)
{
    if (threads->params.ready)
        return;
    pthread_mutex_lock(&threads->queue_lock);
    if (thread->queued)
        take_out(threads, thread);
    pthread_mutex_unlock(&threads->queue_lock);
}

void iso_thread_ready(iso_threads_t *threads, iso_thread_t *thread)
{
    if (threads->params.ready) {
        threads->params.ready(thread, threads->params.arg);
        return;
    }
    pthread_mutex_lock(&threads->queue_lock);
    if (!thread->queued)
        push(threads, thread);
    pthread_mutex_unlock(&threads->queue_lock);
}

/* The one that has waited longest, and how many there are; NULL: none. */
static iso_thread_t *take_first(iso_threads_t *threads, size_t *count_p)
{
    pthread_mutex_lock(&threads->queue_lock);
    iso_thread_t *thread = threads->first;
    *count_p = threads->ready_count;
    if (thread)
        take_out(threads, thread);
    pthread_mutex_unlock(&threads->queue_lock);
    return thread;
}

/* ---- turns ---- */

unsigned iso_threads_progress(iso_job_t *job)
{
    iso_threads_t *threads = iso_threads_of_job(job);
    unsigned events = iso_progress(job);
    return threads ? events + iso_threads_look_after(threads) : events;
}

/* Who becomes ready meanwhile waits for the next one. false: there was none. */
static bool turn(iso_threads_t *threads)
{
    size_t count, now;
    iso_thread_t *thread = take_first(threads, &count);
    for (size_t done = 0; thread && done < count; done++) {
        iso_thread_resume(thread, NULL);
        thread = done + 1 < count ? take_first(threads, &now) : NULL;
    }
    return count > 0;
}

iso_status_t iso_threads_run(iso_job_t *job, bool (*until)(void *arg), void *arg)
{
    static const char call[] = "iso_threads_run";
    iso_threads_t *threads = iso_threads_of_job(job);
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
