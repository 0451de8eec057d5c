// Converse's threads, as a runtime of its kind moves them: a routine of the object's that has CthPup in it.
#include "access.hpp"
#include "ranks.hpp"
#include <converse.h>
#include <isomalloc/thread.h>
#include <mutex>
#include <sys/mman.h>

namespace {

constexpr int depth = 200;

// What the thread tells, in its context's memory, which has the same address everywhere.
struct Told {
    uint32_t hops;
    bool ended;
};

struct Chare {
    CthThread thread;
    Told *told;
    uint32_t from; // where it began
};

std::mutex lock; // arrivals may be in a thread of the library's
std::deque<Chare *> arrived;

Chare *next_arrived(const Job &job)
{
    for (const double until = now() + 60;;) {
        {
            const std::lock_guard<std::mutex> locked(lock);
            if (!arrived.empty()) {
                Chare *chare = arrived.front();
                arrived.pop_front();
                return chare;
            }
        }
        EXPECT(now() < until);
        iso_progress_wait(job.job, 0.5);
    }
}

void pup_chare(pup_er p, void *object)
{
    auto *chare = static_cast<Chare *>(object);
    pup_uint(p, &chare->from);
    pup_bytes(p, &chare->told, sizeof chare->told);
    chare->thread = CthPup(p, chare->thread);
}

const iso_object_type_t type = {
    sizeof type,
    "chare",
    sizeof(Chare),
    pup_chare,
    [](iso_job_t *, void *object, uint32_t, iso_status_t status, void *) {
        EXPECT_STATUS(ISO_OK, status);
        const std::lock_guard<std::mutex> locked(lock);
        arrived.push_back(static_cast<Chare *>(object));
    },
    nullptr,
    nullptr};

// Each frame stops once on the way down and once on the way up.
int descend(Told *told, int left, const int *above)
{
    int here = left, sum = 0;
    if (left % 20 == 0) {
        CthSuspend();
        told->hops++;
    }
    if (left > 0)
        sum = descend(told, left - 1, &here);
    if (left % 20 == 0) {
        CthSuspend();
        told->hops++;
    }
    EXPECT(here == left && (above == nullptr || *above == left + 1));
    return sum + here;
}

void body(void *arg)
{
    auto *told = static_cast<Told *>(arg);
    EXPECT(descend(told, depth, nullptr) == depth * (depth + 1) / 2);
    told->ended = true;
}

Chare *make_chare()
{
    auto *chare = static_cast<Chare *>(calloc(1, sizeof(Chare)));
    const CmiIsomallocContext context = CmiIsomallocContextCreate(0, 0);
    chare->told = static_cast<Told *>(CmiIsomallocContextCalloc(context, 1, sizeof(Told)));
    chare->from = self;
    chare->thread = CthCreateMigratable(body, chare->told, 0, context);
    EXPECT(chare->thread != nullptr);
    return chare;
}

iso_request_t *start(const Job &job, Chare *chare, uint32_t dest)
{
    iso_request_t *request = nullptr;
    EXPECT_STATUS(ISO_OK, iso_migrate_pup(job.job, dest, "chare", chare, &request));
    return request;
}

// It leaves; nothing of it is here afterwards.
void send(const Job &job, Chare *chare, uint32_t dest)
{
    EXPECT_STATUS(ISO_OK, iso_wait(start(job, chare, dest)));
    EXPECT(chare->thread == nullptr);
    free(chare);
}

void use(Job &job)
{
    EXPECT_STATUS(ISO_OK, CmiIsomallocUseJob(job.job));
    EXPECT_STATUS(ISO_OK, iso_pup_register(job.job, &type));
}

void finish(Job &job)
{
    while (iso_threads_close(job.job) == ISO_ERR_BUSY) // the last ones are on their way
        iso_threads_progress(job.job);
    job.finish();
}

void hops()
{
    Job job;
    use(job);
    Chare *here = make_chare();
    const uint32_t hops = 2 * (depth / 20 + 1);
    for (uint32_t hop = 0; hop < hops; hop++) {
        EXPECT(here->told->hops == (hop == 0 ? 0 : hop - 1) && !here->told->ended);
        CthResume(here->thread);
        send(job, here, (self + 1) % job.size());
        here = next_arrived(job);
        job.barrier();
    }
    // it ends at another rank than where it began
    const CmiIsomallocContext ended = CmiIsomallocGetThreadContext(here->thread);
    CthResume(here->thread);
    EXPECT(here->told->hops == hops && here->told->ended);
    EXPECT(here->from == (self + job.size() - hops % job.size()) % job.size());
    CmiIsomallocContextDelete(ended);
    free(here);
    job.barrier();
    EXPECT(job.stats().heaps == 0);
    finish(job);
}

// A thread that is back before the routine has freed what the object had here: that pass does not touch it.
void back()
{
    Job job;
    use(job);
    for (int round = 0; round < 20; round++) {
        if (self == 0) {
            Chare *leaving = make_chare();
            CthResume(leaving->thread);
            const CthThread thread = leaving->thread;
            iso_request_t *request = start(job, leaving, 1);
            Chare *again = next_arrived(job); // and nobody has asked for the end of the request
            EXPECT(again->thread == thread && again->told->hops == 0);
            EXPECT_STATUS(ISO_OK, iso_wait(request)); // the routine frees
            EXPECT(leaving->thread == nullptr);
            free(leaving);
            CthResume(thread);
            EXPECT(again->told->hops == 1);
            CthAwaken(thread);
            CthYield();
            EXPECT(again->told->hops == 2);
            CmiIsomallocContextDelete(CmiIsomallocGetThreadContext(thread));
            free(again);
        } else {
            send(job, next_arrived(job), 0);
        }
        job.barrier();
    }
    EXPECT(job.stats().heaps == 0);
    finish(job);
}

// Threads of both ranks go to and fro by themselves; those that arrive are told of while others are resumed: with
// ISO_PROGRESS_THREAD by a thread of the library's.
unsigned came_home, visited;

uint32_t here() // not inlined: the rank is this process's
{
    return self;
}
uint32_t (*volatile ask)() = here;

void to_and_fro(void *arg)
{
    const auto home = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(arg));
    for (int i = 0; i < 20; i++) {
        EXPECT_STATUS(ISO_OK, iso_thread_migrate(1 - home));
        CthYield();
        CthAwaken(CthSelf()); // and before it suspends it is in another process
        EXPECT_STATUS(ISO_OK, iso_thread_migrate(home));
        CthSuspend();
    }
    EXPECT(ask() == home);
    came_home++;
}

