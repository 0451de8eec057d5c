// Threads in one process: their life, statement by statement of thread.h, and what they are refused.
#include "tests/thread/threads.hpp"
#include <cfenv>
#include <csignal>
#include <cstring>
#include <exception>
#include <isomalloc/pup.h>
#include <memory>
#include <stdexcept>
#include <unistd.h>
#include <unwind.h>
#include <vector>

TEST_CASE("a thread runs on its own stack, in the iso space, and hands its result over")
{
    const Threads threads;
    struct Seen {
        bool on_stack, is_self;
    } seen{};
    iso_thread_t *thread = threads.make(
        [](void *arg) -> void * {
            auto *s = static_cast<Seen *>(arg);
            const volatile int local = 0;
            s->on_stack = iso_in_range(const_cast<int *>(&local));
            s->is_self = iso_thread_self() != nullptr && iso_thread_heap(iso_thread_self()) ==
                                                             iso_heap_of(const_cast<int *>(&local));
            return number(7);
        },
        &seen);
    CHECK(iso_heap_of(thread) == threads.heap);
    CHECK(std::string(iso_thread_name(thread)) == "tested");
    CHECK(iso_thread_state(thread) == ISO_THREAD_READY);
    CHECK(threads.join(thread) == number(7));
    CHECK(seen.on_stack);
    CHECK(seen.is_self);
    CHECK(iso_thread_self() == nullptr);
    CHECK(threads.blocks() == 0); // nothing of it is left
}

TEST_CASE("resume is a plain call that comes back at each yield")
{
    const Threads threads;
    std::string trace;
    iso_thread_t *thread = threads.make(
        [](void *arg) -> void * {
            auto *t = static_cast<std::string *>(arg);
            for (char c = 'a'; c < 'd'; c++) {
                *t += c;
                iso_thread_yield();
            }
            return nullptr;
        },
        &trace);
    for (int i = 0; i < 3; i++) {
        CHECK(resume(thread) == ISO_THREAD_READY);
        trace += '-';
    }
    CHECK(resume(thread) == ISO_THREAD_FINISHED);
    CHECK(trace == "a-b-c-");
}

TEST_CASE("the scheduler resumes all threads in turn")
{
    const Threads threads;
    static std::string trace;
    trace.clear();
    std::vector<iso_thread_t *> all;
    for (uintptr_t i = 0; i < 3; i++)
        all.push_back(threads.make(
            [](void *arg) -> void * {
                for (int round = 0; round < 3; round++) {
                    trace += static_cast<char>('0' + reinterpret_cast<uintptr_t>(arg));
                    iso_thread_yield();
                }
                return arg;
            },
            number(i)));
    for (uintptr_t i = 0; i < 3; i++)
        CHECK(threads.join(all[i]) == number(i));
    CHECK(trace == "012012012");
}

TEST_CASE("a thread that waits is awakened, or joins another of its heap")
{
    const Threads threads;
    iso_thread_t *waits = threads.make([](void *) -> void * {
        iso_thread_suspend();
        return number(5);
    });
    iso_thread_t *joins = threads.make(
        [](void *arg) -> void * {
            void *result = nullptr;
            return iso_thread_join(static_cast<iso_thread_t *>(arg), &result) == ISO_OK ? result
                                                                                        : nullptr;
        },
        waits);
    CHECK(iso_thread_awaken(waits) == ISO_ERR_INVALID); // it does not wait yet
    CHECK(resume(waits) == ISO_THREAD_SUSPENDED);
    CHECK(resume(joins) == ISO_THREAD_SUSPENDED);
    CHECK(iso_thread_awaken(waits) == ISO_OK);
    CHECK(threads.join(joins) == number(5));
    CHECK(threads.blocks() == 0);
}

