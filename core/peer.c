/* peer.c - see peer.h. */
#include "core/peer.h"
#include "core/arrive.h"
#include "core/borrow.h"
#include "core/job.h"
#include "core/migrate.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- links ---- */

static void on_log(void *arg, iso_log_level_t level, const char *text)
{
    iso_link_t *link = arg;
    iso_log(&link->job->logger, level, "%s: %s", link->ops->name, text);
}

iso_status_t iso_link_open(iso_job_t *job, const char *module, iso_link_t **link_p)
{
    iso_link_t *link = calloc(1, sizeof *link);
    if (!link)
        return ISO_ERR_NO_MEMORY;
    iso_status_t status =
        iso_module_open_transport(&job->logger, &job->params, module, &link->module);
    if (status != ISO_OK)
        goto free_link;
    link->job = job;
    link->ops = link->module.transport;
    link->host = (iso_transport_host_t){.struct_size = sizeof link->host,
                                        .rank = job->rank,
                                        .size = job->size,
                                        .arg = link,
                                        .message = iso_peer_on_message,
                                        .peer_failed = iso_peer_on_failure,
                                        .log = on_log};
    memcpy(link->host.cookie, job->cookie, sizeof job->cookie);
    const char *why = NULL;
    status = link->ops->probe(&why);
    if (status != ISO_OK) {
        iso_log(&job->logger, ISO_LOG_ERROR, "transport %s cannot be used here: %s", module,
                why ? why : iso_status_string(status));
        goto close_module;
    }
    status = link->ops->open(&link->host, &link->tp);
    if (status != ISO_OK)
        goto close_module;
    link->caps.struct_size = sizeof link->caps;
    link->ops->query(link->tp, &link->caps);
    link->address_len = sizeof link->address;
    status = link->ops->address(link->tp, link->address, &link->address_len);
    if (status != ISO_OK)
        goto close_transport;
    if (link->caps.max_send < ISO_WIRE_MAX) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "transport %s sends at most %zu bytes; the library needs %d", module,
                link->caps.max_send, ISO_WIRE_MAX);
        status = ISO_ERR_VERSION;
        goto close_transport;
    }
    *link_p = link;
    return ISO_OK;
close_transport:
    link->ops->close(link->tp);
close_module:
    iso_module_close(&link->module);
free_link:
    free(link);
    return status;
}

iso_status_t iso_link_register(iso_link_t *link)
{
    iso_job_t *job = link->job;
    iso_memory_t memory = {job->space.base, job->space.size, job->space.fd, 0};
    iso_status_t status = link->ops->mem_register(link->tp, &memory, &link->region);
    if (status != ISO_OK)
        return status;
    link->rkey_len = sizeof link->rkey;
    status = link->ops->rkey_pack(link->region, link->rkey, &link->rkey_len);
    if (status == ISO_OK)
        job->stats.registered_bytes += job->space.size;
    return status;
}

void iso_link_close(iso_link_t *link)
{
    if (!link)
        return;
    if (link->region)
        link->ops->mem_deregister(link->region);
    link->ops->close(link->tp);
    iso_module_close(&link->module);
    free(link);
}

/* ---- the table of peers ---- */

static iso_peer_t **bucket(const iso_peers_t *peers, uint32_t rank)
{
    return &peers->buckets[rank * 2654435761u & (peers->bucket_count - 1)]; /* Knuth */
}

static iso_status_t grow(iso_peers_t *peers)
{
    if (peers->count < peers->bucket_count)
        return ISO_OK;
    iso_peers_t larger = {.bucket_count = peers->bucket_count ? peers->bucket_count * 2 : 8,
                          .count = peers->count};
    larger.buckets = calloc(larger.bucket_count, sizeof *larger.buckets);
    if (!larger.buckets)
        return ISO_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < peers->bucket_count; i++)
        for (iso_peer_t *peer = peers->buckets[i], *next; peer; peer = next) {
            next = peer->next;
            peer->next = *bucket(&larger, peer->rank);
            *bucket(&larger, peer->rank) = peer;
        }
    free(peers->buckets);
    *peers = larger;
    return ISO_OK;
}

iso_peer_t *iso_peer_find(const iso_job_t *job, uint32_t rank)
{
    if (job->peers.bucket_count == 0)
        return NULL;
    iso_peer_t *peer = *bucket(&job->peers, rank);
    while (peer && peer->rank != rank)
        peer = peer->next;
    return peer;
}

/* ---- contact ---- */

