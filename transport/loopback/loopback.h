/*
 * loopback.h - what the files of the loopback transport share: the structures, with their
 * invariants, and the way into each file.
 *
 * First the memory that processes share (lo_inbox, lo_ring): its layout is a protocol, versioned by
 * LO_VERSION, and whatever is read from it is checked before it is used. Then what is private to an
 * instance. What a file does, and why so, stands at its beginning.
 */
#ifndef LOOPBACK_H
#define LOOPBACK_H

#include "transport/common/blob.h"
#include "transport/common/caller.h"
#include "transport/common/peers.h"
#include "transport/common/process.h"
#include "transport/common/windows.h"
#include <assert.h>
#include <isomalloc/transport.h>
#include <stdalign.h>
#include <stdatomic.h>

#define LO_VERSION 3u
#define LO_MAX_SEND 16384u
#define LO_MAX_PUT ((size_t)1 << 20) /* bounds one call: 0.1 ms where warm, 0.4 ms where cold */
#define LO_MAX_RANKS (64u * 64u * 64u)

/* ---- shared between processes ---------------------------------------------------------------- */

#define LO_MAGIC 0x786f626e692d6f6cu /* "lo-inbox" */
#define LO_LINE 64                   /* bytes that cores pass around as one: keeps writers apart */
#define LO_CONTROL_BYTES 65536u      /* a multiple of every page size */
#define LO_RING_BYTES 65536u
#define LO_RING_HEADER (4 * LO_LINE)
#define LO_RING_DATA (LO_RING_BYTES - LO_RING_HEADER)

/* The name of an abstract AF_UNIX socket. */
typedef struct lo_doorbell_name {
    uint32_t len; /* 1..sizeof bytes, the leading zero byte included */
    char bytes[12];
} lo_doorbell_name_t;

/* Whose inbox it is: compared as bytes, so it has no padding. */
typedef struct lo_inbox_id {
    uint64_t magic;
    uint64_t start; /* of the owning process */
    int32_t pid;
    uint32_t version, rank, size;
    uint8_t cookie[16];
} lo_inbox_id_t;

/* One byte stream, sender to receiver. Positions count bytes since the beginning and never wrap;
 * position p lies at data[p % LO_RING_DATA]. A record is a lo_record_t and its bytes, padded to 8;
 * it may continue at the start of data, its lo_record_t never does.
 * tail <= head <= tail + LO_RING_DATA, all multiples of 8. */
typedef struct lo_ring {
    /* Who sends: written by it once, before its first record; sender_check last (0: nobody yet). */
    process_id_t sender;
    lo_doorbell_name_t doorbell;
    _Atomic(uint64_t) sender_check;
    alignas(LO_LINE) _Atomic(uint64_t) head; /* written by the sender, after the record */
    alignas(LO_LINE) _Atomic(uint64_t) tail; /* written by the receiver: may be written over */
    alignas(LO_LINE) _Atomic(uint32_t) sender_waits; /* sleeps for room: ring its doorbell */
    alignas(LO_LINE) unsigned char data[LO_RING_DATA];
} lo_ring_t;
static_assert(sizeof(lo_ring_t) == LO_RING_BYTES, "the ring's layout is a protocol");

typedef struct lo_record {
    uint32_t len;   /* of the message, <= LO_MAX_SEND */
    uint32_t check; /* of position and len: garbage and a record of an earlier lap are told apart */
} lo_record_t;
static_assert(LO_RING_DATA % sizeof(lo_record_t) == 0, "a lo_record_t must never wrap");

/* The head of an inbox. One bit per sender that has news, and a summary of them, so that an idle
 * look costs one word for 4096 ranks. A sender sets its bit in ready, then in summary; the receiver
 * clears in the other order, then reads the ring's head. */
typedef struct lo_control {
    lo_inbox_id_t id;
    lo_doorbell_name_t doorbell;
    alignas(LO_LINE) _Atomic(uint32_t) armed; /* 0: awake; else the number of this sleep */
    _Atomic(uint32_t) closed;                 /* the instance is gone, its process may live */
    alignas(LO_LINE) _Atomic(uint64_t) summary[LO_MAX_RANKS / 64 / 64];
    alignas(LO_LINE) _Atomic(uint64_t) ready[LO_MAX_RANKS / 64];
} lo_control_t;
static_assert(sizeof(lo_control_t) <= LO_CONTROL_BYTES, "the control block has a fixed place");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
              "atomics in shared memory must not use locks of a process");

/* Offset of a sender's ring in an inbox, and with rank == size the length of the inbox. */
static inline uint64_t lo_ring_offset(uint32_t rank)
{
    return LO_CONTROL_BYTES + (uint64_t)rank * LO_RING_BYTES;
}

/* ---- private: peers -------------------------------------------------------------------------- */

/* A rank that this one has connected to or heard of. One that is unreachable takes nothing (it has closed its instance, or
 * is broken); what it sent still counts, where it is not broken. */
typedef struct lo_peer {
    peer_t base;          /* first */
    bool broken;          /* its ring holds garbage: never read again, so it is never PEER_DEAD */
    bool heard;           /* its bit has shown: it is watched even if nobody connects to it */
    bool unreachable_due; /* found by a send; progress has to report it */
    bool unwatched;       /* no pidfd could be had for it, for want of descriptors; retried */
    uint64_t tail;        /* how far its ring has been read; the ring's tail is a copy for it */
} lo_peer_t;

static inline lo_peer_t *lo_peer(peer_t *base)
{
    return (lo_peer_t *)(void *)base;
}

