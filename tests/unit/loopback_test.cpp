// The loopback transport: what it says of itself, whom it connects to and whom it refuses, and that
// it leaves nothing behind.
#include "tests/unit/loopback.hpp"
#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/resource.h>
#include <sys/syscall.h>

namespace {

std::vector<int> open_descriptors()
{
    std::vector<int> fds;
    DIR *dir = opendir("/proc/self/fd");
    while (const dirent *entry = readdir(dir))
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(dir))
            fds.push_back(atoi(entry->d_name));
    closedir(dir);
    return fds;
}

// A process that has ended and is reaped, with the address of the instance it had.
std::string address_of_the_dead()
{
    Child child([](Channel &parent) {
        Rank peer(1);
        parent.put(peer.address());
        parent.get();
        return 0;
    });
    return child.channel.get();
}

} // namespace

TEST_CASE("loopback says what it is and what it can do", "[loopback]")
{
    const char *why = nullptr;
    CHECK(loopback().abi_version == ISO_TRANSPORT_ABI);
    CHECK(loopback().struct_size == sizeof(iso_transport_ops_t));
    CHECK(std::string(loopback().name) == "loopback");
    REQUIRE(loopback().probe(&why) == ISO_OK);
    Rank rank(0, 1);
    REQUIRE(rank.opened == ISO_OK);
    iso_transport_caps_t caps = {};
    loopback().query(rank.tp, &caps);
    CHECK(caps.struct_size == sizeof caps);
    CHECK_FALSE(caps.pins_memory);
    CHECK(caps.one_sided);
    CHECK_FALSE(caps.needs_fd);
    CHECK(caps.shares_host);
    CHECK(caps.sees_death);
    CHECK(caps.max_send == 16384);
    CHECK(caps.max_put == 1 << 20);
    CHECK(rank.address().size() > 0);
    CHECK(rank.progress() == 0);
    CHECK(rank.lines.empty());
}

TEST_CASE("loopback refuses hosts it cannot serve", "[loopback]")
{
    Rank outside(2, 2), too_large(0, 262145), largest(262143, 262144);
    CHECK(outside.opened == ISO_ERR_RANK);
    CHECK(too_large.opened == ISO_ERR_LIMIT);
    CHECK(too_large.said("262145"));
    CHECK(largest.opened == ISO_OK);

    Rank rank(0);
    iso_transport_t *tp = nullptr;
    iso_transport_host_t host = rank.host;
    host.struct_size = 8;
    CHECK(loopback().open(&host, &tp) == ISO_ERR_VERSION);
    host = rank.host;
    host.message = nullptr;
    host.log = nullptr; // lines go nowhere
    CHECK(loopback().open(&host, &tp) == ISO_ERR_VERSION);
    CHECK(tp == nullptr);

    char small[8];
    size_t len = sizeof small;
    CHECK(loopback().address(rank.tp, small, &len) == ISO_ERR_LIMIT);
    CHECK(len == sizeof small);
}

TEST_CASE("connecting checks the address", "[loopback]")
{
    Rank rank(0, 3), peer(1, 3);
    iso_endpoint_t *ep = nullptr, *again = nullptr;
    std::string address = peer.address();

    CHECK(rank.connect(3, address, &ep) == ISO_ERR_RANK);
    CHECK(rank.connect(2, address, &ep) == ISO_ERR_INVALID); // is of rank 1
    CHECK(rank.connect(1, address.substr(1), &ep) == ISO_ERR_INVALID);
    CHECK(rank.connect(1, "", &ep) == ISO_ERR_INVALID);
    std::string newer = address;
    newer[4]++;
    CHECK(rank.connect(1, newer, &ep) == ISO_ERR_VERSION);
    std::string elsewhere = address;
    elsewhere[lo::address_boot_id] ^= 1;
    CHECK(rank.connect(1, elsewhere, &ep) == ISO_ERR_INVALID);
    CHECK(rank.connect(1, resealed(elsewhere), &ep) == ISO_ERR_UNREACHABLE);
    CHECK(rank.said("runs on another host"));
    CHECK(ep == nullptr);

    rank.lines.clear();
    REQUIRE(rank.connect(1, address, &ep) == ISO_OK);
    CHECK(rank.lines.empty());
    CHECK(rank.connect(1, address, &again) == ISO_ERR_INVALID);
    CHECK(rank.said("connected already"));
    CHECK(again == nullptr);
    loopback().disconnect(ep);
}