TEST_CASE("exit ends a thread in the depth of its calls; a detached one leaves nothing")
{
    const Threads threads;
    CHECK(threads.run([](void *) -> void * { iso_thread_exit(number(9)); }) == number(9));
    iso_thread_t *thread =
        threads.make([](void *) -> void * { return nullptr; }, nullptr, 16 << 10, true);
    CHECK(iso_thread_join(thread, nullptr) == ISO_ERR_INVALID);
    CHECK(resume(thread) == ISO_THREAD_FINISHED);
    CHECK(threads.blocks() == 0);
}

TEST_CASE("a thread resumes another one")
{
    const Threads threads;
    iso_thread_t *inner = threads.make([](void *) -> void * {
        iso_thread_yield();
        return number(3);
    });
    iso_thread_t *outer = threads.make(
        [](void *arg) -> void * {
            auto *other = static_cast<iso_thread_t *>(arg);
            iso_thread_t *self = iso_thread_self();
            iso_thread_state_t state;
            if (iso_thread_resume(other, &state) != ISO_OK || state != ISO_THREAD_READY ||
                iso_thread_self() != self)
                return nullptr;
            return number(4);
        },
        inner);
    CHECK(resume(outer) == ISO_THREAD_FINISHED);
    CHECK(threads.join(outer) == number(4));
    CHECK(threads.join(inner) == number(3));
}

TEST_CASE("each thread has its values, which are destroyed with it")
{
    const Threads threads;
    static iso_thread_key_t key;
    static std::vector<void *> destroyed;
    REQUIRE(iso_thread_key_create([](void *value) { destroyed.push_back(value); }, &key) == ISO_OK);
    const iso_thread_fn work = [](void *arg) -> void * {
        if (iso_thread_value(key) != nullptr || iso_thread_set_value(key, arg) != ISO_OK)
            return nullptr;
        iso_thread_yield();
        return iso_thread_value(key);
    };
    iso_thread_t *one = threads.make(work, number(1)), *two = threads.make(work, number(2));
    CHECK(threads.join(two) == number(2));
    CHECK(threads.join(one) == number(1));
    CHECK(destroyed == std::vector<void *>{number(1), number(2)});
    CHECK(iso_thread_value(key) == nullptr);
    CHECK(iso_thread_set_value(key, nullptr) == ISO_ERR_INVALID);
}

TEST_CASE("floating-point modes are a thread's own")
{
    const Threads threads;
    iso_thread_t *thread = threads.make([](void *) -> void * {
        std::fesetround(FE_UPWARD);
        iso_thread_yield();
        return number(std::fegetround() == FE_UPWARD);
    });
    CHECK(resume(thread) == ISO_THREAD_READY);
    CHECK(std::fegetround() == FE_TONEAREST);
    CHECK(threads.join(thread) == number(1));
}

namespace {

struct Own { // a runtime's thread: a stack of the heap's, and a switch
    void *here = nullptr;
    iso_stack_t *stack = nullptr;
    int turns = 0;
    bool moded = false;
};

void own_body(void *arg)
{
    auto *own = static_cast<Own *>(arg);
    volatile char local[64] = {};               // a function that the stack protector looks after
    own->moded = fegetround() == FE_TOWARDZERO; // that of who prepared it
    for (;;) {
        own->turns += 1 + local[0];
        fesetround(FE_UPWARD);
        iso_thread_switch(&own->stack->sp, own->here);
    }
}

} // namespace

TEST_CASE("a runtime that has threads of its own switches by hand")
{
    Threads threads;
    Own own;
    own.stack = iso_stack_create(threads.heap, 16 << 10, "own");
    REQUIRE(own.stack != nullptr);
    fesetround(FE_TOWARDZERO);
    own.stack->sp = iso_thread_prepare(own.stack, own_body, &own);
    fesetround(FE_TONEAREST);
    CHECK(reinterpret_cast<char *>(own.stack) - static_cast<char *>(own.stack->sp) <= 256);
    for (int turn = 1; turn <= 3; turn++) {
        void *to = own.stack->sp;
        own.stack->sp = ISO_STACK_RUNS; // for others to know
        CHECK(iso_thread_switch(&own.here, to) == 0);
        CHECK(own.turns == turn);
        CHECK(own.moded);
        CHECK(fegetround() == FE_TONEAREST); // modes are switched
        CHECK(iso_thread_self() == nullptr);
    }
    // it waits on its stack, in the part that would migrate
    CHECK(own.stack->sp > own.stack->low);
    CHECK(own.stack->sp < static_cast<void *>(own.stack));
    iso_stack_destroy(own.stack);
}

