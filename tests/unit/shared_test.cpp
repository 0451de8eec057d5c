// Heaps that many threads use at once.
#include "core/heap.h"
#include "core/live.h"
#include "tests/unit/support.hpp"
#include <atomic>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <vector>

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr unsigned steps = 8000;
#else
constexpr unsigned steps = 200000;
#endif
constexpr unsigned workers = 4;

struct SharedHeap {
    iso_job_t *job = nullptr;
    iso_heap_t *heap = nullptr;
    explicit SharedHeap(bool poison = true) // see iso_params_t: blocks are followed by a gap
    {
        iso_params_t params;
        REQUIRE(iso_params_init(&params) == ISO_OK);
        params.space_size = 16ull << 30;
        params.poison = poison;
        REQUIRE(iso_init(&params, &job) == ISO_OK);
        REQUIRE(iso_heap_create_flags(job, ISO_HEAP_SHARED, &heap) == ISO_OK);
    }
    SharedHeap(const SharedHeap &) = delete;
    SharedHeap &operator=(const SharedHeap &) = delete;
    ~SharedHeap()
    {
        iso_finalize(job);
    }
    [[nodiscard]] iso_heap_stats_t stats() const
    {
        iso_heap_stats_t stats;
        REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
        return stats;
    }
};

// A block says how long it is and what it is full of.
struct Block {
    size_t size;
    unsigned char mark;
    [[nodiscard]] bool is_whole() const
    {
        const auto *bytes = reinterpret_cast<const unsigned char *>(this + 1);
        return size == 0 || (bytes[0] == mark && std::memcmp(bytes, bytes + 1, size - 1) == 0);
    }
};

Block *fill(void *memory, size_t size, unsigned char mark)
{
    auto *block = static_cast<Block *>(memory);
    if (block != nullptr) {
        *block = {size, mark};
        std::memset(block + 1, mark, size);
    }
    return block;
}

size_t size_of(uint64_t draw)
{
    if (draw % 1000 == 0)
        return 3u << 20;
    return draw % 100 == 0 ? draw % 200000 : draw % 1500;
}

// Where blocks pass from thread to thread. Nothing of Catch2 in a thread: what went wrong is counted.
struct Exchange {
    iso_heap_t *heap;
    std::atomic<Block *> blocks[200] = {};
    std::atomic<unsigned> wrong{0};

    void work(unsigned seed)
    {
        std::mt19937_64 random(seed);
        for (unsigned i = 0; i < steps; i++) {
            const uint64_t draw = random();
            const size_t size = size_of(draw >> 8);
            Block *mine = nullptr;
            if (draw % 4 != 0)
                mine = fill(iso_malloc(heap, sizeof(Block) + size), size,
                            static_cast<unsigned char>(draw));
            Block *other = blocks[random() % 200].exchange(mine);
            if (other == nullptr)
                continue;
            wrong += !other->is_whole() || iso_usable_size(other) < sizeof(Block) + other->size ||
                     iso_heap_of(other) != heap;
            if (draw % 8 == 1) {
                const size_t kept = std::min(other->size, size);
                auto *moved =
                    static_cast<Block *>(iso_realloc(nullptr, other, sizeof(Block) + size));
                moved->size = kept;
                wrong += !moved->is_whole();
                other = moved;
            }
            iso_free(other);
        }
    }
};

bool count_block(void * /*block*/, size_t size, void *arg)
{
    *static_cast<size_t *>(arg) += size;
    return true;
}

} // namespace

TEST_CASE("threads allocate from a shared heap and free each other's blocks", "[shared]")
{
    const SharedHeap shared;
    const auto exchange = std::make_unique<Exchange>();
    exchange->heap = shared.heap;
    std::vector<std::thread> threads;
    std::atomic<bool> ended{false};
    for (unsigned i = 0; i < workers; i++)
        threads.emplace_back([&, i] { exchange->work(i + 1); });
    std::thread watcher([&] { // looks on while the others work
        while (!ended) {
            iso_heap_stats_t stats;
            size_t bytes = 0;
            exchange->wrong += iso_heap_stats(shared.heap, &stats) != ISO_OK;
            exchange->wrong += iso_heap_walk(shared.heap, count_block, &bytes) != ISO_OK;
            exchange->wrong += iso_heap_populate(shared.heap) != ISO_OK;
            std::this_thread::yield();
        }
    });
    for (std::thread &thread : threads)
        thread.join();
    ended = true;
    watcher.join();
    CHECK(exchange->wrong == 0);
    uint64_t left = 0;
    for (auto &block : exchange->blocks)
        left += block != nullptr;
    CHECK(shared.stats().blocks == left);
    for (auto &block : exchange->blocks)
        iso_free(block);
    CHECK(shared.stats().blocks == 0);

    // what the threads have kept for themselves is free, too, when the heap leaves
    iso_hold_t *hold = iso_hold_find(nullptr, shared.heap);
    iso_heap_freeze(hold);
    size_t live = 0;
    iso_live_runs(
        hold, 4096,
        [](void * /*address*/, size_t length, void *arg) {
            *static_cast<size_t *>(arg) += length;
            return true;
        },
        &live);
    iso_heap_thaw(hold);
    CHECK(live == 8192);
    CHECK(shared.stats().slots == 1);
    void *again = iso_malloc(shared.heap, 100);
    CHECK(shared.stats().blocks == 1);
    iso_free(again);
}

TEST_CASE("no two threads get the same block", "[shared]")
{
    const SharedHeap shared(false);
    const size_t size = GENERATE(16, 48, 256, 1024, 8192, 32768);
    const size_t each = 400000 / size + 50;
    std::vector<std::vector<void *>> blocks(workers);
    std::vector<std::thread> threads;
    for (auto &mine : blocks)
        threads.emplace_back([&] {
            for (size_t i = 0; i < each; i++)
                mine.push_back(iso_malloc(shared.heap, size));
        });
    for (std::thread &thread : threads)
        thread.join();
    std::set<void *> all;
    for (const auto &mine : blocks)
        all.insert(mine.begin(), mine.end());
    CHECK(all.count(nullptr) == 0);
    CHECK(all.size() == workers * each);
    CHECK(shared.stats().blocks == all.size());
    CHECK(shared.stats().block_bytes == all.size() * size);
    for (void *block : all)
        iso_free(block);
}

TEST_CASE("a block of a shared heap that two threads free ends the process", "[shared]")
{
    const SharedHeap shared;
    for (const size_t size : {16, 300, 100000}) {
        const ChildResult child = in_child([&] {
            iso_heap_t *heap = nullptr;
            if (iso_heap_create_flags(shared.job, ISO_HEAP_SHARED, &heap) != ISO_OK)
                return 1;
            void *keep = iso_malloc(heap, size), *block = iso_malloc(heap, size);
            if (keep == nullptr)
                return 1;
            std::thread([&] { iso_free(block); }).join();
            iso_free(block);
            return 0;
        });
        CHECK(child.aborted());
        CHECK(contains(child.stderr_text, "free already"));
    }
}

TEST_CASE("a walk's callback may ask about the blocks of a shared heap", "[shared]")
{
    const SharedHeap shared;
    void *block = iso_malloc(shared.heap, 1000);
    CHECK(iso_heap_walk(
              shared.heap,
              [](void *at, size_t size, void * /*arg*/) { return iso_usable_size(at) == size; },
              nullptr) == ISO_OK);
    iso_free(block);
}