static iso_status_t card_of(iso_job_t *job, uint32_t rank, iso_card_t *card)
{
    iso_status_t status = ISO_OK;
    size_t len = sizeof *card;
    if (job->blobs)
        memcpy(card, job->blobs + (size_t)rank * sizeof *card, sizeof *card);
    else
        status = job->bootstrap->lookup(job->bootstrap->ctx, rank, card, &len);
    if (status == ISO_OK && (len != sizeof *card || card->lengths[0] > ISO_TRANSPORT_ADDRESS_MAX ||
                             card->lengths[1] > ISO_TRANSPORT_ADDRESS_MAX))
        status = ISO_ERR_INVALID;
    if (status != ISO_OK)
        iso_log(&job->logger, ISO_LOG_ERROR, "cannot look up how to reach rank %" PRIu32 ": %s",
                rank, iso_status_string(status));
    return status;
}

static void say_hello(iso_job_t *job, iso_peer_t *peer)
{
    iso_msg_t hello = {.type = ISO_MSG_HELLO,
                       .data = peer->link->rkey,
                       .data_len = (uint32_t)peer->link->rkey_len};
    memcpy(hello.cookie, job->cookie, sizeof hello.cookie);
    peer->hello_sent = true;
    iso_peer_send(job, peer, &hello);
}

static iso_status_t contact(iso_job_t *job, iso_peer_t *peer)
{
    iso_card_t card;
    iso_status_t status = card_of(job, peer->rank, &card);
    if (status != ISO_OK)
        return ISO_ERR_UNREACHABLE;
    peer->same_node = iso_node_has(&job->node, peer->rank);
    peer->link = peer->same_node ? job->node_link : job->net_link;
    int which = peer->same_node ? 0 : 1;
    if (!peer->same_node && strcmp(card.transport, peer->link->ops->name) != 0) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "rank %" PRIu32 " uses transport %s between nodes, this one %s: set ISO_TRANSPORT "
                "alike",
                peer->rank, card.transport, peer->link->ops->name);
        return ISO_ERR_UNREACHABLE;
    }
    return peer->link->ops->connect(peer->link->tp, peer->rank, card.addresses[which],
                                    card.lengths[which], &peer->ep);
}

iso_status_t iso_peer_get(iso_job_t *job, uint32_t rank, iso_peer_t **peer_p)
{
    iso_peer_t *peer = iso_peer_find(job, rank);
    if (!peer) {
        peer = calloc(1, sizeof *peer);
        if (!peer || grow(&job->peers) != ISO_OK) {
            free(peer);
            return ISO_ERR_NO_MEMORY;
        }
        peer->rank = rank;
        peer->queue_end = &peer->queue;
        iso_status_t status = contact(job, peer);
        if (status != ISO_OK) {
            free(peer);
            return status;
        }
        peer->next = *bucket(&job->peers, rank);
        *bucket(&job->peers, rank) = peer;
        job->peers.count++;
        say_hello(job, peer);
    }
    if (peer->dead)
        return ISO_ERR_PEER_DEAD;
    *peer_p = peer;
    return ISO_OK;
}

void iso_peers_close(iso_job_t *job)
{
    for (uint32_t i = 0; i < job->peers.bucket_count; i++)
        for (iso_peer_t *peer = job->peers.buckets[i], *next; peer; peer = next) {
            next = peer->next;
            if (peer->rkey)
                peer->link->ops->rkey_destroy(peer->rkey);
            peer->link->ops->disconnect(peer->ep);
            for (iso_outgoing_t *out = peer->queue, *following; out; out = following) {
                following = out->next;
                free(out);
            }
            free(peer);
        }
    free(job->peers.buckets);
    memset(&job->peers, 0, sizeof job->peers);
}

/* ---- sending ---- */

static iso_status_t transmit(iso_job_t *job, iso_peer_t *peer, const void *bytes, size_t length)
{
    iso_status_t status = peer->link->ops->send(peer->ep, bytes, length);
    if (status == ISO_OK)
        job->stats.messages_sent++;
    return status;
}

void iso_peer_send(iso_job_t *job, iso_peer_t *peer, iso_msg_t *msg)
{
    unsigned char bytes[ISO_WIRE_MAX];
    if (peer->dead)
        return;
    msg->source = job->rank;
    size_t length = iso_wire_encode(msg, job->cookie, bytes);
    iso_log(&job->logger, ISO_LOG_DEBUG, "to %" PRIu32 ": %s heap %#" PRIx64 " epoch %" PRIu64,
            peer->rank, iso_msg_name(msg->type), msg->heap, msg->epoch);
    if (!peer->queue && transmit(job, peer, bytes, length) == ISO_OK)
        return;
    /* no room, or the way is broken: a broken way is reported by the transport as a failure */
    iso_outgoing_t *out = malloc(sizeof *out + length);
    if (!out)
        iso_fatal("no memory (%zu bytes) for a message to rank %" PRIu32, length, peer->rank);
    out->next = NULL;
    out->length = length;
    memcpy(out->bytes, bytes, length);
    *peer->queue_end = out;
    peer->queue_end = &out->next;
}

