// Threads in one process: whose they are, what becomes of those that wait for their turn when their memory goes, and who
// may join one.
#include "tests/thread/threads.hpp"
#include <algorithm>
#include <exception>
#include <vector>

namespace {

void *counts(void *arg)
{
    for (int i = 0; i < 10; i++) {
        ++*static_cast<unsigned *>(arg);
        iso_thread_yield();
    }
    return nullptr;
}

iso_thread_t *make_in(iso_heap_t *heap, iso_thread_fn fn, void *arg)
{
    const iso_thread_attr_t attr = {sizeof attr, 16 << 10, "waits", true};
    iso_thread_t *thread = nullptr;
    REQUIRE(iso_thread_create(heap, fn, arg, &attr, &thread) == ISO_OK);
    return thread;
}

iso_heap_t *heap_of(const Threads &threads)
{
    iso_heap_t *heap = nullptr;
    REQUIRE(iso_heap_create(threads.job, &heap) == ISO_OK);
    return heap;
}

void turns(const Threads &threads, unsigned count)
{
    unsigned left = count + 1;
    REQUIRE(iso_threads_run(
                threads.job, [](void *arg) { return --*static_cast<unsigned *>(arg) == 0; },
                &left) == ISO_OK);
}

} // namespace

TEST_CASE("a heap that is destroyed takes none but its own threads out of turn")
{
    const ScopedEnv retain("ISO_RETAIN", "0"); // its memory goes at once
    const Threads threads;
    unsigned before = 0, in = 0, behind = 0;
    make_in(threads.heap, counts, &before);
    iso_heap_t *heap = heap_of(threads);
    make_in(heap, counts, &in);
    make_in(threads.heap, counts, &behind);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    turns(threads, 12);
    CHECK(before == 10);
    CHECK(in == 0);
    CHECK(behind == 10);
}

TEST_CASE("what lies where a thread was that waited for its turn is not taken for it")
{
    const Threads threads;
    unsigned gone = 0, new_one = 0;
    iso_heap_t *heap = heap_of(threads);
    const iso_thread_t *thread = make_in(heap, counts, &gone);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    iso_heap_t *again = heap_of(threads);
    REQUIRE(again == heap); // else nothing is tested
    const bool another = GENERATE(false, true);
    if (another)
        REQUIRE(make_in(again, counts, &new_one) == thread);
    turns(threads, 12);
    CHECK(new_one == (another ? 10 : 0));
    CHECK(gone == 0);
}

TEST_CASE("a stack that is destroyed takes none but its own thread out of turn")
{
    const Threads threads;
    unsigned gone = 0, behind = 0;
    iso_heap_t *heap = heap_of(threads);
    make_in(heap, counts, &gone);
    make_in(threads.heap, counts, &behind);
    iso_stack_t *stack = nullptr;
    REQUIRE(iso_stack_walk(
                heap,
                [](iso_stack_t *found, void *arg) {
                    *static_cast<iso_stack_t **>(arg) = found;
                    return true;
                },
                &stack) == ISO_OK);
    void *low = stack->low;
    CHECK(iso_stack_find(low) == stack);
    CHECK(iso_stack_find(stack) == nullptr);
    iso_stack_destroy(stack);
    CHECK(iso_stack_find(low) == nullptr);
    turns(threads, 12);
    CHECK(gone == 0);
    CHECK(behind == 10);
}

TEST_CASE("a stack is found by its lowest address while its heap is here")
{
    const Threads threads;
    const size_t size = GENERATE(size_t{16} << 10, size_t{1} << 20, size_t{5} << 20);
    iso_heap_t *heap = heap_of(threads);
    iso_stack_t *stack = iso_stack_create(heap, size, "found");
    REQUIRE(stack != nullptr);
    char *low = static_cast<char *>(stack->low);
    CHECK(iso_stack_find(low) == stack);
    for (char *other : {low - 4096, low + 8, low + (size / 8192 * 4096),
                        reinterpret_cast<char *>(stack), reinterpret_cast<char *>(heap)})
        CHECK(iso_stack_find(other) == nullptr);
    CHECK(iso_stack_find(nullptr) == nullptr);
    CHECK(iso_stack_find(&size) == nullptr);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    CHECK(iso_stack_find(low) == nullptr);
}

