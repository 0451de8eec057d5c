/*
 * iso_run.c - starts the ranks of a job on this host. See iso_run(1), and iso_run.h for its parts.
 *
 * This file is main and the keeper: the process that the caller knows. It forks the server, passes
 * signals on to it, and when the server has ended, however it did, kills what the job has left. The
 * keeper needs nothing but its children, so it cannot be confused by what ranks do.
 */
#include "iso_run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Descriptors that we open must not get the number of a missing stdin, stdout or stderr. */
static void fill_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
            return;
}

/* Those that end a job and those that are the ranks' to handle, but for the ones that the caller had us ignore (nohup, a
 * script's `&`). */
static void collect_signals(sigset_t *signals_p)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
    struct sigaction action;

    sigemptyset(signals_p);
    sigaddset(signals_p, SIGCHLD);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (sigaction(numbers[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(signals_p, numbers[i]);
}

/* Reaps what has ended. True: the server is among it, with *wait_status_p. */
static bool keeper_reap(pid_t server, int *wait_status_p)
{
    int wait_status;
    pid_t pid;

    while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
        if (pid == server) {
            *wait_status_p = wait_status;
            return true;
        }
    }
    return false;
}

static int keeper_run(pid_t server, const sigset_t *signals)
{
    char cause[128];
    int wait_status = 0;
    siginfo_t info;

    while (!keeper_reap(server, &wait_status)) {
        if (sigwaitinfo(signals, &info) < 0)
            continue;
        /* What the terminal sends, it sends to the server as well. */
        if (info.si_signo != SIGCHLD && info.si_code != SI_KERNEL)
            kill(server, info.si_signo);
    }
    iso_run_children_kill();
    if (WIFEXITED(wait_status))
        return WEXITSTATUS(wait_status);
    iso_run_child_describe(wait_status, cause, sizeof cause);
    iso_run_say("the process that served the ranks (pid %d) %s: the job is ended", (int)server,
                cause);
    return ISO_RUN_SIGNAL_BASE + WTERMSIG(wait_status);
}

int main(int argc, char **argv)
{
    iso_run_options_t options;
    sigset_t signals, original_mask;
    pid_t keeper = getpid(), server;
    int exit_status, null_fd;

    fill_standard_descriptors();
    if (!iso_run_options_read(argc, argv, &options, &exit_status))
        return exit_status;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
        iso_run_say("prctl(PR_SET_CHILD_SUBREAPER): %s", strerror(errno));
        return ISO_RUN_FAILED;
    }
    collect_signals(&signals);
    sigprocmask(SIG_BLOCK, &signals, &original_mask);
    signal(SIGCHLD, SIG_DFL); /* ignored, it would hide how ranks end */
    server = fork();
    if (server == 0)
        return iso_run_job_run(&options, keeper, &signals, &original_mask);
    if (server < 0) {
        iso_run_say("fork: %s", strerror(errno));
        return ISO_RUN_FAILED;
    }
    null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null_fd >= 0)
        dup2(null_fd, STDIN_FILENO); /* it is rank 0's: who writes to it must see when that ends */
    signal(SIGPIPE, SIG_IGN);        /* nobody may read our messages any more */
    return keeper_run(server, &signals);
}
