/*
 * pmix_link.c - see pmix_link.h.
 *
 * Data goes rank to rank on request (direct modex): fences carry none. Keys are never put twice, since
 * servers keep what they have fetched: they have the number of the open and of the collective in them.
 */
#include "pmix_link.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A rank of this host has died; iso.dead says which. */
#define DEATH_EVENT (PMIX_EXTERNAL_ERR_BASE - 0x150)
#define DEATH_RANK "iso.dead"

void iso_pmix_log(const iso_pmix_link_t *link, iso_log_level_t level, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    link->log(level, text);
}

iso_status_t iso_pmix_failed(const iso_pmix_link_t *link, const char *call, pmix_status_t error)
{
    iso_pmix_log(link, ISO_LOG_ERROR, "%s: %s; is the launcher gone?", call,
                 PMIx_Error_string(error));
    return ISO_ERR_SYSTEM;
}

/* ---- news -------------------------------------------------------------------------------------- */

void iso_pmix_settle(iso_pmix_link_t *link)
{
    bool ended = link->barrier_open && link->fences_ended == link->fences_started;

    if (link->open) /* else there is nobody to tell, and no descriptor */
        news_set(&link->news, ended || link->dead_fetched < link->dead_count);
}

/* ---- deaths ------------------------------------------------------------------------------------ */

static bool is_dead(const iso_pmix_link_t *link, uint32_t rank)
{
    for (uint32_t i = 0; i < link->dead_count; i++)
        if (link->dead[i] == rank)
            return true;
    return false;
}

bool iso_pmix_is_dead(iso_pmix_link_t *link, uint32_t rank)
{
    bool dead;

    pthread_mutex_lock(&link->lock);
    dead = is_dead(link, rank);
    pthread_mutex_unlock(&link->lock);
    return dead;
}

void iso_pmix_add_dead(iso_pmix_link_t *link, uint32_t rank)
{
    pthread_mutex_lock(&link->lock);
    if (rank < link->size && rank != link->self.rank && !is_dead(link, rank)) {
        if (link->dead_count == link->dead_room) {
            uint32_t room = link->dead_room == 0 ? 16 : link->dead_room * 2;
            uint32_t *larger = realloc(link->dead, room * sizeof *larger);

            if (larger == NULL)
                abort(); /* a death that is forgotten leaves somebody waiting for ever */
            link->dead = larger;
            link->dead_room = room;
        }
        link->dead[link->dead_count++] = rank;
        iso_pmix_settle(link);
    }
    pthread_mutex_unlock(&link->lock);
}

bool iso_pmix_next_dead(iso_pmix_link_t *link, uint32_t *rank_p)
{
    bool more;

    pthread_mutex_lock(&link->lock);
    more = link->dead_fetched < link->dead_count;
    if (more)
        *rank_p = link->dead[link->dead_fetched++];
    iso_pmix_settle(link);
    pthread_mutex_unlock(&link->lock);
    return more;
}

/* The link of this process, for PMIx's thread: events come with no argument of ours. */
static iso_pmix_link_t *own_link;

static void note_death(const pmix_proc_t *proc)
{
    if (proc != NULL && PMIX_CHECK_NSPACE(proc->nspace, own_link->self.nspace))
        iso_pmix_add_dead(own_link, proc->rank);
}

/* In PMIx's thread. */
static void on_event(size_t id, pmix_status_t event, const pmix_proc_t *source, pmix_info_t info[],
                     size_t ninfo, pmix_info_t *results, size_t nresults,
                     pmix_event_notification_cbfunc_fn_t done, void *done_arg)
{
    bool affected = false;

    (void)id, (void)results, (void)nresults;
    for (size_t i = 0; i < ninfo; i++) {
        const pmix_value_t *value = &info[i].value;

        if (event == DEATH_EVENT && PMIX_CHECK_KEY(&info[i], DEATH_RANK) &&
            value->type == PMIX_UINT32 &&
            PMIX_CHECK_NSPACE(source->nspace, own_link->self.nspace)) {
            iso_pmix_add_dead(own_link, value->data.uint32);
        } else if (PMIX_CHECK_KEY(&info[i], PMIX_EVENT_AFFECTED_PROC) && value->type == PMIX_PROC) {
            note_death(value->data.proc);
            affected = true;
        }
    }
    if (event != DEATH_EVENT && !affected)
        note_death(source);
    if (done != NULL) /* other handlers, MPI's say, are to see what the launcher says */
        done(event == DEATH_EVENT ? PMIX_EVENT_ACTION_COMPLETE : PMIX_EVENT_NO_ACTION_TAKEN, NULL,
             0, NULL, NULL, done_arg);
}

