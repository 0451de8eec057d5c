/*
 * ucx.h - what the files of the UCX transport share: the structures, with their invariants, and the way
 * into each file. What a file does, and why so, stands at its beginning.
 *
 * UCX calls back from inside ucp_worker_progress, and where a worker is shared with the program also
 * in threads of the program's. So a callback only puts what it was told into the inbox (under its lock,
 * which is held for nothing else and never while UCX is called), or bytes of a put where they belong (ux_land.c,
 * under a lock of its own); ux_progress takes the rest out, and calls the library.
 */
#ifndef ISO_TRANSPORT_UCX_H
#define ISO_TRANSPORT_UCX_H

#include "transport/common/blob.h"
#include "transport/common/caller.h"
#include "transport/common/clock.h"
#include "transport/common/envelope.h"
#include "transport/common/events.h"
#include "transport/common/life.h"
#include "transport/common/peers.h"
#include "transport/common/process.h"
#include "transport/common/turns.h"
#include <assert.h>
#include <isomalloc/iso_ucx.h>
#include <pthread.h>
#include <stdatomic.h>
#include <ucp/api/ucp.h>

#define UX_VERSION 4u
#define UX_MAX_SEND ISO_TRANSPORT_MIN_SEND
#define UX_MAX_PUT ((size_t)1 << 30)
#define UX_AM_ID 1u   /* of our messages, in a worker of our own */
#define UX_PUTS 64u   /* in flight to one peer, flushes not counted */
#define UX_PIECES 32u /* of puts, in UCX's hands to one peer */
/* Bytes of a put that go in one fragment of UCX's, by the lane. Over tcp a fragment has 64 KiB, and is sent from where its bytes are.
 * Over shared memory it has 8256 bytes unless told otherwise, which we do (ux_context.c): each costs some 600 cycles at each end beside
 * its bytes. A heap of 64 KiB against a bare put in fragments of UCX's size, between two cores of a virtual machine (Xeon, 2.8 GHz): in
 * pieces of 8 KiB 0.70, of 16 KiB 0.75, of 32 KiB 0.78, and 0.84 when 16 of these go round instead of 64. More than 64 KiB UCX 1.13 cannot
 * count (uct_mm_fifo_element_t). */
#define UX_TCP_PIECE 61440u
#define UX_SHARED_FRAGMENT 33024
#define UX_SHARED_PIECE 32768u
#define UX_SHARED_PIECE_DEFAULT 8192u
#define UX_FLUSHES 32u             /* of own puts to one peer: numbers that the peer tells apart */
#define UX_FENCES (UX_FLUSHES / 2) /* of them, that were used since the peer's last answer */
#define UX_SENDS 32u               /* messages that UCX has not let go of yet, to one peer */
#define UX_LOST 64u                /* ranks that can be named of which messages got lost */
#define UX_OWN_PINNED (96u << 20)  /* see ux_mem.c */
#define UX_DRAIN_TURNS 1000u       /* of progress, to hear what a dead process had sent */

/* ---- messages -------------------------------------------------------------------------------- */

#define UX_MAGIC 0x6d786375u /* "ucxm" */

/* Before the bytes of each message; a protocol, versioned by UX_VERSION. */
typedef struct ux_header {
    envelope_t envelope;
    /* The message comes after own puts of this connection: after flushes up to this; 0: after none. */
    uint32_t connection, flush;
    uint64_t pieces; /* of that flush, plus one; 0: a question tells, or has told */
} ux_header_t;

/* One that has come, header included. */
typedef struct ux_message {
    turn_t turn; /* first: while it is kept */
    struct ux_message *next;
    size_t len;
    ux_header_t header;
    unsigned char data[UX_MAX_SEND];
} ux_message_t;

/* ---- own puts, over lanes that are not one-sided: ux_own.c sends, ux_land.c is the peer's side ------ */

typedef enum ux_own_kind {
    UX_OWN_PIECE =
        1, /* bytes, to be copied to `address`; the last before a flush is a question as well */
    UX_OWN_ASK = 2, /* say when all pieces of flush `flush` are there; there are `pieces` */
    UX_OWN_ANSWER =
        3 /* all pieces of flushes up to `flush` are dealt with, `address` of them refused */
} ux_own_kind_t;

/* UCX's header of each of these active messages; a protocol, versioned by UX_VERSION. With the bytes of a piece it
 * has to fit one of UCX's fragments, which over shared memory leave 56 bytes beside 8 KiB by default. */
