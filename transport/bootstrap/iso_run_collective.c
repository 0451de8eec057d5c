/*
 * iso_run_collective.c - matching the ranks' allgathers and barriers.
 *
 * The k-th call of a rank belongs to the k-th of every other. The first rank that comes says what
 * the collective is; who then calls something else makes it fail for all, those still to come
 * included, and the next call starts afresh. Ranks that are gone are not waited for: with
 * --keep-going the others get zeros for them, without it the job ends. Memory: one result being
 * gathered, and one being sent.
 */
#include "iso_run.h"

#include <stdio.h>
#include <string.h>

static void describe(char *text, size_t room, uint16_t kind, uint64_t len)
{
    if (kind == ISO_LOCAL_BARRIER)
        snprintf(text, room, "a barrier");
    else
        snprintf(text, room, "an allgather of %llu bytes", (unsigned long long)len);
}

static void answer(iso_run_job_t *job, iso_run_rank_t *rank)
{
    iso_run_collective_t *collective = &job->collective;

    if (!rank->joined || rank->join != rank->arrived_join)
        return; /* it left while it was waiting */
    if (collective->error != NULL)
        iso_run_link_refuse(job, rank, rank->request, collective->status, collective->error);
    else if (collective->kind == ISO_LOCAL_BARRIER)
        iso_run_link_answer(job, rank, ISO_LOCAL_PASSED, rank->rank, NULL);
    else
        iso_run_link_answer(job, rank, ISO_LOCAL_GATHERED, rank->rank, collective->gather);
}

/* Every rank that waits is told now, the others when they come. */
static void fail(iso_run_job_t *job, iso_status_t status, const char *text)
{
    iso_run_collective_t *collective = &job->collective;

    if (collective->error != NULL)
        return;
    collective->error = iso_run_bytes_copy(text, strlen(text));
    collective->status = status;
    iso_run_bytes_drop(collective->gather);
    collective->gather = NULL;
    for (uint32_t i = 0; i < job->options->size; i++)
        if (job->ranks[i].arrived)
            answer(job, &job->ranks[i]);
}

static void finish(iso_run_job_t *job)
{
    iso_run_collective_t *collective = &job->collective;

    for (uint32_t i = 0; i < job->options->size; i++) {
        iso_run_rank_t *rank = &job->ranks[i];

        if (rank->arrived && collective->error == NULL)
            answer(job, rank);
        rank->arrived = rank->contributing = rank->suspended = false;
        iso_run_link_watch(job, rank); /* its next call may be waiting in the socket */
    }
    iso_run_bytes_drop(collective->gather);
    iso_run_bytes_drop(collective->error);
    *collective = (iso_run_collective_t){0};
}

static void start(iso_run_job_t *job, const iso_run_rank_t *rank, const iso_local_head_t *head)
{
    const uint64_t size = job->options->size;
    char text[ISO_LOCAL_MAX_TEXT];

    job->collective = (iso_run_collective_t){
        .open = true, .kind = head->type, .len = head->total, .first = rank->rank};
    if (head->type == ISO_LOCAL_BARRIER)
        return;
    if (head->total > ISO_LOCAL_MAX_GATHER / size) {
        snprintf(text, sizeof text,
                 "an allgather of %llu bytes by each of %llu ranks is too large: at "
                 "most %llu bytes in all",
                 (unsigned long long)head->total, (unsigned long long)size,
                 (unsigned long long)ISO_LOCAL_MAX_GATHER);
        fail(job, ISO_ERR_LIMIT, text);
        return;
    }
    job->collective.gather = iso_run_bytes_new(head->total * size);
    if (job->collective.gather == NULL) {
        snprintf(text, sizeof text,
                 "iso_run has no memory for an allgather of %llu bytes by each of "
                 "%llu ranks",
                 (unsigned long long)head->total, (unsigned long long)size);
        fail(job, ISO_ERR_NO_MEMORY, text);
    }
}

static void check_match(iso_run_job_t *job, const iso_run_rank_t *rank,
                        const iso_local_head_t *head)
{
    const iso_run_collective_t *collective = &job->collective;
    char theirs[64], ours[64], text[ISO_LOCAL_MAX_TEXT];

    if (collective->kind == head->type && collective->len == head->total)
        return;
    describe(theirs, sizeof theirs, head->type, head->total);
    describe(ours, sizeof ours, collective->kind, collective->len);
    snprintf(text, sizeof text,
             "rank %u called %s where rank %u called %s: all ranks must make the "
             "same collective calls in the same order",
             rank->rank, theirs, collective->first, ours);
    fail(job, ISO_ERR_INVALID, text);
}

