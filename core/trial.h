/*
 * trial.h - is anonymous memory good for this job? Tried before anything relies on it.
 *
 * Whether one process of a host may write to another's memory without an object is the system's to say
 * (Yama, seccomp, user ids), and it says so only when it is done. So, while the job is being joined,
 * each rank puts a word into a word of a neighbour's, over the transports that would do it later, and
 * maps its own space. What fails at one rank is decided for all: the job then uses `private`.
 */
#ifndef ISO_CORE_TRIAL_H
#define ISO_CORE_TRIAL_H

#include "core/link.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The transport inside the node, if it is another one, and the one between nodes. */
enum {
    ISO_TRIAL_NODE = 0,
    ISO_TRIAL_NET = 1,
    ISO_TRIALS
};

/* What a put that never ends would still use: it lives as long as the job's transports. */
typedef struct iso_trial {
    iso_completion_t completion; /* first: the transport gives it back */
    bool done;
    iso_status_t put;
    uint64_t *words; /* a page: a neighbour puts into the first, the second is put elsewhere */
} iso_trial_t;

/* Over which transports this rank may have to put into another process of its host: a bit each. */
uint32_t iso_trial_wanted(const iso_job_t *job);

/* Collective, in as many exchanges at every rank. wanted: what any rank wants tried. anon: this rank's
 * space is to be anonymous; it is mapped when *good_p comes out true. *good_p is the same at every
 * rank, and false has been logged. An error is this rank's own, to be told in the next exchange, or
 * everyone's. */
iso_status_t iso_trial_run(iso_job_t *job, uint32_t wanted, bool anon, bool *good_p);
void iso_trial_close(iso_trial_t trials[ISO_TRIALS]);

#ifdef __cplusplus
}
#endif

#endif
