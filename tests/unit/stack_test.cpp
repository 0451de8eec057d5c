// Stacks as blocks of a heap: what of them is live, the page below, what they tell, and that nothing of them stays behind.
#include "core/canary.h"
#include "core/heap.h"
#include "core/hold.h"
#include "core/job.h"
#include "core/stack.h"
#include "core/stack_guard.h"
#include "tests/unit/stack.hpp"
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <sys/personality.h>
#include <vector>

namespace {

bool collect(iso_stack_t *stack, void *arg)
{
    static_cast<std::vector<iso_stack_t *> *>(arg)->push_back(stack);
    return true;
}

size_t size_of(const iso_stack_t *stack)
{
    return static_cast<size_t>(reinterpret_cast<const char *>(stack) -
                               static_cast<const char *>(stack->low));
}

} // namespace

TEST_CASE("only the part of a stack that is in use is live")
{
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t size = GENERATE(size_t{16} << 10, size_t{1} << 20, size_t{7} << 20);
    const Space space;
    iso_stack_t *stack = iso_stack_create(space.heap, size, "one");
    REQUIRE(stack != nullptr);
    CHECK(size_of(stack) >= size);
    CHECK(reinterpret_cast<uintptr_t>(stack) % 64 == 0);
    const uint64_t empty = space.live();
    CHECK(empty <= 6 * page);
    stack->sp = reinterpret_cast<char *>(stack) - 3 * page;
    CHECK(space.live() == empty + 3 * page);
    SECTION("all of it, when nobody says what")
    {
        stack->sp = nullptr;
        CHECK(space.live() >= size);
        stack->sp = static_cast<char *>(stack->low) - 1;
        stack->sp = stack + 1;
        CHECK(space.live() >= size);
    }
    iso_stack_destroy(stack);
    iso_heap_stats_t stats;
    REQUIRE(iso_heap_stats(space.heap, &stats) == ISO_OK);
    CHECK(stats.blocks == 0);
    CHECK(space.guards() <= 1); // of a large block that was freed
}

TEST_CASE("a heap stays while somebody says that he runs on a stack of it")
{
    const size_t size = GENERATE(size_t{16} << 10, size_t{3} << 20);
    const ChildResult child = in_child([&] {
        const Space space;
        iso_request_t *request = nullptr;
        iso_stack_t *first = iso_stack_create(space.heap, 16384, "first"),
                    *stack = iso_stack_create(space.heap, size, "mine");
        void *sp = first->sp;
        stack->sp = ISO_STACK_RUNS;
        if (iso_migrate(space.heap, 0, nullptr, 0, &request) != ISO_ERR_BUSY ||
            iso_finalize(space.job) != ISO_ERR_BUSY || iso_heap_destroy(space.heap) != ISO_ERR_BUSY)
            return 1;
        stack->sp = sp; // anything but that
        return iso_heap_destroy(space.heap) == ISO_OK ? 0 : 2;
    });
    CHECK(child.exited_with(0));
    CHECK(line_count(child.stderr_text) == 3);
    CHECK(contains(child.stderr_text, "[0] isomalloc: ERROR iso_migrate of heap 0x"));
    CHECK(contains(child.stderr_text, "to rank 0: a thread runs on its stack 'mine'"));
}

TEST_CASE("the stacks of a heap are found, in order, and each has a guard")
{
    const Space space;
    std::vector<iso_stack_t *> made, found;
    for (int i = 0; i < 40; i++)
        made.push_back(iso_stack_create(space.heap, 100000, nullptr));
    CHECK(space.guards() == 40);
    REQUIRE(iso_malloc(space.heap, 200000) != nullptr); // is no stack
    iso_stack_destroy(made[7]);
    made.erase(made.begin() + 7);
    REQUIRE(iso_stack_walk(space.heap, collect, &found) == ISO_OK);
    CHECK(found.size() == made.size());
    CHECK(std::is_sorted(found.begin(), found.end()));
    CHECK(space.guards() == 39);
    REQUIRE(iso_heap_destroy(space.heap) == ISO_OK);
    CHECK(space.guards() == 0);
    CHECK(iso_stack_walk(space.heap, collect, &found) == ISO_ERR_NOT_OWNER);
}

TEST_CASE("what is written below a stack overwrites nothing, and is told with the stack's name")
{
    const size_t size = GENERATE(size_t{16} << 10, size_t{3} << 20);
    const char *without = GENERATE(as<const char *>{}, nullptr, "1");
    const ScopedEnv guards("ISO_TEST_NO_GUARD_INSTALL", without);
    const ChildResult child = in_child([&] {
        const Space space;
        iso_stack_t *stack = iso_stack_create(space.heap, size, "worker 7");
        memset(stack->low, 1, size_of(stack));
        static_cast<volatile char *>(stack->low)[-8] = 1;
        return 0;
    });
    CHECK(WIFSIGNALED(child.status));
    CHECK(WTERMSIG(child.status) == SIGSEGV);
    CHECK(contains(child.stderr_text, "overflow of the stack of 'worker 7', which has "));
}