void visits(void *arg)
{
    EXPECT_STATUS(ISO_OK,
                  iso_thread_migrate(static_cast<uint32_t>(reinterpret_cast<uintptr_t>(arg))));
    visited++;
}

void crowd()
{
    Job job;
    use(job);
    const unsigned count = 200 / scale; // more than the queue has room for at first
    std::vector<CthThread> mine;
    for (unsigned i = 0; i < count; i++)
        mine.push_back(CthCreateMigratable(to_and_fro, reinterpret_cast<void *>(uintptr_t{self}),
                                           32768, {nullptr}));
    job.barrier(); // who has made one takes in those that come
    for (CthThread thread : mine)
        CthAwaken(thread);
    for (const double until = now() + 90; came_home < count; CthYield())
        EXPECT(now() < until);
    CthAwaken(CthCreateMigratable(visits, reinterpret_cast<void *>(uintptr_t{1 - self}), 32768,
                                  {nullptr}));
    for (const double until = now() + 90; visited == 0;
         CthYield()) // those of the other one may be here
        EXPECT(now() < until);
    while (job.stats().heaps > 0)
        CthYield();
    job.barrier();
    finish(job);
}

// A rank that has made no thread runs those that come by themselves, also those that came before it has run any.
void late()
{
    Job job;
    use(job);
    iso_set_arrival(job.job, nullptr, nullptr); // of a program that waits for no heaps
    job.barrier();
    if (self == 0)
        CthAwaken(
            CthCreateMigratable(visits, reinterpret_cast<void *>(uintptr_t{1}), 32768, {nullptr}));
    while (self == 1 && job.stats().migrations_in == 0)
        iso_progress_wait(job.job, 0.5);
    for (const double until = now() + 60; self == 0 ? job.stats().heaps > 0 : visited == 0;
         CthYield())
        EXPECT(now() < until);
    job.barrier();
    EXPECT(job.stats().heaps == 0); // it has ended, where it came to
    finish(job);
}

// A thread whose context has protected pages goes by itself, and in an object.
__attribute__((noinline)) void look(const char *block)
{
    EXPECT(access_to(block) == "---" && access_to(block + 4096) == "r--");
    EXPECT(access_to(block + 8192) == "rw-");
}

void guards_memory(void *arg)
{
    auto *block = static_cast<char *>(arg);
    look(block);
    EXPECT_STATUS(ISO_OK, iso_thread_migrate(1));
    look(block);
    EXPECT_STATUS(ISO_OK, iso_thread_migrate(0));
    look(block);
    block[12288] = 6;
    CthSuspend(); // to be packed
    block[12288] = 5;
    look(block);
    const CmiIsomallocContext context = CmiIsomallocGetThreadContext(CthSelf());
    CmiIsomallocContextProtect(context, block, 8192, PROT_READ | PROT_WRITE);
    EXPECT(*block == 5 && std::memcmp(block, block + 1, 16383) == 0);
}

