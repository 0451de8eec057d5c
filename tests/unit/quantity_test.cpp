// Sizes in messages. What settings take is tested with the settings.
#include "core/quantity.h"
#include <catch2/catch.hpp>
#include <string>
#include <utility>

TEST_CASE("a size is written in the largest unit that it fills, to a tenth", "[quantity]")
{
    const auto [bytes, text] = GENERATE(table<uint64_t, std::string>(
        {{0, "0 bytes"},
         {1023, "1023 bytes"},
         {1024, "1 KiB"},
         {1536, "1.5 KiB"},
         {65536, "64 KiB"},
         {(UINT64_C(1) << 20) - 1, "1024 KiB"},
         {UINT64_C(3) << 29, "1.5 GiB"},
         {(UINT64_C(1) << 40) + (UINT64_C(1) << 38), "1.3 TiB"}, // a quarter, rounded up
         {(UINT64_C(1) << 44) + 1, "16 TiB"},
         {UINT64_MAX, "16 EiB"}}));
    char buf[ISO_SIZE_TEXT];
    CHECK(iso_size_text(buf, bytes) == text);
}
