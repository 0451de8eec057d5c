// Huge pages: landing pages of a dense heap are made of them, a large block that is cleared as well, and
// what is freed inside of one is given back as ever.
#include "ranks.hpp"
#include <sys/mman.h>

namespace {

struct Memory {
    size_t resident, huge, mappings; // of the iso space; KiB
};

Memory memory_of_space(const Job &job)
{
    Memory memory = {0, 0, 0};
    void *base;
    size_t size, kib;
    iso_space(job.job, &base, &size);
    FILE *file = std::fopen("/proc/self/smaps", "re");
    EXPECT(file != nullptr);
    char line[512];
    bool here = false;
    while (std::fgets(line, sizeof line, file) != nullptr) {
        unsigned long start, end;
        if (std::sscanf(line, "%lx-%lx ", &start, &end) == 2) {
            here = start - reinterpret_cast<uintptr_t>(base) < size;
            memory.mappings += here;
        } else if (here && std::sscanf(line, "Rss: %zu", &kib) == 1) {
            memory.resident += kib;
        } else if (here && (std::sscanf(line, "AnonHugePages: %zu", &kib) == 1 ||
                            std::sscanf(line, "ShmemPmdMapped: %zu", &kib) == 1)) {
            memory.huge += kib;
        }
    }
    std::fclose(file);
    return memory;
}

// Does the kernel make huge pages at all?
bool kernel_can()
{
    const size_t size = 2 * ISO_SLOT_SIZE;
    void *map = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(map != MAP_FAILED);
    char *slot = static_cast<char *>(map);
    slot += -reinterpret_cast<uintptr_t>(slot) % ISO_SLOT_SIZE;
    *slot = 1;
    const bool can = madvise(slot, ISO_SLOT_SIZE, 25 /* MADV_COLLAPSE */) == 0;
    munmap(map, size);
    return can;
}

bool wanted()
{
    const char *setting = std::getenv("ISO_HUGE_PAGES");
    return setting != nullptr && std::strcmp(setting, "auto") == 0;
}

// The machine may have no huge page free at the moment, or be slow at it: the library then does without
// for a while, so that this is tried with heap after heap.
template <typename Attempt> void expect_huge(const Attempt &attempt)
{
    const bool can = kernel_can();
    bool seen = false;
    const double until = now() + 20;
    do
        seen = attempt();
    while (wanted() && can && !seen && now() < until);
    EXPECT(seen == (wanted() && can));
    if (!can)
        std::printf("no huge pages here: not tested\n");
}

void landing()
{
    constexpr size_t size = 24 << 20;
    Job job;
    if (self == 0) {
        for (bool more = true; more;) {
            iso_heap_t *heap = job.heap();
            void *block = iso_malloc(heap, size);
            EXPECT(block != nullptr);
            std::memset(block, 5, size);
            iso_heap_set_root(heap, block);
            job.send(heap, 1);
            const Arrived back = job.receive();
            more = back.header[0] == 'm';
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(back.heap));
        }
    } else {
        iso_heap_t *heap = nullptr;
        expect_huge([&] {
            if (heap != nullptr)
                job.send(heap, 0, "more", 4);
            heap = job.receive().heap;
            const Memory here = memory_of_space(job); // before anything is looked at
            const char *block = static_cast<char *>(iso_heap_root(heap));
            for (size_t i = 0; i < size; i += 1000)
                EXPECT(block[i] == 5);
            EXPECT(here.mappings == 1);
            return here.huge > 0;
        });
        job.send(heap, 0, "enough", 6);
    }
    job.barrier();
    job.finish();
}

void cleared()
{
    constexpr size_t size = 24 << 20;
    Job job;
    expect_huge([&] {
        iso_heap_t *heap = job.heap();
        auto *block = static_cast<char *>(iso_malloc(heap, size));
        EXPECT(block != nullptr);
        EXPECT(memory_of_space(job).huge == 0); // nobody has said that it will be filled
        iso_free(block);
        block = static_cast<char *>(iso_calloc(heap, 1, size));
        EXPECT(block != nullptr);
        for (size_t i = 0; i < size; i++)
            EXPECT(block[i] == 0);
        const Memory here = memory_of_space(job);
        EXPECT(here.mappings == 1);
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
        return here.huge > 0;
    });
    job.finish();
}

// A heap of small blocks, dense when it comes; then all but one block of 50 adjacent ones go.
void thinned()
{
    constexpr size_t blocks = 20000, block_size = 1024, keep = 50 * 64;
    Job job;
    iso_params_t params;
    EXPECT_STATUS(ISO_OK, iso_params_init(&params));
    if (self == 0) {
        iso_heap_t *heap = job.heap();
        auto **all = static_cast<char **>(iso_malloc(heap, blocks * sizeof(char *)));
        EXPECT(all != nullptr);
        for (size_t i = 0; i < blocks; i++) {
            all[i] = static_cast<char *>(iso_malloc(heap, block_size));
            EXPECT(all[i] != nullptr);
            std::memset(all[i], static_cast<int>(i % 251), block_size);
        }
        iso_heap_set_root(heap, all);
        job.send(heap, 1);
    } else {
        iso_heap_t *heap = job.receive().heap;
        auto **all = static_cast<char **>(iso_heap_root(heap));
        for (size_t i = 0; i < blocks; i++)
            if (i % keep != 0)
                iso_free(all[i]);
        iso_heap_stats_t stats;
        EXPECT_STATUS(ISO_OK, iso_heap_stats(heap, &stats));
        const iso_stats_t counters = job.stats();
        // the units that still have a block stay whole
        const size_t held =
            (blocks / keep + 2 + stats.slots) * (64 << 10) + blocks * sizeof(char *);
        EXPECT(counters.retained_bytes <= params.retain);
        EXPECT(memory_of_space(job).resident << 10 <= held + params.retain);
        for (size_t i = 0; i < blocks; i += keep)
            for (size_t at = 0; at < block_size; at++)
                EXPECT(all[i][at] == static_cast<char>(i % 251));
    }
    job.barrier();
    job.finish();
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"landing", landing}, {"cleared", cleared}, {"thinned", thinned}};
    return run_test(tests, argc, argv);
}