static void refuse_ending(iso_run_job_t *job, iso_run_rank_t *rank, uint16_t request)
{
    iso_run_bytes_t *text = iso_run_bytes_copy(job->end_text, strlen(job->end_text));

    iso_run_link_refuse(job, rank, request, job->end_status, text);
    iso_run_bytes_drop(text);
}

void iso_run_collective_part(iso_run_job_t *job, iso_run_rank_t *rank, const iso_local_head_t *head,
                             const char *payload, size_t len)
{
    iso_run_collective_t *collective = &job->collective;
    const bool last = head->offset + len >= head->total ||
                      head->total > ISO_LOCAL_MAX_GATHER / job->options->size;

    if (job->ending) {
        if (last)
            refuse_ending(job, rank, head->type);
        return;
    }
    if (head->offset == 0) {
        rank->contributing = true;
        rank->request = head->type;
        if (!collective->open)
            start(job, rank, head);
        else
            check_match(job, rank, head);
    } else if (!rank->contributing) {
        return; /* the rest of something that was dropped */
    }
    if (collective->gather != NULL && head->offset <= collective->len &&
        len <= collective->len - head->offset)
        memcpy(collective->gather->data + rank->rank * collective->len + head->offset, payload,
               len);
    if (!last)
        return;
    rank->contributing = false;
    rank->arrived = true;
    rank->arrived_join = head->join;
    collective->arrived++;
    if (collective->error != NULL)
        answer(job, rank);
    iso_run_collective_check(job);
}

/* `missed`, which is gone, can no longer come to what `waiting` waits for. */
static void end_without(iso_run_job_t *job, const iso_run_rank_t *missed,
                        const iso_run_rank_t *waiting)
{
    char what[64], text[ISO_LOCAL_MAX_TEXT];

    describe(what, sizeof what, job->collective.kind, job->collective.len);
    snprintf(text, sizeof text, "rank %u (pid %d) has ended%s, and rank %u waits for it in %s",
             missed->rank, (int)missed->pid, missed->joined ? " without iso_finalize" : "",
             waiting->rank, what);
    iso_run_say("%s: ending the job", text);
    iso_run_job_end(job, ISO_RUN_FAILED, SIGTERM, false, ISO_ERR_PEER_DEAD, text);
}

void iso_run_collective_check(iso_run_job_t *job)
{
    const iso_run_collective_t *collective = &job->collective;
    iso_run_rank_t *waiting = NULL, *missed = NULL;
    uint32_t absent = 0; /* living ranks that have not come */

    if (!collective->open || job->ending)
        return;
    if (job->options->keep_going || job->gone == 0)
        if ((uint64_t)collective->arrived + job->gone < job->options->size)
            return; /* some that live have not come: spare the look at each */
    for (uint32_t i = 0; i < job->options->size; i++) {
        iso_run_rank_t *rank = &job->ranks[i];

        if (rank->arrived && !rank->gone && waiting == NULL)
            waiting = rank;
        else if (!rank->arrived && rank->gone && missed == NULL)
            missed = rank;
        absent += !rank->arrived && !rank->gone;
    }
    if (missed != NULL && waiting != NULL && !job->options->keep_going &&
        collective->error == NULL) {
        end_without(job, missed, waiting);
        return;
    }
    if (absent > 0)
        return;
    /* Who gets a result without some ranks is told about them first. */
    for (uint32_t i = 0; i < job->options->size && missed != NULL; i++)
        if (!job->ranks[i].arrived)
            iso_run_job_note_death(job, &job->ranks[i], false);
    finish(job);
}

void iso_run_collective_forget(iso_run_job_t *job, iso_run_rank_t *rank)
{
    iso_run_collective_t *collective = &job->collective;

    if (rank->contributing && collective->gather != NULL)
        memset(collective->gather->data + rank->rank * collective->len, 0, collective->len);
    rank->contributing = false;
}

void iso_run_collective_abandon(iso_run_job_t *job)
{
    if (!job->collective.open)
        return;
    fail(job, job->end_status, job->end_text);
    finish(job);
}
