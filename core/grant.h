/*
 * grant.h - standing grants: a rank may put into the pages that a heap left behind at another, or that iso_prepare
 * has asked for there, without asking, until that rank has revoked the grant and had an answer. Why that is
 * enough: core/README.md.
 *
 * The giver's side is kept with what was left (left.h), the holder's with the heap (hold.h).
 */
#ifndef ISO_CORE_GRANT_H
#define ISO_CORE_GRANT_H

#include "core/hold.h"
#include "core/peer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As giver: asks the holder to stop. */
void iso_grant_revoke(iso_job_t *job, iso_heap_t *heap, uint32_t holder, uint32_t generation);
/* As giver: a standing grant is asked for, for a heap that may come for the first time. Answers with OFFER. */
iso_status_t iso_grant_on_prepare(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);
/* As giver: the holder has stopped. */
iso_status_t iso_grant_on_ungrant(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);

/* As holder: asked to stop. The answer is sent when no migration uses the grant any more. */
iso_status_t iso_grant_on_revoke(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);
/* As holder: the request will not put under its grant any more; answers if it was asked to stop. */
void iso_grant_unused(struct iso_request *request);
/* As holder: the heap has the slots that were asked for, and here is the grant. */
void iso_grant_take(iso_hold_t *hold, uint32_t rank, uint32_t generation);
/* As holder: a grant that is of no use. */
void iso_grant_decline(iso_job_t *job, iso_heap_t *heap, uint32_t rank, uint32_t generation);
/* As holder: gives up whatever grant is held for this heap (it goes elsewhere, or ends). */
void iso_grant_drop(iso_hold_t *hold);

#ifdef __cplusplus
}
#endif
#endif
