// What the loopback transport tells of peers that die: everything they had sent first, then their
// death, once, soon, and also to a rank that sleeps, or that never connected to them.
#include "tests/unit/loopback.hpp"
#include <atomic>
#include <sys/resource.h>

namespace {

// Shared with children: how many of its messages a child knows to be sent.
struct Shared {
    Shared()
    {
        void *map = mmap(nullptr, sizeof(std::atomic<uint64_t>), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        REQUIRE(map != MAP_FAILED);
        sent = new (map) std::atomic<uint64_t>(0);
    }
    ~Shared()
    {
        munmap(static_cast<void *>(sent), sizeof *sent);
    }
    std::atomic<uint64_t> *sent;
};

// A peer that sends numbers as fast as they are taken, until it is killed.
int send_numbers(Channel &parent, std::atomic<uint64_t> *sent)
{
    Rank rank(1);
    iso_endpoint_t *ep = nullptr;
    parent.put(rank.address());
    CHILD_REQUIRE(rank.connect(0, parent.get(), &ep) == ISO_OK);
    for (uint64_t number = 0;;) {
        const iso_status_t status = send(ep, std::to_string(number));
        if (status == ISO_OK)
            sent->store(++number);
        else if (status == ISO_ERR_AGAIN)
            sched_yield();
        else
            return 1;
    }
}

void check_numbers(const Rank &rank, uint64_t at_least)
{
    bool in_order = true;
    for (size_t i = 0; i < rank.messages.size(); i++)
        in_order = in_order && rank.messages[i].data == std::to_string(i);
    CHECK(in_order);
    CHECK(rank.messages.size() >= at_least);
    CHECK(rank.messages.size() <= at_least + 1); // killed after sending, before counting
    CHECK(rank.messages_at_failure == rank.messages.size());
}

void check_nothing_more(Rank &rank)
{
    const size_t failures = rank.failures.size(), messages = rank.messages.size();
    for (const auto start = Clock::now(); since(start) < 0.05;)
        rank.progress();
    CHECK(rank.failures.size() == failures);
    CHECK(rank.messages.size() == messages);
    CHECK(loopback().arm(rank.tp) == ISO_OK);
    CHECK_FALSE(rank.sleep(0)); // the dead do not keep waking it
}

// In a child, as rank 1: says hello to rank 0, and stays.
int says_hello(Channel &parent)
{
    Rank rank(1);
    iso_endpoint_t *ep = nullptr;
    CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
    CHILD_REQUIRE(send(ep, "hello") == ISO_OK);
    parent.put("sent");
    parent.get();
    return 1;
}

} // namespace

TEST_CASE("all that a peer sent is delivered before its death, which is told once", "[loopback]")
{
    for (int round = 0; round < 30; round++) {
        const bool connected = round % 2 == 0, reaped = round % 3 == 0, reading = round % 5 < 3;
        CAPTURE(round, connected, reaped, reading);
        Shared shared;
        Child child([&](Channel &parent) { return send_numbers(parent, shared.sent); });
        Rank rank(0);
        iso_endpoint_t *ep = nullptr;
        const std::string address = child.channel.get();
        if (connected)
            REQUIRE(rank.connect(1, address, &ep) == ISO_OK);
        child.channel.put(rank.address());
        while (shared.sent->load() == 0) // who has not sent yet is not known, so not missed either
            sched_yield();
        // Not reading: its first words are found when it has been dead for long.
        for (const auto start = Clock::now(); since(start) < 0.003 * (round % 7 + 1);)
            if (!reading || rank.progress() == 0)
                sched_yield();
        child.kill();
        if (reaped)
            child.reap();
        else
            child.await_zombie();
        const auto start = Clock::now();
        rank.until([&] { return !rank.failures.empty(); }, 5);
        CHECK(since(start) < 1);
        CHECK(rank.reported(1, ISO_FAILURE_DEAD));
        check_numbers(rank, shared.sent->load());
        check_nothing_more(rank);
        if (ep != nullptr) {
            CHECK(send(ep, "to nobody") == ISO_ERR_PEER_DEAD);
            loopback().disconnect(ep);
        }
        CHECK(rank.connect(1, address, &ep) == ISO_ERR_UNREACHABLE);
    }
}

TEST_CASE("a death wakes a sleeper", "[loopback]")
{
    const bool reaped = GENERATE(false, true);
    const bool connected = GENERATE(false, true);
    CAPTURE(reaped, connected);
    Child child(says_hello);
    Rank rank(0);
    iso_endpoint_t *ep = nullptr;
    const std::string address = child.channel.get();
    if (connected)
        REQUIRE(rank.connect(1, address, &ep) == ISO_OK);
    child.channel.put(rank.address());
    REQUIRE(child.channel.get() == "sent");
    REQUIRE(rank.until([&] { return rank.messages.size() == 1; }));
    REQUIRE(rank.until([&] { return loopback().arm(rank.tp) == ISO_OK; }));
    CHECK_FALSE(rank.sleep(50));
    const auto start = Clock::now();
    child.kill();
    if (reaped)
        child.reap();
    CHECK(rank.sleep(5000));
    CHECK(rank.progress() == 1);
    CHECK(since(start) < 1);
    CHECK(rank.reported(1, ISO_FAILURE_DEAD));
    check_nothing_more(rank);
    if (ep != nullptr)
        loopback().disconnect(ep);
}

TEST_CASE("a connected peer that never said a word is reported as well", "[loopback]")
{
    Child child([](Channel &parent) {
        Rank rank(1);
        parent.put(rank.address());
        parent.get();
        return 1;
    });
    Rank rank(0);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(rank.connect(1, child.channel.get(), &ep) == ISO_OK);
    // A sender that waits for room is told, too.
    while (send(ep, std::string(16000, 'x')) == ISO_OK)
        ;
    REQUIRE(loopback().arm(rank.tp) == ISO_OK);
    child.kill();
    CHECK(rank.sleep(5000));
    CHECK(rank.progress() > 0);
    CHECK(rank.reported(1, ISO_FAILURE_DEAD));
    check_nothing_more(rank);
    loopback().disconnect(ep);
}

TEST_CASE("deaths of many peers are each told once", "[loopback]")
{
    constexpr uint32_t peers = 40; // more than one look returns
    Rank rank(0, peers + 1);
    std::vector<std::unique_ptr<Child>> children;
    std::vector<iso_endpoint_t *> eps(peers);
    for (uint32_t i = 0; i < peers; i++) {
        children.push_back(std::make_unique<Child>([i](Channel &parent) {
            Rank peer(i + 1, peers + 1);
            parent.put(peer.address());
            parent.get();
            return 1;
        }));
        REQUIRE(rank.connect(i + 1, children[i]->channel.get(), &eps[i]) == ISO_OK);
    }
    for (const auto &child : children)
        child->kill();
    CHECK(rank.until([&] { return rank.failures.size() == peers; }));
    std::vector<int> told(peers + 1);
    for (const auto &failure : rank.failures) {
        CHECK(failure.how == ISO_FAILURE_DEAD);
        told[failure.peer]++;
    }
    for (uint32_t i = 0; i < peers; i++) {
        CHECK(told[i + 1] == 1);
        loopback().disconnect(eps[i]);
    }
}

TEST_CASE("puts to the dead fail and closing after them does not hang", "[loopback]")
{
    Memory target(1 << 20), source(1 << 20);
    const iso_memory_t all_target = target.all(), all_source = source.all();
    Child child([&](Channel &parent) {
        Rank rank(1);
        iso_region_t *region = nullptr;
        CHILD_REQUIRE(loopback().mem_register(rank.tp, &all_target, &region) == ISO_OK);
        parent.put(rank.address());
        parent.put(pack(region));
        parent.get();
        return 1;
    });
    Rank rank(0);
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    iso_rkey_t *rkey = nullptr, *late = nullptr;
    REQUIRE(rank.connect(1, child.channel.get(), &ep) == ISO_OK);
    const std::string key = child.channel.get();
    REQUIRE(unpack(ep, key, &rkey) == ISO_OK);
    REQUIRE(loopback().mem_register(rank.tp, &all_source, &region) == ISO_OK);
    const auto put = [&] {
        return loopback().put(ep, source.bytes, 4096, region,
                              reinterpret_cast<uintptr_t>(target.bytes), rkey, nullptr);
    };
    CHECK(put() == ISO_OK);
    child.kill();
    child.await_zombie();
    CHECK(put() == ISO_OK); // not known yet: goes to memory that nobody reads
    CHECK(rank.until([&] { return !rank.failures.empty(); }));
    CHECK(put() == ISO_ERR_PEER_DEAD);
    loopback().rkey_destroy(rkey);
    CHECK(unpack(ep, key, &late) == ISO_ERR_UNREACHABLE);
    loopback().mem_deregister(region);
    loopback().disconnect(ep);
    const auto start = Clock::now();
    rank.close();
    CHECK(since(start) < 1);
}

TEST_CASE("a peer whose ring holds garbage is not reported dead", "[loopback]")
{
    // What it sent is not all delivered, so nothing may be settled by its death.
    Child child(says_hello);
    Rank rank(0);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    REQUIRE(child.channel.get() == "sent");
    int inbox;
    const std::string address = rank.address();
    memcpy(&inbox, &address[lo::address_inbox_fd], sizeof inbox);
    const uint32_t garbage = 0xdeadbeef;
    const bool before_death = GENERATE(true, false);
    if (!before_death) {
        child.kill();
        child.await_zombie();
    }
    REQUIRE(pwrite(inbox, &garbage, sizeof garbage,
                   static_cast<off_t>(lo::control_bytes + lo::ring_bytes + lo::ring_header)) == 4);
    REQUIRE(rank.until([&] { return !rank.failures.empty(); }));
    child.kill();
    child.await_zombie();
    CHECK(rank.until([&] { return rank.said("not all that it sent could be read"); }));
    check_nothing_more(rank);
    CHECK(rank.reported(1, ISO_FAILURE_UNREACHABLE));
    CHECK(send(ep, "x") == ISO_ERR_UNREACHABLE);
    loopback().disconnect(ep);
}

TEST_CASE("a death is told when descriptors had run out before", "[loopback]")
{
    Child child([](Channel &parent) {
        Child peer([&](Channel &above) {
            Rank rank(1);
            iso_endpoint_t *ep = nullptr;
            above.put("x");
            CHILD_REQUIRE(rank.connect(0, above.get(), &ep) == ISO_OK);
            CHILD_REQUIRE(send(ep, "hello") == ISO_OK);
            above.put("sent");
            above.get();
            return 1;
        });
        Rank rank(0);
        peer.channel.get();
        peer.channel.put(rank.address());
        CHILD_REQUIRE(peer.channel.get() == "sent");
        rlimit limit, none = {};
        CHILD_REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
        none.rlim_max = limit.rlim_max;
        CHILD_REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
        CHILD_REQUIRE(rank.until([&] { return rank.messages.size() == 1; }));
        CHILD_REQUIRE(rank.lines.size() == 1 && rank.said("warn: process") &&
                      rank.said("cannot be watched"));
        peer.kill();
        peer.await_zombie();
        for (int i = 0; i < 20; i++, sleep_ms(2))
            rank.progress();
        CHILD_REQUIRE(rank.failures.empty());
        CHILD_REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
        CHILD_REQUIRE(rank.until([&] { return rank.reported(1, ISO_FAILURE_DEAD); }));
        parent.put("x");
        return 0;
    });
    CHECK(child.reap() == 0);
}

TEST_CASE("a peer that closes and then ends is reported, and no earlier", "[loopback]")
{
    Child child([](Channel &parent) {
        Rank rank(1);
        iso_endpoint_t *ep = nullptr;
        CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
        CHILD_REQUIRE(parent.get() == "connected");
        CHILD_REQUIRE(send(ep, "last words") == ISO_OK);
        loopback().disconnect(ep);
        rank.close();
        parent.put("closed");
        parent.get();
        return 0;
    });
    Rank rank(0);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    child.channel.put("connected");
    REQUIRE(child.channel.get() == "closed");
    CHECK(send(ep, "x") == ISO_ERR_UNREACHABLE);
    REQUIRE(rank.until([&] { return rank.failures.size() == 1 && rank.messages.size() == 1; }));
    CHECK(rank.reported(1, ISO_FAILURE_UNREACHABLE)); // nothing reaches it any more
    child.channel.put("end");
    REQUIRE(rank.until([&] { return rank.failures.size() == 2; }));
    CHECK(rank.failures[1].how == ISO_FAILURE_DEAD); // and now it is certain
    CHECK(child.reap() == 0);
    check_nothing_more(rank);
    loopback().disconnect(ep);
}
