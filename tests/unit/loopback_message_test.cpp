// Messages of the loopback transport: order, full rings, sleeping and waking, garbage in a ring.
#include "tests/unit/loopback.hpp"
#include <ctime>
#include <random>

namespace {

// Message number n of a stream: its size and every byte follow from n, so the receiver needs no copy.
struct Stream {
    uint64_t number = 0;
    std::mt19937_64 random;
    explicit Stream(uint64_t seed) : random(seed)
    {
    }
    std::string next()
    {
        static const size_t edges[] = {0, 1, 7, 8, 9, 16383, 16384};
        const uint64_t draw = random();
        const size_t size = number % 16 < 7 ? edges[number % 16]
                            : draw % 4 == 0 ? draw / 4 % 16385
                                            : draw / 4 % 300;
        std::string data(size, 0);
        for (size_t i = 0; i < size; i++)
            data[i] = static_cast<char>(draw >> i % 8 * 8 ^ number ^ i);
        number++;
        return data;
    }
};

// Sends `count` messages of one stream and receives as many of the other; false if any is wrong.
bool exchange(Rank &rank, iso_endpoint_t *ep, uint64_t mine, uint64_t theirs, uint64_t count,
              uint64_t *refused_p)
{
    Stream out(mine), in(theirs);
    bool right = true;
    rank.handler = [&](uint32_t source, const void *data, size_t len) {
        right = right && source == 1 - rank.host.rank &&
                in.next() == std::string(static_cast<const char *>(data), len);
    };
    std::string next = out.next();
    uint64_t sent = 0;
    const auto start = Clock::now();
    while (right && (sent < count || in.number < count) && since(start) < 50) {
        while (sent < count) {
            const iso_status_t status = send(ep, next);
            if (status == ISO_ERR_AGAIN) {
                ++*refused_p;
                break;
            }
            if (status != ISO_OK)
                return false;
            if (++sent < count)
                next = out.next();
        }
        if (rank.progress() == 0)
            sched_yield();
    }
    return right && sent == count && in.number == count;
}

double cpu_seconds()
{
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// The inbox of a rank, as a peer sees it: for writing garbage.
class Inbox {
  public:
    Inbox(Rank &rank, uint32_t size)
    {
        int fd;
        const std::string address = rank.address();
        memcpy(&fd, &address[lo::address_inbox_fd], sizeof fd);
        length_ = lo::control_bytes + size * lo::ring_bytes;
        void *map = mmap(nullptr, length_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        REQUIRE(map != MAP_FAILED);
        bytes_ = static_cast<unsigned char *>(map);
    }
    ~Inbox()
    {
        munmap(bytes_, length_);
    }
    unsigned char *ring(uint32_t rank) const
    {
        return bytes_ + lo::control_bytes + rank * lo::ring_bytes;
    }
    template <class T> void write(uint32_t rank, size_t offset, T value) const
    {
        memcpy(ring(rank) + offset, &value, sizeof value);
    }

  private:
    unsigned char *bytes_;
    size_t length_;
};

} // namespace

TEST_CASE("messages arrive in order and whole, both ways, under load", "[loopback]")
{
    constexpr uint64_t count = 20000;
    Child child([](Channel &parent) {
        Rank rank(1);
        iso_endpoint_t *ep = nullptr;
        uint64_t refused = 0;
        CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
        CHILD_REQUIRE(exchange(rank, ep, 1, 2, count, &refused));
        loopback().disconnect(ep);
        return 0;
    });
    Rank rank(0);
    iso_endpoint_t *ep = nullptr;
    uint64_t refused = 0;
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    CHECK(exchange(rank, ep, 2, 1, count, &refused));
    CHECK(refused > 0); // the ring was full, and wrapped around many times
    CHECK(child.reap() == 0);
    CHECK(rank.until([&] { return !rank.failures.empty(); }));
    CHECK(rank.reported(1, ISO_FAILURE_DEAD));
    loopback().disconnect(ep);
}

TEST_CASE("a full ring refuses, and takes again when it was read", "[loopback]")
{
    Rank rank(0), peer(1);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(rank.connect(1, peer.address(), &ep) == ISO_OK);
    const std::string text(1000, 'x');
    size_t sent = 0;
    for (int lap = 0; lap < 5; lap++) {
        const size_t before = sent;
        while (send(ep, text) == ISO_OK)
            sent++;
        CHECK(sent - before == lo::ring_data / 1008);
        CHECK(send(ep, text) == ISO_ERR_AGAIN);
        CHECK(send(ep, "") == ISO_OK); // there was room for a smaller one
        sent++;
        CHECK(peer.progress() == sent - before);
        CHECK(peer.messages.size() == sent);
    }
    CHECK(send(ep, std::string(16385, 'x')) == ISO_ERR_INVALID);
    CHECK(rank.said("16385"));
    CHECK(send(ep, std::string(16384, 'x')) == ISO_OK);
    CHECK(peer.progress() == 1);
    CHECK(peer.messages.back().data.size() == 16384);
    loopback().disconnect(ep);
}

TEST_CASE("a rank can send to itself", "[loopback]")
{
    Rank rank(0, 1);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(rank.connect(0, rank.address(), &ep) == ISO_OK);
    REQUIRE(send(ep, "one") == ISO_OK);
    REQUIRE(send(ep, "two") == ISO_OK);
    CHECK(loopback().arm(rank.tp) == ISO_ERR_BUSY);
    CHECK(rank.progress() == 2);
    REQUIRE(rank.messages.size() == 2);
    CHECK(rank.messages[1].data == "two");
    CHECK(rank.messages[1].source == 0);
    CHECK(rank.progress() == 0);
    CHECK(loopback().arm(rank.tp) == ISO_OK);
    REQUIRE(send(ep, "three") == ISO_OK);
    CHECK(rank.sleep(0));
    CHECK(rank.progress() == 1);
    loopback().disconnect(ep);
}

TEST_CASE("the first word may come from a rank not connected to", "[loopback]")
{
    Rank rank(0), peer(1);
    iso_endpoint_t *ep = nullptr, *back = nullptr;
    REQUIRE(peer.connect(0, rank.address(), &ep) == ISO_OK);
    REQUIRE(send(ep, "hello") == ISO_OK);
    loopback().disconnect(ep); // what was sent stays sent
    rank.handler = [&](uint32_t source, const void *, size_t) {
        if (rank.connect(source, peer.address(), &back) == ISO_OK) // as the library does
            CHECK(send(back, "answer") == ISO_OK);
        CHECK(rank.progress() == 0); // not from a callback
    };
    CHECK(rank.progress() == 1);
    REQUIRE(back != nullptr);
    CHECK(peer.progress() == 1);
    REQUIRE(peer.messages.size() == 1);
    CHECK(peer.messages[0].data == "answer");
    loopback().disconnect(back);
}

TEST_CASE("ranks far apart in a large job find each other's bits", "[loopback]")
{
    constexpr uint32_t size = 200000;
    Rank receiver(0, size);
    const uint32_t numbers[] = {1, 63, 64, 4095, 4096, 70000, size - 1};
    struct stat before, after;
    int inbox;
    const std::string address = receiver.address();
    memcpy(&inbox, &address[lo::address_inbox_fd], sizeof inbox);
    REQUIRE(fstat(inbox, &before) == 0);
    for (const uint32_t number : numbers) {
        Rank sender(number, size);
        iso_endpoint_t *ep = nullptr;
        REQUIRE(sender.connect(0, address, &ep) == ISO_OK);
        REQUIRE(send(ep, std::to_string(number)) == ISO_OK);
        CHECK(receiver.progress() == 1);
        REQUIRE(receiver.messages.size() == 1);
        CHECK(receiver.messages[0].source == number);
        CHECK(receiver.messages[0].data == std::to_string(number));
        receiver.messages.clear();
        loopback().disconnect(ep);
    }
    // memory by peers talked to (a page of the ring and at most one of bits), not by ranks
    REQUIRE(fstat(inbox, &after) == 0);
    CHECK((after.st_blocks - before.st_blocks) * 512 <= 7 * 2 * sysconf(_SC_PAGESIZE));
    CHECK(receiver.failures.empty());
}

TEST_CASE("a sleeping rank uses no processor and wakes for a message", "[loopback]")
{
    Child child([](Channel &parent) {
        Rank rank(1);
        iso_endpoint_t *ep = nullptr;
        CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
        for (int i = 0; i < 20; i++) {
            CHILD_REQUIRE(parent.get() == "send");
            sleep_ms(i == 0 ? 300 : i % 3);
            CHILD_REQUIRE(send(ep, "wake up") == ISO_OK);
        }
        parent.get();
        loopback().disconnect(ep);
        return 0;
    });
    Rank rank(0);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    for (int i = 0; i < 20; i++) {
        rank.until([&] { return loopback().arm(rank.tp) == ISO_OK; });
        child.channel.put("send");
        const double cpu = cpu_seconds();
        while (rank.messages.size() == static_cast<size_t>(i)) {
            REQUIRE(rank.sleep(5000)); // else the wake-up was lost
            rank.progress();
            if (rank.messages.size() == static_cast<size_t>(i))
                rank.until([&] { return loopback().arm(rank.tp) == ISO_OK; });
        }
        if (i == 0)
            CHECK(cpu_seconds() - cpu < 0.03);
    }
    CHECK(rank.messages.size() == 20);
    child.channel.put("end");
    CHECK(child.reap() == 0);
    loopback().disconnect(ep);
}

TEST_CASE("no wake-up is lost when both sides sleep between messages", "[loopback]")
{
    // Ping-pong without any polling: one lost wake-up ends it.
    const auto bounce = [](Rank &rank, iso_endpoint_t *ep, size_t count) {
        while (rank.messages.size() < count) {
            const size_t before = rank.messages.size();
            if (loopback().arm(rank.tp) == ISO_OK && !rank.sleep(5000))
                return false;
            rank.progress();
            for (size_t i = before; i < rank.messages.size(); i++)
                if (send(ep, "ball") != ISO_OK)
                    return false;
        }
        return true;
    };
    Child child([&](Channel &parent) {
        Rank rank(1);
        iso_endpoint_t *ep = nullptr;
        CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
        CHILD_REQUIRE(bounce(rank, ep, 3000));
        parent.get();
        loopback().disconnect(ep);
        return 0;
    });
    Rank rank(0);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    REQUIRE(send(ep, "ball") == ISO_OK);
    CHECK(bounce(rank, ep, 3000));
    child.channel.put("end");
    CHECK(child.reap() == 0);
    loopback().disconnect(ep);
}

TEST_CASE("a sender that sleeps for room is woken", "[loopback]")
{
    Child child([](Channel &parent) {
        Rank rank(1);
        iso_endpoint_t *ep = nullptr;
        CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
        for (int i = 0; i < 10; i++) {
            CHILD_REQUIRE(parent.get() == "full");
            sleep_ms(30);
            CHILD_REQUIRE(rank.progress() > 0);
        }
        CHILD_REQUIRE(parent.get() == "full");
        loopback().disconnect(ep);
        rank.close(); // this wakes it as well
        parent.get();
        return 0;
    });
    Rank rank(0);
    iso_endpoint_t *ep = nullptr;
    const std::string text(16000, 'x');
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    for (int i = 0; i < 10; i++) {
        while (send(ep, text) == ISO_OK)
            ;
        CHECK(rank.progress() == 0);
        REQUIRE(loopback().arm(rank.tp) == ISO_OK);
        child.channel.put("full");
        CHECK(rank.sleep(5000));
        CHECK(rank.progress() == 1); // there is room now
        CHECK(send(ep, text) == ISO_OK);
    }
    while (send(ep, text) == ISO_OK)
        ;
    REQUIRE(loopback().arm(rank.tp) == ISO_OK);
    child.channel.put("full");
    CHECK(rank.sleep(5000));
    rank.progress();
    CHECK(send(ep, text) == ISO_ERR_UNREACHABLE);
    CHECK(rank.said("has closed the transport"));
    rank.progress();
    rank.progress();
    CHECK(rank.reported(1, ISO_FAILURE_UNREACHABLE));
    CHECK(send(ep, text) == ISO_ERR_UNREACHABLE);
    child.channel.put("end");
    CHECK(child.reap() == 0);
    loopback().disconnect(ep);
}

TEST_CASE("garbage in a ring is found, said once, and nothing more is taken from it", "[loopback]")
{
    Rank rank(0, 3), peer(1, 3), other(2, 3);
    iso_endpoint_t *ep = nullptr, *other_ep = nullptr;
    REQUIRE(peer.connect(0, rank.address(), &ep) == ISO_OK);
    REQUIRE(other.connect(0, rank.address(), &other_ep) == ISO_OK);
    Inbox inbox(rank, 3);
    REQUIRE(send(ep, "good") == ISO_OK);
    REQUIRE(rank.progress() == 1);
    const std::string evil(40, 'x');
    REQUIRE(send(ep, evil) == ISO_OK);

    SECTION("a length beyond the ring")
    {
        inbox.write<uint32_t>(1, lo::ring_header + 16, 0xffffffff);
    }
    SECTION("a length that is possible but not the one sent")
    {
        inbox.write<uint32_t>(1, lo::ring_header + 16, 32);
    }
    SECTION("a check that is not right")
    {
        inbox.write<uint32_t>(1, lo::ring_header + 20, 0);
    }
    SECTION("a head beyond the ring")
    {
        inbox.write<uint64_t>(1, lo::ring_head, 1u << 20);
    }
    SECTION("a head behind what was read")
    {
        inbox.write<uint64_t>(1, lo::ring_head, 8);
    }
    SECTION("a head inside a record")
    {
        inbox.write<uint64_t>(1, lo::ring_head, 16 + 16);
    }
    SECTION("a head that is not aligned")
    {
        inbox.write<uint64_t>(1, lo::ring_head, 16 + 47);
    }
    CHECK(rank.progress() == 1);
    CHECK(rank.messages.size() == 1);
    CHECK(rank.reported(1, ISO_FAILURE_UNREACHABLE));
    CHECK(rank.lines.size() == 1);
    CHECK(rank.said("garbage"));
    REQUIRE(send(ep, "more") == ISO_OK);
    CHECK(rank.progress() == 0);
    CHECK(rank.failures.size() == 1);
    // others are not affected
    REQUIRE(send(other_ep, "hello") == ISO_OK);
    CHECK(rank.progress() == 1);
    CHECK(rank.messages.back().source == 2);
    loopback().disconnect(ep);
    loopback().disconnect(other_ep);
}

TEST_CASE("a sender that is not who it says is not believed, nor thought dead", "[loopback]")
{
    Rank rank(0), peer(1);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(peer.connect(0, rank.address(), &ep) == ISO_OK);
    Inbox inbox(rank, 2);
    REQUIRE(send(ep, "hello") == ISO_OK);
    inbox.write<int32_t>(1, lo::ring_pid, 0x3fffffff); // no such process
    CHECK(rank.progress() == 1);
    CHECK(rank.messages.empty());
    CHECK(rank.reported(1, ISO_FAILURE_UNREACHABLE));
    loopback().disconnect(ep);
}

TEST_CASE("bits of ranks that do not exist are ignored", "[loopback]")
{
    Rank rank(0);
    Inbox inbox(rank, 2);
    constexpr size_t summary_at = 128, ready_at = 640;
    unsigned char *control = inbox.ring(0) - lo::control_bytes;
    const uint64_t all = ~uint64_t{0};
    memcpy(control + summary_at, &all, sizeof all);
    for (size_t word = 1; word < 64; word++) // not word 0, which has those that exist
        memcpy(control + ready_at + word * 8, &all, sizeof all);
    CHECK(loopback().arm(rank.tp) == ISO_ERR_BUSY); // else the offsets above are not right
    CHECK(rank.progress() == 0);
    CHECK(loopback().arm(rank.tp) == ISO_OK);
    CHECK(rank.failures.empty());
}

TEST_CASE("a receiver that overwrites its inbox is found out by the sender", "[loopback]")
{
    Rank rank(0), peer(1);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(rank.connect(1, peer.address(), &ep) == ISO_OK);
    Inbox inbox(peer, 2);
    while (send(ep, std::string(8000, 'x')) == ISO_OK)
        ;
    inbox.write<uint64_t>(0, lo::ring_tail, uint64_t{1} << 40);
    CHECK(send(ep, std::string(8000, 'x')) == ISO_ERR_UNREACHABLE);
    CHECK(rank.lines.size() == 1);
    CHECK(rank.progress() > 0);
    CHECK(rank.reported(1, ISO_FAILURE_UNREACHABLE));
    CHECK(rank.progress() == 0);
    loopback().disconnect(ep);
}
