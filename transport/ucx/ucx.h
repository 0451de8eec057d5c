/*
 * ucx.h - what the files of the UCX transport share: the structures, with their invariants, and the way
 * into each file. What a file does, and why so, stands at its beginning.
 *
 * UCX calls back from inside ucp_worker_progress, and where a worker is shared with the program also
 * in threads of the program's. So a callback only puts what it was told into the inbox (under its lock,
 * which is held for nothing else and never while UCX is called); ux_progress takes it out, and calls the
 * library.
 */
#ifndef ISO_TRANSPORT_UCX_H
#define ISO_TRANSPORT_UCX_H

#include "transport/common/process.h"
#include <assert.h>
#include <isomalloc/iso_ucx.h>
#include <pthread.h>
#include <ucp/api/ucp.h>

#define UX_VERSION 1u
#define UX_MAX_SEND ISO_TRANSPORT_MIN_SEND
#define UX_MAX_PUT ((size_t)1 << 30)
#define UX_AM_ID 1u               /* of our messages, in a worker of our own */
#define UX_PUTS 64u               /* in flight to one peer, flushes not counted */
#define UX_SENDS 32u              /* messages that UCX has not let go of yet, to one peer */
#define UX_LEAF_RANKS 512u        /* of the table of peers */
#define UX_GRACE_MS 1000u         /* see ux_ep.c */
#define UX_OWN_PINNED (64u << 20) /* what UCX's worker pins with an RDMA device, about */
#define UX_DRAIN_TURNS 1000u      /* of progress, to hear what a dead process had sent */

/* ---- messages -------------------------------------------------------------------------------- */

#define UX_MAGIC 0x6d786375u /* "ucxm" */

/* Before the bytes of each message; a protocol, versioned by UX_VERSION. */
typedef struct ux_header {
    uint32_t magic, version;
    uint32_t source; /* rank */
    uint32_t len;    /* of what follows */
    uint64_t number; /* of the message, from 0 in each instance for each peer */
    uint8_t cookie[16];
} ux_header_t;

/* One that has come, header included. */
typedef struct ux_message {
    struct ux_message *next;
    size_t len;
    ux_header_t header;
    unsigned char data[UX_MAX_SEND];
} ux_message_t;

/* ---- peers ----------------------------------------------------------------------------------- */

typedef enum ux_peer_state {
    UX_PEER_ALIVE = 0,
    UX_PEER_FAILED = 1, /* UCX gave up on it; whether it is dead is looked at until `decide_at` */
    UX_PEER_UNREACHABLE = 2,
    UX_PEER_DEAD = 3
} ux_peer_state_t;

/* A rank that this one has connected to or heard of; lives as long as the instance. */
typedef struct ux_peer {
    struct ux_peer *next; /* in tp->peers */
    uint32_t rank;
    ux_peer_state_t state;
    uint64_t decide_at;   /* ms, in state UX_PEER_FAILED */
    bool death_due;       /* had ended before it could be watched: progress has to report it */
    process_id_t process; /* pid 0: not of this host, or not connected */
    int pidfd;            /* in tp->watch_fd; -1: none */
    uint64_t sent;        /* number of the next message to it */
    uint64_t heard;       /* and of the next one from it */
    ux_message_t *early;  /* came before their turn, by number */
    iso_endpoint_t *ep;   /* NULL: not connected */
} ux_peer_t;

struct iso_endpoint {
    iso_transport_t *tp;
    ux_peer_t *peer;
    unsigned am_id;   /* of messages, there */
    ucp_ep_h ucp;     /* NULL: closed, after a failure */
    bool told;        /* how puts go to this peer has been logged */
    bool unclosed;    /* counted in tp->unclosed */
    bool wired;       /* something of ours has gone to the peer: UCX has settled the lanes */
    ucs_status_t why; /* UCX failed; UCS_OK: it has not */
    unsigned puts, sends;
    struct ux_op *ops; /* under way */
    iso_endpoint_t *next_failed;
};

/* ---- operations ------------------------------------------------------------------------------ */

typedef enum ux_op_kind {
    UX_OP_PUT,
    UX_OP_FLUSH,
    UX_OP_SEND
} ux_op_kind_t;

/* Something that UCX has in hand. UCX's callback moves it to the inbox; ux_progress ends it. */
typedef struct ux_op {
    struct ux_op *next, **link; /* in ep->ops */
    struct ux_op *queue;        /* in one of: inbox.ended, tp->held, tp->spares */
    iso_transport_t *tp;
    iso_endpoint_t *ep;           /* NULL: disconnected meanwhile, nobody asks any more */
    iso_completion_t *completion; /* NULL for a message */
    ux_op_kind_t kind;
    bool closing;        /* counted in tp->closing */
    bool ended;          /* UCX has called back, and status is set */
    ucs_status_t status; /* once UCX has called back */
} ux_op_t;

typedef struct ux_send {
    ux_op_t op; /* first */
    ux_header_t header;
    unsigned char data[UX_MAX_SEND];
} ux_send_t;

/* ---- memory ---------------------------------------------------------------------------------- */

struct iso_region {
    iso_transport_t *tp;
    iso_memory_t memory;
    ucp_mem_h memh;
};

struct iso_rkey {
    iso_transport_t *tp;
    uint32_t rank;
    uint64_t address, length; /* at the peer */
    ucp_rkey_h ucp;
};

/* ---- the instance ---------------------------------------------------------------------------- */

