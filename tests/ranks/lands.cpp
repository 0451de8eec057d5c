// Threads whose heap lands: from when on they are the rank's own, that each is told of once, and that the scheduler
// touches none of them once one of them may have taken the heap away again.
#include "ranks.hpp"
#include <isomalloc/thread.h>

namespace {

uint32_t here() // not inlined: the rank is this process's
{
    return self;
}
uint32_t (*volatile ask)() = here;

// A heap with a header is a letter.
struct Letter {
    bool came;
    iso_thread_t *thread;
} letter;
iso_heap_t *landed; // the last heap without one

void on_arrival(iso_job_t * /*job*/, const iso_arrival_t *arrival, void * /*arg*/)
{
    if (arrival->header_len == 0) {
        landed = arrival->heap;
        return;
    }
    EXPECT(arrival->header_len == sizeof letter.thread);
    std::memcpy(&letter.thread, arrival->header, sizeof letter.thread);
    letter.came = true;
}

struct Threads {
    Job job;
    explicit Threads(void (*ready)(iso_thread_t *, void *) = nullptr,
                     iso_arrival_fn arrival = on_arrival)
    {
        const iso_threads_params_t params = {sizeof params, ready, arrival, nullptr};
        EXPECT_STATUS(ISO_OK, iso_threads_open(job.job, &params));
        job.barrier();
    }
    Threads(const Threads &) = delete;
    Threads &operator=(const Threads &) = delete;

    static iso_thread_t *make(iso_heap_t *heap, iso_thread_fn fn, void *arg = nullptr)
    {
        const iso_thread_attr_t attr = {sizeof attr, 16384, "lands", true};
        iso_thread_t *thread = nullptr;
        EXPECT_STATUS(ISO_OK, iso_thread_create(heap, fn, arg, &attr, &thread));
        return thread;
    }
    template <class Done> void run(Done done)
    {
        EXPECT_STATUS(ISO_OK,
                      iso_threads_run(
                          job.job, [](void *arg) { return (*static_cast<Done *>(arg))(); }, &done));
    }
    void write(uint32_t dest, iso_thread_t *thread)
    {
        job.send(job.heap(), dest, &thread, sizeof thread);
    }
    void finish()
    {
        job.barrier();
        while (iso_threads_close(job.job) == ISO_ERR_BUSY)
            iso_threads_progress(job.job);
        job.finish();
    }
};

// ---- not before it has landed ----

unsigned ran;

void *waits(void * /*arg*/)
{
    iso_thread_suspend();
    EXPECT(ask() == 1);
    ran++;
    return nullptr;
}

void early()
{
    Threads threads;
    if (self == 0) {
        iso_heap_t *heap = threads.job.heap();
        for (unsigned i = 0; i < 200 / scale; i++) { // so that the landing takes a while
            void *block = iso_malloc(heap, 1 << 20);
            EXPECT(block != nullptr);
            std::memset(block, 1, 1 << 20);
        }
        iso_thread_t *thread = Threads::make(heap, waits);
        iso_thread_state_t state;
        EXPECT_STATUS(ISO_OK, iso_thread_resume(thread, &state));
        EXPECT(state == ISO_THREAD_SUSPENDED);
        threads.write(1, thread);
        EXPECT_STATUS(ISO_OK, iso_threads_move(&thread, 1, 1));
        while (iso_heap_state(heap) != ISO_HEAP_ELSEWHERE)
            iso_threads_progress(threads.job.job);
    } else {
        while (!letter.came)
            iso_threads_progress(threads.job.job);
        unsigned looked = 0;
        while (landed == nullptr) {
            if (iso_heap_of(letter.thread) != nullptr &&
                iso_heap_state(iso_heap_of(letter.thread)) != ISO_HEAP_OWNED) {
                EXPECT(iso_thread_state(letter.thread) == ISO_THREAD_LEAVING);
                if (looked++ == 0) {
                    EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_thread_awaken(letter.thread));
                    EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_thread_resume(letter.thread, nullptr));
                }
            }
            iso_threads_progress(threads.job.job);
        }
        std::printf("looked at %u times while it landed\n", looked);
        EXPECT(iso_thread_state(letter.thread) == ISO_THREAD_SUSPENDED);
        EXPECT_STATUS(ISO_OK, iso_thread_awaken(letter.thread));
        EXPECT_STATUS(ISO_ERR_INVALID, iso_thread_awaken(letter.thread));
        threads.run([] { return ran > 0; });
        EXPECT(ran == 1);
    }
    threads.finish();
}