TEST_CASE("other faults are not explained because there are stacks")
{
    const ChildResult child = in_child([] {
        const Space space;
        iso_stack_create(space.heap, 16384, "worker 7");
        char *block = static_cast<char *>(iso_malloc(space.heap, 5 << 20));
        iso_free(block);
        *static_cast<volatile char *>(block) = 1;
        return 0;
    });
    CHECK(WIFSIGNALED(child.status));
    CHECK(child.stderr_text.empty());
}

TEST_CASE("the canary of another process becomes this one's, on what is in use of stacks")
{
    const uint64_t was = 0x1234567890abcd00;
    const size_t size = GENERATE(size_t{16} << 10, size_t{3} << 20);
    const Space space;
    iso_stack_t *stack = iso_stack_create(space.heap, size, nullptr);
    REQUIRE(stack != nullptr);
    auto *words = reinterpret_cast<uint64_t *>(stack);
    for (size_t i = 1; i <= 100; i++)
        words[-static_cast<ptrdiff_t>(i)] = i % 3 == 0 ? was : was + i;
    stack->sp = words - 50;
    iso_hold_t *hold = iso_hold_find(nullptr, space.heap);
    CHECK(space.heap->canary == iso_canary());
    iso_heap_freeze(hold);
    space.heap->canary = was; // as where it comes from
    iso_heap_thaw(hold);
    CHECK(space.heap->canary == iso_canary());
    size_t wrong = 0;
    for (size_t i = 1; i <= 100; i++)
        wrong += words[-static_cast<ptrdiff_t>(i)] != (i % 3 != 0 ? was + i
                                                       : i <= 50  ? iso_canary()
                                                                  : was);
    CHECK(wrong == 0);
}

TEST_CASE("a stack that does not know where it begins ends the process when that is asked for")
{
    const bool destroys = GENERATE(true, false);
    const ChildResult child = in_child([&] {
        const Space space;
        iso_stack_t *stack = iso_stack_create(space.heap, 16384, nullptr);
        const iso_stack_t *other = iso_stack_create(space.heap, 16384, nullptr);
        stack->low = other->low;
        std::vector<iso_stack_t *> found;
        if (destroys)
            iso_stack_destroy(stack); // not the other one
        else
            iso_stack_walk(space.heap, collect, &found);
        return 0;
    });
    CHECK(child.aborted());
    CHECK(contains(child.stderr_text, "where a stack begins"));
}

TEST_CASE("the guard of a stack is in its own block, whatever the stack says")
{
    const Space space;
    iso_stack_t *stack = iso_stack_create(space.heap, 16384, nullptr);
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    char *victim = static_cast<char *>(iso_aligned_alloc(space.heap, page, 2 * page));
    *victim = 1;
    void *low = stack->low;
    stack->low = victim + page;
    iso_hold_t *hold = iso_hold_find(nullptr, space.heap);
    iso_heap_freeze(hold);
    iso_heap_thaw(hold);
    CHECK(space.guards() == 1);
    static_cast<volatile char *>(victim)[0] = 2;
    stack->low = low;
    iso_stack_destroy(stack);
    CHECK(space.guards() == 0);
}

TEST_CASE("no stack in a heap that is not here, and nothing of it is read")
{
    const ChildResult child = in_child([] {
        const Space space;
        iso_heap_t *other = nullptr;
        if (iso_heap_create(space.job, &other) != ISO_OK)
            return 1;
        iso_hold_t *hold = iso_hold_find(nullptr, other);
        hold->state = ISO_HEAP_MOVING;
        errno = 0;
        if (iso_stack_create(other, 65536, nullptr) != nullptr || errno != EINVAL)
            return 2;
        hold->state = ISO_HEAP_OWNED;
        if (iso_heap_destroy(other) != ISO_OK)
            return 3;
        errno = 0;
        return iso_stack_create(other, 65536, nullptr) == nullptr && errno == EINVAL ? 0 : 4;
    });
    INFO(child.stderr_text);
    CHECK(child.exited_with(0));
    CHECK(line_count(child.stderr_text) == 2);
}

