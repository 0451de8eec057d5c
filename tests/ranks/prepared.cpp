// iso_prepare where the space is registered in windows: what a migration will need is there ahead of it, as far as it fits,
// and never more than ISO_PIN_LIMIT. What the tests want of the limit stands in windows.cmake.
#include "windows.hpp"

namespace {

// What is prepared is not waited for.
void prepared()
{
    Job job;
    constexpr uint32_t far = 1;
    const size_t bytes = limit() / 4;
    if (self == 0) {
        iso_heap_t *heap = loaded(job, bytes), *other = job.heap();
        iso_request_t *request = nullptr;
        EXPECT_STATUS(ISO_OK, iso_prepare(heap, far, &request));
        iso_request_info_t info;
        iso_request_query(request, &info);
        EXPECT(std::string(info.step) == "PREPARING");
        EXPECT_STATUS(ISO_OK, iso_wait(request));
        EXPECT(iso_heap_state(heap) == ISO_HEAP_OWNED);
        change(heap);
        const iso_stats_t before = job.stats();
        EXPECT(before.registrations > 0);
        job.send(heap, far);
        const iso_stats_t after = job.stats();
        EXPECT(after.window_misses == before.window_misses);
        EXPECT(after.window_hits > before.window_hits);
        EXPECT(after.registrations == before.registrations);
        EXPECT(after.reservations == before.reservations);
        EXPECT(after.grants_used == before.grants_used + 1);
        // a heap that has changed since is not what was prepared, and moves all the same
        iso_heap_t *grown = loaded(job, bytes / 2);
        EXPECT_STATUS(ISO_OK, iso_prepare(grown, far, &request));
        EXPECT_STATUS(ISO_OK, iso_wait(request));
        EXPECT(iso_malloc(grown, 5000000) != nullptr);
        job.send(grown, far);
        // what is prepared for one rank may go to another
        iso_heap_t *elsewhere = loaded(job, bytes / 2);
        EXPECT_STATUS(ISO_OK, iso_prepare(elsewhere, far, &request));
        EXPECT_STATUS(ISO_OK, iso_wait(request));
        job.send(elsewhere, 2);
        // to itself; of what is not here; of nobody; given up; while the heap ends
        EXPECT_STATUS(ISO_OK, iso_prepare(other, 0, &request));
        EXPECT_STATUS(ISO_OK, iso_wait(request));
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_prepare(heap, far, &request));
        EXPECT_STATUS(ISO_ERR_RANK, iso_prepare(other, 17, &request));
        iso_heap_t *fresh = loaded(job, bytes);
        EXPECT_STATUS(ISO_OK, iso_prepare(fresh, 2, &request));
        EXPECT_STATUS(ISO_OK, iso_cancel(request));
        EXPECT_STATUS(ISO_ERR_CANCELED, iso_wait(request));
        EXPECT_STATUS(ISO_OK, iso_prepare(fresh, 2, &request));
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(fresh));
        EXPECT_STATUS(ISO_OK, iso_wait(request));
    } else if (self == far) {
        const iso_stats_t before = job.stats();
        EXPECT(before.registrations == 0);
        check(job.receive().heap);
        check(job.receive().heap);
    } else {
        iso_heap_t *heap = job.receive().heap;
        check(heap);
        change(heap);
        job.send(heap, far); // where a grant for it stood that was given up since
    }
    if (self == far)
        check(job.receive().heap);
    job.barrier();
    check_limit(job);
    job.finish();
}

// More than the limit for one heap is prepared as far as it goes; more is migrated, right all the same.
void prepared_in_part()
{
    Job job;
    if (self == 0) {
        iso_heap_t *heap = loaded(job, limit() * 3);
        iso_request_t *request = nullptr;
        EXPECT_STATUS(ISO_OK, iso_prepare(heap, 1, &request));
        EXPECT_STATUS(ISO_OK, iso_wait(request));
        check_limit(job);
        job.send(heap, 1);
    } else {
        check(job.receive().heap);
    }
    check_limit(job);
    job.barrier();
    job.finish();
}

} // namespace

int main(int argc, char **argv)
{
    return run_test({{"prepared", prepared}, {"prepared_in_part", prepared_in_part}}, argc, argv);
}
