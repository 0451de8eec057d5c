/* checksum.h - XXH3 in 64 bits, by xxHash (Yann Collet), whose header is compiled into checksum.c. */
#ifndef ISO_CORE_CHECKSUM_H
#define ISO_CORE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A checksum of bytes that come in pieces. The caller's, to be freed by free(). NULL: no memory. */
typedef struct iso_checksum iso_checksum_t;
iso_checksum_t *iso_checksum_new(void);
void iso_checksum_add(iso_checksum_t *checksum, const void *bytes, size_t count);
uint64_t iso_checksum_value(const iso_checksum_t *checksum);

/* Of bytes that lie together. */
uint64_t iso_checksum_of(const void *bytes, size_t count);

#ifdef __cplusplus
}
#endif

#endif
