// What is true of every network transport, over what every machine has: messages in order, flushes that mean what
// they say, and peers that die, stop or leave.
#include "tests/unit/network.hpp"
#include <atomic>
#include <ctime>
#include <deque>
#include <dirent.h>
#include <memory>

namespace {

double cpu_seconds()
{
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

size_t count_descriptors()
{
    size_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir) != nullptr)
        count++;
    closedir(dir);
    return count;
}

} // namespace

TEST_CASE("network messages arrive in order and whole, both ways, under load", "[network]")
{
    OVER_EACH_NETWORK;
    CAPTURE(over);
    const unsigned count = scaled(20000);
    // Number n of a stream: its size and every byte follow from n.
    const auto text = [](unsigned n) {
        static const size_t sizes[] = {0, 1, 8, 100, 300, 2000, 4096, 8191, 8192};
        return std::string(sizes[n % 9], static_cast<char>(n * 7 + n / 256));
    };
    const auto exchange = [&](Rank &rank, iso_endpoint_t *ep) {
        unsigned sent = 0, heard = 0;
        bool right = true;
        rank.handler = [&](uint32_t source, const void *data, size_t len) {
            right = right && source == 1 - rank.host.rank &&
                    std::string(static_cast<const char *>(data), len) == text(heard);
            heard++;
        };
        const bool ended = rank.until(
            [&] {
                for (; sent < count; sent++) {
                    const iso_status_t status = say(ep, text(sent));
                    if (status == ISO_ERR_AGAIN)
                        break;
                    right = right && status == ISO_OK;
                }
                return !right || (sent == count && heard == count);
            },
            50);
        rank.handler = nullptr;
        return ended && right;
    };
    Child child([&](Channel &parent) {
        NetRank rank(1);
        iso_endpoint_t *ep = nullptr;
        CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
        CHILD_REQUIRE(exchange(rank, ep));
        parent.put("done");
        CHILD_REQUIRE(rank.until([&] { return parent.waiting(); }));
        net().disconnect(ep);
        return 0;
    });
    NetRank rank(0);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    CHECK(exchange(rank, ep));
    CHECK(rank.until([&] { return child.channel.waiting(); }));
    CHECK(child.channel.get() == "done");
    child.channel.put("end");
    CHECK(child.reap() == 0);
    net().disconnect(ep);
    CHECK_FALSE(rank.said("error: "));
}

TEST_CASE("what is not of this job is dropped", "[network]")
{
    OVER_EACH_NETWORK;
    CAPTURE(over);
    NetRank rank(0, 2, 7), peer(1, 2, 7), stranger(1, 2, 8);
    iso_endpoint_t *ep = nullptr, *strange = nullptr;
    REQUIRE(stranger.connect(0, rank.address(), &strange) == ISO_OK);
    REQUIRE(peer.connect(0, rank.address(), &ep) == ISO_OK);
    const auto both = [&] {
        stranger.progress();
        peer.progress();
        return !rank.messages.empty() && rank.said("not of this job");
    };
    CHECK(say(strange, "let me in") == ISO_OK);
    CHECK(say(ep, "hello") == ISO_OK);
    CHECK(rank.until(both));
    REQUIRE(rank.messages.size() == 1);
    CHECK(rank.messages[0].data == "hello");
    CHECK(rank.failures.empty());
    net().disconnect(strange);
    net().disconnect(ep);
}