typedef struct ux_own_header {
    uint16_t version, kind;
    uint32_t source; /* rank */
    uint32_t
        connection;  /* of the puts: the how-manieth of the rank that puts to the other, from 1 */
    uint32_t region; /* number of the peer's region, for a piece */
    uint32_t flush;  /* number of the flush that the piece belongs to, from 1 in each connection */
    uint32_t pieces; /* of that flush, in a question; in a piece that is none, 0 */
    uint64_t address;
    uint8_t cookie[16];
} ux_own_header_t;

/* What has come of a peer's puts to this rank. All under tp->landing.lock. */
typedef struct ux_landed {
    bool open;           /* connected, and not given up: else nothing of it changes anything */
    uint32_t connection; /* the newest heard of; 0: none */
    uint32_t done;       /* every piece of flushes up to this was dealt with */
    uint64_t refused;    /* pieces of this connection that changed nothing */
    uint64_t pieces[UX_FLUSHES]; /* that have come, of flushes done + 1 and on, by number */
    uint64_t asked[UX_FLUSHES];  /* and how many there are, plus one; 0: not known yet */
    uint32_t questions; /* bit n: the flush with number n (mod UX_FLUSHES) wants an answer */
} ux_landed_t;

/* ---- peers ----------------------------------------------------------------------------------- */

/* A rank that this one has connected to or heard of; lives as long as the instance. */
typedef struct ux_peer {
    peer_t base;          /* first */
    uint64_t sent;        /* number of the next message to it */
    turns_t turns;        /* its messages that wait */
    bool deaf;            /* one of its messages got lost: nothing of it is heard any more */
    uint32_t connections; /* made to it so far */
    ux_landed_t landed;
    /* Under inbox.lock: it has asked, or answered. */
    struct ux_peer *next_news;
    bool in_news, asked;
    bool waits;                             /* its next message is for what it has put before */
    uint32_t answered_connection, answered; /* the newest */
    uint64_t answered_refused;
} ux_peer_t;

struct iso_endpoint {
    iso_transport_t *tp;
    ux_peer_t *peer;
    unsigned am_id;   /* of messages, there */
    ucp_ep_h ucp;     /* NULL: closed, after a failure */
    bool told;        /* how puts go to this peer is known, and has been logged */
    bool one_sided;   /* a device writes them; else they are ours, ux_own.c */
    bool unclosed;    /* counted in tp->unclosed */
    bool wired;       /* something of ours has gone to the peer: UCX has settled the lanes */
    ucs_status_t why; /* UCX failed; UCS_OK: it has not */
    unsigned puts, sends;
    struct ux_op *ops; /* under way */
    iso_endpoint_t *next_failed;

    /* own puts */
    size_t piece;           /* most bytes of one */
    uint32_t connection;    /* see ux_own_header_t */
    uint32_t flush;         /* number of the one that follows the pieces sent now */
    uint64_t flush_pieces;  /* sent, of that flush */
    uint64_t refused;       /* by the peer, so far */
    uint32_t answered;      /* the newest flush that the peer has answered */
    bool fence_due;         /* the next message comes after what was sent before it */
    uint32_t fenced;        /* messages come after the flushes up to this; 0: there was no fence */
    uint64_t fenced_pieces; /* of that flush, plus one; 0: a question tells */
    unsigned pieces;        /* in UCX's hands */
    unsigned flushes;       /* begun and not ended */
    bool undecided,
        flush_follows; /* a put was the last; what came after the one before, see ux_own.c */
    struct ux_own *queue,
        **queue_last; /* puts and flushes not wholly in UCX's hands yet, in order */
    struct ux_own *asked, **asked_last; /* flushes that wait for their answer, in order */
    iso_endpoint_t *next_busy;          /* in tp->busy while there is a queue */
    bool busy;
};

/* ---- operations ------------------------------------------------------------------------------ */

typedef enum ux_op_kind {
    UX_OP_PUT,
    UX_OP_FLUSH,
    UX_OP_SEND,
    UX_OP_PIECE, /* an active message of own puts */
    UX_OP_OWN_PUT,
    UX_OP_OWN_FLUSH
} ux_op_kind_t;

/* Something that UCX has in hand (of own puts and flushes, it has the messages). UCX's callback moves it to the
 * inbox; ux_progress ends it. */
typedef struct ux_op {
    struct ux_op *next, **link; /* in ep->ops */
    struct ux_op *queue;        /* in one of: inbox.ended, tp->held, tp->spares */
    iso_transport_t *tp;
    iso_endpoint_t *ep;           /* NULL: disconnected meanwhile, nobody asks any more */
    iso_completion_t *completion; /* NULL for a message */
    ux_op_kind_t kind;
    bool closing;        /* counted in tp->closing */
    ucs_status_t status; /* once UCX has called back */
} ux_op_t;

