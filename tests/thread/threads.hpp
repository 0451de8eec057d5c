// A job of one rank with threads, and what tests do with them.
#ifndef ISO_TESTS_THREAD_THREADS_HPP
#define ISO_TESTS_THREAD_THREADS_HPP

#include "tests/unit/support.hpp"
#include <isomalloc/thread.h>

struct Threads {
    iso_job_t *job = nullptr;
    iso_heap_t *heap = nullptr;
    explicit Threads(const iso_threads_params_t *with = nullptr)
    {
        iso_params_t params;
        iso_params_init(&params);
        params.space_size = 2ull << 30;
        if (iso_init(&params, &job) != ISO_OK || iso_threads_open(job, with) != ISO_OK ||
            iso_heap_create(job, &heap) != ISO_OK)
            _exit(99);
    }
    ~Threads()
    {
        iso_threads_close(job);
        iso_finalize(job);
    }
    Threads(const Threads &) = delete;
    Threads &operator=(const Threads &) = delete;

    iso_thread_t *make(iso_thread_fn fn, void *arg = nullptr, size_t stack = 64 << 10,
                       bool detached = false) const
    {
        const iso_thread_attr_t attr = {sizeof attr, stack, "tested", detached};
        iso_thread_t *thread = nullptr;
        REQUIRE(iso_thread_create(heap, fn, arg, &attr, &thread) == ISO_OK);
        return thread;
    }
    void *join(iso_thread_t *thread) const
    {
        void *result = nullptr;
        REQUIRE(iso_thread_join(thread, &result) == ISO_OK);
        return result;
    }
    // What fn(arg) does as a thread.
    void *run(iso_thread_fn fn, void *arg = nullptr) const
    {
        return join(make(fn, arg));
    }
    [[nodiscard]] uint64_t blocks() const
    {
        iso_heap_stats_t stats;
        REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
        return stats.blocks;
    }
};

inline void *number(uintptr_t n)
{
    return reinterpret_cast<void *>(n);
}

inline iso_thread_state_t resume(iso_thread_t *thread)
{
    iso_thread_state_t state = ISO_THREAD_READY;
    REQUIRE(iso_thread_resume(thread, &state) == ISO_OK);
    return state;
}

#endif
