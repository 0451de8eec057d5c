// Protections of a heap's pages in one process: what may be protected, what ends it, and that nobody else meets one.
#include "core/around.h"
#include "core/guard.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/protect.h"
#include "tests/ranks/access.hpp"
#include "tests/unit/image.hpp"
#include <csignal>
#include <isomalloc/pup.h>
#include <isomalloc/stack.h>
#include <sys/mman.h>
#include <thread>

namespace {

const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
constexpr int usable = PROT_READ | PROT_WRITE;

std::string name_of(int protection)
{
    std::string name = "---";
    name[0] = (protection & PROT_READ) != 0 ? 'r' : '-';
    name[1] = (protection & PROT_WRITE) != 0 ? 'w' : '-';
    name[2] = (protection & PROT_EXEC) != 0 ? 'x' : '-';
    return name;
}

// A block of so many whole pages.
char *pages_of(iso_heap_t *heap, size_t count)
{
    auto *block = static_cast<char *>(iso_aligned_alloc(heap, page, count * page));
    REQUIRE(block != nullptr);
    std::memset(block, 7, count * page);
    return block;
}

bool holds(const char *block, size_t size, char value)
{
    return *block == value && std::memcmp(block, block + 1, size - 1) == 0;
}

uint64_t ranges_of(const iso_heap_t *heap)
{
    return heap->protections != nullptr ? heap->protections->count : 0;
}

void freeze(iso_heap_t *heap)
{
    iso_hold_t *hold = iso_hold_find(nullptr, heap);
    iso_job_lock(hold->job);
    iso_heap_freeze(hold);
    iso_job_unlock(hold->job);
}

void thaw(iso_heap_t *heap)
{
    iso_hold_t *hold = iso_hold_find(nullptr, heap);
    iso_job_lock(hold->job);
    iso_heap_thaw(hold);
    iso_job_unlock(hold->job);
}

const char *const backings[] = {"shared", "private", "anon"};

} // namespace

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

TEST_CASE("protect: a heap arrives only with protections of its own blocks", "[protect]")
{
    Job job(256u << 20, 0, false);
    iso_heap_t *heap = job.heap(), *other = job.heap();
    char *block = pages_of(heap, 4), *of_other = pages_of(other, 4);
    iso_stack_t *stack = iso_stack_create(heap, 65536, nullptr);
    iso_hold_t *hold = iso_hold_find(nullptr, heap);
    REQUIRE(iso_protect(heap, block, page, PROT_NONE) == ISO_OK);
    REQUIRE(iso_protect(heap, block + 2 * page, page, PROT_READ) == ISO_OK);
    freeze(heap);
    const auto arrives = [&] {
        return iso_heap_check_arrived(heap, hold->epoch, hold->extents, hold->extent_count);
    };
    iso_protections_t *const list = heap->protections;
    std::vector<char> bytes(sizeof *list + 2 * sizeof *list->list);
    std::memcpy(bytes.data(), list, bytes.size());
    REQUIRE(arrives() == ISO_OK);
    const auto number = [](const void *at) { return reinterpret_cast<uint64_t>(at); };
    const std::function<void()> damages[] = {
        [&] { list->count = 0; },
        [&] { list->count = list->room + 1; },
        [&] { list->room = UINT64_MAX; },
        [&] { list->room = list->count = UINT64_MAX / sizeof *list->list; },
        [&] { list->list[0].start = number(of_other); },
        [&] { list->list[0].start = number(&list); },
        [&] { list->list[0].start += 8; },
        [&] { list->list[0].start = list->list[0].end; },
        [&] { list->list[0].end = list->list[1].start + page; },
        [&] { list->list[1].end += 2 * page; },
        [&] {
            list->list[1].start = number(stack->low), list->list[1].end = number(stack->low) + page;
        },
        [&] { list->list[1].protection = usable; },
        [&] { list->list[1].protection = 0xff; },
        [&] { std::swap(list->list[0], list->list[1]); },
        [&] { heap->protections = reinterpret_cast<iso_protections_t *>(&bytes); },
        [&] { heap->protections = reinterpret_cast<iso_protections_t *>(of_other); },
        [&] { heap->protections = reinterpret_cast<iso_protections_t *>(block + 8); },
        [&] { // where the page faults
            heap->protections =
                reinterpret_cast<iso_protections_t *>(static_cast<char *>(stack->low) - page);
        },
    };
    for (const auto &damage : damages) {
        damage();
        CHECK(arrives() == ISO_ERR_INVALID);
        heap->protections = list;
        std::memcpy(list, bytes.data(), bytes.size());
    }
    REQUIRE(arrives() == ISO_OK);
    thaw(heap);
    REQUIRE(access_to(block) == "---");
}