static void free_info(pmix_status_t status, void *arg)
{
    pmix_info_t *info = arg;

    (void)status;
    PMIX_INFO_FREE(info, 2);
}

void iso_pmix_tell_dead(iso_pmix_link_t *link, uint32_t rank)
{
    pmix_info_t *info;
    pmix_status_t status;

    PMIX_INFO_CREATE(info, 2);
    if (info == NULL)
        return;
    PMIX_INFO_LOAD(&info[0], DEATH_RANK, &rank, PMIX_UINT32);
    PMIX_INFO_LOAD(&info[1], PMIX_EVENT_NON_DEFAULT, NULL, PMIX_BOOL);
    /* Not further than the host: Open MPI 4.1 over PMIx 4.2 hangs when it is to pass an event on. */
    status =
        PMIx_Notify_event(DEATH_EVENT, &link->self, PMIX_RANGE_LOCAL, info, 2, free_info, info);
    if (status != PMIX_SUCCESS)
        free_info(status, info);
}

/* ---- joining ----------------------------------------------------------------------------------- */

static pmix_status_t ask_about_job(iso_pmix_link_t *link, const char *key, pmix_value_t **value_p)
{
    pmix_proc_t all = link->self;

    all.rank = PMIX_RANK_WILDCARD;
    return PMIx_Get(&all, key, NULL, 0, value_p);
}

static int by_number(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

    return (left > right) - (left < right);
}

/* "0,1,5": the ranks of this host, itself among them. */
static bool read_peers(iso_pmix_link_t *link, const char *text)
{
    uint32_t count = 1, i = 0;
    bool own = false;

    for (const char *at = text; *at != '\0'; at++)
        count += *at == ',';
    link->host_ranks = malloc(count * sizeof *link->host_ranks);
    if (link->host_ranks == NULL)
        return false;
    for (const char *at = text;; at++) {
        char *end;
        unsigned long rank;

        errno = 0;
        rank = strtoul(at, &end, 10);
        if (errno != 0 || end == at || *at == '-' || rank >= link->size ||
            (*end != ',' && *end != '\0'))
            break;
        link->host_ranks[i++] = (uint32_t)rank;
        own = own || rank == link->self.rank;
        at = end;
        if (*at == '\0')
            break;
    }
    if (i != count || !own) {
        free(link->host_ranks);
        link->host_ranks = NULL;
        return false;
    }
    qsort(link->host_ranks, count, sizeof *link->host_ranks, by_number);
    link->host_count = count;
    return true;
}

/* Does the job go on when a rank has died? Open MPI 4.1 says it in the environment only. */
static bool asks_for_survivors(iso_pmix_link_t *link)
{
    const char *orte = getenv("OMPI_MCA_orte_enable_recovery");
    bool answer = orte != NULL && *orte == '1';
    pmix_value_t *value;

    if (answer || ask_about_job(link, PMIX_JOB_RECOVERABLE, &value) != PMIX_SUCCESS)
        return answer;
    answer = value->type == PMIX_BOOL && value->data.flag;
    PMIX_VALUE_RELEASE(value);
    return answer;
}

static iso_status_t find_place(iso_pmix_link_t *link)
{
    pmix_value_t *value;
    pmix_status_t status = ask_about_job(link, PMIX_JOB_SIZE, &value);

    if (status != PMIX_SUCCESS)
        return iso_pmix_failed(link, "PMIx_Get of the job's size", status);
    link->size = value->type == PMIX_UINT32 ? value->data.uint32 : 0;
    PMIX_VALUE_RELEASE(value);
    if (link->self.rank >= link->size) {
        iso_pmix_log(link, ISO_LOG_ERROR, "the launcher says rank %u of %u ranks", link->self.rank,
                     link->size);
        return ISO_ERR_SYSTEM;
    }
    status = ask_about_job(link, PMIX_LOCAL_PEERS, &value);
    if (status == PMIX_SUCCESS && value->type == PMIX_STRING && value->data.string != NULL)
        read_peers(link, value->data.string);
    if (status == PMIX_SUCCESS)
        PMIX_VALUE_RELEASE(value);
    if (link->host_count == 0)
        iso_pmix_log(link, ISO_LOG_INFO,
                     "the launcher does not say which ranks are on this host: all ranks exchange "
                     "where they are, and deaths are known only from it");
    link->keeps_survivors = asks_for_survivors(link);
    return ISO_OK;
}

