// What transports over a network share: descriptors that wake a sleeper, and when they are looked at; whom they can watch.
#include "tests/unit/support.hpp"
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
extern "C" {
#include "transport/common/caller.h"
#include "transport/common/events.h"
#include "transport/common/hash.h"
}

namespace {

constexpr uint32_t rank_of_child = 5;

bool readable(int fd, int timeout_ms = 0)
{
    pollfd set = {fd, POLLIN, 0};
    return poll(&set, 1, timeout_ms) == 1;
}

// The descriptors of a transport, whose network library has an eventfd or nothing.
struct Events {
    iso_transport_host_t host = {};
    peers_t peers = {};
    events_t events = {};
    int own_fd;
    explicit Events(bool own = true) : own_fd(own ? eventfd(0, EFD_NONBLOCK) : -1)
    {
        peers.host = &host;
        REQUIRE(events_open(&events, &peers, own_fd) == ISO_OK);
    }
    ~Events()
    {
        events_close(&events, &peers);
        if (own_fd >= 0)
            close(own_fd);
    }
    Events(const Events &) = delete;
    Events &operator=(const Events &) = delete;
};

// A process that does nothing until it is ended.
class Child {
  public:
    Child()
    {
        int ends[2];
        REQUIRE(pipe(ends) == 0);
        pid_ = fork();
        REQUIRE(pid_ >= 0);
        if (pid_ == 0) {
            process_place_t place;
            process_id_t self = {};
            const char *why = nullptr;
            process_find_self(&place, &self, &why);
            (void)!write(ends[1], &self, sizeof self);
            for (;;)
                pause();
        }
        const bool told = read(ends[0], &id, sizeof id) == sizeof id;
        close(ends[0]);
        close(ends[1]);
        REQUIRE(told);
    }
    ~Child()
    {
        kill();
        waitpid(pid_, nullptr, 0);
    }
    Child(const Child &) = delete;
    Child &operator=(const Child &) = delete;
    void kill() const
    {
        ::kill(pid_, SIGKILL);
    }
    process_id_t id = {};

  private:
    pid_t pid_;
};

} // namespace

TEST_CASE("events: a sleeper is woken by the network library's descriptor", "[events]")
{
    Events one, none(false);
    REQUIRE_FALSE(readable(one.events.event_fd));
    REQUIRE_FALSE(readable(none.events.event_fd));
    REQUIRE(eventfd_write(one.own_fd, 1) == 0);
    REQUIRE(readable(one.events.event_fd));
}

TEST_CASE("events: a sleeper is woken by the timer, once, or not where it was taken back",
          "[events]")
{
    Events opened;
    uint32_t ranks[EVENTS_LOOK];
    events_set_timer(&opened.events, 1000000);
    REQUIRE(readable(opened.events.event_fd, 10000));
    REQUIRE(events_look(&opened.events, &opened.peers, ranks) == 0);
    REQUIRE_FALSE(readable(opened.events.event_fd, 20));
    events_set_timer(&opened.events, 1000000);
    events_set_timer(&opened.events, 0);
    REQUIRE_FALSE(readable(opened.events.event_fd, 20));
}

TEST_CASE(
    "events: the end of a watched process wakes, and a look names its rank until it is not watched",
    "[events]")
{
    Events opened;
    uint32_t ranks[EVENTS_LOOK];
    const Child child;
    peer_t peer = {};
    peer.rank = rank_of_child;
    peer.pidfd = -1;
    peer.process = child.id;
    REQUIRE(peers_watch(&opened.peers, &peer) == 0);
    REQUIRE(peer.pidfd >= 0);
    REQUIRE_FALSE(readable(opened.events.event_fd));
    REQUIRE(events_look(&opened.events, &opened.peers, ranks) == 0);
    child.kill(); // and nobody reaps it
    REQUIRE(readable(opened.events.event_fd, 10000));
    for (int again = 0; again < 2; again++) {
        REQUIRE(events_look(&opened.events, &opened.peers, ranks) == 1);
        REQUIRE(ranks[0] == rank_of_child);
    }
    peers_unwatch(&opened.peers, &peer);
    REQUIRE(events_look(&opened.events, &opened.peers, ranks) == 0);
    REQUIRE_FALSE(readable(opened.events.event_fd));
}

