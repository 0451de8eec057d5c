/*
 * window.h - what is registered of the iso space, where not all of it is: windows, within a limit.
 *
 * A window is an aligned run of slots that is registered as one region. At most `room` of them are, so
 * that their bytes never exceed the limit; the least recently used makes room for another. A window serves
 * this rank's own puts from it (`uses`) and those of peers into it, each of which was lent its key (a loan,
 * see key.h). It is deregistered only when no put of ours is under way from it and every loan has come
 * back: a borrower gives a key back when nothing that it put with it can land any more.
 *
 * Nothing waits in a circle. A put needs one window here and one key from there. At most room - 1 windows are lent at a
 * time, so that one at least is this rank's own, for the puts it makes: it is to be had without
 * anybody's help, as soon as puts under way from it have ended. So who has a key can always put, and
 * gives the key back some time after it is asked to.
 *
 * Registering and deregistering is done between turns of the transport's progress, never inside.
 */
#ifndef ISO_CORE_WINDOW_H
#define ISO_CORE_WINDOW_H

#include "core/peer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 16 MiB: a device registers it in about the time in which it puts it, a heap of 64 MiB needs four keys, and
 * 256 MiB hold sixteen windows. Where that would be fewer than ISO_WINDOWS_WISHED, windows are smaller. */
#define ISO_WINDOW_SLOTS_MAX 8u
#define ISO_WINDOWS_WISHED 8u
#define ISO_WINDOWS_LEAST 2u /* one to put from, one to be put to */

typedef struct iso_window {
    struct iso_window *newer, *older; /* of those registered, by use */
    uint32_t index;                   /* its first slot / slots of a window */
    uint32_t id;                      /* of this registration, in messages */
    iso_region_t *region;
    uint32_t uses; /* puts of ours that are under way from it */
    bool closing;  /* recalled: goes when uses and loan_count are 0 */
    uint32_t loan_count, loan_room;
    uint32_t *loans; /* the ranks that have its key */
} iso_window_t;

/* A peer that waits for a key. */
typedef struct iso_want {
    struct iso_want *next;
    uint32_t rank, window;
} iso_want_t;

typedef struct iso_windows {
    iso_link_t *link; /* whose regions they are */
    uint64_t limit;   /* bytes registered at most: room windows fit */
    uint32_t slots;   /* of a window; the last of the space may have fewer */
    uint32_t count;   /* in the space */
    uint32_t room;    /* registered at a time at most; less if the system turns out to allow less */
    uint32_t registered, lent, closing;
    uint32_t last_id;
    double patient_until; /* for those that are closing: then another one is recalled */
    iso_window_t **at;    /* by index; NULL: not registered */
    iso_window_t *newest, *oldest;
    iso_want_t *wants, **wants_end; /* oldest first */
    uint32_t want_count;
} iso_windows_t;

/* Registers nothing yet. limit: bytes, room for ISO_WINDOWS_LEAST slots at least. */
iso_status_t iso_windows_open(iso_job_t *job, iso_link_t *link, uint64_t limit);
void iso_windows_close(iso_job_t *job);

/* The functions below want the job's lock held, and job->windows but where it is said. */

/* For a put of ours: the window, registered. Counts as used now. ISO_ERR_AGAIN: when puts that are under
 * way have ended. Other errors are the transport's. Not from a transport's callback. */
iso_status_t iso_window_get(iso_job_t *job, uint32_t index, iso_window_t **window_p);
/* A put from it is under way; one has ended. */
static inline void iso_window_use(iso_window_t *window)
{
    window->uses++;
}
static inline void iso_window_unuse(iso_window_t *window)
{
    window->uses--;
}

/* The windows that these slots lie in are in use, by others or soon again. job->windows may be NULL. */
void iso_windows_touch(iso_job_t *job, const iso_extent_t *extents, uint32_t count);

/* Part of progress: lends, recalls, deregisters. Returns what happened. job->windows may be NULL. */
unsigned iso_windows_advance(iso_job_t *job);

/* The time at which progress has something to do without an event; INFINITY: none. */
double iso_windows_deadline(const iso_job_t *job);

/* Messages. ISO_ERR_INVALID: senseless; nothing was changed. job->windows may be NULL. */
iso_status_t iso_windows_on_want(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);
iso_status_t iso_windows_on_return(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);
/* A rank is dead: nothing of it lands any more. job->windows may be NULL. */
void iso_windows_on_death(iso_job_t *job, uint32_t rank);

/* Has a device the pages of this slot pinned now, in a window? They must not be given back then: it would go on
 * using them. When the window goes they are, see iso_retain_unpinned. job->windows may be NULL. */
bool iso_window_pins(const iso_job_t *job, uint32_t slot);
/* Are there windows, and a device that pins them? */
bool iso_windows_pin(const iso_job_t *job);

#ifdef __cplusplus
}
#endif
#endif
