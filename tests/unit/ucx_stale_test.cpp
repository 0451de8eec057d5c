// A put by a key to what the peer has deregistered, over a device that checks keys: it ends in a status, and
// neither process does. Not for lanes whose puts are messages, where the peer's CPU writes what it is told to.
// ISO_TEST_UCX_TLS names the lane; ci/rdma runs this.
#include "tests/unit/ucx.hpp"

namespace {

// Rank 1: its memory is registered until it is told otherwise.
int owner(Channel &parent, const Memory &memory)
{
    Far far;
    CHILD_REQUIRE(far.meets(parent, memory));
    parent.put(far.key);
    CHILD_REQUIRE(far.rank.until([&] { return parent.waiting(); }, 60));
    CHILD_REQUIRE(parent.get() == "deregister");
    ucx().mem_deregister(far.region);
    parent.put("done");
    CHILD_REQUIRE(far.rank.until([&] { return parent.waiting(); }, 60));
    ucx().disconnect(far.ep);
    return 0;
}

} // namespace

TEST_CASE("ucx: a put by a key that is stale ends in a status", "[.rdma]")
{
    const char *tls = getenv("ISO_TEST_UCX_TLS");
    REQUIRE(tls != nullptr);
    use(tls);
    Memory target(1 << 20);
    Child child([&](Channel &parent) { return owner(parent, target); });
    {
        Near near(child);
        const auto put = [&](unsigned char byte) { // how its flush ends
            Operation bytes, flush;
            memset(near.source.bytes, byte, target.size);
            REQUIRE(near.put(0, target.size, target.bytes, bytes) >= 0);
            REQUIRE(near.flush(flush) >= 0);
            REQUIRE(near.rank.until([&] { return bytes.ended && flush.ended; }));
            return flush.status;
        };
        REQUIRE(put(1) == ISO_OK);
        CHECK(target.bytes[target.size - 1] == 1);

        child.channel.put("deregister");
        REQUIRE(child.channel.get() == "done");
        CHECK(put(2) < 0);
        CHECK(target.bytes[0] == 1);
        CHECK(near.rank.until([&] { return !near.rank.failures.empty(); }));
        CHECK(near.rank.reported(1, ISO_FAILURE_UNREACHABLE)); // and not dead
    }
    child.channel.put("end");
    CHECK(child.reap() == 0);
}
