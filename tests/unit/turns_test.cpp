// What transports share of messages: which are this job's, and those that wait until their turn comes; and of blobs.
#include "tests/unit/support.hpp"
#include <cstring>
extern "C" {
#include "transport/common/blob.h"
#include "transport/common/envelope.h"
#include "transport/common/turns.h"
}

TEST_CASE("turns: what comes early is taken out by number, and what comes twice after the first",
          "[turns]")
{
    turns_t turns = {};
    turn_t all[6];
    const uint64_t numbers[] = {3, 1, 5, 3, 0, 1};
    for (size_t i = 0; i < 6; i++) {
        REQUIRE((turns_due(&turns) != nullptr) == (i == 5)); // number 0 has come by then
        turns_keep(&turns, &all[i], numbers[i]);
    }
    REQUIRE(turns.count == 6);
    std::vector<const turn_t *> taken;
    while (turn_t *turn = turns_due(&turns)) {
        taken.push_back(turn);
        REQUIRE(turns_take(&turns) == turn);
        turns.heard += turn->number == turns.heard;
    }
    REQUIRE(taken == std::vector<const turn_t *>{&all[4], &all[1], &all[5]}); // 2 is missing
    REQUIRE(turns.heard == 2);
    REQUIRE(turns.count == 3);
    turns.heard = 3;
    REQUIRE(turns_due(&turns) == &all[0]);
    for (turn_t *expected : {&all[0], &all[3], &all[2]})
        REQUIRE(turns_take(&turns) == expected);
    REQUIRE(turns_take(&turns) == nullptr);
    REQUIRE(turns.count == 0);
}

TEST_CASE("envelopes: only what proves that it is of this job is good", "[turns]")
{
    iso_transport_host_t host = {};
    host.rank = 1;
    host.size = 3;
    host.cookie[15] = 7;
    const envelope_t good = envelope_new(&host, 0x1234, 2, 100, 5);
    REQUIRE(good.source == 1);
    REQUIRE(good.number == 5);
    REQUIRE(envelope_is_good(&good, &host, 0x1234, 2, 100));
    REQUIRE_FALSE(envelope_is_good(&good, &host, 0x1235, 2, 100));
    REQUIRE_FALSE(envelope_is_good(&good, &host, 0x1234, 3, 100));
    REQUIRE_FALSE(envelope_is_good(&good, &host, 0x1234, 2, 99));
    envelope_t bad = good;
    bad.source = 3;
    REQUIRE_FALSE(envelope_is_good(&bad, &host, 0x1234, 2, 100));
    bad = good;
    bad.cookie[15]++;
    REQUIRE_FALSE(envelope_is_good(&bad, &host, 0x1234, 2, 100));
}

TEST_CASE("blobs: any other byte, length, rank, kind or version is refused", "[turns]")
{
    iso_transport_host_t host = {};
    host.rank = 1;
    host.size = 3;
    const blob_kind_t kind = {0x626c6f62, 3, "a blob", ""};
    const blob_kind_t newer = {0x626c6f62, 4, "a blob", ""};
    const char body[16] = "fifteen letters", rest[] = "and some more";
    char bytes[128], got[16];
    size_t len = sizeof bytes, rest_len = 0;
    const void *found = nullptr;
    REQUIRE(blob_write(&host, &kind, body, sizeof body, rest, sizeof rest, bytes, &len) == ISO_OK);
    size_t small = len - 1;
    char little[128];
    REQUIRE(blob_write(&host, &kind, body, sizeof body, rest, sizeof rest, little, &small) ==
            ISO_ERR_LIMIT);
    REQUIRE(blob_read(&host, &kind, 1, bytes, len, got, sizeof got, &found, &rest_len) == ISO_OK);
    REQUIRE(std::memcmp(got, body, sizeof body) == 0);
    REQUIRE(rest_len == sizeof rest);
    REQUIRE(std::memcmp(found, rest, sizeof rest) == 0);

    const auto read = [&](const blob_kind_t &of, uint32_t rank, const char *at, size_t length) {
        return blob_read(&host, &of, rank, at, length, got, sizeof got, &found, &rest_len);
    };
    REQUIRE(read(newer, 1, bytes, len) == ISO_ERR_VERSION);
    REQUIRE(read(kind, 2, bytes, len) == ISO_ERR_INVALID);
    for (size_t shorter = 0; shorter < len; shorter++)
        REQUIRE(read(kind, 1, bytes, shorter) < ISO_OK);
    for (size_t i = 0; i < len; i++) {
        bytes[i] ^= 1;
        REQUIRE(read(kind, 1, bytes, len) < ISO_OK);
        bytes[i] ^= 1;
    }
    REQUIRE(blob_read(&host, &kind, 1, bytes, len, got, sizeof got, nullptr, nullptr) ==
            ISO_ERR_INVALID); // nothing is to follow
}
