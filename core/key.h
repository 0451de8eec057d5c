/*
 * key.h - keys to windows of peers, which a put to them needs: asked for, held, given back.
 *
 * A peer that has not registered all of its space (window.h) lends the key of a window to who asks for it (WANT,
 * LEND) until it wants it back (RECALL, RETURN). A key is given back when no request is in the middle of its
 * window (`users`) and a flush has ended that was begun after the last put with it: then nothing can land
 * by it any more, and the peer may deregister. Keys that nobody recalls stay, so that in a steady state
 * none is asked for.
 *
 * A key says that a window is registered, and nothing else. Whether a rank may put there is a question
 * of reservations and grants, as always.
 */
#ifndef ISO_CORE_KEY_H
#define ISO_CORE_KEY_H

#include "core/wire.h"

#ifdef __cplusplus
extern "C" {
#endif

struct iso_peer;

typedef enum iso_key_state {
    ISO_KEY_ASKED,
    ISO_KEY_HELD,
    ISO_KEY_DECLINED /* `why`; forgotten by who is told */
} iso_key_state_t;

typedef struct iso_key {
    struct iso_key *next; /* in its bucket */
    struct iso_key *next_recalled;
    struct iso_peer *peer; /* that lends it */
    uint32_t window;       /* its index there */
    uint32_t id;           /* of the registration */
    iso_key_state_t state;
    iso_status_t why;
    bool recalled;
    uint32_t users;    /* requests that are in the middle of the window */
    uint64_t last_put; /* number of the last put with it, see iso_keys_t */
    iso_rkey_t *rkey;  /* HELD */
} iso_key_t;

/* A flush of the way to a peer, for the sake of keys. */
typedef struct iso_key_flush {
    iso_completion_t completion; /* first: the transport gives it back */
    iso_job_t *job;
    struct iso_peer *peer;
    uint64_t covers;
    bool busy;
    bool failed; /* the way is broken: nothing is known of what was put */
} iso_key_flush_t;

/* All of one peer. */
typedef struct iso_keys {
    uint32_t slots; /* of a window of the peer's; 0: it has one key for all (or has not spoken) */
    uint32_t lendable; /* windows that it can lend at a time */
    iso_key_t **buckets;
    uint32_t bucket_count; /* a power of two, 0 before the first */
    uint32_t count;
    uint64_t puts;    /* number of the last put by a key */
    uint64_t flushed; /* the last one that has certainly landed */
    iso_key_flush_t flush;
} iso_keys_t;

/* The functions below want the job's lock held. */

/* NULL: not asked for. */
iso_key_t *iso_key_find(const struct iso_peer *peer, uint32_t window);
/* Asks for those that were not asked for yet. ISO_ERR_NO_MEMORY. */
iso_status_t iso_keys_want(iso_job_t *job, struct iso_peer *peer, const uint32_t *windows,
                           uint32_t count);
/* A key that was DECLINED: forgets it, and says why. */
iso_status_t iso_key_forget(iso_key_t *key);

/* Messages. ISO_ERR_INVALID: stale or senseless; nothing was changed. */
iso_status_t iso_keys_on_lend(iso_job_t *job, struct iso_peer *peer, const iso_msg_t *msg);
iso_status_t iso_keys_on_recall(iso_job_t *job, struct iso_peer *peer, const iso_msg_t *msg);

/* Part of progress: gives back what was recalled and is quiet. Returns what happened. */
unsigned iso_keys_advance(iso_job_t *job);
/* Destroys all of a peer's, which is dead or never spoken to again. */
void iso_keys_close(iso_job_t *job, struct iso_peer *peer);

#ifdef __cplusplus
}
#endif
#endif
