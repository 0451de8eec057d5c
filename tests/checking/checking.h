/*
 * checking.h - the transport `checking` (checking.c says what it is for): its objects, and what its files do with them.
 */
#ifndef ISO_TESTS_CHECKING_H
#define ISO_TESTS_CHECKING_H

#include <isomalloc/transport.h>
#include <stdatomic.h>

#define RANKS_MAX 64
#define REGIONS_MAX 4096

/* ---- what other ranks see -------------------------------------------------------------------- */

typedef struct entry {
    _Atomic(uint64_t) id; /* 0: not registered */
    uint64_t address, length;
    _Atomic(uint32_t) puts[RANKS_MAX]; /* into it, not flushed yet, by rank */
} entry_t;

typedef struct registry {
    _Atomic(int32_t) pids[RANKS_MAX]; /* of those that are connected to this rank */
    entry_t entries[REGIONS_MAX];
} registry_t;

typedef struct address_blob {
    int32_t pid, fd;
} address_blob_t;

typedef struct rkey_blob {
    uint64_t id;
    uint32_t entry, len;
} rkey_blob_t;

/* ---- this instance --------------------------------------------------------------------------- */

struct iso_region {
    iso_transport_t *tp;
    iso_region_t *inner;
    iso_memory_t memory;
    uint32_t entry;
    uint32_t busy; /* puts from it that are under way */
};

struct iso_rkey {
    iso_transport_t *tp;
    iso_rkey_t *inner;
    uint64_t id;
    uint32_t entry;
};

typedef struct op {
    iso_completion_t completion; /* first: the inner transport's */
    struct op *next;
    iso_endpoint_t *ep;
    iso_completion_t *outer;
    uint64_t number; /* of its endpoint */
    unsigned turns;  /* until it goes */
    bool given;      /* to the inner transport */
    bool is_flush;
    /* of a put */
    const void *src;
    size_t len;
    iso_region_t *region;
    uint64_t remote;
    iso_rkey_t *rkey;
    entry_t *entry;
} op_t;

struct iso_endpoint {
    iso_transport_t *tp;
    iso_endpoint_t *inner;
    uint32_t rank;
    registry_t *registry; /* the peer's */
    uint64_t numbered;
    op_t *unflushed; /* puts that have ended here */
};

struct iso_transport {
    iso_transport_host_t host;
    void *handle;
    const iso_transport_ops_t *ops;
    iso_transport_t *inner;
    registry_t *registry;
    int fd;
    uint64_t next_id, limit, memlock, registered;
    bool pin;
    uint32_t regions, random;
    op_t *ops_under_way;
};

/* Ends the process with a line. */
void ck_die(const iso_transport_t *tp, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));

/* ---- registry.c: what is registered, and with which key ---- */

/* This rank's registry, which its peers map. Ends the process where it cannot be made. */
void ck_registry_open(iso_transport_t *tp);
void ck_registry_close(iso_transport_t *tp);
/* A peer's; NULL: it has ended. */
registry_t *ck_registry_map(const address_blob_t *blob);
bool ck_is_alive(int32_t pid);

iso_status_t ck_mem_register(iso_transport_t *tp, const iso_memory_t *memory,
                             iso_region_t **region_p);
void ck_mem_deregister(iso_region_t *region);
iso_status_t ck_rkey_pack(iso_region_t *region, void *buf, size_t *len_p);
iso_status_t ck_rkey_unpack(iso_endpoint_t *ep, const void *buf, size_t len, iso_rkey_t **rkey_p);
void ck_rkey_destroy(iso_rkey_t *rkey);

/* ---- late.c: puts and flushes that are held back ---- */

iso_status_t ck_put(iso_endpoint_t *ep, const void *src, size_t len, iso_region_t *region,
                    uint64_t remote, iso_rkey_t *rkey, iso_completion_t *completion);
iso_status_t ck_fence(iso_endpoint_t *ep);
iso_status_t ck_flush(iso_endpoint_t *ep, iso_completion_t *completion);

/* Gives one operation whose turn it is to the inner transport; 0: there is none. */
unsigned ck_give_next(iso_transport_t *tp);
bool ck_has_ungiven(const iso_transport_t *tp);
/* Drops those of an endpoint that goes; ends the process if the inner transport still has one. */
void ck_ops_forget(iso_endpoint_t *ep);

#endif
