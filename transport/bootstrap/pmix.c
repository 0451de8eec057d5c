/*
 * pmix.c - the bootstrap module `pmix`: ranks that a launcher with a PMIx server has started, such as
 * Open MPI's mpirun, prterun, and srun --mpi=pmix.
 *
 * What a rank costs at the start does not depend on the number of ranks: fences carry no data, and a
 * rank asks only for what it names (gather) or looks up. Collectives are fences of the whole
 * namespace: while a thread is in one, no other may be in one, be it MPI's.
 */
#include "pmix_fence.h"
#include "pmix_get.h"
#include "pmix_link.h"
#include "pmix_watch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_BLOB 4096
#define CARD "card" /* what a rank publishes */

/* A process is one rank of one namespace: there is one link, which outlives its opens. */
static iso_pmix_link_t the_link = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                   .watch = {.claim_fd = -1, .bye_fd = -1, .pid_fd = -1}};

static bool pmix_detect(void)
{
    return getenv("PMIX_NAMESPACE") != NULL && getenv("PMIX_RANK") != NULL;
}

/* ---- the table --------------------------------------------------------------------------------- */

static iso_status_t check_caller(const iso_pmix_link_t *link)
{
    if (link->pid == getpid())
        return ISO_OK;
    iso_pmix_log(link, ISO_LOG_ERROR,
                 "process %d was forked from rank %u and used its job: only process %d may",
                 (int)getpid(), link->self.rank, (int)link->pid);
    return ISO_ERR_INVALID;
}

/* One's own part need not be asked for; a dead rank's is zeros, as is what lacks of another length. */
static iso_status_t fetch(iso_pmix_link_t *link, uint32_t rank, const char *what, const void *mine,
                          void *into, size_t len)
{
    size_t got = len;
    iso_status_t status;

    if (rank == link->self.rank && mine != NULL) {
        memcpy(into, mine, len);
        return ISO_OK;
    }
    memset(into, 0, len);
    status = iso_pmix_get(link, rank, what, into, &got);
    return status == ISO_ERR_PEER_DEAD ? ISO_OK : status;
}

static iso_status_t check_ranks(const iso_pmix_link_t *link, const uint32_t *ranks, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (ranks[i] >= link->size) {
            iso_pmix_log(link, ISO_LOG_ERROR, "there is no rank %u in a job of %u", ranks[i],
                         link->size);
            return ISO_ERR_RANK;
        }
    return ISO_OK;
}

/* Collective. ranks NULL: all. */
static iso_status_t exchange(iso_pmix_link_t *link, const void *mine, size_t len,
                             const uint32_t *ranks, uint32_t count, void *theirs)
{
    char what[24];
    iso_status_t status = check_caller(link);

    if (status == ISO_OK && ranks != NULL)
        status = check_ranks(link, ranks, count);
    snprintf(what, sizeof what, "%" PRIu32, link->round++);
    if (status == ISO_OK && mine != NULL)
        status = iso_pmix_put(link, what, mine, len);
    if (status == ISO_OK)
        status = iso_pmix_fence(link);
    if (status == ISO_OK)
        iso_pmix_watch_look(link);
    for (uint32_t i = 0; i < count && status == ISO_OK; i++)
        status =
            fetch(link, ranks != NULL ? ranks[i] : i, what, mine, (char *)theirs + i * len, len);
    return status;
}

static iso_status_t pmix_allgather(void *ctx, const void *mine, void *all, size_t len)
{
    iso_pmix_link_t *link = ctx;

    return exchange(link, mine, len, NULL, link->size, all);
}

static iso_status_t pmix_gather(void *ctx, const void *mine, size_t len, const uint32_t *ranks,
                                uint32_t count, void *theirs)
{
    return exchange(ctx, mine, len, ranks, count, theirs);
}

static iso_status_t pmix_publish(void *ctx, const void *blob, size_t len)
{
    iso_pmix_link_t *link = ctx;
    iso_status_t status = check_caller(link);

    if (status == ISO_OK && len > MAX_BLOB) {
        iso_pmix_log(link, ISO_LOG_ERROR, "a blob of %zu bytes cannot be published: at most %d can",
                     len, MAX_BLOB);
        status = ISO_ERR_INVALID;
    }
    return status == ISO_OK ? iso_pmix_put(link, CARD, blob, len) : status;
}

static iso_status_t pmix_lookup(void *ctx, uint32_t rank, void *blob, size_t *len_p)
{
    iso_pmix_link_t *link = ctx;
    iso_status_t status = check_caller(link);
    size_t len = *len_p;

    if (status == ISO_OK)
        status = check_ranks(link, &rank, 1);
    if (status == ISO_OK)
        status = iso_pmix_get(link, rank, CARD, blob, &len);
    if (status == ISO_OK && len > *len_p) {
        iso_pmix_log(link, ISO_LOG_ERROR,
                     "rank %u has published %zu bytes where the caller has room for %zu", rank, len,
                     *len_p);
        status = ISO_ERR_INVALID;
    }
    if (status == ISO_OK)
        *len_p = len;
    return status;
}

static iso_status_t pmix_barrier_start(void *ctx)
{
    iso_pmix_link_t *link = ctx;
    iso_status_t status = check_caller(link);

    if (status != ISO_OK)
        return status;
    if (link->barrier_open) { /* only this side opens and closes it */
        iso_pmix_log(link, ISO_LOG_ERROR,
                     "rank %u starts a barrier while one is under way: test it to its end first",
                     link->self.rank);
        return ISO_ERR_INVALID;
    }
    return iso_pmix_fence_start(link);
}

