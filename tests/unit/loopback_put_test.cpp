// Puts of the loopback transport: bytes arrive at the peer while it does nothing, only where they
// were put, by every way a put can take: kernel copy, populated window, warm window, punched holes.
#include "tests/unit/loopback.hpp"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <random>
#include <sys/resource.h>

namespace {

constexpr size_t window_bytes = size_t{64} << 20; // LO_WINDOW_BYTES
constexpr size_t windows_kept = 256;              // LO_WINDOWS
constexpr int puts_until_warm = 6;                // more than PUTS_BEFORE_MAP

// A source of puts at rank 0, and the memory of rank 1, both in this process: a put looks at neither
// process, only at its descriptors.
struct Pair {
    explicit Pair(size_t target_size, uint64_t from = 0, uint64_t length = 0)
        : near(0), far(1), source(4 << 20), target(target_size)
    {
        const iso_memory_t all = source.all();
        const iso_memory_t part = {target.bytes + from, length != 0 ? length : target_size - from,
                                   target.fd, from};
        ok = near.connect(1, far.address(), &ep) == ISO_OK &&
             loopback().mem_register(near.tp, &all, &region) == ISO_OK &&
             loopback().mem_register(far.tp, &part, &far_region) == ISO_OK &&
             unpack(ep, pack(far_region), &rkey) == ISO_OK;
    }
    ~Pair()
    {
        if (ok) {
            if (rkey != nullptr)
                loopback().rkey_destroy(rkey);
            loopback().mem_deregister(region);
            loopback().mem_deregister(far_region);
            loopback().disconnect(ep);
        }
    }
    iso_status_t put(size_t from, size_t len, uint64_t to)
    {
        return loopback().put(ep, source.bytes + from, len, region,
                              reinterpret_cast<uintptr_t>(target.bytes) + to, rkey, nullptr);
    }
    bool arrived(size_t from, size_t len, uint64_t to) const
    {
        return memcmp(source.bytes + from, target.bytes + to, len) == 0;
    }
    Rank near, far;
    Memory source, target;
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr, *far_region = nullptr;
    iso_rkey_t *rkey = nullptr;
    bool ok;
};

void fill(Memory &memory, uint64_t seed)
{
    std::mt19937_64 random(seed);
    for (size_t i = 0; i < memory.size; i += 8) {
        const uint64_t word = random();
        memcpy(memory.bytes + i, &word, sizeof word);
    }
}

// A thousand puts of all sizes in 2 MiB, against a copy made by memcpy: no byte elsewhere changes.
bool random_puts_right(Pair &pair, uint64_t at, int count, uint64_t seed)
{
    constexpr size_t span = 2 << 20;
    std::vector<unsigned char> expected(pair.target.bytes + at, pair.target.bytes + at + span);
    std::mt19937_64 random(seed);
    for (int i = 0; i < count; i++) {
        static const size_t limits[] = {16, 5000, 70000, 1 << 20};
        const size_t len = random() % (limits[random() % 4] + 1);
        const size_t from = random() % (pair.source.size - len), to = random() % (span - len + 1);
        if (pair.put(from, len, at + to) != ISO_OK)
            return false;
        memcpy(expected.data() + to, pair.source.bytes + from, len);
    }
    return memcmp(expected.data(), pair.target.bytes + at, span) == 0;
}

} // namespace

TEST_CASE("puts arrive, and nothing else changes", "[loopback]")
{
    Pair pair(3 * window_bytes, window_bytes - (1 << 20), window_bytes);
    REQUIRE(pair.ok);
    fill(pair.source, 1);
    CHECK(random_puts_right(pair, window_bytes - (1 << 20), 1000, 1)); // on both sides of an edge
    CHECK(random_puts_right(pair, window_bytes, 1000, 2));
    CHECK(pair.put(0, 0, window_bytes) == ISO_OK);
    CHECK(loopback().fence(pair.ep) == ISO_OK);
    CHECK(loopback().flush(pair.ep, nullptr) == ISO_OK);
    CHECK(pair.near.lines.empty());
}

