// What is in a carrier comes from another process: what cannot be is refused, and changes nothing.
#include "core/heap.h"
#include "core/hold.h"
#include "core/job.h"
#include "core/parcel.h"
#include "core/pup.h"
#include "tests/unit/allocator.hpp"
#include "tests/unit/no_memory.hpp"
#include <ctime>
#include <isomalloc/pup.h>

namespace {

constexpr size_t run_size = 5000000;

// A carrier as it is at the target when its pages have come: with the slots of two heaps.
struct Come {
    Job job{256u << 20, 0, false}; // what comes is looked at as it is, holes and all
    iso_heap_t *carrier = nullptr, *heaps[2] = {};
    iso_hold_t *hold = nullptr;
    iso_parcel_list_t *list = nullptr;
    int arrival = 0;

    Come()
    {
        REQUIRE(iso_heap_make(job.job, ISO_HEAP_CARRIER, &carrier) == ISO_OK);
        hold = iso_hold_find(job.job, carrier);
        REQUIRE(iso_parcel_write(carrier, 1, nullptr, 0) != nullptr);
        iso_parcel_piece_t **end = &root()->pieces;
        for (int i = 0; i < 3; i++, end = &(*end)->next) {
            *end = static_cast<iso_parcel_piece_t *>(
                iso_malloc(carrier, sizeof(iso_parcel_piece_t) + 1000));
            **end = {nullptr, 900, 1000};
        }
        iso_parcel_t parcel = {};
        iso_hold_t *members[2];
        for (int i = 0; i < 2; i++) {
            heaps[i] = job.heap();
            for (int block = 0; block < 40; block++) // slots, with a large block between them
                std::memset(iso_malloc(heaps[i], 200000), i, 200000);
            void *run = iso_malloc(heaps[i], run_size);
            std::memset(run, i + 1, run_size);
            iso_heap_set_root(heaps[i], run);
            for (int block = 0; block < 40; block++)
                std::memset(iso_malloc(heaps[i], 200000), i, 200000);
            members[i] = iso_hold_find(job.job, heaps[i]);
        }
        parcel.carrier = hold;
        parcel.members = members;
        parcel.member_count = 2;
        iso_job_lock(job.job);
        iso_parcel_freeze(&parcel);
        iso_job_unlock(job.job);
        list = iso_parcel_write(carrier, 1, members, 2);
        REQUIRE(list != nullptr);
        iso_job_lock(job.job);
        REQUIRE(iso_hold_room(hold, list->extent_count) == ISO_OK);
        for (iso_hold_t *member : members)
            iso_hold_merge(hold, member);
        iso_parcel_gone(&parcel);
        iso_job_unlock(job.job);
    }

    [[nodiscard]] iso_parcel_list_t *root() const
    {
        return static_cast<iso_parcel_list_t *>(iso_heap_root(carrier));
    }

    [[nodiscard]] uint32_t holds() const
    {
        uint32_t count = 0;
        for (const iso_hold_t *at = job.job->holds; at != nullptr; at = at->next)
            count++;
        return count;
    }

    // Whatever the end: if it is refused nothing has changed.
    iso_status_t open(iso_parcel_t **parcel_p)
    {
        const uint32_t extents = hold->extent_count, slots = hold->slot_count, before = holds();
        iso_job_lock(job.job);
        const iso_status_t status = iso_parcel_open(job.job, hold, &arrival, parcel_p);
        iso_job_unlock(job.job);
        REQUIRE(hold->extent_count == extents);
        REQUIRE(hold->slot_count == slots);
        if (status != ISO_OK)
            REQUIRE(holds() == before);
        return status;
    }

    iso_status_t refused()
    {
        iso_parcel_t *parcel = nullptr;
        const iso_status_t status = open(&parcel);
        REQUIRE(status != ISO_OK);
        return status;
    }

    void end()
    {
        iso_parcel_t *parcel = nullptr;
        REQUIRE(open(&parcel) == ISO_OK);
        iso_job_lock(job.job);
        iso_parcel_split(parcel);
        iso_parcel_free(parcel);
        iso_job_unlock(job.job);
        for (int i = 0; i < 2; i++) {
            const auto *bytes = static_cast<const unsigned char *>(iso_heap_root(heaps[i]));
            REQUIRE(iso_heap_of(bytes) == heaps[i]);
            REQUIRE(bytes[0] == i + 1);
            REQUIRE(std::memcmp(bytes, bytes + 1, run_size - 1) == 0);
            iso_free(iso_malloc(heaps[i], 300000));
            REQUIRE(iso_heap_destroy(heaps[i]) == ISO_OK);
        }
        REQUIRE(iso_heap_destroy(carrier) == ISO_OK);
    }
};

} // namespace