TEST_CASE("exceptions: each thread has its own, and they cross a switch")
{
    const Threads threads;
    const iso_thread_fn work = [](void *arg) -> void * {
        try {
            throw std::runtime_error("first");
        } catch (const std::runtime_error &) {
            iso_thread_yield(); // others throw and catch meanwhile
            try {
                throw; // the one that is caught here
            } catch (const std::runtime_error &e) {
                return number(std::string(e.what()) == "first" ? reinterpret_cast<uintptr_t>(arg)
                                                               : 0);
            }
        }
    };
    std::vector<iso_thread_t *> all;
    for (uintptr_t i = 1; i < 5; i++)
        all.push_back(threads.make(work, number(i)));
    for (auto it = all.begin(); it != all.end(); ++it)
        CHECK(resume(*it) == ISO_THREAD_READY);
    CHECK(std::current_exception() == nullptr);
    for (uintptr_t i = 4; i > 0; i--) // not in the order in which they were caught
        CHECK(threads.join(all[i - 1]) == number(i));
}

TEST_CASE("a backtrace of a thread ends where its stack begins")
{
    const Threads threads;
    CHECK(threads.run([](void *) -> void * {
        unsigned frames = 0;
        const _Unwind_Reason_Code code = _Unwind_Backtrace(
            [](_Unwind_Context *, void *arg) {
                return ++*static_cast<unsigned *>(arg) < 100 ? _URC_NO_REASON : _URC_NORMAL_STOP;
            },
            &frames);
        return number(code == _URC_END_OF_STACK && frames > 1 && frames < 20);
    }) == number(1));
}

namespace {
__attribute__((noinline)) unsigned long dig(unsigned long depth)
{
    volatile char room[512];
    memset(const_cast<char *>(room), static_cast<int>(depth), sizeof room);
    return depth == 0 ? 0 : static_cast<unsigned char>(room[3]) + dig(depth - 1);
}
} // namespace

TEST_CASE("a stack that is used up ends the process with the thread's name")
{
    const ChildResult child = in_child([] {
        const Threads threads;
        iso_thread_resume(
            threads.make([](void *) -> void * { return number(dig(1000000)); }, nullptr, 32 << 10),
            nullptr);
        return 0;
    });
    CHECK_FALSE(child.exited_with(0));
    CHECK(contains(child.stderr_text, "overflow of the stack of 'tested'"));
}

TEST_CASE("what a thread cannot do is refused in one line")
{
    const ChildResult child = in_child([] {
        const Threads threads;
        iso_thread_t *thread;
        const iso_thread_attr_t small = {sizeof small, 4000, nullptr, false};
        const iso_thread_fn nothing = [](void *) -> void * { return nullptr; };
        if (iso_thread_create(threads.heap, nothing, nullptr, &small, &thread) != ISO_ERR_INVALID)
            return 1;
        if (iso_thread_migrate(0) != ISO_ERR_INVALID || iso_thread_yield() != ISO_ERR_INVALID)
            return 2;
        thread = threads.make(nothing);
        if (resume(thread) != ISO_THREAD_FINISHED ||
            iso_thread_resume(thread, nullptr) != ISO_ERR_INVALID)
            return 3;
        if (threads.run([](void *) -> void * {
                return number(iso_thread_migrate(1) == ISO_ERR_RANK &&
                              iso_thread_migrate(0) == ISO_OK);
            }) != number(1))
            return 4;
        if (threads.run([](void *) -> void * {
                return number(iso_thread_resume(iso_thread_self(), nullptr) == ISO_ERR_BUSY &&
                              iso_thread_join(iso_thread_self(), nullptr) == ISO_ERR_INVALID);
            }) != number(1))
            return 5;
        return 0;
    });
    CHECK(child.exited_with(0));
    CHECK(line_count(child.stderr_text) == 7);
    CHECK(contains(child.stderr_text, "less than 4096 bytes is too small"));
    CHECK(contains(child.stderr_text, "iso_thread_migrate: the caller is no thread"));
    CHECK(contains(child.stderr_text, "it has finished"));
    CHECK(contains(child.stderr_text, "the job has no such rank"));
    CHECK(contains(child.stderr_text, "it runs"));
}