TEST_CASE("a put is there before the message that follows it", "[loopback]")
{
    Memory target(1 << 20); // inherited by the child, at the same address
    constexpr uint32_t rounds = 5000;
    Child child([&](Channel &parent) {
        Rank rank(1);
        iso_endpoint_t *ep = nullptr;
        iso_region_t *region = nullptr;
        const iso_memory_t all = target.all();
        CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
        CHILD_REQUIRE(loopback().mem_register(rank.tp, &all, &region) == ISO_OK);
        parent.put(pack(region));
        uint32_t round = 0;
        bool right = true;
        rank.handler = [&](uint32_t, const void *, size_t) {
            for (const size_t at : {size_t{0}, size_t{4096}, size_t{12284}, size_t{65532}}) {
                uint32_t seen;
                memcpy(&seen, target.bytes + at, sizeof seen);
                right = right && seen == round;
            }
            round++;
            right = right && send(ep, "next") == ISO_OK;
        };
        CHILD_REQUIRE(rank.until([&] { return round == rounds || !right; },
                                 100)); // all rounds, on a busy machine
        CHILD_REQUIRE(right);
        loopback().mem_deregister(region);
        loopback().disconnect(ep);
        return 0;
    });
    Rank rank(0);
    Memory source(1 << 20);
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    iso_rkey_t *rkey = nullptr;
    const iso_memory_t all = source.all();
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    REQUIRE(loopback().mem_register(rank.tp, &all, &region) == ISO_OK);
    REQUIRE(unpack(ep, child.channel.get(), &rkey) == ISO_OK);
    bool put = true;
    for (uint32_t round = 0; round < rounds && put; round++) {
        for (size_t i = 0; i < 65536; i += 4)
            memcpy(source.bytes + i, &round, sizeof round);
        put = loopback().put(ep, source.bytes, 65536, region,
                             reinterpret_cast<uintptr_t>(target.bytes), rkey, nullptr) == ISO_OK &&
              loopback().fence(ep) == ISO_OK && send(ep, "done") == ISO_OK &&
              rank.until([&] { return rank.messages.size() > round; });
    }
    CHECK(put);
    CHECK(child.reap() == 0);
    loopback().rkey_destroy(rkey);
    loopback().mem_deregister(region);
    loopback().disconnect(ep);
}

TEST_CASE("puts complete while the peer is stopped", "[loopback]")
{
    constexpr size_t size = 8 << 20;
    Memory target(size), source(size);
    fill(source, 3);
    Child child([&](Channel &parent) {
        Rank rank(1);
        iso_region_t *region = nullptr;
        const iso_memory_t all = target.all();
        CHILD_REQUIRE(loopback().mem_register(rank.tp, &all, &region) == ISO_OK);
        parent.put(rank.address());
        parent.put(pack(region));
        CHILD_REQUIRE(parent.get() == "look");
        CHILD_REQUIRE(memcmp(target.bytes, source.bytes, size) == 0);
        loopback().mem_deregister(region);
        return 0;
    });
    const std::string address = child.channel.get(), key = child.channel.get();
    REQUIRE(child.stop());
    Rank rank(0); // all of it, connecting included, without the peer's help
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    iso_rkey_t *rkey = nullptr;
    const iso_memory_t all = source.all();
    REQUIRE(rank.connect(1, address, &ep) == ISO_OK);
    REQUIRE(loopback().mem_register(rank.tp, &all, &region) == ISO_OK);
    REQUIRE(unpack(ep, key, &rkey) == ISO_OK);
    for (int round = 0; round < puts_until_warm; round++)
        for (size_t at = 0; at < size; at += 1 << 20)
            REQUIRE(loopback().put(ep, source.bytes + at, 1 << 20, region,
                                   reinterpret_cast<uintptr_t>(target.bytes) + at, rkey,
                                   nullptr) == ISO_OK);
    CHECK(loopback().flush(ep, nullptr) == ISO_OK);
    CHECK(rank.failures.empty()); // stopped is not dead
    ::kill(child.pid, SIGCONT);
    child.channel.put("look");
    CHECK(child.reap() == 0);
    loopback().rkey_destroy(rkey);
    loopback().mem_deregister(region);
    loopback().disconnect(ep);
}