TEST_CASE("network: hosts and addresses that make no sense are refused", "[network]")
{
    OVER_EACH_NETWORK;
    CAPTURE(over);
    NetRank rank(0, 3), peer(1, 3), outside(2, 2);
    iso_endpoint_t *ep = nullptr, *again = nullptr;
    const std::string address = peer.address();

    CHECK(outside.opened == ISO_ERR_RANK);
    iso_transport_t *tp = nullptr;
    iso_transport_host_t host = rank.host;
    host.struct_size = 8;
    CHECK(net().open(&host, &tp) == ISO_ERR_VERSION);
    char small[8];
    size_t len = sizeof small;
    CHECK(net().address(rank.tp, small, &len) == ISO_ERR_LIMIT);

    CHECK(rank.connect(3, address, &ep) == ISO_ERR_RANK);
    CHECK(rank.connect(2, address, &ep) == ISO_ERR_INVALID); // is of rank 1
    CHECK(rank.connect(1, "", &ep) == ISO_ERR_INVALID);
    CHECK(rank.connect(1, address.substr(0, address.size() - 1), &ep) == ISO_ERR_INVALID);
    for (size_t at : {size_t{0}, size_t{8}, size_t{16}, size_t{24}, address.size() - 1}) {
        std::string wrong = address;
        wrong[at]++;
        CHECK(rank.connect(1, wrong, &ep) == ISO_ERR_INVALID);
    }
    std::string newer = address;
    newer[4]++;
    CHECK(rank.connect(1, newer, &ep) == ISO_ERR_VERSION);
    CHECK(ep == nullptr);
    REQUIRE(rank.connect(1, address, &ep) == ISO_OK);
    CHECK(rank.connect(1, address, &again) == ISO_ERR_INVALID);
    CHECK(rank.said("connected already"));
    CHECK(again == nullptr);
    net().disconnect(ep);
    REQUIRE(rank.connect(1, address, &ep) == ISO_OK); // and again
    net().disconnect(ep);
}

TEST_CASE("network puts: a flush ends when all bytes are at the peer", "[network]")
{
    OVER_EACH_NETWORK;
    CAPTURE(over);
    Memory target(4 << 20);
    Child child([&](Channel &parent) { return serve(parent, target); });
    Near near(child);
    std::mt19937_64 random(2);
    for (unsigned round = 0; round < scaled(200); round++) {
        std::vector<unsigned char> expected(target.bytes, target.bytes + target.size);
        std::deque<Operation> puts;
        for (int i = 0; i < 5; i++) {
            static const size_t limits[] = {16, 5000, 70000, 1 << 19};
            const size_t len = random() % limits[random() % 4] + 1;
            const size_t at = random() % (target.size / 5 - len) + i * (target.size / 5);
            const size_t from = random() % (near.source.size - len);
            puts.emplace_back();
            REQUIRE(near.put(from, len, target.bytes + at, puts.back()) >= 0);
            memcpy(expected.data() + at, near.source.bytes + from, len);
        }
        Operation flush;
        REQUIRE(near.flush(flush) >= 0);
        REQUIRE(near.rank.until([&] { return flush.ended; }));
        CHECK(flush.status == ISO_OK);
        REQUIRE(memcmp(expected.data(), target.bytes, target.size) == 0);
        REQUIRE(near.rank.until([&] {
            for (const Operation &put : puts)
                if (!put.ended || put.status != ISO_OK)
                    return false;
            return true;
        }));
    }
    CHECK_FALSE(near.rank.said("error: "));
    child.channel.put("end");
    CHECK(child.reap() == 0);
}

TEST_CASE("network puts need the target unless the caps say one-sided, and a flush waits for it",
          "[network]")
{
    OVER_EACH_NETWORK;
    CAPTURE(over);
    Memory target(1 << 20);
    Child child([&](Channel &parent) { return serve(parent, target); });
    Near near(child);
    Operation first, put, flush;
    REQUIRE(near.put(0, 100, target.bytes, first) >= 0);
    REQUIRE(near.flush(flush) >= 0);
    REQUIRE(near.rank.until([&] { return flush.ended; })); // they know each other
    REQUIRE(child.stop());
    flush.ended = false;
    REQUIRE(near.put(0, 100000, target.bytes + 5000, put) >= 0);
    REQUIRE(near.flush(flush) >= 0);
    CHECK(near.rank.until([&] { return flush.ended; }, network().one_sided() ? 10 : 0.5) ==
          network().one_sided());
    CHECK((memcmp(near.source.bytes, target.bytes + 5000, 100000) == 0) == network().one_sided());
    REQUIRE(kill(child.pid, SIGCONT) == 0);
    CHECK(near.rank.until([&] { return flush.ended; }));
    CHECK(flush.status == ISO_OK);
    CHECK(memcmp(near.source.bytes, target.bytes + 5000, 100000) == 0);
    child.channel.put("end");
    CHECK(child.reap() == 0);
}