// ---- several threads of a heap, each of which takes the others along ----

unsigned came_home;

void *to_and_fro(void *arg)
{
    const auto home = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(arg));
    for (int i = 0; i < 60; i++) {
        EXPECT_STATUS(ISO_OK, iso_thread_migrate(1 - ask()));
        iso_thread_yield();
    }
    EXPECT_STATUS(ISO_OK, iso_thread_migrate(home));
    EXPECT(ask() == home);
    came_home++;
    return nullptr;
}

void together()
{
    Threads threads;
    const unsigned heaps = 50 / scale, each = 8;
    for (unsigned i = 0; i < heaps; i++) {
        iso_heap_t *heap = threads.job.heap();
        for (unsigned k = 0; k < each; k++)
            Threads::make(heap, to_and_fro, reinterpret_cast<void *>(uintptr_t{self}));
    }
    threads.run([&] { return came_home == heaps * each; });
    iso_heap_t *heap = threads.job.heap();
    iso_thread_t *none = nullptr;
    iso_request_t *request =
        threads.job.start(heap, 1 - self, static_cast<const void *>(&none), sizeof none);
    threads.run([] { return letter.came; }); // those of the other one may be here
    EXPECT_STATUS(ISO_OK, iso_wait(request));
    EXPECT(came_home == heaps * each);
    threads.finish();
}

// ---- a scheduler that resumes at once hears of each once ----

bool starts;

void *bounces(void * /*arg*/)
{
    for (int i = 0; i < 200; i++)
        EXPECT_STATUS(ISO_OK, iso_thread_migrate(1 - ask()));
    EXPECT_STATUS(ISO_OK, iso_thread_migrate(0));
    came_home++;
    return nullptr;
}

void told_once()
{
    Threads threads([](iso_thread_t *thread, void *) {
        if (self == 1 || starts)
            EXPECT_STATUS(ISO_OK, iso_thread_resume(thread, nullptr));
    });
    const unsigned count = 3;
    if (self == 0) {
        iso_heap_t *heap = threads.job.heap();
        for (unsigned i = 0; i < count; i++)
            Threads::make(heap, bounces);
        starts = true;
        EXPECT_STATUS(ISO_OK, iso_threads_move_heap(heap, 1));
        while (came_home < count)
            iso_threads_progress(threads.job.job);
        threads.write(1, nullptr);
    }
    while (self == 1 && !letter.came)
        iso_threads_progress(threads.job.job);
    threads.finish();
}

// ---- moved by iso_migrate, and taken in by the one that hears of it, too ----

unsigned begun, ended;

void *yields(void * /*arg*/)
{
    begun++;
    iso_thread_yield();
    ended++;
    return nullptr;
}

void taken_in()
{
    Threads threads(nullptr, [](iso_job_t *job, const iso_arrival_t *arrival, void *arg) {
        for (int i = 0; i < 2; i++)
            EXPECT_STATUS(ISO_OK, iso_threads_take_in(arrival->heap));
        on_arrival(job, arrival, arg);
    });
    if (self == 0) {
        iso_heap_t *heap = threads.job.heap();
        for (int i = 0; i < 2; i++)
            Threads::make(heap, yields);
        EXPECT_STATUS(ISO_OK, iso_threads_let_go(heap));
        threads.job.send(heap, 1);
        threads.write(1, nullptr);
    } else {
        threads.run([] { return letter.came; });
        EXPECT_STATUS(ISO_OK, iso_threads_take_in(landed));
        for (int turn = 0; turn < 4; turn++)
            threads.run([turns = 0]() mutable { return turns++ > 0; });
        EXPECT(begun == 2 && ended == 2);
    }
    threads.finish();
}

// ---- moved on before its threads are here ----