static unsigned flush_peer(iso_job_t *job, iso_peer_t *peer)
{
    unsigned sent = 0;
    for (iso_outgoing_t *out; (out = peer->queue) != NULL; sent++) {
        if (!peer->dead && transmit(job, peer, out->bytes, out->length) != ISO_OK)
            break;
        peer->queue = out->next;
        if (!peer->queue)
            peer->queue_end = &peer->queue;
        free(out);
    }
    return sent;
}

unsigned iso_peers_flush(iso_job_t *job)
{
    unsigned sent = 0;
    for (uint32_t i = 0; i < job->peers.bucket_count; i++)
        for (iso_peer_t *peer = job->peers.buckets[i]; peer; peer = peer->next)
            if (peer->queue)
                sent += flush_peer(job, peer);
    return sent;
}

bool iso_peers_queued(const iso_job_t *job)
{
    for (uint32_t i = 0; i < job->peers.bucket_count; i++)
        for (const iso_peer_t *peer = job->peers.buckets[i]; peer; peer = peer->next)
            if (peer->queue)
                return true;
    return false;
}

/* ---- receiving ---- */

static iso_status_t on_hello(iso_job_t *job, uint32_t source, const iso_msg_t *msg)
{
    iso_peer_t *peer;
    if (memcmp(msg->cookie, job->cookie, sizeof msg->cookie) != 0)
        return ISO_ERR_INVALID;
    iso_status_t status = iso_peer_get(job, source, &peer);
    if (status != ISO_OK || peer->hello_received)
        return ISO_ERR_INVALID;
    status = peer->link->ops->rkey_unpack(peer->ep, msg->data, msg->data_len, &peer->rkey);
    if (status != ISO_OK)
        return status;
    peer->hello_received = true;
    return ISO_OK;
}

static iso_status_t dispatch(iso_job_t *job, uint32_t source, const iso_msg_t *msg)
{
    if (msg->source != source || source >= job->size)
        return ISO_ERR_INVALID;
    if (msg->type == ISO_MSG_HELLO)
        return on_hello(job, source, msg);
    iso_peer_t *peer = iso_peer_find(job, source);
    if (!peer || !peer->hello_received)
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
        return iso_migrate_on_revoke(job, peer, msg);
    case ISO_MSG_UNGRANT:
        return iso_migrate_on_ungrant(job, peer, msg);
    case ISO_MSG_SLOT_REQUEST:
        iso_borrow_on_request(job, peer, msg);
        return ISO_OK;
    case ISO_MSG_SLOT_GIVE:
        return iso_borrow_on_give(job, msg);
    default:
        return ISO_ERR_INVALID;
    }
}

void iso_peer_on_message(void *arg, uint32_t source, const void *data, size_t len)
{
    iso_link_t *link = arg;
    iso_job_t *job = link->job;
    iso_msg_t msg = {.type = 0};
    iso_status_t status = iso_wire_decode(data, len, job->cookie, &msg);
    job->stats.messages_received++;
    if (status == ISO_OK) {
        iso_log(&job->logger, ISO_LOG_DEBUG,
                "from %" PRIu32 ": %s heap %#" PRIx64 " epoch %" PRIu64, source,
                iso_msg_name(msg.type), msg.heap, msg.epoch);
        status = dispatch(job, source, &msg);
        if (status == ISO_OK)
            return;
    }
    job->stats.messages_dropped++;
    iso_log(&job->logger, ISO_LOG_WARN,
            "dropped a message of %zu bytes from rank %" PRIu32 ": %s (%s)", len, source,
            status == ISO_ERR_VERSION ? "of another version" : "malformed, stale or out of turn",
            status == ISO_ERR_VERSION ? "?" : iso_msg_name(msg.type));
}

void iso_peer_on_failure(void *arg, uint32_t rank, iso_failure_t failure)
{
    iso_link_t *link = arg;
    iso_job_t *job = link->job;
    if (failure == ISO_FAILURE_DEAD) {
        iso_peer_declare(job, rank);
        return;
    }
    iso_peer_t *peer = iso_peer_find(job, rank);
    iso_log(&job->logger, ISO_LOG_WARN, "rank %" PRIu32 " cannot be reached", rank);
    if (peer)
        iso_migrate_on_unreachable(job, peer);
}

void iso_peer_declare(iso_job_t *job, uint32_t rank)
{
    iso_peer_t *peer = iso_peer_find(job, rank);
    if (!peer || peer->dead)
        return;
    iso_log(&job->logger, job->ending ? ISO_LOG_DEBUG : ISO_LOG_WARN, "rank %" PRIu32 " is dead",
            rank);
    peer->dead = true;
    flush_peer(job, peer);
    iso_migrate_on_death(job, peer);
    iso_arrive_on_death(job, rank);
    iso_retain_holder_dead(job, rank);
    iso_borrow_on_death(job, rank);
}
