/*
 * iso_run_job.c - the life of a job: ends of ranks, signals, time limits; the event loop.
 *
 * A rank is over when the process that was started for it has been reaped, and the process that
 * spoke for it (another one, in a wrapper) has ended as well: only then is it announced as dead. A
 * job ends when all ranks are over, and with it every process that they have left behind.
 */
#include "iso_run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

double iso_run_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

bool iso_run_watch(const iso_run_job_t *job, int operation, int fd, uint32_t events,
                   iso_run_source_t source, uint32_t rank)
{
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)source << 32 | rank};

    return epoll_ctl(job->epoll_fd, operation, fd, &event) == 0;
}

/* ---- ending ------------------------------------------------------------------------------------ */

static void signal_rank(const iso_run_rank_t *rank, int signal, bool from_terminal)
{
    const pid_t group = getpgrp();

    if (rank->pid > 0 && !rank->reaped && !(from_terminal && getpgid(rank->pid) == group))
        kill(rank->pid, signal);
    if (rank->member_fd >= 0 && !(from_terminal && getpgid(rank->member_pid) == group))
        iso_run_pidfd_signal(rank->member_fd, signal);
}

/* A signal that is the program's to handle, such as ISO_DUMP_SIGNAL: to the process of each rank that has joined. One that has not
 * may have no handler yet, and a wrapper around it has none: the signal would end them. */
static void pass_on(const iso_run_job_t *job, int signal)
{
    for (uint32_t i = 0; i < job->options->size; i++) {
        const iso_run_rank_t *rank = &job->ranks[i];

        if (rank->over || !rank->joined)
            continue;
        if (rank->member_fd >= 0)
            iso_run_pidfd_signal(rank->member_fd, signal);
        else if (rank->pid > 0 && !rank->reaped && rank->member_pid == rank->pid)
            kill(rank->pid, signal);
    }
}

void iso_run_job_end(iso_run_job_t *job, int exit_status, int signal, bool from_terminal,
                     iso_status_t status, const char *text)
{
    if (job->ending)
        return;
    job->ending = true;
    job->exit_status = exit_status;
    job->end_status = status;
    snprintf(job->end_text, sizeof job->end_text, "%s: the job is ending", text);
    job->timeout_at = 0;
    job->kill_at = iso_run_now() + ISO_RUN_GRACE;
    /* Signals first: a rank that dies of them shall not log that its collective failed as well. */
    for (uint32_t i = 0; i < job->options->size; i++)
        if (!job->ranks[i].over)
            signal_rank(&job->ranks[i], signal, from_terminal);
    iso_run_collective_abandon(job);
}

void iso_run_job_note_death(iso_run_job_t *job, iso_run_rank_t *rank, bool orderly)
{
    bool *noted = orderly ? &rank->end_noted : &rank->death_noted;

    if (*noted)
        return;
    *noted = true;
    job->deaths[job->death_count] = (iso_run_death_t){.rank = rank->rank, .orderly = orderly};
    job->death_count++;
    for (uint32_t i = 0; i < job->options->size; i++)
        if (job->ranks[i].joined && !job->ranks[i].over)
            iso_run_link_pump(job, &job->ranks[i]);
}

/* The rank takes no part any more. */
static void rank_gone(iso_run_job_t *job, iso_run_rank_t *rank, bool orderly)
{
    iso_run_collective_forget(job, rank);
    if (!rank->gone)
        job->gone++;
    rank->gone = true;
    rank->verdict_at = 0;
    iso_run_job_note_death(job, rank, orderly);
}

/* What it had sent before its end counts. */
static void rank_drain(iso_run_job_t *job, iso_run_rank_t *rank)
{
    iso_run_link_clear(rank);
    iso_run_link_read(job, rank, UINT_MAX);
}

