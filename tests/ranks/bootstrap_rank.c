/*
 * bootstrap_rank.c - a rank that uses a bootstrap module and nothing else: what the tests of
 * iso_run start.
 *
 *   bootstrap_rank MODULE SCENARIO [ARGUMENT]
 *
 * It prints lines "rank R: ..." that the tests look for, one write each, so that those of several
 * ranks do not mix. A scenario that finds something wrong says so and exits with status 98.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <isomalloc/bootstrap.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WRONG 98

static const iso_bootstrap_module_t *module;
static iso_bootstrap_t *job;
static const char *argument = "";

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    const char *rank = getenv("ISO_LOCAL_RANK");
    char line[600];
    size_t len = (size_t)snprintf(line, sizeof line, "rank %s: ", rank == NULL ? "?" : rank);
    va_list args;

    va_start(args, format);
    vsnprintf(line + len, sizeof line - len - 1, format, args);
    va_end(args);
    len = strlen(line);
    line[len++] = '\n';
    if (write(STDOUT_FILENO, line, len) < 0)
        _exit(WRONG);
}

#define CHECK(condition)                                      \
    do {                                                      \
        if (!(condition)) {                                   \
            say("line %d: not so: %s", __LINE__, #condition); \
            _exit(WRONG);                                     \
        }                                                     \
    } while (0)

static void log_line(iso_log_level_t level, const char *text)
{
    say("log %d: %s", (int)level, text);
}

static void open_job(void)
{
    CHECK(module->detect());
    CHECK(module->open(log_line, &job) == ISO_OK);
    CHECK(job->abi_version == ISO_BOOTSTRAP_ABI && job->rank < job->size);
}

static void close_job(void)
{
    job->close(job->ctx);
    job = NULL;
}

static void nap(double seconds)
{
    struct timespec rest = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

    while (nanosleep(&rest, &rest) != 0 && errno == EINTR)
        ;
}

static void sleep_for_ever(void)
{
    for (;;)
        pause();
}

static unsigned char pattern(uint32_t rank, size_t at)
{
    return (unsigned char)(rank * 31 + at * 7 + (at >> 12));
}

static void gather_and_check(size_t len)
{
    unsigned char *mine = malloc(len + 1), *all = malloc(len * job->size + 1);

    CHECK(mine != NULL && all != NULL);
    for (size_t i = 0; i < len; i++)
        mine[i] = pattern(job->rank, i);
    memset(all, 0xee, len * job->size);
    CHECK(job->allgather(job->ctx, mine, all, len) == ISO_OK);
    for (uint32_t rank = 0; rank < job->size; rank++)
        for (size_t i = 0; i < len; i++)
            CHECK(all[rank * len + i] == pattern(rank, i));
    free(mine);
    free(all);
}

static iso_status_t wait_barrier(void)
{
    struct pollfd news = {.fd = job->event_fd, .events = POLLIN};
    iso_status_t status;

    while ((status = job->barrier_test(job->ctx)) == ISO_INPROGRESS)
        CHECK(poll(&news, 1, 20000) == 1);
    return status;
}

static iso_status_t barrier(void)
{
    iso_status_t status = job->barrier_start(job->ctx);

    return status == ISO_OK ? wait_barrier() : status;
}

/* Waits for the news of a death; returns who it is. */
static uint32_t wait_death(void)
{
    struct pollfd news = {.fd = job->event_fd, .events = POLLIN};
    uint32_t rank = UINT32_MAX;
    iso_status_t status;

    while ((status = job->next_dead(job->ctx, &rank)) == ISO_INPROGRESS)
        CHECK(poll(&news, 1, 20000) == 1);
    CHECK(status == ISO_OK);
    return rank;
}

/* ---- what works -------------------------------------------------------------------------------- */

static void scenario_collectives(void)
{
    static const size_t lengths[] = {4, 0, 1, 5000, 32768, 32769, 16};

    open_job();
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        gather_and_check(lengths[i]);
        CHECK(barrier() == ISO_OK);
    }
    close_job();
    say("done");
}

static void scenario_gather(void) /* argument: bytes */
{
    open_job();
    gather_and_check(strtoul(argument, NULL, 10));
    close_job();
    say("done");
}

