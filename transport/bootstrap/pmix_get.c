/*
 * pmix_get.c - see pmix_get.h.
 *
 * A server may never answer a question about a rank that has died (PMIx 4.2, whatever limit it is given),
 * so the wait is our own: it ends when the death becomes known. The answer, should it still come, then
 * finds that nobody waits.
 */
#include "pmix_get.h"
#include "pmix_watch.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How long a server may take to hand over what has been put: nobody waits for it but where a host is
 * overloaded, or gone with all its ranks. */
#define GET_SECONDS 30
/* The same for a rank that may have died before it had put anything. */
#define GET_SECONDS_PARTIAL 5
#define LOOK_EVERY 50000000 /* nanoseconds, for deaths */

/* Freed by whoever is the last to need it. */
typedef struct question {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    bool done, abandoned;
    pmix_status_t status;
    void *into; /* room bytes */
    size_t room, len;
} question_t;

static void forget(question_t *question)
{
    pthread_cond_destroy(&question->answered);
    pthread_mutex_destroy(&question->lock);
    free(question);
}

/* In PMIx's thread. */
static void on_answer(pmix_status_t status, pmix_value_t *value, void *arg)
{
    question_t *question = arg;
    bool abandoned;

    pthread_mutex_lock(&question->lock);
    abandoned = question->abandoned;
    question->done = true;
    question->status = status;
    if (!abandoned && status == PMIX_SUCCESS && value->type == PMIX_BYTE_OBJECT) {
        size_t len = value->data.bo.size;

        question->len = len;
        if (len > 0)
            memcpy(question->into, value->data.bo.bytes,
                   len < question->room ? len : question->room);
    } else if (status == PMIX_SUCCESS) {
        question->status = PMIX_ERR_TYPE_MISMATCH;
    }
    pthread_cond_signal(&question->answered);
    pthread_mutex_unlock(&question->lock);
    if (abandoned)
        forget(question);
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* For a moment, unless the answer comes. */
static bool wait_a_moment(question_t *question)
{
    struct timespec until;
    bool done;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += LOOK_EVERY;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&question->lock);
    if (!question->done)
        pthread_cond_timedwait(&question->answered, &question->lock, &until);
    done = question->done;
    pthread_mutex_unlock(&question->lock);
    return done;
}

/* false: it is abandoned, and gone when its answer comes. */
static bool wait_for_answer(iso_pmix_link_t *link, question_t *question, uint32_t rank)
{
    double until = now() + (link->partial ? GET_SECONDS_PARTIAL : GET_SECONDS);
    bool done;

    while (!wait_a_moment(question)) {
        iso_pmix_watch_look(link);
        if (iso_pmix_is_dead(link, rank) || now() >= until)
            break;
    }
    pthread_mutex_lock(&question->lock);
    done = question->done;
    question->abandoned = !done;
    pthread_mutex_unlock(&question->lock);
    return done;
}

static pmix_status_t ask(iso_pmix_link_t *link, uint32_t rank, const char *key, void *into,
                         size_t *len_p)
{
    question_t *question = calloc(1, sizeof *question);
    pmix_proc_t proc = link->self;
    pmix_status_t status;

    if (question == NULL)
        return PMIX_ERR_NOMEM;
    pthread_mutex_init(&question->lock, NULL);
    pthread_cond_init(&question->answered, NULL);
    question->into = into;
    question->room = *len_p;
    proc.rank = rank;
    status = PMIx_Get_nb(&proc, key, NULL, 0, on_answer, question);
    if (status == PMIX_SUCCESS) {
        if (!wait_for_answer(link, question, rank))
            return PMIX_ERR_TIMEOUT;
        status = question->status;
    }
    if (status == PMIX_SUCCESS)
        *len_p = question->len;
    forget(question);
    return status;
}

iso_status_t iso_pmix_get(iso_pmix_link_t *link, uint32_t rank, const char *what, void *into,
                          size_t *len_p)
{
    pmix_key_t key = {0};
    pmix_status_t status;

    if (iso_pmix_is_dead(link, rank))
        return ISO_ERR_PEER_DEAD;
    iso_pmix_key(link, what, key);
    status = ask(link, rank, key, into, len_p);
    if (status == PMIX_SUCCESS)
        return ISO_OK;
    if (status == PMIX_ERR_UNREACH || status == PMIX_ERR_LOST_CONNECTION)
        return iso_pmix_failed(link, "PMIx_Get", status);
    iso_pmix_log(link, ISO_LOG_INFO, "rank %u cannot be asked for %s, it counts as dead: %s", rank,
                 key, PMIx_Error_string(status));
    return ISO_ERR_PEER_DEAD;
}
