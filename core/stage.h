/*
 * stage.h - the stages of a migration at which a rank can die, all of them, in one place.
 *
 * The code says when it reaches one; core/README.md says who owns the heap if the rank ends there,
 * and the tests end it there: ISO_TEST_AT=<rank>:<stage>[:<n>][:stop] kills the process of that rank
 * (SIGKILL) when it reaches the stage for the n-th time (1), or stops it (SIGSTOP). The model of the
 * protocol (tests/model) uses the same names.
 */
#ifndef ISO_CORE_STAGE_H
#define ISO_CORE_STAGE_H

#include <isomalloc/isomalloc.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum iso_stage {
    ISO_STAGE_NONE = 0,
    /* the source */
    ISO_STAGE_FROZEN,       /* live runs listed, nothing sent */
    ISO_STAGE_RESERVE_SENT, /* RESERVE is on its way */
    ISO_STAGE_GRANTED,      /* GRANT has come */
    ISO_STAGE_PUT_SOME,     /* some of the puts are issued */
    ISO_STAGE_PUT_ALL,      /* all are remotely complete, nothing committed */
    ISO_STAGE_OFFERED,      /* inside a node: the word is MOVING, no COMMIT is sent */
    ISO_STAGE_COMMIT_SENT,  /* COMMIT is on its way */
    ISO_STAGE_LET_GO,       /* ACK has come, or the word was taken: nothing released yet, no DONE */
    ISO_STAGE_DONE_SENT,    /* DONE is on its way, pages are left or released */
    /* the target */
    ISO_STAGE_RESERVE_CAME, /* nothing is entered yet */
    ISO_STAGE_GRANT_SENT,   /* slots entered, GRANT on its way */
    ISO_STAGE_COMMIT_CAME,  /* nothing of it is checked yet */
    ISO_STAGE_TAKEN,        /* inside a node: the word is ours, nothing sent */
    ISO_STAGE_ACK_SENT,     /* between nodes: ARRIVED, and the ACK on its way */
    ISO_STAGE_DONE_CAME,    /* not handled yet */
    ISO_STAGE_OWNED,        /* the heap is here, its arrival callback not called yet */
    ISO_STAGE_COUNT
} iso_stage_t;

/* What ISO_TEST_AT asks for. */
typedef struct iso_stage_test {
    iso_stage_t stage; /* NONE: nothing */
    unsigned left;     /* times that it is still to be passed */
    int signal;
} iso_stage_test_t;

/* Reads ISO_TEST_AT. ISO_ERR_INVALID, logged: it cannot be read. */
iso_status_t iso_stage_open(iso_job_t *job);
void iso_stage_end(iso_stage_test_t *test);

/* The migration has reached the stage at this rank. */
static inline void iso_stage_reach(iso_stage_test_t *test, iso_stage_t stage)
{
    if (test->stage == stage && --test->left == 0)
        iso_stage_end(test);
}

#ifdef __cplusplus
}
#endif
#endif