void protects()
{
    Job job;
    use(job);
    const size_t page = 4096, size = 16384;
    if (static_cast<size_t>(sysconf(_SC_PAGESIZE)) != page) {
        finish(job);
        return;
    }
    if (self == 1) // so that it takes in those that come by themselves
        CthAwaken(CthCreateMigratable([](void *) {}, nullptr, 0, {nullptr}));
    char *block = nullptr;
    Chare chare = {};
    if (self == 0) {
        const CmiIsomallocContext context = CmiIsomallocContextCreate(0, 0);
        block = static_cast<char *>(CmiIsomallocContextMallocAlign(context, page, size));
        std::memset(block, 5, size);
        CmiIsomallocContextProtect(context, block, page, PROT_NONE);
        CmiIsomallocContextProtect(context, block + page, page, PROT_READ);
        chare.thread = CthCreateMigratable(guards_memory, block, 0, context);
    }
    job.barrier();
    if (self == 0) {
        CthAwaken(chare.thread);
        for (const double until = now() + 60;
             iso_heap_of(block) == nullptr ||
             iso_heap_state(iso_heap_of(block)) != ISO_HEAP_OWNED || block[12288] != 6;
             CthYield())
            EXPECT(now() < until);
        look(block);
        EXPECT_STATUS(ISO_OK, iso_wait(start(job, &chare, 1)));
        EXPECT(access_to(block) == "rw-" && access_to(block + page) == "rw-");
    } else {
        Chare *here = nullptr;
        for (const double until = now() + 60; here == nullptr; CthYield()) {
            EXPECT(now() < until);
            const std::lock_guard<std::mutex> locked(lock);
            if (!arrived.empty())
                here = arrived.front();
        }
        const CmiIsomallocContext context = CmiIsomallocGetThreadContext(here->thread);
        CthResume(here->thread);
        CmiIsomallocContextDelete(context);
        free(here);
    }
    job.barrier();
    finish(job);
}

// Two threads of one context: one waits for its turn while the other one takes it along, and back.
struct Pair {
    unsigned trips, turns; // in the context
};
unsigned seen; // visits to this rank

void counts(void *arg)
{
    for (auto *pair = static_cast<Pair *>(arg);; CthSuspend())
        pair->turns++;
}

void takes_along(void *arg)
{
    for (auto *pair = static_cast<Pair *>(arg);; CthSuspend()) {
        EXPECT_STATUS(ISO_OK, iso_thread_migrate(1));
        seen++;
        EXPECT_STATUS(ISO_OK, iso_thread_migrate(0));
        pair->trips++;
    }
}

iso_thread_state_t state_of(CthThread thread)
{
    return iso_thread_state(reinterpret_cast<iso_thread_t *>(thread));
}

// Who waits is resumed once for each awakening, where it is then; and nobody looks for it where it was.
void taken_along()
{
    Job job;
    use(job);
    const unsigned rounds = 20;
    const CmiIsomallocContext context = CmiIsomallocContextCreate(0, 0);
    auto *pair = static_cast<Pair *>(CmiIsomallocContextCalloc(context, 1, sizeof(Pair)));
    CthThread first = CthCreateMigratable(takes_along, pair, 0, context),
              second = CthCreateMigratable(counts, pair, 0, context);
    job.barrier(); // both ranks take in what comes
    for (unsigned round = 0; self == 0 && round < rounds; round++) {
        const double until = now() + 30;
        CthAwaken(second);
        CthResume(first);   // it leaves, with the other one
        if (round % 2 == 0) // nobody's turn comes before they are back
            while (state_of(first) != ISO_THREAD_READY) {
                EXPECT(now() < until);
                iso_threads_progress(job.job);
            }
        for (; state_of(first) != ISO_THREAD_SUSPENDED || state_of(second) != ISO_THREAD_SUSPENDED;
             CthYield())
            EXPECT(now() < until);
        CthYield(); // who is awakened once too often would have another turn
        EXPECT(pair->trips == round + 1 && pair->turns == round + 1);
    }
    while (self == 1 && (seen < rounds || job.stats().heaps > 1))
        CthYield();
    CmiIsomallocContextDelete(context);
    job.barrier();
    finish(job);
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"hops", hops}, {"back", back},         {"crowd", crowd},
                          {"late", late}, {"protects", protects}, {"taken_along", taken_along}};
    return run_test(tests, argc, argv);
}
