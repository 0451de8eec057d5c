// See no_memory.hpp.
#include "tests/unit/no_memory.hpp"

#ifdef CAN_FAIL_CALLOC
std::atomic<size_t> no_memory_for{0};

extern "C" void *__libc_calloc(size_t count, size_t size); // NOLINT

extern "C" void *calloc(size_t count, size_t size)
{
    return no_memory_for != 0 && count * size == no_memory_for ? nullptr
                                                               : __libc_calloc(count, size);
}
#endif
