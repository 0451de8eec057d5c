// An allocator that has no memory, for tests of what happens then. Sanitizers have their own.
#ifndef ISO_TESTS_UNIT_NO_MEMORY_HPP
#define ISO_TESTS_UNIT_NO_MEMORY_HPP

#include <atomic>
#include <cstddef>

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CAN_FAIL_ALLOCATION 1
extern std::atomic<size_t> no_memory_for; // bytes that calloc has not, in one call; 0: it has all
// And malloc has not from the one to the other; 0: it has all.
extern std::atomic<size_t> no_memory_from, no_memory_to;
#endif

#endif
