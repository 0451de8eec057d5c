/*
 * ofi.h - what the files of the libfabric transport share: the structures, with their invariants, and the
 * way into each file. What a file does, and why so, stands at its beginning.
 *
 * libfabric calls nobody back: it is asked for completions (of_cq.c), which only moves what has come or
 * ended to lists of the instance; of_progress takes them from there, and calls the library. So what waits
 * inside a call (for memory to be let go of, or for what a dead process had sent) can ask for completions too.
 */
#ifndef ISO_TRANSPORT_OFI_H
#define ISO_TRANSPORT_OFI_H

#include "transport/common/blob.h"
#include "transport/common/caller.h"
#include "transport/common/clock.h"
#include "transport/common/envelope.h"
#include "transport/common/events.h"
#include "transport/common/life.h"
#include "transport/common/peers.h"
#include "transport/common/process.h"
#include "transport/common/turns.h"
#include "transport/common/windows.h"
#include <assert.h>
#include <isomalloc/transport.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <stddef.h>
#include <stdio.h>

#define OF_VERSION 5u
#define OF_API FI_VERSION(1, 17) /* what this was written for, and tried with */
#define OF_MAX_SEND ISO_TRANSPORT_MIN_SEND
#define OF_MAX_PUT ((size_t)1 << 30)
#define OF_PIECE ((size_t)4 << 20) /* most bytes of one write: no progress call copies for long */
#define OF_PUTS 64u                /* in flight to one peer, flushes not counted */
#define OF_PIECES 32u              /* parts of puts in libfabric's hands to one peer, about */
#define OF_PARTS 4u                /* puts in one write, at most */
#define OF_SENDS 32u               /* messages that libfabric has not let go of yet, to one peer */
#define OF_RECVS 64u               /* buffers that wait for messages, of all peers */
#define OF_QUEUE 128u              /* operations that libfabric has to have room for, each way */
#define OF_TOGETHER 2u       /* messages that wait for each other, where a piece costs little */
#define OF_LEAST_PIECE 1024u /* of messages: one of OF_MAX_SEND has to go in OF_SENDS */
#define OF_EARLY 1024u       /* pieces of a peer that are kept until their turn comes, at most */
#define OF_ROUNDS 1024u      /* of a peer's writes that no note has told of yet, at most */
#define OF_DRAIN_TURNS 256u  /* of completions asked for, to hear what a dead process had sent */
#define OF_PROVIDER_NAME 64u /* room for a provider's name, as "tcp;ofi_rxm" */

/* ---- messages -------------------------------------------------------------------------------- */

#define OF_MAGIC 0x6d69666fu /* "ofim" */

/* What goes in one piece begins with an envelope, and goes on with records (of_msg.c); a protocol, versioned by OF_VERSION. */
typedef enum of_record_kind {
    OF_WHOLE,  /* a message, or its last part */
    OF_BEGUN,  /* a part of one, which goes on in the next record, the first of the next piece */
    OF_AFTER,  /* a note: what follows comes after `writes` writes of round `number` */
    OF_ASK,    /* a note: answer with this number */
    OF_ANSWER, /* a note */
    OF_LOST,   /* a note: writes or messages have got lost */
    OF_RECORD_KINDS
} of_record_kind_t;

/* Before the bytes of each message, or part of one; what it is before ends at a multiple of its size. */
typedef struct of_record {
    uint32_t len;
    uint32_t kind;
} of_record_t;

/* What this transport tells another of itself (of_land.c). */
typedef struct of_note {
    uint32_t number, writes;
} of_note_t;

#define OF_ROOM (OF_MAX_SEND + sizeof(of_record_t)) /* for records, at most */

/* ---- what libfabric has in hand --------------------------------------------------------------- */

typedef enum of_kind {
    OF_RECV,
    OF_SEND,
    OF_WRITE
} of_kind_t;

/* What libfabric gives back with a completion; the beginning of a buffer or a piece. */
typedef struct of_context {
    struct fi_context2
        fi; /* first: some providers keep notes in it while the operation is theirs */
    of_kind_t kind;
} of_context_t;

