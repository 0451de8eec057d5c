/*
 * blob.h - what a rank tells of itself in bytes that others carry (an address, an rkey), so that garbage, and what is of
 * another version or rank, is known as such before anything of it is used.
 *
 * It is a head, a struct of the transport's, and the bytes of a network library, if there are any. Some of those read them
 * without knowing their length.
 *
 * Compiled into every module that wants it: a module needs nothing outside itself.
 */
#ifndef TRANSPORT_COMMON_BLOB_H
#define TRANSPORT_COMMON_BLOB_H

#include <isomalloc/transport.h>

typedef struct blob_head {
    uint32_t magic, version;
    uint32_t rank; /* whose it is */
    uint32_t len;  /* of what follows */
    uint64_t hash; /* of that */
} blob_head_t;

typedef struct blob_kind {
    uint32_t magic, version;
    const char *name;   /* with its article: "a UCX address" */
    const char *remedy; /* where the room is too small; "": none */
} blob_kind_t;

/* *len_p: room on entry, length on return; ISO_ERR_LIMIT. The struct has no byte that is not set. */
iso_status_t blob_write(const iso_transport_host_t *host, const blob_kind_t *kind, const void *body,
                        size_t size, const void *rest, size_t rest_len, void *buf, size_t *len_p);
/* ISO_ERR_VERSION, ISO_ERR_INVALID: it is of another version, or not of that kind and rank. *rest_p points into buf;
 * rest_p NULL: nothing is to follow the struct. */
iso_status_t blob_read(const iso_transport_host_t *host, const blob_kind_t *kind, uint32_t rank,
                       const void *buf, size_t len, void *body, size_t size, const void **rest_p,
                       size_t *rest_len_p);

#endif
