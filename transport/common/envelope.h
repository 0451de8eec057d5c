/*
 * envelope.h - what every message over a network begins with: whose it is, of which job, and the how-manieth. What does
 * not prove that it is of this job is dropped and counted.
 *
 * Compiled into every module that wants it: a module needs nothing outside itself.
 */
#ifndef TRANSPORT_COMMON_ENVELOPE_H
#define TRANSPORT_COMMON_ENVELOPE_H

#include <isomalloc/transport.h>
#include <string.h>

/* A protocol, versioned by the transport's number. */
typedef struct envelope {
    uint32_t magic, version; /* the transport's */
    uint32_t source;         /* rank */
    uint32_t len;            /* of what follows the header that this begins */
    uint64_t number;         /* of the message, from 0 in each instance for each peer */
    uint8_t cookie[16];
} envelope_t;

static inline envelope_t envelope_new(const iso_transport_host_t *host, uint32_t magic,
                                      uint32_t version, size_t len, uint64_t number)
{
    envelope_t envelope = {.magic = magic,
                           .version = version,
                           .source = host->rank,
                           .len = (uint32_t)len,
                           .number = number,
                           .cookie = {0}};

    memcpy(envelope.cookie, host->cookie, sizeof envelope.cookie);
    return envelope;
}

/* Of a rank of this job, and of this length? */
static inline bool envelope_is_good(const envelope_t *envelope, const iso_transport_host_t *host,
                                    uint32_t magic, uint32_t version, size_t len)
{
    return envelope->magic == magic && envelope->version == version &&
           envelope->source < host->size && envelope->len == len &&
           memcmp(envelope->cookie, host->cookie, sizeof envelope->cookie) == 0;
}

/* Counts one that is not; the first is told of. */
void envelope_drop(const iso_transport_host_t *host, uint64_t *dropped);

#endif
