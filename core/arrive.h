/*
 * arrive.h - the target's side of a migration.
 *
 * An incoming migration is RESERVED (its slots are entered here, the source may put), then ARRIVED
 * (COMMIT was accepted and acknowledged; it may not be used yet), then owned and forgotten here.
 * Within a node it goes from RESERVED to owned by the node's word, in one step.
 */
#ifndef ISO_CORE_ARRIVE_H
#define ISO_CORE_ARRIVE_H

#include "core/hold.h"
#include "core/parcel.h"
#include "core/peer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum iso_incoming_step {
    ISO_INCOMING_LISTING,  /* parts of RESERVE are still missing; nothing is entered yet */
    ISO_INCOMING_RESERVED, /* slots entered; puts may land */
    ISO_INCOMING_ARRIVED   /* ACK sent; DONE, or the source's certain death, makes it ours */
} iso_incoming_step_t;

typedef struct iso_incoming {
    struct iso_incoming *next;
    uint32_t source;
    iso_heap_t *heap;
    uint64_t epoch;
    iso_incoming_step_t step;
    bool handover;
    uint64_t bytes;
    iso_hold_t *hold; /* from RESERVED on */
    uint32_t parts_seen, parts, slots, extent_count;
    iso_extent_t *extents; /* LISTING only; from malloc */
    iso_parcel_t *parcel;  /* of a carrier that has arrived */
    uint32_t promise;      /* generation of the grant that comes with the heap; 0: none */
    struct iso_delivery
        *delivery; /* its arrival callback, made before the ACK: cannot fail later */
} iso_incoming_t;

/* ISO_ERR_INVALID: stale or senseless, nothing was changed (a NACK has been sent if it helps). */
iso_status_t iso_arrive_on_reserve(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);
iso_status_t iso_arrive_on_commit(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);
iso_status_t iso_arrive_on_done(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);
iso_status_t iso_arrive_on_cancel(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);
/* A source is certainly dead and all it sent has been handled: what had arrived is ours. */
void iso_arrive_on_death(iso_job_t *job, uint32_t source);
void iso_arrive_close(iso_job_t *job);

#ifdef __cplusplus
}
#endif

#endif
