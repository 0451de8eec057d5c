// The iso space registered in windows (ISO_REGISTER=window): never more than ISO_PIN_LIMIT, nothing registered
// in a steady state, and right whatever the limit is. Sizes follow the limit, so that the tests run with any; what
// they want of it stands in windows.cmake. Over the transport `checking` a mistake ends the process.
#include "windows.hpp"
#include <algorithm>
#include <random>

namespace {

uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// Those that have ended leave the list.
void test_all(std::vector<iso_request_t *> &requests)
{
    for (size_t i = 0; i < requests.size();)
        if (const iso_status_t status = iso_test(requests[i]); status != ISO_INPROGRESS) {
            EXPECT_STATUS(ISO_OK, status);
            requests.erase(requests.begin() + static_cast<std::ptrdiff_t>(i));
        } else {
            i++;
        }
}

// Heaps whose addresses span many times the limit, one after the other.
void span()
{
    Job job;
    const uint64_t count =
        (from_environment("ISO_TEST_SPAN", 64) << 30) / ISO_SLOT_SIZE / (scale > 1 ? 64 : 1);
    constexpr uint64_t in_flight = 32;
    std::vector<iso_heap_t *> heaps;
    if (self == 0)
        for (uint64_t i = 0; i < count; i++) {
            heaps.push_back(job.heap());
            auto *word = static_cast<uint64_t *>(iso_malloc(heaps.back(), sizeof i));
            EXPECT(word != nullptr);
            *word = i;
            iso_heap_set_root(heaps.back(), word);
        }
    for (int lap = 0; lap < 2; lap++) {
        if (self == static_cast<uint32_t>(lap)) {
            for (uint64_t i = 0; i < count; i += in_flight) {
                std::vector<iso_request_t *> requests;
                for (uint64_t j = i; j < count && j < i + in_flight; j++)
                    requests.push_back(job.start(heaps[j], 1 - self));
                for (iso_request_t *request : requests)
                    EXPECT_STATUS(ISO_OK, iso_wait(request));
                check_limit(job);
            }
        } else {
            heaps.clear();
            for (uint64_t i = 0; i < count; i++) {
                heaps.push_back(job.receive().heap);
                check_limit(job);
                EXPECT(*static_cast<uint64_t *>(iso_heap_root(heaps.back())) < count);
            }
        }
        job.barrier();
    }
    const iso_stats_t stats = job.stats();
    EXPECT(stats.window_misses > 0);
    EXPECT(stats.window_evictions > 0);
    if (self == 0)
        std::printf("%llu MiB of addresses, %llu MiB registered at most, %llu registrations\n",
                    static_cast<unsigned long long>(count * ISO_SLOT_SIZE >> 20),
                    static_cast<unsigned long long>(stats.registered_high >> 20),
                    static_cast<unsigned long long>(stats.registrations));
    job.finish();
}

// Half of the limit's worth of heaps goes to and fro: after the first times nothing is registered any more.
void fits()
{
    Job job;
    constexpr int count = 4;
    const size_t bytes = limit() / 2 / count - 3 * ISO_SLOT_SIZE;
    std::vector<iso_heap_t *> heaps;
    for (int i = 0; self == 0 && i < count; i++)
        heaps.push_back(loaded(job, bytes));
    iso_stats_t before{}, after{};
    constexpr int warm = 4, rounds = 30;
    for (int round = 0; round < warm + rounds; round++) {
        if (round == warm)
            before = job.stats();
        for (uint32_t turn = 0; turn < 2; turn++)
            for (int i = 0; i < count; i++)
                if (self == turn) {
                    change(heaps.back());
                    job.send(heaps.back(), 1 - self);
                    heaps.pop_back();
                } else {
                    heaps.insert(heaps.begin(), job.receive().heap);
                }
    }
    after = job.stats();
    EXPECT(after.window_hits > before.window_hits);
    EXPECT(after.window_misses == before.window_misses);
    EXPECT(after.registrations == before.registrations);
    EXPECT(after.deregistrations == before.deregistrations);
    EXPECT(after.reservations == before.reservations);
    for (const iso_heap_t *heap : heaps)
        check(heap);
    check_limit(job);
    job.finish();
}

// Heaps of ten times the limit go to and fro: what a device has pinned is what is registered, beside what the transport
// pins for itself; and nothing at the end.
void ten_times()
{
    Job job;
    constexpr unsigned count = 20, laps = 2;
    const size_t bytes = limit() / 2;
    std::vector<iso_heap_t *> heaps;
    for (unsigned i = 0; self == 0 && i < count; i++)
        heaps.push_back(loaded(job, bytes));
    // its own buffers are there after the first words each way
    for (uint32_t turn = 0; turn < 2; turn++)
        if (self == turn)
            job.send(job.heap(), 1 - self);
        else
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(job.receive().heap));
    const uint64_t own = pinned() - std::min<uint64_t>(pinned(), job.stats().registered_bytes);
    for (unsigned turn = 0; turn < 2 * laps; turn++) {
        for (unsigned i = 0; i < count; i++) {
            if (self == turn % 2) {
                change(heaps.back());
                job.send(heaps.back(), 1 - self);
                heaps.pop_back();
            } else {
                heaps.insert(heaps.begin(), job.receive().heap);
                check(heaps.front());
            }
            EXPECT(pinned() <= own + limit());
            check_limit(job);
        }
        job.barrier();
    }
    job.finish();
    EXPECT(pinned() == 0);
}