TEST_CASE("network puts that make no sense are refused", "[network]")
{
    OVER_EACH_NETWORK;
    CAPTURE(over);
    Memory target(1 << 20);
    Child child([&](Channel &parent) { return serve(parent, target); });
    Near near(child);
    Operation put;
    CHECK(near.put(0, 100, target.bytes + target.size - 99, put) == ISO_ERR_INVALID);
    CHECK(near.put(0, 100, target.bytes - 1, put) == ISO_ERR_INVALID);
    CHECK(near.rank.said("outside the region of its rkey"));
    CHECK(near.put(near.source.size - 10, 11, target.bytes, put) == ISO_ERR_INVALID);
    CHECK(near.put(0, 0, target.bytes, put) == ISO_OK);
    iso_rkey_t *rkey = nullptr;
    for (size_t at = 0; at < near.blob.size(); at++) {
        std::string wrong = near.blob;
        wrong[at] ^= 1;
        CHECK(net().rkey_unpack(near.ep, wrong.data(), wrong.size(), &rkey) ==
              (at >= 4 && at < 8 ? ISO_ERR_VERSION : ISO_ERR_INVALID));
    }
    CHECK(net().rkey_unpack(near.ep, near.blob.data(), near.blob.size() - 1, &rkey) ==
          ISO_ERR_INVALID);
    CHECK(rkey == nullptr);
    CHECK(say(near.ep, std::string(ISO_TRANSPORT_MIN_SEND + 1, 'x')) == ISO_ERR_INVALID);
    const iso_memory_t none = {near.source.bytes, 0, -1, 0};
    iso_region_t *region = nullptr;
    CHECK(net().mem_register(near.rank.tp, &none, &region) == ISO_ERR_INVALID);
    child.channel.put("end");
    CHECK(child.reap() == 0);
}

TEST_CASE("network: a peer that does not listen is sent a bounded number of messages, in order",
          "[network]")
{
    OVER_EACH_NETWORK;
    CAPTURE(over);
    constexpr unsigned count = 5000;
    Child child([&](Channel &parent) {
        NetRank rank(1);
        iso_endpoint_t *ep = nullptr;
        CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
        CHILD_REQUIRE(say_soon(rank, ep, "here"));
        CHILD_REQUIRE(rank.until([&] { return rank.messages.size() == count; }, 30));
        for (unsigned i = 0; i < count; i++)
            CHILD_REQUIRE(rank.messages[i].data == std::string(8000, static_cast<char>(i)));
        net().disconnect(ep);
        return 0;
    });
    NetRank rank(0);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    REQUIRE(rank.until([&] { return rank.messages.size() == 1; }));
    REQUIRE(child.stop());
    unsigned sent = 0, refused = 0;
    for (const auto start = Clock::now(); sent < count && since(start) < 1;) {
        const iso_status_t status = say(ep, std::string(8000, static_cast<char>(sent)));
        REQUIRE((status == ISO_OK || status == ISO_ERR_AGAIN));
        sent += status == ISO_OK;
        refused += status == ISO_ERR_AGAIN;
        rank.progress();
    }
    if (!network().is_rdma()) { // whose queues are long, and whose guest is slow
        CHECK(refused > 0);
        CHECK(sent < count);
    }
    REQUIRE(kill(child.pid, SIGCONT) == 0);
    CHECK(rank.until(
        [&] {
            while (sent < count && say(ep, std::string(8000, static_cast<char>(sent))) == ISO_OK)
                sent++;
            return sent == count;
        },
        30));
    for (const auto start = Clock::now(); !child.channel.waiting() && since(start) < 10;)
        rank.progress(); // the child ends when it has heard all
    CHECK(child.reap() == 0);
    net().disconnect(ep);
}

