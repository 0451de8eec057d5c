/* hash.h - a hash of what a peer is told in blobs (addresses, rkeys), so that garbage is known as such. */
#ifndef TRANSPORT_COMMON_HASH_H
#define TRANSPORT_COMMON_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_START 0xcbf29ce484222325u

/* FNV-1a; begins with HASH_START, and goes on with what the call before returned. */
static inline uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
    return hash;
}

#endif
