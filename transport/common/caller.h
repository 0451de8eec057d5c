/*
 * caller.h - a transport and the library that calls it: what it is told, and what it is held to, the same in every
 * transport. What is refused is logged here.
 *
 * Compiled into every module that wants it: a module needs nothing outside itself.
 */
#ifndef TRANSPORT_COMMON_CALLER_H
#define TRANSPORT_COMMON_CALLER_H

#include <isomalloc/transport.h>

void caller_log(const iso_transport_host_t *host, iso_log_level_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What open is given. */
iso_status_t caller_check_host(const iso_transport_host_t *host);
/* Of each peer that is met so many descriptors are open: are there enough for all ranks? If not it is said so. */
void caller_check_descriptors(const iso_transport_host_t *host, unsigned of_each);
/* What has not been given back when an instance is closed: nothing, else it is said. */
void caller_check_close(const iso_transport_host_t *host, uint32_t endpoints, uint32_t regions,
                        uint32_t rkeys);

/* What an rkey allows to be written. */
typedef struct caller_target {
    uint32_t rank;
    uint64_t address, length;
} caller_target_t;

/* Is all of [address, address + len) in [start, start + length)? */
bool caller_inside(uint64_t start, uint64_t length, uint64_t address, size_t len);
/* A put to rank `peer`, of at most max_put bytes. from: of its local region; NULL: it has none, which is refused
 * even where a transport does not need one, because another, that pins, would fail. */
iso_status_t caller_check_put(const iso_transport_host_t *host, size_t max_put,
                              const iso_memory_t *from, const void *src, size_t len, uint32_t peer,
                              caller_target_t to, uint64_t remote);

#endif
