// What rides in a COMMIT: with what is put it is all of the heap, and nothing lands outside of it.
#include "core/heap.h"
#include "core/heap_layout.h"
#include "core/inline.h"
#include "core/job.h"
#include "tests/unit/allocator.hpp"
#include "tests/unit/support.hpp"
#include <isomalloc/stack.h>
#include <vector>

namespace {

const uint8_t cookie[16] = {7};

struct Plan : iso_inline_t {
    iso_runs_t runs = {};
    Plan() : iso_inline_t{}
    {
    }
    ~Plan()
    {
        iso_runs_free(&runs);
        iso_runs_free(&pieces);
    }
    [[nodiscard]] uint64_t bytes_put() const
    {
        uint64_t bytes = 0;
        for (size_t r = 0; r < runs.count; r++)
            bytes += runs.list[r].length - iso_inline_skip(this, &runs, r);
        return bytes;
    }
};

// Of a heap that is frozen.
void make_plan(iso_hold_t *hold, uint64_t limit, size_t header, Plan *plan)
{
    hold->job->params.inline_max = limit;
    REQUIRE(iso_heap_list_runs(hold, &plan->runs));
    iso_inline_plan(hold, &plan->runs, header, plan);
}

std::vector<uint8_t> commit(const Plan &plan, const iso_heap_t *heap, size_t header_len)
{
    std::vector<uint8_t> bytes(ISO_WIRE_MAX), header(header_len);
    iso_msg_t msg = {};
    msg.type = ISO_MSG_COMMIT;
    msg.heap = reinterpret_cast<uintptr_t>(heap);
    msg.flags = plan.head > 0 ? ISO_COMMIT_HEAD : 0;
    msg.data = header.data();
    msg.data_len = static_cast<uint32_t>(header_len);
    msg.pieces = plan.pieces.list;
    msg.piece_count = static_cast<uint32_t>(plan.pieces.count);
    bytes.resize(iso_wire_encode(&msg, cookie, bytes.data()));
    return bytes;
}

iso_status_t land(const iso_hold_t *hold, const std::vector<uint8_t> &bytes)
{
    iso_msg_t msg = {};
    iso_msg_lists_t lists;
    REQUIRE(iso_wire_decode(bytes.data(), bytes.size(), cookie, &lists, &msg) == ISO_OK);
    return iso_inline_land(hold, &msg);
}

void fill_slots(const iso_hold_t *hold, int value)
{
    for (uint32_t e = 0; e < hold->extent_count; e++)
        std::memset(iso_space_slot_address(&hold->job->space, hold->extents[e].first), value,
                    static_cast<size_t>(iso_extent_slots(&hold->extents[e])) << ISO_SLOT_SHIFT);
}

// What a migration does to the memory of a heap: what is put survives, and what rides; all else is garbage.
void migrate_in_place(iso_heap_t *heap, uint64_t limit, size_t header, Plan *plan)
{
    iso_hold_t *hold = iso_hold_find(nullptr, heap);
    iso_heap_freeze(hold);
    make_plan(hold, limit, header, plan);
    const std::vector<uint8_t> message = commit(*plan, heap, header);
    std::vector<std::vector<char>> put;
    for (size_t r = 0; r < plan->runs.count; r++) {
        const iso_run_t &run = plan->runs.list[r];
        const auto *from = reinterpret_cast<const char *>(run.address);
        put.emplace_back(from + iso_inline_skip(plan, &plan->runs, r), from + run.length);
    }
    const std::vector<iso_extent_t> extents(hold->extents, hold->extents + hold->extent_count);
    fill_slots(hold, 0xA5);
    for (size_t r = 0; r < plan->runs.count; r++)
        std::copy(put[r].begin(), put[r].end(),
                  reinterpret_cast<char *>(plan->runs.list[r].address) +
                      iso_inline_skip(plan, &plan->runs, r));
    REQUIRE(land(hold, message) == ISO_OK);
    REQUIRE(iso_heap_check_arrived(heap, hold->epoch, hold->extents, hold->extent_count) == ISO_OK);
    iso_heap_thaw(hold);
    iso_heap_stats_t stats;
    REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK); // compares all that is said twice
    CHECK(plan->pieces.bytes + plan->pieces.count * ISO_WIRE_PIECE <= limit);
}

} // namespace

