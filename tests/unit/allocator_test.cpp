// The allocator against a model and against what C says: what it hands out, and what it gives back.
#include "core/retain.h"
#include "tests/unit/allocator.hpp"
#include "tests/unit/support.hpp"
#include <cerrno>
#include <vector>

TEST_CASE("random operations agree with a model", "[allocator]")
{
    const uint32_t flags = GENERATE(0, ISO_HEAP_SHARED);
    Job job(256u << 20, flags);
    struct Kind {
        size_t largest;
        int steps;
    };
    for (const Kind &kind : {Kind{600, 40000}, Kind{40000, 20000}, Kind{5000000, 1200}}) {
        Model model(job.heap(), static_cast<uint32_t>(kind.largest));
        for (int i = 0; i < kind.steps / scale; i++) {
            model.step(kind.largest);
            if (i % 8000 == 0)
                model.check_all();
        }
        model.check_all();
        model.free_all();
        model.check_all();
    }
}

TEST_CASE("sizes and alignments of every kind are handed out as C says", "[allocator]")
{
    Job job(256u << 20, 0, false);
    iso_heap_t *heap = job.heap();
    for (size_t size = 0; size < 5000000; size += 1 + size / 9) {
        void *a = iso_malloc(heap, size), *b = iso_malloc(heap, size);
        REQUIRE(a != nullptr);
        REQUIRE(a != b);
        CHECK(reinterpret_cast<uintptr_t>(a) % 16 == 0);
        if (size > 0 && size <= 4096 && (size & (size - 1)) == 0)
            CHECK(reinterpret_cast<uintptr_t>(a) % size == 0);
        CHECK(iso_usable_size(a) >= size);
        CHECK(iso_usable_size(a) <= size + std::max<size_t>(16, size / 4 + 16));
        iso_free(a);
        iso_free(b);
    }
    for (size_t alignment = 1; alignment <= ISO_SLOT_SIZE; alignment *= 2)
        for (size_t size :
             {size_t{0}, size_t{1}, size_t{100}, size_t{4096}, size_t{70000}, size_t{3000000}}) {
            void *block = iso_aligned_alloc(heap, alignment, size);
            REQUIRE(block != nullptr);
            CHECK(reinterpret_cast<uintptr_t>(block) % alignment == 0);
            REQUIRE(iso_usable_size(block) >= size);
            std::memset(block, 1, size);
            iso_free(block);
        }
    errno = 0;
    CHECK(iso_aligned_alloc(heap, 3, 8) == nullptr);
    CHECK(errno == EINVAL);
    errno = 0;
    CHECK(iso_aligned_alloc(heap, 2 * ISO_SLOT_SIZE, 8) == nullptr);
    CHECK(errno == EINVAL);
    volatile size_t huge = PTRDIFF_MAX; // not known to the compiler, which would warn
    errno = 0;
    CHECK(iso_malloc(heap, huge + 1) == nullptr);
    CHECK(errno == ENOMEM);
    errno = 0;
    CHECK(iso_calloc(heap, huge, 4) == nullptr);
    CHECK(errno == ENOMEM);
    void *kept = iso_malloc(heap, 100);
    std::memset(kept, 7, 100);
    errno = 0;
    CHECK(iso_realloc(heap, kept, huge) == nullptr);
    CHECK(errno == ENOMEM);
    CHECK(static_cast<unsigned char *>(kept)[99] == 7);
    iso_free(nullptr);
    CHECK(iso_usable_size(nullptr) == 0);
    int outside = 0;
    CHECK_FALSE(iso_in_range(&outside));
    CHECK(iso_heap_of(&outside) == nullptr);
    CHECK(iso_in_range(kept));
}

TEST_CASE("a block that grows step by step is not copied at every step", "[allocator]")
{
    Job job(256u << 20, 0, false);
    iso_heap_t *heap = job.heap();
    void *block = iso_malloc(heap, 1 << 20);
    int moves = 0;
    for (size_t size = 1 << 20; size < (size_t{64} << 20); size += 65536) {
        void *grown = iso_realloc(heap, block, size);
        REQUIRE(grown != nullptr);
        moves += grown != block;
        block = grown;
    }
    CHECK(moves <= 16);
}

TEST_CASE("freed memory is given back beyond what ISO_RETAIN keeps", "[allocator]")
{
    const uint64_t retain = GENERATE(0ull, 8ull << 20);
    Job job(retain);
    iso_heap_t *heap = job.heap();
    for (const size_t size : {size_t{64}, size_t{4096}, size_t{100000}, size_t{16} << 20}) {
        std::vector<void *> blocks;
        for (size_t bytes = 0; bytes < (size_t{64} << 20); bytes += size) {
            blocks.push_back(iso_malloc(heap, size));
            std::memset(blocks.back(), 1, size);
        }
        for (void *block : blocks)
            iso_free(block);
        iso_stats_t stats;
        iso_stats(job.job, &stats);
        CAPTURE(size, retain);
        CHECK(stats.retained_bytes <= retain);
        CHECK(stats.released_bytes >= (size_t{40} << 20));
    }
}

TEST_CASE("a medium block that grows is put where it can go on growing", "[allocator]")
{
    Job job(256u << 20, 0, false);
    iso_heap_t *heap = job.heap();
    void *hole = iso_malloc(heap, 2 * ISO_UNIT_SIZE), *behind = iso_malloc(heap, ISO_UNIT_SIZE);
    REQUIRE(behind == static_cast<char *>(hole) + 2 * ISO_UNIT_SIZE);
    void *vector = iso_malloc(heap, 1000);
    iso_free(hole);
    void *grown = iso_realloc(heap, vector, 2 * ISO_UNIT_SIZE); // would fit into the hole, just so
    CHECK(grown != hole);
    CHECK(iso_realloc(heap, grown, 4 * ISO_UNIT_SIZE) == grown);
    CHECK(iso_malloc(heap, 2 * ISO_UNIT_SIZE) == hole); // what does not grow goes there
}

TEST_CASE("a flag that is unknown is refused", "[allocator]")
{
    const ScopedEnv quiet("ISO_LOG_LEVEL", "error");
    Job job;
    iso_heap_t *heap = nullptr;
    CHECK(iso_heap_create_flags(job.job, ISO_HEAP_SHARED | 0x40000000u, &heap) == ISO_ERR_INVALID);
    CHECK(heap == nullptr);
}

TEST_CASE("a space that is full hands out again what little was freed", "[allocator]")
{
    const size_t size = GENERATE(16, 64, 300, 1000, 5000, 32768);
    iso_params_t params;
    REQUIRE(iso_params_init(&params) == ISO_OK);
    params.space_size = 16u << 20;
    params.poison = false; // no gap behind a block
    iso_job_t *job = nullptr;
    iso_heap_t *heap = nullptr;
    REQUIRE(iso_init(&params, &job) == ISO_OK);
    REQUIRE(iso_heap_create(job, &heap) == ISO_OK);
    std::vector<void *> blocks;
    while (void *block = iso_malloc(heap, size))
        blocks.push_back(block);
    CHECK(blocks.size() > (12u << 20) / size);
    std::set<void *> freed; // one here, one there: fewer than make a span worth a visit
    for (size_t i = 7; i < blocks.size(); i += 40)
        freed.insert(blocks[i]);
    for (void *block : freed)
        iso_free(block);
    for (size_t left = freed.size(); left > 0; left--)
        CHECK(freed.erase(iso_malloc(heap, size)) == 1);
    CHECK(iso_malloc(heap, size) == nullptr);
    REQUIRE(iso_finalize(job) == ISO_OK);
}
