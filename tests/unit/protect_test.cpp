// Protections of a heap's pages in one process: what may be protected, and what ends it.
#include "core/around.h"
#include "tests/unit/protect.hpp"
#include <csignal>
#include <isomalloc/stack.h>
#include <thread>

using namespace protection;

TEST_CASE("protect: any pages of a block, as a model has it, and frozen none", "[protect]")
{
    const size_t counts[] = {8, 60, 600};
    Job job;
    iso_heap_t *heap = job.heap();
    std::mt19937 random(5);
    std::vector<char *> blocks;
    std::vector<std::vector<int>> model;
    for (const size_t count : counts) {
        blocks.push_back(pages_of(heap, count));
        model.emplace_back(count, usable);
    }
    const int kinds[] = {usable, PROT_NONE, PROT_READ, usable | PROT_EXEC, PROT_READ | PROT_EXEC};
    for (int step = 0; step < 600 / scale; step++) {
        const size_t at = random() % 3, first = random() % counts[at];
        const size_t length = 1 + random() % (counts[at] - first);
        const int kind = kinds[random() % std::size(kinds)];
        REQUIRE(iso_protect(heap, blocks[at] + first * page, length * page, kind) == ISO_OK);
        std::fill_n(model[at].begin() + static_cast<long>(first), length, kind);
        REQUIRE(iso_protect_is_sound(job.job, heap));
        if (step % 20 != 0)
            continue;
        uint64_t ranges = 0;
        for (size_t i = 0; i < 3; i++)
            for (size_t p = 0; p < counts[i]; p++)
                ranges += model[i][p] != usable && (p == 0 || model[i][p - 1] != model[i][p]);
        REQUIRE(ranges_of(heap) == ranges); // what adjoins and is alike is one
        for (size_t i = 0; i < 3; i++)
            for (size_t p = 0; p < counts[i]; p += 1 + counts[i] / 40)
                REQUIRE(access_to(blocks[i] + p * page) == name_of(model[i][p]));
        freeze(heap);
        for (size_t i = 0; i < 3; i++)
            REQUIRE(holds(blocks[i], counts[i] * page, 7));
        thaw(heap);
        for (size_t i = 0; i < 3; i++)
            for (size_t p = 0; p < counts[i]; p += 1 + counts[i] / 40)
                REQUIRE(access_to(blocks[i] + p * page) == name_of(model[i][p]));
    }
    for (size_t i = 0; i < 3; i++)
        REQUIRE(iso_protect(heap, blocks[i], counts[i] * page, usable) == ISO_OK);
    REQUIRE(heap->protections == nullptr);
    for (size_t i = 0; i < 3; i++)
        REQUIRE(holds(blocks[i], counts[i] * page, 7));
}

