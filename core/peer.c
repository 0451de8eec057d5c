/* peer.c - see peer.h. */
#include "core/peer.h"
#include "core/depth.h"
#include "core/job.h"
#include "core/os.h"
#include "core/put.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_SECONDS 1.0 /* between attempts to reach a peer that something is queued for */

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

/* ---- sending ---- */

static iso_status_t transmit(iso_job_t *job, iso_peer_t *peer, const void *bytes, size_t length)
{
    if (!peer->ep)
        return ISO_ERR_UNREACHABLE;
    iso_status_t status = peer->link->ops->send(peer->ep, bytes, length);
    if (status == ISO_OK)
        job->stats.messages_sent++;
    return status;
}

static void enqueue(iso_job_t *job, iso_peer_t *peer, const void *bytes, size_t length, bool first)
{
    iso_outgoing_t *out = malloc(sizeof *out + length);
    if (!out)
        iso_fatal("no memory (%zu bytes) for a message to rank %" PRIu32, length, peer->rank);
    out->length = length;
    memcpy(out->bytes, bytes, length);
    out->next = first ? peer->queue : NULL;
    *(first ? &peer->queue : peer->queue_end) = out;
    if (!out->next)
        peer->queue_end = &out->next;
    job->peers.queued = true;
}

static size_t encode(iso_job_t *job, iso_peer_t *peer, iso_msg_t *msg,
                     unsigned char bytes[ISO_WIRE_MAX])
{
    msg->source = job->rank;
    iso_log(&job->logger, ISO_LOG_DEBUG, "to %" PRIu32 ": %s heap %#" PRIx64 " epoch %" PRIu64,
            peer->rank, iso_msg_name(msg->type), msg->heap, msg->epoch);
    return iso_wire_encode(msg, job->cookie, bytes);
}

void iso_peer_send(iso_job_t *job, iso_peer_t *peer, iso_msg_t *msg)
{
    unsigned char bytes[ISO_WIRE_MAX];
    if (peer->dead)
        return;
    size_t length = encode(job, peer, msg, bytes);
    if (!peer->queue && transmit(job, peer, bytes, length) == ISO_OK)
        return;
    /* no room, or the way is broken: a broken way is reported by the transport as a failure */
    enqueue(job, peer, bytes, length, false);
}

/* ---- contact ---- */

iso_status_t iso_peer_card(const iso_job_t *job, uint32_t rank, iso_card_t *card_p)
{
    iso_status_t status = ISO_OK;
    const size_t head = offsetof(iso_card_t, addresses);
    size_t len = job->blobs ? job->blob_len : sizeof *card_p;
    iso_depth_enter();
    if (job->blobs)
        memcpy(card_p, job->blobs + (size_t)rank * len, len);
    else
        status = job->bootstrap->lookup(job->bootstrap->ctx, rank, card_p, &len);
    iso_depth_leave();
    if (status == ISO_OK && (len < head || card_p->lengths[0] > len - head ||
                             card_p->lengths[1] > len - head - card_p->lengths[0]))
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
    if (peer->link->windows) {
        hello.slots = peer->link->windows->slots;
        hello.token = peer->link->windows->room - 1;
    }
    memcpy(hello.cookie, job->cookie, sizeof hello.cookie);
    unsigned char bytes[ISO_WIRE_MAX];
    size_t length = encode(job, peer, &hello, bytes);
    if (transmit(job, peer, bytes, length) != ISO_OK)
        enqueue(job, peer, bytes, length, true); /* before all that has waited for the contact */
}

/* Without an rkey (the transport says why) nothing can be put there, but the peer is heard. */
static void make_rkey(iso_peer_t *peer)
{
    if (!peer->ep || !peer->rkey_blob)
        return;
    peer->link->ops->rkey_unpack(peer->ep, peer->rkey_blob, peer->rkey_blob_len, &peer->rkey);
    free(peer->rkey_blob);
    peer->rkey_blob = NULL;
}

static iso_status_t connect_to(iso_job_t *job, iso_peer_t *peer)
{
    iso_card_t card;
    iso_status_t status = iso_peer_card(job, peer->rank, &card);
    if (status != ISO_OK)
        return ISO_ERR_UNREACHABLE;
    if (!peer->same_node && strcmp(card.transport, peer->link->ops->name) != 0) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "rank %" PRIu32 " uses transport %s between nodes, this one %s: set ISO_TRANSPORT "
                "alike",
                peer->rank, card.transport, peer->link->ops->name);
        return ISO_ERR_UNREACHABLE;
    }
    int which = peer->same_node ? 0 : 1;
    return peer->link->ops->connect(peer->link->tp, peer->rank, iso_card_address(&card, which),
                                    card.lengths[which], &peer->ep);
}

static iso_status_t contact(iso_job_t *job, iso_peer_t *peer)
{
    peer->retry_at = iso_os_now() + RETRY_SECONDS;
    iso_status_t status = connect_to(job, peer);
    if (status != ISO_OK)
        return status;
    say_hello(job, peer);
    make_rkey(peer);
    return ISO_OK;
}