TEST_CASE("the target's memory grows by the pages of the puts, no more", "[loopback]")
{
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    Pair pair(window_bytes);
    REQUIRE(pair.ok);
    for (int round = 0; round < 2 * puts_until_warm; round++) {
        REQUIRE(pair.put(0, 3 * page, 10 * page) == ISO_OK);
        REQUIRE(pair.put(0, 10, 20 * page + 5) == ISO_OK);
        REQUIRE(pair.put(0, 2, 31 * page - 1) == ISO_OK); // two pages
    }
    CHECK(pair.target.resident() == 6 * page);
}

TEST_CASE("a put outside of what was registered is refused", "[loopback]")
{
    constexpr uint64_t from = 1 << 20, length = 1 << 20;
    Pair pair(4 << 20, from, length);
    REQUIRE(pair.ok);
    CHECK(pair.put(0, 4096, from) == ISO_OK);
    CHECK(pair.put(0, 4096, from + length - 4096) == ISO_OK);
    CHECK(pair.near.lines.empty());
    CHECK(pair.put(0, 4096, from - 1) == ISO_ERR_INVALID);
    CHECK(pair.near.said("outside the region of its rkey"));
    CHECK(pair.put(0, 4096, from + length - 4095) == ISO_ERR_INVALID);
    CHECK(pair.put(0, 4096, from + length + 4096) == ISO_ERR_INVALID);
    CHECK(pair.put(0, 4096, 0) == ISO_ERR_INVALID);
    CHECK(pair.put(0, 4096, uint64_t{0} - reinterpret_cast<uintptr_t>(pair.target.bytes)) ==
          ISO_ERR_INVALID); // address 0
    CHECK(pair.put(0, 4096, UINT64_MAX - reinterpret_cast<uintptr_t>(pair.target.bytes)) ==
          ISO_ERR_INVALID); // would wrap around
    CHECK(pair.near.lines.size() == 6);

    pair.near.lines.clear();
    CHECK(pair.put(pair.source.size - 4095, 4096, from) == ISO_ERR_INVALID);
    CHECK(pair.near.said("outside its region"));
    CHECK(pair.put(0, (1 << 20) + 1, from) == ISO_ERR_INVALID);
    CHECK(pair.near.said("max_put"));
    const auto to = reinterpret_cast<uintptr_t>(pair.target.bytes) + from;
    CHECK(loopback().put(pair.ep, pair.source.bytes, 8, nullptr, to, pair.rkey, nullptr) ==
          ISO_ERR_INVALID);
}

TEST_CASE("an rkey serves only the rank it is of", "[loopback]")
{
    Rank rank(0, 3), one(1, 3), two(2, 3);
    Memory memory(1 << 20);
    const iso_memory_t all = memory.all();
    iso_endpoint_t *to_one = nullptr, *to_two = nullptr;
    iso_region_t *region = nullptr, *of_one = nullptr;
    iso_rkey_t *rkey = nullptr;
    REQUIRE(rank.connect(1, one.address(), &to_one) == ISO_OK);
    REQUIRE(rank.connect(2, two.address(), &to_two) == ISO_OK);
    REQUIRE(loopback().mem_register(rank.tp, &all, &region) == ISO_OK);
    REQUIRE(loopback().mem_register(one.tp, &all, &of_one) == ISO_OK);
    const std::string key = pack(of_one);
    CHECK(unpack(to_two, key, &rkey) == ISO_ERR_INVALID);
    CHECK(unpack(to_one, key.substr(1), &rkey) == ISO_ERR_INVALID);
    CHECK(unpack(to_one, "", &rkey) == ISO_ERR_INVALID);
    char small[8];
    size_t len = sizeof small;
    CHECK(loopback().rkey_pack(of_one, small, &len) == ISO_ERR_LIMIT);
    REQUIRE(unpack(to_one, key, &rkey) == ISO_OK);
    CHECK(loopback().put(to_two, memory.bytes, 8, region, reinterpret_cast<uintptr_t>(memory.bytes),
                         rkey, nullptr) == ISO_ERR_INVALID);
    CHECK(rank.said("with an rkey of rank 1"));
    loopback().disconnect(to_one); // keys may be given back later
    loopback().rkey_destroy(rkey);
    loopback().disconnect(to_two);
    loopback().mem_deregister(region);
    loopback().mem_deregister(of_one);
}

