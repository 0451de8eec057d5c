/* service.c - see service.h. */
#include "core/service.h"
#include "core/job.h"
#include "core/signals.h"
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* ---- progress ---- */

static bool is_to_stop(iso_job_t *job)
{
    iso_job_lock(job);
    bool stop = job->service.stop;
    iso_job_unlock(job);
    return stop;
}

static void *make_progress(void *arg)
{
    iso_job_t *job = arg;
    while (!is_to_stop(job))
        iso_progress_wait(job, -1);
    return NULL;
}

/* ---- the signal ---- */

static void on_signal(int number, siginfo_t *info, void *context)
{
    int error = errno;
    bool ignored;
    for (int i = 0; i < ISO_JOBS_MAX; i++) {
        const iso_job_t *job = iso_job_table[i].job;
        if (job && job->service.dump_fd >= 0 && (int)job->params.dump_signal == number)
            eventfd_write(job->service.dump_fd, 1);
    }
    iso_signal_chain(number, info, context, &ignored);
    errno = error;
}

static void *wait_for_signals(void *arg)
{
    iso_job_t *job = arg;
    eventfd_t count;
    while (eventfd_read(job->service.dump_fd, &count) == 0 || errno == EINTR) {
        if (is_to_stop(job))
            break;
        iso_dump(job, STDERR_FILENO);
    }
    return NULL;
}

/* ---- both ---- */

/* With all signals blocked: they are the program's threads' to handle. */
static int start(pthread_t *thread, void *(*run)(void *), iso_job_t *job)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, run, job);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

/* A process gets these for what it did itself: they must end it, or be explained. */
static bool is_of_fault(int number)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        if (number == faults[i])
            return true;
    return false;
}

static iso_status_t start_dump(iso_job_t *job)
{
    iso_service_t *service = &job->service;
    int number = (int)job->params.dump_signal, error = 0;
    service->dump_fd = eventfd(0, EFD_CLOEXEC);
    if (service->dump_fd < 0)
        error = errno;
    else if (is_of_fault(number))
        error = EINVAL;
    if (!error)
        error = iso_signal_install(number, on_signal, SA_RESTART);
    if (!error) {
        error = start(&service->dump, wait_for_signals, job);
        service->has_dump = error == 0;
        if (error)
            iso_signal_remove(number);
    }
    if (!error)
        return ISO_OK;
    iso_log(&job->logger, ISO_LOG_ERROR,
            "ISO_DUMP_SIGNAL=%d cannot be waited for (%s): give the number of a signal that can be "
            "caught and is no fault's, such as 10 or 12, or 0 for none",
            number, strerror(error));
    return error == EINVAL ? ISO_ERR_INVALID : ISO_ERR_SYSTEM;
}

iso_status_t iso_service_open(iso_job_t *job)
{
    iso_service_t *service = &job->service;
    if (job->params.progress_thread && job->params.thread_level != ISO_THREAD_MULTIPLE) {
        iso_log(
            &job->logger, ISO_LOG_ERROR,
            "ISO_PROGRESS_THREAD=y needs ISO_THREAD_LEVEL=multiple: the thread calls beside the "
            "program's");
        return ISO_ERR_INVALID;
    }
    if (job->params.dump_signal && start_dump(job) != ISO_OK)
        return ISO_ERR_INVALID;
    if (!job->params.progress_thread)
        return ISO_OK;
    int error = start(&service->progress, make_progress, job);
    service->has_progress = error == 0;
    if (error)
        iso_log(&job->logger, ISO_LOG_ERROR, "ISO_PROGRESS_THREAD: no thread could be made: %s",
                strerror(error));
    return error ? ISO_ERR_SYSTEM : ISO_OK;
}

void iso_service_close(iso_job_t *job)
{
    iso_service_t *service = &job->service;
    iso_job_lock(job);
    service->stop = true;
    iso_wait_note(job, 1);
    iso_job_unlock(job);
    if (service->has_progress)
        pthread_join(service->progress, NULL);
    if (service->has_dump) {
        iso_signal_remove((int)job->params.dump_signal);
        eventfd_write(service->dump_fd, 1);
        pthread_join(service->dump, NULL);
    }
    if (service->dump_fd >= 0)
        close(service->dump_fd);
    service->has_progress = service->has_dump = false;
    service->dump_fd = -1;
}
