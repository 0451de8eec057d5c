/* clock.h - the clock by which transports decide when to look again: of milliseconds, coarse, cheap to read. */
#ifndef TRANSPORT_COMMON_CLOCK_H
#define TRANSPORT_COMMON_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_coarse_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

#endif