TEST_CASE("a heap of which some was put and the rest rode along goes on as before", "[inline]")
{
    const uint32_t flags = GENERATE(0, ISO_HEAP_SHARED);
    const uint64_t limit = GENERATE(0, 300, 1000, 4096, 1 << 20);
    Job job(1u << 20, flags);
    struct Kind {
        size_t largest;
        int rounds, steps;
    };
    uint64_t rode = 0;
    for (const Kind &kind :
         {Kind{60, 40, 10}, Kind{600, 40, 200}, Kind{70000, 20, 100}, Kind{4000000, 6, 20}}) {
        iso_heap_t *heap = job.heap();
        Model model(heap, static_cast<uint32_t>(kind.largest));
        for (int round = 0; round < 1 + kind.rounds / scale; round++) {
            for (int i = 0; i < kind.steps; i++)
                model.step(kind.largest);
            Plan plan;
            migrate_in_place(heap, limit, round % 2 != 0 ? ISO_HEADER_MAX : 0, &plan);
            rode += plan.pieces.bytes;
            model.check_all();
        }
        model.free_all();
        Plan plan;
        migrate_in_place(heap, limit, 0, &plan);
        CHECK((plan.bytes_put() == 0) == (limit >= 300));
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    }
    CHECK((rode > 0) == (limit > 0));
}

TEST_CASE("small heaps ride as a whole, and of large ones the head does", "[inline]")
{
    const Job job(256u << 20, 0, false); // no gap behind a block
    iso_heap_t *heap = job.heap();
    SECTION("one block of a unit")
    {
        REQUIRE(iso_malloc(heap, 65536) != nullptr);
        Plan plan;
        migrate_in_place(heap, 4096, 0, &plan);
        CHECK(plan.pieces.bytes < 500);
        CHECK(plan.bytes_put() == 65536);
    }
    SECTION("small blocks on several pages")
    {
        for (const size_t size : {16, 64, 100, 500})
            REQUIRE(iso_malloc(heap, size) != nullptr);
        Plan plan;
        migrate_in_place(heap, 4096, 0, &plan);
        CHECK(plan.runs.bytes > 16384);
        CHECK(plan.pieces.bytes < 2048);
        CHECK(plan.bytes_put() == 0);
    }
    SECTION("a large block has a header of its own")
    {
        auto *block = static_cast<char *>(iso_aligned_alloc(heap, ISO_SLOT_SIZE, 5000000));
        REQUIRE(block != nullptr);
        std::memset(block, 'x', 5000000);
        Plan plan;
        migrate_in_place(heap, 4096, 0, &plan);
        CHECK(plan.pieces.bytes < 500);
        CHECK(plan.bytes_put() < 5000000 + 4096);
        CHECK(std::count(block, block + 5000000, 'x') == 5000000);
    }
}

TEST_CASE("of a stack what is in use rides", "[inline]")
{
    const ScopedEnv no_guards("ISO_GUARD", "none"); // here all of the slots is written to
    Job job;
    iso_heap_t *heap = job.heap();
    iso_stack_t *stack = iso_stack_create(heap, 1000000, "small");
    REQUIRE(stack != nullptr);
    char *from = reinterpret_cast<char *>(stack) - 200;
    std::memset(from, 's', 200);
    stack->sp = from;
    Plan plan;
    migrate_in_place(heap, 8192, 0, &plan);
    CHECK(plan.bytes_put() == 0);
    CHECK(plan.pieces.count <= 6); // whatever its size
    CHECK(std::count(from, from + 200, 's') == 200);
    CHECK(stack->sp == from);
    CHECK(from[-1] != 's');
}

