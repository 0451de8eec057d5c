// Own puts of the UCX transport (ux_own.c, ux_land.c): over lanes where no device writes. What lands, what does not, and
// when a flush ends. Ranks are instances in this process.
#include "tests/unit/ucx_own.hpp"
#include <deque>

TEST_CASE("own puts: a long one goes in pieces, whole, and a flush ends when all of it is there",
          "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0), one(1);
    Way way(zero, one, 24 << 20);
    // Odd places and lengths: about the size of a piece, of several, of very many.
    const size_t lengths[] = {1, 4095, 8191, 8193, 61439, 61441, 200003, 17 << 20};
    size_t at = 3;
    std::deque<Operation> puts;
    for (const size_t length : lengths) {
        puts.emplace_back();
        REQUIRE(way.put(at, length, puts.back()) >= 0);
        at += length + 5;
    }
    Operation flush;
    REQUIRE(way.flush(flush) >= 0);
    for (const auto start = Clock::now(); since(start) < 0.1;)
        zero.progress(); // alone
    CHECK_FALSE(flush.ended);
    REQUIRE(way.until([&] { return flush.ended; }, 30));
    CHECK(flush.status == ISO_OK);
    at = 3;
    CHECK(way.is_untouched(0, 3));
    for (const size_t length : lengths) {
        CHECK(way.landed(at, length));
        CHECK(way.is_untouched(at + length, 5));
        at += length + 5;
    }
    REQUIRE(way.until([&] {
        for (const Operation &put : puts)
            if (!put.ended || put.status != ISO_OK)
                return false;
        return true;
    }));
}

TEST_CASE("own puts land without a flush, and while who put them sleeps", "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0), one(1);
    Way way(zero, one);
    CHECK(way.flushed() == ISO_OK); // they know each other
    Operation small, large;
    REQUIRE(way.put(0, 10, small) >= 0);
    CHECK(way.until([&] { return small.ended && way.landed(0, 10); }));
    REQUIRE(way.put(1000, 20000, large) >= 0);
    REQUIRE(zero.until([&] { return ucx().arm(zero.tp) == ISO_OK; }));
    CHECK(one.until([&] { return way.landed(1000, 20000); }));
}

TEST_CASE("own puts to what is not registered any more change nothing, and the flush says so",
          "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0), one(1);
    Way way(zero, one);
    Operation outside, across, gone, good;
    const uint64_t start = reinterpret_cast<uintptr_t>(way.target.bytes);

    // An rkey that says more than is true: the rank that is put to looks for itself.
    std::string wrong = way.blob;
    uint64_t address = start - 4096, length = way.target.size + 8192;
    memcpy(&wrong[rkey_address], &address, sizeof address);
    memcpy(&wrong[rkey_length], &length, sizeof length);
    iso_rkey_t *right = way.rkey;
    way.rkey = way.unpack(resealed(wrong));
    REQUIRE(way.put_to(start - 1, 0, 100, outside) >= 0);
    REQUIRE(way.put_to(start + way.target.size - 50, 0, 51, across) >= 0);
    CHECK(way.flushed() == ISO_ERR_INVALID);
    CHECK(zero.said("rank 1 refused 2 pieces"));
    CHECK(way.is_untouched(0, way.target.size));

    // It goes on.
    way.rkey = right;
    REQUIRE(way.put(100, 100000, good) >= 0);
    CHECK(way.flushed() == ISO_OK);
    CHECK(way.landed(100, 100000));

    // The same memory, registered anew: an rkey of before opens nothing.
    const iso_memory_t all = way.target.all();
    memset(way.target.bytes, Way::untouched, way.target.size);
    ucx().mem_deregister(way.landing);
    REQUIRE(ucx().mem_register(one.tp, &all, &way.landing) == ISO_OK);
    REQUIRE(way.put(0, 5000, gone) >= 0);
    CHECK(way.flushed() == ISO_ERR_INVALID);
    CHECK(way.is_untouched(0, way.target.size));
}