typedef struct ux_send {
    ux_op_t op; /* first */
    ux_header_t header;
    unsigned char data[UX_MAX_SEND];
} ux_send_t;

/* An own put or flush. */
typedef struct ux_own {
    ux_op_t op;               /* first */
    struct ux_own *next;      /* in ep->queue or ep->asked */
    const unsigned char *src; /* of a put: what is not in UCX's hands yet */
    size_t left;
    uint64_t remote;
    uint32_t region;
    unsigned pieces; /* of a put: in UCX's hands */
    uint32_t flush;  /* of a flush that was asked for: its number */
} ux_own_t;

typedef struct ux_piece {
    ux_op_t op;    /* first */
    ux_own_t *own; /* the put; NULL for others */
    ux_own_header_t header;
} ux_piece_t;

/* ---- memory ---------------------------------------------------------------------------------- */

struct iso_region {
    iso_transport_t *tp;
    iso_region_t *next; /* in tp->landing.regions, or deregistered in tp->gone */
    uint32_t number;    /* in this instance, for its rkeys */
    iso_memory_t memory;
    ucp_mem_h memh;
};

struct iso_rkey {
    iso_transport_t *tp;
    uint32_t rank;
    uint64_t address, length; /* at the peer */
    uint32_t region;          /* its number there */
    ucp_rkey_h ucp;
};

/* ---- the instance ---------------------------------------------------------------------------- */

/* What UCX has here, as far as it matters. */
typedef struct ux_devices {
    bool rdma;        /* a device writes to user memory at the peer, whose CPU does nothing */
    bool pins;        /* registration pins pages */
    bool on_demand;   /* not ours: asked for, and tried */
    bool beyond_host; /* something leads to other hosts */
    bool posix, sysv, tcp, ib, dc, ud_verbs, ud_mlx5;
    char names[256]; /* of the transports, blanks between, for people */
} ux_devices_t;

/* What is known of UCX's queues in shared memory. UCX takes it that its peers' are as its own, and does not ask: what it writes would be
 * anywhere. Bits, one for each setting that is ours (ux_context.c), and this one; 0: there are none. */
#define UX_QUEUES 1u

/* A mutex where a worker is shared with the program, whose threads it calls back in. A worker of our own calls back
 * only from our calls of it, one at a time: there it is none, which a small heap's migration is faster for. */
typedef struct ux_lock {
    pthread_mutex_t mutex;
    bool needed;
} ux_lock_t;

static inline void ux_lock(ux_lock_t *lock)
{
    if (lock->needed)
        pthread_mutex_lock(&lock->mutex);
}

static inline void ux_unlock(ux_lock_t *lock)
{
    if (lock->needed)
        pthread_mutex_unlock(&lock->mutex);
}

/* What UCX's callbacks leave for ux_progress. */
typedef struct ux_inbox {
    ux_lock_t lock;
    atomic_uint added;           /* how often something was put into it; read without the lock */
    ux_message_t *first, **last; /* messages, as they came */
    ux_message_t *spares;
    unsigned spare_count;
    ux_op_t *ended, **ended_last;
    iso_endpoint_t *failed;
    ux_peer_t *news;
    /* Ranks of which a message is lost, for want of memory. A count of UX_LOST + 1: of others, too. */
    uint32_t lost[UX_LOST];
    unsigned lost_count;
} ux_inbox_t;

/* Where peers' own puts may land. The lock is held while bytes are copied, and never while UCX or the library is
 * called; it comes before that of the inbox. */
typedef struct ux_landing {
    ux_lock_t lock;
    iso_region_t *regions, *last; /* last: that a piece was for */
    uint32_t numbers;             /* given to regions so far */
    uint64_t refused;             /* pieces, of all peers */
} ux_landing_t;

struct iso_transport {
    const iso_transport_host_t *host;
    ucp_context_h context;
    ucp_worker_h worker;
    bool shares_context, shares_worker; /* they are the program's */
    unsigned queues;                    /* ux_queues_t */
    unsigned am_id;
    ux_devices_t devices;
    process_place_t place;
    process_id_t process; /* pid 0: not known, and then no peer's is asked for */

    ux_inbox_t inbox;
    ux_op_t *ended, **ended_last; /* taken out of the inbox */
    ux_op_t *held;                /* ended, to peers whose state is PEER_FAILED */
    ux_op_t *spares[4];           /* by size, see ux_op.c */
    unsigned sends;               /* of all endpoints */
    unsigned closing;             /* operations in its hands whose endpoint UCX was told to close */
    bool stuck; /* it has not let go of them in time: it is not waited for again until it has */