TEST_CASE("protect: a list that was written past ends the process before it is used", "[protect]")
{
    Job job(256u << 20, 0, false);
    iso_heap_t *heap = job.heap();
    char *block = pages_of(heap, 4);
    REQUIRE(iso_protect(heap, block, page, PROT_NONE) == ISO_OK);
    const auto use = GENERATE(0, 1, 2);
    const ChildResult child = in_child([&] {
        job.job->forked = false;
        heap->protections->list[0].start ^= 1u << 21;
        iso_heap_stats_t stats;
        if (use == 0)
            iso_heap_destroy(heap);
        else if (use == 1)
            freeze(heap);
        else
            iso_heap_stats(heap, &stats);
        return 0;
    });
    INFO(child.stderr_text);
    REQUIRE(child.aborted());
    REQUIRE(contains(child.stderr_text, "the list of a heap's protections"));
}

TEST_CASE("protect: a copy in memory and an image have the pages, and the protections",
          "[protect][image]")
{
    Folder folder;
    for (const char *backing : backings) {
        for (const char *tracked : {"n", "y"}) {
            if (*tracked == 'y' && std::string(backing) != "anon")
                continue;
            ScopedEnv env("ISO_BACKING", backing), track("ISO_TRACK_WRITES", tracked);
            Job job;
            iso_heap_t *heap = job.heap();
            char *small = pages_of(heap, 4), *large = pages_of(heap, 700);
            const auto protect = [&] {
                REQUIRE(iso_protect(heap, small, page, PROT_NONE) == ISO_OK);
                REQUIRE(iso_protect(heap, small + page, page, PROT_READ) == ISO_OK);
                REQUIRE(iso_protect(heap, large, 650 * page, PROT_NONE) == ISO_OK);
            };
            const auto check = [&] {
                REQUIRE(access_to(small) == "---");
                REQUIRE(access_to(small + page) == "r--");
                REQUIRE(access_to(small + 2 * page) == "rw-");
                REQUIRE(access_to(large + 649 * page) == "---");
                REQUIRE(access_to(large + 650 * page) == "rw-");
            };
            protect();
            REQUIRE(save(job.job, folder / "first", {heap}) == ISO_OK);
            check();
            REQUIRE(iso_protect(heap, large + page, page, usable) == ISO_OK);
            std::memset(large + page, 9, page);
            protect();
            REQUIRE(save(job.job, folder / "second", {heap}, "", (folder / "first").c_str()) ==
                    ISO_OK);
            check();
            std::vector<char> bytes(8 << 20);
            pup_er p = iso_pup_new_to_memory(bytes.data(), bytes.size());
            iso_pup_heap(p, job.job, &heap);
            REQUIRE(iso_pup_status(p) == ISO_OK);
            pup_destroy(p);
            check();
            for (int way = 0; way < 4; way++) { // images, one of them mapped, and the copy
                if (way == 2 && std::string(backing) != "anon")
                    continue;
                REQUIRE(iso_heap_destroy(heap) == ISO_OK);
                REQUIRE(access_to(small) == "rw-");
                job.soil();
                if (way < 3) {
                    Opened opened(folder / (way == 0 ? "first" : "second"));
                    REQUIRE((way == 2 ? iso_image_map : iso_image_restore)(job.job, opened.image, 0,
                                                                           &heap) == ISO_OK);
                } else {
                    p = iso_pup_new_from_memory(bytes.data(), bytes.size());
                    iso_pup_heap(p, job.job, &heap);
                    REQUIRE(iso_pup_status(p) == ISO_OK);
                    pup_destroy(p);
                }
                check();
                REQUIRE(iso_protect(heap, small, 4 * page, usable) == ISO_OK);
                REQUIRE(iso_protect(heap, large, 700 * page, usable) == ISO_OK);
                REQUIRE(holds(small, 4 * page, 7));
                REQUIRE(holds(large, page, 7));
                REQUIRE(holds(large + page, page, way == 0 ? 7 : 9));
                REQUIRE(holds(large + 2 * page, 698 * page, 7));
                protect();
            }
        }
    }
}