TEST_CASE("own puts of who was disconnected do not land, and who comes back is told", "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0), one(1);
    Way way(zero, one);
    Operation put, flush;
    CHECK(way.flushed() == ISO_OK); // they know each other
    ucx().disconnect(way.back);
    way.back = nullptr;
    REQUIRE(way.put(0, 300000, put) >= 0);
    const iso_status_t asked = way.flush(flush);
    if (asked < 0 || way.until([&] { return flush.ended; }, 0.3)) {
        CHECK(over == "tcp,self"); // which notices
        CHECK((asked == ISO_ERR_UNREACHABLE || flush.status == ISO_ERR_UNREACHABLE));
    } else {
        REQUIRE(one.connect(0, zero.address(), &way.back) == ISO_OK);
        REQUIRE(way.until([&] { return flush.ended; }));
        CHECK(flush.status == ISO_ERR_INVALID);
    }
    CHECK(way.is_untouched(0, way.target.size));
}

TEST_CASE("own puts of several ranks are told apart, and more flushes than there is room for wait",
          "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0, 3), one(1, 3), two(2, 3);
    Way from_one(one, zero), from_two(two, zero);
    constexpr size_t size = 20000, count = 50;
    Way *ways[] = {&from_one, &from_two};
    std::deque<Operation> puts, flushes[2];
    size_t begun[2] = {0, 0}, refused = 0;
    bool right = true;
    const auto turn = [&] {
        for (size_t i = 0; i < 2; i++) {
            if (begun[i] < count) {
                puts.emplace_back();
                if (ways[i]->put(begun[i] * size, size, puts.back()) == ISO_ERR_AGAIN)
                    continue;
                flushes[i].emplace_back();
                iso_status_t status = ways[i]->flush(flushes[i].back());
                if (status == ISO_ERR_AGAIN) {
                    refused++; // the next one is for both puts
                    flushes[i].pop_back();
                }
                begun[i]++;
            }
            for (size_t at = 0; at < flushes[i].size(); at++)
                if (flushes[i][at].ended) // and with it all that was put before
                    right = right && flushes[i][at].status == ISO_OK &&
                            (at > 25 || ways[i]->landed(at * size, size));
        }
    };
    for (int i = 0; i < 60; i++)
        turn(); // nobody makes progress
    CHECK(refused > 0);
    REQUIRE(zero.until(
        [&] {
            one.progress();
            two.progress();
            turn();
            return begun[0] == count && begun[1] == count;
        },
        20));
    for (Way *way : ways)
        CHECK(way->flushed() == ISO_OK);
    CHECK(right);
    for (size_t i = 0; i < 2; i++) {
        CHECK(ways[i]->landed(0, count * size));
        CHECK(ways[i]->is_untouched(count * size, ways[i]->target.size - count * size));
        for (const Operation &flush : flushes[i])
            CHECK((flush.ended && flush.status == ISO_OK));
    }
}

TEST_CASE("own puts: two that disconnect and connect again begin anew", "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0), one(1);
    Way way(zero, one);
    for (int round = 0; round < 5; round++) {
        CAPTURE(round);
        std::deque<Operation> lost(4);
        for (Operation &put : lost) // not flushed; some of it goes, and some does not
            REQUIRE(way.put(0, 200000, put) >= 0);
        ucx().rkey_destroy(way.rkeys.back());
        way.rkeys.pop_back();
        ucx().disconnect(way.ep);
        ucx().disconnect(way.back); // before it finds out that the other has
        REQUIRE(zero.connect(1, one.address(), &way.ep) == ISO_OK);
        REQUIRE(one.connect(0, zero.address(), &way.back) == ISO_OK);
        way.rkey = way.unpack(way.blob);
        memset(way.target.bytes, Way::untouched, way.target.size);
        Operation put;
        REQUIRE(way.put(400000, 300000, put) >= 0);
        CHECK(way.flushed() == ISO_OK);
        CHECK(way.landed(400000, 300000));
        for (const Operation &one_of : lost)
            CHECK((!one_of.ended || one_of.status == ISO_OK));
    }
}

TEST_CASE("own puts of a stranger change nothing", "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0, 2, 7), one(1, 2, 7), stranger(1, 2, 8);
    Way way(one, zero); // zero knows a rank 1
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    iso_rkey_t *rkey = nullptr;
    const iso_memory_t source = way.source.all();
    REQUIRE(stranger.connect(0, zero.address(), &ep) == ISO_OK);
    REQUIRE(ucx().mem_register(stranger.tp, &source, &region) == ISO_OK);
    REQUIRE(ucx().rkey_unpack(ep, way.blob.data(), way.blob.size(), &rkey) == ISO_OK);
    Operation put, flush;
    CHECK(put.began(ucx().put(ep, way.source.bytes, 50000, region,
                              reinterpret_cast<uintptr_t>(way.target.bytes), rkey,
                              &put.completion)) >= 0);
    CHECK(flush.began(ucx().flush(ep, &flush.completion)) >= 0);
    CHECK(zero.until([&] {
        stranger.progress();
        return zero.said("not of this job");
    }));
    CHECK_FALSE(zero.until(
        [&] {
            stranger.progress();
            return flush.ended;
        },
        0.1));
    CHECK(way.is_untouched(0, way.target.size));
    CHECK(way.flushed() == ISO_OK); // the rank 1 that is one goes on
    ucx().rkey_destroy(rkey);
    ucx().disconnect(ep);
    ucx().mem_deregister(region);
}

