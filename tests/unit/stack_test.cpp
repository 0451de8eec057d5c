// Stacks as blocks of a heap: what of them is live, the page below, what they tell, and that nothing of them stays behind.
#include "core/canary.h"
#include "core/heap.h"
#include "core/hold.h"
#include "core/job.h"
#include "core/left.h"
#include "core/stack.h"
#include "core/stack_guard.h"
#include "tests/unit/support.hpp"
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <isomalloc/bootstrap.h>
#include <isomalloc/stack.h>
#include <isomalloc/transport.h>
#include <sys/personality.h>
#include <vector>

namespace {

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

TEST_CASE("below what a stack uses only what is in memory is left behind")
{
    const size_t size = GENERATE(size_t{256} << 10, size_t{1} << 20, size_t{7} << 20);
    const Space space;
    iso_stack_t *stack = iso_stack_create(space.heap, size, "one");
    REQUIRE(stack != nullptr);
    stack->sp = reinterpret_cast<char *>(stack) - 128;
    const bool is_deep = GENERATE(true, false);
    const bool is_back_at_once = GENERATE(true, false);
    char *deepest = reinterpret_cast<char *>(stack) - 150000;
    if (is_deep)
        *deepest = 1;
    iso_hold_t *hold = iso_hold_find(nullptr, space.heap);
    iso_heap_freeze(hold);
    iso_runs_t idle = {};
    REQUIRE(iso_stack_list_idle(hold, &idle));
    REQUIRE(idle.count == 1); // what may be: nobody has asked yet
    const uintptr_t end = idle.list[0].address + idle.list[0].length;
    CHECK(end == (reinterpret_cast<uintptr_t>(stack->sp) & ~(ISO_UNIT_SIZE - 1)));

    // it goes, as with iso_migrate
    const iso_promise_t promise = {0, 0, hold->epoch};
    const iso_retain_t &retain = space.job->retain;
    const std::vector<iso_extent_t> extents(hold->extents, hold->extents + hold->extent_count);
    const uint64_t before = retain.left_units;
    const iso_runs_t runs = {};
    iso_left_leave(space.job, hold->heap, hold->extents, hold->extent_count, &runs, &idle,
                   &promise);
    iso_hold_drop(hold, false);
    CHECK(idle.list == nullptr);
    CHECK(retain.left_units == before); // not counted yet
    CHECK(retain.unseen == 1);
    if (is_back_at_once) {
        CHECK(iso_left_claim(space.job, space.heap, extents.data(),
                             static_cast<uint32_t>(extents.size()), ISO_COMING_RESERVED));
        CHECK(retain.unseen == 0);
        return;
    }
    iso_left_look(space.job, 0); // it went later
    CHECK(retain.unseen == 1);
    iso_stats_t stats;
    iso_stats(space.job, &stats); // it looks
    CHECK(retain.unseen == 0);
    const uint64_t deep_units =
        (end - (reinterpret_cast<uintptr_t>(deepest) & ~(ISO_UNIT_SIZE - 1))) / ISO_UNIT_SIZE;
    CHECK(retain.left_units - before == (is_deep ? deep_units : 0));
}

namespace {

// A heap that has gone from here, with all of its pages; what else is done to its slots is in the memory that is here.
std::vector<iso_extent_t> send_away(iso_hold_t *hold)
{
    std::vector<iso_extent_t> extents(hold->extents, hold->extents + hold->extent_count);
    iso_heap_freeze(hold);
    iso_hold_drop(hold, false);
    return extents;
}

iso_hold_t *take_back(const Space &space, const std::vector<iso_extent_t> &extents,
                      iso_coming_t coming)
{
    iso_hold_t *hold = nullptr;
    const auto count = static_cast<uint32_t>(extents.size());
    REQUIRE(iso_hold_adopt(space.job, space.heap, extents.data(), count, &hold) == ISO_OK);
    REQUIRE(iso_left_claim(space.job, space.heap, extents.data(), count, coming));
    return hold;
}

} // namespace

TEST_CASE(
    "the guards of a heap that comes back are there still, and in the way of nobody meanwhile")
{
    const size_t size = GENERATE(size_t{16} << 10, size_t{3} << 20);
    const Space space;
    iso_stack_t *stack = iso_stack_create(space.heap, size, "one");
    iso_stack_t *other = iso_stack_create(space.heap, size, "other");
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    char *guard = static_cast<char *>(stack->low) - page;
    iso_guards_t &guards = space.job->guards;
    const uint64_t own = space.guards();
    if (guards.means != ISO_GUARD_BY_KERNEL) {
        WARN("this kernel has no guards of its own: none is kept");
        return;
    }
    iso_hold_t *hold = iso_hold_find(nullptr, space.heap);
    const iso_block_t found = iso_block_find(guard, "test");
    const auto extents = send_away(hold);
    CHECK(guards.kept_count == 2);
    CHECK(space.guards() == own - 2);
    CHECK_FALSE(iso_stack_guard_has(space.job, reinterpret_cast<uintptr_t>(guard)));
    const auto arrives = [&](iso_hold_t *back) {
        return iso_heap_check_arrived(space.heap, space.heap->epoch, back->extents,
                                      back->extent_count);
    };
    SECTION("by a grant or handed over: all are taken up again")
    {
        hold = take_back(space, extents, GENERATE(ISO_COMING_GRANTED, ISO_COMING_HANDOVER));
        CHECK(guards.kept_count == 2);
        CHECK(arrives(hold) == ISO_OK);
        CHECK(guards.kept_count == 0);
        CHECK(space.guards() == own);
        CHECK(iso_stack_guard_has(space.job, reinterpret_cast<uintptr_t>(guard)));
        SECTION("and put aside again, if it does not come after all")
        {
            iso_hold_drop(hold, false);
            CHECK(guards.kept_count == 2);
            CHECK(space.guards() == own - 2);
            hold = take_back(space, extents, ISO_COMING_RESERVED);
            CHECK(guards.kept_count == 0);
            *guard = 1;
        }
    }
    SECTION("in any other way: anything may be put there")
    {
        hold = take_back(space, extents, GENERATE(ISO_COMING_RESERVED, ISO_COMING_FREE));
        CHECK(guards.kept_count == 0);
        *guard = 1;
    }
    SECTION("without one of its stacks: that one's goes")
    {
        hold = take_back(space, extents, ISO_COMING_HANDOVER);
        if (found.span != nullptr)
            found.span->stack = 0;
        else
            found.slot->run_stack = 0;
        space.heap->stacks--;
        CHECK(arrives(hold) == ISO_OK);
        CHECK(guards.kept_count == 0);
        CHECK(space.guards() == own - 1);
        *guard = 1;
        other->name[0] = 0;
    }
    SECTION("without any")
    {
        hold = take_back(space, extents, ISO_COMING_HANDOVER);
        space.heap->stacks = 0;
        CHECK(arrives(hold) == ISO_OK);
        CHECK(space.guards() == own - 2);
        *guard = 1;
    }
}

TEST_CASE("a grant that was given for a heap is not used when a stack of it has gone")
{
    const Space space;
    iso_stack_t *stack = iso_stack_create(space.heap, 16384, "one");
    const iso_hold_t *hold = iso_hold_find(nullptr, space.heap);
    const uint64_t version = hold->extents_version;
    iso_stack_destroy(stack);
    CHECK(hold->extents_version != version);
}

TEST_CASE("guards that split a mapping are not kept")
{
    const ScopedEnv guards("ISO_TEST_NO_GUARD_INSTALL", "1");
    const Space space;
    const iso_stack_t *stack = iso_stack_create(space.heap, 16384, "one");
    send_away(iso_hold_find(nullptr, space.heap));
    CHECK(space.job->guards.kept_count == 0);
    CHECK(space.guards() == 0);
    static_cast<volatile char *>(stack->low)[-8] = 1;
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

TEST_CASE("a heap arrives only with stacks that are where its slots say")
{
    const size_t size = GENERATE(size_t{16} << 10, size_t{3} << 20);
    const Space space;
    iso_stack_t *stack = iso_stack_create(space.heap, size, nullptr);
    REQUIRE(iso_stack_create(space.heap, 16384, nullptr) != nullptr);
    iso_hold_t *hold = iso_hold_find(nullptr, space.heap);
    const auto arrives = [&] {
        return iso_heap_check_arrived(space.heap, hold->epoch, hold->extents, hold->extent_count);
    };
    char *block = static_cast<char *>(stack->low) - sysconf(_SC_PAGESIZE);
    const iso_block_t found = iso_block_find(block, "test");
    iso_heap_freeze(hold);
    CHECK(arrives() == ISO_OK);
    SECTION("where it begins")
    {
        stack->low = static_cast<char *>(stack->low) + 4096;
        CHECK(arrives() == ISO_ERR_INVALID);
        stack->low = static_cast<char *>(stack->low) - 4096;
    }
    SECTION("how many there are")
    {
        space.heap->stacks++;
        CHECK(arrives() == ISO_ERR_INVALID);
        space.heap->stacks--;
    }
    SECTION("where in its block it is")
    {
        const uint64_t at = iso_stack_at(&found);
        for (const uint64_t wrong : {uint64_t{64}, uint64_t{1} << 31}) {
            if (found.span != nullptr)
                found.span->stack = static_cast<uint32_t>(wrong);
            else
                found.slot->run_stack = wrong;
            CHECK(arrives() == ISO_ERR_INVALID);
        }
        if (found.span != nullptr)
            found.span->stack = static_cast<uint32_t>(at);
        else
            found.slot->run_stack = at;
    }
    CHECK(arrives() == ISO_OK);
    iso_heap_thaw(hold);
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

namespace {
unsigned depth_in_walk;
bool ask_depth(void * /*block*/, size_t /*size*/, void * /*arg*/)
{
    depth_in_walk = iso_call_depth();
    return true;
}
} // namespace

TEST_CASE("a thread is inside of the library while it has the lock of a heap, or is called")
{
    const Space space(ISO_GUARD_FIRST, ISO_HEAP_SHARED);
    REQUIRE(iso_malloc(space.heap, 64) != nullptr);
    CHECK(iso_call_depth() == 0);
    iso_heap_walk(space.heap, ask_depth, nullptr);
    CHECK(depth_in_walk == 2); // the lock, and the call
    CHECK(iso_call_depth() == 0);
    unsigned depth = 0;
    iso_set_arrival(
        space.job,
        [](iso_job_t *, const iso_arrival_t *, void *arg) {
            *static_cast<unsigned *>(arg) = iso_call_depth();
        },
        &depth);
    iso_request_t *request;
    REQUIRE(iso_migrate(space.heap, 0, nullptr, 0, &request) == ISO_OK);
    REQUIRE(iso_wait(request) == ISO_OK);
    iso_progress(space.job);
    CHECK(depth == 1);
    CHECK(iso_call_depth() == 0);
}

namespace {

std::vector<std::string>
    called; // functions of the program's, where the library was not said to be around them

void note(const char *what)
{
    if (iso_call_depth() == 0)
        called.emplace_back(what);
}

// Of a job of one rank.
iso_status_t only_mine(void *, const void *mine, void *all, size_t len)
{
    note("allgather");
    memcpy(all, mine, len);
    return ISO_OK;
}
iso_status_t at_once(void *)
{
    note("barrier");
    return ISO_OK;
}
iso_status_t published(void *, const void *, size_t)
{
    note("publish");
    return ISO_OK;
}
iso_status_t not_there(void *, uint32_t, void *, size_t *)
{
    note("lookup");
    return ISO_ERR_UNREACHABLE;
}
iso_status_t none_died(void *, uint32_t *)
{
    note("next_dead");
    return ISO_INPROGRESS;
}

unsigned calls; // of `ends`

void ends(iso_job_t *, void *)
{
    note("end");
    calls++;
}

} // namespace

TEST_CASE("a thread is inside of the library in whatever of the program's that calls")
{
    iso_bootstrap_t bootstrap{};
    bootstrap.abi_version = ISO_BOOTSTRAP_ABI;
    bootstrap.name = "own";
    bootstrap.size = 1;
    bootstrap.event_fd = -1;
    bootstrap.allgather = only_mine;
    bootstrap.barrier_start = bootstrap.barrier_test = at_once;
    bootstrap.publish = published;
    bootstrap.lookup = not_there;
    bootstrap.next_dead = none_died;
    bootstrap.close = [](void *) {
        note("close");
        calls++;
    };
    iso_params_t params;
    REQUIRE(iso_params_init(&params) == ISO_OK);
    params.space_size = 256u << 20;
    params.caller_bootstrap = &bootstrap;
    iso_job_t *job = nullptr;
    called.clear();
    calls = 0;
    REQUIRE(iso_init(&params, &job) == ISO_OK);
    iso_set_end(job, ends, nullptr);
    iso_heap_t *heap = nullptr;
    REQUIRE(iso_heap_create(job, &heap) == ISO_OK);
    REQUIRE(iso_malloc(heap, 64) != nullptr);
    depth_in_walk = 0;
    iso_heap_walk(heap, ask_depth, nullptr);
    CHECK(depth_in_walk == 1);
    iso_barrier(job);
    iso_progress(job);
    iso_modules(
        &params, [](const iso_module_info_t *, void *) { note("modules"); }, nullptr);
    REQUIRE(iso_finalize(job) == ISO_OK);
    CHECK(calls == 2);
    CHECK(called.empty());
    CHECK(iso_call_depth() == 0);
}
