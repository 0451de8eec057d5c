// What a migration ships of a heap: enough to go on with, and no more than the bound.
#include "core/heap.h"
#include "core/heap_layout.h"
#include "core/live.h"
#include "tests/unit/allocator.hpp"
#include <utility>
#include <vector>

namespace {

using Runs = std::vector<std::pair<char *, size_t>>;

Runs live_runs(iso_heap_t *heap, size_t page)
{
    Runs runs;
    iso_live_runs(
        iso_hold_find(nullptr, heap), page,
        [](void *address, size_t length, void *arg) {
            static_cast<Runs *>(arg)->emplace_back(static_cast<char *>(address), length);
            return true;
        },
        &runs);
    return runs;
}

size_t total(const Runs &runs)
{
    size_t bytes = 0;
    for (const auto &[address, length] : runs)
        bytes += length;
    return bytes;
}

// What a migration does to the memory of a heap: only its live runs survive, all else is garbage.
void migrate_in_place(iso_heap_t *heap)
{
    iso_hold_t *hold = iso_hold_find(nullptr, heap);
    iso_heap_freeze(hold);
    const Runs runs = live_runs(heap, 4096);
    std::vector<std::vector<char>> shipped;
    for (const auto &[address, length] : runs)
        shipped.emplace_back(address, address + length);
    const std::vector<iso_extent_t> extents(hold->extents, hold->extents + hold->extent_count);
    void *base = nullptr;
    size_t size = 0;
    iso_space(hold->job, &base, &size);
    for (const iso_extent_t &extent : extents)
        std::memset(static_cast<char *>(base) +
                        (static_cast<size_t>(extent.first) << ISO_SLOT_SHIFT),
                    0xA5, static_cast<size_t>(iso_extent_slots(&extent)) << ISO_SLOT_SHIFT);
    for (size_t i = 0; i < runs.size(); i++)
        std::copy(shipped[i].begin(), shipped[i].end(), runs[i].first);
    REQUIRE(iso_heap_check_arrived(heap, hold->epoch, hold->extents, hold->extent_count) == ISO_OK);
    iso_heap_thaw(hold);
}

// The bound of the design, live pages counted from the blocks.
size_t allowed(iso_heap_t *heap, size_t page)
{
    struct Count {
        size_t page;
        std::set<uintptr_t> pages, slots;
    } count = {page, {}, {}};
    REQUIRE(iso_heap_walk(
                heap,
                [](void *block, size_t size, void *arg) {
                    auto *c = static_cast<Count *>(arg);
                    const auto first = reinterpret_cast<uintptr_t>(block);
                    for (uintptr_t p = first / c->page; p <= (first + size - 1) / c->page; p++)
                        c->pages.insert(p);
                    for (uintptr_t s = first / ISO_SLOT_SIZE;
                         s <= (first + size - 1) / ISO_SLOT_SIZE; s++)
                        c->slots.insert(s);
                    return true;
                },
                &count) == ISO_OK);
    const size_t live = count.pages.size() * page;
    return live + live / 50 + std::max<size_t>(65536, 4 * page) + count.slots.size() * page;
}

void check_bound(iso_heap_t *heap)
{
    iso_hold_t *hold = iso_hold_find(nullptr, heap);
    for (const size_t page : {4096u, 16384u, 65536u}) {
        CAPTURE(page);
        const size_t most = allowed(heap, page);
        iso_heap_freeze(hold);
        const size_t shipped = total(live_runs(heap, page));
        iso_heap_thaw(hold);
        CHECK(shipped <= most);
    }
}

} // namespace

TEST_CASE("a heap of which only the live runs survived goes on as if nothing had happened",
          "[allocator]")
{
    const uint32_t flags = GENERATE(0, ISO_HEAP_SHARED);
    Job job(1u << 20, flags);
    struct Kind {
        size_t largest;
        int rounds, steps;
    };
    for (const Kind &kind : {Kind{600, 40, 400}, Kind{70000, 20, 200}, Kind{4000000, 8, 40}}) {
        iso_heap_t *heap = job.heap();
        Model model(heap, static_cast<uint32_t>(kind.largest));
        for (int round = 0; round < 1 + kind.rounds / scale; round++) {
            for (int i = 0; i < kind.steps; i++)
                model.step(kind.largest);
            migrate_in_place(heap);
            model.check_all();
        }
        model.free_all();
        migrate_in_place(heap);
        CHECK(live_runs(heap, 4096) ==
              Runs{{reinterpret_cast<char *>(iso_heap_slot_of(heap)), 8192}});
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    }
}

