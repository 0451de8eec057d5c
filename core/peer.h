/*
 * peer.h - links (open transports) and peers (ranks that this one has talked to).
 *
 * A peer comes into being at first contact, by either side; ranks that never talk cost nothing.
 * The first message each way is HELLO, which proves the job's cookie and carries the rkey of the
 * sender's iso space; anything before it is dropped and counted.
 */
#ifndef ISO_CORE_PEER_H
#define ISO_CORE_PEER_H

#include "core/module.h"
#include "core/wire.h"

#ifdef __cplusplus
extern "C" {
#endif

/* An open transport instance, with this rank's space registered. */
typedef struct iso_link {
    iso_job_t *job;
    iso_module_t module;
    const iso_transport_ops_t *ops;
    iso_transport_t *tp;
    iso_transport_caps_t caps;
    iso_transport_host_t host;
    iso_region_t *region;
    unsigned char address[ISO_TRANSPORT_ADDRESS_MAX];
    size_t address_len;
    unsigned char rkey[ISO_TRANSPORT_RKEY_MAX];
    size_t rkey_len;
} iso_link_t;

typedef struct iso_outgoing {
    struct iso_outgoing *next;
    size_t length;
    __extension__ unsigned char bytes[];
} iso_outgoing_t;

typedef struct iso_peer {
    struct iso_peer *next; /* in the bucket of its rank */
    uint32_t rank;
    bool same_node;
    bool dead; /* certainly: every message of its has been handled */
    bool hello_sent, hello_received;
    iso_link_t *link;
    iso_endpoint_t *ep;                 /* NULL: cannot be reached */
    iso_rkey_t *rkey;                   /* of its space; NULL until its HELLO */
    iso_outgoing_t *queue, **queue_end; /* encoded, waiting for room */
} iso_peer_t;

typedef struct iso_peers {
    iso_peer_t **buckets;
    uint32_t bucket_count; /* a power of two, 0 before the first */
    uint32_t count;
} iso_peers_t;

/* What a rank publishes about itself for those that want to talk to it. */
typedef struct iso_card {
    uint64_t node; /* equal in ranks of one (pretended) node */
    uint32_t lengths[2];
    char transport[32];                                    /* between nodes */
    unsigned char addresses[2][ISO_TRANSPORT_ADDRESS_MAX]; /* inside the node, between nodes */
} iso_card_t;

/* Opens the module's transport for the job; mem_register comes later, when the space is mapped. */
iso_status_t iso_link_open(iso_job_t *job, const char *module, iso_link_t **link_p);
iso_status_t iso_link_register(iso_link_t *link);
void iso_link_close(iso_link_t *link);

/* The peer, contacted if it is new. ISO_ERR_UNREACHABLE, ISO_ERR_PEER_DEAD, ISO_ERR_NO_MEMORY. */
iso_status_t iso_peer_get(iso_job_t *job, uint32_t rank, iso_peer_t **peer_p);
/* The peer if there has been contact, else NULL. */
iso_peer_t *iso_peer_find(const iso_job_t *job, uint32_t rank);
/* Fills in source and sends, or queues: order is kept and nothing is lost while the peer lives. A
 * dead peer's messages are dropped. */
void iso_peer_send(iso_job_t *job, iso_peer_t *peer, iso_msg_t *msg);
/* Sends what is queued; returns how many messages went. */
unsigned iso_peers_flush(iso_job_t *job);
bool iso_peers_queued(const iso_job_t *job);
/* Marks the rank dead, whoever knows it; all that waits for it is settled. */
void iso_peer_declare(iso_job_t *job, uint32_t rank);
void iso_peers_close(iso_job_t *job);

/* Called by the links for every message and failure; hands them on (see migrate.h). */
void iso_peer_on_message(void *link, uint32_t source, const void *data, size_t len);
void iso_peer_on_failure(void *link, uint32_t rank, iso_failure_t failure);

#ifdef __cplusplus
}
#endif

#endif