TEST_CASE("parcel: what a carrier brings is whole", "[parcel]")
{
    Come come;
    REQUIRE(come.list->extent_count >= 4);
    come.end();
}

TEST_CASE("parcel: lists that cannot be are refused, with nothing changed", "[parcel]")
{
    Come come;
    iso_extent_t *extents = iso_parcel_extents(come.list);
    iso_parcel_member_t *members = iso_parcel_members(come.list);
    const std::vector<iso_extent_t> sound(extents, extents + come.list->extent_count);
    const std::vector<iso_parcel_member_t> sound_members(members, members + 2);
    auto with = [&](const auto &damage) {
        damage();
        const iso_status_t status = come.refused();
        std::copy(sound.begin(), sound.end(), extents);
        std::copy(sound_members.begin(), sound_members.end(), members);
        return status;
    };
    const uint32_t mine = members[0].extent_count;
    REQUIRE(mine >= 2);
    // an extent twice, in one heap and in both
    REQUIRE(with([&] { extents[0] = extents[1]; }) == ISO_ERR_INVALID);
    REQUIRE(with([&] { extents[mine] = extents[0]; }) == ISO_ERR_INVALID);
    // longer than what the carrier has there; outside the space; empty; of another kind
    for (uint32_t i = 0; i < sound.size(); i++) {
        INFO(i);
        REQUIRE(with([&] { extents[i].count += 1; }) == ISO_ERR_INVALID);
        REQUIRE(with([&] { extents[i].count ^= ISO_EXTENT_RUN; }) == ISO_ERR_INVALID);
        REQUIRE(with([&] { extents[i].count = 0; }) == ISO_ERR_INVALID);
        REQUIRE(with([&] { extents[i].first = UINT32_MAX; }) == ISO_ERR_INVALID);
        REQUIRE(with([&] { extents[i].first += 100000; }) == ISO_ERR_INVALID);
    }
    // the carrier's own slot; a heap twice, or that is not where it says; an older one
    REQUIRE(with([&] {
                extents[0] = {iso_space_slot(&come.job.job->space, come.carrier), 1};
            }) == ISO_ERR_INVALID);
    REQUIRE(with([&] { members[1].heap = members[0].heap; }) == ISO_ERR_INVALID);
    REQUIRE(with([&] { members[0].heap += ISO_SLOT_SIZE; }) == ISO_ERR_INVALID);
    REQUIRE(with([&] { members[0].heap += 64; }) == ISO_ERR_INVALID);
    REQUIRE(with([&] { members[0].epoch -= 1; }) != ISO_OK);
    REQUIRE(with([&] { members[0].extent_count += 1; }) == ISO_ERR_INVALID);
    come.end();
}

TEST_CASE("parcel: chains of bytes that lead elsewhere, or never end, are refused", "[parcel]")
{
    Come come;
    iso_parcel_piece_t *first = come.list->pieces, *last = first->next->next;
    auto with = [&](auto *field, auto value) {
        const auto sound = *field;
        *field = value;
        const iso_status_t status = come.refused();
        *field = sound;
        return status;
    };
    int elsewhere[64] = {};
    REQUIRE(with(&last->next, first) == ISO_ERR_INVALID);
    REQUIRE(with(&last->next, last) == ISO_ERR_INVALID);
    REQUIRE(with(&last->next, reinterpret_cast<iso_parcel_piece_t *>(elsewhere)) ==
            ISO_ERR_INVALID);
    REQUIRE(with(&come.list->pieces, reinterpret_cast<iso_parcel_piece_t *>(8)) == ISO_ERR_INVALID);
    REQUIRE(with(&first->length, first->room + 1) == ISO_ERR_INVALID);
    REQUIRE(with(&first->room, UINT64_MAX - 8) == ISO_ERR_INVALID);
    REQUIRE(with(&come.list->magic, uint64_t{0}) == ISO_ERR_INVALID);
    REQUIRE(with(&come.list->member_count, UINT32_MAX) == ISO_ERR_INVALID);
    REQUIRE(with(&come.list->extent_count, UINT32_MAX) == ISO_ERR_INVALID);
    come.end();
}