// One heap that is many times the limit: it goes in parts.
void large()
{
    Job job;
    iso_heap_t *heap = self == 0 ? loaded(job, limit() * 6) : nullptr;
    for (uint32_t hop = 0; hop < 4; hop++) {
        if (self == hop % 2) {
            change(heap);
            job.send(heap, 1 - self);
        } else {
            heap = job.receive().heap;
            check(heap);
        }
        check_limit(job);
    }
    EXPECT(job.stats().window_misses > 0);
    job.finish();
}

// Every rank has heaps that are together more than the limit, and whatever arrives goes straight back: to evict a
// window is a race with what comes into it, 200 times each.
void straight_back()
{
    Job job;
    const unsigned rounds = static_cast<unsigned>(from_environment("ISO_TEST_ROUNDS", 200)) / scale;
    const size_t bytes = limit() / 3;
    const uint32_t other = self ^ 1;
    std::vector<iso_request_t *> requests;
    unsigned sent = 0, received = 0;
    constexpr unsigned own =
        6; // at once each way: more than there are windows, at the smallest limit
    const unsigned all = rounds * 2;
    auto send = [&](iso_heap_t *heap) {
        change(heap);
        requests.push_back(job.start(heap, other));
        sent++;
    };
    for (unsigned i = 0; i < own; i++)
        send(loaded(job, bytes));
    while (received < all) {
        const Arrived got = job.receive();
        received++;
        if (received % 16 == 0)
            check(got.heap);
        if (sent < all)
            send(got.heap);
        else
            check(got.heap);
        test_all(requests);
        check_limit(job);
    }
    for (iso_request_t *request : requests)
        EXPECT_STATUS(ISO_OK, iso_wait(request));
    EXPECT(job.stats().window_evictions > 0);
    job.barrier();
    job.finish();
}

// Heaps of all sizes go anywhere, all at once.
void crowd()
{
    Job job;
    std::mt19937 random(seed() + self);
    const unsigned moves = 150 / scale;
    constexpr unsigned own = 4;
    std::vector<iso_request_t *> requests;
    uint64_t moved = 0;
    for (unsigned i = 0; i < own; i++)
        job.arrivals.push_back({loaded(job, 1000 + random() % (limit() / 2)), self, 0, {}});
    // each rank passes on what it has until it has made its moves; then it keeps what comes
    auto turn = [&] {
        while (moved < moves && !job.arrivals.empty()) {
            iso_heap_t *heap = job.arrivals.front().heap;
            job.arrivals.pop_front();
            check(heap);
            change(heap);
            requests.push_back(job.start(heap, static_cast<uint32_t>(random() % job.size())));
            moved++;
        }
        test_all(requests);
        check_limit(job);
    };
    // who has no heap any more may never get one again: a second without any is the end
    for (double until = now() + 3; now() < until && (moved < moves || !requests.empty());) {
        if (!job.arrivals.empty() || !requests.empty())
            until = now() + 3;
        turn();
        iso_progress_wait(job.job, 0.01);
    }
    for (iso_request_t *request : requests)
        EXPECT_STATUS(ISO_OK, iso_wait(request));
    job.barrier();
    for (const Arrived &got : job.arrivals)
        check(got.heap);
    job.finish();
}

