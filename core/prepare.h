/*
 * prepare.h - iso_prepare: what a migration will need is got ready, and nothing is moved.
 *
 * A request in step PREPARING has no hold: the heap is used meanwhile, and may be gone before it ends. It
 * knows the slots that the heap had when it began.
 */
#ifndef ISO_CORE_PREPARE_H
#define ISO_CORE_PREPARE_H

#include "core/migrate.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_prepare {
    bool asked;   /* for the keys */
    bool granted; /* a grant stands, has been offered or cannot be had */
    bool grant_asked;
    uint32_t answered; /* of them, when last looked */
    uint32_t here;     /* windows of this rank that are done */
    uint32_t extent_count;
    __extension__ iso_extent_t extents[];
} iso_prepare_t;

/* One step further. ISO_INPROGRESS, or how it ends. Not from a transport's callback. */
iso_status_t iso_prepare_advance(iso_request_t *request);

/* The answer to a PREPARE. Not wanted any more, or not for the heap as it is now: it is given up. */
iso_status_t iso_prepare_on_offer(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);

#ifdef __cplusplus
}
#endif
#endif
