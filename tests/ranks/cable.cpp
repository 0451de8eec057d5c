// Two ranks that a cable joins, which rank 0 pulls (ISO_TEST_CABLE down) and plugs in again (up): before a
// migration, and in the middle of its puts. Run by cable.sh.
#include "marked.hpp"

namespace {

constexpr size_t size = 32 << 20;
constexpr double settled_by = 60; // TCP tries again ever more rarely

void cable(const char *how)
{
    const std::string command = std::string(std::getenv("ISO_TEST_CABLE")) + " " + how;
    EXPECT(std::system(command.c_str()) == 0);
}

void source(Job &job, bool in_puts, unsigned char mark)
{
    iso_heap_t *heap = marked(job, size, mark);
    if (!in_puts)
        cable("down");
    iso_request_t *request = job.start(heap, 1);
    iso_request_info_t info = {};
    while (in_puts && info.bytes_put == 0) {
        EXPECT_STATUS(ISO_INPROGRESS, iso_test(request));
        iso_request_query(request, &info);
    }
    if (in_puts)
        cable("down");
    const double start = now();
    const iso_status_t status = iso_wait(request);
    EXPECT(now() - start < 6); // ISO_TIMEOUT is 1
    EXPECT_STATUS(in_puts ? ISO_ERR_IN_DOUBT : ISO_ERR_TIMED_OUT, status);
    EXPECT(iso_heap_state(heap) == (in_puts ? ISO_HEAP_IN_DOUBT : ISO_HEAP_OWNED));
    for (const double until = now() + 1; now() < until;)
        iso_progress_wait(job.job, 0.1);
    cable("up");
    for (const double until = now() + settled_by; iso_heap_state(heap) == ISO_HEAP_IN_DOUBT;) {
        EXPECT(now() < until);
        iso_progress_wait(job.job, 0.1);
    }
    std::printf("%s: settled after %.1f s\n", in_puts ? "in puts" : "before", now() - start);
    while (iso_heap_state(heap) == ISO_HEAP_OWNED) { // until the cable is as good as before
        EXPECT(now() - start < settled_by);
        expect_marked(heap, size, mark);
        const iso_status_t again = iso_wait(job.start(heap, 1));
        EXPECT(again == ISO_OK || again == ISO_ERR_TIMED_OUT || again == ISO_ERR_BUSY ||
               again == ISO_ERR_IN_DOUBT);
        while (iso_heap_state(heap) == ISO_HEAP_IN_DOUBT) {
            EXPECT(now() - start < settled_by);
            iso_progress_wait(job.job, 0.1);
        }
    }
    EXPECT(iso_heap_state(heap) == ISO_HEAP_ELSEWHERE);
}

} // namespace

int main()
{
    Job job;
    EXPECT(std::string(iso_transport_name(job.job)) == "ucx");
    unsigned char mark = 1;
    if (self == 0)
        job.send(marked(job, 100, mark), 1); // they know each other
    else
        expect_marked(job.receive().heap, 100, mark);
    for (const bool in_puts : {false, true}) {
        mark++;
        job.barrier();
        if (self == 0)
            source(job, in_puts, mark);
        else
            expect_marked(job.receive(settled_by + 30).heap, size, mark);
        job.barrier();
        EXPECT(job.arrivals.empty()); // one owner, once
        EXPECT(job.stats().migrations_in_doubt == 0);
    }
    job.finish();
    return 0;
}
