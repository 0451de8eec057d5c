// What the protocol promises: one-sided puts, refusals that change nothing, bounded time, one owner.
#include "marked.hpp"
#include <cerrno>
#include <csignal>
#include <poll.h>
#include <sys/resource.h>

namespace {

void one_sided()
{
    const size_t size = (20 << 20) / scale;
    Job job;
    if (self ==
        1) { // the heap comes from here, so that rank 0 has a standing grant for the way back
        tell_pid(job);
        job.send(marked(job, size, 7), 0);
        const Arrived got = job.receive();
        expect_marked(got.heap, size, 8);
    } else {
        const pid_t pid = hear_pid(job);
        iso_heap_t *heap = job.receive().heap;
        std::memset(iso_heap_root(heap), 8, size);
        stop_process(pid);
        iso_request_t *request = job.start(heap, 1);
        iso_request_info_t info = {};
        for (const double until = now() + 20; !info.puts_complete && now() < until;) {
            EXPECT_STATUS(ISO_INPROGRESS, iso_test(request));
            iso_request_query(request, &info);
        }
        EXPECT(info.granted_before);
        EXPECT(info.puts_complete);
        // metadata say in a few pieces what their pages say
        EXPECT(info.bytes_put >= size && info.bytes_put + info.bytes_inline <= info.live_bytes);
        EXPECT(std::string(info.step) == "COMMITTED");
        EXPECT(kill(pid, SIGCONT) == 0);
        EXPECT_STATUS(ISO_OK, iso_wait(request));
    }
    job.barrier();
    job.finish();
}

// A small heap goes to and fro, and is one message each time, without a put; with ISO_INLINE_MAX=0 it is put. (Inside a node with
// shared backing it is handed over.)
void rides()
{
    const char *set = std::getenv("ISO_INLINE_MAX");
    const bool off = set != nullptr && std::string(set) == "0";
    constexpr size_t size = 100;
    constexpr unsigned char hops = 40;
    Job job;
    if (self == 0)
        job.send(marked(job, size, 1), 1);
    for (unsigned char hop = 1; hop <= hops; hop++) {
        if (self != hop % 2u)
            continue;
        iso_heap_t *heap = job.receive().heap;
        expect_marked(heap, size, hop);
        iso_heap_stats_t stats;
        EXPECT_STATUS(ISO_OK, iso_heap_stats(heap, &stats)); // compares all that is said twice
        EXPECT(stats.blocks == 1u + hop / 10u);
        if (hop % 10 == 9)
            EXPECT(iso_malloc(heap, hop * 8u) != nullptr);
        iso_free(iso_malloc(heap, hop * 1000u)); // leaves nothing
        std::memset(iso_heap_root(heap), hop + 1, size);
        if (hop < hops)
            job.send(heap, 1 - self);
    }
    const iso_stats_t stats = job.stats();
    EXPECT(stats.migrations_out == hops / 2);
    if (stats.handovers_out == 0) {
        EXPECT((stats.puts > 0) == off && (stats.bytes_put > 0) == off);
        EXPECT((stats.bytes_inline > 0) != off);
        EXPECT(stats.bytes_inline <= 4096 * stats.migrations_out);
    }
    job.barrier();
    job.finish();
}

// Rank 1 admits no heap of rank 0.
bool admit_not_from_0(iso_job_t *job, const iso_arrival_t *arrival, void * /*arg*/)
{
    return iso_rank(job) != 1 || arrival->source != 0;
}

void refused()
{
    constexpr size_t size = 300000;
    Job job(admit_not_from_0);
    if (self == 0) {
        iso_heap_t *heap = marked(job, size, 3);
        for (int i = 0; i < 3; i++) {
            EXPECT_STATUS(ISO_ERR_REFUSED, iso_wait(job.start(heap, 1)));
            EXPECT(iso_heap_state(heap) == ISO_HEAP_OWNED);
            expect_marked(heap, size, 3);
            EXPECT(iso_malloc(heap, 1000) != nullptr);
        }
        job.send(heap, 2); // the others take it
    } else if (self == 2) {
        const Arrived got = job.receive();
        expect_marked(got.heap, size, 3);
        job.send(got.heap, 1);
    } else {
        expect_marked(job.receive().heap, size, 3);
    }
    job.barrier();
    job.finish();
}

void misuse()
{
    Job job;
    iso_request_t *request = nullptr;
    std::vector<char> header(ISO_HEADER_MAX + 1);
    if (self == 0) {
        iso_heap_t *heap = marked(job, 100, 1);
        EXPECT_STATUS(ISO_ERR_RANK, iso_migrate(heap, job.size(), nullptr, 0, &request));
        EXPECT_STATUS(ISO_ERR_INVALID,
                      iso_migrate(heap, 1, header.data(), header.size(), &request));
        EXPECT_STATUS(ISO_ERR_INVALID, iso_migrate(heap, 1, nullptr, 1, &request));
        EXPECT(request == nullptr);
        // to oneself: allowed, no bytes
        iso_request_t *to_self = job.start(heap, 0, "me", 3);
        EXPECT_STATUS(ISO_OK, iso_wait(to_self));
        const Arrived back = job.receive();
        EXPECT(back.heap == heap && back.source == 0 && back.bytes == 0);
        EXPECT(std::string(back.header.data()) == "me");
        EXPECT(job.stats().bytes_put + job.stats().bytes_inline == 0);
        // twice at once
        iso_request_t *first = job.start(heap, 1);
        EXPECT_STATUS(ISO_ERR_BUSY, iso_migrate(heap, 1, nullptr, 0, &request));
        EXPECT_STATUS(ISO_ERR_BUSY, iso_heap_destroy(heap));
        EXPECT_STATUS(ISO_OK, iso_wait(first));
        // not (any more) one's own
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_migrate(heap, 1, nullptr, 0, &request));
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_heap_destroy(heap));
        EXPECT(iso_heap_state(heap) == ISO_HEAP_ELSEWHERE);
        int outside = 0;
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_migrate(reinterpret_cast<iso_heap_t *>(&outside), 1,
                                                     nullptr, 0, &request));
    } else {
        expect_marked(job.receive().heap, 100, 1);
    }
    job.barrier();
    job.finish();
}

