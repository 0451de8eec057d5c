// Protections of a heap's pages where more than the heap is: what arrives, images, devices, the system's limits, and faults.
#include "core/guard.h"
#include "tests/unit/protect.hpp"
#include <csignal>
#include <isomalloc/pup.h>
#include <isomalloc/stack.h>

using namespace protection;

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
