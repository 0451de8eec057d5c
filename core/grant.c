/* grant.c - see grant.h. */
#include "core/grant.h"
#include "core/job.h"
#include "core/left.h"
#include "core/migrate.h"

static void send_ungrant(iso_job_t *job, iso_heap_t *heap, uint32_t rank, uint32_t generation)
{
    iso_peer_t *peer = iso_peer_find(job, rank);
    iso_msg_t msg = {.type = ISO_MSG_UNGRANT, .heap = (uintptr_t)heap, .generation = generation};
    if (peer)
        iso_peer_send(job, peer, &msg);
}

void iso_grant_revoke(iso_job_t *job, iso_heap_t *heap, uint32_t holder, uint32_t generation)
{
    iso_peer_t *peer = iso_peer_find(job, holder);
    iso_msg_t msg = {.type = ISO_MSG_REVOKE, .heap = (uintptr_t)heap, .generation = generation};
    if (peer)
        iso_peer_send(job, peer, &msg);
}

iso_status_t iso_grant_on_prepare(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_heap_t *heap = (iso_heap_t *)(uintptr_t)msg->heap;
    iso_msg_t offer = {.type = ISO_MSG_OFFER, .heap = msg->heap, .epoch = msg->epoch};
    if (msg->heap - (uintptr_t)job->space.base >= job->space.size)
        return ISO_ERR_INVALID;
    offer.generation =
        iso_left_expect(job, heap, msg->extents, msg->extent_count, peer->rank, msg->epoch);
    iso_peer_send(job, peer, &offer);
    iso_retain_trim(job); /* after it: what revokes the grant must not be there before it */
    return ISO_OK;
}

void iso_grant_take(iso_hold_t *hold, uint32_t rank, uint32_t generation)
{
    iso_grant_drop(hold);
    hold->grant = (iso_grant_t){rank, generation, hold->extents_version};
}

void iso_grant_decline(iso_job_t *job, iso_heap_t *heap, uint32_t rank, uint32_t generation)
{
    send_ungrant(job, heap, rank, generation);
}

iso_status_t iso_grant_on_revoke(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_heap_t *heap = (iso_heap_t *)(uintptr_t)msg->heap;
    iso_hold_t *hold = iso_hold_find(job, heap);
    if (hold && hold->grant.rank == peer->rank && hold->grant.generation == msg->generation) {
        iso_request_t *request = hold->request;
        if (request && request->grant == msg->generation && request->dest == peer->rank) {
            request->revoke_answer = true; /* when its puts have ended and it has committed */
            return ISO_OK;
        }
        hold->grant.generation = 0;
    }
    send_ungrant(job, heap, peer->rank, msg->generation);
    return ISO_OK;
}

iso_status_t iso_grant_on_ungrant(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    if (msg->heap - (uintptr_t)job->space.base >= job->space.size)
        return ISO_ERR_INVALID;
    iso_left_ungrant(job, (iso_heap_t *)(uintptr_t)msg->heap, peer->rank, msg->generation);
    return ISO_OK;
}

void iso_grant_drop(iso_hold_t *hold)
{
    if (hold->grant.generation)
        send_ungrant(hold->job, hold->heap, hold->grant.rank, hold->grant.generation);
    hold->grant.generation = 0;
}

void iso_grant_unused(iso_request_t *request)
{
    if (!request->revoke_answer)
        return;
    request->revoke_answer = false;
    send_ungrant(request->job, request->heap, request->dest, request->grant);
    if (request->hold && request->hold->grant.generation == request->grant)
        request->hold->grant.generation = 0;
}
