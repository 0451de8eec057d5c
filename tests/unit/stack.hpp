// A job of this process alone with a heap for stacks, and what tests of stacks ask about it.
#ifndef ISO_TESTS_UNIT_STACK_HPP
#define ISO_TESTS_UNIT_STACK_HPP

#include "tests/unit/support.hpp"
#include <isomalloc/stack.h>

struct Space {
    iso_job_t *job = nullptr;
    iso_heap_t *heap = nullptr;
    explicit Space(iso_guard_t guard = ISO_GUARD_FIRST, uint32_t flags = 0)
    {
        iso_params_t params;
        iso_params_init(&params);
        params.space_size = 1ull << 30;
        params.guard = guard;
        params.poison = false; // a tool would be the first to see what is done here
        if (iso_init(&params, &job) != ISO_OK || iso_heap_create_flags(job, flags, &heap) != ISO_OK)
            _exit(99);
    }
    ~Space()
    {
        iso_finalize(job);
    }
    Space(const Space &) = delete;
    Space &operator=(const Space &) = delete;

    [[nodiscard]] uint64_t live() const
    {
        iso_heap_stats_t stats;
        REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
        return stats.live_bytes;
    }
    [[nodiscard]] uint64_t guards() const
    {
        iso_stats_t stats;
        iso_stats(job, &stats);
        return stats.guards;
    }
};

#endif
