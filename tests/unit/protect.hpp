// Protections of a heap's pages in one process, for their tests.
#ifndef ISO_TESTS_UNIT_PROTECT_HPP
#define ISO_TESTS_UNIT_PROTECT_HPP

#include "core/heap.h"
#include "core/job.h"
#include "core/protect.h"
#include "tests/ranks/access.hpp"
#include "tests/unit/image.hpp"
#include <sys/mman.h>

namespace protection {

const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
constexpr int usable = PROT_READ | PROT_WRITE;

inline std::string name_of(int protection)
{
    std::string name = "---";
    name[0] = (protection & PROT_READ) != 0 ? 'r' : '-';
    name[1] = (protection & PROT_WRITE) != 0 ? 'w' : '-';
    name[2] = (protection & PROT_EXEC) != 0 ? 'x' : '-';
    return name;
}

// A block of so many whole pages.
inline char *pages_of(iso_heap_t *heap, size_t count)
{
    auto *block = static_cast<char *>(iso_aligned_alloc(heap, page, count * page));
    REQUIRE(block != nullptr);
    std::memset(block, 7, count * page);
    return block;
}

inline bool holds(const char *block, size_t size, char value)
{
    return *block == value && std::memcmp(block, block + 1, size - 1) == 0;
}

inline uint64_t ranges_of(const iso_heap_t *heap)
{
    return heap->protections != nullptr ? heap->protections->count : 0;
}

inline void freeze(iso_heap_t *heap)
{
    iso_hold_t *hold = iso_hold_find(nullptr, heap);
    iso_job_lock(hold->job);
    iso_heap_freeze(hold);
    iso_job_unlock(hold->job);
}

inline void thaw(iso_heap_t *heap)
{
    iso_hold_t *hold = iso_hold_find(nullptr, heap);
    iso_job_lock(hold->job);
    iso_heap_thaw(hold);
    iso_job_unlock(hold->job);
}

const char *const backings[] = {"shared", "private", "anon"};

} // namespace protection

#endif