static size_t blob_length(uint32_t rank, unsigned generation)
{
    return (rank * 977 + generation * 13) % 4097;
}

static void publish(unsigned generation)
{
    unsigned char blob[4096];
    size_t len = blob_length(job->rank, generation);

    for (size_t i = 0; i < len; i++)
        blob[i] = pattern(job->rank + generation, i);
    CHECK(job->publish(job->ctx, blob, len) == ISO_OK);
}

static void lookup_all(unsigned generation)
{
    unsigned char blob[4096];

    for (uint32_t rank = 0; rank < job->size; rank++) {
        size_t len = sizeof blob, expected = blob_length(rank, generation);

        CHECK(job->lookup(job->ctx, rank, blob, &len) == ISO_OK);
        CHECK(len == expected);
        for (size_t i = 0; i < len; i++)
            CHECK(blob[i] == pattern(rank + generation, i));
    }
}

static void scenario_generations(void) /* argument: how many */
{
    unsigned generations = (unsigned)strtoul(argument, NULL, 10);

    for (unsigned generation = 0; generation < generations; generation++) {
        open_job();
        publish(generation);
        gather_and_check(8 + generation);
        lookup_all(generation);
        if (job->rank % 3 == generation % 3)
            nap(0.02); /* some are still in this generation when others open the next */
        CHECK(barrier() == ISO_OK);
        close_job();
    }
    say("done");
}

/* An answer to a lookup, and one to a barrier that ends meanwhile, get to the right caller. */
static void scenario_lookup_in_barrier(void)
{
    open_job();
    publish(0);
    gather_and_check(1);
    for (int i = 0; i < 20; i++) {
        CHECK(job->barrier_start(job->ctx) == ISO_OK);
        nap(0.002 * job->rank);
        lookup_all(0);
        if (i % 2 == 0)
            gather_and_check(100); /* the next collective may be called before this one is tested */
        CHECK(wait_barrier() == ISO_OK);
    }
    CHECK(barrier() == ISO_OK); /* nobody ends while it is looked up */
    close_job();
    say("done");
}

static void scenario_idle_barrier(void)
{
    struct rusage before, after;
    unsigned wakes = 0;
    struct pollfd news;
    double busy;

    open_job();
    CHECK(barrier() == ISO_OK);
    if (job->rank == 0)
        nap(1.5);
    getrusage(RUSAGE_SELF, &before);
    news = (struct pollfd){.fd = job->event_fd, .events = POLLIN};
    CHECK(job->barrier_start(job->ctx) == ISO_OK);
    while (job->barrier_test(job->ctx) == ISO_INPROGRESS) {
        CHECK(poll(&news, 1, 20000) == 1);
        wakes++;
    }
    getrusage(RUSAGE_SELF, &after);
    busy = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec -
                    before.ru_stime.tv_sec) +
           1e-6 * (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec +
                           after.ru_stime.tv_usec - before.ru_stime.tv_usec);
    CHECK(wakes <= 2 && busy < 0.1);
    CHECK(poll(&news, 1, 0) == 0); /* all is fetched: nothing keeps the descriptor readable */
    CHECK(barrier() == ISO_OK);
    close_job();
    say("done");
}

static void scenario_hold(void) /* joined, and waiting for nothing until stdin ends */
{
    char byte;

    open_job();
    say("pid %d", (int)getpid());
    if (job->rank == 0)
        while (read(STDIN_FILENO, &byte, 1) > 0)
            ;
    CHECK(barrier() == ISO_OK);
    close_job();
    say("done");
}

/* ---- mistakes ---------------------------------------------------------------------------------- */

static void scenario_mismatch(void) /* argument: kind, length or large */
{
    char mine[200000] = {0}, all[8 * 16];
    char *big = malloc(8 * sizeof mine);
    bool odd;
    iso_status_t status;

    CHECK(big != NULL);
    open_job();
    CHECK(job->size <= 8);
    odd = job->rank == 1;
    if (job->rank == 2)
        nap(0.3); /* comes when it has failed already */
    if (odd && strcmp(argument, "kind") == 0)
        status = barrier();
    else if (odd && strcmp(argument, "length") == 0)
        status = job->allgather(job->ctx, mine, all, 15);
    else if (odd)
        status = job->allgather(job->ctx, mine, big, sizeof mine);
    else
        status = job->allgather(job->ctx, mine, all, 16);
    say("status %d", (int)status);
    gather_and_check(16); /* the next call matches again */
    close_job();
    free(big);
    say("done");
}

