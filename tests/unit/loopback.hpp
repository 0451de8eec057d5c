// Ranks for the tests of transports: an open instance (of loopback, if no other is named) that records
// what it is told, and forked children that are one. The module is opened as the library opens it;
// nothing but its table is used, save for the few offsets below, with which tests play a peer that writes
// garbage.
#ifndef ISO_TESTS_UNIT_LOOPBACK_HPP
#define ISO_TESTS_UNIT_LOOPBACK_HPP

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <functional>
#include <isomalloc/transport.h>
#include <poll.h>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

extern "C" {
#include "transport/common/blob.h"
#include "transport/common/hash.h"
}

// A blob that somebody has changed who knows its hash.
inline std::string resealed(std::string blob)
{
    blob_head_t head;
    memcpy(&head, blob.data(), sizeof head);
    head.hash = hash_bytes(HASH_START, blob.data() + sizeof head, blob.size() - sizeof head);
    memcpy(&blob[0], &head, sizeof head);
    return blob;
}

// The layout of address blob and inbox, see transport/loopback/loopback.h.
namespace lo {
constexpr size_t address_inbox_fd = 24, address_start = 32, address_boot_id = 48;
constexpr size_t control_bytes = 65536, ring_bytes = 65536, ring_header = 256;
constexpr size_t ring_pid = 8, ring_head = 64, ring_tail = 128;
constexpr size_t ring_data = ring_bytes - ring_header;
} // namespace lo

inline const iso_transport_ops_t *open_module(const char *file)
{
    void *handle = dlopen(file, RTLD_NOW);
    if (handle == nullptr) {
        fprintf(stderr, "%s\n", dlerror());
        abort();
    }
    return static_cast<const iso_transport_ops_t *>(dlsym(handle, ISO_TRANSPORT_MODULE_SYMBOL));
}
inline const iso_transport_ops_t &loopback()
{
    static const iso_transport_ops_t *ops =
        open_module(ISO_TEST_MODULE_DIR "/libisomalloc-loopback.so");
    return *ops;
}

using Clock = std::chrono::steady_clock;
inline double since(Clock::time_point start)
{
    return std::chrono::duration<double>(Clock::now() - start).count();
}
inline void sleep_ms(int ms)
{
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
}

// Smaller numbers where an emulator makes everything slower.
inline unsigned scaled(unsigned count, unsigned least = 1)
{
    const char *text = getenv("ISO_TEST_SCALE");
    const auto scale = text == nullptr ? 1 : static_cast<unsigned>(strtoul(text, nullptr, 10));
    return std::max(count / scale, least);
}

// host.provider of ranks that are opened from here on.
inline const char *&provider_in_use()
{
    static const char *name = "";
    return name;
}

struct Message {
    uint32_t source;
    std::string data;
};

// One instance of the transport and everything that it has told.
class Rank {
  public:
    explicit Rank(uint32_t rank, uint32_t size = 2, uint8_t cookie = 7,
                  const iso_transport_ops_t &transport = loopback())
        : ops(transport)
    {
        host = {};
        host.struct_size = sizeof host;
        host.rank = rank;
        host.size = size;
        memset(host.cookie, cookie, sizeof host.cookie);
        host.arg = this;
        host.provider = provider_in_use();
        host.message = [](void *arg, uint32_t source, const void *data, size_t len) {
            static_cast<Rank *>(arg)->on_message(source, data, len);
        };
        host.peer_failed = [](void *arg, uint32_t peer, iso_failure_t failure) {
            auto *self = static_cast<Rank *>(arg);
            self->failures.push_back({peer, failure});
            self->messages_at_failure = self->messages.size();
        };
        host.log = [](void *arg, iso_log_level_t level, const char *text) {
            static_cast<Rank *>(arg)->lines.push_back(std::string(level == ISO_LOG_ERROR ? "error: "
                                                                  : level == ISO_LOG_WARN
                                                                      ? "warn: "
                                                                      : "info: ") +
                                                      text);
        };
        opened = ops.open(&host, &tp);
    }
    ~Rank()
    {
        close();
    }
    Rank(const Rank &) = delete;
    Rank &operator=(const Rank &) = delete;

    void close()
    {
        if (tp != nullptr)
            ops.close(tp);
        tp = nullptr;
    }
    std::string address()
    {
        char bytes[ISO_TRANSPORT_ADDRESS_MAX];
        size_t len = sizeof bytes;
        return ops.address(tp, bytes, &len) == ISO_OK ? std::string(bytes, len) : "";
    }
    iso_status_t connect(uint32_t rank, const std::string &address, iso_endpoint_t **ep_p)
    {
        return ops.connect(tp, rank, address.data(), address.size(), ep_p);
    }
    unsigned progress()
    {
        return ops.progress(tp);
    }
    // Makes progress until done() or too late; yields when idle, since ranks share processors.
    bool until(const std::function<bool()> &done, double seconds = 10)
    {
        for (const auto start = Clock::now(); !done(); sched_yield())
            if (progress() == 0 && since(start) > seconds)
                return done();
        return true;
    }
    // Sleeps on the event descriptor, as armed; was there an event?
    bool sleep(int timeout_ms)
    {
        pollfd set = {ops.event_fd(tp), POLLIN, 0};
        return poll(&set, 1, timeout_ms) == 1;
    }
    bool said(const std::string &part) const
    {
        for (const auto &line : lines)
            if (line.find(part) != std::string::npos)
                return true;
        return false;
    }
    bool reported(uint32_t peer, iso_failure_t failure) const
    {
        return failures.size() == 1 && failures[0].peer == peer && failures[0].how == failure;
    }