TEST_CASE("protect: a page that anything else lies in is refused, metadata above all", "[protect]")
{
    Job job(256u << 20, 0, false);
    iso_heap_t *heap = job.heap();
    iso_heap_t *other = job.heap();
    char *block = pages_of(heap, 4);
    char *medium = static_cast<char *>(iso_malloc(heap, 100000));
    char *large = static_cast<char *>(iso_malloc(heap, 3000000));
    std::vector<char *> small; // 12 KiB: they are flush with their unit's end
    for (int i = 0; i < 5; i++)
        small.push_back(static_cast<char *>(iso_malloc(heap, 12 << 10)));
    for (int i = 0; i < 1000; i++)
        REQUIRE(iso_malloc(heap, 48) != nullptr);
    const auto up = [](char *address) {
        return reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(address) + page - 1) &
                                        ~(page - 1));
    };
    SECTION("every page of the heap's slots, one by one")
    {
        const iso_hold_t *hold = iso_hold_find(nullptr, heap);
        std::set<char *> may;
        const auto note = [&](char *start, char *end) {
            for (char *at = up(start); at + page <= end; at += page)
                may.insert(at);
        };
        note(block, block + 4 * page);
        note(medium, up(medium + 100000));
        note(large, up(large + 3000000));
        for (char *one : small)
            note(one, one + (12 << 10));
        uint64_t refused = 0;
        for (uint32_t e = 0; e < hold->extent_count; e++)
            for (uint32_t slot = 0; slot < iso_extent_slots(&hold->extents[e]); slot++) {
                char *address =
                    iso_space_slot_address(&job.job->space, hold->extents[e].first + slot);
                for (size_t at = 0; at < ISO_SLOT_SIZE; at += page) {
                    iso_around_t around;
                    const auto number = reinterpret_cast<uintptr_t>(address + at);
                    const bool can = iso_around_find(job.job, heap, number, &around) &&
                                     number + page <= around.alone;
                    REQUIRE(can == (may.count(address + at) == 1));
                    refused += !can;
                }
            }
        REQUIRE(refused > 500);
    }
    SECTION("in words")
    {
        const struct {
            iso_heap_t *heap;
            void *address;
            size_t length;
            int protection;
            iso_status_t status;
            const char *why;
        } cases[] = {
            {heap, heap, page, PROT_READ, ISO_ERR_INVALID, "not inside of one block"},
            {heap, iso_slot_of(heap), page, PROT_READ, ISO_ERR_INVALID, "not inside of one block"},
            {heap, up(medium + 100000), page, PROT_READ, ISO_ERR_INVALID,
             "not inside of one block"},
            {heap, block + 1, page, PROT_READ, ISO_ERR_INVALID, "it has to begin with a page"},
            {heap, block, 5 * page, PROT_READ, ISO_ERR_INVALID, "not inside of one block"},
            {heap, block, SIZE_MAX, PROT_READ, ISO_ERR_INVALID, "the iso space is not so large"},
            {heap, block, page, 0x1000000, ISO_ERR_INVALID,
             "only PROT_READ, PROT_WRITE and PROT_EXEC"},
            {other, block, page, PROT_READ, ISO_ERR_INVALID, "not inside of one block"},
            {nullptr, block, page, PROT_READ, ISO_ERR_NOT_OWNER, "there is no such heap"},
            {reinterpret_cast<iso_heap_t *>(block), block, page, PROT_READ, ISO_ERR_NOT_OWNER,
             "the heap is not at this rank"},
        };
        for (const auto &one : cases) {
            const ChildResult child =
                in_child([&] { // which may not call, so it is a copy of this process's job
                    job.job->forked = false;
                    return iso_protect(one.heap, one.address, one.length, one.protection) ==
                                   one.status
                               ? 0
                               : 1;
                });
            INFO(child.stderr_text);
            CHECK(child.exited_with(0));
            CHECK(line_count(child.stderr_text) == 1);
            CHECK(contains(child.stderr_text, one.why));
        }
    }
    CHECK(iso_protect(heap, block, 0, PROT_NONE) == ISO_OK); // nothing
    CHECK(iso_protect(heap, up(medium), 100000 - page, PROT_NONE) == ISO_OK);
    CHECK(iso_protect(heap, block, 4 * page - 5, PROT_NONE) == ISO_OK);
    CHECK(access_to(block + 4 * page - 1) == "---");
}

TEST_CASE("protect: no stack", "[protect]")
{
    Job job(256u << 20, 0, false);
    iso_heap_t *heap = job.heap();
    iso_stack_t *stack = iso_stack_create(heap, 16 * page, "one");
    REQUIRE(stack != nullptr);
    CHECK(iso_protect(heap, static_cast<char *>(stack->low) - page, page, usable) ==
          ISO_ERR_INVALID);
    CHECK(iso_protect(heap, stack->low, page, PROT_READ) == ISO_ERR_INVALID);
    CHECK(access_to(stack->low) == "rw-");
}

TEST_CASE("protect: ends with the heap, and who gets its addresses next meets nothing", "[protect]")
{
    for (const char *backing : backings) {
        ScopedEnv env("ISO_BACKING", backing);
        Job job;
        for (int round = 0; round < 3; round++) {
            iso_heap_t *heap = job.heap();
            for (const size_t count : {4u, 60u, 900u}) {
                char *block = pages_of(heap, count);
                REQUIRE(iso_protect(heap, block + page, page, PROT_NONE) == ISO_OK);
                REQUIRE(iso_protect(heap, block + 3 * page, page, PROT_READ) == ISO_OK);
            }
            REQUIRE(iso_heap_destroy(heap) == ISO_OK);
            job.soil();
        }
        void *movable = iso_movable_alloc(job.job, 10 * page);
        iso_heap_t *heap = iso_heap_of(movable);
        REQUIRE(iso_protect(heap, movable, 2 * page, PROT_NONE) == ISO_OK);
        freeze(heap);
        REQUIRE(access_to(movable) == "rw-");
        thaw(heap);
        REQUIRE(access_to(movable) == "---");
        iso_free(movable);
        REQUIRE(iso_heap_of(movable) == nullptr);
        job.soil();
    }
}

