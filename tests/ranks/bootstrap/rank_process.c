/* rank_process.c - the process that a rank is: its signals, descriptors, addresses, descendants. */
#include "bootstrap_rank.h"
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t got_signal;

static void on_signal(int number)
{
    got_signal = number;
}

/* Sleeps, with a descendant that has left the group, the session and its parent. argument: "meek"
 * dies of signals, "polite" says which one and exits, "deaf" ignores them. */
static void scenario_sleep(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = strcmp(argument, "deaf") == 0 ? SIG_IGN : on_signal};
    sigset_t blocked, original;
    pid_t child;

    sigemptyset(&blocked);
    for (size_t i = 0; i < 3; i++)
        sigaddset(&blocked, numbers[i]);
    sigprocmask(SIG_BLOCK, &blocked, &original);
    for (size_t i = 0; i < 3 && strcmp(argument, "meek") != 0; i++)
        sigaction(numbers[i], &action, NULL);
    child = fork();
    if (child == 0) {
        setsid();
        if (fork() == 0) {
            say("pid %d", (int)getpid());
            sleep_for_ever();
        }
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    say("pid %d", (int)getpid());
    while (got_signal == 0)
        sigsuspend(&original);
    say("signal %d", (int)got_signal);
    _exit(0);
}

/* Joins, and says which signals come, until there have been two. */
static void scenario_notified(void)
{
    static const int numbers[] = {SIGUSR1, SIGUSR2};
    struct sigaction action = {.sa_handler = on_signal};
    sigset_t blocked, original;

    sigemptyset(&blocked);
    for (size_t i = 0; i < 2; i++)
        sigaddset(&blocked, numbers[i]);
    sigprocmask(SIG_BLOCK, &blocked, &original);
    for (size_t i = 0; i < 2; i++)
        sigaction(numbers[i], &action, NULL);
    open_job();
    CHECK(barrier() == ISO_OK);
    say("pid %d", (int)getpid());
    for (int i = 0; i < 2; i++) {
        for (got_signal = 0; got_signal == 0;)
            sigsuspend(&original);
        say("signal %d", (int)got_signal);
    }
    CHECK(barrier() == ISO_OK);
    close_job();
    say("done");
}

static void scenario_stray(void) /* ends well, but leaves something behind */
{
    open_job();
    if (fork() == 0) {
        setsid();
        say("pid %d", (int)getpid());
        sleep_for_ever();
    }
    CHECK(barrier() == ISO_OK);
    close_job();
    say("done");
}

static void scenario_address(void)
{
    int on_stack;

    say("address %p %p", (void *)&on_stack, (void *)&module);
}

static void scenario_stdin(void)
{
    char buffer[256];
    ssize_t len, total = 0;

    while ((len = read(STDIN_FILENO, buffer, sizeof buffer)) > 0)
        total += len;
    say("stdin %zd", total);
}

static void scenario_environment(void)
{
    struct rlimit files;
    sigset_t mask;

    CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
    CHECK(sigprocmask(SIG_BLOCK, NULL, &mask) == 0);
    for (int number = 1; number < 32; number++)
        CHECK(sigismember(&mask, number) == 0);
    CHECK(signal(SIGPIPE, SIG_IGN) == SIG_DFL);
    for (int fd = 3; fd < 64; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            say("descriptor %d", fd);
    say("files %llu group %d", (unsigned long long)files.rlim_cur, (int)getpgrp());
}

const scenario_t process_scenarios[] = {
    {"sleep", scenario_sleep},
    {"notified", scenario_notified},
    {"stray", scenario_stray},
    {"address", scenario_address},
    {"stdin", scenario_stdin},
    {"environment", scenario_environment},
    {NULL, NULL},
};