TEST_CASE("own puts: a message after a fence comes when they are there", "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0), one(1);
    Way way(zero, one, 4 << 20);
    constexpr size_t room = 70000;
    const size_t lengths[] = {1, 8192, 32768, 32769, 69000};
    unsigned put = 0, told = 0, heard = 0, flushed = 0;
    bool right = true;
    std::deque<Operation> puts;
    one.handler = [&](uint32_t, const void *, size_t) {
        right = right && way.landed(heard * room, lengths[heard % 5]);
        heard++;
    };
    CHECK(way.flushed() == ISO_OK); // they know each other
    while (put < 50) {
        const unsigned together = 1 + put % 3; // fences without a message between them
        for (unsigned i = 0; i < together && put < 50; i++, put++) {
            puts.emplace_back();
            REQUIRE(way.put(put * room, lengths[put % 5], puts.back()) >= 0);
            iso_status_t status = ISO_ERR_AGAIN;
            for (unsigned turn = 0; turn < 20 && status == ISO_ERR_AGAIN; turn++) {
                status = ucx().fence(way.ep);
                zero.progress();
                one.progress();
            }
            if (status == ISO_ERR_AGAIN) { // as many as the peer tells apart: an answer makes room
                flushed++;
                CHECK(way.flushed() == ISO_OK);
                status = ucx().fence(way.ep);
            }
            REQUIRE(status == ISO_OK);
        }
        for (; told < put; told++)
            REQUIRE(say_soon(zero, way.ep, "look"));
    }
    CHECK(way.until([&] { return heard == 50; }));
    CHECK(right);
    CHECK(flushed > 0);
    CHECK(flushed < 10);
    one.handler = nullptr;
    CHECK(way.flushed() == ISO_OK);
}

TEST_CASE("own puts: when a death was told, nothing of the dead lands any more", "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    Memory target(8 << 20);
    const iso_memory_t all = target.all();
    Child child([&](Channel &parent) {
        UcxRank rank(1);
        Memory source(target.size);
        const iso_memory_t here = source.all();
        iso_endpoint_t *ep = nullptr;
        iso_region_t *region = nullptr;
        iso_rkey_t *rkey = nullptr;
        CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
        CHILD_REQUIRE(ucx().mem_register(rank.tp, &here, &region) == ISO_OK);
        const std::string blob = parent.get();
        CHILD_REQUIRE(ucx().rkey_unpack(ep, blob.data(), blob.size(), &rkey) == ISO_OK);
        std::deque<Operation> puts;
        for (unsigned char value = 1;; value++) {
            memset(source.bytes, value, source.size);
            for (const auto start = Clock::now(); since(start) < 0.01;) {
                puts.emplace_back();
                ucx().put(ep, source.bytes, source.size, region,
                          reinterpret_cast<uintptr_t>(target.bytes), rkey, &puts.back().completion);
                rank.progress();
            }
        }
        return 0;
    });
    UcxRank rank(0);
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    REQUIRE(ucx().mem_register(rank.tp, &all, &region) == ISO_OK);
    char bytes[ISO_TRANSPORT_RKEY_MAX];
    size_t len = sizeof bytes;
    REQUIRE(ucx().rkey_pack(region, bytes, &len) == ISO_OK);
    child.channel.put(std::string(bytes, len));
    REQUIRE(rank.until([&] { return target.bytes[0] != 0; }));
    child.kill();
    REQUIRE(rank.until([&] { return !rank.failures.empty(); }));
    CHECK(rank.reported(1, ISO_FAILURE_DEAD));
    const std::vector<unsigned char> then(target.bytes, target.bytes + target.size);
    for (const auto start = Clock::now(); since(start) < 0.2;)
        rank.progress();
    CHECK(memcmp(then.data(), target.bytes, target.size) == 0);
    ucx().disconnect(ep);
    ucx().mem_deregister(region);
}
