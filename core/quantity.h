/*
 * quantity.h - sizes and times as people write them: "256M" and "0.5" in settings, "1.5 GiB" in messages.
 *
 * Independent of the program's locale.
 */
#ifndef ISO_CORE_QUANTITY_H
#define ISO_CORE_QUANTITY_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* "0x1f", "256M": all of the text, no sign, no blanks, no overflow. Output only on success. */
bool iso_size_parse(const char *text, uint64_t *size_p);
/* "10", "0.5", ".5": more than 0. Output only on success. */
bool iso_seconds_parse(const char *text, double *seconds_p);

#define ISO_SIZE_TEXT 24 /* room for any */
/* "100 bytes", "64 KiB", "1.5 GiB": to a tenth of the unit. Returns buf. */
const char *iso_size_text(char buf[ISO_SIZE_TEXT], uint64_t bytes);
/* The same for an argument of a message: good until the end of the block that it is in. */
#define ISO_SIZE(bytes) iso_size_text((char[ISO_SIZE_TEXT]){0}, bytes)

#ifdef __cplusplus
}
#endif

#endif
