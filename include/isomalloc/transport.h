/*
 * transport.h - the plug-in ABI of transports.
 *
 * A transport registers memory, puts bytes into a peer's registered memory at an address that the
 * peer named, and carries small messages. It knows ranks, addresses, lengths and bytes; nothing of
 * slots, heaps or migrations. A module (libisomalloc-<name>.so) exports one symbol,
 * iso_transport_module, an iso_transport_ops_t. Anybody can write one: this header is all it needs;
 * it links nothing of libisomalloc and calls back only through iso_transport_host_t.
 *
 * Threads. The library calls the functions of one instance from one thread at a time, and callbacks
 * (message, peer_failed, completions) must be made only from inside progress, in that thread.
 *
 * Errors. A function logs the first error that it knows through host->log, once, and returns a
 * status; outputs are set only on success.
 */
#ifndef ISOMALLOC_TRANSPORT_H
#define ISOMALLOC_TRANSPORT_H

#include <isomalloc/isomalloc.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_TRANSPORT_ABI 2u

/* Every transport carries messages of at least this many bytes, and addresses and rkeys of at most
 * those: what the library plans its own messages with. (UCX's address grows with the devices that
 * a host has.) */
#define ISO_TRANSPORT_MIN_SEND 8192
#define ISO_TRANSPORT_ADDRESS_MAX 3072
#define ISO_TRANSPORT_RKEY_MAX 512

typedef struct iso_transport iso_transport_t; /* an open instance; the module defines it */
typedef struct iso_endpoint iso_endpoint_t;   /* the way to one peer */
typedef struct iso_region iso_region_t;       /* a range of local memory registered for puts */
typedef struct iso_rkey iso_rkey_t;           /* what is needed to put into a peer's region */

/* Called once, from progress, when an operation that returned ISO_INPROGRESS has ended. The struct
 * is the caller's and must stay until then. */
typedef struct iso_completion {
    void (*fn)(struct iso_completion *self, iso_status_t status);
} iso_completion_t;

/* How sure a transport is that a peer has failed. Only ISO_FAILURE_DEAD (its process is known to be
 * gone, and every message that it sent has been delivered) settles who owns a heap. */
typedef enum iso_failure {
    ISO_FAILURE_UNREACHABLE = 0,
    ISO_FAILURE_DEAD = 1
} iso_failure_t;

/* What a program shares with a transport (iso_params_t::transport_shared): the beginning of a struct that
 * the transport's own header describes. */
typedef struct iso_transport_shared {
    const char *transport; /* its name: no other gets to see it */
    size_t struct_size;    /* of all of the struct */
} iso_transport_shared_t;

/* What the library gives to a transport that it opens; lives until close. */
typedef struct iso_transport_host {
    uint32_t struct_size;
    uint32_t rank, size;
    uint8_t cookie[16]; /* of the job: a peer without it is not of the job */
    void *arg;          /* first argument of the callbacks */
    /* A message from rank src has arrived; data is valid during the call only. */
    void (*message)(void *arg, uint32_t src, const void *data, size_t len);
    void (*peer_failed)(void *arg, uint32_t rank, iso_failure_t failure);
    void (*log)(void *arg, iso_log_level_t level, const char *text);
    const iso_transport_shared_t *shared; /* NULL: nothing; valid during open only */
    bool
        on_demand; /* register so that nothing is pinned: a device fetches pages when it needs them. Where
                       there is no such device caps do not say on_demand, and nothing will be registered */
    const char
        *provider; /* ISO_OFI_PROVIDER, for the transport that knows providers; NULL or "": any */
} iso_transport_host_t;

typedef struct iso_transport_caps {
    uint32_t struct_size;
    bool pins_memory; /* registration pins pages: it is bounded, and mappings must not change */
    bool one_sided;   /* puts complete while the target's CPU does nothing (tried, not hoped) */
    bool needs_fd;    /* regions must come with the memory object that backs them. If not, and if it
                         shares_host, the system may still forbid a peer to write to memory without
                         one: before it relies on that, the library tries a put between neighbours */
    bool shares_host; /* reaches only ranks on this host */
    bool sees_death;  /* reports ISO_FAILURE_DEAD of every connected peer that dies, by itself */
    size_t max_send;  /* longest message, >= ISO_TRANSPORT_MIN_SEND */
    size_t max_put;   /* longest single put */
    const char *description; /* one line for people, as long as the instance is open */
    bool on_demand; /* the host has asked for it, and a device does it (tried, not hoped) */
    /* Bytes that it pins, sooner or later, for its own use, whatever is registered. 0: it cannot say, and a
     * quarter of what may be pinned is left to it. */
    uint64_t own_pinned;
} iso_transport_caps_t;

