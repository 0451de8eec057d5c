/* stage.c - see stage.h. */
#include "core/stage.h"
#include "core/job.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[ISO_STAGE_COUNT] = {
    [ISO_STAGE_NONE] = "none",
    [ISO_STAGE_FROZEN] = "frozen",
    [ISO_STAGE_RESERVE_SENT] = "reserve_sent",
    [ISO_STAGE_GRANTED] = "granted",
    [ISO_STAGE_PUT_SOME] = "put_some",
    [ISO_STAGE_PUT_ALL] = "put_all",
    [ISO_STAGE_OFFERED] = "offered",
    [ISO_STAGE_COMMIT_SENT] = "commit_sent",
    [ISO_STAGE_LET_GO] = "let_go",
    [ISO_STAGE_DONE_SENT] = "done_sent",
    [ISO_STAGE_RESERVE_CAME] = "reserve_came",
    [ISO_STAGE_GRANT_SENT] = "grant_sent",
    [ISO_STAGE_COMMIT_CAME] = "commit_came",
    [ISO_STAGE_TAKEN] = "taken",
    [ISO_STAGE_ACK_SENT] = "ack_sent",
    [ISO_STAGE_DONE_CAME] = "done_came",
    [ISO_STAGE_OWNED] = "owned",
};

static iso_stage_t find(const char *name, size_t length)
{
    for (int stage = ISO_STAGE_NONE + 1; stage < ISO_STAGE_COUNT; stage++)
        if (strlen(names[stage]) == length && strncmp(names[stage], name, length) == 0)
            return (iso_stage_t)stage;
    return ISO_STAGE_NONE;
}

iso_status_t iso_stage_open(iso_job_t *job)
{
    const char *text = getenv("ISO_TEST_AT");
    if (!text)
        return ISO_OK;
    char *rest;
    unsigned long rank = strtoul(text, &rest, 10), count = 1;
    iso_stage_test_t test = {.signal = SIGKILL};
    if (rest != text && *rest == ':') {
        const char *name = rest + 1;
        size_t length = strcspn(name, ":");
        test.stage = find(name, length);
        rest = (char *)name + length;
    }
    if (rest[0] == ':' && rest[1] >= '1' && rest[1] <= '9')
        count = strtoul(rest + 1, &rest, 10);
    if (strcmp(rest, ":stop") == 0)
        test.signal = SIGSTOP;
    else if (*rest)
        test.stage = ISO_STAGE_NONE;
    if (test.stage == ISO_STAGE_NONE) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "ISO_TEST_AT='%s' cannot be used: give <rank>:<stage>[:<n>][:stop], see "
                "core/stage.h",
                text);
        return ISO_ERR_INVALID;
    }
    test.left = (unsigned)count;
    if (rank == job->rank)
        job->stage_test = test;
    return ISO_OK;
}

void iso_stage_end(iso_stage_test_t *test)
{
    test->stage = ISO_STAGE_NONE;
    raise(test->signal);
}