/* Messages, on their way out or in. Lives in registered memory. */
typedef struct of_buffer {
    of_context_t context; /* first */
    turn_t turn;          /* while it is kept until its turn comes */
    struct of_buffer *next;
    iso_transport_t *tp;
    iso_endpoint_t *ep;      /* OF_SEND; NULL: its endpoint is gone, nobody asks any more */
    struct of_buffer **link; /* OF_SEND: in ep->sent, by next, while libfabric has it */
    bool counted;            /* in tp->sends */
    void *desc;              /* of the memory */
    size_t len;              /* header included */
    size_t at;               /* of one that came: the records before have been taken */
    bool goes_on;            /* OF_SEND: it begins in the middle of a message */
    envelope_t header;
    unsigned char data[OF_ROOM];
} of_buffer_t;

/* A put or a flush. */
typedef struct of_op {
    struct of_op *next, *before; /* in ep->ops, in the order of the calls */
    struct of_op *queue;         /* in one of: tp->ended, tp->held, tp->spare_ops */
    struct of_op *next_unsent;   /* in ep->unsent: a put that is not wholly in libfabric's hands */
    iso_transport_t *tp;
    iso_endpoint_t *ep; /* NULL: disconnected meanwhile, nobody asks any more */
    iso_completion_t *completion;
    bool is_put;
    bool ended;               /* is in tp->ended or tp->held, or was */
    bool told;                /* has called its completion: goes when its pieces have */
    int error;                /* FI_*, 0: none */
    const unsigned char *src; /* of a put: what is not in libfabric's hands yet */
    size_t left;
    uint64_t remote; /* as the provider wants it */
    uint64_t key;
    iso_region_t *region;
    unsigned pieces; /* that it has a part in, in libfabric's hands */
    uint32_t
        ask; /* of a flush, where writes are counted: its question's number; 0: not asked yet */
} of_op_t;

/* What a write has of one put. */
typedef struct of_part {
    of_op_t *op;
    iso_region_t *region; /* counted in region->pieces */
    size_t len;
} of_part_t;

/* One write, of one put or of several that follow each other. */
typedef struct of_piece {
    of_context_t context; /* first */
    iso_transport_t *tp;
    of_part_t parts[OF_PARTS];
    unsigned count; /* of them */
    struct of_piece *next;
} of_piece_t;

/* ---- peers ----------------------------------------------------------------------------------- */

/* Writes of a peer that have landed, of a round that no note has told of yet. */
typedef struct of_round {
    uint32_t number, writes;
} of_round_t;

/* A rank that this one has connected to or heard of; lives as long as the instance. */
typedef struct of_peer {
    peer_t base;   /* first */
    uint64_t sent; /* number of the next message to it */
    turns_t turns; /* its messages that wait, for those before them or for writes */
    of_buffer_t
        *begun;        /* a message whose last part has not come: header.len bytes, of no records */
    uint32_t round;    /* of writes to it, from 1 */
    uint32_t writes;   /* in this round, given to libfabric */
    uint32_t asked;    /* number of the last question to it, */
    uint32_t answered; /* and of the last that it has answered */
    uint32_t owed;     /* number of its own that is to be answered; 0: none */
    of_round_t *rounds; /* of its writes here */
    unsigned round_count, round_room;
    bool lost;  /* writes or messages of its have got lost, and it has not been told */
    bool deaf;  /* nothing of it is heard any more, for that */
    bool waits; /* the first of those that are kept does, for writes */
    struct of_peer *next_landed; /* in tp->landed */
    bool in_landed;
    fi_addr_t address; /* FI_ADDR_UNSPEC: not in the table of addresses yet */
    void *name;        /* the address that was put there, name_len bytes */
    size_t name_len;
} of_peer_t;