    ux_landing_t landing;
    iso_region_t *gone;   /* deregistered, and UCX may not have let go of them */
    iso_endpoint_t *busy; /* with own puts that are not wholly in UCX's hands */

    events_t events;
    bool polled; /* UCX gives no descriptor */
    bool in_progress;
    unsigned seen;       /* of inbox.added: what was put into it up to there has been taken out */
    uint64_t busy_until; /* coarse ms up to which UCX is believed that it is busy */
    unsigned unclosed;   /* endpoints that must not be closed, see ux_ep.c: nor may the worker be */
    uint64_t dropped;    /* messages that were none of this job's */

    peers_t peers;

    uint32_t endpoints, regions, rkeys; /* open */
    uint64_t registered;                /* bytes of the regions */
};

/* ux_module.c */
iso_status_t ux_lock_open(const iso_transport_t *tp, ux_lock_t *lock); /* once there is a worker */
void ux_lock_close(ux_lock_t *lock);
#define ux_log(tp, ...) caller_log((tp)->host, __VA_ARGS__)

/* ux_context.c: UCX's settings, context, worker and devices. */
iso_status_t ux_context_open(iso_transport_t *tp);
void ux_context_close(iso_transport_t *tp);

/* ux_lane.c: what there is, and which way puts go, from what UCX prints about itself. */
iso_status_t ux_devices_find(iso_transport_t *tp);
/* Finds out, and logs, by which lane puts reach the peer; once. */
void ux_lane_tell(iso_endpoint_t *ep);

/* ux_address.c: the address blob. */
iso_status_t ux_address(iso_transport_t *tp, void *buf, size_t *len_p);
typedef struct ux_address {
    process_id_t process; /* pid 0 if it cannot be watched from here */
    unsigned am_id;
    const ucp_address_t *ucp; /* points into the bytes read */
} ux_address_t;
iso_status_t ux_address_read(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                             ux_address_t *address_p);

/* ux_ep.c: the way to a peer, and its end. */
iso_status_t ux_peers_open(iso_transport_t *tp);
iso_status_t ux_connect(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                        iso_endpoint_t **ep_p);
void ux_disconnect(iso_endpoint_t *ep);
/* May something be given to UCX for this peer? If not: AGAIN until it is known what it is. */
iso_status_t ux_ep_usable(const iso_endpoint_t *ep);
/* UCX gave up: ends what is under way, and finds out whether the peer is dead. */
void ux_ep_fail(iso_endpoint_t *ep, ucs_status_t why);
/* Handles endpoints that UCX has failed since the last call. Returns events. */
unsigned ux_eps_failed(iso_transport_t *tp);

/* ux_op.c: operations in UCX's hands, and their ends. */
/* A fresh one, of the kind's struct, of which the part after ux_op_t is the caller's to set; NULL: no memory,
 * logged. */
ux_op_t *ux_op_get(iso_endpoint_t *ep, ux_op_kind_t kind, iso_completion_t *completion);
/* It is under way: one of ep->ops, and counted. */
void ux_op_enter(ux_op_t *op);
/* What UCX's call for the op returned. ISO_OK or an error: the op is gone. */
iso_status_t ux_op_started(ux_op_t *op, ucs_status_ptr_t request);
/* For UCX's request parameters. */
void ux_op_called_back(void *request, ucs_status_t status, void *arg);
/* An own put or flush has ended: ux_ops_end tells. */
void ux_op_ended(ux_op_t *op, ucs_status_t status);
/* UCX is told to close the endpoint: its operations end soon. */
void ux_ops_closing(iso_endpoint_t *ep);
/* The endpoint goes: nobody is told any more. */
void ux_ops_forget(iso_endpoint_t *ep);
/* Takes what has ended out of the inbox. */
void ux_ops_take(iso_transport_t *tp);
/* Calls completions of what was taken. Returns events. */
unsigned ux_ops_end(iso_transport_t *tp);
/* Makes progress, a bounded time, until UCX has let go of what it was told to close; false: it has not. */
bool ux_ops_quiesce(iso_transport_t *tp);
void ux_ops_free(iso_transport_t *tp);
iso_status_t ux_status(ucs_status_t status);

/* ux_mem.c */
/* May UCX pin what it needs for itself, before it has a worker? */
iso_status_t ux_mem_check_own(const iso_transport_t *tp);
/* The host asks for memory that is fetched on demand: does a device do that? Once, before anything is
 * registered. */
void ux_mem_try_on_demand(iso_transport_t *tp);
iso_status_t ux_mem_register(iso_transport_t *tp, const iso_memory_t *memory,
                             iso_region_t **region_p);