iso_status_t moved_on = ISO_INPROGRESS;

void ends(iso_job_t *job, const iso_arrival_t *arrival, void *arg)
{
    on_arrival(job, arrival, arg);
    if (arrival->header_len == 0)
        return;
    iso_heap_t *heap = nullptr;
    std::memcpy(&heap, arrival->header, sizeof heap);
    if (iso_heap_state(heap) == ISO_HEAP_OWNED && landed == nullptr)
        moved_on = iso_threads_move_heap(heap, 0);
}

void *runs(void * /*arg*/)
{
    iso_thread_yield();
    ran++;
    return nullptr;
}

// A letter arrives before a heap that has landed already. Who moves that then is refused, and its threads run.
void moved_early()
{
    Threads threads(nullptr, ends);
    if (self == 0) {
        iso_heap_t *carries = threads.job.heap(), *heap = threads.job.heap();
        Threads::make(heap, runs);
        iso_request_t *request =
            threads.job.start(carries, 1, static_cast<const void *>(&heap), sizeof heap);
        EXPECT_STATUS(ISO_OK, iso_threads_move_heap(heap, 1));
        while (iso_heap_state(heap) != ISO_HEAP_ELSEWHERE)
            iso_threads_progress(threads.job.job);
        EXPECT_STATUS(ISO_OK, iso_wait(request));
    } else {
        const timespec moment = {
            0, 300000000}; // both come before this rank looks, where it need not answer
        nanosleep(&moment, nullptr);
        threads.run([] { return ran > 0 && letter.came; });
        EXPECT(moved_on == ISO_ERR_NOT_OWNER || moved_on == ISO_INPROGRESS);
        std::printf("moved on: %s\n", iso_status_string(moved_on));
    }
    threads.finish();
}

// ---- told why, by whatever call looks first ----

iso_heap_t *stays;

bool admits_none(iso_job_t *job, const iso_arrival_t * /*arrival*/, void * /*arg*/)
{
    return iso_rank(job) == 0;
}

void *is_refused(void * /*arg*/)
{
    EXPECT_STATUS(ISO_ERR_REFUSED, iso_thread_migrate(1));
    ran++;
    return nullptr;
}

void refused()
{
    Job job(admits_none);
    const iso_threads_params_t params = {sizeof params, nullptr, on_arrival, nullptr};
    EXPECT_STATUS(ISO_OK, iso_threads_open(job.job, &params));
    job.barrier();
    if (self == 0) {
        stays = job.heap();
        iso_thread_state_t state;
        iso_thread_t *thread = Threads::make(stays, is_refused);
        EXPECT_STATUS(ISO_OK, iso_thread_resume(thread, &state));
        EXPECT(state == ISO_THREAD_LEAVING);
        while (iso_heap_state(stays) != ISO_HEAP_OWNED)
            iso_progress_wait(job.job, 0.5);
        EXPECT_STATUS(ISO_OK, iso_threads_take_in(stays)); // and nobody has looked after it
        EXPECT_STATUS(ISO_OK, iso_threads_run(
                                  job.job, [](void *) { return ran > 0; }, nullptr));
    }
    job.barrier();
    EXPECT_STATUS(ISO_OK, iso_threads_close(job.job));
    job.finish();
}

// ---- several heaps, of which one does not go ----

const void *unwelcome; // the heap that rank 1 does not admit

bool admits_but_one(iso_job_t * /*job*/, const iso_arrival_t *arrival, void * /*arg*/)
{
    return unwelcome == nullptr || arrival->heap != unwelcome;
}

unsigned ran_as[4]; // here

void *counts(void *arg)
{
    iso_thread_yield();
    ran_as[reinterpret_cast<uintptr_t>(arg)]++;
    return nullptr;
}

void *catches(void *arg)
{
    try {
        throw 1;
    } catch (int) {
        iso_thread_yield();
    }
    return counts(arg);
}