TEST_CASE("parcel: any bytes in the list are refused or sound, and nobody falls", "[parcel]")
{
    Come come;
    std::mt19937 random(7);
    const size_t length = sizeof *come.list + 2 * sizeof(iso_parcel_member_t) +
                          come.list->extent_count * sizeof(iso_extent_t);
    auto *bytes = reinterpret_cast<unsigned char *>(come.list);
    const std::vector<unsigned char> sound(bytes, bytes + length);
    for (int round = 0; round < 20000 / scale; round++) {
        for (unsigned i = 0; i <= random() % 3; i++)
            bytes[random() % length] ^= static_cast<unsigned char>(1u << random() % 8);
        iso_parcel_t *parcel = nullptr;
        if (come.open(&parcel) == ISO_OK) {
            iso_job_lock(come.job.job);
            iso_parcel_gone(parcel);
            iso_parcel_free(parcel);
            iso_job_unlock(come.job.job);
        }
        std::copy(sound.begin(), sound.end(), bytes);
    }
    come.end();
}

#ifdef CAN_FAIL_ALLOCATION
namespace {

struct Counted {
    iso_heap_t *heap;
    int count;
    long numbers[500]; // more than a header has room for
};

struct Arrivals {
    iso_job_t *job;
    std::vector<Counted *> objects;
};
Arrivals *arrivals;

void pup_counted(pup_er p, void *object)
{
    auto *counted = static_cast<Counted *>(object);
    pup_int(p, &counted->count);
    pup_longs(p, counted->numbers, static_cast<size_t>(counted->count));
    iso_pup_heap(p, arrivals->job, &counted->heap);
}

void arrived(iso_job_t * /*job*/, void *object, uint32_t /*source*/, iso_status_t status,
             void * /*arg*/)
{
    REQUIRE(status == ISO_OK);
    arrivals->objects.push_back(static_cast<Counted *>(object));
}

} // namespace

TEST_CASE("parcel: an object that there is no memory for when it comes waits until there is",
          "[parcel]")
{
    Job job;
    Arrivals here{job.job, {}};
    arrivals = &here;
    iso_object_type_t type = {};
    type.struct_size = sizeof type;
    type.name = "counted";
    type.size = sizeof(Counted);
    type.pup = pup_counted;
    type.arrived = arrived;
    REQUIRE(iso_pup_register(job.job, &type) == ISO_OK);
    for (const size_t wanted : {sizeof(Counted), sizeof(iso_pup_t)})
        for (const int count : {3, 500}) { // in a header; in a carrier
            INFO(wanted << " bytes that are not there, " << count << " numbers");
            Counted object = {job.heap(), count, {}};
            iso_heap_t *const heap = object.heap;
            object.numbers[count - 1] = 77;
            iso_request_t *request = nullptr;
            REQUIRE(iso_migrate_pup(job.job, 0, "counted", &object, &request) == ISO_OK);
            no_memory_for = wanted;
            for (int i = 0; i < 50; i++) { // some of them later than it is tried again
                iso_progress(job.job);
                const timespec moment = {0, 1000000};
                nanosleep(&moment, nullptr);
            }
            no_memory_for = 0;
            REQUIRE(here.objects.empty());
            REQUIRE(iso_heap_state(heap) == ISO_HEAP_OWNED); // it is here
            REQUIRE(iso_wait(request) == ISO_OK);
            for (int i = 0; i < 1000 && here.objects.empty(); i++) {
                iso_progress(job.job);
                const timespec moment = {0, 1000000};
                nanosleep(&moment, nullptr);
            }
            REQUIRE(here.objects.size() == 1);
            REQUIRE(here.objects[0]->heap == heap);
            REQUIRE(here.objects[0]->count == count);
            REQUIRE(here.objects[0]->numbers[count - 1] == 77);
            REQUIRE(iso_heap_destroy(heap) == ISO_OK);
            std::free(here.objects[0]);
            here.objects.clear();
        }
    arrivals = nullptr;
}
#endif