TEST_CASE("what is shipped is within the bound", "[allocator]")
{
    const uint32_t flags = GENERATE(0, ISO_HEAP_SHARED);
    Job job(256u << 20, flags);
    const size_t size =
        GENERATE(16, 64, 128, 160, 224, 256, 1000, 4096, 5000, 20000, 32768, 65536, 300000);
    CAPTURE(size);
    iso_heap_t *heap = job.heap();
    const size_t count = std::min<size_t>((32u << 20) / scale / size, 400000);
    std::vector<void *> blocks;
    for (size_t i = 0; i < count; i++)
        blocks.push_back(iso_malloc(heap, size));
    std::mt19937 random(3);
    const auto leave_one_of_every = [&](unsigned shift) {
        std::set<uintptr_t> seen;
        for (void *block : blocks)
            if (!seen.insert(reinterpret_cast<uintptr_t>(block) >> shift).second)
                iso_free(block);
        check_bound(heap);
    };
    SECTION("full")
    {
        check_bound(heap);
    }
    SECTION("every second MiB freed")
    {
        for (void *block : blocks)
            if (reinterpret_cast<uintptr_t>(block) >> 20 & 1)
                iso_free(block);
        check_bound(heap);
    }
    SECTION("90 % freed at random")
    {
        for (void *block : blocks)
            if (random() % 10 != 0)
                iso_free(block);
        check_bound(heap);
    }
    SECTION("one block left of every 64 KiB")
    {
        leave_one_of_every(ISO_UNIT_SHIFT);
    }
    SECTION("one block left of every slot")
    {
        leave_one_of_every(ISO_SLOT_SHIFT);
    }
    SECTION("all freed")
    {
        for (void *block : blocks)
            iso_free(block);
        check_bound(heap);
        iso_heap_stats_t stats;
        REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
        CHECK(stats.slots == 1);
        CHECK(stats.blocks == 0);
    }
}

TEST_CASE("a heap that grew to 1 GiB and was emptied ships next to nothing", "[allocator]")
{
    Job job;
    iso_heap_t *heap = job.heap();
    std::vector<void *> blocks;
    for (size_t bytes = 0; bytes < (size_t{1} << 30); bytes += 65536)
        blocks.push_back(iso_malloc(heap, 65536));
    for (void *block : blocks)
        iso_free(block);
    check_bound(heap);
    iso_heap_stats_t stats;
    REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
    CHECK(stats.slots == 1);
    CHECK(stats.live_bytes <= 65536);
}

TEST_CASE("a block of a whole slot can be made smaller, and larger again", "[allocator]")
{
    const size_t whole = ISO_MEDIUM_MAX, size = GENERATE(40000, 61440, 61441, 100000, 1900000);
    CAPTURE(size);
    Job job(0, 0, false);
    iso_heap_t *heap = job.heap();
    auto *block = static_cast<char *>(iso_malloc(heap, whole));
    memset(block, 7, whole);
    REQUIRE(iso_realloc(heap, block, size) == block);
    CHECK(iso_usable_size(block) >= size);
    auto *other = static_cast<char *>(iso_malloc(heap, 70000)); // in what became free
    memset(other, 8, 70000);
    migrate_in_place(heap);
    CHECK(block[size - 1] == 7);
    auto *grown = static_cast<char *>(iso_realloc(heap, block, whole));
    REQUIRE(grown != nullptr);
    CHECK((grown[0] == 7 && grown[size - 1] == 7 && other[0] == 8 && other[69999] == 8));
    migrate_in_place(heap);
    iso_free(grown);
    iso_free(other);
    migrate_in_place(heap);
    iso_heap_stats_t stats;
    REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
    CHECK(stats.blocks == 0);
}