TEST_CASE("protect: pages are usable while a device pins them, and stay executable", "[protect]")
{
    Job job;
    iso_heap_t *heap = job.heap(), *frozen = job.heap();
    char *block = pages_of(heap, 8);
    const uint32_t slot = iso_space_slot(&job.job->space, block);
    REQUIRE(iso_protect(heap, block, page, PROT_NONE) == ISO_OK);
    REQUIRE(iso_protect(heap, block + page, page, PROT_READ | PROT_EXEC) == ISO_OK);
    char *other = pages_of(frozen, 8);
    REQUIRE(iso_protect(frozen, other, page, PROT_NONE) == ISO_OK);
    freeze(frozen);
    iso_job_lock(job.job);
    iso_guard_pause(job.job, slot, 1);
    CHECK(access_to(block) == "rw-");
    CHECK(access_to(block + page) == "rwx");
    CHECK(access_to(other) == "rw-");
    iso_guard_resume(job.job, slot, 1);
    CHECK(access_to(block) == "---");
    CHECK(access_to(block + page) == "r-x");
    iso_guard_pause(job.job, slot + 1, 100);
    CHECK(access_to(block) == "---");
    iso_guard_resume(job.job, 0, 100);
    CHECK(access_to(block) == "---");
    CHECK(access_to(other) == "rw-"); // of who has frozen it
    iso_job_unlock(job.job);
    thaw(frozen);
}

TEST_CASE("protect: where the system allows no more mappings it is refused, and nothing changes",
          "[protect]")
{
    const ChildResult child = in_child([] {
        iso_params_t params;
        iso_job_t *job = nullptr;
        iso_heap_t *heap = nullptr;
        iso_params_init(&params);
        params.space_size = 4ull << 30;
        params.log_level = ISO_LOG_ERROR;
        const size_t most = 1u << 18;
        if (iso_init(&params, &job) != ISO_OK || iso_heap_create(job, &heap) != ISO_OK)
            return 1;
        auto *block = static_cast<char *>(iso_aligned_alloc(heap, page, most * page));
        iso_status_t status = ISO_OK;
        size_t at = 0;
        for (; at < most && status == ISO_OK; at += 2)
            status = iso_protect(heap, block + at * page, page, PROT_READ);
        if (status != ISO_ERR_LIMIT)
            return at >= most ? 77 : 2; // a machine that allows more than this test knows
        if (ranges_of(heap) != (at - 2) / 2)
            return 3;
        freeze(heap);
        block[0] = 1;
        thaw(heap);
        return iso_heap_destroy(heap) == ISO_OK && iso_finalize(job) == ISO_OK ? 0 : 4;
    });
    INFO(child.stderr_text);
    if (child.exited_with(77)) {
        WARN("left out: vm.max_map_count is larger than the test");
        return;
    }
    REQUIRE(child.exited_with(0));
    REQUIRE(line_count(child.stderr_text) == 1);
    REQUIRE(contains(child.stderr_text, "raise vm.max_map_count"));
}

TEST_CASE("protect: a fault there is explained", "[protect]")
{
    const ChildResult child = in_child([] {
        ScopedEnv handler("ISO_FAULT_HANDLER", "y"), poison("ISO_POISON", "n");
        iso_job_t *job = start();
        iso_heap_t *heap = nullptr;
        if (iso_heap_create(job, &heap) != ISO_OK)
            return 1;
        auto *block = static_cast<char *>(iso_aligned_alloc(heap, page, 4 * page));
        if (iso_protect(heap, block + page, page, PROT_READ) != ISO_OK)
            return 2;
        static_cast<volatile char *>(block)[page] = 1;
        return 0;
    });
    INFO(child.stderr_text);
    REQUIRE(WIFSIGNALED(child.status));
    REQUIRE(contains(child.stderr_text, "the page is protected (iso_protect)"));
}