TEST_CASE("network: puts to a peer that is killed end soon, and its death is told once",
          "[network]")
{
    OVER_EACH_NETWORK;
    const bool stopped = GENERATE(false, true), reaped = GENERATE(false, true);
    CAPTURE(over, stopped, reaped);
    Memory target(4 << 20);
    Child child([&](Channel &parent) { return serve(parent, target); });
    Near near(child);
    Operation first;
    REQUIRE(near.flush(first) >= 0);
    REQUIRE(near.rank.until([&] { return first.ended; }));
    if (stopped)
        REQUIRE(child.stop()); // so that all of what follows is under way
    std::deque<Operation> puts;
    for (int i = 0; i < 40; i++) {
        puts.emplace_back();
        const iso_status_t status = near.put(0, 1 << 20, target.bytes, puts.back());
        REQUIRE((status >= 0 || status == ISO_ERR_AGAIN));
    }
    Operation flush;
    REQUIRE(near.flush(flush) >= 0);
    near.rank.progress();
    size_t at_failure = 0; // operations that had ended when the death was told
    child.kill();
    if (reaped)
        child.reap();
    else
        child.await_zombie();
    const auto start = Clock::now();
    REQUIRE(near.rank.until(
        [&] {
            if (near.rank.failures.empty())
                at_failure = flush.ended;
            for (const Operation &put : puts)
                if (!put.ended)
                    return false;
            return flush.ended && !near.rank.failures.empty();
        },
        10));
    CHECK(since(start) < 2);
    CHECK(near.rank.reported(1, ISO_FAILURE_DEAD));
    if (stopped && !network().one_sided()) {
        CHECK(at_failure == 0); // what fails is told after why
        CHECK(flush.status == ISO_ERR_PEER_DEAD);
    }
    Operation late;
    CHECK(near.put(0, 10, target.bytes, late) == ISO_ERR_PEER_DEAD);
    CHECK(near.flush(late) == ISO_ERR_PEER_DEAD);
    CHECK(say(near.ep, "late") == ISO_ERR_PEER_DEAD);
    for (const auto quiet = Clock::now(); since(quiet) < 0.1;)
        near.rank.progress();
    CHECK(near.rank.failures.size() == 1);
    // The dead do not keep it awake: its software may have a thing to do now and then, but not always. (A device has
    // events of its own.)
    REQUIRE(near.rank.until([&] {
        return net().arm(near.rank.tp) == ISO_OK && (network().is_rdma() || !near.rank.sleep(0));
    }));
}

TEST_CASE("network: what a peer had said is heard before its death", "[network]")
{
    OVER_EACH_NETWORK;
    CAPTURE(over);
    // By turns it is heard meanwhile, or when it has been dead for long: that much must have room.
    const auto is_late = [](unsigned round) { return round % 2 == 1; };
    const auto messages = [&](unsigned round) { return is_late(round) ? 12 : 500 + 100 * round; };
    // All are forked before there is an instance here: one may leave a thread of UCX's, and what that has
    // locked when a child is forked, it never unlocks there.
    std::vector<std::unique_ptr<Child>> children;
    for (unsigned round = 0; round < 6; round++)
        children.push_back(std::make_unique<Child>([&, round](Channel &parent) {
            const unsigned count = messages(round);
            NetRank rank(1);
            iso_endpoint_t *ep = nullptr;
            CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
            for (unsigned number = 0; number < count; number++)
                CHILD_REQUIRE(say_soon(rank, ep, std::to_string(number)));
            CHILD_REQUIRE(
                !rank.until([&] { return false; }, 0.2)); // it leaves the software's hands
            kill(getpid(), SIGKILL);
            return 0;
        }));
    for (unsigned round = 0; round < 6; round++) {
        const unsigned count = messages(round);
        CAPTURE(round);
        NetRank rank(0);
        iso_endpoint_t *ep = nullptr;
        REQUIRE(meet(rank, children[round]->channel, 1, &ep) == ISO_OK);
        REQUIRE(rank.until([&] { return !rank.messages.empty(); }));
        if (is_late(round))
            children[round]->await_zombie();
        CHECK(rank.until([&] { return !rank.failures.empty(); }));
        CHECK(rank.reported(1, ISO_FAILURE_DEAD));
        CHECK(rank.messages.size() == count);
        CHECK(rank.messages_at_failure == rank.messages.size());
        bool in_order = true;
        for (size_t i = 0; i < rank.messages.size(); i++)
            in_order = in_order && rank.messages[i].data == std::to_string(i);
        CHECK(in_order);
        net().disconnect(ep);
    }
}

