// The UCX transport over what every machine has: tcp, and shared memory. What it says of itself, whom it
// connects to, and how a peer leaves; the rest is true of every network transport (network_test.cpp).
#include "tests/unit/no_memory.hpp"
#include "tests/unit/ucx.hpp"
#include "transport/common/hash.h"

TEST_CASE("ucx says what it is and what it can do", "[ucx]")
{
    OVER_EACH;
    CAPTURE(over);
    const char *why = nullptr;
    CHECK(std::string(ucx().name) == "ucx");
    REQUIRE(ucx().probe(&why) == ISO_OK);
    UcxRank rank(0, 1);
    REQUIRE(rank.opened == ISO_OK);
    iso_transport_caps_t caps = {};
    ucx().query(rank.tp, &caps);
    CHECK(caps.one_sided == is_rdma(over));
    CHECK(caps.pins_memory == is_rdma(over));
    CHECK_FALSE(caps.needs_fd);
    CHECK(caps.shares_host == (over.find("cma") != std::string::npos));
    CHECK_FALSE(caps.sees_death);
    CHECK(caps.max_send >= ISO_TRANSPORT_MIN_SEND);
    CHECK(std::string(caps.description).find(is_rdma(over) ? "RDMA" : "target's CPU") !=
          std::string::npos);
    CHECK(rank.said("UCX has self/memory0"));
    CHECK_FALSE(rank.said("error: "));
    CHECK_FALSE(rank.said("warn: "));
}

TEST_CASE("ucx tells by which lane puts reach a peer", "[ucx]")
{
    OVER_EACH;
    CAPTURE(over);
    Memory target(1 << 20);
    Child child([&](Channel &parent) { return serve(parent, target); });
    {
        Near near(child);
        CHECK(near.rank.said(
            is_rdma(over)
                ? "puts to rank 1: one-sided, lane "
                : "puts to rank 1: active messages of our own, which its CPU copies, lane "));
        // A device cannot order, and says so.
        CHECK(ucx().fence(near.ep) == (is_rdma(over) ? ISO_ERR_INVALID : ISO_OK));
    }
    child.channel.put("end");
    CHECK(child.reap() == 0);
}

TEST_CASE("a transport that UCX does not have is named", "[ucx]")
{
    use("nonsense");
    UcxRank rank(0, 1);
    CHECK(rank.opened == ISO_ERR_SYSTEM);
    CHECK(rank.said("UCX_TLS is nonsense"));
}

TEST_CASE("ucx says what makes an address smaller, and knows one whose message id is wrong",
          "[ucx]")
{
    use(lanes()[0]);
    UcxRank rank(0, 2), peer(1, 2);
    iso_endpoint_t *ep = nullptr;
    std::string address = peer.address();
    char small[8];
    size_t len = sizeof small;
    CHECK(ucx().address(rank.tp, small, &len) == ISO_ERR_LIMIT);
    CHECK(rank.said("UCX_NET_DEVICES"));
    REQUIRE(rank.connect(1, address, &ep) == ISO_OK);
    CHECK(ucx().fence(ep) == ISO_OK); // without a key nothing was put, whatever the lane
    ucx().disconnect(ep);
    address[24]++;
    CHECK(rank.connect(1, address, &ep) == ISO_ERR_INVALID);
}

