/*
 * iso_run_children.c - processes: starting a rank, describing its end, killing what is left over.
 *
 * A rank runs as if it had been started directly: signals, limits and descriptors are as iso_run
 * found them. It differs in its socket and the ISO_LOCAL_* variables, in its standard input (rank 0
 * has iso_run's, the others /dev/null), and in dying when the server dies.
 */
#include "iso_run.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What stopped a child before it ran the program. */
typedef struct child_failure {
    const char *call; /* a literal: the child has the same addresses */
    int error;
} child_failure_t;

static bool set_number(const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return setenv(name, text, 1) == 0;
}

/* Not known, or of no use in a search path: the variable is not set. */
static bool set_modules(void)
{
    char folder[PATH_MAX], *slash;
    ssize_t len = readlink("/proc/self/exe", folder, sizeof folder - sizeof ISO_RUN_TO_MODULES);

    if (len <= 0 || (size_t)len == sizeof folder - sizeof ISO_RUN_TO_MODULES ||
        memchr(folder, ':', (size_t)len) != NULL)
        return unsetenv(ISO_LOCAL_ENV_MODULES) == 0;
    folder[len] = '\0';
    slash = strrchr(folder, '/');
    if (slash == NULL)
        return unsetenv(ISO_LOCAL_ENV_MODULES) == 0;
    memcpy(slash + 1, ISO_RUN_TO_MODULES, sizeof ISO_RUN_TO_MODULES);
    return setenv(ISO_LOCAL_ENV_MODULES, folder, 1) == 0;
}

/* Runs in the child; returns only if it fails, with the call that did and errno. */
static const char *child_become_rank(const iso_run_job_t *job, uint32_t rank, int socket)
{
    int persona;
    struct stat info;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return "prctl";
    if (getppid() != job->self)
        _exit(ISO_RUN_FAILED); /* the server died before the line above could tell */
    if (job->options->no_aslr) {
        persona = personality(0xffffffff);
        if (persona == -1 || personality((unsigned long)persona | ADDR_NO_RANDOMIZE) == -1)
            return "personality(ADDR_NO_RANDOMIZE)";
    }
    if (fstat(socket, &info) != 0)
        return "fstat";
    if (!set_number(ISO_LOCAL_ENV_RANK, rank) ||
        !set_number(ISO_LOCAL_ENV_SIZE, job->options->size) ||
        !set_number(ISO_LOCAL_ENV_FD, (uint64_t)job->null_fd) ||
        !set_number(ISO_LOCAL_ENV_SOCKET, info.st_ino) || !set_modules())
        return "setenv";
    if (rank != 0 && dup2(job->null_fd, STDIN_FILENO) < 0)
        return "dup2";
    /* A number that is low in every rank, and not close-on-exec. */
    if (dup2(socket, job->null_fd) < 0)
        return "dup2";
    if (setrlimit(RLIMIT_NOFILE, &job->original_files) != 0)
        return "setrlimit";
    signal(SIGPIPE, job->original_sigpipe);
    if (sigprocmask(SIG_SETMASK, &job->original_mask, NULL) != 0)
        return "sigprocmask";
    execvp(job->options->argv[0], job->options->argv);
    return "exec";
}

static int start_failed(const iso_run_job_t *job, const iso_run_rank_t *rank,
                        const child_failure_t *failure)
{
    const char *program = job->options->argv[0];

    if (strcmp(failure->call, "exec") != 0) {
        iso_run_say("rank %u cannot be started: %s: %s", rank->rank, failure->call,
                    strerror(failure->error));
        return ISO_RUN_FAILED;
    }
    if (failure->error == ENOENT && strchr(program, '/') == NULL)
        iso_run_say("%s: no such program in PATH", program);
    else
        iso_run_say("%s: cannot be run: %s", program, strerror(failure->error));
    return failure->error == ENOENT ? ISO_RUN_NOT_FOUND : ISO_RUN_CANNOT_EXECUTE;
}