static void scenario_too_large(void)
{
    char byte = 0;
    iso_status_t status;

    open_job();
    /* Refused before any of it is read. */
    status = job->allgather(job->ctx, &byte, &byte, (size_t)SIZE_MAX / 64);
    say("status %d", (int)status);
    if (job->rank == 1)
        status = barrier();
    else
        status = job->allgather(job->ctx, &byte, &byte, (size_t)400 << 20);
    say("mixed %d", (int)status);
    gather_and_check(16);
    close_job();
    say("done");
}

static void scenario_misuse(void)
{
    iso_bootstrap_t *second = NULL;
    int wait_status;
    char blob[8];
    size_t len = sizeof blob;
    pid_t child;

    open_job();
    CHECK(module->open(log_line, &second) == ISO_ERR_BUSY && second == NULL);
    child = fork();
    if (child == 0) {
        CHECK(module->open(log_line, &second) == ISO_ERR_BUSY && second == NULL);
        CHECK(job->allgather(job->ctx, blob, blob, 1) == ISO_ERR_INVALID);
        job->close(job->ctx); /* as a destructor would: must not end the parent's membership */
        _exit(0);
    }
    CHECK(waitpid(child, &wait_status, 0) == child && wait_status == 0);
    CHECK(job->barrier_test(job->ctx) == ISO_ERR_INVALID);
    CHECK(job->barrier_start(job->ctx) == ISO_OK);
    CHECK(job->barrier_start(job->ctx) == ISO_ERR_INVALID);
    CHECK(wait_barrier() == ISO_OK);
    CHECK(job->lookup(job->ctx, job->size, blob, &len) == ISO_ERR_RANK);
    CHECK(job->lookup(job->ctx, 0, blob, &len) == ISO_ERR_INVALID);
    CHECK(barrier() == ISO_OK);
    CHECK(job->publish(job->ctx, blob, 4097) == ISO_ERR_INVALID);
    CHECK(job->publish(job->ctx, "longer than eight", 17) == ISO_OK);
    CHECK(barrier() == ISO_OK);
    CHECK(job->lookup(job->ctx, 0, blob, &len) == ISO_ERR_INVALID && len == sizeof blob);
    gather_and_check(64);
    close_job();
    say("done");
}

/* Two programs that a wrapper starts side by side: the second must not be the rank as well. */
static void scenario_second(void)
{
    iso_bootstrap_t *second = NULL;
    const char *program = argument;
    int wait_status;
    pid_t child;

    open_job();
    fcntl(atoi(getenv("ISO_LOCAL_FD")), F_SETFD, 0); /* as if both had inherited it */
    child = fork();
    if (child == 0) {
        execl("/proc/self/exe", "bootstrap_rank", program, "try-open", (char *)NULL);
        _exit(WRONG);
    }
    CHECK(waitpid(child, &wait_status, 0) == child && wait_status == 0);
    CHECK(barrier() == ISO_OK);
    close_job();
    CHECK(module->open(log_line, &second) == ISO_OK);
    second->close(second->ctx);
    say("done");
}

/* What a rank starts does not inherit its connection. */
static void scenario_grandchild(void)
{
    int wait_status;
    pid_t child;

    open_job();
    child = fork();
    if (child == 0) {
        execl("/proc/self/exe", "bootstrap_rank", argument, "try-open", (char *)NULL);
        _exit(WRONG);
    }
    CHECK(waitpid(child, &wait_status, 0) == child && wait_status == 0);
    CHECK(barrier() == ISO_OK);
    close_job();
    say("done");
}

static void scenario_try_open(void)
{
    iso_bootstrap_t *second = NULL;

    CHECK(module->detect());
    say("open %d", (int)module->open(log_line, &second));
    CHECK(second == NULL);
}

/* ---- ends -------------------------------------------------------------------------------------- */

static void end_by(const char *how)
{
    if (strcmp(how, "kill") == 0)
        kill(getpid(), SIGKILL);
    if (strcmp(how, "abort") == 0) {
        signal(SIGABRT, SIG_DFL);
        abort();
    }
    _exit(atoi(how)); /* without close */
}