static void rank_over(iso_run_job_t *job, iso_run_rank_t *rank)
{
    const bool failed = !WIFEXITED(rank->wait_status) || WEXITSTATUS(rank->wait_status) != 0;
    char cause[128], text[ISO_LOCAL_MAX_TEXT];
    const char *then = "";
    int exit_status;

    rank_drain(job, rank);
    iso_run_link_close(job, rank);
    rank->over = true;
    job->over++;
    if (job->ending) {
        rank_gone(job, rank, !failed && !rank->joined);
        return;
    }
    iso_run_child_describe(rank->wait_status, cause, sizeof cause);
    snprintf(text, sizeof text, "rank %u (pid %d) %s", rank->rank, (int)rank->pid, cause);
    if (job->over < job->options->size)
        then = job->options->keep_going ? "; the others go on" : "; ending the job";
    if (failed) {
        iso_run_say("%s%s", text, then);
        exit_status = WIFSIGNALED(rank->wait_status)
                          ? ISO_RUN_SIGNAL_BASE + WTERMSIG(rank->wait_status)
                          : WEXITSTATUS(rank->wait_status);
        if (job->exit_status == 0)
            job->exit_status = exit_status;
        if (!job->options->keep_going)
            iso_run_job_end(job, exit_status, SIGTERM, false, ISO_ERR_PEER_DEAD, text);
    } else if (rank->joined && job->options->keep_going) {
        iso_run_say("%s without iso_finalize%s", text, then);
    }
    rank_gone(job, rank, !failed && !rank->joined);
    iso_run_collective_check(job);
}

/* The process that spoke for the rank is known to have ended, though its wrapper runs on. */
static void member_ended(iso_run_job_t *job, iso_run_rank_t *rank)
{
    close(rank->member_fd);
    rank->member_fd = -1;
    rank->member_pid = 0;
    if (rank->reaped) {
        rank_over(job, rank);
        return;
    }
    rank_drain(job, rank);
    if (rank->joined && rank->member_pid == 0) /* its wrapper knows best how it ended */
        rank->verdict_at = iso_run_now() + ISO_RUN_VERDICT;
}

static void rank_reaped(iso_run_job_t *job, iso_run_rank_t *rank)
{
    rank->judged = true;
    if (rank->member_fd < 0)
        rank_over(job, rank);
    else /* it must not outlive its wrapper: a rank that is called dead must be */
        iso_run_pidfd_signal(rank->member_fd, SIGKILL);
}

/* 0: killed by a signal, 1: failed otherwise, 2: all is well. */
static int severity(int wait_status)
{
    return WIFSIGNALED(wait_status) ? 0 : WEXITSTATUS(wait_status) != 0 ? 1 : 2;
}

static void reap(iso_run_job_t *job)
{
    int wait_status;
    pid_t pid;

    while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
        for (uint32_t i = 0; i < job->options->size; i++) {
            if (job->ranks[i].pid != pid || job->ranks[i].reaped)
                continue;
            job->ranks[i].reaped = true;
            job->ranks[i].wait_status = wait_status;
            break;
        }
    }
    /* Of ranks that ended together, the one that crashed is the cause: others may have noticed it
     * before us, and given up. */
    for (int level = 0; level <= 2; level++)
        for (uint32_t i = 0; i < job->options->size; i++)
            if (job->ranks[i].reaped && !job->ranks[i].judged &&
                severity(job->ranks[i].wait_status) == level)
                rank_reaped(job, &job->ranks[i]);
}

/* ---- time -------------------------------------------------------------------------------------- */

/* A rank that lost its process or its connection has had time to end, and has not. */
static void give_verdict(iso_run_job_t *job, iso_run_rank_t *rank)
{
    rank->verdict_at = 0;
    if (rank->gone || !rank->joined)
        return;
    if (rank->member_pid != 0) {
        iso_run_say(
            "rank %u (pid %d) has closed its connection to iso_run, descriptor %d: killing it",
            rank->rank, (int)rank->member_pid, job->null_fd);
        signal_rank(rank, SIGKILL, false);
        return;
    }
    iso_run_say("rank %u has ended without iso_finalize; pid %d, which was started for it, runs on",
                rank->rank, (int)rank->pid);
    rank_gone(job, rank, false);
    iso_run_collective_check(job);
}

static void time_out(iso_run_job_t *job)
{
    char text[ISO_LOCAL_MAX_TEXT];

    snprintf(text, sizeof text, "the job has not ended within %g s (--timeout)",
             job->options->timeout);
    iso_run_say("%s: ending it", text);
    iso_run_job_end(job, ISO_RUN_TIMED_OUT, SIGTERM, false, ISO_ERR_CANCELED, text);
}

static void kill_all(iso_run_job_t *job)
{
    job->kill_at = 0;
    job->abandon_at = iso_run_now() + ISO_RUN_ABANDON;
    for (uint32_t i = 0; i < job->options->size; i++)
        if (!job->ranks[i].over)
            signal_rank(&job->ranks[i], SIGKILL, false);
}

static void abandon(iso_run_job_t *job)
{
    for (uint32_t i = 0; i < job->options->size; i++) {
        if (job->ranks[i].over)
            continue;
        iso_run_say(
            "rank %u (pid %d) does not end although it was killed: iso_run leaves it behind", i,
            (int)job->ranks[i].pid);
        job->over++;
    }
}

