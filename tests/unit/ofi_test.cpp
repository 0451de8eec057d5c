// The libfabric transport over what every machine has: tcp and shm. What it says of itself, which providers it
// takes, whom it connects to, and what a killed process leaves; the rest is in network_test.cpp.
#include "tests/unit/network.hpp"
#include <dirent.h>

namespace {

std::string ofi(const std::string &provider)
{
    return use_network("ofi " + provider);
}

// Files of ours that shm has in /dev/shm for the process.
unsigned files_of(pid_t pid)
{
    unsigned count = 0;
    DIR *folder = opendir("/dev/shm");
    while (const dirent *entry = readdir(folder)) {
        const std::string name = entry->d_name;
        count += name.find("libisomalloc-ofi-") == 0 &&
                 name.find("-" + std::to_string(pid) + "-") != std::string::npos;
    }
    closedir(folder);
    return count;
}

} // namespace

TEST_CASE("ofi says what it is and what it can do", "[ofi]")
{
    const std::string provider = GENERATE("tcp", "shm");
    ofi(provider);
    CAPTURE(provider);
    const char *why = nullptr;
    CHECK(std::string(net().name) == "ofi");
    REQUIRE(net().probe(&why) == ISO_OK);
    NetRank rank(0, 1);
    REQUIRE(rank.opened == ISO_OK);
    iso_transport_caps_t caps = {};
    net().query(rank.tp, &caps);
    CHECK(caps.one_sided == (provider == "shm"));
    CHECK(caps.shares_host == (provider == "shm"));
    CHECK_FALSE(caps.pins_memory);
    CHECK_FALSE(caps.needs_fd);
    CHECK_FALSE(caps.on_demand);
    CHECK_FALSE(caps.sees_death);
    CHECK(caps.max_send >= ISO_TRANSPORT_MIN_SEND);
    CHECK_THAT(caps.description, Catch::Contains("libfabric's provider " + provider));
    CHECK_FALSE(rank.said("error: "));
    CHECK_FALSE(rank.said("warn: "));
}

TEST_CASE("ofi without a provider's name takes one that reaches other hosts", "[ofi]")
{
    ofi("");
    NetRank rank(0, 1);
    REQUIRE(rank.opened == ISO_OK);
    iso_transport_caps_t caps = {};
    net().query(rank.tp, &caps);
    CHECK_FALSE(caps.shares_host);
}

TEST_CASE("a provider that libfabric does not have, or that will not do, is named", "[ofi]")
{
    ofi("nonsense");
    NetRank absent(0, 1);
    CHECK(absent.opened == ISO_ERR_INVALID);
    CHECK(absent.said("no provider 'nonsense'"));
    CHECK(absent.said("ISO_OFI_PROVIDER"));
    CHECK(absent.lines.size() == 1);
}

TEST_CASE("ofi: an address that there is not quite room for is refused; a fence of nothing is not",
          "[ofi]")
{
    ofi("tcp");
    NetRank rank(0, 2), peer(1, 2);
    iso_endpoint_t *ep = nullptr;
    const std::string address = peer.address();
    char little[300];
    size_t len = address.size() - 1;
    REQUIRE(len < sizeof little);
    CHECK(net().address(rank.tp, little, &len) == ISO_ERR_LIMIT);
    REQUIRE(rank.connect(1, address, &ep) == ISO_OK);
    CHECK(net().fence(ep) == ISO_OK); // of nothing yet
    net().disconnect(ep);
}

TEST_CASE("ofi: ranks with different providers say so", "[ofi]")
{
    ofi("shm");
    NetRank other(1, 2);
    ofi("tcp");
    NetRank rank(0, 2);
    iso_endpoint_t *ep = nullptr;
    CHECK(rank.connect(1, other.address(), &ep) == ISO_ERR_UNREACHABLE);
    CHECK(rank.said("set ISO_OFI_PROVIDER to the same for all"));
    CHECK(ep == nullptr);
}

TEST_CASE("ofi: a put with a key that is no longer good ends, and changes nothing", "[ofi]")
{
    ofi("tcp");
    Memory target(1 << 20);
    Child child([&](Channel &parent) {
        Far far;
        CHILD_REQUIRE(far.meets(parent, target));
        net().mem_deregister(far.region);
        parent.put(far.key);
        CHILD_REQUIRE(far.rank.until([&] { return parent.waiting(); }, 60));
        net().disconnect(far.ep);
        return 0; // the put of another has not ended this process
    });
    {
        Near near(child);
        Operation put, flush;
        REQUIRE(near.put(0, 100000, target.bytes, put) >= 0);
        REQUIRE(near.flush(flush) >= 0);
        CHECK(near.rank.until([&] { return put.ended && flush.ended; }));
        CHECK(flush.status < 0);
        CHECK(std::all_of(target.bytes, target.bytes + target.size,
                          [](unsigned char byte) { return byte == 0; }));
    }
    child.channel.put("end");
    CHECK(child.reap() == 0);
}

TEST_CASE("ofi: nothing stays in /dev/shm of those who were killed", "[ofi]")
{
    ofi("shm");
    const auto wait_for_the_end = [](Channel &parent) {
        NetRank rank(1);
        parent.put(rank.address());
        rank.until([] { return false; }, 60);
        return 1;
    };
    SECTION("a peer that sees the death removes the file")
    {
        Child child(wait_for_the_end);
        NetRank rank(0);
        iso_endpoint_t *ep = nullptr;
        REQUIRE(rank.connect(1, child.channel.get(), &ep) == ISO_OK);
        CHECK(files_of(child.pid) == 1);
        child.kill();
        CHECK(rank.until([&] { return !rank.failures.empty(); }));
        CHECK(files_of(child.pid) == 0);
        CHECK(files_of(getpid()) == 1);
        net().disconnect(ep);
    }
    SECTION("the next instance removes those that nobody saw")
    {
        Child child(wait_for_the_end);
        const pid_t pid = child.pid;
        child.channel.get();
        child.kill();
        child.reap();
        REQUIRE(files_of(pid) == 1);
        NetRank rank(0);
        CHECK(files_of(pid) == 0);
        CHECK(rank.said("removed 1 files"));
    }
    CHECK(files_of(getpid()) == 0);
}
