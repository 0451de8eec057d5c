// A put by a key to what the peer has deregistered, over a device that checks keys: it ends in a status, and
// neither process does. Not for lanes whose puts are messages, where the peer's CPU writes what it is told to.
// ISO_TEST_UCX_TLS names the lane; ci/rdma runs this.
#include "tests/unit/loopback.hpp"

namespace {

const iso_transport_ops_t &ucx()
{
    static const iso_transport_ops_t *ops = open_module(ISO_TEST_MODULE_DIR "/libisomalloc-ucx.so");
    return *ops;
}

struct Ended {
    iso_completion_t completion{on_end};
    iso_status_t status = ISO_INPROGRESS;

    static void on_end(iso_completion_t *self, iso_status_t status)
    {
        reinterpret_cast<Ended *>(self)->status = status;
    }
    bool began(iso_status_t returned)
    {
        if (returned != ISO_INPROGRESS)
            status = returned;
        return returned == ISO_OK || returned == ISO_INPROGRESS;
    }
};

// Rank 1: its memory is registered until it is told otherwise.
int owner(Channel &parent, const Memory &memory)
{
    Rank rank(1, 2, 7, ucx());
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    const iso_memory_t all = memory.all();
    char bytes[ISO_TRANSPORT_RKEY_MAX];
    size_t len = sizeof bytes;
    CHILD_REQUIRE(rank.opened == ISO_OK);
    CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
    CHILD_REQUIRE(ucx().mem_register(rank.tp, &all, &region) == ISO_OK);
    CHILD_REQUIRE(ucx().rkey_pack(region, bytes, &len) == ISO_OK);
    parent.put(std::string(bytes, len));
    CHILD_REQUIRE(rank.until([&] { return parent.waiting(); }, 60));
    CHILD_REQUIRE(parent.get() == "deregister");
    ucx().mem_deregister(region);
    parent.put("done");
    CHILD_REQUIRE(rank.until([&] { return parent.waiting(); }, 60));
    ucx().disconnect(ep);
    return 0;
}

} // namespace

TEST_CASE("ucx: a put by a key that is stale ends in a status", "[.rdma]")
{
    const char *tls = getenv("ISO_TEST_UCX_TLS");
    REQUIRE(tls != nullptr);
    setenv("UCX_TLS", tls, 1);
    ucx();
    Memory target(1 << 20), source(1 << 20);
    Child child([&](Channel &parent) { return owner(parent, target); });
    Rank rank(0, 2, 7, ucx());
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    iso_rkey_t *rkey = nullptr;
    const iso_memory_t all = source.all();
    REQUIRE(rank.opened == ISO_OK);
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    REQUIRE(ucx().mem_register(rank.tp, &all, &region) == ISO_OK);
    const std::string blob = child.channel.get();
    REQUIRE(ucx().rkey_unpack(ep, blob.data(), blob.size(), &rkey) == ISO_OK);
    memset(source.bytes, 1, source.size);
    const auto put = [&](Ended &bytes, Ended &flush) {
        return bytes.began(ucx().put(ep, source.bytes, source.size, region,
                                     reinterpret_cast<uintptr_t>(target.bytes), rkey,
                                     &bytes.completion)) &&
               flush.began(ucx().flush(ep, &flush.completion)) && rank.until([&] {
                   return bytes.status != ISO_INPROGRESS && flush.status != ISO_INPROGRESS;
               });
    };
    Ended bytes, flush, stale_bytes, stale_flush;
    REQUIRE(put(bytes, flush));
    REQUIRE(flush.status == ISO_OK);
    CHECK(target.bytes[target.size - 1] == 1);

    child.channel.put("deregister");
    REQUIRE(child.channel.get() == "done");
    memset(source.bytes, 2, source.size);
    REQUIRE(put(stale_bytes, stale_flush));
    CHECK(stale_flush.status < 0);
    CHECK(target.bytes[0] == 1);
    CHECK(rank.until([&] { return !rank.failures.empty(); }));
    CHECK(rank.reported(1, ISO_FAILURE_UNREACHABLE)); // and not dead

    child.channel.put("end");
    CHECK(child.reap() == 0);
    ucx().rkey_destroy(rkey);
    ucx().disconnect(ep);
    ucx().mem_deregister(region);
}
