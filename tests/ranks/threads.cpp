// Thread level MULTIPLE: in every rank several threads allocate in heaps of their own, send them on and
// take those that arrive, while another makes progress all the time.
#include "ranks.hpp"
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

namespace {

constexpr unsigned workers = 3;
constexpr unsigned heaps_a_rank = 8;
const unsigned rounds = 60 / scale; // of every heap through all ranks
constexpr size_t list_length = 200;

// What a heap carries: blocks of random sizes, each full of a byte.
struct Block {
    Block *next;
    size_t size;
    unsigned char mark;
    unsigned char *bytes()
    {
        return reinterpret_cast<unsigned char *>(this + 1);
    }
};
struct Root {
    Block *blocks;
    uint32_t origin, hops_left;
    uint64_t random;
};

struct Crowd {
    iso_job_t *job = nullptr;
    std::mutex mutex;
    std::condition_variable arrived;
    std::deque<iso_heap_t *> waiting;
    std::atomic<unsigned> home{0};
    std::atomic<bool> ended{false};
};

void on_arrival(iso_job_t * /*job*/, const iso_arrival_t *arrival, void *arg)
{
    auto *crowd = static_cast<Crowd *>(arg);
    const std::lock_guard<std::mutex> lock(crowd->mutex);
    crowd->waiting.push_back(arrival->heap);
    crowd->arrived.notify_one();
}

uint64_t next_random(Root *root)
{
    root->random = root->random * 6364136223846793005u + 1442695040888963407u;
    return root->random >> 33;
}

void add_block(iso_heap_t *heap, Root *root)
{
    const uint64_t draw = next_random(root);
    const size_t size = draw % 50 == 0 ? 100000 + draw % 50000 : draw % 1000;
    auto *block = static_cast<Block *>(iso_malloc(heap, sizeof(Block) + size));
    EXPECT(block != nullptr);
    *block = {root->blocks, size, static_cast<unsigned char>(draw)};
    std::memset(block->bytes(), block->mark, size);
    root->blocks = block;
}

void check_and_free(Block *block)
{
    for (size_t i = 0; i < block->size; i++)
        EXPECT(block->bytes()[i] == block->mark);
    iso_free(block);
}

iso_heap_t *new_heap(iso_job_t *job, uint64_t seed)
{
    iso_heap_t *heap = nullptr;
    EXPECT_STATUS(ISO_OK, iso_heap_create(job, &heap));
    auto *root = static_cast<Root *>(iso_malloc(heap, sizeof(Root)));
    EXPECT(root != nullptr);
    *root = {nullptr, iso_rank(job), rounds * iso_size(job), seed};
    for (size_t i = 0; i < list_length; i++)
        add_block(heap, root);
    iso_heap_set_root(heap, root);
    return heap;
}

// Frees a random part of the blocks, checked, and makes as many new ones.
void use(iso_heap_t *heap, Root *root)
{
    Block *kept = nullptr;
    size_t freed = 0;
    for (Block *block = root->blocks, *next = nullptr; block != nullptr; block = next) {
        next = block->next;
        if (next_random(root) % 4 == 0) {
            check_and_free(block);
            freed++;
        } else {
            block->next = kept;
            kept = block;
        }
    }
    root->blocks = kept;
    for (; freed > 0; freed--)
        add_block(heap, root);
}

void work(Crowd *crowd, unsigned number)
{
    std::minstd_rand random(seed() + self * workers + number);
    for (;;) {
        iso_heap_t *heap = nullptr;
        {
            std::unique_lock<std::mutex> lock(crowd->mutex);
            crowd->arrived.wait(lock, [&] { return crowd->ended || !crowd->waiting.empty(); });
            if (crowd->waiting.empty())
                return;
            heap = crowd->waiting.front();
            crowd->waiting.pop_front();
        }
        auto *root = static_cast<Root *>(iso_heap_root(heap));
        use(heap, root);
        // a heap that lives here only for a moment: slots change hands between the threads
        iso_heap_t *brief = new_heap(crowd->job, random());
        use(brief, static_cast<Root *>(iso_heap_root(brief)));
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(brief));
        if (root->hops_left == 0) {
            EXPECT(root->origin == self);
            while (root->blocks != nullptr) {
                Block *block = root->blocks;
                root->blocks = block->next;
                check_and_free(block);
            }
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
            crowd->home++;
            continue;
        }
        root->hops_left--;
        iso_request_t *request = nullptr;
        const uint32_t dest = (self + 1) % iso_size(crowd->job);
        EXPECT_STATUS(ISO_OK, iso_migrate(heap, dest, nullptr, 0, &request));
        EXPECT_STATUS(ISO_OK, iso_wait(request));
    }
}

void crowd()
{
    Crowd crowd;
    iso_params_t params;
    EXPECT_STATUS(ISO_OK, iso_params_init(&params));
    params.thread_level = ISO_THREAD_MULTIPLE;
    params.arrival = on_arrival;
    params.arrival_arg = &crowd;
    EXPECT_STATUS(ISO_OK, iso_init(&params, &crowd.job));
    self = iso_rank(crowd.job);
    for (unsigned i = 0; i < heaps_a_rank; i++)
        crowd.waiting.push_back(new_heap(crowd.job, seed() + self * heaps_a_rank + i));
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < workers; i++)
        threads.emplace_back(work, &crowd, i);
    std::thread progress([&crowd] {
        while (!crowd.ended)
            iso_progress_wait(crowd.job, 0.01);
    });
    const double until = now() + 90;
    while (crowd.home < heaps_a_rank) {
        EXPECT(now() < until);
        usleep(1000);
    }
    EXPECT_STATUS(ISO_OK, iso_barrier(crowd.job)); // others' heaps still pass through here
    {
        const std::lock_guard<std::mutex> lock(crowd.mutex);
        crowd.ended = true;
    }
    crowd.arrived.notify_all();
    for (std::thread &thread : threads)
        thread.join();
    progress.join();
    iso_stats_t stats;
    iso_stats(crowd.job, &stats);
    EXPECT(stats.heaps == 0 && stats.messages_dropped == 0 && stats.migrations_failed == 0);
    EXPECT(stats.migrations_out == uint64_t{heaps_a_rank} * rounds * iso_size(crowd.job));
    EXPECT_STATUS(ISO_OK, iso_finalize(crowd.job));
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"crowd", crowd}};
    return run_test(tests, argc, argv);
}
