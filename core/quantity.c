/* quantity.c - see quantity.h. */
#include "core/quantity.h"
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

bool iso_size_parse(const char *text, uint64_t *size_p)
{
    static const char suffixes[] = "kmgtp";
    const unsigned base = text[0] == '0' && (text[1] | 0x20) == 'x' ? 16 : 10;
    const char *at = base == 16 ? text + 2 : text;
    const char *const digits = at;
    uint64_t size = 0;

    for (;; at++) {
        const char c = (char)(*at | 0x20);
        unsigned digit;
        if (*at >= '0' && *at <= '9')
            digit = (unsigned)(*at - '0');
        else if (base == 16 && c >= 'a' && c <= 'f')
            digit = (unsigned)(c - 'a' + 10);
        else
            break;
        if (__builtin_mul_overflow(size, (uint64_t)base, &size) ||
            __builtin_add_overflow(size, (uint64_t)digit, &size))
            return false;
    }
    if (at == digits)
        return false;
    if (*at != '\0') {
        const char *suffix = strchr(suffixes, *at | 0x20);
        if (suffix == NULL || at[1] != '\0' ||
            __builtin_mul_overflow(size, UINT64_C(1) << 10 * (suffix - suffixes + 1), &size))
            return false;
    }
    *size_p = size;
    return true;
}

/* Not strtod, whose decimal point depends on the locale. */
bool iso_seconds_parse(const char *text, double *seconds_p)
{
    double seconds = 0, scale = 1;
    bool fraction = false, any = false;

    for (; *text != '\0'; text++) {
        if (*text == '.' && !fraction) {
            fraction = true;
        } else if (*text >= '0' && *text <= '9') {
            any = true;
            seconds = seconds * 10 + (*text - '0');
            if (fraction)
                scale *= 10;
        } else {
            return false;
        }
    }
    seconds /= scale;
    if (!any || !(seconds > 0) || !isfinite(seconds))
        return false;
    *seconds_p = seconds;
    return true;
}

const char *iso_size_text(char buf[ISO_SIZE_TEXT], uint64_t bytes)
{
    static const char prefixes[] = "KMGTPE";
    unsigned shift = 0;

    while (bytes >> shift >= 1024)
        shift += 10;
    if (shift == 0) {
        snprintf(buf, ISO_SIZE_TEXT, "%" PRIu64 " bytes", bytes);
        return buf;
    }
    const uint64_t fine = bytes >> (shift - 10), tenths = (fine * 10 + 512) / 1024;
    if (tenths % 10 == 0)
        snprintf(buf, ISO_SIZE_TEXT, "%" PRIu64 " %ciB", tenths / 10, prefixes[shift / 10 - 1]);
    else
        snprintf(buf, ISO_SIZE_TEXT, "%" PRIu64 ".%" PRIu64 " %ciB", tenths / 10, tenths % 10,
                 prefixes[shift / 10 - 1]);
    return buf;
}
