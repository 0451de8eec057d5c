/* rank_mistakes.c - calls that make no sense, and processes that are not the rank. */
#include "bootstrap_rank.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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

const scenario_t mistake_scenarios[] = {
    {"mismatch", scenario_mismatch},
    {"too-large", scenario_too_large},
    {"misuse", scenario_misuse},
    {"second", scenario_second},
    {"grandchild", scenario_grandchild},
    {"try-open", scenario_try_open},
    {NULL, NULL},
};