struct iso_endpoint {
    iso_transport_t *tp;
    of_peer_t *peer;
    bool failed;                 /* in tp->failed, or was: libfabric gets nothing more for it */
    int error;                   /* FI_*: why */
    iso_endpoint_t *next_failed; /* in tp->failed */
    unsigned puts, sends;
    bool fenced;            /* and no message has been sent since */
    of_op_t *fenced_put;    /* the last unsent one before that; NULL: libfabric has all of them */
    bool unasked;           /* a flush has no question yet */
    bool dirty;             /* a put has begun since the last question */
    unsigned pieces;        /* the sum of its ops' */
    of_op_t *ops, *last_op; /* in the order of the calls, until they are gone */
    of_op_t *unsent, *last_unsent;       /* puts, in order */
    of_buffer_t *waiting, *last_waiting; /* messages that it has not got yet, in order */
    unsigned turn;                       /* the last tp->turn in which one went at once */
    unsigned together;                   /* messages that were said since something went */
    of_buffer_t *sent;                   /* messages in its hands */
    bool refused;                        /* a put was refused, and no flush has said so yet */
    iso_endpoint_t *next_busy; /* in tp->busy while there is something unsent or waiting */
    bool busy;
};

/* ---- memory ---------------------------------------------------------------------------------- */

#define OF_RAW_KEY 128 /* bytes of a raw key, at most */

struct iso_region {
    iso_transport_t *tp;
    iso_memory_t memory;
    struct fid_mr *mr;
    void *desc;
    uint64_t inode;     /* of the memory object, over shm; 0: none, or not over shm */
    unsigned pieces;    /* of puts from it, in libfabric's hands */
    bool gone;          /* deregistered with pieces out: in tp->gone, until they are back */
    iso_region_t *next; /* in tp->gone */
};

struct iso_rkey {
    iso_transport_t *tp;
    uint32_t rank;
    uint64_t address, length; /* at the peer */
    uint64_t base; /* what is taken from an address there: 0, or `address` with offsets */
    uint64_t key;
    bool mapped;      /* from a raw key, and to be given back */
    object_t *object; /* over shm: that the memory is of; NULL: none, put by process_vm_writev */
    uint64_t offset;  /* of `address` in it */
};

/* Registered buffers come in chunks, and stay until the end. */
typedef struct of_chunk {
    struct of_chunk *next;
    struct fid_mr *mr;
    void *memory;
} of_chunk_t;

/* ---- the instance ---------------------------------------------------------------------------- */

struct iso_transport {
    const iso_transport_host_t *host;
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_cq *cq;
    struct fid_av *av;
    struct fid_ep *ep;
    bool is_shm;
    bool in_stream; /* what a peer writes and says comes in the order in which it did */
    bool
        in_order; /* what it says does: what comes before its turn comes after something that got lost */
    bool counted; /* the target counts writes: of_land.c */
    char description[256];
    process_place_t place;
    process_id_t process; /* pid 0: not known, and then no peer's is asked for */
    uint64_t keys;        /* given to regions so far, where keys are ours to choose */
    bool warned_of_cache; /* see of_mem.c */
    size_t piece;         /* most bytes of one write */
    size_t parts;         /* most puts in one */
    size_t message_room;  /* most bytes of records that go in one piece */

    of_chunk_t *chunks;
    of_buffer_t *spare_buffers;
    of_piece_t *spare_pieces;
    of_op_t *spare_ops;
    struct of_block *blocks; /* of ops and pieces, see of_op.c */
    iso_region_t *gone;
    object_t *objects; /* of peers, over shm */
    windows_t windows; /* on them */
    unsigned posted;   /* receives in libfabric's hands */

    of_buffer_t *arrived, **arrived_last; /* messages, as they came */
    of_peer_t *landed;                    /* that wait for writes, of which some have come */
    of_op_t *ended, **ended_last;
    of_op_t *held;          /* ended, to peers whose state is PEER_FAILED */
    iso_endpoint_t *failed; /* libfabric gave up, and of_progress has not heard of it */
    iso_endpoint_t *busy;
    unsigned room;  /* operations that ended since the last progress: there is room for others */
    unsigned sends; /* in libfabric's hands, and may still arrive */

