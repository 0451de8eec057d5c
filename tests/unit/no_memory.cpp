// See no_memory.hpp.
#include "tests/unit/no_memory.hpp"

#ifdef CAN_FAIL_ALLOCATION
std::atomic<size_t> no_memory_for{0}, no_memory_from{0}, no_memory_to{0};

extern "C" void *__libc_calloc(size_t count, size_t size); // NOLINT
extern "C" void *__libc_malloc(size_t size);               // NOLINT

extern "C" void *calloc(size_t count, size_t size)
{
    return no_memory_for != 0 && count * size == no_memory_for ? nullptr
                                                               : __libc_calloc(count, size);
}

extern "C" void *malloc(size_t size)
{
    return no_memory_to != 0 && size >= no_memory_from && size <= no_memory_to
               ? nullptr
               : __libc_malloc(size);
}
#endif
