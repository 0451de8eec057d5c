// Stacks of a heap that goes and comes: what is left behind below them, which guards are there still when it is back, and that
// it arrives only with stacks that are where its slots say.
#include "core/heap.h"
#include "core/hold.h"
#include "core/job.h"
#include "core/left.h"
#include "core/stack.h"
#include "core/stack_guard.h"
#include "tests/unit/stack.hpp"
#include <vector>

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
    SECTION("who runs on it")
    {
        void *sp = stack->sp;
        stack->sp = ISO_STACK_RUNS;
        CHECK(arrives() == ISO_ERR_INVALID);
        stack->sp = sp;
    }
    SECTION("how many there are")
    {
        for (const uint64_t wrong : {1, 3}) {
            space.heap->stacks = wrong;
            CHECK(arrives() == ISO_ERR_INVALID);
        }
        space.heap->stacks = 2;
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
