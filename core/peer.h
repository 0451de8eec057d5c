/*
 * peer.h - ranks that this one has talked to, or has been talked to by.
 *
 * Ranks that never talk cost nothing. The first message each way is HELLO, which proves the job's
 * cookie and says how the sender is put to: with the rkey of its iso space that it carries, or by windows
 * (key.h). Anything before it is dropped and counted.
 * A peer that has spoken may not be reachable (it has died since, or there was no descriptor left):
 * it is heard all the same, since what it said last may decide who owns a heap; what it is to be told
 * waits in its queue until it can be reached or is dead.
 */
#ifndef ISO_CORE_PEER_H
#define ISO_CORE_PEER_H

#include "core/key.h"
#include "core/link.h"
#include "core/wire.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_outgoing {
    struct iso_outgoing *next;
    size_t length;
    __extension__ unsigned char bytes[];
} iso_outgoing_t;

typedef struct iso_peer {
    struct iso_peer *next; /* in the bucket of its rank */
    uint32_t rank;
    bool same_node;
    bool dead;             /* certainly, or so the caller says: nothing of it is handled any more */
    bool broken;           /* the transport gave up on it */
    bool hello_received;   /* its rkey is in rkey_blob until `rkey` could be made */
    uint64_t refused_code; /* digest of code that it has said is not its own (stacks); 0: of none */
    bool same_code;        /* a heap with stacks has gone to it from here, or come from it */
    iso_link_t *link;
    iso_endpoint_t *ep; /* NULL: not reached yet */
    double retry_at;    /* when ep is NULL: the next attempt */
    iso_rkey_t *rkey;   /* of its space; NULL until its HELLO, and where it has windows */
    unsigned char *rkey_blob;
    size_t rkey_blob_len;
    iso_keys_t keys;                    /* to its windows */
    iso_outgoing_t *queue, **queue_end; /* encoded, waiting for room */
} iso_peer_t;

typedef struct iso_peers {
    iso_peer_t **buckets;
    uint32_t bucket_count; /* a power of two, 0 before the first */
    uint32_t count;
    bool died;   /* a dead one has its transport's objects still */
    bool queued; /* messages may be waiting for room */
} iso_peers_t;

/* What a rank publishes about itself for those that want to talk to it: as much of it as there is. */
typedef struct iso_card {
    uint64_t node; /* equal in ranks of one (pretended) node */
    uint32_t lengths[2];
    char transport[32]; /* between nodes */
    /* Inside the node, between nodes: one behind the other. A bootstrap takes 4 KiB in all. */
    unsigned char addresses[4048];
} iso_card_t;
static inline const unsigned char *iso_card_address(const iso_card_t *card, int which)
{
    return card->addresses + (which > 0 ? card->lengths[0] : 0);
}

/* What rank has published, to be had from the first collective after that. Logs why not. */
iso_status_t iso_peer_card(const iso_job_t *job, uint32_t rank, iso_card_t *card_p);

/* The functions below want the job's lock held. */

/* The peer, reached: contacted if need be. ISO_ERR_UNREACHABLE, ISO_ERR_PEER_DEAD,
 * ISO_ERR_NO_MEMORY. */
iso_status_t iso_peer_get(iso_job_t *job, uint32_t rank, iso_peer_t **peer_p);
/* The peer if this rank knows of it, else NULL. */
iso_peer_t *iso_peer_find(const iso_job_t *job, uint32_t rank);
/* The peer, entered if it is new; no contact is made. ISO_ERR_NO_MEMORY. */
iso_status_t iso_peer_enter(iso_job_t *job, uint32_t rank, iso_peer_t **peer_p);
/* Its HELLO has come. ISO_ERR_INVALID: not for the first time. */
iso_status_t iso_peer_hear_hello(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg);
/* Fills in source and sends, or queues: order is kept and nothing is lost while the peer lives. A
 * dead peer's messages are dropped. */
void iso_peer_send(iso_job_t *job, iso_peer_t *peer, iso_msg_t *msg);
/* Certainly dead: what is queued for it goes. */
void iso_peer_bury(iso_job_t *job, iso_peer_t *peer);

/* Part of progress: sends what is queued and gives up what the transport holds for dead peers, whose
 * memory would stay as long. Returns how many messages went. */
unsigned iso_peers_flush(iso_job_t *job);
/* Is there something queued that may get through without an event? */
bool iso_peers_queued(const iso_job_t *job);
void iso_peers_close(iso_job_t *job);

#ifdef __cplusplus
}
#endif

#endif