TEST_CASE("events: to look is due once in a while, and after a sleep", "[events]")
{
    events_t events = {};
    REQUIRE(events_due(&events, 1000));
    REQUIRE_FALSE(events_due(&events, 1000));
    REQUIRE(events_due(&events, 1000 + EVENTS_LOOK_EVERY_MS));
    REQUIRE_FALSE(events_due(&events, 1000 + EVENTS_LOOK_EVERY_MS));
    events.armed = true;
    REQUIRE(events_due(&events, 1000 + EVENTS_LOOK_EVERY_MS));
    REQUIRE_FALSE(events_due(&events, 1000 + EVENTS_LOOK_EVERY_MS));
}

TEST_CASE(
    "events: without room for the descriptors they are refused with a line, and none stays open",
    "[events]")
{
    const ChildResult child = in_child([] {
        iso_transport_host_t host = {};
        host.log = [](void *, iso_log_level_t, const char *text) { fprintf(stderr, "%s\n", text); };
        peers_t peers = {};
        peers.host = &host;
        events_t events = {};
        const int first = dup(0);
        close(first);
        for (int room = 0; room < 3; room++) {
            const rlimit limit = {static_cast<rlim_t>(first + room),
                                  static_cast<rlim_t>(first + 3)};
            if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
                return 1;
            if (events_open(&events, &peers, -1) != ISO_ERR_LIMIT)
                return 2;
            if (dup(0) != (room > 0 ? first : -1))
                return 3;
            close(first);
        }
        return 0;
    });
    REQUIRE(child.exited_with(0));
    REQUIRE(line_count(child.stderr_text) == 3);
    REQUIRE(contains(child.stderr_text, "raise ulimit -n"));
}

TEST_CASE("events: rank 0 warns where all ranks are more than there can be descriptors for",
          "[events]")
{
    const ChildResult child = in_child([] {
        const rlimit limit = {1024, 4096};
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
            return 1;
        iso_transport_host_t host = {};
        host.log = [](void *, iso_log_level_t level, const char *text) {
            fprintf(stderr, "%s: %s\n", level == ISO_LOG_WARN ? "warn" : "info", text);
        };
        host.size = 200;
        caller_check_descriptors(&host, 3);
        host.size = 2000;
        caller_check_descriptors(&host, 3);
        host.rank = 1;
        caller_check_descriptors(&host, 3);
        return 0;
    });
    REQUIRE(child.exited_with(0));
    REQUIRE(line_count(child.stderr_text) == 2);
    REQUIRE(contains(child.stderr_text, "warn: 1024 descriptors"));
    REQUIRE(contains(child.stderr_text, "info: 1024 descriptors"));
    REQUIRE(contains(child.stderr_text, "1999 others needs some 6061"));
}

TEST_CASE("events: a process is seen where pids and start times mean the same", "[events]")
{
    process_place_t place = {};
    process_id_t self = {};
    const char *why = nullptr;
    REQUIRE(process_find_self(&place, &self, &why) == ISO_OK);
    const process_id_t other = {77, 1234}, unknown = {};
    REQUIRE(process_seen(&place, &self, &place, &other).pid == 1234);
    REQUIRE(process_seen(&place, &self, &place, &other).start == 77);
    REQUIRE(process_seen(&place, &unknown, &place, &other).pid == 0);
    REQUIRE(process_seen(&place, &self, &place, &unknown).pid == 0);
    process_place_t elsewhere = place;
    elsewhere.net_ns++; // of sockets; pids are the same
    REQUIRE(process_seen(&place, &self, &elsewhere, &other).pid == 1234);
    elsewhere.pid_ns++;
    REQUIRE(process_seen(&place, &self, &elsewhere, &other).pid == 0);
    elsewhere = place;
    elsewhere.boot_id[0] ^= 1;
    REQUIRE(process_seen(&place, &self, &elsewhere, &other).pid == 0);
}

TEST_CASE("events: a hash goes on where the one before ended, and sees every bit", "[events]")
{
    const char text[] = "an address of a worker";
    const uint64_t whole = hash_bytes(HASH_START, text, sizeof text);
    REQUIRE(hash_bytes(hash_bytes(HASH_START, text, 7), text + 7, sizeof text - 7) == whole);
    for (size_t bit = 0; bit < sizeof text * 8; bit++) {
        std::string changed(text, sizeof text);
        changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ 1 << bit % 8);
        REQUIRE(hash_bytes(HASH_START, changed.data(), changed.size()) != whole);
    }
}
