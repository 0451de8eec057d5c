/*
 * borrow.h - free slots between ranks: asking others when this rank has none, sending home what was
 * freed away from home.
 *
 * No message while a rank has a free run that is long enough. Without one it asks other ranks, those
 * of its node first, then the rest in rank order from its own, until one gives or all have refused
 * or ISO_TIMEOUT has passed. A rank that is asked gives a batch: at least the run wanted, up to an
 * eighth of what it has. Slots freed away from home go back when a batch of them has gathered, or at
 * once when their home asks.
 */
#ifndef ISO_CORE_BORROW_H
#define ISO_CORE_BORROW_H

#include "core/peer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Adjacent free slots of this rank's, borrowed if need be (then progress is made meanwhile).
 * ISO_ERR_NO_SPACE. The job's lock is held. */
iso_status_t iso_borrow_take(iso_job_t *job, uint32_t count, uint32_t *first_p);
/* Slots that became free here. The lock is held. */
void iso_borrow_put(iso_job_t *job, uint32_t first, uint32_t count);

/* Part of progress: sends batches home. Returns the number of messages. */
unsigned iso_borrow_advance(iso_job_t *job);

void iso_borrow_on_request(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);
/* ISO_ERR_INVALID: the slots cannot be the sender's to give; nothing is changed. */
iso_status_t iso_borrow_on_give(iso_job_t *job, const iso_msg_t *msg);
void iso_borrow_on_death(iso_job_t *job, uint32_t rank);

#ifdef __cplusplus
}
#endif

#endif
