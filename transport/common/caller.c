/* caller.c - see caller.h. */
#include "transport/common/caller.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>

#define OTHER_DESCRIPTORS 64 /* of the transport itself, the library and the program, about */

void caller_log(const iso_transport_host_t *host, iso_log_level_t level, const char *format, ...)
{
    char text[512];
    va_list args;

    if (host->log == NULL)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    host->log(host->arg, level, text);
}

iso_status_t caller_check_host(const iso_transport_host_t *host)
{
    if (host->struct_size < sizeof *host || host->message == NULL || host->peer_failed == NULL) {
        caller_log(host, ISO_LOG_ERROR,
                   "the library's host structure has %u bytes, %zu and both callbacks are needed: "
                   "module and library are of different versions",
                   host->struct_size, sizeof *host);
        return ISO_ERR_VERSION;
    }
    if (host->rank >= host->size) {
        caller_log(host, ISO_LOG_ERROR, "rank %u is not in a job of %u ranks", host->rank,
                   host->size);
        return ISO_ERR_RANK;
    }
    return ISO_OK;
}

void caller_check_descriptors(const iso_transport_host_t *host, unsigned of_each)
{
    const uint64_t needed = (uint64_t)of_each * (host->size - 1) + OTHER_DESCRIPTORS;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed)
        return;
    caller_log(
        host, host->rank == 0 ? ISO_LOG_WARN : ISO_LOG_INFO,
        "%" PRIu64 " descriptors may be open in this process, and a rank that speaks with all "
        "%u others needs some %" PRIu64 ": set ulimit -n higher if ranks speak with many (up to "
        "%" PRIu64 " are allowed)",
        (uint64_t)limit.rlim_cur, host->size - 1, needed, (uint64_t)limit.rlim_max);
}

void caller_check_close(const iso_transport_host_t *host, uint32_t endpoints, uint32_t regions,
                        uint32_t rkeys)
{
    if (endpoints != 0 || regions != 0 || rkeys != 0)
        caller_log(host, ISO_LOG_ERROR,
                   "closed with %u endpoints, %u regions and %u rkeys still in use: give them back "
                   "first",
                   endpoints, regions, rkeys);
}

bool caller_inside(uint64_t start, uint64_t length, uint64_t address, size_t len)
{
    return address >= start && address - start <= length && len <= length - (address - start);
}

iso_status_t caller_check_put(const iso_transport_host_t *host, size_t max_put,
                              const iso_memory_t *from, const void *src, size_t len, uint32_t peer,
                              caller_target_t to, uint64_t remote)
{
    if (len > max_put) {
        caller_log(host, ISO_LOG_ERROR, "a put of %zu bytes: at most %zu (caps.max_put) go at once",
                   len, max_put);
        return ISO_ERR_INVALID;
    }
    if (to.rank != peer) {
        caller_log(host, ISO_LOG_ERROR, "a put to rank %u with an rkey of rank %u", peer, to.rank);
        return ISO_ERR_INVALID;
    }
    if (!caller_inside(to.address, to.length, remote, len)) {
        caller_log(host, ISO_LOG_ERROR,
                   "a put of %zu bytes to %#" PRIx64
                   " of rank %u is outside the region of its rkey, %#" PRIx64 " + %" PRIu64
                   " bytes",
                   len, remote, peer, to.address, to.length);
        return ISO_ERR_INVALID;
    }
    if (from == NULL ||
        !caller_inside((uintptr_t)from->address, from->length, (uintptr_t)src, len)) {
        caller_log(host, ISO_LOG_ERROR, "a put of %zu bytes from %p, which is outside its region",
                   len, src);
        return ISO_ERR_INVALID;
    }
    return ISO_OK;
}