TEST_CASE("many threads wait, and all of the heaps of some of them go")
{
    const Threads threads;
    unsigned gone = 0, stay = 0;
    for (int round = 0; round < 40; round++) { // the queue has to grow over those that are gone
        iso_heap_t *heap = heap_of(threads);
        for (int i = 0; i < 10; i++)
            make_in(heap, counts, &gone);
        make_in(threads.heap, counts, &stay);
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    }
    turns(threads, 12);
    CHECK(gone == 0);
    CHECK(stay == 400);
}

TEST_CASE("who takes threads out of the queue gets those that can be resumed, in their turn")
{
    const Threads threads;
    unsigned gone = 0, first = 0, second = 0;
    CHECK(iso_threads_next(threads.job) == nullptr);
    iso_heap_t *heap = heap_of(threads);
    make_in(heap, counts, &gone);
    iso_thread_t *a = make_in(threads.heap, counts, &first),
                 *b = make_in(threads.heap, counts, &second);
    CHECK(iso_threads_waiting(threads.job) == 3);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    REQUIRE(iso_threads_next(threads.job) == a);
    CHECK(iso_threads_waiting(threads.job) == 1);
    CHECK(resume(a) == ISO_THREAD_READY); // behind the other one
    CHECK(iso_threads_next(threads.job) == b);
    CHECK(iso_threads_next(threads.job) == a);
    CHECK(iso_threads_next(threads.job) == nullptr);
    CHECK(iso_threads_waiting(threads.job) == 0);
    CHECK(first == 1);
    CHECK(gone + second == 0);
}

TEST_CASE("threads of before a close are nobody's, until their heap is taken in")
{
    const ChildResult child = in_child([] {
        const Threads threads;
        unsigned old = 0, fresh = 0;
        iso_thread_t *first = make_in(threads.heap, counts, &old);
        make_in(threads.heap, counts, &old);
        if (iso_threads_close(threads.job) != ISO_OK ||
            iso_threads_open(threads.job, nullptr) != ISO_OK)
            return 1;
        make_in(heap_of(threads), counts, &fresh);
        if (iso_thread_state(first) != ISO_THREAD_LEAVING ||
            iso_thread_resume(first, nullptr) != ISO_ERR_NOT_OWNER)
            return 2;
        if (iso_threads_let_go(threads.heap) != ISO_OK)
            return 3;
        turns(threads, 12);
        if (old != 0 || fresh != 10)
            return 4;
        if (iso_threads_take_in(threads.heap) != ISO_OK)
            return 5;
        turns(threads, 12);
        return old == 20 ? 0 : 6;
    });
    CHECK(child.exited_with(0));
    CHECK(line_count(child.stderr_text) == 1); // the resume that is refused
}

TEST_CASE("a heap that is let go has no threads to run, and is taken in once")
{
    const ChildResult child = in_child([] {
        const Threads threads;
        unsigned turned = 0;
        iso_thread_t *thread = make_in(threads.heap, counts, &turned);
        make_in(threads.heap, counts, &turned);
        for (int i = 0; i < 2; i++)
            if (iso_threads_let_go(threads.heap) != ISO_OK)
                return 1;
        turns(threads, 3);
        if (turned != 0 || iso_thread_resume(thread, nullptr) != ISO_ERR_NOT_OWNER ||
            iso_thread_awaken(thread) != ISO_ERR_NOT_OWNER)
            return 2;
        for (int i = 0; i < 3; i++)
            if (iso_threads_take_in(threads.heap) != ISO_OK)
                return 3;
        turns(threads, 1);
        if (turned != 2)
            return 4;
        turns(threads, 12);
        return turned == 20 ? 0 : 5;
    });
    CHECK(child.exited_with(0));
    CHECK(line_count(child.stderr_text) == 2);
}

TEST_CASE("a scheduler of the runtime's is told once of threads that are taken in")
{
    static std::vector<iso_thread_t *> ready;
    ready.clear();
    const iso_threads_params_t params = {
        sizeof params, [](iso_thread_t *thread, void *) { ready.push_back(thread); }, nullptr,
        nullptr};
    const Threads threads(&params);
    unsigned turned = 0;
    for (int i = 0; i < 40; i++) // more than fit where they are collected at first
        make_in(threads.heap, counts, &turned);
    std::vector<iso_thread_t *> made;
    std::swap(made, ready);
    REQUIRE(iso_threads_take_in(threads.heap) == ISO_OK); // they are here already
    CHECK(ready.empty());
    REQUIRE(iso_threads_let_go(threads.heap) == ISO_OK);
    for (int i = 0; i < 2; i++)
        REQUIRE(iso_threads_take_in(threads.heap) == ISO_OK);
    std::sort(made.begin(), made.end());
    std::sort(ready.begin(), ready.end());
    CHECK(ready == made);
}