struct iso_endpoint {
    iso_transport_t *tp;
    lo_peer_t *peer;
    lo_control_t *control;        /* mapping of the peer's control block */
    lo_ring_t *ring;              /* mapping of this rank's ring in the peer's inbox */
    lo_doorbell_name_t doorbell;  /* the peer's */
    uint64_t head;                /* == ring->head between calls */
    uint64_t tail;                /* <= ring->tail: the last one seen */
    uint32_t rung;                /* the sleep of the peer that this rank has ended; see armed */
    uint64_t need;                /* room that a refused send waits for; 0: in no list */
    iso_endpoint_t *next_blocked; /* in tp->blocked */
};

/* ---- private: memory ------------------------------------------------------------------------- */

struct iso_region {
    iso_transport_t *tp;
    iso_memory_t memory;
    uint64_t inode; /* of the memfd: a descriptor's number is used again, this is not. 0: none */
    uint32_t id;
};

struct iso_rkey {
    iso_transport_t *tp;
    uint32_t rank;
    object_t *object;         /* NULL: memory without an object, put to by process_vm_writev */
    uint64_t address, length; /* at the peer */
    uint64_t offset;          /* of address in the file, which holds all of it */
};

/* ---- private: the instance ------------------------------------------------------------------- */

struct iso_transport {
    const iso_transport_host_t *host;
    process_place_t place;
    process_id_t process;

    int inbox_fd;
    unsigned char *inbox; /* all of it; only pages that are used take memory */
    lo_control_t *control;
    unsigned char message[LO_MAX_SEND]; /* a message on its way from ring to callback */

    int doorbell_fd; /* in peers.watch_fd, which is the event_fd */
    lo_doorbell_name_t doorbell;
    bool doorbell_warned;
    bool armed;          /* since the last progress */
    uint32_t arm_number; /* the last value of control->armed that was not 0 */
    bool in_progress;
    uint64_t look_at;     /* coarse ms at which descriptors are looked at again */
    uint32_t unwatched;   /* peers with that flag */
    uint32_t reports_due; /* peers with unreachable_due */

    peers_t peers;
    iso_endpoint_t *blocked;

    uint32_t endpoints, regions, rkeys; /* open */
    uint32_t next_region_id;
    object_t *objects;
    windows_t windows;
    bool no_vm_writev; /* ISO_TEST_NO_VM_WRITEV: as if the kernel forbade it */
};

/* lo_module.c */
#define lo_log(tp, ...) caller_log((tp)->host, __VA_ARGS__)

/* lo_address.c: the address blob. */
iso_status_t lo_address(iso_transport_t *tp, void *buf, size_t *len_p);
/* The process and the descriptor of the inbox in an address; ISO_ERR_UNREACHABLE: another host. */
iso_status_t lo_address_read(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                             process_id_t *process_p, int *inbox_fd_p);

/* lo_ep.c */
extern const peer_kind_t lo_peer_kind;
iso_status_t lo_connect(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                        iso_endpoint_t **ep_p);
void lo_disconnect(iso_endpoint_t *ep);

/* lo_msg.c */
iso_status_t lo_inbox_create(iso_transport_t *tp);
void lo_inbox_close(iso_transport_t *tp);
/* Makes this rank the sender of the ring; ISO_ERR_UNREACHABLE if another process is. */
iso_status_t lo_ring_claim(iso_endpoint_t *ep);
iso_status_t lo_send(iso_endpoint_t *ep, const void *data, size_t len);
bool lo_inbox_ready(const iso_transport_t *tp);
/* Delivers what has come; returns the number of events. */
unsigned lo_inbox_receive(iso_transport_t *tp);
/* Delivers all that a peer had sent before it ended. */
unsigned lo_ring_drain(iso_transport_t *tp, lo_peer_t *peer);
bool lo_ep_unblocked(iso_endpoint_t *ep);
void lo_ep_forget_blocked(iso_endpoint_t *ep);

/* lo_mem.c */
iso_status_t lo_mem_register(iso_transport_t *tp, const iso_memory_t *memory,
                             iso_region_t **region_p);
void lo_mem_deregister(iso_region_t *region);
iso_status_t lo_rkey_pack(iso_region_t *region, void *buf, size_t *len_p);
iso_status_t lo_rkey_unpack(iso_endpoint_t *ep, const void *buf, size_t len, iso_rkey_t **rkey_p);
void lo_rkey_destroy(iso_rkey_t *rkey);

/* lo_put.c */
iso_status_t lo_put(iso_endpoint_t *ep, const void *src, size_t len, iso_region_t *region,
                    uint64_t remote, iso_rkey_t *rkey, iso_completion_t *completion);
iso_status_t lo_fence(iso_endpoint_t *ep);
iso_status_t lo_flush(iso_endpoint_t *ep, iso_completion_t *completion);

/* lo_vm.c: memory that no memory object backs. */
/* Lets the job's ranks write to this process, where Yama asks for that. */
void lo_vm_permit(const iso_transport_t *tp);
iso_status_t lo_vm_put(const iso_endpoint_t *ep, const unsigned char *src, size_t len,
                       uint64_t remote);

/* lo_progress.c: also the doorbell and who is alive. */
iso_status_t lo_doorbell_create(iso_transport_t *tp);
void lo_doorbell_close(iso_transport_t *tp);
void lo_doorbell_ring(iso_transport_t *tp, const lo_doorbell_name_t *name);
void lo_peer_unwatch(iso_transport_t *tp, lo_peer_t *peer);
/* The peer's process is gone: delivers what it had sent, then reports it, once. */
unsigned lo_peer_ended(iso_transport_t *tp, lo_peer_t *peer);
unsigned lo_progress(iso_transport_t *tp);
int lo_event_fd(iso_transport_t *tp);
iso_status_t lo_arm(iso_transport_t *tp);

#endif