/* Memory to register: a range, and where it comes from. */
typedef struct iso_memory {
    void *address;
    uint64_t length;
    int fd;          /* the memfd that backs it, open in this process; -1: anonymous memory */
    uint64_t offset; /* of `address` in it; 0 without one */
} iso_memory_t;

typedef struct iso_transport_ops {
    uint32_t abi_version; /* ISO_TRANSPORT_ABI */
    uint32_t struct_size;
    const char *name;

    /* Could an instance be opened on this machine? If not, *why_p is one static line. */
    iso_status_t (*probe)(const char **why_p);
    iso_status_t (*open)(const iso_transport_host_t *host, iso_transport_t **tp_p);
    /* All endpoints, regions and rkeys have been given back before. */
    void (*close)(iso_transport_t *tp);
    void (*query)(iso_transport_t *tp, iso_transport_caps_t *caps_p);

    /* This instance's address, for peers' connect. *len_p: room on entry, length on return. */
    iso_status_t (*address)(iso_transport_t *tp, void *buf, size_t *len_p);
    /* Makes the way to a peer; does not wait for the peer. Either side may connect first; messages
     * from a rank may arrive before this side has connected to it. */
    iso_status_t (*connect)(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                            iso_endpoint_t **ep_p);
    void (*disconnect)(iso_endpoint_t *ep);

    /* Regions come and go while others are used: never one that a put is under way to or from. ISO_ERR_LIMIT:
     * the system does not let so much be pinned. */
    iso_status_t (*mem_register)(iso_transport_t *tp, const iso_memory_t *memory,
                                 iso_region_t **region_p);
    void (*mem_deregister)(iso_region_t *region);
    iso_status_t (*rkey_pack)(iso_region_t *region, void *buf, size_t *len_p);
    iso_status_t (*rkey_unpack)(iso_endpoint_t *ep, const void *buf, size_t len,
                                iso_rkey_t **rkey_p);
    void (*rkey_destroy)(iso_rkey_t *rkey);

    /* Writes len bytes at src (in local region `region`) to `remote` at the peer. ISO_OK: locally
     * complete, completion is not called. ISO_INPROGRESS: src must stay unchanged until it is.
     * ISO_ERR_AGAIN: no room, nothing done. Puts are not ordered among themselves. */
    iso_status_t (*put)(iso_endpoint_t *ep, const void *src, size_t len, iso_region_t *region,
                        uint64_t remote, iso_rkey_t *rkey, iso_completion_t *completion);
    /* Puts before the fence are visible at the peer before messages and puts after it. May be a
     * no-op where that holds anyway; ISO_ERR_INVALID where the transport cannot order, ISO_ERR_AGAIN
     * where it cannot just now: a flush does what a fence would. */
    iso_status_t (*fence)(iso_endpoint_t *ep);
    /* All earlier puts on ep are remotely complete when this is (returns as put does). */
    iso_status_t (*flush)(iso_endpoint_t *ep, iso_completion_t *completion);

    /* A small message: copied before return, ordered per peer, reliable while the peer lives.
     * ISO_ERR_AGAIN: no room now, nothing sent. */
    iso_status_t (*send)(iso_endpoint_t *ep, const void *data, size_t len);
    /* Are there messages that send took and that need this process's progress to leave? Those that do not are where the
     * progress of a peer on this host finds them. NULL: never any. */
    bool (*is_sending)(iso_transport_t *tp);

    /* Does what can be done without waiting; returns the number of events (0: idle). */
    unsigned (*progress)(iso_transport_t *tp);
    /* A descriptor that becomes readable when progress has work, after arm has returned ISO_OK;
     * ISO_ERR_BUSY: there is work now. -1 from event_fd: none, the library polls. */
    int (*event_fd)(iso_transport_t *tp);
    iso_status_t (*arm)(iso_transport_t *tp);
} iso_transport_ops_t;

#define ISO_TRANSPORT_MODULE_SYMBOL "iso_transport_module"

/* For programs that list what is there (iso_info): looks for the modules `iso_init` would find with
 * these params and calls fn for each that is one, loadable or not. kind is "transport" or
 * "bootstrap"; usable false comes with why. Thread rules: none. */
typedef struct iso_module_info {
    const char *kind, *name, *path;
    bool usable;
    const char *why;           /* NULL when usable */
    iso_transport_caps_t caps; /* of a usable transport */
    const char *registration;  /* of a usable transport: what ISO_REGISTER would choose, and why */
} iso_module_info_t;
ISO_API void iso_modules(const iso_params_t *params,
                         void (*fn)(const iso_module_info_t *info, void *arg), void *arg);

#ifdef __cplusplus
}
#endif
#endif