/* Rank 1 ends as the argument says while the others are in an allgather. */
static void scenario_death_in_allgather(void)
{
    unsigned char mine[1000], all[8 * sizeof mine];
    iso_status_t status;
    uint32_t dead;

    open_job();
    say("pid %d", (int)getpid());
    CHECK(job->size <= 8 && barrier() == ISO_OK);
    memset(mine, (int)job->rank + 1, sizeof mine);
    memset(all, 0xee, sizeof all);
    if (job->rank == 1) {
        nap(0.2);
        end_by(argument);
    }
    status = job->allgather(job->ctx, mine, all, sizeof mine);
    say("status %d", (int)status);
    if (status != ISO_OK)
        sleep_for_ever();
    for (uint32_t rank = 0; rank < job->size; rank++)
        for (size_t i = 0; i < sizeof mine; i++)
            CHECK(all[rank * sizeof mine + i] == (rank == 1 ? 0 : rank + 1));
    CHECK(job->next_dead(job->ctx, &dead) == ISO_OK && dead == 1); /* known before the result */
    CHECK(job->next_dead(job->ctx, &dead) == ISO_INPROGRESS);
    CHECK(job->lookup(job->ctx, 1, all, &(size_t){1}) == ISO_ERR_PEER_DEAD);
    CHECK(barrier() == ISO_OK);
    close_job();
    open_job(); /* a new generation, which the dead rank does not come to either */
    CHECK(wait_death() == 1);
    CHECK(job->next_dead(job->ctx, &dead) == ISO_INPROGRESS);
    CHECK(barrier() == ISO_OK);
    close_job();
    say("done");
}