iso_status_t iso_peer_enter(iso_job_t *job, uint32_t rank, iso_peer_t **peer_p)
{
    iso_peer_t *peer = iso_peer_find(job, rank);
    if (!peer) {
        peer = calloc(1, sizeof *peer);
        if (!peer || grow(&job->peers) != ISO_OK) {
            free(peer);
            return ISO_ERR_NO_MEMORY;
        }
        peer->rank = rank;
        peer->same_node = iso_node_has(&job->node, rank);
        peer->link = peer->same_node ? job->node_link : job->net_link;
        peer->queue_end = &peer->queue;
        peer->next = *bucket(&job->peers, rank);
        *bucket(&job->peers, rank) = peer;
        job->peers.count++;
    }
    *peer_p = peer;
    return ISO_OK;
}

iso_status_t iso_peer_get(iso_job_t *job, uint32_t rank, iso_peer_t **peer_p)
{
    iso_peer_t *peer;
    iso_status_t status = iso_peer_enter(job, rank, &peer);
    if (status != ISO_OK)
        return status;
    if (peer->dead)
        return ISO_ERR_PEER_DEAD;
    if (!peer->ep)
        status = contact(job, peer);
    if (status == ISO_OK && peer->broken)
        status = ISO_ERR_UNREACHABLE;
    if (status == ISO_OK)
        *peer_p = peer;
    return status;
}

iso_status_t iso_peer_hear_hello(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    if (peer->hello_received || msg->slots > job->slots.total)
        return ISO_ERR_INVALID;
    if (msg->slots) {
        peer->keys.slots = msg->slots;
        peer->keys.lendable = msg->token;
        peer->hello_received = true;
        return ISO_OK;
    }
    peer->rkey_blob = malloc(msg->data_len + 1);
    if (!peer->rkey_blob) {
        iso_log(&job->logger, ISO_LOG_ERROR, "no memory for the rkey of rank %" PRIu32, peer->rank);
        return ISO_ERR_NO_MEMORY;
    }
    memcpy(peer->rkey_blob, msg->data, msg->data_len);
    peer->rkey_blob_len = msg->data_len;
    peer->hello_received = true;
    make_rkey(peer);
    return ISO_OK;
}

/* ---- ends ---- */

/* What the transport holds for it: also all memory of a process that has ended. */
static void give_up_transport(iso_job_t *job, iso_peer_t *peer)
{
    iso_keys_close(job, peer);
    if (peer->rkey)
        peer->link->ops->rkey_destroy(peer->rkey);
    if (peer->ep)
        peer->link->ops->disconnect(peer->ep);
    peer->rkey = NULL;
    peer->ep = NULL;
}

static void drop_queue(iso_peer_t *peer)
{
    for (iso_outgoing_t *out = peer->queue, *next; out; out = next) {
        next = out->next;
        free(out);
    }
    peer->queue = NULL;
    peer->queue_end = &peer->queue;
}

void iso_peer_bury(iso_job_t *job, iso_peer_t *peer)
{
    peer->dead = true;
    job->peers.died = true;
    drop_queue(peer);
}

static void sweep(iso_job_t *job)
{
    job->peers.died = false;
    for (uint32_t i = 0; i < job->peers.bucket_count; i++)
        for (iso_peer_t *peer = job->peers.buckets[i]; peer; peer = peer->next) {
            if (!peer->dead || !peer->ep)
                continue;
            if (iso_puts_to(job, peer) || peer->keys.flush.busy)
                job->peers.died = true; /* once more, when they have ended */
            else
                give_up_transport(job, peer);
        }
}

/* ---- progress ---- */

static unsigned flush_peer(iso_job_t *job, iso_peer_t *peer)
{
    unsigned sent = 0;
    if (!peer->ep && (iso_os_now() < peer->retry_at || contact(job, peer) != ISO_OK))
        return 0;
    for (iso_outgoing_t *out; (out = peer->queue) != NULL; sent++) {
        if (transmit(job, peer, out->bytes, out->length) != ISO_OK)
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
    if (job->peers.died)
        sweep(job);
    if (!job->peers.queued)
        return 0;
    job->peers.queued = false;
    for (uint32_t i = 0; i < job->peers.bucket_count; i++)
        for (iso_peer_t *peer = job->peers.buckets[i]; peer; peer = peer->next)
            if (peer->queue) {
                sent += flush_peer(job, peer);
                job->peers.queued |= peer->queue != NULL;
            }
    return sent;
}

bool iso_peers_queued(const iso_job_t *job)
{
    for (uint32_t i = 0; i < job->peers.bucket_count; i++)
        for (const iso_peer_t *peer = job->peers.buckets[i]; peer; peer = peer->next)
            if (peer->queue && !peer->broken)
                return true;
    return false;
}

void iso_peers_close(iso_job_t *job)
{
    for (uint32_t i = 0; i < job->peers.bucket_count; i++)
        for (iso_peer_t *peer = job->peers.buckets[i], *next; peer; peer = next) {
            next = peer->next;
            give_up_transport(job, peer);
            drop_queue(peer);
            free(peer->rkey_blob);
            free(peer);
        }
    free(job->peers.buckets);
    memset(&job->peers, 0, sizeof job->peers);
}
