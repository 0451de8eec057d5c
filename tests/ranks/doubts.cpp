// A heap in doubt with threads aboard: what they are while nobody knows where it is, and what they hear when that is known.
//
//   doubts goes|stays|declared      ISO_TEST_AT stops rank 1 when the commit of rank 0's heap has come
//
// goes: rank 1 goes on, and has the heap; stays: rank 1 is ended; declared: rank 0 declares it dead before. Rank 2 does that to
// it, when rank 0 has looked at its threads. Those that live print "survivor <rank> ok".
#include "ranks.hpp"
#include <csignal>
#include <isomalloc/thread.h>

namespace {

constexpr double patience = 20; // s; ISO_TIMEOUT is much less

uint32_t here() // not inlined: the rank is this process's
{
    return self;
}
uint32_t (*volatile ask)() = here;

pid_t letter; // the last one that came

void on_arrival(iso_job_t * /*job*/, const iso_arrival_t *arrival, void * /*arg*/)
{
    if (arrival->header_len == sizeof letter)
        std::memcpy(&letter, arrival->header, sizeof letter);
}

// ---- the threads ----

unsigned ended, turns;
iso_status_t heard = ISO_INPROGRESS;

void *leaves(void * /*arg*/)
{
    const iso_status_t status = iso_thread_migrate(1);
    EXPECT(ask() == (status == ISO_OK ? 1 : 0));
    heard = status;
    ended++;
    return nullptr;
}

void *is_taken_along(void * /*arg*/)
{
    iso_thread_yield();
    ended++;
    return nullptr;
}

void *waits(void * /*arg*/)
{
    iso_thread_suspend();
    ended++;
    return nullptr;
}

void *is_at_home(void * /*arg*/)
{
    for (;;) {
        turns++;
        iso_thread_yield();
    }
}

struct Threads {
    Job job;
    Threads()
    {
        const iso_threads_params_t params = {sizeof params, nullptr, on_arrival, nullptr};
        EXPECT_STATUS(ISO_OK, iso_threads_open(job.job, &params));
    }
    static iso_thread_t *make(iso_heap_t *heap, iso_thread_fn fn, bool detached = true)
    {
        const iso_thread_attr_t attr = {sizeof attr, 16384, "aboard", detached};
        iso_thread_t *thread = nullptr;
        EXPECT_STATUS(ISO_OK, iso_thread_create(heap, fn, nullptr, &attr, &thread));
        return thread;
    }
    template <class Done> void run(Done done)
    {
        const double until = now() + patience;
        auto in_time = [&] {
            EXPECT(now() < until);
            return done();
        };
        EXPECT_STATUS(ISO_OK,
                      iso_threads_run(
                          job.job,
                          [](void *arg) { return (*static_cast<decltype(in_time) *>(arg))(); },
                          static_cast<void *>(&in_time)));
    }
    void write(uint32_t dest, pid_t value)
    {
        job.send(job.heap(), dest, &value, sizeof value);
    }
};

iso_thread_state_t resumed(iso_thread_t *thread)
{
    iso_thread_state_t state = ISO_THREAD_READY;
    EXPECT_STATUS(ISO_OK, iso_thread_resume(thread, &state));
    return state;
}

// ---- the ranks ----

void source(Threads &threads, const std::string &way)
{
    iso_heap_t *heap = threads.job.heap();
    iso_thread_t *leaver = Threads::make(heap, leaves),
                 *along = Threads::make(heap, is_taken_along), *waiter = Threads::make(heap, waits);
    Threads::make(threads.job.heap(), is_at_home);
    iso_thread_t *const all[] = {leaver, along, waiter};
    EXPECT(resumed(along) == ISO_THREAD_READY && resumed(waiter) == ISO_THREAD_SUSPENDED);
    EXPECT(resumed(leaver) == ISO_THREAD_LEAVING);
    threads.run([heap] { return iso_heap_state(heap) == ISO_HEAP_IN_DOUBT; });
    // from when its request has ended, too
    threads.run([turn = 0]() mutable { return turn++ > 2; });
    EXPECT(iso_heap_state(heap) == ISO_HEAP_IN_DOUBT &&
           threads.job.stats().migrations_in_doubt == 1);

    for (iso_thread_t *thread : all) {
        EXPECT(iso_thread_state(thread) == ISO_THREAD_LEAVING);
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_thread_resume(thread, nullptr));
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_thread_awaken(thread));
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_thread_join(thread, nullptr));
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_threads_move(&thread, 1, 2));
    }
    EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_threads_move_heap(heap, 2));
    EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_threads_let_go(heap));
    EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_threads_take_in(heap));
    EXPECT_STATUS(ISO_ERR_BUSY, iso_threads_close(threads.job.job));
    const unsigned before = turns;
    threads.run([before] { return turns > before + 2; }); // others run
    EXPECT(ended == 0);

    if (way == "declared")
        EXPECT_STATUS(ISO_OK, iso_peer_declare_dead(threads.job.job, 1));
    threads.write(2, 1);
    if (way == "goes") {
        threads.run([heap] { return iso_heap_state(heap) == ISO_HEAP_ELSEWHERE; });
        for (iso_thread_t *thread : all)
            EXPECT(iso_thread_state(thread) == ISO_THREAD_LEAVING);
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_thread_resume(along, nullptr));
    } else { // who is ready is the scheduler's again, and who wanted to leave hears why it has not
        threads.run([] { return ended == 2; });
        EXPECT_STATUS(ISO_ERR_IN_DOUBT, heard);
        EXPECT(iso_heap_state(heap) == ISO_HEAP_OWNED);
        EXPECT_STATUS(ISO_OK, iso_thread_awaken(waiter));
        threads.run([] { return ended == 3; });
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
    }
}

void target(Threads &threads)
{
    threads.run([] { return ended == 2; });
    EXPECT_STATUS(ISO_OK, heard);
}

void judge(Threads &threads, const std::string &way)
{
    threads.run([] { return letter > 1; });
    const pid_t process = letter;
    threads.run([] { return letter == 1; });
    EXPECT(kill(process, way == "goes" ? SIGCONT : SIGKILL) == 0);
}

} // namespace

int main(int argc, char **argv)
{
    const std::string way = argc > 1 ? argv[1] : "";
    if (way != "goes" && way != "stays" && way != "declared")
        return 2;
    Threads threads;
    if (self == 1)
        threads.write(2, getpid());
    threads.job.barrier();
    if (self == 0)
        source(threads, way);
    else if (self == 1)
        target(threads);
    else
        judge(threads, way);
    threads.job.barrier();
    EXPECT(threads.job.stats().migrations_in_doubt == 0);
    while (iso_threads_close(threads.job.job) == ISO_ERR_BUSY)
        iso_threads_progress(threads.job.job);
    threads.job.finish();
    std::printf("survivor %u ok\n", self);
    return 0;
}