TEST_CASE("a process of another job, size or rank is refused", "[loopback]")
{
    Rank rank(0, 3, 7), stranger(1, 3, 8), other_size(1, 4, 7), twin(0, 3, 7);
    iso_endpoint_t *ep = nullptr;

    CHECK(rank.connect(1, stranger.address(), &ep) == ISO_ERR_UNREACHABLE);
    CHECK(rank.said("is of another job"));
    CHECK(rank.connect(1, other_size.address(), &ep) == ISO_ERR_UNREACHABLE);
    CHECK(rank.said("not the inbox of a rank of this job"));

    // an address whose descriptor is the inbox of another rank
    Rank second(2, 3, 7);
    std::string forged = second.address();
    uint32_t claimed = 1;
    memcpy(&forged[8], &claimed, sizeof claimed);
    CHECK(rank.connect(1, resealed(forged), &ep) == ISO_ERR_UNREACHABLE);
    CHECK(rank.said("is rank 2 of 3"));

    // a descriptor that is no inbox at all
    Memory memory(1 << 20);
    forged = second.address();
    memcpy(&forged[8], &claimed, sizeof claimed);
    memcpy(&forged[lo::address_inbox_fd], &memory.fd, sizeof memory.fd);
    CHECK(rank.connect(1, resealed(forged), &ep) == ISO_ERR_UNREACHABLE);
    CHECK(ep == nullptr);
    CHECK(rank.failures.empty());
}

TEST_CASE("a process that is gone or out of reach is refused", "[loopback]")
{
    Rank rank(0);
    iso_endpoint_t *ep = nullptr;

    SECTION("it has ended")
    {
        CHECK(rank.connect(1, address_of_the_dead(), &ep) == ISO_ERR_UNREACHABLE);
        CHECK(rank.said("has ended"));
    }
    SECTION("it is a zombie")
    {
        Child child([](Channel &parent) {
            Rank peer(1);
            parent.put(peer.address());
            return 0;
        });
        const std::string address = child.channel.get();
        child.await_zombie();
        CHECK(rank.connect(1, address, &ep) == ISO_ERR_UNREACHABLE);
        CHECK(rank.said("has ended"));
    }
    SECTION("its pid is used again")
    {
        Rank peer(1);
        std::string address = peer.address();
        address[lo::address_start]++; // started one tick later
        CHECK(rank.connect(1, resealed(address), &ep) == ISO_ERR_UNREACHABLE);
        CHECK(rank.said("has ended"));
    }
    SECTION("it has closed the instance")
    {
        Rank peer(1);
        const std::string address = peer.address();
        peer.close();
        CHECK(rank.connect(1, address, &ep) == ISO_ERR_UNREACHABLE);
    }
    CHECK(ep == nullptr);
    CHECK(rank.lines.size() == 1);
    CHECK(rank.failures.empty());
}

TEST_CASE("a process of another user is refused in words", "[loopback]")
{
    if (geteuid() != 0) {
        WARN("not run: changing the user needs root");
        return;
    }
    Rank rank(0);
    Child child([&](Channel &) {
        iso_endpoint_t *ep = nullptr;
        Rank peer(1);
        CHILD_REQUIRE(setuid(65534) == 0);
        CHILD_REQUIRE(peer.connect(0, rank.address(), &ep) == ISO_ERR_UNREACHABLE);
        CHILD_REQUIRE(peer.said("another user"));
        return 0;
    });
    CHECK(child.reap() == 0);
}