void headers()
{
    Job job;
    for (const size_t length : {0, 1, 1024, ISO_HEADER_MAX}) {
        std::vector<char> header(length);
        for (size_t i = 0; i < length; i++)
            header[i] = static_cast<char>(i * 7);
        if (self == 0) {
            job.send(job.heap(), 1, header.data(), length);
        } else {
            const Arrived got = job.receive();
            EXPECT(got.header == header);
            EXPECT(got.source == 0);
        }
    }
    // what arrives before there is a callback waits for it
    if (self == 1)
        iso_set_arrival(job.job, nullptr, nullptr);
    job.barrier();
    if (self == 0)
        job.send(job.heap(), 1);
    job.barrier();
    if (self == 1) {
        static int called = 0;
        EXPECT(job.stats().migrations_in == 5);
        iso_set_arrival(
            job.job, [](iso_job_t *, const iso_arrival_t *, void *) { called++; }, nullptr);
        iso_progress(job.job);
        EXPECT(called == 1);
    }
    job.barrier();
    job.finish();
}

double cpu_seconds()
{
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

void idle()
{
    Job job;
    if (self == 0)
        job.send(job.heap(), 1); // they know each other
    else
        job.receive();
    job.barrier();
    double start = cpu_seconds();
    EXPECT_STATUS(ISO_ERR_TIMED_OUT, iso_progress_wait(job.job, 1.0));
    EXPECT(cpu_seconds() - start < 0.05);
    // in a barrier whose last rank is late
    start = cpu_seconds();
    if (self == 0)
        usleep(1000000);
    job.barrier();
    EXPECT(cpu_seconds() - start < 0.05);
    // in an event loop
    if (self == 0) {
        usleep(300000);
        job.send(job.heap(), 1);
    } else {
        start = cpu_seconds();
        pollfd event = {iso_event_fd(job.job), POLLIN, 0};
        while (job.arrivals.empty()) {
            if (iso_progress(job.job) == 0 && iso_event_arm(job.job) == ISO_OK)
                EXPECT(poll(&event, 1, 10000) == 1);
        }
        EXPECT(cpu_seconds() - start < 0.05);
    }
    job.barrier();
    job.finish();
}

// The target is stopped for longer than ISO_TIMEOUT, and goes on.
void stopped()
{
    constexpr size_t size = 400000;
    Job job;
    if (self == 1) {
        tell_pid(job);
        job.send(marked(job, size, 7), 0); // with a grant for the way back
        Arrived got = job.receive();       // whichever attempt got through
        expect_marked(got.heap, size, 8);
        job.barrier();
        EXPECT(job.arrivals.empty());
    } else {
        bool same_node = false;
        EXPECT_STATUS(ISO_OK, iso_same_node(job.job, 1, &same_node));
        const pid_t pid = hear_pid(job);
        iso_heap_t *heap = job.receive().heap;
        iso_heap_t *fresh = marked(job, size, 9); // no grant for this one: it must ask
        std::memset(iso_heap_root(heap), 8, size);
        stop_process(pid);
        const double start = now();
        iso_request_t *without = job.start(fresh, 1), *with = job.start(heap, 1);
        const iso_status_t ended_without = iso_wait(without), ended_with = iso_wait(with);
        EXPECT(now() - start < 10);
        EXPECT_STATUS(ISO_ERR_TIMED_OUT,
                      ended_without); // never committed, or the word gave it back
        EXPECT(iso_heap_state(fresh) == ISO_HEAP_OWNED);
        expect_marked(fresh, size, 9);
        if (same_node) {
            EXPECT_STATUS(ISO_ERR_TIMED_OUT, ended_with);
            EXPECT(iso_heap_state(heap) == ISO_HEAP_OWNED);
        } else {
            EXPECT_STATUS(ISO_ERR_IN_DOUBT, ended_with);
            EXPECT(iso_heap_state(heap) == ISO_HEAP_IN_DOUBT);
            EXPECT(job.stats().migrations_in_doubt == 1);
            iso_request_t *again = nullptr;
            EXPECT_STATUS(ISO_ERR_BUSY, iso_migrate(heap, 1, nullptr, 0, &again));
        }
        EXPECT(kill(pid, SIGCONT) == 0);
        for (const double until = now() + 10; iso_heap_state(heap) == ISO_HEAP_IN_DOUBT;) {
            EXPECT(now() < until); // the doubt is settled by the late answer
            iso_progress_wait(job.job, 0.1);
        }
        if (iso_heap_state(heap) == ISO_HEAP_OWNED) // the puts needed the target, and came too late
            job.send(heap, 1);
        EXPECT(iso_heap_state(heap) == ISO_HEAP_ELSEWHERE);
        EXPECT(job.stats().migrations_in_doubt == 0);
        job.barrier();
        expect_marked(fresh, size, 9);
    }
    job.finish();
}

void cancel()
{
    constexpr size_t size = 400000;
    Job job;
    if (self == 1) {
        tell_pid(job);
        expect_marked(job.receive().heap, size, 4);
        job.barrier();
        EXPECT(job.arrivals.empty());
    } else {
        const pid_t pid = hear_pid(job);
        iso_heap_t *heap = marked(job, size, 4);
        stop_process(pid);
        for (int i = 0; i < 3; i++) {
            iso_request_t *request = job.start(heap, 1);
            iso_progress(job.job);
            EXPECT_STATUS(ISO_OK, iso_cancel(request));
            EXPECT_STATUS(ISO_ERR_CANCELED, iso_wait(request));
            EXPECT(iso_heap_state(heap) == ISO_HEAP_OWNED);
            EXPECT(iso_malloc(heap, 5000) != nullptr);
        }
        EXPECT(kill(pid, SIGCONT) == 0);
        job.send(heap, 1);
        job.barrier();
    }
    EXPECT(job.stats().messages_dropped == 0 || self == 0);
    job.finish();
}

// A reservation that was given up reaches its target only when the heap has been elsewhere for long: at another
// rank of the target's node, which keeps one heap and hands the other to the target. Ranks 2 and 3 are that node.
void given_up()
{
    constexpr size_t size = 1 << 20;
    Job job;
    if (self == 0) {
        const pid_t pid = hear_pid(job);
        iso_heap_t *heaps[] = {marked(job, size, 1), marked(job, size, 2)};
        job.send(marked(job, 100, 3), 2); // they know each other
        job.barrier();
        stop_process(pid);
        for (iso_heap_t *heap : heaps) {
            iso_request_t *request = job.start(heap, 2);
            iso_progress(job.job);
            EXPECT_STATUS(ISO_OK, iso_cancel(request));
            EXPECT_STATUS(ISO_ERR_CANCELED, iso_wait(request));
            job.send(heap, 3);
        }
        job.receive(); // rank 3 has offered one of them to rank 2
        EXPECT(kill(pid, SIGCONT) == 0);
    } else if (self == 2) {
        tell_pid(job);
        job.receive();
        job.barrier();
        expect_marked(job.receive().heap, size, 1);
    } else if (self == 3) {
        job.barrier();
        iso_heap_t *handed = job.receive().heap, *kept = job.receive().heap;
        iso_request_t *request = job.start(handed, 2);
        job.send(job.heap(), 0);
        if (iso_wait(request) !=
            ISO_OK) // the target may have been in the middle of it: it stays here
            job.send(handed, 2);
        for (const double until = now() + 0.3; now() < until;)
            iso_progress_wait(job.job, 0.05);
        expect_marked(kept, size, 2);
        iso_heap_t *back = kept; // and it still goes where the reservation was for
        job.send(back, 2);
    } else {
        job.barrier();
    }
    if (self == 2)
        expect_marked(job.receive().heap, size, 2);
    job.barrier();
    job.finish();
}

// Prints the base of the space.
void base()
{
    Job job;
    void *base = nullptr;
    size_t size = 0;
    iso_space(job.job, &base, &size);
    if (self == 0)
        std::printf("base %p\n", base);
    job.finish();
}

// Rank 1 never comes to the barrier. The launcher is killed meanwhile.
void launcher_dies()
{
    Job job;
    const pid_t launcher = getppid();
    std::printf("pid %d\n", static_cast<int>(getpid()));
    std::fflush(stdout);
    if (self == 0)
        EXPECT(iso_barrier(job.job) < 0);
    while (getppid() == launcher)
        usleep(10000);
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {
        {"one_sided", one_sided},
        {"refused", refused},
        {"misuse", misuse},
        {"headers", headers},
        {"idle", idle},
        {"rides", rides},
        {"stopped", stopped},
        {"cancel", cancel},
        {"base", base},
        {"given_up", given_up},
        {"launcher_dies", launcher_dies},
    };
    return run_test(tests, argc, argv);
}