typedef struct registration {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    pmix_status_t status;
} registration_t;

static void on_registered(pmix_status_t status, size_t id, void *arg)
{
    registration_t *registration = arg;

    (void)id;
    pthread_mutex_lock(&registration->lock);
    registration->status = status;
    registration->done = true;
    pthread_cond_signal(&registration->ended);
    pthread_mutex_unlock(&registration->lock);
}

/* What launchers say when a process ends that should not, and what our own ranks say. */
static iso_status_t listen_for_deaths(iso_pmix_link_t *link)
{
    pmix_status_t events[] = {PMIX_ERR_PROC_ABORTED,
                              PMIX_ERR_PROC_REQUESTED_ABORT,
#ifdef PMIX_ERR_PROC_TERM_WO_SYNC
                              PMIX_ERR_PROC_TERM_WO_SYNC,
#endif
#ifdef PMIX_ERR_PROC_KILLED_BY_CMD
                              PMIX_ERR_PROC_KILLED_BY_CMD,
                              PMIX_ERR_PROC_ABORTED_BY_SIG,
                              PMIX_ERR_EXIT_NONZERO_TERM,
#endif
                              DEATH_EVENT};
    registration_t registration = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                   .ended = PTHREAD_COND_INITIALIZER};

    PMIx_Register_event_handler(events, sizeof events / sizeof *events, NULL, 0, on_event,
                                on_registered, &registration);
    pthread_mutex_lock(&registration.lock);
    while (!registration.done)
        pthread_cond_wait(&registration.ended, &registration.lock);
    pthread_mutex_unlock(&registration.lock);
    return registration.status == PMIX_SUCCESS
               ? ISO_OK
               : iso_pmix_failed(link, "PMIx_Register_event_handler", registration.status);
}

static iso_status_t no_server(const iso_pmix_link_t *link, pmix_status_t error)
{
    iso_pmix_log(
        link, ISO_LOG_ERROR,
        "PMIx_Init as rank %s of PMIX_NAMESPACE=%s: %s; start with mpirun or srun "
        "--mpi=pmix, and while the launcher runs, or set ISO_BOOTSTRAP=single for a job of "
        "one rank",
        getenv("PMIX_RANK"), getenv("PMIX_NAMESPACE"), PMIx_Error_string(error));
    return ISO_ERR_SYSTEM;
}

iso_status_t iso_pmix_join(iso_pmix_link_t *link)
{
    pmix_status_t error;
    iso_status_t status;

    if (link->size > 0)
        return ISO_OK;
    if (link->pid == 0) {
        error = PMIx_Init(&link->self, NULL, 0);
        if (error != PMIX_SUCCESS)
            return no_server(link, error);
        link->pid = getpid();
        own_link = link;
    }
    status = find_place(link);
    if (status == ISO_OK)
        status = listen_for_deaths(link);
    if (status != ISO_OK)
        link->size = 0; /* asked again at the next open */
    return status;
}

/* A client that ends without it counts as one that has failed, and the launcher ends the job. */
__attribute__((destructor)) static void leave_at_exit(void)
{
    if (own_link != NULL && own_link->pid == getpid())
        PMIx_Finalize(NULL, 0);
}

/* ---- data -------------------------------------------------------------------------------------- */

void iso_pmix_key(const iso_pmix_link_t *link, const char *what, pmix_key_t key)
{
    snprintf(key, sizeof(pmix_key_t), "iso.%" PRIu32 ".%s", link->opens, what);
}

iso_status_t iso_pmix_put(iso_pmix_link_t *link, const char *what, const void *data, size_t len)
{
    pmix_value_t value = {.type = PMIX_BYTE_OBJECT};
    pmix_key_t key = {0};
    pmix_status_t status;

    iso_pmix_key(link, what, key);
    value.data.bo.bytes = (char *)(uintptr_t)data;
    value.data.bo.size = len;
    status = PMIx_Put(PMIX_GLOBAL, key, &value);
    if (status != PMIX_SUCCESS)
        return iso_pmix_failed(link, "PMIx_Put", status);
    status = PMIx_Commit();
    return status == PMIX_SUCCESS ? ISO_OK : iso_pmix_failed(link, "PMIx_Commit", status);
}