TEST_CASE("a thread that has ended is the one's that waits for it")
{
    const ChildResult child = in_child([] {
        const Threads threads;
        iso_thread_t *ends = threads.make([](void *) -> void * { return number(7); });
        iso_thread_t *joins = threads.make(
            [](void *arg) -> void * {
                void *result = nullptr;
                return iso_thread_join(static_cast<iso_thread_t *>(arg), &result) == ISO_OK
                           ? result
                           : nullptr;
            },
            ends);
        if (resume(joins) != ISO_THREAD_SUSPENDED || resume(ends) != ISO_THREAD_FINISHED)
            return 1;
        if (iso_thread_join(ends, nullptr) != ISO_ERR_BUSY)
            return 2;
        return threads.join(joins) == number(7) && threads.blocks() == 0 ? 0 : 3;
    });
    CHECK(child.exited_with(0));
    CHECK(line_count(child.stderr_text) == 1);
    CHECK(contains(child.stderr_text, "another one waits for it"));
}

TEST_CASE("a thread that waits for another one's end, and has gone by then, is not looked at")
{
    const Threads threads;
    iso_thread_t *ends = threads.make([](void *) -> void * { return number(7); });
    iso_thread_t *joins = threads.make(
        [](void *arg) -> void * {
            iso_thread_join(static_cast<iso_thread_t *>(arg), nullptr);
            return nullptr;
        },
        ends);
    REQUIRE(resume(joins) == ISO_THREAD_SUSPENDED);
    iso_stack_t *stack = iso_thread_stack(joins);
    char *first = static_cast<char *>(stack->low) - sysconf(_SC_PAGESIZE);
    const auto size = static_cast<size_t>(reinterpret_cast<char *>(stack + 1) - first);
    iso_stack_destroy(stack);
    auto *block = static_cast<unsigned char *>(iso_aligned_alloc(threads.heap, 65536, size));
    REQUIRE(static_cast<void *>(block) == first);         // else nothing is tested
    std::fill(block, block + size, ISO_THREAD_SUSPENDED); // what its state was
    CHECK(resume(ends) == ISO_THREAD_FINISHED);
    CHECK(std::count(block, block + size, ISO_THREAD_SUSPENDED) == static_cast<ptrdiff_t>(size));
    CHECK(threads.join(ends) == number(7));
}

TEST_CASE("a thread that has ended in a catch block keeps no heap here")
{
    static std::exception_ptr kept; // nobody else ever lets go of it
    const Threads threads;
    iso_thread_t *thread = threads.make([](void *) -> void * {
        try {
            throw 1;
        } catch (int) {
            kept = std::current_exception();
            iso_thread_exit(number(3));
        }
    });
    CHECK(resume(thread) == ISO_THREAD_FINISHED);
    CHECK(iso_threads_let_go(threads.heap) == ISO_OK);
    CHECK(iso_threads_take_in(threads.heap) == ISO_OK);
    CHECK(threads.join(thread) == number(3));
}

TEST_CASE("a job that ends while its threads are open says so, and leaves nothing to the next one")
{
    const ChildResult child = in_child([] {
        for (int round = 0; round < 10; round++) { // more than jobs that can have threads at a time
            iso_params_t params;
            iso_params_init(&params);
            params.space_size = 2ull << 30;
            iso_job_t *job = nullptr;
            iso_heap_t *heap = nullptr;
            unsigned turned = 0;
            if (iso_init(&params, &job) != ISO_OK || iso_threads_open(job, nullptr) != ISO_OK ||
                iso_heap_create(job, &heap) != ISO_OK)
                return 1;
            make_in(heap, counts, &turned);
            if (iso_finalize(job) != ISO_OK)
                return 2;
        }
        return 0;
    });
    CHECK(child.exited_with(0));
    CHECK(line_count(child.stderr_text) == 10);
    CHECK(contains(child.stderr_text, "call iso_threads_close before"));
}