/* Does what is due; returns milliseconds to the next deadline, -1 if there is none. */
static int keep_time(iso_run_job_t *job)
{
    const double now = iso_run_now();
    double next = 0;

    if (job->timeout_at != 0 && job->timeout_at <= now)
        time_out(job);
    if (job->kill_at != 0 && job->kill_at <= now)
        kill_all(job);
    if (job->abandon_at != 0 && job->abandon_at <= now)
        abandon(job);
    for (uint32_t i = 0; i < job->options->size; i++) {
        iso_run_rank_t *rank = &job->ranks[i];

        if (rank->verdict_at != 0 && rank->verdict_at <= now)
            give_verdict(job, rank);
        if (rank->verdict_at != 0 && (next == 0 || rank->verdict_at < next))
            next = rank->verdict_at;
    }
    if (job->timeout_at != 0 && (next == 0 || job->timeout_at < next))
        next = job->timeout_at;
    if (job->kill_at != 0 && (next == 0 || job->kill_at < next))
        next = job->kill_at;
    if (job->abandon_at != 0 && (next == 0 || job->abandon_at < next))
        next = job->abandon_at;
    if (next == 0)
        return -1;
    if (next - now > 3600)
        return 3600 * 1000;
    return next <= now ? 0 : (int)((next - now) * 1000) + 1;
}

/* ---- events ------------------------------------------------------------------------------------ */

static void take_signals(iso_run_job_t *job)
{
    struct signalfd_siginfo info;
    char text[ISO_LOCAL_MAX_TEXT];
    bool child = false;

    while (read(job->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD) {
            child = true;
            continue;
        }
        if (info.ssi_signo == SIGUSR1 || info.ssi_signo == SIGUSR2) {
            if ((pid_t)info.ssi_pid ==
                job->keeper) /* else it went to the whole group, and ranks have it */
                pass_on(job, (int)info.ssi_signo);
            continue;
        }
        if (job->ending) /* also the keeper's copy of what a group got */
            continue;
        snprintf(text, sizeof text, "signal %u (%s)", info.ssi_signo,
                 strsignal((int)info.ssi_signo));
        iso_run_say("%s: ending the job", text);
        iso_run_job_end(job, ISO_RUN_SIGNAL_BASE + (int)info.ssi_signo, (int)info.ssi_signo,
                        info.ssi_code == SI_KERNEL, ISO_ERR_CANCELED, text);
    }
    if (child) /* last, so that ranks that the same ctrl-C ended are not taken for its cause */
        reap(job);
}

static void take_event(iso_run_job_t *job, const struct epoll_event *event)
{
    iso_run_rank_t *rank = &job->ranks[(uint32_t)event->data.u64];

    switch ((iso_run_source_t)(event->data.u64 >> 32)) {
    case ISO_RUN_SIGNAL:
        take_signals(job);
        break;
    case ISO_RUN_KEEPER: /* killed: end at once, nobody waits for us */
        iso_run_children_kill();
        exit(ISO_RUN_FAILED);
    case ISO_RUN_LINK:
        iso_run_link_event(job, rank, event->events);
        break;
    case ISO_RUN_MEMBER: {
        /* not by the event: it may be of a process that the rank had before this one */
        struct pollfd ended = {.fd = rank->member_fd, .events = POLLIN};
        if (rank->member_fd >= 0 && poll(&ended, 1, 0) > 0)
            member_ended(job, rank);
        break;
    }
    }
}

static void serve(iso_run_job_t *job)
{
    struct epoll_event events[64];
    int count;

    while (job->over < job->options->size) {
        int wait = keep_time(job);

        if (job->over >= job->options->size)
            return;
        count = epoll_wait(job->epoll_fd, events, sizeof events / sizeof *events, wait);
        for (int i = 0; i < count; i++)
            take_event(job, &events[i]);
    }
}

/* ---- the beginning ----------------------------------------------------------------------------- */

/* For each rank a socket, and in a wrapper a pidfd. */
static bool raise_file_limit(iso_run_job_t *job)
{
    const rlim_t need = (rlim_t)job->options->size * 2 + 64;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &job->original_files) != 0) {
        iso_run_say("getrlimit(RLIMIT_NOFILE): %s", strerror(errno));
        return false;
    }
    limit = job->original_files;
    if (limit.rlim_cur >= need)
        return true;
    if (limit.rlim_max < need) {
        iso_run_say(
            "%u ranks need %llu open files and the hard limit is %llu: raise it (ulimit -Hn) "
            "or start fewer ranks",
            job->options->size, (unsigned long long)need, (unsigned long long)limit.rlim_max);
        return false;
    }
    limit.rlim_cur = need;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        iso_run_say("setrlimit(RLIMIT_NOFILE, %llu): %s", (unsigned long long)need,
                    strerror(errno));
        return false;
    }
    return true;
}