TEST_CASE("inside of a call of the library, or of a catch block, a thread does not leave")
{
    const ChildResult child = in_child([] {
        const Threads threads;
        static iso_heap_t *shared;
        if (iso_heap_create_flags(threads.job, ISO_HEAP_SHARED, &shared) != ISO_OK ||
            iso_malloc(shared, 16) == nullptr)
            return 1;
        if (threads.run([](void *) -> void * {
                iso_status_t status = ISO_OK;
                iso_heap_walk(
                    shared,
                    [](void *, size_t, void *arg) {
                        *static_cast<iso_status_t *>(arg) = iso_thread_yield();
                        return iso_thread_migrate(0) != ISO_ERR_BUSY;
                    },
                    &status);
                return number(status == ISO_ERR_BUSY);
            }) != number(1))
            return 2;
        if (threads.run([](void *) -> void * {
                try {
                    throw 1;
                } catch (int) {
                    return number(iso_thread_migrate(0) == ISO_ERR_BUSY);
                }
            }) != number(1))
            return 3;
        struct Unwound {
            iso_status_t *status;
            ~Unwound()
            {
                *status = iso_thread_migrate(0);
            }
        };
        if (threads.run([](void *) -> void * {
                iso_status_t status = ISO_OK;
                try {
                    const Unwound unwound{&status};
                    throw 1;
                } catch (int) {
                }
                return number(status == ISO_ERR_BUSY && iso_thread_migrate(0) == ISO_OK);
            }) != number(1))
            return 4;
        return 0;
    });
    CHECK(child.exited_with(0));
    CHECK(line_count(child.stderr_text) == 4);
    CHECK(contains(child.stderr_text, "in a destructor that an exception runs"));
    CHECK(contains(child.stderr_text, "it has a lock of a heap's"));
    CHECK(contains(child.stderr_text, "iso_thread_migrate of thread"));
    CHECK(contains(child.stderr_text, "it is in a catch block"));
}

TEST_CASE("a runtime's own scheduler is told of threads that can be resumed")
{
    static std::vector<iso_thread_t *> ready;
    ready.clear();
    const iso_threads_params_t params = {
        sizeof params, [](iso_thread_t *thread, void *) { ready.push_back(thread); }, nullptr,
        nullptr};
    const Threads threads(&params);
    iso_thread_t *thread = threads.make([](void *) -> void * {
        iso_thread_yield();
        iso_thread_suspend();
        return nullptr;
    });
    CHECK(ready == std::vector<iso_thread_t *>{thread});
    CHECK(resume(thread) == ISO_THREAD_READY);
    CHECK(resume(thread) == ISO_THREAD_SUSPENDED);
    CHECK(ready.size() == 1);
    REQUIRE(iso_thread_awaken(thread) == ISO_OK);
    CHECK(ready.size() == 2);
    CHECK(iso_threads_run(
              threads.job, [](void *) { return true; }, nullptr) == ISO_ERR_INVALID);
    CHECK(resume(thread) == ISO_THREAD_FINISHED);
}