TEST_CASE("ucx: a peer of this host whose queues in shared memory are others is refused", "[ucx]")
{
    if (is_rdma(lanes()[0]))
        return;
    const size_t hash_at = 16, body_at = 24, queues_at = 28,
                 boot_id_at = 48; // ux_address.c, blob.h
    const std::string over = use(GENERATE("posix,cma,self", "sysv,cma,self", "tcp,self"));
    UcxRank rank(0, 2), peer(1, 2);
    iso_endpoint_t *ep = nullptr;
    std::string address = peer.address();
    const auto sealed = [&] {
        const uint64_t hash = hash_bytes(HASH_START, &address[body_at], address.size() - body_at);
        memcpy(&address[hash_at], &hash, sizeof hash);
        return address;
    };
    const char queues = address[queues_at];
    CHECK((queues == 0) == (over == "tcp,self"));
    const char others =
        GENERATE(1, 3, 5); // ux_queues_t: as a context of a program's, or with other settings
    address[queues_at] = others;
    if (queues == 0) {
        REQUIRE(rank.connect(1, sealed(), &ep) == ISO_OK); // never by shared memory
        ucx().disconnect(ep);
        return;
    }
    CHECK(rank.connect(1, sealed(), &ep) == ISO_ERR_INVALID);
    CHECK(rank.said("UCX_POSIX_FIFO_ELEM_SIZE"));
    address[boot_id_at]++; // another host's
    REQUIRE(rank.connect(1, sealed(), &ep) == ISO_OK);
    ucx().disconnect(ep);
}

TEST_CASE("ucx: a peer that leaves and lives is unreachable, not dead", "[ucx]")
{
    if (is_rdma(lanes()[0]))
        return;      // nor does a device, before something is sent
    use("tcp,self"); // shared memory does not notice
    Child child([&](Channel &parent) {
        {
            UcxRank rank(1);
            iso_endpoint_t *ep = nullptr;
            CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
            CHILD_REQUIRE(say_soon(rank, ep, "here"));
            CHILD_REQUIRE(rank.until([&] { return parent.waiting(); }));
            parent.get();
            ucx().disconnect(ep);
        }
        parent.get();
        return 0;
    });
    UcxRank rank(0);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    REQUIRE(say_soon(rank, ep, "hello"));
    REQUIRE(rank.until([&] { return rank.messages.size() == 1; }));
    child.channel.put("leave");
    CHECK(rank.until([&] { return !rank.failures.empty(); }));
    CHECK(rank.reported(1, ISO_FAILURE_UNREACHABLE));
    CHECK(rank.said("nothing gets through to rank 1 any more"));
    CHECK(say(ep, "late") == ISO_ERR_UNREACHABLE);
    child.channel.put("end");
    CHECK(child.reap() == 0);
    CHECK(rank.until([&] { return rank.failures.size() == 2; })); // and dead in the end
    CHECK(rank.failures[1].how == ISO_FAILURE_DEAD);
    ucx().disconnect(ep);
}

#ifdef CAN_FAIL_ALLOCATION
TEST_CASE("ucx: a rank is not heard any more of which a message is lost for want of memory, and "
          "others are",
          "[ucx]")
{
    OVER_EACH;
    CAPTURE(over);
    UcxRank zero(0, 3), one(1, 3), two(2, 3);
    iso_endpoint_t *from_one = nullptr, *from_two = nullptr;
    REQUIRE(one.connect(0, zero.address(), &from_one) == ISO_OK);
    REQUIRE(two.connect(0, zero.address(), &from_two) == ISO_OK);
    const auto others = [&] {
        one.progress();
        two.progress();
    };
    REQUIRE(say(from_one, "lost") == ISO_OK);
    no_memory_from = ISO_TRANSPORT_MIN_SEND;
    no_memory_to = ISO_TRANSPORT_MIN_SEND + 200; // a message, and what goes before it
    const bool noticed = zero.until([&] {
        others();
        return !zero.failures.empty();
    });
    no_memory_to = 0;
    REQUIRE(noticed);
    CHECK(zero.reported(1, ISO_FAILURE_UNREACHABLE));
    CHECK(zero.said("no memory for a message of rank 1"));
    for (int i = 0; i < 20; i++)
        CHECK(say_soon(one, from_one, "not heard"));
    CHECK(say_soon(two, from_two, "heard"));
    CHECK(zero.until([&] {
        others();
        return !zero.messages.empty();
    }));
    REQUIRE(zero.messages.size() == 1);
    CHECK(zero.messages[0].data == "heard");
    CHECK(zero.failures.size() == 1);
    ucx().disconnect(from_one);
    ucx().disconnect(from_two);
}
#endif