// Keys of rank 0's windows are with rank 1, which answers nothing any more; rank 2 needs room. Then
// rank 1 is killed, or it goes on.
void borrower(bool killed)
{
    Job job;
    const size_t bytes = limit();
    if (self == 1) {
        tell_pid(job);
        job.send(loaded(job, bytes), 0);
        job.barrier();
        if (killed)
            for (;;)
                pause();
        job.barrier();
    } else if (self == 0) {
        const pid_t pid = hear_pid(job);
        const iso_heap_t *theirs = job.receive().heap;
        job.barrier();
        stop_process(pid);
        job.send(job.heap(), 2); // rank 2 may begin
        const double start = now();
        while (now() < start + 1)
            iso_progress_wait(job.job, 0.1);
        check_limit(job);
        EXPECT(kill(pid, killed ? SIGKILL : SIGCONT) == 0);
        const Arrived got = job.receive();
        EXPECT(got.source == 2);
        check(got.heap);
        check(theirs);
        EXPECT(now() - start < 8);
        job.barrier();
    } else {
        job.barrier();
        job.receive();
        job.send(loaded(job, bytes), 0);
        job.barrier();
    }
    job.finish();
    std::printf("survivor %u ok\n", self);
}
void borrower_killed()
{
    borrower(true);
}
void borrower_stopped()
{
    borrower(false);
}

// Blocks of all kinds are freed and made again, pages kept, given back and used again, while heaps come and go and
// the windows around them do.
void released()
{
    Job job;
    std::mt19937 random(seed() + self);
    iso_heap_t *heap = job.heap();
    struct Block {
        unsigned char *bytes;
        size_t size;
        unsigned char mark;
    };
    std::vector<Block> blocks;
    auto whole = [](const Block &block) {
        for (size_t i = 0; i < block.size; i += 61)
            EXPECT(block.bytes[i] == block.mark);
    };
    for (unsigned round = 0; round < 100 / scale; round++) {
        for (unsigned i = 0; i < 8; i++) {
            if (blocks.size() > 20) {
                std::swap(blocks[random() % blocks.size()], blocks.back());
                whole(blocks.back());
                iso_free(blocks.back().bytes);
                blocks.pop_back();
            }
            const size_t sizes[] = {100, 5000, 100000, 700000, 3000000, 9000000};
            const size_t size = 1 + random() % sizes[random() % 6];
            auto *bytes = static_cast<unsigned char *>(
                random() % 2 == 0 ? iso_malloc(heap, size) : iso_calloc(heap, 1, size));
            EXPECT(bytes != nullptr);
            const auto mark = static_cast<unsigned char>(random());
            std::memset(bytes, mark, size);
            blocks.push_back({bytes, size, mark});
        }
        if (round % 4 == 0) { // something travels, and ends elsewhere
            job.send(loaded(job, random() % limit()), (self + 1) % job.size());
            while (!job.arrivals.empty()) {
                const Arrived got = job.receive();
                check(got.heap);
                EXPECT_STATUS(ISO_OK, iso_heap_destroy(got.heap));
            }
        }
        iso_progress(job.job);
    }
    for (const Block &block : blocks)
        whole(block);
    job.barrier();
    check_limit(job);
    job.finish();
}

// A child of a rank with windows reads what was there, and both go on.
void forked()
{
    Job job;
    iso_heap_t *heap = loaded(job, limit() / 4);
    job.send(heap, self ^ 1);
    heap = job.receive().heap;
    check(heap);
    const pid_t child = fork();
    if (child == 0) {
        check(heap);
        _exit(0);
    }
    for (int i = 0; i < 4; i++) {
        change(heap);
        job.send(heap, self ^ 1);
        heap = job.receive().heap;
        check(heap);
    }
    EXPECT(child > 0);
    job.barrier();
    job.finish();
}

} // namespace

int main(int argc, char **argv)
{
    return run_test({{"span", span},
                     {"fits", fits},
                     {"ten_times", ten_times},
                     {"large", large},
                     {"straight_back", straight_back},
                     {"crowd", crowd},
                     {"borrower_killed", borrower_killed},
                     {"borrower_stopped", borrower_stopped},
                     {"released", released},
                     {"forked", forked}},
                    argc, argv);
}