TEST_CASE("a heap that is packed and unpacked has its threads as they were")
{
    const Threads threads;
    auto *sum = static_cast<uint64_t *>(iso_calloc(threads.heap, 1, sizeof(uint64_t)));
    iso_thread_t *thread = threads.make(
        [](void *arg) -> void * {
            uint64_t local[100];
            for (uint64_t i = 0; i < 100; i++)
                local[i] = i;
            iso_thread_yield(); // here it is packed
            for (const uint64_t n : local)
                *static_cast<uint64_t *>(arg) += n;
            return arg;
        },
        sum);
    iso_thread_t *waits = threads.make([](void *) -> void * {
        iso_thread_suspend();
        return number(1);
    });
    CHECK(resume(thread) == ISO_THREAD_READY);
    CHECK(resume(waits) == ISO_THREAD_SUSPENDED);
    REQUIRE(iso_threads_let_go(threads.heap) == ISO_OK);
    iso_heap_t *heap = threads.heap;
    pup_er sizer = pup_new_sizer();
    iso_pup_heap(sizer, threads.job, &heap);
    std::vector<char> image(pup_size(sizer));
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    CHECK(image.size() < 24 * page); // of two stacks of 256 KiB, what is used
    pup_destroy(sizer);
    pup_er packer = iso_pup_new_to_memory(image.data(), image.size());
    REQUIRE(iso_pup_set_use(packer, ISO_PUP_DELETING) == ISO_OK);
    iso_pup_heap(packer, threads.job, &heap);
    REQUIRE(iso_pup_status(packer) == ISO_OK);
    pup_destroy(packer);
    CHECK(iso_thread_state(thread) == ISO_THREAD_LEAVING);
    pup_er unpacker = iso_pup_new_from_memory(image.data(), image.size());
    iso_pup_heap(unpacker, threads.job, &heap);
    REQUIRE(iso_pup_status(unpacker) == ISO_OK);
    pup_destroy(unpacker);
    REQUIRE(heap == threads.heap);
    REQUIRE(iso_threads_take_in(heap) == ISO_OK);
    CHECK(iso_thread_state(waits) == ISO_THREAD_SUSPENDED);
    CHECK(threads.join(thread) == sum);
    CHECK(*sum == 4950);
    CHECK(iso_thread_awaken(waits) == ISO_OK);
    CHECK(threads.join(waits) == number(1));
}

TEST_CASE("a hundred thousand threads")
{
#if defined(__SANITIZE_ADDRESS__)
    const unsigned count = 2000;
#else
    const unsigned count = 100000;
#endif
    iso_params_t params;
    iso_params_init(&params);
    params.space_size = 16ull << 30;
    params.guard_budget = 10;
    iso_job_t *job = nullptr;
    iso_heap_t *heap = nullptr;
    REQUIRE(iso_init(&params, &job) == ISO_OK);
    REQUIRE(iso_threads_open(job, nullptr) == ISO_OK);
    REQUIRE(iso_heap_create(job, &heap) == ISO_OK);
    static uint64_t sum;
    sum = 0;
    const iso_thread_attr_t attr = {sizeof attr, 16 << 10, nullptr, true};
    for (uintptr_t i = 0; i < count; i++) {
        iso_thread_t *thread;
        REQUIRE(iso_thread_create(
                    heap,
                    [](void *arg) -> void * {
                        const volatile uintptr_t mine = reinterpret_cast<uintptr_t>(arg);
                        iso_thread_yield();
                        sum += mine;
                        return nullptr;
                    },
                    number(i), &attr, &thread) == ISO_OK);
    }
    REQUIRE(iso_threads_run(
                job,
                [](void *arg) {
                    iso_heap_stats_t stats;
                    return iso_heap_stats(static_cast<iso_heap_t *>(arg), &stats) == ISO_OK &&
                           stats.blocks == 0;
                },
                heap) == ISO_OK);
    CHECK(sum == uint64_t{count} * (count - 1) / 2);
    CHECK(iso_threads_close(job) == ISO_OK);
    iso_finalize(job);
}