TEST_CASE("a head that says of a block that it goes on behind its slot is no heap's, and nothing "
          "there is written",
          "[inline]")
{
    const unsigned units = GENERATE(0, 2, 3, 255), unit = 30;
    const bool used = GENERATE(true, false); // what the slot says of the unit
    Job job;
    iso_heap_t *heap = job.heap();
    iso_hold_t *hold = iso_hold_find(nullptr, heap);
    REQUIRE(iso_malloc(heap, 70000) != nullptr);
    iso_heap_freeze(hold);
    Plan plan;
    make_plan(hold, 4096, 0, &plan);
    REQUIRE(plan.head > 0);
    const std::vector<uint8_t> message = commit(plan, heap, 0);
    iso_span_t *span = &iso_slot_of(heap)->spans[unit];
    const iso_span_t before = *span, end = span[2]; // behind the last one is the heap
    REQUIRE(before.kind == ISO_SPAN_FREE);
    const uint8_t medium[] = {ISO_SPAN_MEDIUM, ISO_CLASS_NONE, static_cast<uint8_t>(units)};
    const iso_run_t piece = {reinterpret_cast<uintptr_t>(&span->kind), sizeof medium};
    REQUIRE(land(hold, message) == ISO_OK);
    iso_msg_t msg = {};
    msg.type = ISO_MSG_COMMIT;
    std::vector<iso_run_t> pieces(plan.pieces.list, plan.pieces.list + plan.pieces.count);
    std::vector<uint8_t> bytes;
    for (const iso_run_t &run : pieces) {
        const auto *from = reinterpret_cast<const uint8_t *>(run.address);
        bytes.insert(bytes.end(), from, from + run.length);
    }
    pieces.push_back(piece);
    bytes.insert(bytes.end(), medium, medium + sizeof medium);
    iso_slot_t *slot = iso_slot_of(heap);
    const uint32_t free_units = used ? 0 : UINT32_MAX;
    const auto *mask = reinterpret_cast<const uint8_t *>(&free_units);
    pieces.push_back({reinterpret_cast<uintptr_t>(&slot->free_units), sizeof free_units});
    bytes.insert(bytes.end(), mask, mask + sizeof free_units);
    msg.flags = ISO_COMMIT_HEAD;
    msg.pieces = pieces.data();
    msg.piece_count = static_cast<uint32_t>(pieces.size());
    msg.piece_bytes = bytes.data();
    CHECK(iso_inline_land(hold, &msg) == ISO_OK);
    CHECK(std::memcmp(&span[2], &end, sizeof end) == 0);
    CHECK(span[1].kind == (used && units >= 2 ? ISO_SPAN_REST : ISO_SPAN_FREE));
    REQUIRE(land(hold, message) == ISO_OK); // the head as it was
    CHECK(span->kind == ISO_SPAN_FREE);
    iso_heap_thaw(hold);
    iso_heap_stats_t stats;
    REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
    iso_heap_destroy(heap);
}

TEST_CASE("pieces that do not belong to the heap are refused, and none is written", "[inline]")
{
    Job job;
    iso_heap_t *heap = job.heap(), *other = job.heap();
    auto *block = static_cast<char *>(iso_malloc(heap, 100));
    std::memset(block, 'x', 100);
    const iso_hold_t *hold = iso_hold_find(nullptr, heap);
    const auto slot = iso_heap_slot_of(heap);
    const iso_run_t bad[] = {{iso_heap_slot_of(other), 16},
                             {slot - 8, 16},
                             {slot + ISO_SLOT_SIZE - 8, 16},
                             {0, 16},
                             {UINTPTR_MAX - 7, 16},
                             {slot + 100, 0},
                             {reinterpret_cast<uintptr_t>(&bad), 16}};
    // slots that follow each other are the next heap's
    REQUIRE(iso_heap_slot_of(other) == slot + ISO_SLOT_SIZE);
    const std::vector<char> bytes(64, 'y');
    for (const iso_run_t &piece : bad) {
        CAPTURE(piece.address, piece.length);
        const iso_run_t pieces[] = {{reinterpret_cast<uintptr_t>(block), 16}, piece};
        iso_msg_t msg = {};
        msg.type = ISO_MSG_COMMIT;
        msg.flags = ISO_COMMIT_HEAD;
        msg.pieces = pieces;
        msg.piece_count = 2;
        msg.piece_bytes = bytes.data();
        CHECK(iso_inline_land(hold, &msg) == ISO_ERR_INVALID);
        CHECK(block[0] == 'x');
        iso_heap_stats_t stats;
        REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
        REQUIRE(iso_heap_stats(other, &stats) == ISO_OK);
    }
    const iso_run_t good = {reinterpret_cast<uintptr_t>(block), 16};
    iso_msg_t msg = {};
    msg.pieces = &good;
    msg.piece_count = 1;
    msg.piece_bytes = bytes.data();
    CHECK(iso_inline_land(hold, &msg) == ISO_OK);
    CHECK((block[15] == 'y' && block[16] == 'x'));
    iso_heap_destroy(heap);
    iso_heap_destroy(other);
}
