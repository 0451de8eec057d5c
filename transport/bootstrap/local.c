/*
 * local.c - the bootstrap module `local`: ranks of one host, started by iso_run.
 *
 * A rank inherits a socket to iso_run (its number and inode are in the environment), which serves
 * the collectives. The process that opens the module is the rank: a file lock on the socket, which
 * the kernel drops when the process ends, keeps any other from being it at the same time. Closing
 * leaves the socket as it was found, so that the process, or one that follows it, can open it again.
 */
#include "local_link.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct local_job {
    iso_bootstrap_t table;
    iso_local_link_t link;
} local_job_t;

typedef struct local_environment {
    uint64_t rank, size, fd, socket;
} local_environment_t;

/* The process that has the module open; 0: none. The socket is the process's, and two readers of it
 * would steal each other's packets. A forked child finds its parent's number here. */
static _Atomic pid_t local_opener;

/* ---- the environment --------------------------------------------------------------------------- */

static bool read_number(const char *name, uint64_t max, uint64_t *value_p)
{
    const char *text = getenv(name);
    char *end;
    unsigned long long value;

    if (text == NULL || *text < '0' || *text > '9')
        return false;
    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || value > max)
        return false;
    *value_p = value;
    return true;
}

static bool read_environment(local_environment_t *env_p)
{
    return read_number(ISO_LOCAL_ENV_SIZE, ISO_LOCAL_MAX_RANKS, &env_p->size) &&
           read_number(ISO_LOCAL_ENV_RANK, ISO_LOCAL_MAX_RANKS, &env_p->rank) &&
           env_p->rank < env_p->size && read_number(ISO_LOCAL_ENV_FD, INT_MAX, &env_p->fd) &&
           read_number(ISO_LOCAL_ENV_SOCKET, UINT64_MAX, &env_p->socket);
}

static bool local_detect(void)
{
    local_environment_t env;

    return read_environment(&env);
}

/* ---- joining ----------------------------------------------------------------------------------- */

static bool is_our_socket(const local_environment_t *env)
{
    struct stat info;
    int type = 0;
    socklen_t len = sizeof type;

    return fstat((int)env->fd, &info) == 0 && S_ISSOCK(info.st_mode) &&
           info.st_ino == env->socket &&
           getsockopt((int)env->fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 &&
           type == SOCK_SEQPACKET;
}

/* Makes this process the one that speaks for the rank. */
static iso_status_t claim_rank(iso_local_link_t *link)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    pid_t opener = 0;

    if (!atomic_compare_exchange_strong(&local_opener, &opener, link->pid)) {
        if (opener == link->pid)
            iso_local_log(link, ISO_LOG_ERROR,
                          "rank %u (process %d) has the bootstrap open already: finalize the first "
                          "job before another is made",
                          link->rank, (int)link->pid);
        else
            iso_local_log(
                link, ISO_LOG_ERROR,
                "process %d was forked from rank %u (process %d) and cannot join the job: "
                "start a program of its own with iso_run",
                (int)link->pid, link->rank, (int)opener);
        return ISO_ERR_BUSY;
    }
    if (fcntl(link->fd, F_SETLK, &lock) == 0)
        return ISO_OK;
    if ((errno == EAGAIN || errno == EACCES) && fcntl(link->fd, F_GETLK, &lock) == 0)
        iso_local_log(
            link, ISO_LOG_ERROR,
            "process %d cannot join as rank %u: process %d is that rank, and a rank is one "
            "process; unset " ISO_LOCAL_ENV_FD " to run this one on its own",
            (int)link->pid, link->rank, (int)lock.l_pid);
    else
        iso_local_log(link, ISO_LOG_ERROR, "fcntl(F_SETLK) on rank %u's socket %d: errno %d",
                      link->rank, link->fd, errno);
    atomic_store(&local_opener, 0);
    return ISO_ERR_BUSY;
}

static void unclaim_rank(iso_local_link_t *link)
{
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    fcntl(link->fd, F_SETLK, &lock);
    atomic_store(&local_opener, 0);
}

static iso_status_t open_events(iso_local_link_t *link)
{
    int error = news_open(&link->news);

    if (error == 0) {
        error = news_add(&link->news, link->fd);
        if (error == 0)
            return ISO_OK;
        news_close(&link->news);
    }
    iso_local_log(link, ISO_LOG_ERROR, "no descriptors for events: errno %d%s", error,
                  error == EMFILE ? "; raise ulimit -n" : "");
    return ISO_ERR_SYSTEM;
}

