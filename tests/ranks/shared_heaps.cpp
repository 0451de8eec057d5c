// Heaps for many threads: in every rank several threads hammer a heap that then goes to the next rank,
// whose threads hammer it on.
#include "ranks.hpp"
#include <atomic>
#include <thread>

namespace {

constexpr unsigned workers = 3;
const unsigned steps = 12000 / scale;
constexpr unsigned places = 300;

struct Block {
    size_t size;
    unsigned char mark;
    unsigned char *bytes()
    {
        return reinterpret_cast<unsigned char *>(this + 1);
    }
};

// What the heap carries: whoever takes a block out of its place is its only user.
struct Root {
    std::atomic<Block *> blocks[places];
    std::atomic<uint64_t> live;
};

void check(Block *block)
{
    for (size_t i = 0; i < block->size; i++)
        EXPECT(block->bytes()[i] == block->mark);
}

void hammer(iso_heap_t *heap, uint64_t seed)
{
    auto *root = static_cast<Root *>(iso_heap_root(heap));
    for (unsigned i = 0; i < steps; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        const uint64_t draw = seed >> 33;
        Block *mine = nullptr;
        if (draw % 5 != 0) {
            const size_t size = draw % 400 == 1 ? 100000 + draw % 50000 : draw % 1200;
            mine = static_cast<Block *>(iso_malloc(heap, sizeof(Block) + size));
            EXPECT(mine != nullptr);
            *mine = {size, static_cast<unsigned char>(draw)};
            std::memset(mine->bytes(), mine->mark, size);
            root->live++;
        }
        Block *other = root->blocks[draw / 1200 % places].exchange(mine);
        if (other == nullptr)
            continue;
        check(other);
        EXPECT(iso_usable_size(other) >= sizeof(Block) + other->size);
        iso_free(other); // mostly another thread's, and at times another rank's
        root->live--;
    }
}

void hammer_in_threads(iso_heap_t *heap, uint64_t seed)
{
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < workers; i++)
        threads.emplace_back(hammer, heap, seed * workers + i);
    for (std::thread &thread : threads)
        thread.join();
    iso_heap_stats_t stats;
    EXPECT_STATUS(ISO_OK, iso_heap_stats(heap, &stats));
    EXPECT(stats.blocks == 1 + static_cast<Root *>(iso_heap_root(heap))->live);
}

iso_heap_t *shared_heap(const Job &job)
{
    iso_heap_t *heap = nullptr;
    EXPECT_STATUS(ISO_OK, iso_heap_create_flags(job.job, ISO_HEAP_SHARED, &heap));
    void *memory = iso_calloc(heap, 1, sizeof(Root));
    EXPECT(memory != nullptr);
    iso_heap_set_root(heap, new (memory) Root());
    return heap;
}

// Every rank makes a heap; all of them go round, and end where they began.
void travel()
{
    Job job;
    const unsigned hops = 4 * job.size();
    iso_heap_t *heap = shared_heap(job), *mine = heap;
    for (unsigned hop = 0; hop < hops; hop++) {
        hammer_in_threads(heap, uint64_t{hop} * job.size() + self + 1);
        job.send(heap, (self + 1) % job.size());
        heap = job.receive().heap;
    }
    EXPECT(heap == mine);
    hammer_in_threads(heap, 1);
    auto *root = static_cast<Root *>(iso_heap_root(heap));
    for (std::atomic<Block *> &block : root->blocks)
        if (block != nullptr) {
            check(block);
            iso_free(block);
        }
    iso_heap_stats_t stats;
    EXPECT_STATUS(ISO_OK, iso_heap_stats(heap, &stats));
    EXPECT(stats.blocks == 1);
    EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
    job.barrier();
    job.finish();
}

// iso_migrate while another thread is inside waits for it; what that thread did has come along.
void inside()
{
    Job job;
    if (self == 0) {
        struct Inside {
            iso_heap_t *heap;
            std::atomic<int> stage{0};
        } inside;
        inside.heap = shared_heap(job);
        std::thread walker([&inside] {
            EXPECT_STATUS(ISO_OK, iso_heap_walk(
                                      inside.heap,
                                      [](void *block, size_t size, void *arg) {
                                          auto *i = static_cast<Inside *>(arg);
                                          i->stage = 1;
                                          usleep(300000); // the heap would have left long ago
                                          EXPECT(iso_usable_size(block) == size);
                                          EXPECT(iso_heap_state(i->heap) == ISO_HEAP_OWNED);
                                          static_cast<Root *>(block)->live = 77;
                                          i->stage = 2;
                                          return false;
                                      },
                                      &inside));
        });
        while (inside.stage == 0)
            usleep(1000);
        iso_request_t *request = job.start(inside.heap, 1);
        EXPECT(inside.stage == 2);
        walker.join();
        EXPECT_STATUS(ISO_OK, iso_wait(request));
    } else if (self == 1) {
        iso_heap_t *heap = job.receive().heap;
        EXPECT(static_cast<Root *>(iso_heap_root(heap))->live == 77);
        EXPECT(iso_malloc(heap, 10) != nullptr);
    }
    job.barrier();
    job.finish();
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"travel", travel}, {"inside", inside}};
    return run_test(tests, argc, argv);
}