static iso_status_t pmix_barrier_test(void *ctx)
{
    iso_pmix_link_t *link = ctx;
    iso_status_t status = check_caller(link);

    if (status != ISO_OK)
        return status;
    if (!link->barrier_open) {
        iso_pmix_log(link, ISO_LOG_ERROR, "rank %u tests a barrier that it has not started",
                     link->self.rank);
        return ISO_ERR_INVALID;
    }
    iso_pmix_watch_look(link); /* it makes event_fd readable, whoever waits for what */
    return iso_pmix_fence_test(link);
}

static iso_status_t pmix_next_dead(void *ctx, uint32_t *rank_p)
{
    iso_pmix_link_t *link = ctx;
    iso_status_t status = check_caller(link);

    if (status != ISO_OK)
        return status;
    iso_pmix_watch_look(link);
    return iso_pmix_next_dead(link, rank_p) ? ISO_OK : ISO_INPROGRESS;
}

/* ---- open and close ---------------------------------------------------------------------------- */

static iso_status_t open_events(iso_pmix_link_t *link)
{
    int error = news_open(&link->news);

    if (error == 0)
        return ISO_OK;
    iso_pmix_log(link, ISO_LOG_ERROR, "no descriptors for events: errno %d%s", error,
                 error == EMFILE ? "; raise ulimit -n" : "");
    return ISO_ERR_SYSTEM;
}

static void close_events(iso_pmix_link_t *link)
{
    pthread_mutex_lock(&link->lock); /* PMIx's thread must not raise what is another's by then */
    link->open = link->barrier_open = false;
    news_close(&link->news);
    pthread_mutex_unlock(&link->lock);
}

static void pmix_close(void *ctx)
{
    iso_pmix_link_t *link = ctx;

    if (link->pid != getpid()) /* a forked child: all that it could close is its parent's */
        return;
    iso_pmix_watch_leave(link);
    close_events(link);
}

/* What the environment says: PMIx says the same, but to ask it would disturb who is the rank. */
static iso_status_t read_rank(uint32_t *rank_p)
{
    const char *text = getenv("PMIX_RANK");
    char *end = NULL;
    unsigned long rank = 0;

    errno = 0;
    if (text != NULL && *text >= '0' && *text <= '9')
        rank = strtoul(text, &end, 10);
    if (errno == 0 && end != NULL && *end == '\0' && rank <= PMIX_RANK_VALID) {
        *rank_p = (uint32_t)rank;
        return ISO_OK;
    }
    iso_pmix_log(&the_link, ISO_LOG_ERROR, "PMIX_RANK=%s is no rank: do not change it",
                 text != NULL ? text : "");
    return ISO_ERR_INVALID;
}

static iso_status_t start(iso_pmix_link_t *link)
{
    uint32_t rank;
    iso_status_t status = read_rank(&rank);

    if (status == ISO_OK)
        status = iso_pmix_claim(link, rank);
    if (status != ISO_OK)
        return status;
    status = iso_pmix_join(link);
    if (status != ISO_OK)
        goto leave;
    status = open_events(link);
    if (status != ISO_OK)
        goto leave;
    link->opens++;
    link->round = 0;
    pthread_mutex_lock(&link->lock);
    link->open = true;
    link->dead_fetched = 0; /* who is dead is dead in this job, too: told again */
    iso_pmix_settle(link);
    pthread_mutex_unlock(&link->lock);
    status = iso_pmix_watch_offer(link);
    if (status == ISO_OK)
        return ISO_OK;
    close_events(link);
leave:
    iso_pmix_watch_leave(link);
    return status;
}

static iso_status_t pmix_open(void (*log)(iso_log_level_t level, const char *text),
                              iso_bootstrap_t **bootstrap_p)
{
    static iso_bootstrap_t table;
    iso_pmix_link_t *link = &the_link;
    iso_status_t status;

    if (!pmix_detect()) {
        log(ISO_LOG_ERROR, "PMIX_NAMESPACE or PMIX_RANK is missing: bootstrap pmix needs a program "
                           "started by a launcher with PMIx, such as mpirun or srun --mpi=pmix");
        return ISO_ERR_INVALID;
    }
    link->log = log;
    if (link->pid != 0 && link->pid != getpid()) {
        iso_pmix_log(link, ISO_LOG_ERROR,
                     "process %d was forked from rank %u (process %d) and cannot join the job",
                     (int)getpid(), link->self.rank, (int)link->pid);
        return ISO_ERR_BUSY;
    }
    if (link->open) {
        iso_pmix_log(link, ISO_LOG_ERROR,
                     "rank %u (process %d) has the bootstrap open already: finalize the first job "
                     "before another is made",
                     link->self.rank, (int)link->pid);
        return ISO_ERR_BUSY;
    }
    status = start(link);
    if (status != ISO_OK)
        return status;
    table = (iso_bootstrap_t){.abi_version = ISO_BOOTSTRAP_ABI,
                              .name = "pmix",
                              .ctx = link,
                              .rank = link->self.rank,
                              .size = link->size,
                              .allgather = pmix_allgather,
                              .gather = link->host_count > 0 ? pmix_gather : NULL,
                              .host_ranks = link->host_ranks,
                              .host_count = link->host_count,
                              .publish = pmix_publish,
                              .lookup = pmix_lookup,
                              .barrier_start = pmix_barrier_start,
                              .barrier_test = pmix_barrier_test,
                              .next_dead = pmix_next_dead,
                              .event_fd = link->news.event_fd,
                              .close = pmix_close};
    *bootstrap_p = &table;
    return ISO_OK;
}

ISO_API const iso_bootstrap_module_t iso_bootstrap_module = {
    .abi_version = ISO_BOOTSTRAP_ABI,
    .name = "pmix",
    .detect = pmix_detect,
    .open = pmix_open,
};
