// What the tests of threads that travel share: a job with threads.
#ifndef ISO_TESTS_TRAVEL_HPP
#define ISO_TESTS_TRAVEL_HPP

#include "ranks.hpp"
#include <isomalloc/thread.h>

struct Threads {
    Job job;
    Threads()
    {
        EXPECT_STATUS(ISO_OK, iso_threads_open(job.job, nullptr));
    }
    Threads(const Threads &) = delete;
    Threads &operator=(const Threads &) = delete;

    iso_thread_t *make(iso_thread_fn fn, void *arg, size_t stack = 0, iso_heap_t *in = nullptr)
    {
        const iso_thread_attr_t attr = {sizeof attr, stack, "traveller", false};
        iso_thread_t *thread = nullptr;
        EXPECT_STATUS(ISO_OK, iso_thread_create(in ? in : job.heap(), fn, arg, &attr, &thread));
        return thread;
    }
    // Runs what is here until `done`, and answers others until all ranks have come to that.
    template <class Done> void run(Done done)
    {
        EXPECT_STATUS(ISO_OK,
                      iso_threads_run(
                          job.job, [](void *arg) { return (*static_cast<Done *>(arg))(); }, &done));
    }
    // The thread, once it has come home and ended.
    void *home(iso_thread_t *thread)
    {
        run([thread] { return iso_thread_state(thread) == ISO_THREAD_FINISHED; });
        void *result = nullptr;
        EXPECT_STATUS(ISO_OK, iso_thread_join(thread, &result));
        return result;
    }
    // The first `count` ranks have all come here, and threads run meanwhile: each sends one to each other rank.
    void meet(uint32_t count)
    {
        static unsigned met;
        std::vector<iso_thread_t *> sent;
        for (uint32_t rank = 0; rank < count; rank++)
            if (rank != self)
                sent.push_back(make(
                    [](void *arg) -> void * {
                        const auto dest = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(arg));
                        EXPECT_STATUS(ISO_OK, iso_thread_migrate(dest));
                        met++;
                        return nullptr;
                    },
                    reinterpret_cast<void *>(uintptr_t{rank})));
        run([&] {
            for (iso_thread_t *thread : sent)
                if (iso_thread_state(thread) != ISO_THREAD_LEAVING)
                    return false;
            return met == count - 1;
        });
    }
    void finish()
    {
        meet(job.size());
        job.barrier();
        close();
    }
    void close()
    {
        while (iso_threads_close(job.job) == ISO_ERR_BUSY) // the last ones are on their way
            iso_threads_progress(job.job);
        job.finish();
    }
};

inline uint32_t here() // not inlined: the rank is this process's
{
    return self;
}
inline uint32_t (*volatile ask)() = here;

struct Node {
    Node *next;
    uint64_t value;
};

#endif
