// A freed large block faults when it is used, and the memory serves again: by the kernel's guards where
// it has them, by protection, and by protection up to a budget.
#include "tests/unit/support.hpp"
#include <csignal>
#include <cstring>
#include <fstream>
#include <isomalloc/isomalloc.h>
#include <vector>

namespace {

constexpr size_t large = 5u << 20;

struct GuardJob {
    iso_job_t *job = nullptr;
    iso_heap_t *heap = nullptr;
    explicit GuardJob(iso_guard_t guard, uint32_t budget = 1024, uint64_t retain = 256u << 20)
    {
        iso_params_t params;
        iso_params_init(&params);
        params.space_size = 1ull << 30;
        params.poison = false; // a sanitizer would be the first to find what is done here
        params.guard = guard;
        params.guard_budget = budget;
        params.retain = retain;
        if (iso_init(&params, &job) != ISO_OK || iso_heap_create(job, &heap) != ISO_OK)
            _exit(99);
    }
    ~GuardJob()
    {
        iso_finalize(job);
    }
    GuardJob(const GuardJob &) = delete;
    GuardJob &operator=(const GuardJob &) = delete;
    [[nodiscard]] volatile char *block(size_t size = large, int fill = 1) const
    {
        void *block = iso_malloc(heap, size);
        if (block == nullptr)
            _exit(98);
        memset(block, fill, size);
        return static_cast<volatile char *>(block);
    }
    [[nodiscard]] iso_stats_t stats() const
    {
        iso_stats_t stats;
        iso_stats(job, &stats);
        return stats;
    }
};

void give_back(volatile char *block)
{
    iso_free(const_cast<char *>(block));
}

bool faulted(const ChildResult &child)
{
    return WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGSEGV;
}

// Of memory objects: a sanitizer's own come and go.
size_t mappings()
{
    std::ifstream maps("/proc/self/maps");
    size_t count = 0;
    for (std::string line; std::getline(maps, line);)
        count += contains(line, "memfd:");
    return count;
}

} // namespace

TEST_CASE("a freed large block faults on use", "[guard]")
{
    const char *without = GENERATE("0", "1");
    const ScopedEnv means("ISO_TEST_NO_GUARD_INSTALL", without);
    const bool aligned = GENERATE(false, true);
    const size_t at = GENERATE(size_t{0}, large / 2, large - 1);
    const iso_guard_t guard = GENERATE(ISO_GUARD_NONE, ISO_GUARD_FIRST, ISO_GUARD_ALL);
    const bool whole_heap = GENERATE(false, true);
    CAPTURE(without, aligned, at, guard, whole_heap);
    const ChildResult child = in_child([&] {
        const GuardJob own(guard);
        volatile char *block = own.block();
        if (aligned) {
            give_back(block);
            block = static_cast<char *>(iso_aligned_alloc(own.heap, 2 << 20, large));
            memset(const_cast<char *>(block), 1, large);
        }
        if (whole_heap)
            iso_heap_destroy(own.heap);
        else
            give_back(block);
        if (own.stats().guards != (guard != ISO_GUARD_NONE))
            return 97;
        (void)block[at];
        return 0;
    });
    INFO(child.stderr_text);
    if (guard == ISO_GUARD_ALL || (guard == ISO_GUARD_FIRST && at == 0))
        CHECK(faulted(child));
    else
        CHECK(child.exited_with(0));
}

TEST_CASE("memory that was guarded serves again, whole or in parts, given back meanwhile or not",
          "[guard]")
{
    const char *without = GENERATE("0", "1");
    const ScopedEnv means("ISO_TEST_NO_GUARD_INSTALL", without);
    const iso_guard_t guard = GENERATE(ISO_GUARD_FIRST, ISO_GUARD_ALL);
    const uint64_t retain = GENERATE(uint64_t{0}, uint64_t{256} << 20);
    CAPTURE(without, guard, retain);
    const GuardJob own(guard, 1024, retain);
    std::vector<volatile char *> blocks;
    for (int i = 0; i < 20; i++)
        blocks.push_back(own.block());
    const uint64_t released = own.stats().released_bytes;
    for (int i = 0; i < 20; i += 2)
        give_back(blocks[static_cast<size_t>(i)]);
    CHECK(own.stats().guards == 10);
    for (int i = 1; i < 20; i += 2)
        give_back(blocks[static_cast<size_t>(i)]);
    CHECK(own.stats().guards == (guard == ISO_GUARD_ALL ? 1 : 20));
    if (retain == 0) // pages go under a guard as without
        CHECK(own.stats().released_bytes - released >= 20 * large);
    // other sizes: whatever lies there now, headers and contents, at other offsets
    for (size_t size : {3u << 20, 11u << 20, 40u << 20, 1u << 20, 500u})
        for (int i = 0; i < 3; i++)
            (void)own.block(size, 2);
    iso_heap_t *heap = nullptr;
    REQUIRE(iso_heap_create(own.job, &heap) == ISO_OK);
    CHECK(iso_malloc(heap, 200 << 20) != nullptr);
    CHECK(own.stats().guards_not_made == 0);
}

TEST_CASE("a guard splits no mapping where the kernel has them, else a budget holds", "[guard]")
{
    const bool kernel = GENERATE(true, false);
    const ScopedEnv means("ISO_TEST_NO_GUARD_INSTALL", kernel ? nullptr : "1");
    const iso_guard_t guard = GENERATE(ISO_GUARD_FIRST, ISO_GUARD_ALL);
    CAPTURE(kernel, guard);
    const ChildResult child = in_child([&] {
        const GuardJob own(guard, 5);
        std::vector<volatile char *> blocks;
        for (int i = 0; i < 40; i++)
            blocks.push_back(own.block(3 << 20));
        const size_t before = mappings();
        for (size_t i = 0; i < blocks.size(); i += 2)
            give_back(blocks[i]);
        const size_t more = mappings() - before;
        const iso_stats_t stats = own.stats();
        if (stats.guards + stats.guards_not_made != 20)
            return 1;
        if (stats.guards_not_made > 0 ? more > 10 || stats.guards != 5 : more > 0)
            return 2;
        if (stats.guards_not_made == 0 && !kernel)
            return 3;
        const volatile char kept = blocks[1][0]; // what is between guards is not touched by them
        for (int i = 0; i < 20; i++)
            (void)own.block(3 << 20);
        return kept == 1 && own.stats().guards == 0 && mappings() <= before ? 0 : 4;
    });
    INFO(child.stderr_text);
    CHECK(child.exited_with(0));
    if (!kernel) {
        CHECK(line_count(child.stderr_text) == 1); // warned of once
        CHECK(contains(child.stderr_text, "ISO_GUARD_BUDGET"));
    }
}
