/* signed.c - see signed.h. */
#include "core/thread/signed.h"
#include <stddef.h>
#include <stdint.h>

#if defined(__aarch64__)

typedef struct record { /* of the AAPCS64 */
    uintptr_t caller;   /* the caller's record */
    uintptr_t back;
} record_t;

/* Without the signature; as it is, where the processor knows none. */
static uintptr_t strip(uintptr_t address)
{
    register uintptr_t x30 __asm__("x30") = address;
    __asm__("hint 7 /* xpaclri */" : "+r"(x30));
    return x30;
}

/* Also where x29 was used for something else: nothing is read but what lies further up, on the same stack. */
bool iso_thread_is_signed(const void *record, const void *end)
{
    uintptr_t at = (uintptr_t)record;
    const uintptr_t last = (uintptr_t)end - sizeof(record_t);
    while (at % sizeof(uintptr_t) == 0 && at <= last) {
        const record_t *frame = (const record_t *)at;
        if (strip(frame->back) != frame->back)
            return true;
        if (frame->caller <= at)
            return false;
        at = frame->caller;
    }
    return false;
}

#else

bool iso_thread_is_signed(const void *record, const void *end)
{
    (void)record;
    (void)end;
    return false;
}

#endif