static bool open_descriptors(iso_run_job_t *job, const sigset_t *signals)
{
    const char *call = "open(/dev/null)";

    /* First, so that its number, which ranks find their socket at, is low. */
    job->null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (job->null_fd < 0)
        goto fail;
    call = "epoll_create1";
    job->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (job->epoll_fd < 0)
        goto fail;
    call = "signalfd";
    job->signal_fd = signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (job->signal_fd < 0)
        goto fail;
    call = "pidfd_open (Linux 5.3)";
    job->keeper_fd = iso_run_pidfd_open(job->keeper);
    if (job->keeper_fd < 0)
        goto fail;
    call = "epoll_ctl";
    if (iso_run_watch(job, EPOLL_CTL_ADD, job->signal_fd, EPOLLIN, ISO_RUN_SIGNAL, 0) &&
        iso_run_watch(job, EPOLL_CTL_ADD, job->keeper_fd, EPOLLIN, ISO_RUN_KEEPER, 0))
        return true;
fail:
    iso_run_say("%s: %s", call, strerror(errno));
    return false; /* the process ends: descriptors need no closing */
}

static bool make_ranks(iso_run_job_t *job)
{
    const uint32_t size = job->options->size;

    job->ranks = calloc(size, sizeof *job->ranks);
    job->deaths = calloc((size_t)size * 2, sizeof *job->deaths);
    if (job->ranks == NULL || job->deaths == NULL) {
        iso_run_say("no memory for %u ranks", size);
        return false;
    }
    for (uint32_t i = 0; i < size; i++) {
        job->ranks[i].rank = i;
        job->ranks[i].fd = job->ranks[i].member_fd = -1;
    }
    return true;
}

/* Starts the ranks. If one cannot be, the job ends, with those that run already. */
static void start_ranks(iso_run_job_t *job)
{
    for (uint32_t i = 0; i < job->options->size; i++) {
        iso_run_rank_t *rank = &job->ranks[i];
        int exit_status = iso_run_child_start(job, rank);

        if (rank->fd >= 0)
            iso_run_link_watch(job, rank);
        if (exit_status == 0)
            continue;
        for (uint32_t j = rank->pid > 0 ? i + 1 : i; j < job->options->size; j++) {
            job->ranks[j].over = true; /* never was */
            job->over++;
        }
        iso_run_job_end(job, exit_status, SIGTERM, false, ISO_ERR_CANCELED,
                        "a rank could not be started");
        return;
    }
}

static void free_job(iso_run_job_t *job)
{
    for (uint32_t i = 0; job->ranks != NULL && i < job->options->size; i++)
        iso_run_link_close(job, &job->ranks[i]);
    iso_run_bytes_drop(job->collective.gather);
    iso_run_bytes_drop(job->collective.error);
    free(job->deaths);
    free(job->ranks);
    free(job);
}

int iso_run_job_run(const iso_run_options_t *options, pid_t keeper, const sigset_t *signals,
                    const sigset_t *original_mask)
{
    iso_run_job_t *job = calloc(1, sizeof *job);
    int exit_status = ISO_RUN_FAILED;

    if (job == NULL) {
        iso_run_say("no memory");
        return ISO_RUN_FAILED;
    }
    job->options = options;
    job->keeper = keeper;
    job->self = getpid();
    job->original_mask = *original_mask;
    job->original_sigpipe = signal(SIGPIPE, SIG_IGN); /* nobody may read our messages any more */
    /* What ranks leave behind comes to us; fork does not inherit this. */
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
        iso_run_say("prctl(PR_SET_CHILD_SUBREAPER): %s", strerror(errno));
        goto out;
    }
    if (!raise_file_limit(job) || !open_descriptors(job, signals) || getppid() != keeper ||
        !make_ranks(job))
        goto out;
    if (options->timeout > 0)
        job->timeout_at = iso_run_now() + options->timeout;
    start_ranks(job);
    dup2(job->null_fd, STDIN_FILENO); /* rank 0 has it: who writes to it must see when that ends */
    serve(job);
    iso_run_children_kill();
    exit_status = job->exit_status;
out:
    free_job(job);
    return exit_status;
}
