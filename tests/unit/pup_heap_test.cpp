// Heaps in the stream of a pup_er, of every kind: copied and moved, cut short and damaged.
#include "tests/unit/allocator.hpp"
#include "tests/unit/pup.hpp"

namespace {

size_t size_of(iso_job_t *job, iso_heap_t *heap)
{
    pup_er p = pup_new_sizer();
    iso_pup_heap(p, job, &heap);
    REQUIRE(iso_pup_status(p) == ISO_OK);
    const size_t size = pup_size(p);
    pup_destroy(p);
    return size;
}

void pack(Place &place, iso_job_t *job, iso_heap_t **heap_p, unsigned use = 0)
{
    pup_er p = place.to();
    REQUIRE(iso_pup_set_use(p, use) == ISO_OK);
    iso_pup_heap(p, job, heap_p);
    REQUIRE(iso_pup_flush(p) == ISO_OK);
    place.end(p);
}

iso_heap_t *unpack(Place &place, iso_job_t *job)
{
    iso_heap_t *heap = nullptr;
    pup_er p = place.from();
    iso_pup_heap(p, job, &heap);
    REQUIRE(iso_pup_status(p) == ISO_OK);
    place.end(p);
    return heap;
}

iso_status_t refused(Place &place, iso_job_t *job)
{
    iso_heap_t *heap = nullptr;
    pup_er p = place.from();
    iso_pup_heap(p, job, &heap);
    const iso_status_t status = iso_pup_status(p);
    place.end(p);
    REQUIRE(heap == nullptr);
    return status;
}

struct ListNode {
    ListNode *next;
    long value;
};

} // namespace

TEST_CASE("pup: a heap of any blocks, half of them freed, comes out of every kind as it was",
          "[pup]")
{
    for (const uint32_t flags : {0u, static_cast<uint32_t>(ISO_HEAP_SHARED)}) {
        Job job(256u << 20, flags);
        const uint64_t before = job.slots_free();
        iso_heap_t *heap = job.heap(), *const address = heap;
        Model model(heap, 11);
        for (int i = 0; i < 2000 / scale; i++)
            model.step(64u << 10);
        model.allocate(3000000);
        model.allocate(5000000);
        const size_t room = 2 * size_of(job.job, heap) + (64u << 20); // it grows below
        for (auto &[name, place] : every_place(room)) {
            INFO(name);
            pack(*place, job.job, &heap);
            model.check_all();                                 // packing has not changed it
            REQUIRE(refused(*place, job.job) == ISO_ERR_BUSY); // it is here
            REQUIRE(iso_heap_destroy(heap) == ISO_OK);
            REQUIRE(job.slots_free() == before);
            job.soil();
            heap = unpack(*place, job.job);
            REQUIRE(heap == address);
            model.check_all();
            for (int i = 0; i < 200 / scale; i++)
                model.step(64u << 10);
            pack(*place, job.job, &heap, ISO_PUP_DELETING); // now it moves
            REQUIRE(heap == nullptr);
            REQUIRE(iso_heap_of(address) == nullptr);
            REQUIRE(job.slots_free() < before); // nobody may have them meanwhile
            job.soil();
            heap = unpack(*place, job.job);
            REQUIRE(heap == address);
            REQUIRE(refused(*place, job.job) == ISO_ERR_BUSY);
            model.check_all();
        }
        model.free_all();
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        REQUIRE(job.slots_free() == before);
    }
}

TEST_CASE("pup: a linked list and a large block are at their addresses again", "[pup]")
{
    Job job;
    const size_t nodes = 1000000 / scale, large = (256u << 20) / scale;
    iso_heap_t *list = job.heap(), *block = job.heap();
    ListNode *first = nullptr;
    for (size_t i = 0; i < nodes; i++) {
        auto *node = static_cast<ListNode *>(iso_malloc(list, sizeof(ListNode)));
        *node = {first, static_cast<long>(i)};
        first = node;
    }
    iso_heap_set_root(list, first);
    auto *bytes = static_cast<unsigned char *>(iso_malloc(block, large));
    for (size_t i = 0; i < large; i += 4096)
        bytes[i] = static_cast<unsigned char>(i >> 12);
    ByDescriptor place;
    pup_er p = place.to();
    iso_pup_heap(p, job.job, &list);
    iso_pup_heap(p, job.job, &block);
    REQUIRE(iso_pup_flush(p) == ISO_OK);
    pup_destroy(p);
    REQUIRE(iso_heap_destroy(list) == ISO_OK);
    REQUIRE(iso_heap_destroy(block) == ISO_OK);
    p = place.from();
    list = block = nullptr;
    iso_pup_heap(p, job.job, &list);
    iso_pup_heap(p, job.job, &block);
    REQUIRE(iso_pup_status(p) == ISO_OK);
    pup_destroy(p);
    size_t seen = 0;
    for (auto *node = static_cast<ListNode *>(iso_heap_root(list)); node != nullptr;
         node = node->next, seen++)
        if (node->value != static_cast<long>(nodes - 1 - seen))
            FAIL("node " << seen << " has " << node->value);
    REQUIRE(seen == nodes);
    for (size_t i = 0; i < large; i += 4096)
        if (bytes[i] != static_cast<unsigned char>(i >> 12))
            FAIL("byte " << i);
}

