/*
 * fuzz_wire.c - any bytes into the decoder: no access out of bounds, and what is accepted is exactly
 * what encoding it again gives.
 */
#include "core/wire.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t cookie[16] = "cookie of a job";
    iso_msg_t msg;
    iso_msg_lists_t lists;
    unsigned char again[ISO_WIRE_MAX];
    unsigned char *exact = malloc(size + 1); /* so that reading beyond the end is seen */
    memcpy(exact, data, size);
    if (iso_wire_decode(exact, size, cookie, &lists, &msg) == ISO_OK &&
        (iso_wire_encode(&msg, cookie, again) != size || memcmp(exact, again, size) != 0))
        abort();
    free(exact);
    return 0;
}
