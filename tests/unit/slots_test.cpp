// The free set and the slot table, against simple models.
#include "core/direct.h"
#include "core/slots.h"
#include <catch2/catch.hpp>
#include <random>
#include <vector>

namespace {

struct Slots {
    iso_slots_t slots;
    Slots(uint32_t total, uint32_t rank, uint32_t size)
    {
        REQUIRE(iso_slots_open(&slots, total, rank, size) == ISO_OK);
    }
    ~Slots()
    {
        iso_slots_close(&slots);
    }
};

} // namespace

TEST_CASE("strips cover the space without overlap, and home is whose strip it is", "[slots]")
{
    for (auto [total, size] :
         {std::pair{64u, 4u}, {65u, 4u}, {7u, 7u}, {3u, 7u}, {100000u, 4096u}}) {
        uint32_t next = 0;
        for (uint32_t rank = 0; rank < size; rank++) {
            uint32_t first, count;
            iso_slots_strip(total, rank, size, &first, &count);
            REQUIRE(first == next);
            for (uint32_t slot = first; slot < first + count; slot++)
                REQUIRE(iso_slots_home(total, size, slot) == rank);
            next += count;
        }
        REQUIRE(next == total);
    }
}

TEST_CASE("taken runs are free, adjacent, the lowest that fit, and never handed out twice",
          "[slots]")
{
    constexpr uint32_t total = 1000;
    Slots s(total, 1, 3);
    std::vector<bool> model(total, false); // free here
    for (uint32_t i = s.slots.strip_first; i < s.slots.strip_first + s.slots.strip_count; i++)
        model[i] = true;
    std::mt19937 random(42);
    std::vector<std::pair<uint32_t, uint32_t>> taken;
    auto lowest_fit = [&](uint32_t want) { // total: there is none
        for (uint32_t i = 0, run = 0; i < total; i++)
            if ((run = model[i] ? run + 1 : 0) == want)
                return i + 1 - want;
        return total;
    };
    for (int step = 0; step < 20000; step++) {
        if (random() % 2 == 0) {
            const uint32_t want = random() % 8 == 0 ? 1 + random() % 100 : 1 + random() % 4;
            uint32_t first = 0;
            const iso_status_t status = iso_slots_take(&s.slots, want, &first);
            const uint32_t expected = lowest_fit(want);
            REQUIRE((status == ISO_OK) == (expected < total));
            if (status != ISO_OK)
                continue;
            REQUIRE(first == expected);
            for (uint32_t i = first; i < first + want; i++) {
                REQUIRE(model[i]);
                model[i] = false;
            }
            taken.emplace_back(first, want);
        } else if (!taken.empty()) {
            const size_t which = random() % taken.size();
            const auto [first, count] = taken[which];
            iso_slots_put(&s.slots, first, count);
            std::fill_n(model.begin() + first, count, true);
            taken[which] = taken.back();
            taken.pop_back();
        }
        REQUIRE(s.slots.free_count ==
                static_cast<uint32_t>(std::count(model.begin(), model.end(), true)));
    }
}

TEST_CASE("foreign free slots are counted and found, own ones are not", "[slots]")
{
    constexpr uint32_t total = 400;
    Slots s(total, 1, 4); // strip 100..199
    CHECK(s.slots.foreign_free == 0);
    iso_slots_put(&s.slots, 10, 5);
    iso_slots_put(&s.slots, 90, 10); // adjoins the strip
    iso_slots_put(&s.slots, 200, 70);
    iso_slots_put(&s.slots, 399, 1);
    CHECK(s.slots.foreign_free == 86);
    std::vector<std::pair<uint32_t, uint32_t>> runs;
    uint32_t first, count;
    for (uint32_t from = 0; iso_slots_next_foreign(&s.slots, from, &first, &count);
         from = first + count)
        runs.emplace_back(first, count);
    CHECK(runs ==
          std::vector<std::pair<uint32_t, uint32_t>>{{10, 5}, {90, 10}, {200, 70}, {399, 1}});
    CHECK(iso_slots_take_exact(&s.slots, 92, 4));
    CHECK(s.slots.foreign_free == 82);
    CHECK_FALSE(iso_slots_take_exact(&s.slots, 90, 5));
    CHECK(s.slots.foreign_free == 82);
}

TEST_CASE("slots taken out of the direct ones are out, and those of others in their place are not",
          "[slots]")
{
    const uintptr_t base = uintptr_t{0x7f} << 40, last = base + ISO_SLOT_SIZE - 1;
    const uintptr_t other = last + ISO_DIRECT_SLOTS * ISO_SLOT_SIZE; // has the same place
    uintptr_t *at = &iso_direct[(base >> ISO_SLOT_SHIFT) % ISO_DIRECT_SLOTS];
    at[0] = last;
    at[1] = other + ISO_SLOT_SIZE;
    at[2] = last + 2 * ISO_SLOT_SIZE;
    iso_direct_clear(reinterpret_cast<void *>(base), 2);
    CHECK(at[0] == 0);
    CHECK(at[1] == other + ISO_SLOT_SIZE);
    CHECK(at[2] == last + 2 * ISO_SLOT_SIZE);
    at[1] = at[2] = 0;
}

TEST_CASE("entered extents carry heap and distance, and are unknown only when cleared", "[slots]")
{
    Slots s(64, 1, 2); // strip 32..63
    const uintptr_t heap_slot = uintptr_t{7} << ISO_SLOT_SHIFT;
    iso_extent_t ordinary = {2, 3}, run = {10, 4 | ISO_EXTENT_RUN};
    CHECK(iso_slots_unknown(&s.slots, &ordinary));
    iso_slots_enter(&s.slots, &ordinary, heap_slot);
    iso_slots_enter(&s.slots, &run, heap_slot);
    for (uint32_t i = 0; i < 3; i++)
        CHECK(s.slots.table[2 + i] == heap_slot);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK(iso_slots_word_distance(s.slots.table[10 + i]) == i);
        CHECK(iso_slots_word_heap_slot(s.slots.table[10 + i]) == heap_slot);
    }
    CHECK_FALSE(iso_slots_unknown(&s.slots, &ordinary));
    iso_extent_t overlapping = {13, 2}, own = {40, 1}, beyond = {63, 2}, none = {5, 0},
                 huge = {1, 0x7fffffff};
    CHECK_FALSE(iso_slots_unknown(&s.slots, &overlapping));
    CHECK_FALSE(iso_slots_unknown(&s.slots, &own));
    CHECK_FALSE(iso_slots_unknown(&s.slots, &beyond));
    CHECK_FALSE(iso_slots_unknown(&s.slots, &none));
    CHECK_FALSE(iso_slots_unknown(&s.slots, &huge));
    iso_slots_clear(&s.slots, &ordinary);
    iso_slots_clear(&s.slots, &run);
    CHECK(iso_slots_unknown(&s.slots, &run));
    CHECK(iso_slots_unknown(&s.slots, &overlapping));
}