TEST_CASE("pup: heap data that end anywhere are refused, and nothing has changed", "[pup]")
{
    Job job;
    iso_heap_t *heap = job.heap();
    Model model(heap, 3);
    model.allocate_mixture();
    const size_t size = size_of(job.job, heap);
    InMemory place(size);
    for (const unsigned use : {0u, static_cast<unsigned>(ISO_PUP_DELETING)}) {
        pack(place, job.job, &heap, use);
        if (heap != nullptr)
            REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        const uint64_t before = job.slots_free();
        const std::vector<char> whole = place.bytes;
        for (size_t end = 0; end < size; end += end < 512 ? 5 : 200000) {
            place.bytes.resize(end);
            REQUIRE(refused(place, job.job) == ISO_ERR_INVALID);
            REQUIRE(job.slots_free() == before);
            place.bytes = whole;
        }
        job.soil();
        heap = unpack(place, job.job);
        model.check_all();
    }
}

TEST_CASE("pup: a record that says what cannot be is refused", "[pup]")
{
    Job job;
    iso_heap_t *heap = job.heap();
    Model model(heap, 3);
    for (int i = 0; i < 40; i++)
        model.allocate(1000);
    InMemory place(size_of(job.job, heap));
    pack(place, job.job, &heap);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    const uint64_t before = job.slots_free();
    const size_t record = 80; // without its lists
    for (size_t byte = 0; byte < record; byte++)
        for (const int bit : {static_cast<int>(byte % 8)}) {
            INFO("byte " << byte << " bit " << bit);
            place.bytes[byte] = static_cast<char>(place.bytes[byte] ^ 1 << bit);
            const iso_status_t status = refused(place, job.job);
            REQUIRE(status != ISO_OK);
            REQUIRE(job.slots_free() == before);
            place.bytes[byte] = static_cast<char>(place.bytes[byte] ^ 1 << bit);
        }
    heap = unpack(place, job.job);
    model.check_all();
}

