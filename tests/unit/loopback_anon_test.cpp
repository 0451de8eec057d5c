// Puts of the loopback transport into memory that no memory object backs: the kernel copies them into
// another process, and says no where it may not.
#include "tests/unit/loopback.hpp"
#include "tests/unit/support.hpp"
#include <linux/sched.h>
#include <random>
#include <sys/syscall.h>

namespace {

constexpr size_t size = 8 << 20;

// Anonymous memory of this process; a child has a copy at the same address.
class Anonymous {
  public:
    Anonymous()
    {
        void *map = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED)
            abort();
        bytes = static_cast<unsigned char *>(map);
    }
    ~Anonymous()
    {
        munmap(bytes, size);
    }
    Anonymous(const Anonymous &) = delete;
    Anonymous &operator=(const Anonymous &) = delete;
    iso_memory_t all() const
    {
        return {bytes, size, -1, 0};
    }
    unsigned char *bytes;
};

// Rank 1: registers `target`, says so, and for every blob that comes answers what look() says.
int serve(Channel &parent, const Anonymous &target, const std::function<bool()> &look)
{
    Rank rank(1);
    iso_region_t *region = nullptr;
    const iso_memory_t all = target.all();
    CHILD_REQUIRE(loopback().mem_register(rank.tp, &all, &region) == ISO_OK);
    parent.put(rank.address());
    parent.put(pack(region));
    while (!parent.get().empty())
        parent.put(look() ? "right" : "wrong");
    loopback().mem_deregister(region);
    return 0;
}

// Rank 0 of this process, connected to such a child.
struct Source {
    explicit Source(Child &child) : address(child.channel.get()), key(child.channel.get())
    {
        const iso_memory_t all = memory.all();
        ok = rank.connect(1, address, &ep) == ISO_OK &&
             loopback().mem_register(rank.tp, &all, &region) == ISO_OK &&
             unpack(ep, key, &rkey) == ISO_OK;
    }
    ~Source()
    {
        if (rkey != nullptr)
            loopback().rkey_destroy(rkey);
        if (region != nullptr)
            loopback().mem_deregister(region);
        if (ep != nullptr)
            loopback().disconnect(ep);
    }
    iso_status_t put(size_t from, size_t len, const void *to)
    {
        return loopback().put(ep, memory.bytes + from, len, region, reinterpret_cast<uintptr_t>(to),
                              rkey, nullptr);
    }
    Rank rank{0};
    Anonymous memory;
    std::string address, key;
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    iso_rkey_t *rkey = nullptr;
    bool ok;
};

void fill(unsigned char *bytes, size_t length, uint64_t seed)
{
    std::mt19937_64 random(seed);
    for (size_t i = 0; i < length; i += 8) {
        const uint64_t word = random();
        memcpy(bytes + i, &word, sizeof word);
    }
}

struct Piece {
    size_t from, to, len;
};
std::vector<Piece> random_pieces(int count)
{
    static const size_t limits[] = {16, 5000, 70000, 1 << 20};
    std::vector<Piece> pieces;
    std::mt19937_64 random(5);
    for (int i = 0; i < count; i++) {
        const size_t len = random() % (limits[random() % 4] + 1);
        pieces.push_back({random() % (size - len), random() % (size - len + 1), len});
    }
    return pieces;
}

} // namespace

TEST_CASE("puts into anonymous memory arrive, and nothing else changes", "[loopback]")
{
    Anonymous target;
    const auto pieces = random_pieces(500);
    Child child([&](Channel &parent) {
        return serve(parent, target, [&] {
            std::vector<unsigned char> from(size), expected(size);
            fill(from.data(), size, 1);
            for (const Piece &piece : pieces)
                memcpy(expected.data() + piece.to, from.data() + piece.from, piece.len);
            return memcmp(expected.data(), target.bytes, size) == 0;
        });
    });
    Source source(child);
    REQUIRE(source.ok);
    fill(source.memory.bytes, size, 1);
    REQUIRE(child.stop()); // one-sided: the peer does nothing
    bool put = true;
    for (const Piece &piece : pieces)
        put = put && source.put(piece.from, piece.len, target.bytes + piece.to) == ISO_OK;
    CHECK(put);
    CHECK(loopback().flush(source.ep, nullptr) == ISO_OK);
    ::kill(child.pid, SIGCONT);
    child.channel.put("look");
    CHECK(child.channel.get() == "right");
    CHECK(source.rank.lines.empty());
    CHECK(target.bytes[pieces[0].to] == 0); // this process has memory of its own there
}