    events_t events;
    int cq_fd; /* libfabric's descriptor; -1: the provider has none */
    bool in_progress;
    unsigned turn; /* calls of progress */
    long nap;      /* ns that a sleeper sleeps who is not woken by an event: longer each time */
    uint64_t busy_until; /* coarse ms up to which libfabric is believed that it is busy */
    uint64_t dropped;    /* messages that were none of this job's */

    peers_t peers;

    uint32_t endpoints, regions, rkeys; /* open */
};

/* of_module.c */
#define of_log(tp, ...) caller_log((tp)->host, __VA_ARGS__)
iso_status_t of_status(int error); /* of an FI_* number */

/* of_provider.c: which provider, and what it is like. */
iso_status_t of_provider_choose(iso_transport_t *tp);
/* Is it the provider's name, or a part of it ("tcp" of "tcp;ofi_rxm")? */
bool of_provider_is(const char *provider, const char *name);
bool of_provider_pins(const iso_transport_t *tp);
bool of_provider_one_sided(const iso_transport_t *tp);

/* of_fabric.c: what is opened of the provider. */
iso_status_t of_fabric_open(iso_transport_t *tp);
void of_fabric_close(iso_transport_t *tp);

/* of_shm.c: names and files of the provider shm. */
void of_shm_clean(const iso_transport_t *tp);
void of_shm_set_name(iso_transport_t *tp);
void of_shm_forget(const iso_transport_t *tp, const of_peer_t *peer);

/* of_address.c: the address blob. */
typedef struct of_address {
    process_id_t process; /* pid 0 if it cannot be watched from here */
    const void *name;     /* points into the bytes read */
    size_t name_len;
} of_address_t;
iso_status_t of_address(iso_transport_t *tp, void *buf, size_t *len_p);
iso_status_t of_address_read(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                             of_address_t *address_p);

/* of_peer.c: the table of peers. */
iso_status_t of_peers_open(iso_transport_t *tp);
/* libfabric gave up on it: is it dead? Known at once, or within LIFE_GRACE_MS. */
void of_peer_fail(iso_transport_t *tp, of_peer_t *peer, int error);

/* of_ep.c: the way to a peer, and its end. */
iso_status_t of_connect(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                        iso_endpoint_t **ep_p);
void of_disconnect(iso_endpoint_t *ep);
/* May something be given to libfabric for this peer? If not: AGAIN until it is known what it is. */
iso_status_t of_ep_usable(const iso_endpoint_t *ep);
/* libfabric gave up; of_eps_failed handles it. */
void of_ep_fail(iso_endpoint_t *ep, int error);
/* Ends what is under way: its operations end with the error, once that can be told. */
void of_ep_close(iso_endpoint_t *ep, int error);
/* Returns events. */
unsigned of_eps_failed(iso_transport_t *tp);
/* There is something that libfabric had no room for. */
void of_ep_busy(iso_endpoint_t *ep);
/* Gives libfabric what it has room for now. */
void of_eps_advance(iso_transport_t *tp);

/* of_op.c: puts and flushes, and their ends. */
of_op_t *of_op_get(iso_endpoint_t *ep, bool is_put,
                   iso_completion_t *completion); /* NULL: logged */
of_piece_t *of_piece_get(iso_transport_t *tp);    /* NULL: logged */
void of_piece_add(of_piece_t *piece, of_op_t *op, size_t len);
/* libfabric did not take it. */
void of_piece_drop(of_piece_t *piece);
/* libfabric has given it back, or refuses it for good. */
void of_piece_put(of_piece_t *piece, int error);
/* The peer has answered the question, and those before. */
void of_flushes_end(iso_endpoint_t *ep, uint32_t answered);
/* Ends what has not ended, whatever libfabric still has of it. */
void of_ops_end_all(iso_endpoint_t *ep, int error);
/* The endpoint goes: nobody is told any more. */
void of_ops_forget(iso_endpoint_t *ep);
/* Calls completions of what has ended. Returns events. */
unsigned of_ops_tell(iso_transport_t *tp);
void of_ops_free(iso_transport_t *tp);

/* of_mem.c */
iso_status_t of_mem_open(iso_transport_t *tp, void *address, size_t len, uint64_t access,
                         struct fid_mr **mr_p);