int iso_run_child_start(iso_run_job_t *job, iso_run_rank_t *rank)
{
    child_failure_t failure = {NULL, 0};
    const int on = 1;
    int pair[2], report[2];
    int exit_status = ISO_RUN_FAILED;
    ssize_t got;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        iso_run_say("rank %u cannot be started: socketpair: %s", rank->rank, strerror(errno));
        return ISO_RUN_FAILED;
    }
    /* So that each packet tells which process sent it: in a wrapper it is not the one started. */
    if (setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) {
        iso_run_say("rank %u cannot be started: SO_PASSCRED: %s", rank->rank, strerror(errno));
        goto fail_pair;
    }
    if (pipe2(report, O_CLOEXEC) != 0) {
        iso_run_say("rank %u cannot be started: pipe2: %s", rank->rank, strerror(errno));
        goto fail_pair;
    }
    rank->pid = fork();
    if (rank->pid == 0) {
        failure.call = child_become_rank(job, rank->rank, pair[1]);
        failure.error = errno;
        if (write(report[1], &failure, sizeof failure) < 0)
            _exit(ISO_RUN_FAILED);
        _exit(ISO_RUN_CANNOT_EXECUTE);
    }
    if (rank->pid < 0) {
        rank->pid = 0;
        iso_run_say("rank %u of %u cannot be started: fork: %s (is ulimit -u too small?)",
                    rank->rank, job->options->size, strerror(errno));
        goto fail_report;
    }
    close(report[1]);
    close(pair[1]);
    do {
        got = read(report[0], &failure, sizeof failure); /* nothing once the program runs */
    } while (got < 0 && errno == EINTR);
    close(report[0]);
    rank->fd = pair[0];
    return got == (ssize_t)sizeof failure ? start_failed(job, rank, &failure) : 0;

fail_report:
    close(report[0]);
    close(report[1]);
fail_pair:
    close(pair[0]);
    close(pair[1]);
    return exit_status;
}

void iso_run_child_describe(int wait_status, char *text, size_t room)
{
    int number;
    const char *name;

    if (WIFSIGNALED(wait_status)) {
        number = WTERMSIG(wait_status);
        name = strsignal(number);
        snprintf(text, room, "was killed by signal %d (%s)%s", number,
                 name == NULL ? "unknown" : name, WCOREDUMP(wait_status) ? ", core dumped" : "");
    } else {
        snprintf(text, room, "exited with status %d", WEXITSTATUS(wait_status));
    }
}

int iso_run_pidfd_open(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

int iso_run_pidfd_signal(int pidfd, int signal)
{
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

/* ---- what is left over ------------------------------------------------------------------------- */

static pid_t read_parent(const char *pid)
{
    char path[64], text[512];
    const char *after_name;
    int fd, parent = 0;
    ssize_t len;

    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    len = read(fd, text, sizeof text - 1);
    close(fd);
    if (len <= 0)
        return 0;
    text[len] = '\0';
    after_name = strrchr(text, ')'); /* the name may contain anything */
    if (after_name == NULL || sscanf(after_name + 1, " %*c %d", &parent) != 1)
        return 0;
    return parent;
}

/* Only children of our own: nobody else reaps them, so a number cannot mean another process by the
 * time that it is used. Their children are ours in the next round. Returns one of them. */
static pid_t kill_children_once(void)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    pid_t pid, last = 0;

    if (proc == NULL)
        return 0;
    while ((entry = readdir(proc)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0]) || read_parent(entry->d_name) != getpid())
            continue;
        pid = (pid_t)strtol(entry->d_name, NULL, 10);
        kill(pid, SIGKILL);
        last = pid;
    }
    closedir(proc);
    return last;
}

void iso_run_children_kill(void)
{
    const double give_up_at = iso_run_now() + ISO_RUN_ABANDON;
    pid_t reaped, left;

    for (;;) {
        do {
            reaped = waitpid(-1, NULL, WNOHANG);
        } while (reaped > 0);
        if (reaped < 0)
            return; /* none is left */
        left = kill_children_once();
        if (iso_run_now() > give_up_at) {
            iso_run_say("process %d does not end although it was killed: iso_run leaves it behind",
                        (int)left);
            return;
        }
        usleep(1000);
    }
}
