/*
 * bootstrap_rank.c - a rank that uses a bootstrap module and nothing else: what the tests of
 * iso_run start.
 *
 *   bootstrap_rank MODULE SCENARIO [ARGUMENT]
 *
 * It prints lines "rank R: ..." that the tests look for. A scenario that finds something wrong says so and
 * exits with status 98. Scenarios are in the files rank_*.c.
 */
#include "bootstrap_rank.h"
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const iso_bootstrap_module_t *module;
iso_bootstrap_t *job;
const char *argument = "";

void say(const char *format, ...)
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

void log_line(iso_log_level_t level, const char *text)
{
    say("log %d: %s", (int)level, text);
}

void open_job(void)
{
    CHECK(module->detect());
    CHECK(module->open(log_line, &job) == ISO_OK);
    CHECK(job->abi_version == ISO_BOOTSTRAP_ABI && job->rank < job->size);
}

void close_job(void)
{
    job->close(job->ctx);
    job = NULL;
}

void nap(double seconds)
{
    struct timespec rest = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

    while (nanosleep(&rest, &rest) != 0 && errno == EINTR)
        ;
}

void sleep_for_ever(void)
{
    for (;;)
        pause();
}

unsigned char pattern(uint32_t rank, size_t at)
{
    return (unsigned char)(rank * 31 + at * 7 + (at >> 12));
}

void gather_and_check(size_t len)
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

iso_status_t wait_barrier(void)
{
    struct pollfd news = {.fd = job->event_fd, .events = POLLIN};
    iso_status_t status;

    while ((status = job->barrier_test(job->ctx)) == ISO_INPROGRESS)
        CHECK(poll(&news, 1, 20000) == 1);
    return status;
}

iso_status_t barrier(void)
{
    iso_status_t status = job->barrier_start(job->ctx);

    return status == ISO_OK ? wait_barrier() : status;
}

uint32_t wait_death(void)
{
    struct pollfd news = {.fd = job->event_fd, .events = POLLIN};
    uint32_t rank = UINT32_MAX;
    iso_status_t status;

    while ((status = job->next_dead(job->ctx, &rank)) == ISO_INPROGRESS)
        CHECK(poll(&news, 1, 20000) == 1);
    CHECK(status == ISO_OK);
    return rank;
}

int main(int argc, char **argv)
{
    static const scenario_t *const lists[] = {collective_scenarios, mistake_scenarios,
                                              end_scenarios, process_scenarios};
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
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        for (const scenario_t *scenario = lists[i]; scenario->name != NULL; scenario++) {
            if (strcmp(scenario->name, argv[2]) == 0) {
                scenario->run();
                return 0;
            }
        }
    }
    fprintf(stderr, "bootstrap_rank: no scenario %s\n", argv[2]);
    return WRONG;
}
