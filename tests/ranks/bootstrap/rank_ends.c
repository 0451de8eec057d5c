/* rank_ends.c - ranks that end at a bad moment, and what the others hear of it. */
#include "bootstrap_rank.h"
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

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

const scenario_t end_scenarios[] = {
    {"death-in-allgather", scenario_death_in_allgather},
    {"death-in-contribution", scenario_death_in_contribution},
    {"death-news", scenario_death_news},
    {"news-stays", scenario_news_stays},
    {"orderly", scenario_orderly},
    {"exit", scenario_exit},
    {"victim", scenario_victim},
    {"orphan", scenario_orphan},
    {NULL, NULL},
};
