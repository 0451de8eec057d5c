/* dispatch.c - see dispatch.h. */
#include "core/dispatch.h"
#include "core/arrive.h"
#include "core/borrow.h"
#include "core/grant.h"
#include "core/job.h"
#include "core/left.h"
#include "core/migrate.h"
#include "core/peer.h"
#include "core/prepare.h"
#include "core/window.h"
#include <inttypes.h>
#include <string.h>

static iso_status_t on_hello(iso_job_t *job, const iso_link_t *link, uint32_t source,
                             const iso_msg_t *msg)
{
    iso_peer_t *peer;
    if (memcmp(msg->cookie, job->cookie, sizeof msg->cookie) != 0)
        return ISO_ERR_INVALID;
    iso_status_t status = iso_peer_enter(job, source, &peer);
    if (status != ISO_OK)
        return status;
    if (peer->dead || peer->link != link)
        return ISO_ERR_INVALID;
    iso_peer_get(job, source, &peer); /* if it cannot be reached, it is heard all the same */
    return iso_peer_hear_hello(job, peer, msg);
}

static iso_status_t dispatch(iso_job_t *job, const iso_link_t *link, uint32_t source,
                             const iso_msg_t *msg)
{
    if (msg->source != source || source >= job->size)
        return ISO_ERR_INVALID;
    if (msg->type == ISO_MSG_HELLO)
        return on_hello(job, link, source, msg);
    iso_peer_t *peer = iso_peer_find(job, source);
    if (!peer || !peer->hello_received || peer->dead || peer->link != link)
        return ISO_ERR_INVALID;
    switch (msg->type) {
    case ISO_MSG_RESERVE:
        return iso_arrive_on_reserve(job, peer, msg);
    case ISO_MSG_GRANT:
        return iso_migrate_on_grant(job, peer, msg);
    case ISO_MSG_COMMIT:
        return iso_arrive_on_commit(job, peer, msg);
    case ISO_MSG_ACK:
        return iso_migrate_on_ack(job, peer, msg);
    case ISO_MSG_NACK:
        return iso_migrate_on_nack(job, peer, msg);
    case ISO_MSG_DONE:
        return iso_arrive_on_done(job, peer, msg);
    case ISO_MSG_CANCEL:
        return iso_arrive_on_cancel(job, peer, msg);
    case ISO_MSG_REVOKE:
        return iso_grant_on_revoke(job, peer, msg);
    case ISO_MSG_UNGRANT:
        return iso_grant_on_ungrant(job, peer, msg);
    case ISO_MSG_SLOT_REQUEST:
        iso_borrow_on_request(job, peer, msg);
        return ISO_OK;
    case ISO_MSG_SLOT_GIVE:
        return iso_borrow_on_give(job, msg);
    case ISO_MSG_WANT:
        return iso_windows_on_want(job, peer, msg);
    case ISO_MSG_LEND:
        return iso_keys_on_lend(job, peer, msg);
    case ISO_MSG_RECALL:
        return iso_keys_on_recall(job, peer, msg);
    case ISO_MSG_RETURN:
        return iso_windows_on_return(job, peer, msg);
    case ISO_MSG_PREPARE:
        return iso_grant_on_prepare(job, peer, msg);
    case ISO_MSG_OFFER:
        return iso_prepare_on_offer(job, peer, msg);
    default:
        return ISO_ERR_INVALID;
    }
}

void iso_dispatch_message(void *arg, uint32_t source, const void *data, size_t len)
{
    iso_link_t *link = arg;
    iso_job_t *job = link->job;
    iso_msg_t msg = {.type = 0};
    iso_msg_lists_t lists;
    iso_status_t status = iso_wire_decode(data, len, job->cookie, &lists, &msg);
    job->stats.messages_received++;
    if (status == ISO_OK) {
        iso_log(&job->logger, ISO_LOG_DEBUG,
                "from %" PRIu32 ": %s heap %#" PRIx64 " epoch %" PRIu64, source,
                iso_msg_name(msg.type), msg.heap, msg.epoch);
        status = dispatch(job, link, source, &msg);
        if (status == ISO_OK)
            return;
    }
    job->stats.messages_dropped++;
    iso_log(&job->logger, ISO_LOG_WARN,
            "dropped a message of %zu bytes from rank %" PRIu32 ": %s (%s)", len, source,
            status == ISO_ERR_VERSION ? "of another version" : "malformed, stale or out of turn",
            status == ISO_ERR_VERSION ? "?" : iso_msg_name(msg.type));
}

void iso_dispatch_failure(void *arg, uint32_t rank, iso_failure_t failure)
{
    iso_link_t *link = arg;
    iso_job_t *job = link->job;
    if (failure == ISO_FAILURE_DEAD) {
        iso_dispatch_death(job, rank);
        return;
    }
    iso_peer_t *peer = iso_peer_find(job, rank);
    iso_log(&job->logger, job->ending ? ISO_LOG_DEBUG : ISO_LOG_WARN,
            "rank %" PRIu32 " cannot be reached", rank);
    if (peer) {
        peer->broken = true;
        iso_migrate_on_unreachable(job, peer);
    }
}

void iso_dispatch_death(iso_job_t *job, uint32_t rank)
{
    iso_peer_t *peer;
    if (iso_peer_enter(job, rank, &peer) != ISO_OK || peer->dead)
        return;
    iso_log(&job->logger, job->ending ? ISO_LOG_DEBUG : ISO_LOG_WARN, "rank %" PRIu32 " is dead",
            rank);
    iso_peer_bury(job, peer);
    iso_migrate_on_death(job, peer);
    iso_arrive_on_death(job, rank);
    iso_left_holder_dead(job, rank);
    iso_windows_on_death(job, rank);
    iso_borrow_on_death(job, rank);
}