TEST_CASE("protect: ends with the block", "[protect]")
{
    const uint32_t flags = GENERATE(0u, static_cast<uint32_t>(ISO_HEAP_SHARED));
    Job job(256u << 20, flags, false);
    iso_heap_t *heap = job.heap();
    for (const size_t count : {2u, 7u, 60u, 900u}) {
        std::vector<char *> blocks;
        for (int i = 0; i < 6; i++)
            blocks.push_back(pages_of(heap, count));
        iso_free(blocks[5]); // from now on iso_free knows the slot
        REQUIRE(iso_heap_state(heap) == ISO_HEAP_OWNED);
        for (int i : {0, 1, 2})
            REQUIRE(iso_protect(heap, blocks[static_cast<size_t>(i)] + page, page,
                                i == 0 ? PROT_NONE : PROT_READ) == ISO_OK);
        REQUIRE(iso_heap_state(heap) == ISO_HEAP_OWNED); // nor does it learn so again
        iso_free(blocks[4]);
        iso_free(blocks[0]);
        REQUIRE(ranges_of(heap) == 2);
        REQUIRE(access_to(blocks[0] + page) == "rw-");
        REQUIRE(access_to(blocks[1] + page) == "r--");
        iso_free(blocks[1]);
        iso_free(blocks[2]);
        REQUIRE(heap->protections == nullptr);
        for (int i = 0; i < 4; i++)
            pages_of(heap, count); // somewhere there
        iso_free(blocks[3]);
    }
    iso_heap_stats_t stats;
    REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
    REQUIRE(stats.blocks == 16);
}

TEST_CASE("protect: ends when the block is resized, but not when that fails", "[protect]")
{
    Job job(256u << 20, 0, false);
    iso_heap_t *heap = job.heap();
    for (const size_t count : {6u, 60u, 900u}) {
        for (const size_t later : {count - 2, count / 4, count * 2, count * 9}) {
            char *block = pages_of(heap, count);
            REQUIRE(iso_protect(heap, block + page, page, PROT_NONE) == ISO_OK);
            REQUIRE(iso_protect(heap, block + (count - 1) * page, page, PROT_READ) == ISO_OK);
            REQUIRE(iso_realloc(heap, block, size_t{1} << 45) == nullptr);
            REQUIRE(ranges_of(heap) == 2);
            REQUIRE(access_to(block + page) == "---");
            char *again = static_cast<char *>(iso_realloc(heap, block, later * page));
            REQUIRE(again != nullptr);
            REQUIRE(heap->protections == nullptr);
            REQUIRE(holds(again, std::min(count, later) * page, 7));
            iso_free(again);
            block = pages_of(heap, count);
            iso_free(block);
        }
    }
}

TEST_CASE("protect: a heap for many threads", "[protect]")
{
    Job job(256u << 20, ISO_HEAP_SHARED);
    iso_heap_t *heap = job.heap();
    std::atomic<int> wrong{0};
    const auto work = [&](unsigned seed) {
        std::mt19937 random(seed);
        for (int i = 0; i < 200 / scale; i++) {
            const size_t count = 2 + random() % 20;
            auto *block = static_cast<char *>(iso_aligned_alloc(heap, page, count * page));
            std::memset(block, 1, count * page);
            wrong += iso_protect(heap, block, page, PROT_READ) != ISO_OK;
            wrong += iso_protect(heap, block + page, page, PROT_NONE) != ISO_OK;
            wrong += *block != 1;
            if (i % 2 == 0)
                block = static_cast<char *>(iso_realloc(heap, block, 2 * count * page));
            else
                wrong += iso_protect(heap, block, 2 * page, usable) != ISO_OK;
            std::memset(block, 2, count * page);
            iso_free(block);
        }
    };
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 4; i++)
        threads.emplace_back(work, i);
    for (std::thread &thread : threads)
        thread.join();
    REQUIRE(wrong == 0);
    REQUIRE(heap->protections == nullptr);
}

TEST_CASE("protect: what a program walks and counts are its own blocks", "[protect]")
{
    Job job(256u << 20, 0, false);
    iso_heap_t *heap = job.heap();
    char *block = pages_of(heap, 4);
    REQUIRE(iso_protect(heap, block, page, PROT_NONE) == ISO_OK);
    REQUIRE(iso_stack_create(heap, 65536, nullptr) != nullptr);
    iso_heap_stats_t stats;
    REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
    REQUIRE(stats.blocks == 2);
    REQUIRE(iso_heap_populate(heap) == ISO_OK);
    REQUIRE(access_to(block) == "---");
}