static iso_status_t say_hello(iso_local_link_t *link)
{
    const iso_local_hello_t mine = {.rank = link->rank, .size = link->size};
    iso_local_hello_t theirs = {0};
    uint64_t len = 0;
    iso_status_t status;

    iso_local_expect(link, ISO_LOCAL_HELLO, &theirs, sizeof theirs);
    status = iso_local_send(link, ISO_LOCAL_HELLO, link->rank, &mine, sizeof mine);
    if (status == ISO_OK)
        status = iso_local_wait(link, &len);
    if (status != ISO_OK)
        return status;
    if (len == sizeof theirs && theirs.rank == mine.rank && theirs.size == mine.size)
        return ISO_OK;
    iso_local_log(
        link, ISO_LOG_ERROR,
        "the environment says rank %u of %u and iso_run says rank %u of %u: do not change "
        "ISO_LOCAL_* variables",
        mine.rank, mine.size, theirs.rank, theirs.size);
    return ISO_ERR_INVALID;
}

/* Another number for every open of this socket, whichever process does it. */
static uint64_t join_number(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return ((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec) ^
           ((uint64_t)getpid() << 48);
}

/* ---- the table --------------------------------------------------------------------------------- */

/* May this call talk to iso_run? A child of fork shares the socket and would spoil the answers. */
static iso_status_t check_caller(const iso_local_link_t *link)
{
    if (link->lost)
        return ISO_ERR_SYSTEM;
    if (link->pid == getpid())
        return ISO_OK;
    iso_local_log(link, ISO_LOG_ERROR,
                  "process %d was forked from rank %u and used its job: only process %d may",
                  (int)getpid(), link->rank, (int)link->pid);
    return ISO_ERR_INVALID;
}

static iso_status_t local_allgather(void *ctx, const void *mine, void *all, size_t len)
{
    iso_local_link_t *link = &((local_job_t *)ctx)->link;
    iso_status_t status = check_caller(link);
    uint64_t got;

    if (status != ISO_OK)
        return status;
    iso_local_expect(link, ISO_LOCAL_ALLGATHER, all, (uint64_t)len * link->size);
    status = iso_local_send(link, ISO_LOCAL_ALLGATHER, link->rank, mine, len);
    if (status == ISO_OK)
        status = iso_local_wait(link, &got);
    iso_local_settle(link);
    return status;
}

static iso_status_t local_publish(void *ctx, const void *blob, size_t len)
{
    iso_local_link_t *link = &((local_job_t *)ctx)->link;
    iso_status_t status = check_caller(link);

    if (status != ISO_OK)
        return status;
    if (len > ISO_LOCAL_MAX_BLOB) {
        iso_local_log(link, ISO_LOG_ERROR,
                      "a blob of %zu bytes cannot be published: at most %u can", len,
                      ISO_LOCAL_MAX_BLOB);
        return ISO_ERR_INVALID;
    }
    status = iso_local_send(link, ISO_LOCAL_PUBLISH, link->rank, blob, len);
    iso_local_settle(link);
    return status;
}

static iso_status_t local_lookup(void *ctx, uint32_t rank, void *blob, size_t *len_p)
{
    iso_local_link_t *link = &((local_job_t *)ctx)->link;
    iso_status_t status = check_caller(link);
    uint64_t len;

    if (status != ISO_OK)
        return status;
    if (rank >= link->size) {
        iso_local_log(link, ISO_LOG_ERROR, "there is no rank %u in a job of %u", rank, link->size);
        return ISO_ERR_RANK;
    }
    iso_local_expect(link, ISO_LOCAL_LOOKUP, blob, *len_p);
    status = iso_local_send(link, ISO_LOCAL_LOOKUP, rank, NULL, 0);
    if (status == ISO_OK)
        status = iso_local_wait(link, &len);
    if (status == ISO_OK)
        *len_p = (size_t)len;
    iso_local_settle(link);
    return status;
}

static iso_status_t local_barrier_start(void *ctx)
{
    iso_local_link_t *link = &((local_job_t *)ctx)->link;
    iso_status_t status = check_caller(link);

    if (status != ISO_OK)
        return status;
    if (link->barrier_open) {
        iso_local_log(link, ISO_LOG_ERROR,
                      "rank %u starts a barrier while one is under way: test it to its end first",
                      link->rank);
        return ISO_ERR_INVALID;
    }
    link->barrier_open = true;
    link->barrier_done = false;
    status = iso_local_send(link, ISO_LOCAL_BARRIER, link->rank, NULL, 0);
    if (status != ISO_OK) /* told here, not by a test */
        link->barrier_open = link->barrier_done = false;
    iso_local_settle(link);
    return status;
}

static iso_status_t local_barrier_test(void *ctx)
{
    iso_local_link_t *link = &((local_job_t *)ctx)->link;
    iso_status_t status;

    if (!link->barrier_open && !link->lost) {
        iso_local_log(link, ISO_LOG_ERROR, "rank %u tests a barrier that it has not started",
                      link->rank);
        return ISO_ERR_INVALID;
    }
    status = check_caller(link);
    if (status == ISO_OK)
        status = iso_local_take_all(link);
    if (link->barrier_done) { /* also when iso_run went away just after it */
        status = link->barrier_status;
        link->barrier_open = link->barrier_done = false;
    } else if (status == ISO_OK) {
        status = ISO_INPROGRESS;
    }
    iso_local_settle(link);
    return status;
}

static iso_status_t local_next_dead(void *ctx, uint32_t *rank_p)
{
    iso_local_link_t *link = &((local_job_t *)ctx)->link;
    iso_status_t status = check_caller(link);

    if (status == ISO_OK)
        status = iso_local_take_all(link);
    if (link->dead_fetched < link->dead_count) { /* known before iso_run went away: still true */
        *rank_p = link->dead[link->dead_fetched++];
        status = ISO_OK;
    } else if (status == ISO_OK) {
        status = ISO_INPROGRESS;
    }
    iso_local_settle(link);
    return status;
}

static void local_free(local_job_t *job)
{
    news_close(&job->link.news);
    free(job->link.dead);
    free(job);
}

static void local_close(void *ctx)
{
    local_job_t *job = ctx;
    iso_local_link_t *link = &job->link;

    if (link->pid == getpid()) { /* a forked child only drops its copy */
        if (!link->lost)
            iso_local_send(link, ISO_LOCAL_BYE, link->rank, NULL, 0);
        fcntl(link->fd, F_SETFD, 0);
        unclaim_rank(link);
    }
    local_free(job);
}

/* ---- the module -------------------------------------------------------------------------------- */

static local_job_t *local_new(const local_environment_t *env,
                              void (*log)(iso_log_level_t level, const char *text))
{
    local_job_t *job = calloc(1, sizeof *job);

    if (job == NULL)
        return NULL;
    job->link = (iso_local_link_t){.log = log,
                                   .rank = (uint32_t)env->rank,
                                   .size = (uint32_t)env->size,
                                   .pid = getpid(),
                                   .fd = (int)env->fd,
                                   .join = join_number(),
                                   .dead = calloc(env->size, sizeof *job->link.dead)};
    if (job->link.dead == NULL) {
        free(job);
        return NULL;
    }
    job->table = (iso_bootstrap_t){.abi_version = ISO_BOOTSTRAP_ABI,
                                   .name = "local",
                                   .ctx = job,
                                   .rank = (uint32_t)env->rank,
                                   .size = (uint32_t)env->size,
                                   .allgather = local_allgather,
                                   .publish = local_publish,
                                   .lookup = local_lookup,
                                   .barrier_start = local_barrier_start,
                                   .barrier_test = local_barrier_test,
                                   .next_dead = local_next_dead,
                                   .close = local_close};
    return job;
}

static iso_status_t local_open(void (*log)(iso_log_level_t level, const char *text),
                               iso_bootstrap_t **bootstrap_p)
{
    const iso_local_link_t nobody = {.log = log};
    local_environment_t env;
    local_job_t *job;
    iso_status_t status;

    if (!read_environment(&env)) {
        log(ISO_LOG_ERROR,
            "ISO_LOCAL_RANK, _SIZE, _FD or _SOCKET is missing or no number: bootstrap "
            "local needs a program started by iso_run -n");
        return ISO_ERR_INVALID;
    }
    if (!is_our_socket(&env)) {
        iso_local_log(&nobody, ISO_LOG_ERROR,
                      "descriptor %llu is not rank %llu's connection to iso_run: a process between "
                      "iso_run and this one has closed it; keep it open, or unset " ISO_LOCAL_ENV_FD
                      " to run on its own",
                      (unsigned long long)env.fd, (unsigned long long)env.rank);
        return ISO_ERR_INVALID;
    }
    job = local_new(&env, log);
    if (job == NULL) {
        iso_local_log(&nobody, ISO_LOG_ERROR, "no memory for the bootstrap of %llu ranks",
                      (unsigned long long)env.size);
        return ISO_ERR_NO_MEMORY;
    }
    status = claim_rank(&job->link);
    if (status != ISO_OK)
        goto fail_job;
    status = open_events(&job->link);
    if (status != ISO_OK)
        goto fail_claim;
    job->table.event_fd = job->link.news.event_fd;
    /* What the rank starts is not the rank; its copy would also hide the rank's end. */
    fcntl(job->link.fd, F_SETFD, FD_CLOEXEC);
    status = say_hello(&job->link);
    if (status != ISO_OK)
        goto fail_events;
    iso_local_settle(&job->link);
    *bootstrap_p = &job->table;
    return ISO_OK;

fail_events:
    fcntl(job->link.fd, F_SETFD, 0);
    news_close(&job->link.news);
fail_claim:
    unclaim_rank(&job->link);
fail_job:
    free(job->link.dead);
    free(job);
    return status;
}

ISO_API const iso_bootstrap_module_t iso_bootstrap_module = {
    .abi_version = ISO_BOOTSTRAP_ABI,
    .name = "local",
    .detect = local_detect,
    .open = local_open,
};