/* Rank 1 dies half-way through its contribution: of that, nobody sees a byte. */
static void scenario_death_in_contribution(void)
{
    const size_t len = (size_t)4 << 20;
    unsigned char *mine = malloc(len), *all = malloc(len * 4);
    struct timespec start, now;

    CHECK(mine != NULL && all != NULL);
    open_job();
    CHECK(job->size <= 4);
    memset(mine, (int)job->rank + 1, len);
    CHECK(barrier() == ISO_OK);
    if (job->rank == 1 && fork() == 0) {
        /* Stops it after a moment of sending, then kills it. */
        clock_gettime(CLOCK_MONOTONIC, &start);
        do {
            clock_gettime(CLOCK_MONOTONIC, &now);
        } while ((now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec < 300000);
        kill(getppid(), SIGKILL);
        _exit(0);
    }
    CHECK(job->allgather(job->ctx, mine, all, len) == ISO_OK);
    for (uint32_t rank = 0; rank < job->size; rank++) {
        unsigned char first = all[rank * len];

        CHECK(first == rank + 1 || (rank == 1 && first == 0));
        for (size_t i = 0; i < len; i++)
            CHECK(all[rank * len + i] == first);
    }
    close_job();
    say("done");
}

/* Rank 1 ends as the argument says; the others are not in a collective, and learn it. */
static void scenario_death_news(void)
{
    open_job();
    CHECK(barrier() == ISO_OK);
    if (job->rank == 1)
        end_by(argument);
    say("dead %u", wait_death());
    CHECK(barrier() == ISO_OK);
    close_job();
    say("done");
}

/* A death that barrier_test takes in keeps event_fd readable until next_dead fetches it. */
static void scenario_news_stays(void)
{
    struct pollfd news;
    uint32_t dead;

    open_job();
    CHECK(job->size == 3 && barrier() == ISO_OK);
    news = (struct pollfd){.fd = job->event_fd, .events = POLLIN};
    if (job->rank == 1)
        end_by("kill");
    if (job->rank == 0) {
        CHECK(job->barrier_start(job->ctx) == ISO_OK);
        CHECK(poll(&news, 1, 20000) == 1); /* the death: rank 2 has not come yet */
        CHECK(job->barrier_test(job->ctx) == ISO_INPROGRESS);
        CHECK(poll(&news, 1, 0) == 1);
        CHECK(job->next_dead(job->ctx, &dead) == ISO_OK && dead == 1);
        CHECK(poll(&news, 1, 0) == 0);
        CHECK(wait_barrier() == ISO_OK);
    } else {
        CHECK(wait_death() == 1);
        nap(1);
        CHECK(barrier() == ISO_OK);
    }
    close_job();
    say("done");
}

/* Rank 1 leaves in order and ends; the others, who were there too, are not told that it died. */
static void scenario_orderly(void)
{
    uint32_t dead;

    open_job();
    CHECK(barrier() == ISO_OK);
    if (job->rank != 1) {
        nap(0.5);
        CHECK(job->next_dead(job->ctx, &dead) == ISO_INPROGRESS);
    }
    close_job();
    say("done");
}

static void scenario_exit(void) /* argument: STATUS of rank 1, while the others sleep */
{
    const char *rank = getenv("ISO_LOCAL_RANK");

    say("pid %d", (int)getpid());
    if (rank != NULL && atoi(rank) == 1) {
        nap(0.2);
        end_by(argument);
    }
    sleep_for_ever();
}

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

/* Joins; then all but rank 1 wait in a barrier, and rank 1 prints its pid and waits to be killed. */
static void scenario_victim(void)
{
    iso_status_t status;

    open_job();
    CHECK(barrier() == ISO_OK);
    if (job->rank == 1) {
        say("pid %d", (int)getpid());
        say("parent %d", (int)getppid());
        sleep_for_ever();
    }
    status = barrier();
    say("status %d", (int)status);
    CHECK(status == ISO_OK);
    CHECK(wait_death() == 1);
    close_job();
    say("done");
}

/* Waits in an allgather until iso_run is gone: must get an error, not wait for ever. */
static void scenario_orphan(void)
{
    char mine = 0, all[8];
    iso_status_t status;

    CHECK(prctl(PR_SET_PDEATHSIG, 0) == 0); /* or it would not live to see it */
    open_job();
    CHECK(job->size <= 8);
    say("pid %d", (int)getpid());
    if (job->rank == 1)
        sleep_for_ever();
    status = job->allgather(job->ctx, &mine, all, 1);
    say("status %d", (int)status);
    CHECK(job->barrier_start(job->ctx) == ISO_ERR_SYSTEM);
    close_job();
    _exit(0);
}

static const struct scenario {
    const char *name;
    void (*run)(void);
} scenarios[] = {
    {"collectives", scenario_collectives},
    {"gather", scenario_gather},
    {"generations", scenario_generations},
    {"lookup-in-barrier", scenario_lookup_in_barrier},
    {"idle-barrier", scenario_idle_barrier},
    {"hold", scenario_hold},
    {"mismatch", scenario_mismatch},
    {"too-large", scenario_too_large},
    {"misuse", scenario_misuse},
    {"second", scenario_second},
    {"grandchild", scenario_grandchild},
    {"try-open", scenario_try_open},
    {"death-in-allgather", scenario_death_in_allgather},
    {"death-in-contribution", scenario_death_in_contribution},
    {"death-news", scenario_death_news},
    {"news-stays", scenario_news_stays},
    {"orderly", scenario_orderly},
    {"exit", scenario_exit},
    {"sleep", scenario_sleep},
    {"stray", scenario_stray},
    {"address", scenario_address},
    {"stdin", scenario_stdin},
    {"environment", scenario_environment},
    {"victim", scenario_victim},
    {"orphan", scenario_orphan},
};

int main(int argc, char **argv)
{
    void *handle;

    if (argc < 3 || (handle = dlopen(argv[1], RTLD_NOW)) == NULL) {
        fprintf(stderr, "bootstrap_rank MODULE SCENARIO [ARGUMENT]: %s\n",
                argc < 3 ? "an argument is missing" : dlerror());
        return WRONG;
    }
    module = dlsym(handle, ISO_BOOTSTRAP_MODULE_SYMBOL);
    if (argc > 3)
        argument = argv[3];
    CHECK(module != NULL && module->abi_version == ISO_BOOTSTRAP_ABI);
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        if (strcmp(scenarios[i].name, argv[2]) == 0) {
            scenarios[i].run();
            return 0;
        }
    }
    fprintf(stderr, "bootstrap_rank: no scenario %s\n", argv[2]);
    return WRONG;
}