TEST_CASE("namespaces that hide peers are found out", "[loopback]")
{
    if (geteuid() != 0) {
        WARN("not run: making namespaces needs root");
        return;
    }
    Rank rank(0);
    Child network([](Channel &parent) {
        CHILD_REQUIRE(unshare(CLONE_NEWNET) == 0);
        Rank peer(1);
        parent.put(peer.address());
        parent.get();
        return 0;
    });
    iso_endpoint_t *ep = nullptr;
    CHECK(rank.connect(1, network.channel.get(), &ep) == ISO_ERR_UNREACHABLE);
    CHECK(rank.said("another network namespace"));
    network.channel.put("end");
    CHECK(network.reap() == 0);

    Child pids([](Channel &) {
        CHILD_REQUIRE(unshare(CLONE_NEWPID) == 0);
        const pid_t inner = fork();
        if (inner == 0) {
            const char *why = "";
            const bool refused = loopback().probe(&why) == ISO_ERR_SYSTEM;
            _exit(refused && strstr(why, "another PID namespace") != nullptr ? 0 : 1);
        }
        int status = -1;
        CHILD_REQUIRE(waitpid(inner, &status, 0) == inner);
        return status;
    });
    CHECK(pids.reap() == 0);
}

TEST_CASE("two processes with one rank are found out", "[loopback]")
{
    Rank rank(0), first(1);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(first.connect(0, rank.address(), &ep) == ISO_OK);
    Child child([&](Channel &) {
        iso_endpoint_t *mine = nullptr;
        Rank second(1);
        CHILD_REQUIRE(second.connect(0, rank.address(), &mine) == ISO_ERR_UNREACHABLE);
        CHILD_REQUIRE(second.said("two processes have one rank"));
        return 0;
    });
    CHECK(child.reap() == 0);
    loopback().disconnect(ep);
}

TEST_CASE("limits of the machine are named, not died of", "[loopback]")
{
    Child child([](Channel &) {
        const rlimit file_size = {1 << 20, 1 << 20};
        CHILD_REQUIRE(setrlimit(RLIMIT_FSIZE, &file_size) == 0);
        Rank rank(0, 100);
        CHILD_REQUIRE(rank.opened == ISO_ERR_LIMIT && rank.said("ulimit -f"));
        return 0;
    });
    CHECK(child.reap() == 0);

    Child old_kernel([](Channel &) {
        sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 434 /* pidfd_open */, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        const sock_fprog program = {sizeof code / sizeof *code, code};
        CHILD_REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        CHILD_REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
        const char *why = "";
        CHILD_REQUIRE(loopback().probe(&why) == ISO_ERR_SYSTEM);
        CHILD_REQUIRE(strstr(why, "Linux 5.3") != nullptr);
        return 0;
    });
    CHECK(old_kernel.reap() == 0);
}

TEST_CASE("no descriptor outlives an exec", "[loopback]")
{
    const auto before = open_descriptors();
    Rank rank(0), peer(1);
    Memory memory(1 << 20);
    iso_endpoint_t *ep = nullptr, *back = nullptr;
    iso_region_t *region = nullptr;
    iso_rkey_t *rkey = nullptr;
    REQUIRE(rank.connect(1, peer.address(), &ep) == ISO_OK);
    REQUIRE(peer.connect(0, rank.address(), &back) == ISO_OK);
    const iso_memory_t all = memory.all();
    REQUIRE(loopback().mem_register(peer.tp, &all, &region) == ISO_OK);
    REQUIRE(unpack(ep, pack(region), &rkey) == ISO_OK);
    size_t made = 0;
    for (int fd : open_descriptors())
        if (std::find(before.begin(), before.end(), fd) == before.end()) {
            CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
            made++;
        }
    // Two instances of {inbox, socket, epoll}, a pidfd each, the memfd and its second opening.
    CHECK(made == 2 * 3 + 2 + 2);
    loopback().rkey_destroy(rkey);
    loopback().mem_deregister(region);
    loopback().disconnect(ep);
    loopback().disconnect(back);
}

