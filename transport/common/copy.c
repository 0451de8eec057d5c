/*
 * copy.c - copying to memory that another core has used last and will read next.
 *
 * The target's lines of a page that is put to again and again are in its core's cache, as are those of
 * the source that this core is about to read. A plain store first brings the line over, and the peer
 * brings it back when it reads; a non-temporal store (x86: MOVNT, Intel 64 SDM vol. 1, 10.4.6.2) writes
 * the whole line to memory and invalidates the peer's, without reading it. memcpy uses them only for a
 * copy that is longer than its share of the last cache; a put is cut into shorter ones.
 *
 * Measured between two cores of a virtual machine (AMD EPYC 9004; half a round trip of a buffer that
 * both read and write, GB/s by size):          16 KiB   64 KiB   1 MiB   4 MiB   16 MiB   64 MiB
 *   memcpy                                      2.3      2.2      2.4     2.6     4.3      2.9
 *   non-temporal stores                         6.1      15.8     21.4    19.7    17.6     15.5
 *
 * One page after the other is no order for this: memory of 4 KiB pages ends a stream of prefetches at each, and a page's walk
 * (two of them, nested, in a virtual machine) comes when everything waits for it. So four pages go at once, two lines of each
 * in turn, while the lines of the next four are asked for. Measured between two cores of another one (Intel Xeon at
 * 2.80 GHz, "Ice Lake"; a buffer that goes to and fro, copies alone, GB/s by size):  64 KiB   1 MiB   4 MiB   64 MiB
 *   memcpy                                                                             8.5      8.7     6.0     9.9
 *   a page after the other                                                             6.7      8.0     7.5     7.9
 *   four pages                                                                         8.6      9.1     9.3     10.5
 *   four pages, and the next ones asked for                                            8.2      9.6     9.4
 * (Vectors of 64 bytes gave up to a tenth more, and are not worth a choice by processor.)
 */
#include "transport/common/copy.h"
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <emmintrin.h>

#define LINE ((size_t)64)
#define STRIP ((size_t)4096) /* a page, on x86: what a prefetcher does not leave */
#define STRIPS 4
#define SHORT ((size_t)4096) /* what is shorter is read again at once, or is not worth the fence */

/* to: aligned to a line. */
static inline void stream_line(unsigned char *to, const unsigned char *from)
{
    const __m128i a = _mm_loadu_si128((const __m128i *)(const void *)from);
    const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(from + 16));
    const __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(from + 32));
    const __m128i d = _mm_loadu_si128((const __m128i *)(const void *)(from + 48));

    _mm_stream_si128((__m128i *)(void *)to, a);
    _mm_stream_si128((__m128i *)(void *)(to + 16), b);
    _mm_stream_si128((__m128i *)(void *)(to + 32), c);
    _mm_stream_si128((__m128i *)(void *)(to + 48), d);
}

/* A line, and the one after it: processors fetch lines by two. */
static inline void stream_two(unsigned char *to, const unsigned char *from, bool ahead)
{
    if (ahead) {
        _mm_prefetch((const char *)from + STRIPS * STRIP, _MM_HINT_T0);
        _mm_prefetch((const char *)from + STRIPS * STRIP + LINE, _MM_HINT_T0);
    }
    stream_line(to, from);
    stream_line(to + LINE, from + LINE);
}

/* STRIPS strips. ahead: as many follow, which are asked for. */
static inline void stream_strips(unsigned char *to, const unsigned char *from, bool ahead)
{
    for (size_t at = 0; at < STRIP; at += 2 * LINE) {
        stream_two(to + at, from + at, ahead);
        stream_two(to + at + STRIP, from + at + STRIP, ahead);
        stream_two(to + at + 2 * STRIP, from + at + 2 * STRIP, ahead);
        stream_two(to + at + 3 * STRIP, from + at + 3 * STRIP, ahead);
    }
}

/* to: aligned to a line; len: of whole lines. */
static void stream(unsigned char *to, const unsigned char *from, size_t len)
{
    const size_t block = STRIPS * STRIP;

    for (; len >= 2 * block; len -= block, to += block, from += block)
        stream_strips(to, from, true);
    for (; len >= block; len -= block, to += block, from += block)
        stream_strips(to, from, false);
    for (; len > 0; len -= LINE, to += LINE, from += LINE)
        stream_line(to, from);
    _mm_sfence(); /* the stores are ordered with nothing else: messages must not pass them */
}

void copy_to_peer(void *to, const void *from, size_t len)
{
    unsigned char *dst = to;
    const unsigned char *src = from;

    if (len >= SHORT) {
        const size_t head = (size_t) - (uintptr_t)dst % LINE, body = (len - head) / LINE * LINE;
        memcpy(dst, src, head);
        stream(dst + head, src + head, body);
        dst += head + body;
        src += head + body;
        len -= head + body;
    }
    memcpy(dst, src, len);
}

#else

void copy_to_peer(void *to, const void *from, size_t len)
{
    memcpy(to, from, len);
}

#endif
