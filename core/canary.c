/* canary.c - see canary.h. */
#include "core/canary.h"

#if defined(__aarch64__)

extern uintptr_t __stack_chk_guard; /* the C library's: compilers know it by that name */

uint64_t iso_canary(void)
{
    return __stack_chk_guard;
}

#else

uint64_t iso_canary(void)
{
    return 0;
}

#endif

/* AddressSanitizer has its marks between the locals of functions that wait. */
__attribute__((no_sanitize("address"))) void iso_canary_replace(uint64_t *from, const uint64_t *end,
                                                                uint64_t was, uint64_t is)
{
    for (; from < end; from++)
        if (*from == was)
            *from = is;
}