TEST_CASE("only memory that peers can reach is registered", "[loopback]")
{
    Rank rank(0, 1);
    Memory memory(1 << 20);
    iso_region_t *region = nullptr;
    iso_memory_t wrong = memory.all();
    wrong.fd = -2;
    CHECK(loopback().mem_register(rank.tp, &wrong, &region) == ISO_ERR_INVALID);
    wrong.fd = -1;
    wrong.offset = 4096; // of what?
    CHECK(loopback().mem_register(rank.tp, &wrong, &region) == ISO_ERR_INVALID);
    wrong.offset = 0;
    wrong.fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    wrong.length = 4096;
    CHECK(loopback().mem_register(rank.tp, &wrong, &region) == ISO_ERR_INVALID);
    close(wrong.fd);
    for (const auto &[length, offset] : {std::pair<uint64_t, uint64_t>{(1 << 20) + 1, 0},
                                         {1 << 20, 1},
                                         {0, 0},
                                         {8, UINT64_MAX},
                                         {UINT64_MAX, 8}}) {
        wrong = memory.all();
        wrong.length = length;
        wrong.offset = offset;
        CHECK(loopback().mem_register(rank.tp, &wrong, &region) == ISO_ERR_INVALID);
    }
    CHECK(region == nullptr);
    CHECK(rank.lines.size() == 8);
}

TEST_CASE("an rkey whose memory object is not what it says is refused", "[loopback]")
{
    Pair pair(1 << 20);
    REQUIRE(pair.ok);
    iso_rkey_t *rkey = nullptr;
    const std::string key = pack(pair.far_region);

    SECTION("too small, seen when it is opened")
    {
        loopback().rkey_destroy(pair.rkey);
        pair.rkey = nullptr;
        REQUIRE(ftruncate(pair.target.fd, 4096) == 0);
        CHECK(unpack(pair.ep, key, &rkey) == ISO_ERR_INVALID);
    }
    SECTION("too small, seen while it is open for another rkey")
    {
        REQUIRE(ftruncate(pair.target.fd, 4096) == 0);
        CHECK(unpack(pair.ep, key, &rkey) == ISO_ERR_INVALID);
    }
    SECTION("another one with the same descriptor")
    {
        loopback().rkey_destroy(pair.rkey);
        pair.rkey = nullptr;
        Memory other(1 << 20);
        REQUIRE(dup3(other.fd, pair.target.fd, O_CLOEXEC) == pair.target.fd);
        CHECK(unpack(pair.ep, key, &rkey) == ISO_ERR_INVALID);
    }
    CHECK(rkey == nullptr);
    CHECK(pair.near.said("is not (any more) the memfd of its region"));
}

TEST_CASE("puts stay right where the owner punches holes", "[loopback]")
{
    constexpr size_t size = 1 << 20;
    Pair pair(4 * size);
    REQUIRE(pair.ok);
    for (int round = 0; round < 60; round++) {
        fill(pair.source, static_cast<uint64_t>(round));
        REQUIRE(pair.put(0, size, size) == ISO_OK);
        REQUIRE(pair.put(17, size - 4096 - 1, 2 * size + 1001) == ISO_OK);
        CHECK(pair.arrived(0, size, size));
        CHECK(pair.arrived(17, size - 4096 - 1, 2 * size + 1001));
        if (round % 3 == 2) {
            REQUIRE(fallocate(pair.target.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                              4 * size) == 0);
            REQUIRE(pair.target.resident() == 0);
        }
    }
}

