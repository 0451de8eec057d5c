// What code a heap's stacks depend on: when the list of it is in the heap, and what is said where it is other code.
#pragma GCC diagnostic push // clang has a list at the end of a structure in C only
#pragma GCC diagnostic ignored "-Wpedantic"
#include "core/code.h"
#pragma GCC diagnostic pop
#include "core/heap.h"
#include "core/heap_layout.h"
#include "core/hold.h"
#include "core/job.h"
#include "core/peer.h"
#include "core/stack.h"
#include "tests/unit/support.hpp"
#include <cerrno>
#include <cstring>
#include <isomalloc/pup.h>
#include <isomalloc/stack.h>
#include <vector>

namespace {

struct Space {
    iso_job_t *job = nullptr;
    iso_heap_t *heap = nullptr;
    Space()
    {
        iso_params_t params;
        iso_params_init(&params);
        params.space_size = 1ull << 30;
        params.poison = false; // no gap behind a block
        if (iso_init(&params, &job) != ISO_OK || iso_heap_create(job, &heap) != ISO_OK)
            _exit(99);
    }
    ~Space()
    {
        iso_finalize(job);
    }
    Space(const Space &) = delete;
    Space &operator=(const Space &) = delete;

    [[nodiscard]] iso_heap_stats_t stats() const
    {
        iso_heap_stats_t stats;
        REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
        return stats;
    }
    // As before a migration to this rank; NULL: to one that is not known.
    void leaves_for(const iso_peer_t *peer) const
    {
        iso_job_lock(job);
        iso_stack_code_leave(iso_hold_find(job, heap), peer);
        iso_job_unlock(job);
    }
};

// What a rank says, in a process of its own, of a heap whose list was changed like this.
template <class Change> ChildResult refused_after(Change change, iso_status_t expected)
{
    return in_child([&] {
        const Space space;
        iso_stack_create(space.heap, 16384, nullptr);
        space.leaves_for(nullptr);
        space.heap->code_digest++;
        change(space.heap);
        return iso_stack_code_check(space.job, space.heap) == expected ? 0 : 1;
    });
}

} // namespace

TEST_CASE("a heap with stacks has the list of code only on its way to who may have other code")
{
    const Space space;
    iso_peer_t stranger = {}, known = {};
    known.same_code = true;
    const uint64_t empty = space.stats().live_bytes;
    space.leaves_for(nullptr); // no stack, no list
    CHECK(space.stats().blocks == 0);
    iso_stack_t *stack = iso_stack_create(space.heap, 16384, nullptr);
    stack->sp = reinterpret_cast<char *>(stack) - 512;
    const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    CHECK(space.stats().blocks == 1);
    CHECK(space.stats().live_bytes == empty + page);
    CHECK(space.heap->code_digest == iso_code()->digest);
    for (const iso_peer_t *peer :
         {static_cast<const iso_peer_t *>(nullptr), static_cast<const iso_peer_t *>(&stranger)}) {
        for (int i = 0; i < 2; i++) { // once
            space.leaves_for(peer);
            REQUIRE(space.heap->code != nullptr);
            CHECK(space.stats().blocks == 1); // the list is not the user's
            CHECK(memcmp(space.heap->code, iso_code(), iso_code_size(iso_code())) == 0);
        }
        for (int i = 0; i < 2; i++) {
            space.leaves_for(&known);
            CHECK(space.heap->code == nullptr);
            CHECK(space.stats().blocks == 1);
        }
    }
    space.leaves_for(nullptr);
    iso_stack_destroy(stack); // the last one
    CHECK(space.heap->code == nullptr);
    CHECK(space.heap->code_digest == 0);
    CHECK(space.stats().blocks == 0);
}

TEST_CASE("a heap that is packed to anywhere brings the list along")
{
    const Space space;
    REQUIRE(iso_stack_create(space.heap, 16384, nullptr) != nullptr);
    iso_heap_t *heap = space.heap;
    pup_er sizer = pup_new_sizer();
    iso_pup_heap(sizer, space.job, &heap);
    REQUIRE(iso_pup_status(sizer) == ISO_OK);
    std::vector<char> bytes(pup_size(sizer));
    pup_destroy(sizer);
    pup_er packer = iso_pup_new_to_memory(bytes.data(), bytes.size());
    REQUIRE(iso_pup_set_use(packer, ISO_PUP_DELETING) == ISO_OK);
    iso_pup_heap(packer, space.job, &heap);
    REQUIRE(iso_pup_status(packer) == ISO_OK);
    pup_destroy(packer);
    pup_er unpacker = iso_pup_new_from_memory(bytes.data(), bytes.size());
    iso_pup_heap(unpacker, space.job, &heap);
    REQUIRE(iso_pup_status(unpacker) == ISO_OK);
    pup_destroy(unpacker);
    REQUIRE(heap->code != nullptr);
    CHECK(heap->code->digest == iso_code()->digest);
}

TEST_CASE("where the code is another one, what differs is named")
{
    SECTION("an object at another address")
    {
        const ChildResult child = refused_after(
            [](iso_heap_t *heap) { heap->code->objects[1].base += 4096; }, ISO_ERR_CODE);
        INFO(child.stderr_text);
        CHECK(child.exited_with(0));
        CHECK(contains(child.stderr_text,
                       std::string("'") + program_invocation_short_name + "' lies at 0x"));
        CHECK(contains(child.stderr_text, "iso_run --no-aslr"));
    }
    SECTION("an object of other contents")
    {
        const ChildResult child =
            refused_after([](iso_heap_t *heap) { heap->code->objects[1].id ^= 1; }, ISO_ERR_CODE);
        CHECK(child.exited_with(0));
        CHECK(contains(child.stderr_text, "install the same everywhere"));
    }
    SECTION("an object that is there only, or here only, which moves others")
    {
        const ChildResult child = refused_after(
            [](iso_heap_t *heap) {
                heap->code->count--;
                heap->code->objects[1].base += 4096;
            },
            ISO_ERR_CODE);
        CHECK(child.exited_with(0));
        CHECK(contains(child.stderr_text, "is loaded here only"));
        const ChildResult other = refused_after(
            [](iso_heap_t *heap) { strcpy(heap->code->objects[1].name, "libother.so"); },
            ISO_ERR_CODE);
        CHECK(other.exited_with(0));
        CHECK(contains(other.stderr_text, "'libother.so' is loaded there only"));
    }
    SECTION("the processor")
    {
        const ChildResult child =
            refused_after([](iso_heap_t *heap) { heap->code->objects[0].id ^= 1; }, ISO_ERR_CODE);
        CHECK(child.exited_with(0));
        CHECK(contains(child.stderr_text, "the processors have different features"));
    }
    SECTION("without a list, that it is another one")
    {
        const ChildResult child =
            refused_after([](iso_heap_t *heap) { heap->code = nullptr; }, ISO_ERR_CODE);
        CHECK(child.exited_with(0));
        CHECK(contains(child.stderr_text, "cannot come here: other code is here"));
    }
    SECTION("but not from a list that cannot be one")
    {
        const ChildResult too_long =
            refused_after([](iso_heap_t *heap) { heap->code->count = ISO_CODE_OBJECTS_MAX + 1; },
                          ISO_ERR_INVALID);
        CHECK(too_long.exited_with(0));
        const ChildResult outside = refused_after(
            [](iso_heap_t *heap) { heap->code = reinterpret_cast<struct iso_code *>(64); },
            ISO_ERR_INVALID);
        CHECK(outside.exited_with(0));
    }
}