TEST_CASE("a guard is lifted by the means that it was made by")
{
    const Space space;
    const size_t size = GENERATE(size_t{16} << 10, size_t{3} << 20);
    iso_stack_t *stack = iso_stack_create(space.heap, size, nullptr);
    char *block = static_cast<char *>(stack->low) - sysconf(_SC_PAGESIZE);
    if (space.job->guards.means != ISO_GUARD_BY_KERNEL)
        WARN("this kernel has no guards of its own: one means only");
    space.job->guards.means = ISO_GUARD_BY_PROTECTION; // as when a device pins memory from now on
    iso_stack_t *later = iso_stack_create(space.heap, size, nullptr);
    iso_stack_destroy(later);
    iso_hold_t *hold = iso_hold_find(nullptr, space.heap);
    iso_heap_freeze(hold);
    static_cast<volatile char *>(block)[0] = 1;
    iso_heap_thaw(hold);
    CHECK(space.guards() >= 1);
    iso_stack_destroy(stack);
}

TEST_CASE("a freed large block's guard is lifted by the means that it was made by")
{
    const Space space;
    auto *block = static_cast<char *>(iso_malloc(space.heap, 5 << 20));
    REQUIRE(block != nullptr);
    iso_free(block);
    space.job->guards.means = ISO_GUARD_BY_PROTECTION;
    auto *again = static_cast<char *>(iso_malloc(space.heap, 5 << 20));
    REQUIRE(again != nullptr);
    memset(again, 1, 5 << 20);
    iso_free(again);
}

TEST_CASE("a program whose addresses are randomised however often it is executed says so, once")
{
    const bool is_own = GENERATE(true, false);
    const ChildResult child = in_child([is_own] {
        const int persona = personality(0xffffffff);
        personality(static_cast<unsigned long>(persona) &
                    ~static_cast<unsigned long>(ADDR_NO_RANDOMIZE));
        // as when this process has been executed again; or its parent, which is none of its business
        const std::string mark = std::to_string(is_own ? getpid() : getppid());
        setenv("ISO_RESTARTED_WITHOUT_ASLR", mark.c_str(), 1);
        char name[] = "unit_tests", nothing[] = "[no such test]";
        char *argv[] = {name, nothing, nullptr};
        const iso_status_t status = iso_restart_without_aslr(argv);
        return status == ISO_ERR_SYSTEM && getenv("ISO_RESTARTED_WITHOUT_ASLR") == nullptr ? 77
                                                                                           : 78;
    });
    INFO(child.stderr_text);
    CHECK(child.exited_with(77) == is_own);
    CHECK(line_count(child.stderr_text) == (is_own ? 1 : 0));
    CHECK(contains(child.stderr_text, "came back as the program was executed again") == is_own);
}

TEST_CASE("ISO_GUARD=none leaves out the guards of stacks")
{
    const Space space(ISO_GUARD_NONE);
    iso_stack_t *stack = iso_stack_create(space.heap, 16384, nullptr);
    REQUIRE(stack != nullptr);
    CHECK(space.guards() == 0);
    static_cast<volatile char *>(stack->low)[-8] = 1;
}

TEST_CASE("a stack that cannot be is refused in one line")
{
    const Space space;
    const ChildResult child = in_child([&] {
        errno = 0;
        if (iso_stack_create(space.heap, 4095, nullptr) != nullptr || errno != EINVAL)
            return 1;
        if (iso_stack_create(space.heap, SIZE_MAX - 100, nullptr) != nullptr || errno != ENOMEM)
            return 2;
        if (iso_stack_create(space.heap, size_t{2} << 30, nullptr) != nullptr || errno != ENOMEM)
            return 3;
        return 0;
    });
    CHECK(child.exited_with(0));
    CHECK(line_count(child.stderr_text) == 3);
    CHECK(contains(child.stderr_text, "less than 4096 bytes is too small"));
    iso_heap_stats_t stats;
    REQUIRE(iso_heap_stats(space.heap, &stats) == ISO_OK);
    CHECK(stats.blocks == 0);
}

TEST_CASE("no stack in a heap for many threads")
{
    const Space space(ISO_GUARD_FIRST, ISO_HEAP_SHARED);
    const ChildResult child = in_child([&] {
        return iso_stack_create(space.heap, 65536, nullptr) == nullptr && errno == EINVAL ? 0 : 1;
    });
    CHECK(child.exited_with(0));
}

TEST_CASE("a stack is not resized")
{
    const ChildResult child = in_child([] {
        const Space space;
        iso_stack_t *stack = iso_stack_create(space.heap, 16384, nullptr);
        void *block = static_cast<char *>(stack->low) - sysconf(_SC_PAGESIZE);
        return iso_realloc(space.heap, block, 65536) != nullptr;
    });
    CHECK(child.aborted());
    CHECK(contains(child.stderr_text, "the block is a stack"));
}