TEST_CASE(
    "pup: a heap whose lists of slots and runs are not its own is refused, and nothing has changed",
    "[pup]")
{
    struct Extent {
        uint32_t first, count;
    };
    struct Run {
        uint64_t address, length;
    };
    const size_t record = 80, slot_size = size_t{2} << 20;
    Job job;
    iso_heap_t *heap = job.heap();
    Model model(heap, 3);
    for (const size_t size : {1000, 3000000, 1000000, 1500000}) // slots, and a run of two
        model.allocate(size);
    void *space = nullptr;
    size_t space_size = 0;
    iso_space(job.job, &space, &space_size);
    const auto base = reinterpret_cast<uintptr_t>(space);
    InMemory place(size_of(job.job, heap));
    const auto flip = [&](size_t bit) {
        place.bytes[bit / 8] = static_cast<char>(place.bytes[bit / 8] ^ 1 << bit % 8);
    };
    for (const unsigned use : {0u, static_cast<unsigned>(ISO_PUP_DELETING)}) {
        pack(place, job.job, &heap, use);
        if (heap != nullptr)
            REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        const uint64_t before = job.slots_free();
        uint32_t extent_count;
        uint64_t run_count;
        std::memcpy(&extent_count, &place.bytes[44], sizeof extent_count);
        std::memcpy(&run_count, &place.bytes[48], sizeof run_count);
        std::vector<Extent> extents(extent_count);
        std::vector<Run> runs(run_count);
        const size_t runs_at = record + extent_count * sizeof(Extent);
        std::memcpy(extents.data(), &place.bytes[record], extent_count * sizeof(Extent));
        std::memcpy(runs.data(), &place.bytes[runs_at], run_count * sizeof(Run));
        const auto is_inside = [&](const Run &run) {
            for (const Extent &extent : extents) {
                const uintptr_t from = base + extent.first * slot_size;
                if (run.address >= from &&
                    run.address + run.length <= from + (extent.count & 0x7fffffff) * slot_size)
                    return true;
            }
            return false;
        };
        for (size_t bit = record * 8; bit < runs_at * 8; bit++) {
            INFO("bit " << bit - record * 8 << " of the slots");
            flip(bit);
            const iso_status_t status = refused(place, job.job);
            REQUIRE(
                (status == ISO_ERR_INVALID || status == ISO_ERR_BUSY)); // not free; not the heap's
            REQUIRE(job.slots_free() == before);
            flip(bit);
        }
        for (size_t i = 0; i < run_count; i++)
            for (size_t bit = 0; bit < 128; bit++) {
                Run run = runs[i];
                (bit < 64 ? run.address : run.length) ^= uint64_t{1} << bit % 64;
                if (bit < 64 && run.address % 4096 == 0 && is_inside(run))
                    continue; // which is as a damaged page is
                INFO("bit " << bit << " of run " << i);
                flip((runs_at + i * sizeof run) * 8 + bit);
                REQUIRE(refused(place, job.job) == ISO_ERR_INVALID);
                REQUIRE(job.slots_free() == before);
                flip((runs_at + i * sizeof run) * 8 + bit);
            }
        job.soil();
        heap = unpack(place, job.job);
        model.check_all();
    }
}

TEST_CASE("pup: if a later item fails, heaps that were packed to move before it are in what was "
          "packed",
          "[pup]")
{
    Job job;
    iso_heap_t *heaps[2] = {job.heap(), job.heap()}, *const addresses[2] = {heaps[0], heaps[1]};
    Model first(heaps[0], 1), second(heaps[1], 2);
    first.allocate_mixture();
    second.allocate_mixture();
    std::vector<char> array(100000, 'x');
    const size_t size = size_of(job.job, heaps[0]) + size_of(job.job, heaps[1]);
    std::vector<char> room(size + array.size() / 2); // not enough for all of it
    pup_er p = iso_pup_new_to_memory(room.data(), room.size());
    REQUIRE(iso_pup_set_use(p, ISO_PUP_DELETING) == ISO_OK);
    for (iso_heap_t *&heap : heaps)
        iso_pup_heap(p, job.job, &heap);
    REQUIRE(iso_pup_status(p) == ISO_OK);
    pup_chars(p, array.data(), array.size());
    REQUIRE(iso_pup_status(p) == ISO_ERR_LIMIT);
    pup_destroy(p);
    REQUIRE(heaps[0] == nullptr);
    REQUIRE(heaps[1] == nullptr);
    p = iso_pup_new_from_memory(room.data(), room.size());
    for (iso_heap_t *&heap : heaps)
        iso_pup_heap(p, job.job, &heap);
    REQUIRE(iso_pup_status(p) == ISO_OK);
    pup_destroy(p);
    REQUIRE(heaps[0] == addresses[0]);
    REQUIRE(heaps[1] == addresses[1]);
    first.check_all();
    second.check_all();
}

TEST_CASE("pup: what is no heap here is refused: destroyed, in a job elsewhere, after a failure",
          "[pup]")
{
    Job job;
    iso_heap_t *heap = job.heap(), *gone = heap;
    InMemory place(size_of(job.job, heap));
    pack(place, job.job, &heap);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    pup_er p = place.to();
    iso_pup_heap(p, job.job, &gone);
    REQUIRE(iso_pup_status(p) == ISO_ERR_NOT_OWNER);
    REQUIRE(pup_size(p) == 0);
    place.end(p);
    p = place.from();
    iso_pup_fail(p, ISO_ERR_CANCELED);
    heap = nullptr;
    iso_pup_heap(p, job.job, &heap);
    REQUIRE(heap == nullptr);
    place.end(p);
    iso_heap_t *in_the_way = job.heap(); // takes the lowest slot, which was the heap's
    REQUIRE(in_the_way == gone);
    REQUIRE(refused(place, job.job) == ISO_ERR_BUSY);
    REQUIRE(iso_heap_destroy(in_the_way) == ISO_OK);
    REQUIRE(unpack(place, job.job) == gone);
}
