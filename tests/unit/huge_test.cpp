// Which slots of a heap are worth a huge page: those that puts will fill.
#include "core/huge.h"
#include <catch2/catch.hpp>
#include <vector>

namespace {

constexpr size_t KiB = 1 << 10, slot = ISO_SLOT_SIZE;
char *const base = reinterpret_cast<char *>(0x200000000000);

std::vector<std::pair<uint32_t, uint32_t>> dense(const std::vector<std::pair<size_t, size_t>> &live,
                                                 uint32_t max = 8)
{
    iso_space_t space = {};
    space.base = base;
    space.size = 64 * slot;
    iso_runs_t runs = {};
    for (const auto &[offset, length] : live)
        REQUIRE(iso_runs_add(&runs, reinterpret_cast<uintptr_t>(base) + offset, length));
    std::vector<iso_extent_t> ranges(max);
    const uint32_t count = iso_huge_dense(&space, &runs, ranges.data(), max);
    iso_runs_free(&runs);
    std::vector<std::pair<uint32_t, uint32_t>> found;
    for (uint32_t i = 0; i < count; i++)
        found.emplace_back(ranges[i].first, ranges[i].count);
    return found;
}

using Ranges = std::vector<std::pair<uint32_t, uint32_t>>;

} // namespace

TEST_CASE("dense slots are those without a free unit and mostly live", "[huge]")
{
    CHECK(dense({}).empty());
    CHECK(dense({{0, 4 * KiB}}).empty());
    CHECK(dense({{0, slot}}) == Ranges{{0, 1}});
    CHECK(dense({{slot - 4 * KiB, 4 * slot + 8 * KiB}}) ==
          Ranges{{1, 4}}); // and a page in both neighbours
    CHECK(dense({{0, slot - 60 * KiB}}) == Ranges{{0, 1}});
    CHECK(
        dense({{0, slot - 64 * KiB}}).empty()); // a unit is free: it would be resident for nothing
    CHECK(dense({{64 * KiB, slot - 64 * KiB}}).empty());

    std::vector<std::pair<size_t, size_t>>
        live; // every unit three quarters full, then a little less
    for (size_t unit = 0; unit < 32; unit++)
        live.emplace_back(unit * 64 * KiB, 48 * KiB);
    CHECK(dense(live) == Ranges{{0, 1}});
    live[7].second -= 4 * KiB;
    CHECK(dense(live).empty());
}

TEST_CASE("adjacent dense slots are one range, and no more than fit are named", "[huge]")
{
    CHECK(dense({{9 * slot, 2 * slot}, {3 * slot, slot}, {4 * slot, slot}}) ==
          Ranges{{9, 2}, {3, 2}});
    CHECK(dense({{0, slot}, {2 * slot, slot}, {4 * slot, slot}}, 2) == Ranges{{0, 1}, {2, 1}});
    CHECK(dense({{0, slot}, {2 * slot, slot}, {3 * slot, slot}}, 2) == Ranges{{0, 1}, {2, 2}});
    CHECK(dense({{0, slot}}, 0).empty());
}
