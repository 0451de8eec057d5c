/*
 * migrate.h - the source's side of a migration: the steps of a request.
 *
 * The protocol, its steps and who owns a heap when stand in core/README.md; the steps are named
 * here and nowhere else.
 */
#ifndef ISO_CORE_MIGRATE_H
#define ISO_CORE_MIGRATE_H

#include "core/hold.h"
#include "core/inline.h"
#include "core/parcel.h"
#include "core/peer.h"
#include "core/runs.h"
#include "core/window.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Source's steps, in order; a request is in the step that it has reached. */
typedef enum iso_step {
    ISO_STEP_PREPARING, /* no migration: iso_prepare waits for keys, see prepare.c */
    ISO_STEP_FROZEN,    /* live runs listed; nothing sent */
    ISO_STEP_RESERVING, /* RESERVE sent, no answer yet */
    ISO_STEP_PUTTING,   /* granted: puts under way */
    ISO_STEP_FLUSHING,  /* all puts issued, remote completion awaited (after a fence: local) */
    ISO_STEP_COMMITTED, /* COMMIT sent: from here the target's answer, or its death, decides */
    ISO_STEP_STOPPING,  /* given up before COMMIT; what was put is flushed first */
    ISO_STEP_DOUBT,     /* COMMIT sent and no answer in time; late ones still settle it */
    ISO_STEP_ENDED
} iso_step_t;

#define ISO_PUTS_IN_FLIGHT 8            /* of one request */
#define ISO_RUNS_FEW 8                  /* that a request has room for in itself */
#define ISO_PUT_PIECE ((size_t)1 << 20) /* longest single put: more only delays others */

typedef struct iso_put_op {
    iso_completion_t completion; /* first: the transport gives it back */
    struct iso_request *request;
    size_t length;        /* 0: a flush */
    iso_window_t *window; /* that it puts from; NULL: all is registered */
    uint64_t covers;      /* a flush: the last put by a key before it */
    bool busy;
} iso_put_op_t;

struct iso_request {
    struct iso_request *next; /* of the job, oldest first */
    iso_job_t *job;
    iso_hold_t *hold; /* NULL once the heap is not here */
    iso_heap_t *heap;
    iso_peer_t *peer; /* NULL: to oneself */
    uint32_t dest;
    uint64_t epoch; /* that the migration leads to */
    iso_step_t step;
    iso_migration_path_t path;
    bool decided_by_node;     /* ownership is the node's word */
    bool has_stacks;          /* the heap has, or another one that goes with it */
    bool detached;            /* the caller has let go of it: freed when it ends */
    bool in_doubt;            /* the caller is told ISO_ERR_IN_DOUBT: steps STOPPING and DOUBT */
    iso_status_t status;      /* when ENDED */
    iso_status_t stop_status; /* STOPPING: what it will end in */
    uint32_t grant;           /* generation of the standing grant that is used; 0: reserved */
    uint32_t promise;   /* generation of the grant that the target will have on what is left here */
    bool revoke_answer; /* the grant was revoked meanwhile: answer when it is not used any more */
    double deadline;

    iso_runs_t runs;
    size_t run_at, run_done; /* the run that is being put, and bytes of it that have been issued */
    iso_inline_t inlined;    /* what of them is not put, but rides in the COMMIT */
    iso_runs_t idle;         /* its pages are not put, but are left here */
    uint64_t bytes_put, puts;
    unsigned ops_busy;
    bool unflushed; /* puts were issued after the last flush was */
    bool fenced;    /* what was put comes before messages: COMMIT needs no flush */
    bool flush_done;
    iso_status_t put_status; /* first failure of a put */

    iso_key_t *key;                /* of the window that it is at, see way.h */
    uint32_t key_at, window_at;    /* the windows that were counted last, there and here */
    struct iso_prepare *preparing; /* step PREPARING */
    iso_parcel_t *parcel; /* an object's; it has gone, if this is there when it has ended */

    size_t header_len;
    /* From here on nothing is zeroed for a new one but ops[].busy. */
    iso_put_op_t ops[ISO_PUTS_IN_FLIGHT];
    iso_run_t few_runs[ISO_RUNS_FEW], few_pieces[ISO_RUNS_FEW]; /* of runs and inlined.pieces */
    __extension__ char header[];
};

const char *iso_step_name(iso_step_t step);
void iso_request_free(iso_request_t *request);
/* Something of it has got on: ISO_TIMEOUT begins anew. */
void iso_request_extend(iso_request_t *request);

/* The job of the heap that a request is wanted for. ISO_ERR_NOT_OWNER, ISO_ERR_INVALID (in a forked child):
 * logged, with the name of the function called. */
iso_status_t iso_request_job(const iso_heap_t *heap, const char *call, iso_job_t **job_p);

/* A request for the migration of a heap that is owned here, which nothing has happened to yet. Under the lock, as
 * all below. Errors of iso_migrate, logged. */
iso_status_t iso_request_open(iso_hold_t *hold, uint32_t dest, const void *header,
                              size_t header_len, iso_request_t **request_p);
/* Freezes the heap and lists its runs, behind those that are there. ISO_ERR_NO_MEMORY: the heap is as before, and
 * the request has been freed. */
iso_status_t iso_request_freeze(iso_request_t *request);
/* Lists the runs of a heap that goes with the request, and what it leaves besides. Without memory the request's status is
 * ISO_ERR_NO_MEMORY. */
void iso_request_list(iso_request_t *request, iso_hold_t *hold);

/* Enters a request whose heap is frozen and whose runs are listed; its first message leaves at
 * once. */
void iso_migrate_begin(iso_request_t *request);

/* Part of progress: moves every request on as far as it goes. Returns what happened. */
unsigned iso_migrate_advance(iso_job_t *job);
/* The earliest time at which a request must be looked at; INFINITY: none. */
double iso_migrate_deadline(const iso_job_t *job);

/* Messages that concern a source. ISO_ERR_INVALID: stale or senseless; nothing was changed. */
iso_status_t iso_migrate_on_grant(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);
iso_status_t iso_migrate_on_ack(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);
iso_status_t iso_migrate_on_nack(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);
/* A peer is certainly dead and all it sent has been handled. */
void iso_migrate_on_death(iso_job_t *job, iso_peer_t *peer);
void iso_migrate_on_unreachable(iso_job_t *job, iso_peer_t *peer);

/* Inside a node a target owns a heap before its source has looked: the heap, or its slots, may come
 * back (from any rank) meanwhile. Ends what has been taken; to be called before slots are entered. */
void iso_migrate_settle(iso_job_t *job);

void iso_migrate_close(iso_job_t *job);

#ifdef __cplusplus
}
#endif

#endif