    struct Failure {
        uint32_t peer;
        iso_failure_t how;
    };
    const iso_transport_ops_t &ops;
    iso_transport_t *tp = nullptr;
    iso_status_t opened;
    iso_transport_host_t host;
    std::vector<Message> messages;
    std::vector<Failure> failures;
    std::vector<std::string> lines;
    size_t messages_at_failure = 0;
    std::function<void(uint32_t, const void *, size_t)> handler; // instead of `messages`

  private:
    void on_message(uint32_t source, const void *data, size_t len)
    {
        if (handler)
            handler(source, data, len);
        else
            messages.push_back({source, std::string(static_cast<const char *>(data), len)});
    }
};

inline iso_status_t send(iso_endpoint_t *ep, const std::string &text)
{
    return loopback().send(ep, text.data(), text.size());
}

// A memfd and its mapping, as a rank registers it.
class Memory {
  public:
    explicit Memory(size_t size) : size(size), fd(memfd_create("test-memory", MFD_CLOEXEC))
    {
        if (fd < 0 || ftruncate(fd, static_cast<off_t>(size)) != 0)
            abort();
        void *map = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
        if (map == MAP_FAILED)
            abort();
        bytes = static_cast<unsigned char *>(map);
    }
    ~Memory()
    {
        munmap(bytes, size);
        ::close(fd);
    }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;

    uint64_t resident() const
    {
        struct stat st;
        return fstat(fd, &st) == 0 ? static_cast<uint64_t>(st.st_blocks) * 512 : UINT64_MAX;
    }
    iso_memory_t all() const
    {
        return {bytes, size, fd, 0};
    }
    size_t size;
    int fd;
    unsigned char *bytes;
};

inline std::string pack(iso_region_t *region)
{
    char bytes[ISO_TRANSPORT_RKEY_MAX];
    size_t len = sizeof bytes;
    return loopback().rkey_pack(region, bytes, &len) == ISO_OK ? std::string(bytes, len) : "";
}
inline iso_status_t unpack(iso_endpoint_t *ep, const std::string &blob, iso_rkey_t **rkey_p)
{
    return loopback().rkey_unpack(ep, blob.data(), blob.size(), rkey_p);
}

// Blobs between a test and its child. An empty answer means that the other side is gone.
class Channel {
  public:
    explicit Channel(int fd) : fd_(fd)
    {
    }
    void put(const std::string &blob) const
    {
        // A reader that is gone shows where an answer is awaited.
        (void)!::send(fd_, blob.data(), blob.size(), MSG_NOSIGNAL);
    }
    // The limit is for a side that hangs. One over RDMA verbs in the guest, on a busy machine, may need
    // more than 20 s to open UCX; one that is gone answers at once.
    std::string get(int timeout_ms = 120000) const
    {
        char bytes[4096];
        pollfd set = {fd_, POLLIN, 0};
        if (poll(&set, 1, timeout_ms) != 1)
            return "";
        const ssize_t n = recv(fd_, bytes, sizeof bytes, 0);
        return n > 0 ? std::string(bytes, static_cast<size_t>(n)) : "";
    }
    bool waiting() const
    {
        pollfd set = {fd_, POLLIN, 0};
        return poll(&set, 1, 0) == 1;
    }

  private:
    int fd_;
};

// Inside a child no Catch2 assertion may be used: a failed one ends it with a line on stderr.
#define CHILD_REQUIRE(condition)                                                          \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: in the child: %s\n", __FILE__, __LINE__, #condition); \
            return 1;                                                                     \
        }                                                                                 \
    } while (0)

// A forked process; its exit status is what body returns. Killed and reaped at the end of the scope.
class Child {
  public:
    explicit Child(const std::function<int(Channel &)> &body) : channel(-1)
    {
        int ends[2];
        loopback(); // opened before the fork: parent and child run the same module
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
            abort();
        pid = fork();
        if (pid == 0) {
            for (int number : {SIGABRT, SIGSEGV, SIGBUS, SIGTERM})
                signal(number, SIG_DFL); // not Catch2's handlers
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            ::close(ends[0]);
            Channel to_parent(ends[1]);
            _exit(body(to_parent));
        }
        ::close(ends[1]);
        fd_ = ends[0];
        channel = Channel(fd_);
    }
    ~Child()
    {
        kill();
        reap();
        ::close(fd_);
    }
    Child(const Child &) = delete;
    Child &operator=(const Child &) = delete;

    void kill() const
    {
        if (pid > 0)
            ::kill(pid, SIGKILL);
    }
    // Its exit status, or -1 if a signal ended it; waits.
    int reap()
    {
        int status = 0;
        if (pid > 0 && waitpid(pid, &status, 0) == pid)
            result_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        pid = -1;
        return result_;
    }
    // Returns when the process has ended and nobody has reaped it.
    void await_zombie() const
    {
        siginfo_t info;
        waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
    }
    bool stop() const
    {
        siginfo_t info;
        return ::kill(pid, SIGSTOP) == 0 &&
               waitid(P_PID, static_cast<id_t>(pid), &info, WSTOPPED | WNOWAIT) == 0;
    }

    pid_t pid;
    Channel channel;

  private:
    int fd_;
    int result_ = -2;
};

// Exchanges addresses over the channel and connects to the other side.
inline iso_status_t meet(Rank &rank, Channel &channel, uint32_t other, iso_endpoint_t **ep_p)
{
    channel.put(rank.address());
    return rank.connect(other, channel.get(), ep_p);
}

// Mappings of memory objects in this process: a sanitizer's own are none of them.
inline size_t count_memfd_maps()
{
    FILE *file = fopen("/proc/self/maps", "re");
    size_t count = 0;
    char line[512];
    while (fgets(line, sizeof line, file) != nullptr)
        count += strstr(line, "/memfd:") != nullptr;
    fclose(file);
    return count;
}

#endif