// None has left if one cannot be sent; and one that is refused when the others are on their way stays, and runs here.
void several()
{
    Job job(admits_but_one);
    const iso_threads_params_t params = {sizeof params, nullptr, on_arrival, nullptr};
    EXPECT_STATUS(ISO_OK, iso_threads_open(job.job, &params));
    job.barrier();
    const auto run = [&](bool (*done)(void *)) {
        EXPECT_STATUS(ISO_OK, iso_threads_run(job.job, done, nullptr));
    };
    if (self == 0) {
        iso_thread_t *list[4] = {};
        for (uintptr_t i = 0; i < 4; i++) {
            list[i] =
                Threads::make(job.heap(), i == 2 ? catches : counts, reinterpret_cast<void *>(i));
            EXPECT_STATUS(ISO_OK, iso_thread_resume(list[i], nullptr));
        }
        EXPECT_STATUS(ISO_ERR_BUSY, iso_threads_move(list, 4, 1)); // of the third
        for (const iso_thread_t *thread : list)
            EXPECT(iso_thread_state(thread) == ISO_THREAD_READY &&
                   iso_heap_state(iso_thread_heap(thread)) == ISO_HEAP_OWNED);
        EXPECT_STATUS(ISO_OK, iso_thread_resume(list[2], nullptr)); // out of its catch block
        const void *second = iso_thread_heap(list[1]);
        job.send(job.heap(), 1, static_cast<const void *>(&second), sizeof second);
        job.barrier();
        iso_thread_t *const with_one_twice[] = {list[0], list[1], list[0], list[2]};
        EXPECT_STATUS(ISO_OK, iso_threads_move(with_one_twice, 4, 1));
        EXPECT(iso_thread_state(list[0]) == ISO_THREAD_LEAVING);
        iso_thread_t *const with_one_gone[] = {list[3], list[0]};
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_threads_move(with_one_gone, 2, 1));
        run([](void *) { return ran_as[1] > 0 && ran_as[3] > 0; });
        EXPECT(ran_as[0] == 0 && ran_as[2] == 0);
    } else {
        while (!letter.came)
            iso_progress_wait(job.job, 0.5);
        unwelcome = letter.thread;
        job.barrier();
        run([](void *) { return ran_as[0] > 0 && ran_as[2] > 0; });
        EXPECT(ran_as[1] == 0 && ran_as[3] == 0);
    }
    job.barrier();
    while (iso_threads_close(job.job) == ISO_ERR_BUSY)
        iso_threads_progress(job.job);
    job.finish();
}

// ---- what comes along with a stack ----

uint64_t bytes_of(const iso_thread_t *thread)
{
    iso_heap_stats_t stats;
    EXPECT_STATUS(ISO_OK, iso_heap_stats(iso_thread_heap(thread), &stats));
    return stats.live_bytes;
}

// The list of the code that a stack depends on goes once to each rank that is not known to have it, and not back.
void *visits_all(void *arg)
{
    const auto size = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(arg));
    const iso_thread_t *thread = iso_thread_self();
    const bool is_first = came_home == 0; // here
    const uint64_t bare = bytes_of(thread);
    for (uint32_t round = 0; round < 3; round++)
        for (uint32_t dest = 1; dest < size; dest++) {
            EXPECT_STATUS(ISO_OK, iso_thread_migrate(dest));
            EXPECT((bytes_of(thread) > bare) == (is_first && round == 0));
            EXPECT_STATUS(ISO_OK, iso_thread_migrate(0));
            EXPECT(bytes_of(thread) == bare);
        }
    came_home++;
    return nullptr;
}

void light()
{
    Threads threads;
    if (self == 0) {
        for (int i = 0; i < 2; i++) { // nothing but the stack goes with the second one
            Threads::make(threads.job.heap(), visits_all,
                          reinterpret_cast<void *>(uintptr_t{threads.job.size()}));
            threads.run([i] { return came_home == static_cast<unsigned>(i) + 1; });
        }
        for (uint32_t dest = 1; dest < threads.job.size(); dest++)
            threads.write(dest, nullptr);
    } else {
        threads.run([] { return letter.came; });
    }
    threads.finish();
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"early", early},         {"together", together},
                          {"told_once", told_once}, {"taken_in", taken_in},
                          {"light", light},         {"moved_early", moved_early},
                          {"refused", refused},     {"several", several}};
    return run_test(tests, argc, argv);
}
