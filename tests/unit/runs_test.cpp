// Lists of runs.
#include "core/runs.h"
#include <catch2/catch.hpp>

TEST_CASE("runs: a list grows, and knows its bytes also when its memory is gone", "[runs]")
{
    iso_runs_t runs = {};
    uint64_t bytes = 0;
    for (uintptr_t i = 0; i < 1000; i++) {
        REQUIRE(iso_runs_add(&runs, i << 20, 4096 * (i % 7 + 1)));
        bytes += 4096 * (i % 7 + 1);
    }
    REQUIRE(runs.count == 1000);
    REQUIRE(runs.bytes == bytes);
    for (uintptr_t i = 0; i < 1000; i++) {
        REQUIRE(runs.list[i].address == i << 20);
        REQUIRE(runs.list[i].length == 4096 * (i % 7 + 1));
    }
    iso_runs_free(&runs);
    REQUIRE(runs.list == nullptr);
    REQUIRE(runs.count == 0);
    REQUIRE(runs.bytes == bytes); // of a migration that has ended, too (iso_request_query)
    iso_runs_free(&runs);
}

TEST_CASE("runs: a list that was lent room moves to memory of its own when that is full", "[runs]")
{
    const size_t count = GENERATE(1, 3, 4, 100);
    iso_run_t few[3];
    iso_runs_t runs = {};
    iso_runs_lend(&runs, few, 3);
    for (uintptr_t i = 0; i < count; i++)
        REQUIRE(iso_runs_add(&runs, i << 20, i + 1));
    REQUIRE(runs.count == count);
    REQUIRE((runs.list == few) == (count <= 3));
    for (uintptr_t i = 0; i < count; i++) {
        REQUIRE(runs.list[i].address == i << 20);
        REQUIRE(runs.list[i].length == i + 1);
    }
    iso_runs_free(&runs); // only what is its own
    REQUIRE(runs.list == nullptr);
    REQUIRE(iso_runs_add(&runs, 1, 1)); // and now it is as any other
    REQUIRE(runs.list != few);
    iso_runs_free(&runs);
}
