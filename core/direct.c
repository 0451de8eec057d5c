/* direct.c - see direct.h. */
#include "core/direct.h"

ISO_ATOMIC(uintptr_t) iso_direct[ISO_DIRECT_SLOTS];

void iso_direct_clear(const void *slot, uint32_t count)
{
    uintptr_t last = (uintptr_t)slot | ISO_SLOT_MASK;
    for (; count > 0; count--, last += ISO_SLOT_SIZE) {
        uintptr_t expected = last;
        if (atomic_load_explicit(iso_direct_at(last), memory_order_relaxed) == last)
            /* another heap's user may bring in a slot of that one at the same time */
            atomic_compare_exchange_strong_explicit(iso_direct_at(last), &expected, 0,
                                                    memory_order_relaxed, memory_order_relaxed);
    }
}