TEST_CASE("connecting two thousand times leaves nothing behind", "[loopback]")
{
    Memory memory(1 << 20);
    const iso_memory_t all = memory.all();
    Child child([&](Channel &parent) {
        Rank rank(0);
        iso_endpoint_t *ep = nullptr;
        iso_region_t *region = nullptr;
        CHILD_REQUIRE(meet(rank, parent, 1, &ep) == ISO_OK);
        CHILD_REQUIRE(loopback().mem_register(rank.tp, &all, &region) == ISO_OK);
        parent.put(pack(region));
        while (!parent.waiting())
            if (rank.progress() == 0)
                sched_yield();
        CHILD_REQUIRE(rank.until([&] { return rank.messages.size() == 2000; }));
        CHILD_REQUIRE(rank.failures.empty());
        loopback().mem_deregister(region);
        loopback().disconnect(ep);
        return 0;
    });
    Rank rank(1);
    Memory source(1 << 20);
    const iso_memory_t all_source = source.all();
    iso_region_t *region = nullptr;
    REQUIRE(loopback().mem_register(rank.tp, &all_source, &region) == ISO_OK);
    child.channel.put(rank.address());
    const std::string address = child.channel.get(), key = child.channel.get();
    const uint64_t remote = reinterpret_cast<uintptr_t>(memory.bytes);
    size_t fds = 0, maps = 0;
    for (int i = 0; i < 2000; i++) {
        iso_endpoint_t *ep = nullptr;
        iso_rkey_t *rkey = nullptr;
        REQUIRE(rank.connect(0, address, &ep) == ISO_OK);
        REQUIRE(unpack(ep, key, &rkey) == ISO_OK);
        for (int puts = 0; puts < 6; puts++) // enough for a window to be mapped
            REQUIRE(loopback().put(ep, source.bytes, 8192, region, remote, rkey, nullptr) ==
                    ISO_OK);
        while (send(ep, std::to_string(i)) == ISO_ERR_AGAIN)
            rank.progress();
        if (i == 10) {
            fds = open_descriptors().size();
            maps = count_memfd_maps();
        }
        if (i == 1999) {
            CHECK(open_descriptors().size() == fds);
            CHECK(count_memfd_maps() == maps);
        }
        loopback().rkey_destroy(rkey);
        loopback().disconnect(ep);
    }
    child.channel.put("end");
    CHECK(child.reap() == 0);
    CHECK(rank.failures.empty());
    loopback().mem_deregister(region);
}

TEST_CASE("opening and closing leaves nothing behind", "[loopback]")
{
    size_t fds = 0, maps = 0;
    for (int i = 0; i < 300; i++) {
        {
            Rank rank(0, 200000), peer(1, 200000);
            iso_endpoint_t *ep = nullptr;
            REQUIRE(rank.connect(1, peer.address(), &ep) == ISO_OK);
            REQUIRE(send(ep, "x") == ISO_OK);
            REQUIRE(peer.progress() == 1);
            loopback().disconnect(ep);
        }
        if (i == 10) {
            fds = open_descriptors().size();
            maps = count_memfd_maps();
        }
    }
    CHECK(open_descriptors().size() == fds);
    CHECK(count_memfd_maps() == maps);
}

TEST_CASE("closing with something still in use is said", "[loopback]")
{
    Rank rank(0), peer(1);
    iso_endpoint_t *ep = nullptr;
    Memory memory(4096);
    iso_region_t *region = nullptr;
    const iso_memory_t all = memory.all();
    REQUIRE(loopback().mem_register(rank.tp, &all, &region) == ISO_OK);
    REQUIRE(rank.connect(1, peer.address(), &ep) == ISO_OK);
    loopback().disconnect(ep);
    rank.close();
    CHECK(rank.said("0 endpoints, 1 regions and 0 rkeys"));
    free(region); // its instance is gone; a region is one block of the process heap
}