TEST_CASE("puts into more windows than are kept", "[loopback]")
{
    constexpr size_t windows = windows_kept + 44;
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t maps_before = count_memfd_maps();
    {
        Pair pair(windows * window_bytes);
        REQUIRE(pair.ok);
        fill(pair.source, 5);
        bool put = true;
        for (int round = 0; round < 2; round++)
            for (size_t i = 0; i < windows; i++)
                for (int again = 0; again < puts_until_warm; again++)
                    put = put &&
                          pair.put((round + i) * 8, page, i * window_bytes + i * page) == ISO_OK;
        CHECK(put);
        bool right = true;
        for (size_t i = 0; i < windows; i++)
            right = right && pair.arrived((1 + i) * 8, page, i * window_bytes + i * page);
        CHECK(right);
        CHECK(pair.target.resident() == 2 * windows * page - windows * page);
        const size_t maps = count_memfd_maps();
        CHECK(maps > maps_before + windows_kept / 2);  // windows were mapped, or nothing is tested
        CHECK(maps <= maps_before + windows_kept + 8); // 44 more were asked for
    }
    CHECK(count_memfd_maps() == maps_before);
}

TEST_CASE("puts go on without addresses for a window", "[loopback]")
{
    Child child([](Channel &) {
        Pair pair(3 * window_bytes);
        CHILD_REQUIRE(pair.ok);
        fill(pair.source, 6);
        unsigned long pages = 0;
        FILE *statm = fopen("/proc/self/statm", "re");
        CHILD_REQUIRE(fscanf(statm, "%lu", &pages) == 1);
        fclose(statm);
        const auto now = static_cast<rlim_t>(pages) * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
        const rlimit limit = {now + (32 << 20), RLIM_INFINITY};
        CHILD_REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
        CHILD_REQUIRE(random_puts_right(pair, window_bytes - (1 << 20), 1000, 6));
        CHILD_REQUIRE(pair.near.lines.size() == 1 && pair.near.said("info: no addresses"));
        return 0;
    });
    CHECK(child.reap() == 0);
}

TEST_CASE("puts go on where the kernel cannot populate pages", "[loopback]")
{
    Child child([](Channel &) {
        sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[2])),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 23 /* MADV_POPULATE_WRITE */, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        const sock_fprog program = {sizeof code / sizeof *code, code};
        CHILD_REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        CHILD_REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
        Pair pair(3 * window_bytes);
        CHILD_REQUIRE(pair.ok);
        fill(pair.source, 7);
        CHILD_REQUIRE(random_puts_right(pair, window_bytes - (1 << 20), 1000, 7));
        CHILD_REQUIRE(pair.near.lines.size() == 1 && pair.near.said("info: this kernel cannot"));
        return 0;
    });
    CHECK(child.reap() == 0);
}

TEST_CASE("a put that the peer's memory object cannot take fails without a signal", "[loopback]")
{
    Pair pair(1 << 20);
    REQUIRE(pair.ok);
    Memory sealed(1 << 20);
    munmap(pair.target.bytes, pair.target.size); // a writable mapping forbids the seal
    pair.target.bytes = sealed.bytes;            // any address: nothing is read
    const int fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    REQUIRE(ftruncate(fd, 1 << 20) == 0);
    REQUIRE(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
    const iso_memory_t memory = {sealed.bytes, 1 << 20, fd, 0};
    iso_region_t *region = nullptr;
    iso_rkey_t *rkey = nullptr;
    REQUIRE(loopback().mem_register(pair.far.tp, &memory, &region) == ISO_OK);
    REQUIRE(unpack(pair.ep, pack(region), &rkey) == ISO_OK);
    for (int i = 0; i < puts_until_warm; i++)
        CHECK(loopback().put(pair.ep, pair.source.bytes, 8, pair.region,
                             reinterpret_cast<uintptr_t>(sealed.bytes), rkey,
                             nullptr) == ISO_ERR_SYSTEM);
    CHECK(pair.near.said("cannot put 8 bytes"));
    loopback().rkey_destroy(rkey);
    loopback().mem_deregister(region);
    close(fd);
    pair.target.bytes = static_cast<unsigned char *>(
        mmap(nullptr, pair.target.size, PROT_READ, MAP_SHARED, pair.target.fd, 0));
}