TEST_CASE("network: a message, and a death, wake a sleeper that takes no processor", "[network]")
{
    OVER_EACH_NETWORK;
    CAPTURE(over);
    Child child([&](Channel &parent) {
        NetRank rank(1);
        iso_endpoint_t *ep = nullptr;
        CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
        CHILD_REQUIRE(say_soon(rank, ep, "first"));
        CHILD_REQUIRE(rank.until([&] { return parent.waiting(); }));
        parent.get();
        CHILD_REQUIRE(say_soon(rank, ep, "second"));
        rank.until([&] { return false; }, 60);
        return 1;
    });
    NetRank rank(0);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    REQUIRE(rank.until([&] { return rank.messages.size() == 1; }));
    const auto sleep_until = [&](const std::function<bool()> &done, double seconds) {
        for (const auto start = Clock::now(); !done() && since(start) < seconds;)
            if (rank.progress() == 0 && net().arm(rank.tp) == ISO_OK)
                rank.sleep(100);
        return done();
    };
    const double before = cpu_seconds();
    CHECK_FALSE(sleep_until([] { return false; }, 1));
    CHECK(cpu_seconds() - before < (network().is_rdma() ? 3 : 0.1)); // a guest's processor is slow
    child.channel.put("say it");
    CHECK(sleep_until([&] { return rank.messages.size() == 2; }, 5));
    const auto start = Clock::now();
    child.kill();
    CHECK(sleep_until([&] { return !rank.failures.empty(); }, 5));
    CHECK(since(start) < 1);
    CHECK(rank.reported(1, ISO_FAILURE_DEAD));
    net().disconnect(ep);
}

TEST_CASE("network: a peer that has ended before is not connected to, and is dead", "[network]")
{
    OVER_EACH_NETWORK;
    CAPTURE(over);
    Child child([](Channel &parent) {
        NetRank peer(1);
        parent.put(peer.address());
        return 0;
    });
    const std::string address = child.channel.get();
    CHECK(child.reap() == 0);
    NetRank rank(0);
    iso_endpoint_t *ep = nullptr;
    CHECK(rank.connect(1, address, &ep) == ISO_ERR_UNREACHABLE);
    CHECK(ep == nullptr);
    CHECK(rank.until([&] { return !rank.failures.empty(); }));
    CHECK(rank.reported(1, ISO_FAILURE_DEAD));
}

TEST_CASE("an instance of a network transport leaves nothing behind, and faults are the program's",
          "[network]")
{
    OVER_EACH_NETWORK;
    CAPTURE(over);
    struct sigaction before, after;
    {
        NetRank first(0, 1); // what the software keeps for good, it has now
    }
    const size_t descriptors = count_descriptors();
    REQUIRE(sigaction(SIGBUS, nullptr, &before) == 0);
    for (unsigned i = 0; i < scaled(20, 3); i++) {
        NetRank rank(0), peer(1);
        iso_endpoint_t *ep = nullptr;
        REQUIRE(rank.connect(1, peer.address(), &ep) == ISO_OK);
        REQUIRE(say(ep, "hello") == ISO_OK);
        REQUIRE(peer.until([&] {
            rank.progress();
            return peer.messages.size() == 1;
        }));
        net().disconnect(ep);
    }
    CHECK(count_descriptors() == descriptors);
    REQUIRE(sigaction(SIGBUS, nullptr, &after) == 0);
    Dl_info info = {};
    if (dladdr(reinterpret_cast<void *>(after.sa_sigaction), &info) != 0)
        CHECK_THAT(std::string(info.dli_fname),
                   !Catch::Contains("libucs") && !Catch::Contains("libfabric"));
}
