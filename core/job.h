/*
 * job.h - a process's membership of a job, and the job table.
 *
 * The job table is the only global state of the library: it answers which job an address belongs
 * to. A process may be in several jobs (a library in a program may have its own).
 *
 * One recursive lock a job guards everything of it but the insides of heaps, which their users
 * serialise, and the slot table's words, which are read without. Callbacks run without it.
 */
#ifndef ISO_CORE_JOB_H
#define ISO_CORE_JOB_H

#include "core/atomic.h"
#include "core/guard.h"
#include "core/hold.h"
#include "core/huge.h"
#include "core/log.h"
#include "core/module.h"
#include "core/node.h"
#include "core/peer.h"
#include "core/retain.h"
#include "core/service.h"
#include "core/slots.h"
#include "core/space.h"
#include "core/stage.h"
#include "core/track.h"
#include "core/trial.h"
#include "core/wait.h"
#include "core/window.h"
#include <pthread.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_JOBS_MAX 8

/* One row of the job table: all that the paths by address (iso_free and its like) need. */
typedef struct iso_job_row {
    uintptr_t base;                /* of the iso space */
    ISO_ATOMIC(size_t) size;       /* set last and cleared first; 0: no address lies in it */
    ISO_ATOMIC(uintptr_t) * table; /* the slot table, see slots.h */
    iso_job_t *job;
} iso_job_row_t;
extern __attribute__((visibility("hidden"))) iso_job_row_t iso_job_table[ISO_JOBS_MAX];

#ifndef __cplusplus
/* The row whose space the address lies in, or NULL. The first row is tried first. */
static inline const iso_job_row_t *iso_job_row_of(const void *address)
{
    for (int i = 0; i < ISO_JOBS_MAX; i++)
        if ((uintptr_t)address - iso_job_table[i].base <
            atomic_load_explicit(&iso_job_table[i].size, memory_order_acquire))
            return &iso_job_table[i];
    return NULL;
}
#endif

/* An arrival that its callback has not been called for yet. */
typedef struct iso_delivery {
    struct iso_delivery *next;
    iso_heap_t *heap;
    uint32_t source;
    uint64_t bytes;
    double again;     /* not before; 0: it has not been tried */
    bool is_object;   /* object.c takes it */
    bool has_carrier; /* which is the heap (parcel.h); else the heap may have moved on meanwhile */
    struct iso_parcel
        *settled; /* no arrival: of this object there was a doubt, and is none any more */
    size_t header_len;
    __extension__ char header[];
} iso_delivery_t;

struct iso_job {
    iso_logger_t logger;
    iso_params_t params;
    uint32_t rank, size;
    uint8_t cookie[16];
    uint64_t barriers; /* iso_barrier that have ended: the same in all ranks at each of them */
    pthread_mutex_t lock;

    iso_module_t bootstrap_module;
    const iso_bootstrap_t *bootstrap; /* NULL: a job of one rank without a launcher */
    unsigned char *blobs; /* what all ranks published, where the bootstrap cannot look up, */
    size_t blob_len;      /* in as many bytes each as the longest has */

    iso_node_t node;
    iso_space_t space;
    iso_slots_t slots;
    iso_hold_t **hold_of; /* per slot: the hold of the heap whose first slot it is */
    uint32_t *extent_at; /* per slot: 1 + the index, in its hold, of the extent that begins there */
    iso_hold_t *holds;
    uint64_t heaps_made; /* here, see iso_heap_create_flags */
    uint64_t
        epoch_high; /* no heap that had a free slot of this rank's before had a later one, see hold.h */
    ISO_ATOMIC(struct iso_shared *) *
        shared_of; /* per slot: of the shared heap that begins there */
    struct iso_shared *shared_unused;
    iso_retain_t retain;
    iso_guards_t guards;
    bool
        *poisoned; /* per slot: a tool was told something of it; NULL: no tool runs, see poison.h */
    iso_track_t track;
    bool
        maps_files; /* parts of the space are mapped from images, or were: given back, they read as those */
    iso_huge_t huge;
    struct iso_images *images; /* named by ISO_IMAGES; NULL: none */

    iso_link_t *node_link; /* the transport inside the node; NULL in a job of one rank */
    iso_link_t *net_link;  /* between nodes; may be the same */
    iso_trial_t trials[ISO_TRIALS];
    struct iso_windows *windows; /* of one of the links; NULL: all of the space is registered */
    char registration[192];      /* which policy, and why: for people */
    iso_peers_t peers;
    iso_key_t *keys_recalled;      /* by peers, and not given back yet */
    struct iso_request *requests;  /* under way, oldest first */
    struct iso_incoming *incoming; /* arrivals under way */
    iso_delivery_t *deliveries, **deliveries_end;
    struct iso_object_kind *object_kinds; /* that iso_pup_register was called for */
    unsigned calling;                     /* arrival callbacks that run now, in whatever thread */
    struct iso_borrow *borrow;            /* the request for slots under way, or NULL */
    uint32_t borrow_token;                /* of the last request */
    uint64_t no_room;                     /* requests for slots that nobody could serve */
    bool slots_going_home;                /* enough foreign slots to send a batch */

    iso_end_fn end; /* see iso_set_end */
    void *end_arg;

    iso_wait_t wait;
    iso_service_t service;
    bool has_fault_handler;
    double deaths_heard; /* when the bootstrap was last asked who is dead */
    iso_stage_test_t stage_test;
    bool forked; /* this is a child of the process that joined: the job is not its */
    bool ending; /* in iso_finalize: that other ranks go is no news */
    iso_stats_t stats;
};

static inline void iso_job_lock(iso_job_t *job)
{
    if (job->params.thread_level != ISO_THREAD_SINGLE)
        pthread_mutex_lock(&job->lock);
}
static inline void iso_job_unlock(iso_job_t *job)
{
    if (job->params.thread_level != ISO_THREAD_SINGLE)
        pthread_mutex_unlock(&job->lock);
}

/* Not in a child that was forked after iso_init; logged, with the name of the function called. */
bool iso_job_is_ours(const iso_job_t *job, const char *call);
/* Progress without callbacks to the user; the lock is held. */
unsigned iso_job_advance(iso_job_t *job);
/* An arrival callback to come: made in one step, queued in another that cannot fail. */
iso_delivery_t *iso_delivery_new(iso_heap_t *heap, uint32_t source, uint64_t bytes,
                                 const void *header, size_t header_len);
void iso_job_deliver(iso_job_t *job, iso_delivery_t *delivery);
/* Is there one that somebody is there for? The lock is held. */
bool iso_job_can_deliver(const iso_job_t *job);
/* When one is to be tried again; INFINITY: none. The lock is held. */
double iso_job_delivery_deadline(const iso_job_t *job);

#ifdef __cplusplus
}
#endif

#endif
