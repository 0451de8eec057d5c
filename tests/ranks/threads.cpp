// Thread level MULTIPLE: in every rank several threads allocate in heaps of their own, send them on and
// take those that arrive, while another makes progress all the time. The same with objects of several heaps.
#include "ranks.hpp"
#include <atomic>
#include <condition_variable>
#include <isomalloc/pup.h>
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

// ---- objects ----

struct Thing {
    uint32_t origin, hops_left, length;
    unsigned char *bytes; // from malloc
    iso_heap_t *heap;
    void *block; // moves on its own
};
constexpr size_t block_size = 100000;

struct Company {
    iso_job_t *job = nullptr;
    std::mutex mutex;
    std::condition_variable arrived;
    std::deque<Thing *> waiting;
    std::atomic<unsigned> home{0}, freed{0};
    std::atomic<bool> ended{false};
};
Company *the_company = nullptr;

void pup_thing(pup_er p, void *object)
{
    auto *thing = static_cast<Thing *>(object);
    pup_uint(p, &thing->origin);
    pup_uint(p, &thing->hops_left);
    pup_uint(p, &thing->length);
    if (pup_isUnpacking(p))
        thing->bytes = static_cast<unsigned char *>(malloc(thing->length + 1));
    pup_bytes(p, thing->bytes, thing->length);
    iso_pup_heap(p, the_company->job, &thing->heap);
    iso_pup_block(p, the_company->job, &thing->block);
    if (pup_isDeleting(p)) {
        free(thing->bytes);
        the_company->freed++;
    }
}

void on_thing(iso_job_t * /*job*/, void *object, uint32_t /*source*/, iso_status_t status,
              void *arg)
{
    auto *company = static_cast<Company *>(arg);
    EXPECT_STATUS(ISO_OK, status);
    const std::lock_guard<std::mutex> lock(company->mutex);
    company->waiting.push_back(static_cast<Thing *>(object));
    company->arrived.notify_one();
}

Thing *new_thing(uint64_t random)
{
    auto *thing = static_cast<Thing *>(malloc(sizeof(Thing)));
    *thing = {self,
              rounds * iso_size(the_company->job),
              static_cast<uint32_t>(random % 70000),
              nullptr,
              nullptr,
              iso_movable_alloc(the_company->job, block_size)};
    thing->bytes = static_cast<unsigned char *>(malloc(thing->length + 1));
    std::memset(thing->bytes, static_cast<int>(thing->length), thing->length);
    std::memset(thing->block, static_cast<int>(thing->length), block_size);
    thing->heap = new_heap(the_company->job, random);
    return thing;
}

void check_thing(const Thing *thing)
{
    const auto *block = static_cast<const unsigned char *>(thing->block);
    const auto mark = static_cast<unsigned char>(thing->length);
    for (uint32_t i = 0; i < thing->length; i++)
        EXPECT(thing->bytes[i] == mark);
    EXPECT(block[0] == mark && std::memcmp(block, block + 1, block_size - 1) == 0);
}

void keep_company(Company *company)
{
    for (;;) {
        Thing *thing = nullptr;
        {
            std::unique_lock<std::mutex> lock(company->mutex);
            company->arrived.wait(lock,
                                  [&] { return company->ended || !company->waiting.empty(); });
            if (company->waiting.empty())
                return;
            thing = company->waiting.front();
            company->waiting.pop_front();
        }
        check_thing(thing);
        use(thing->heap, static_cast<Root *>(iso_heap_root(thing->heap)));
        if (thing->hops_left-- == 0) {
            EXPECT(thing->origin == self);
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(thing->heap));
            iso_free(thing->block);
            free(thing->bytes);
            free(thing);
            company->home++;
            continue;
        }
        iso_request_t *request = nullptr;
        EXPECT_STATUS(ISO_OK, iso_migrate_pup(company->job, (self + 1) % iso_size(company->job),
                                              "thing", thing, &request));
        EXPECT_STATUS(ISO_OK, iso_wait(request));
        free(thing);
    }
}

void objects()
{
    Company company;
    iso_params_t params;
    the_company = &company;
    EXPECT_STATUS(ISO_OK, iso_params_init(&params));
    params.thread_level = ISO_THREAD_MULTIPLE;
    EXPECT_STATUS(ISO_OK, iso_init(&params, &company.job));
    self = iso_rank(company.job);
    const iso_object_type_t type = {sizeof type, "thing", sizeof(Thing), pup_thing,
                                    on_thing,    nullptr, &company};
    EXPECT_STATUS(ISO_OK, iso_pup_register(company.job, &type));
    for (unsigned i = 0; i < heaps_a_rank; i++)
        company.waiting.push_back(new_thing(seed() + self * heaps_a_rank + i));
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < workers; i++)
        threads.emplace_back(keep_company, &company);
    const double until = now() + 90;
    while (company.home <
           heaps_a_rank) { // progress is the threads', while they wait, and this one's
        EXPECT(now() < until);
        iso_progress_wait(company.job, 0.01);
    }
    EXPECT_STATUS(ISO_OK, iso_barrier(company.job));
    {
        const std::lock_guard<std::mutex> lock(company.mutex);
        company.ended = true;
    }
    company.arrived.notify_all();
    for (std::thread &thread : threads)
        thread.join();
    iso_stats_t stats;
    iso_stats(company.job, &stats);
    EXPECT(company.freed == heaps_a_rank * rounds * iso_size(company.job));
    EXPECT(stats.heaps == 0 && stats.messages_dropped == 0 && stats.migrations_failed == 0);
    EXPECT_STATUS(ISO_OK, iso_finalize(company.job));
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"crowd", crowd}, {"objects", objects}};
    return run_test(tests, argc, argv);
}
