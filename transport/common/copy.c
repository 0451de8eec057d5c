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
 * One page after the other is no order for this: with pages of 4 KiB the processor's own fetching ahead ends at each, and everything
 * waits for the page's walk (two, nested, in a virtual machine). So four pages go at once, two lines of each in turn. A store of a
 * whole line (AVX-512) needs no buffer that combines parts of one. Between two cores of another one (Intel Xeon, Ice Lake, 2.80
 * GHz) a migration of 64 MiB had 0.72 to 0.80 of memcpy's rate with a page after the other, and has 1.0 to 1.2 so (iso_perftest -t
 * migrate_memcpy).
 */
#include "transport/common/copy.h"
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define LINE ((size_t)64)
#define STRIP ((size_t)4096) /* a page: what is fetched ahead ends with it */
#define STRIPS 4
#define SHORT ((size_t)4096) /* what is shorter is read again at once, or is not worth the fence */

static inline void line_by_16(unsigned char *to, const unsigned char *from)
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

/* Of len bytes, whole lines, to where a line begins. */
static void stream_by_16(unsigned char *to, const unsigned char *from, size_t len)
{
    for (; len >= STRIPS * STRIP;
         len -= STRIPS * STRIP, to += STRIPS * STRIP, from += STRIPS * STRIP)
        for (size_t at = 0; at < STRIP; at += 2 * LINE)
            for (size_t strip = at; strip < STRIPS * STRIP; strip += STRIP) {
                line_by_16(to + strip, from + strip);
                line_by_16(to + strip + LINE, from + strip + LINE);
            }
    for (; len > 0; len -= LINE, to += LINE, from += LINE)
        line_by_16(to, from);
}

__attribute__((target("avx512f"))) static inline __m512i load(const unsigned char *from)
{
    return _mm512_loadu_si512(from);
}

__attribute__((target("avx512f"))) static inline void store(unsigned char *to, __m512i line)
{
    _mm512_stream_si512((__m512i *)(void *)to, line);
}

/* Two lines of each strip. Read before any is written: mixed, it takes a tenth longer. */
__attribute__((target("avx512f"))) static inline void strips_by_64(unsigned char *to,
                                                                   const unsigned char *from)
{
    const __m512i a = load(from), b = load(from + LINE);
    const __m512i c = load(from + STRIP), d = load(from + STRIP + LINE);
    const __m512i e = load(from + 2 * STRIP), f = load(from + 2 * STRIP + LINE);
    const __m512i g = load(from + 3 * STRIP), h = load(from + 3 * STRIP + LINE);

    store(to, a);
    store(to + LINE, b);
    store(to + STRIP, c);
    store(to + STRIP + LINE, d);
    store(to + 2 * STRIP, e);
    store(to + 2 * STRIP + LINE, f);
    store(to + 3 * STRIP, g);
    store(to + 3 * STRIP + LINE, h);
}

__attribute__((target("avx512f"))) static void stream_by_64(unsigned char *to,
                                                            const unsigned char *from, size_t len)
{
    for (; len >= STRIPS * STRIP;
         len -= STRIPS * STRIP, to += STRIPS * STRIP, from += STRIPS * STRIP)
        for (size_t at = 0; at < STRIP; at += 2 * LINE)
            strips_by_64(to + at, from + at);
    for (; len > 0; len -= LINE, to += LINE, from += LINE)
        store(to, load(from));
}

/* Those that are older than VBMI2 and have AVX-512 (Skylake) get slower for a while for its sake, all of their program. */
static bool has_lines(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vbmi2");
}

static void copy(bool lines, void *to, const void *from, size_t len)
{
    unsigned char *dst = to;
    const unsigned char *src = from;

    if (len >= SHORT) {
        const size_t head = (size_t) - (uintptr_t)dst % LINE, body = (len - head) / LINE * LINE;
        memcpy(dst, src, head);
        (lines ? stream_by_64 : stream_by_16)(dst + head, src + head, body);
        _mm_sfence(); /* the stores are ordered with nothing else: messages must not pass them */
        dst += head + body;
        src += head + body;
        len -= head + body;
    }
    memcpy(dst, src, len);
}

void copy_to_peer(void *to, const void *from, size_t len)
{
    copy(has_lines(), to, from, len);
}

bool copy_to_peer_by(bool lines, void *to, const void *from, size_t len)
{
    if (lines && !has_lines())
        return false;
    copy(lines, to, from, len);
    return true;
}

#else

void copy_to_peer(void *to, const void *from, size_t len)
{
    memcpy(to, from, len);
}

bool copy_to_peer_by(bool lines, void *to, const void *from, size_t len)
{
    if (!lines)
        memcpy(to, from, len);
    return !lines;
}

#endif