TEST_CASE("a put into anonymous memory that is not all there ends with a status", "[loopback]")
{
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    Anonymous target;
    Child child([&](Channel &parent) {
        munmap(target.bytes + 4 * page, page);
        return serve(parent, target, [&] {
            return target.bytes[4 * page - 1] == 9 && target.bytes[5 * page] == 0;
        });
    });
    Source source(child);
    REQUIRE(source.ok);
    memset(source.memory.bytes, 9, 16 * page);
    CHECK(source.put(0, 8 * page, target.bytes) == ISO_ERR_SYSTEM);
    CHECK(source.rank.lines.size() == 1);
    CHECK(source.rank.said("Bad address"));
    CHECK(source.rank.said("not mapped there"));
    child.channel.put("look");
    CHECK(child.channel.get() == "right");
    CHECK(source.put(0, 2 * page, target.bytes + 6 * page) == ISO_OK);
}

TEST_CASE("nothing is put to the pid of a process that has ended", "[loopback]")
{
    Anonymous target;
    Child child([&](Channel &parent) { return serve(parent, target, [] { return true; }); });
    Source source(child);
    REQUIRE(source.ok);
    child.kill();
    child.await_zombie();
    CHECK(source.put(0, 8, target.bytes) == ISO_ERR_PEER_DEAD); // before anything was reported
    child.reap();
    CHECK(source.put(0, 8, target.bytes) == ISO_ERR_PEER_DEAD);
    CHECK(source.rank.until([&] { return source.rank.reported(1, ISO_FAILURE_DEAD); }));
    CHECK(source.put(0, 8, target.bytes) == ISO_ERR_PEER_DEAD);
    CHECK(source.rank.lines.empty());
}

// As fork does, but the child has this pid: allowed to root (CAP_CHECKPOINT_RESTORE, Linux 5.9). -1: not.
static pid_t fork_as(pid_t pid)
{
    clone_args args = {};
    args.exit_signal = SIGCHLD;
    args.set_tid = reinterpret_cast<uintptr_t>(&pid);
    args.set_tid_size = 1;
    return static_cast<pid_t>(syscall(SYS_clone3, &args, sizeof args));
}

TEST_CASE("nothing is put to another process that has got the peer's pid", "[loopback]")
{
    Anonymous target; // the other one has it, too
    Child child([&](Channel &parent) { return serve(parent, target, [] { return true; }); });
    Source source(child);
    REQUIRE(source.ok);
    memset(source.memory.bytes, 9, 8);
    REQUIRE(source.put(0, 8, target.bytes) == ISO_OK);
    const pid_t pid = child.pid;
    child.kill();
    child.reap();
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t other = fork_as(pid);
    if (other == 0) {
        char go;
        close(ends[1]);
        (void)!read(ends[0], &go, 1);
        _exit(target.bytes[0] == 0 ? 0 : 1);
    }
    close(ends[0]);
    if (other < 0) {
        close(ends[1]);
        WARN("clone3 with a pid to have: " << strerror(errno) << ": not tested");
        return;
    }
    REQUIRE(other == pid);
    CHECK(source.put(0, 8, target.bytes) == ISO_ERR_PEER_DEAD);
    close(ends[1]);
    int status = -1;
    REQUIRE(waitpid(other, &status, 0) == other);
    CHECK(status == 0);
}

TEST_CASE("a put that the system forbids ends with a status and says what to do", "[loopback]")
{
    ScopedEnv forbid("ISO_TEST_NO_VM_WRITEV", "1");
    Anonymous target;
    Child child([&](Channel &parent) {
        return serve(parent, target, [&] { return target.bytes[0] == 0; });
    });
    Source source(child);
    REQUIRE(source.ok);
    memset(source.memory.bytes, 9, 8);
    CHECK(source.put(0, 8, target.bytes) == ISO_ERR_SYSTEM);
    CHECK(source.rank.said("Operation not permitted"));
    CHECK(source.rank.said("ptrace_scope"));
    child.channel.put("look");
    CHECK(child.channel.get() == "right");
}

TEST_CASE("an rkey of anonymous memory serves only for the process it is of", "[loopback]")
{
    Anonymous target;
    Child child([&](Channel &parent) { return serve(parent, target, [] { return true; }); });
    Source source(child);
    REQUIRE(source.ok);
    iso_rkey_t *rkey = nullptr;
    // the process comes last in it: start time, pid
    for (const size_t from_end : {size_t{16}, size_t{8}}) {
        std::string other = source.key;
        other[other.size() - from_end]++;
        CHECK(unpack(source.ep, resealed(other), &rkey) == ISO_ERR_INVALID);
    }
    CHECK(source.rank.said("is memory of process"));
    CHECK(rkey == nullptr);
    CHECK(source.put(0, 8, target.bytes - 1) == ISO_ERR_INVALID);
    CHECK(source.put(0, 8, target.bytes + size - 7) == ISO_ERR_INVALID);
    CHECK(source.put(0, 8, target.bytes + size - 8) == ISO_OK);
}