/* What UCX has here, as far as it matters. */
typedef struct ux_devices {
    bool rdma;        /* a device writes to user memory at the peer, whose CPU does nothing */
    bool pins;        /* registration pins pages */
    bool on_demand;   /* not ours: asked for, and tried */
    bool beyond_host; /* something leads to other hosts */
    bool posix, sysv, tcp, ib, ud_verbs, ud_mlx5;
    char names[256]; /* of the transports, blanks between, for people */
} ux_devices_t;

/* What UCX's callbacks leave for ux_progress. */
typedef struct ux_inbox {
    pthread_mutex_t lock;
    ux_message_t *first, **last; /* messages, as they came */
    ux_message_t *spares;
    ux_op_t *ended, **ended_last;
    iso_endpoint_t *failed;
    bool lost; /* there was no memory for a message */
} ux_inbox_t;

struct iso_transport {
    const iso_transport_host_t *host;
    ucp_context_h context;
    ucp_worker_h worker;
    bool shares_context, shares_worker; /* they are the program's */
    unsigned am_id;
    ux_devices_t devices;
    process_place_t place;
    process_id_t process; /* pid 0: not known, and then no peer's is asked for */

    ux_inbox_t inbox;
    ux_op_t *ended;     /* taken out of the inbox */
    ux_op_t *held;      /* ended, to peers whose state is UX_PEER_FAILED */
    ux_op_t *spares[2]; /* [1]: of messages */
    unsigned closing;   /* operations in its hands whose endpoint UCX was told to close */

    int event_fd; /* epoll: worker_fd, watch_fd */
    int watch_fd; /* epoll: pidfds, timer_fd */
    int timer_fd; /* wakes a sleeper for what gives no event */
    bool polled;  /* UCX gives no descriptor */
    bool armed;   /* since the last progress */
    bool in_progress;
    uint64_t look_at;    /* coarse ms at which watch_fd is asked again */
    uint64_t busy_until; /* coarse ms up to which UCX is believed that it is busy */
    uint32_t undecided;  /* peers in state UX_PEER_FAILED, or with death_due */
    unsigned unclosed;   /* endpoints that must not be closed, see ux_ep.c: nor may the worker be */
    uint64_t dropped;    /* messages that were none of this job's */

    ux_peer_t *peers;
    ux_peer_t ***leaves; /* by rank; leaves are made when needed */
    uint32_t leaf_count;

    uint32_t endpoints, regions, rkeys; /* open */
};

/* ux_module.c */
void ux_log(const iso_transport_t *tp, iso_log_level_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ux_context.c: UCX's settings, context, worker and devices. */
iso_status_t ux_context_open(iso_transport_t *tp);
void ux_context_close(iso_transport_t *tp);

/* ux_lane.c: what there is, and which way puts go, from what UCX prints about itself. */
iso_status_t ux_devices_find(iso_transport_t *tp);
/* Logs, once, by which lane puts reach the peer. */
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
uint64_t ux_hash(uint64_t hash, const void *bytes, size_t len);
#define UX_HASH_START 0xcbf29ce484222325u

/* ux_ep.c: peers, the way to them, and its end. */
iso_status_t ux_peers_open(iso_transport_t *tp);
void ux_peers_close(iso_transport_t *tp);
ux_peer_t *ux_peer_find(const iso_transport_t *tp, uint32_t rank);
ux_peer_t *ux_peer_get(iso_transport_t *tp, uint32_t rank); /* NULL: no memory, logged */
iso_status_t ux_connect(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                        iso_endpoint_t **ep_p);
void ux_disconnect(iso_endpoint_t *ep);
/* May something be given to UCX for this peer? If not: AGAIN until it is known what it is. */
iso_status_t ux_ep_usable(const iso_endpoint_t *ep);
/* UCX gave up: ends what is under way, and finds out whether the peer is dead. */
void ux_ep_fail(iso_endpoint_t *ep, ucs_status_t why);
/* The peer's process has ended and all it had sent was delivered. */
void ux_peer_died(iso_transport_t *tp, ux_peer_t *peer);
/* Handles endpoints that UCX has failed since the last call. Returns events. */
unsigned ux_eps_failed(iso_transport_t *tp);
/* Decides about peers whose time is up. Returns events. */
unsigned ux_peers_decide(iso_transport_t *tp);

/* ux_op.c: operations in UCX's hands, and their ends. */
/* A fresh one; NULL: no memory, logged. */
ux_op_t *ux_op_get(iso_endpoint_t *ep, ux_op_kind_t kind, iso_completion_t *completion);
/* What UCX's call for the op returned. ISO_OK or an error: the op is gone. */
iso_status_t ux_op_started(ux_op_t *op, ucs_status_ptr_t request);
/* For UCX's request parameters. */
void ux_op_called_back(void *request, ucs_status_t status, void *arg);
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

/* ux_msg.c */
iso_status_t ux_inbox_open(iso_transport_t *tp);
void ux_inbox_close(iso_transport_t *tp);
iso_status_t ux_send(iso_endpoint_t *ep, const void *data, size_t len);
/* Calls host->message for what has come. Returns events. */
unsigned ux_inbox_deliver(iso_transport_t *tp);
bool ux_inbox_ready(iso_transport_t *tp);

/* ux_progress.c */
/* Hears what a process that has ended had sent. */
unsigned ux_drain(iso_transport_t *tp);
iso_status_t ux_events_open(iso_transport_t *tp);
void ux_events_close(iso_transport_t *tp);
unsigned ux_progress(iso_transport_t *tp);
int ux_event_fd(iso_transport_t *tp);
iso_status_t ux_arm(iso_transport_t *tp);
uint64_t ux_now_ms(void);

#endif
