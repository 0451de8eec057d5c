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
