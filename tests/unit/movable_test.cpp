// Blocks that move on their own.
#include "tests/unit/allocator.hpp"
#include "tests/unit/support.hpp"
#include <csignal>
#include <isomalloc/pup.h>
#include <unistd.h>

namespace {

void fill(void *block, size_t size, unsigned char seed)
{
    auto *bytes = static_cast<unsigned char *>(block);
    for (size_t i = 0; i < size; i++)
        bytes[i] = static_cast<unsigned char>(seed + i / 3);
}

bool holds(const void *block, size_t size, unsigned char seed)
{
    const auto *bytes = static_cast<const unsigned char *>(block);
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != static_cast<unsigned char>(seed + i / 3))
            return false;
    return true;
}

} // namespace

TEST_CASE("movable: a block of any size is all of its heap, and ends it", "[movable]")
{
    Job job;
    const uint64_t before = job.slots_free();
    for (const size_t size : {0, 1, 100, 5000, 70000, 2 << 20, 5000000}) {
        INFO(size);
        void *block = iso_movable_alloc(job.job, size);
        REQUIRE(block != nullptr);
        REQUIRE(reinterpret_cast<uintptr_t>(block) % 4096 == 0);
        REQUIRE(iso_usable_size(block) >= size);
        REQUIRE(iso_movable_length(block) == size);
        iso_heap_t *heap = iso_heap_of(block);
        REQUIRE(iso_heap_root(heap) == block);
        iso_heap_stats_t stats;
        REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
        REQUIRE(stats.blocks == 1);
        const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE)),
                   pages = (std::max<size_t>(size, 1) + page - 1) / page;
        REQUIRE(stats.live_bytes <= (pages + 3 + 1) * page); // under a tool it has a gap behind it
        fill(block, size, 7);
        REQUIRE(holds(block, size, 7));
        iso_free(block);
        REQUIRE(iso_heap_of(block) == nullptr);
        REQUIRE(iso_heap_state(heap) == ISO_HEAP_ELSEWHERE);
        REQUIRE(job.slots_free() == before);
    }
}

TEST_CASE("movable: it grows and shrinks, and stays the one of its heap", "[movable]")
{
    Job job;
    const uint64_t before = job.slots_free();
    void *block = iso_movable_alloc(job.job, 100);
    iso_heap_t *heap = iso_heap_of(block);
    fill(block, 100, 1);
    for (const size_t size : {50, 3000, 1, 6000000, 100, 9000000, 4000000}) {
        INFO(size);
        const size_t kept = std::min<size_t>(iso_usable_size(block), std::min<size_t>(size, 100));
        void *other = iso_realloc(nullptr, block, size);
        REQUIRE(other != nullptr);
        REQUIRE(iso_heap_of(other) == heap);
        REQUIRE(iso_heap_root(heap) == other);
        REQUIRE(iso_movable_length(other) == size);
        REQUIRE(holds(other, std::min<size_t>(kept, 1), 1));
        iso_heap_stats_t stats;
        REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
        REQUIRE(stats.blocks == 1);
        block = other;
    }
    iso_free(block);
    REQUIRE(job.slots_free() == before);
}

TEST_CASE("movable: freed twice it aborts, and used after that it faults", "[movable]")
{
    for (const size_t size : {100, 5000000}) {
        INFO(size);
        const auto twice = in_child([size] {
            Job job;
            void *block = iso_movable_alloc(job.job, size);
            iso_free(block);
            iso_free(block);
            return 0;
        });
        REQUIRE(twice.aborted());
        REQUIRE(contains(twice.stderr_text, "iso_free(0x"));
        const auto used = in_child([size] {
            Job job(256u << 20, 0, false);
            auto *block = static_cast<volatile char *>(iso_movable_alloc(job.job, size));
            block[0] = 1;
            iso_free(const_cast<char *>(block));
            block[0] = 2;
            return 0;
        });
        REQUIRE(WIFSIGNALED(used.status));
        REQUIRE(WTERMSIG(used.status) == SIGSEGV);
    }
}

TEST_CASE("movable: many come and go", "[movable]")
{
    Job job;
    const uint64_t before = job.slots_free();
    std::vector<void *> blocks(300);
    for (size_t i = 0; i < blocks.size(); i++)
        fill(blocks[i] = iso_movable_alloc(job.job, 1 + i * 50), 1 + i * 50,
             static_cast<unsigned char>(i));
    for (size_t i = 0; i < blocks.size(); i += 2)
        iso_free(blocks[i]);
    for (size_t i = 1; i < blocks.size(); i += 2) {
        REQUIRE(holds(blocks[i], 1 + i * 50, static_cast<unsigned char>(i)));
        iso_free(blocks[i]);
    }
    REQUIRE(job.slots_free() == before);
}

TEST_CASE("movable: without room there is none", "[movable]")
{
    const auto result = in_child([] {
        Job job;
        const uint64_t before = job.slots_free();
        errno = 0;
        if (iso_movable_alloc(job.job, 32ull << 30) != nullptr || errno != ENOMEM)
            return 1;
        return job.slots_free() == before ? 0 : 2;
    });
    REQUIRE(result.exited_with(0));
}

TEST_CASE("movable: one block in a pup_er, copied and moved", "[movable][pup]")
{
    Job job;
    const uint64_t before = job.slots_free();
    for (const size_t size : {10, 100000, 3000000}) {
        std::vector<char> bytes(size + 16 * static_cast<size_t>(sysconf(_SC_PAGESIZE)));
        void *block = iso_movable_alloc(job.job, size), *const address = block;
        fill(block, size, 3);
        for (const unsigned use : {0u, static_cast<unsigned>(ISO_PUP_DELETING)}) {
            pup_er p = iso_pup_new_to_memory(bytes.data(), bytes.size());
            REQUIRE(iso_pup_set_use(p, use) == ISO_OK);
            iso_pup_block(p, job.job, &block);
            REQUIRE(iso_pup_status(p) == ISO_OK);
            REQUIRE(pup_size(p) >= size);
            pup_destroy(p);
            REQUIRE(block == (use != 0 ? nullptr : address));
            if (block != nullptr)
                iso_free(block);
            block = nullptr;
            p = iso_pup_new_from_memory(bytes.data(), bytes.size());
            iso_pup_block(p, job.job, &block);
            REQUIRE(iso_pup_status(p) == ISO_OK);
            pup_destroy(p);
            REQUIRE(block == address);
            REQUIRE(holds(block, size, 3));
        }
        iso_free(block);
        REQUIRE(job.slots_free() == before);
    }
}

TEST_CASE("movable: other blocks are not, and a pup_er says so", "[movable][pup]")
{
    const auto result = in_child([] {
        Job job;
        void *block = iso_malloc(job.heap(), 5000000), *local = &job;
        pup_er p = pup_new_sizer();
        iso_pup_block(p, job.job, &block);
        if (iso_pup_status(p) != ISO_ERR_NOT_MOVABLE || pup_size(p) != 0)
            return 1;
        pup_destroy(p);
        p = pup_new_sizer();
        iso_pup_block(p, job.job, &local);
        if (iso_pup_status(p) != ISO_ERR_NOT_OWNER)
            return 2;
        pup_destroy(p);
        iso_heap_t *heap = nullptr;
        return iso_heap_create_flags(job.job, 0x80000000u, &heap) == ISO_ERR_INVALID ? 0 : 3;
    });
    REQUIRE(result.exited_with(0));
    REQUIRE(contains(result.stderr_text, "is not a block of iso_movable_alloc"));
    REQUIRE(contains(result.stderr_text, "0x80000000 has unknown flags"));
}