void ux_mem_deregister(iso_region_t *region);
/* Once UCX has let go: what was deregistered before. */
void ux_mem_free_gone(iso_transport_t *tp);
iso_status_t ux_rkey_pack(iso_region_t *region, void *buf, size_t *len_p);
iso_status_t ux_rkey_unpack(iso_endpoint_t *ep, const void *buf, size_t len, iso_rkey_t **rkey_p);
void ux_rkey_destroy(iso_rkey_t *rkey);

/* ux_fork.c: a child of fork() may have what was registered. */
void ux_fork_allow(const iso_transport_t *tp, const iso_memory_t *memory);

/* ux_put.c */
iso_status_t ux_put(iso_endpoint_t *ep, const void *src, size_t len, iso_region_t *region,
                    uint64_t remote, iso_rkey_t *rkey, iso_completion_t *completion);
iso_status_t ux_fence(iso_endpoint_t *ep);
iso_status_t ux_flush(iso_endpoint_t *ep, iso_completion_t *completion);
/* Ends when UCX has done all that it was given for the endpoint, whatever the lane. */
iso_status_t ux_flush_ucp(iso_endpoint_t *ep, iso_completion_t *completion);

/* ux_own.c: own puts, at the rank that puts. What was checked comes here. */
void ux_own_open(iso_endpoint_t *ep);
iso_status_t ux_own_put(iso_endpoint_t *ep, const void *src, size_t len, uint64_t remote,
                        const iso_rkey_t *rkey, iso_completion_t *completion);
/* ISO_ERR_AGAIN: not now, a flush does it. */
iso_status_t ux_own_fence(iso_endpoint_t *ep);
/* After what a message comes that is about to be sent, and, when it is on its way: the peer will know. */
void ux_own_fenced(const iso_endpoint_t *ep, ux_header_t *header);
void ux_own_fence_told(iso_endpoint_t *ep, const ux_header_t *header);
iso_status_t ux_own_flush(iso_endpoint_t *ep, iso_completion_t *completion);
/* A message of own puts has left UCX's hands. */
void ux_own_piece_ended(const ux_piece_t *piece);
/* The endpoint is closed: what has not ended ends, with an error. */
void ux_own_close(iso_endpoint_t *ep);
/* Answers peers that have asked, and hears answers. Returns events. */
unsigned ux_own_news(iso_transport_t *tp);
/* Gives UCX what there is room for, also what could have waited for a flush. */
void ux_own_advance(iso_transport_t *tp);

/* ux_land.c: own puts, at the rank they go to. */
iso_status_t ux_landing_open(iso_transport_t *tp);
void ux_landing_close(iso_transport_t *tp);
void ux_landing_add(iso_transport_t *tp, iso_region_t *region);
/* After it nothing lands there. */
void ux_landing_remove(iso_transport_t *tp, iso_region_t *region);
/* From here on the peer may put here; from here on nothing of it lands any more. */
void ux_landing_let(iso_transport_t *tp, ux_peer_t *peer);
void ux_landing_shut(iso_transport_t *tp, ux_peer_t *peer);
/* In UCX's callback. false: not of this job, or makes no sense. */
bool ux_land(iso_transport_t *tp, const ux_own_header_t *header, const void *data, size_t len);
/* Has what the message comes after been dealt with? */
bool ux_landed_before(iso_transport_t *tp, ux_peer_t *peer, const ux_header_t *header);

/* ux_msg.c */
iso_status_t ux_inbox_open(iso_transport_t *tp);
void ux_inbox_close(iso_transport_t *tp);
iso_status_t ux_send(iso_endpoint_t *ep, const void *data, size_t len);
bool ux_is_sending(iso_transport_t *tp);
/* Calls host->message for what has come. Returns events. */
unsigned ux_inbox_deliver(iso_transport_t *tp);
/* A message of the peer waited for puts, and some have come. Returns events. */
unsigned ux_inbox_go_on(iso_transport_t *tp, ux_peer_t *peer);
bool ux_inbox_ready(const iso_transport_t *tp);
/* After something was put into it, with its lock. */
static inline void ux_inbox_added(ux_inbox_t *inbox)
{
    atomic_fetch_add_explicit(&inbox->added, 1, memory_order_release);
}

/* ux_progress.c */
/* Hears what a process that has ended had sent. */
unsigned ux_drain(iso_transport_t *tp);
iso_status_t ux_events_open(iso_transport_t *tp);
unsigned ux_progress(iso_transport_t *tp);
int ux_event_fd(iso_transport_t *tp);
iso_status_t ux_arm(iso_transport_t *tp);

#endif