iso_status_t of_mem_register(iso_transport_t *tp, const iso_memory_t *memory,
                             iso_region_t **region_p);
void of_mem_deregister(iso_region_t *region);
iso_status_t of_rkey_pack(iso_region_t *region, void *buf, size_t *len_p);
iso_status_t of_rkey_unpack(iso_endpoint_t *ep, const void *buf, size_t len, iso_rkey_t **rkey_p);
void of_rkey_destroy(iso_rkey_t *rkey);
/* A piece of a put from the region is back. */
void of_region_piece_back(iso_region_t *region);
/* Once libfabric has nothing any more. */
void of_regions_free(iso_transport_t *tp);

/* of_put.c */
iso_status_t of_put(iso_endpoint_t *ep, const void *src, size_t len, iso_region_t *region,
                    uint64_t remote, iso_rkey_t *rkey, iso_completion_t *completion);
iso_status_t of_flush(iso_endpoint_t *ep, iso_completion_t *completion);
void of_puts_advance(iso_endpoint_t *ep);

/* of_land.c: writes that the target counts, so that a message can come after them. */
#define OF_LAND_DATA 8 /* bytes of what goes with such a write */
uint64_t of_land_data(const iso_endpoint_t *ep);
/* A write has come, with this. */
void of_landed(iso_transport_t *tp, uint64_t data);
/* Have those that the peer tells of come? Asked again after of_landed. */
bool of_landed_before(iso_transport_t *tp, of_peer_t *peer, const of_note_t *note);
/* Something of the peer has not come, and will not: from here on nothing of it is heard, and it is told. what: "has ..." */
void of_lost(iso_transport_t *tp, of_peer_t *peer, const char *what);
iso_status_t of_fence(iso_endpoint_t *ep);
/* Before a message: what the fence was for. false: no room now. */
bool of_fence_tell(iso_endpoint_t *ep);
/* Asks for flushes whose puts are in libfabric's hands, and answers what the peer has asked. */
void of_land_advance(iso_endpoint_t *ep);

/* of_cma.c: puts of our own between processes of this host, in place of shm's, to memory that no object backs. */
/* May this process write to others' memory? Logged if not. */
iso_status_t of_cma_check(const iso_transport_t *tp);
iso_status_t of_cma_put(iso_endpoint_t *ep, const void *src, size_t len, uint64_t remote);

/* of_buffer.c: registered memory for messages. */
of_buffer_t *of_buffer_get(iso_transport_t *tp); /* NULL: logged */
void of_buffer_put(iso_transport_t *tp, of_buffer_t *buffer);
void of_buffers_free(iso_transport_t *tp);

/* of_msg.c */
iso_status_t of_recvs_post(iso_transport_t *tp);
iso_status_t of_send(iso_endpoint_t *ep, const void *data, size_t len);
bool of_is_sending(iso_transport_t *tp);
void of_sends_advance(iso_endpoint_t *ep);
/* Goes with the next message, or the next call of progress. false: no room now. */
bool of_note(iso_endpoint_t *ep, of_record_kind_t kind, of_note_t note);
/* What of the peer has come and was not handed over. */
void of_msgs_forget(iso_transport_t *tp, of_peer_t *peer);
/* libfabric has let go of a message. */
void of_sent(of_buffer_t *buffer, int error);
/* The endpoint is closed: what libfabric has of it is nobody's, the rest goes. may_arrive: close gives them time. */
void of_sends_forget(iso_endpoint_t *ep, bool may_arrive);
/* Calls host->message for what has come. Returns events. */
unsigned of_msgs_deliver(iso_transport_t *tp);

/* of_cq.c: asks libfabric what has ended. Returns completions. */
unsigned of_cq_take(iso_transport_t *tp);

/* of_progress.c */
/* Hears what a process that has ended had sent. */
unsigned of_drain(iso_transport_t *tp);
iso_status_t of_events_open(iso_transport_t *tp);
unsigned of_progress(iso_transport_t *tp);
int of_event_fd(iso_transport_t *tp);
iso_status_t of_arm(iso_transport_t *tp);

#endif
