// Threads that migrate among ranks with all that is on their stacks: compiled several times, see CMakeLists.txt, since what
// compilers keep across a call is what can go wrong.
#include "ranks.hpp"
#include <csignal>
#include <isomalloc/thread.h>
#include <random>
#include <stdexcept>
#include <sys/time.h>

namespace {

struct Threads {
    Job job;
    Threads()
    {
        EXPECT_STATUS(ISO_OK, iso_threads_open(job.job, nullptr));
    }
    Threads(const Threads &) = delete;
    Threads &operator=(const Threads &) = delete;

    iso_thread_t *make(iso_thread_fn fn, void *arg, size_t stack = 0, iso_heap_t *in = nullptr)
    {
        const iso_thread_attr_t attr = {sizeof attr, stack, "traveller", false};
        iso_thread_t *thread = nullptr;
        EXPECT_STATUS(ISO_OK, iso_thread_create(in ? in : job.heap(), fn, arg, &attr, &thread));
        return thread;
    }
    // Runs what is here until `done`, and answers others until all ranks have come to that.
    template <class Done> void run(Done done)
    {
        EXPECT_STATUS(ISO_OK,
                      iso_threads_run(
                          job.job, [](void *arg) { return (*static_cast<Done *>(arg))(); }, &done));
    }
    // The thread, once it has come home and ended.
    void *home(iso_thread_t *thread)
    {
        run([thread] { return iso_thread_state(thread) == ISO_THREAD_FINISHED; });
        void *result = nullptr;
        EXPECT_STATUS(ISO_OK, iso_thread_join(thread, &result));
        return result;
    }
    // The first `count` ranks have all come here, and threads run meanwhile: each sends one to each other rank.
    void meet(uint32_t count)
    {
        static unsigned met;
        std::vector<iso_thread_t *> sent;
        for (uint32_t rank = 0; rank < count; rank++)
            if (rank != self)
                sent.push_back(make(
                    [](void *arg) -> void * {
                        const auto dest = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(arg));
                        EXPECT_STATUS(ISO_OK, iso_thread_migrate(dest));
                        met++;
                        return nullptr;
                    },
                    reinterpret_cast<void *>(uintptr_t{rank})));
        run([&] {
            for (iso_thread_t *thread : sent)
                if (iso_thread_state(thread) != ISO_THREAD_LEAVING)
                    return false;
            return met == count - 1;
        });
    }
    // Runs threads until a heap cannot go to that rank any more.
    void wait_for_death(uint32_t rank)
    {
        run([this, rank] {
            iso_heap_t *probe = job.heap();
            iso_request_t *request = nullptr;
            iso_status_t status = iso_migrate(probe, rank, nullptr, 0, &request);
            if (status == ISO_OK)
                while ((status = iso_test(request)) == ISO_INPROGRESS)
                    iso_threads_progress(job.job);
            return status != ISO_OK;
        });
    }
    void finish()
    {
        meet(job.size());
        job.barrier();
        close();
    }
    void close()
    {
        while (iso_threads_close(job.job) == ISO_ERR_BUSY) // the last ones are on their way
            iso_threads_progress(job.job);
        job.finish();
    }
};

uint32_t here() // not inlined: the rank is this process's
{
    return self;
}
uint32_t (*volatile ask)() = here;

struct Node {
    Node *next;
    uint64_t value;
};

// ---- in the depth of a recursion ----

struct Trip {
    iso_heap_t *heap;
    uint32_t size;
    uint64_t rounds;
};

uint64_t dive(const Trip *trip, unsigned depth, uint64_t *above, Node *list)
{
    uint64_t local[3] = {depth, *above * 31 + depth, 0};
    Node mine = {list, local[1]};
    uint64_t below = 0;
    char text[24];
    std::snprintf(text, sizeof text, "frame %u", depth);
    if (depth == 0) {
        const uint32_t start = ask();
        for (uint64_t i = 1; i <= trip->rounds * trip->size; i++) {
            const auto dest = static_cast<uint32_t>((start + i) % trip->size);
            EXPECT_STATUS(ISO_OK, iso_thread_migrate(dest));
            EXPECT(ask() == dest);
            auto *node = static_cast<Node *>(iso_malloc(trip->heap, sizeof(Node)));
            *node = {list, i};
            local[2] += node->value;
            iso_free(node);
        }
        for (const Node *node = &mine; node != nullptr; node = node->next)
            below = below * 33 + node->value; // all frames, from here up
    } else {
        below = dive(trip, depth - 1, &local[1], &mine);
        if (trip->rounds > 0 && depth % 97 == 0) // frames return at other ranks than they began at
            EXPECT_STATUS(ISO_OK, iso_thread_migrate((ask() + 1) % trip->size));
    }
    char again[24];
    std::snprintf(again, sizeof again, "frame %u", depth);
    EXPECT(std::strcmp(text, again) == 0);
    EXPECT(local[0] == depth && local[1] == *above * 31 + depth && mine.next == list);
    return below * 7 + local[1] + local[2];
}

void *recursion(void *arg)
{
    const auto *trip = static_cast<const Trip *>(arg);
    uint64_t top = 1;
    const uint32_t home = ask();
    const uint64_t sum = dive(trip, 1000, &top, nullptr);
    EXPECT_STATUS(ISO_OK, iso_thread_migrate(home));
    auto *result = static_cast<uint64_t *>(iso_malloc(trip->heap, sizeof(uint64_t)));
    *result = sum;
    return result;
}

void depth()
{
    Threads threads;
    const auto run = [&](uint32_t size, uint64_t rounds) {
        iso_heap_t *heap = threads.job.heap();
        auto *trip = static_cast<Trip *>(iso_malloc(heap, sizeof(Trip)));
        *trip = {heap, size, rounds};
        const auto *result = static_cast<uint64_t *>(
            threads.home(threads.make(recursion, trip, size_t{2} << 20, heap)));
        return *result;
    };
    // a thread that stays counts what one that travels would
    const uint32_t size = threads.job.size();
    const uint64_t travelled = run(size, 3);
    uint64_t stays = 0;
    {
        iso_heap_t *heap = threads.job.heap();
        auto *trip = static_cast<Trip *>(iso_malloc(heap, sizeof(Trip)));
        *trip = {heap, 1, 0};
        const uint64_t sum = *static_cast<uint64_t *>(
            threads.home(threads.make(recursion, trip, size_t{2} << 20, heap)));
        stays = sum;
    }
    // local[2] of the deepest frame is all that a journey adds
    uint64_t factor = 1, added = uint64_t{3} * size * (uint64_t{3} * size + 1) / 2;
    for (int i = 0; i < 1000; i++)
        factor *= 7;
    EXPECT(travelled == stays + added * factor);
    threads.finish();
}

// ---- many threads, at random ----

struct Work {
    iso_heap_t *heap;
    uint32_t home, size;
    uint64_t seed, steps;
    uint64_t result;
    uint32_t mortal; // the rank that may be dead: it cannot go there then, and goes on
};
constexpr uint32_t nobody = UINT32_MAX;

void go(const Work *work, uint32_t dest)
{
    const iso_status_t status = iso_thread_migrate(dest);
    if (dest != work->mortal)
        EXPECT_STATUS(ISO_OK, status);
    else
        EXPECT((status == ISO_OK) == (ask() == dest));
}

uint64_t compute(const Work *work, bool travels)
{
    std::minstd_rand random(static_cast<unsigned>(work->seed)); // on the stack
    uint64_t numbers[16] = {work->seed};
    Node *list = nullptr;
    for (uint64_t step = 0; step < work->steps; step++) {
        for (unsigned i = 1; i < 16; i++)
            numbers[i] = numbers[i] * 6364136223846793005u + numbers[i - 1] + random();
        auto *node = static_cast<Node *>(iso_malloc(work->heap, sizeof(Node)));
        *node = {list, numbers[step % 16]};
        list = node;
        const auto dest = static_cast<uint32_t>(random() % work->size);
        const bool leaves = random() % 4 == 0;
        if (!travels)
            continue;
        if (leaves)
            go(work, dest);
        else
            iso_thread_yield();
    }
    uint64_t sum = 0;
    while (list != nullptr) {
        Node *next = list->next;
        sum = sum * 31 + list->value;
        iso_free(list);
        list = next;
    }
    return sum;
}

unsigned came_home;

void *traveller(void *arg)
{
    auto *work = static_cast<Work *>(arg);
    work->result = compute(work, true);
    go(work, work->home);
    came_home += work->mortal == nobody;
    return work;
}

// `count` threads, each in a heap of its own, that walk among the first `size` ranks.
std::vector<iso_thread_t *> make_travellers(Threads &threads, unsigned count, uint32_t size,
                                            uint32_t mortal)
{
    std::vector<iso_thread_t *> all;
    for (unsigned i = 0; i < count; i++) {
        iso_heap_t *heap = threads.job.heap();
        auto *work = static_cast<Work *>(iso_malloc(heap, sizeof(Work)));
        *work = {heap, self, size, self * 100000u + size * 10000u + i + seed(), 40, 0, mortal};
        all.push_back(threads.make(traveller, work, size_t{32} << 10, heap));
    }
    return all;
}

// They have come home, with what they would have computed here.
void check_travellers(const std::vector<iso_thread_t *> &all)
{
    for (iso_thread_t *thread : all) {
        void *result = nullptr;
        EXPECT_STATUS(ISO_OK, iso_thread_join(thread, &result));
        const auto *work = static_cast<Work *>(result);
        EXPECT(work->result == compute(work, false));
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(work->heap));
    }
}

void random_walks()
{
    Threads threads;
    const unsigned count = 1000 / threads.job.size() / scale;
    const auto all = make_travellers(threads, count, threads.job.size(), nobody);
    threads.run([&] { return came_home == count; });
    check_travellers(all);
    threads.finish();
}

// The last rank is killed at some moment while all compute. Threads that never go there come home as ever; of those that do, whoever
// is elsewhere goes on, and whoever comes home has computed what is right.
void walks_with_death()
{
    Threads threads;
    const uint32_t mortal = threads.job.size() - 1;
    const unsigned count = self == mortal ? 0 : 800 / mortal / scale;
    const auto all = make_travellers(threads, count, mortal, nobody);
    const auto bold = make_travellers(threads, 200 / threads.job.size(), mortal + 1, mortal);
    threads.job.barrier();
    if (self == mortal) {
        signal(SIGALRM, [](int) { raise(SIGKILL); });
        std::minstd_rand random(seed());
        random.discard(10); // the first ones are alike
        const itimerval in = {{0, 0}, {0, static_cast<suseconds_t>(1 + random() % 300000)}};
        setitimer(ITIMER_REAL, &in, nullptr);
        threads.run([] { return false; });
    }
    threads.run([&] { return came_home == count; });
    check_travellers(all);
    threads.wait_for_death(mortal);
    std::vector<iso_thread_t *> home;
    for (iso_thread_t *thread : bold)
        if (iso_thread_state(thread) == ISO_THREAD_FINISHED)
            home.push_back(thread);
    check_travellers(home);
    threads.meet(mortal);
    threads.job.barrier();
    std::printf("survivor %u ok\n", self);
    std::fflush(stdout);
    threads.close();
}

// ---- exceptions ----

struct Guard {
    unsigned *count;
    ~Guard()
    {
        ++*count;
    }
};

void throws_elsewhere(uint32_t dest, unsigned *destroyed)
{
    const Guard guard{destroyed};
    EXPECT_STATUS(ISO_OK, iso_thread_migrate(dest));
    EXPECT(ask() == dest);
    throw std::runtime_error("thrown at rank " + std::to_string(ask()));
}

void *catches(void *arg)
{
    const auto home = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(arg));
    unsigned destroyed = 0, caught = 0;
    for (uint32_t dest = 0; dest < 3; dest++) {
        try {
            const Guard guard{&destroyed};
            throws_elsewhere(dest, &destroyed);
        } catch (const std::runtime_error &e) {
            EXPECT(e.what() == "thrown at rank " + std::to_string(dest));
            EXPECT(ask() == dest);
            caught++;
            if (dest != home)
                EXPECT_STATUS(ISO_ERR_BUSY, iso_thread_migrate(home));
        }
    }
    EXPECT(destroyed == 6 && caught == 3);
    EXPECT(std::uncaught_exceptions() == 0);
    EXPECT_STATUS(ISO_OK, iso_thread_migrate(home));
    return nullptr;
}

void exceptions()
{
    Threads threads;
    threads.home(threads.make(catches, reinterpret_cast<void *>(uintptr_t{self})));
    threads.finish();
}

// ---- moved from outside ----

struct Told {
    iso_thread_t *self;
    volatile uint32_t rank;
    volatile bool awake;
};

void *waits(void *arg)
{
    auto *t = static_cast<Told *>(arg);
    iso_thread_suspend();
    t->rank = ask();
    t->awake = true;
    return nullptr;
}

void outside()
{
    Threads threads;
    iso_heap_t *heap = threads.job.heap();
    if (self == 0) {
        auto *three = static_cast<Told *>(iso_calloc(heap, 3, sizeof(Told)));
        iso_heap_set_root(heap, three);
        for (int i = 0; i < 3; i++) {
            three[i].self = threads.make(waits, &three[i], size_t{16} << 10, heap);
            iso_thread_state_t state;
            EXPECT_STATUS(ISO_OK, iso_thread_resume(three[i].self, &state));
            EXPECT(state == ISO_THREAD_SUSPENDED);
        }
        iso_thread_t *const list[] = {three[0].self, three[1].self};
        EXPECT_STATUS(ISO_OK, iso_threads_move(list, 2, 1));
        EXPECT(iso_thread_state(list[0]) == ISO_THREAD_LEAVING);
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_threads_move(list, 1, 1));
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_thread_resume(list[0], nullptr));
        while (iso_heap_state(heap) != ISO_HEAP_ELSEWHERE)
            iso_threads_progress(threads.job.job);
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_thread_resume(list[0], nullptr)); // another rank's
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_threads_move(list, 1, 1));
    }
    threads.job.barrier();
    if (self == 1) { // which looks for what has come
        iso_heap_t *came = nullptr;
        for (void *at = nullptr; came == nullptr;) {
            size_t size;
            iso_space(threads.job.job, &at, &size);
            for (size_t slot = 0; slot < size && came == nullptr; slot += ISO_SLOT_SIZE) {
                iso_heap_t *found = iso_heap_of(static_cast<char *>(at) + slot);
                if (found != nullptr && found != heap && iso_heap_root(found) != nullptr)
                    came = found;
            }
            iso_threads_progress(threads.job.job);
        }
        auto *three = static_cast<Told *>(iso_heap_root(came));
        unsigned count = 0;
        EXPECT_STATUS(ISO_OK, iso_thread_walk(
                                  came,
                                  [](iso_thread_t *thread, void *arg) {
                                      ++*static_cast<unsigned *>(arg);
                                      EXPECT(iso_thread_state(thread) == ISO_THREAD_SUSPENDED);
                                      EXPECT_STATUS(ISO_OK, iso_thread_awaken(thread));
                                      return true;
                                  },
                                  &count));
        EXPECT(count == 3);
        threads.run([three] { return three[0].awake && three[1].awake && three[2].awake; });
        EXPECT(three[0].rank == 1 && three[2].rank == 1);
    }
    threads.finish();
}

// ---- a scheduler that resumes whatever it is told of, at once ----

unsigned bounces;

void *bounce(void *)
{
    for (int i = 0; i < 500; i++) {
        bounces++;
        EXPECT_STATUS(ISO_OK, iso_thread_migrate(ask() == 0 ? 1 : 0));
    }
    bounces++;
    return nullptr;
}

void at_once()
{
    Job job;
    iso_threads_params_t params = {sizeof params,
                                   [](iso_thread_t *thread, void *) {
                                       EXPECT_STATUS(ISO_OK, iso_thread_resume(thread, nullptr));
                                   },
                                   nullptr, nullptr};
    EXPECT_STATUS(ISO_OK, iso_threads_open(job.job, &params));
    job.barrier();
    const iso_thread_attr_t attr = {sizeof attr, 16384, "bounces", true};
    iso_thread_t *thread;
    for (int i = 0; i < 3; i++)
        EXPECT_STATUS(ISO_OK, iso_thread_create(job.heap(), bounce, nullptr, &attr, &thread));
    // 3 threads of this rank and 3 of the other one: 250 visits each, and 251 at home
    while (bounces < 3 * 251 + 3 * 250)
        iso_threads_progress(job.job);
    job.barrier();
    EXPECT(bounces == 3 * 251 + 3 * 250);
    while (iso_threads_close(job.job) == ISO_ERR_BUSY)
        iso_threads_progress(job.job);
    job.finish();
}

// ---- a rank dies ----

unsigned lost, went_on;

void *goes_on(void *arg)
{
    const auto home = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(arg));
    for (int i = 0; i < 50; i++) {
        EXPECT_STATUS(ISO_OK, iso_thread_migrate(1 - home));
        EXPECT_STATUS(ISO_OK, iso_thread_migrate(home));
    }
    EXPECT(iso_thread_migrate(2) != ISO_OK);
    EXPECT(ask() == home); // told, and goes on
    EXPECT_STATUS(ISO_OK, iso_thread_migrate(1 - home));
    EXPECT_STATUS(ISO_OK, iso_thread_migrate(home));
    went_on++;
    return nullptr;
}

// Rank 2 dies when threads have come to it; those that were not there go on, and hear that it is dead.
void death()
{
    Threads threads;
    const unsigned count = 10;
    if (self == 2)
        threads.run([] {
            if (lost >= 4)
                raise(SIGKILL);
            return false;
        });
    const auto goes_to_2 = [](void *) -> void * {
        EXPECT_STATUS(ISO_OK, iso_thread_migrate(2));
        lost++;
        iso_thread_suspend();
        return nullptr;
    };
    for (int i = 0; i < 2; i++)
        threads.make(goes_to_2, nullptr);
    threads.wait_for_death(2);
    for (unsigned i = 0; i < count; i++)
        threads.make(goes_on, reinterpret_cast<void *>(uintptr_t{self}));
    threads.run([&] { return went_on == count; });
    threads.meet(2); // those of the other one may be here
    threads.job.barrier();
    std::printf("survivor %u ok\n", self);
    std::fflush(stdout);
    threads.close();
}

// ---- refused ----

// With randomised addresses: nobody moves, all go on; and what one heap has been refused for is not tried with another.
void refused()
{
    Threads threads;
    static Job *job;
    job = &threads.job;
    iso_thread_t *thread = threads.make(
        [](void *) -> void * {
            const uint32_t dest = ask() == 0 ? 1 : 0;
            const iso_status_t status = iso_thread_migrate(dest);
            EXPECT(ask() != dest);
            const iso_stats_t first = job->stats();
            EXPECT(first.migrations_failed == 1);
            EXPECT_STATUS(status, iso_thread_migrate(dest));
            EXPECT(job->stats().bytes_put == first.bytes_put &&
                   job->stats().reservations == first.reservations &&
                   job->stats().migrations_failed == 1);
            return reinterpret_cast<void *>(static_cast<intptr_t>(status));
        },
        nullptr);
    if (self == 0) {
        EXPECT(reinterpret_cast<intptr_t>(threads.home(thread)) == ISO_ERR_CODE);
        iso_heap_t *another = threads.job.heap();
        thread = threads.make([](void *) -> void * { return nullptr; }, nullptr, 0, another);
        EXPECT_STATUS(ISO_ERR_CODE, iso_threads_move(&thread, 1, 1));
        EXPECT(iso_thread_state(thread) == ISO_THREAD_READY);
        EXPECT(threads.home(thread) == nullptr);
        // a heap of no threads goes anywhere, as does one that has none any more
        threads.job.send(threads.job.heap(), 1);
        threads.job.send(another, 1);
    }
    threads.job.barrier();
    threads.close();
}

// ---- signed ----

// With signed return addresses on its stack a thread does not leave, and goes on.
void signed_addresses()
{
    Threads threads;
    iso_thread_t *thread = threads.make(
        [](void *) -> void * {
            return reinterpret_cast<void *>(
                static_cast<intptr_t>(iso_thread_migrate(ask() == 0 ? 1 : 0)));
        },
        nullptr);
    if (self == 0)
        EXPECT(reinterpret_cast<intptr_t>(threads.home(thread)) == ISO_ERR_CODE);
    threads.job.barrier();
    threads.close();
}

// ---- overflow, after a migration ----

__attribute__((noinline)) unsigned long dig(unsigned long depth)
{
    volatile char room[512];
    std::memset(const_cast<char *>(room), static_cast<int>(depth), sizeof room);
    return depth == 0 ? 0 : static_cast<unsigned char>(room[3]) + dig(depth - 1);
}

void overflow()
{
    Threads threads;
    if (self == 0)
        threads.make(
            [](void *) -> void * {
                EXPECT_STATUS(ISO_OK, iso_thread_migrate(1));
                EXPECT_STATUS(ISO_OK, iso_thread_migrate(0));
                EXPECT_STATUS(ISO_OK, iso_thread_migrate(1));
                return reinterpret_cast<void *>(dig(1000000));
            },
            nullptr, size_t{64} << 10);
    threads.run([] { return false; }); // until rank 1 dies, and the launcher ends the job
}

// ---- deep once ----

size_t resident_kib()
{
    size_t kib = 0;
    char line[128];
    FILE *status = std::fopen("/proc/self/status", "re");
    EXPECT(status != nullptr);
    while (std::fgets(line, sizeof line, status) != nullptr)
        std::sscanf(line, "VmRSS: %zu", &kib);
    std::fclose(status);
    return kib;
}

unsigned arrived;

// Memory that stacks have used once stays behind, and goes as all that is left goes: ISO_RETAIN is for it as well.
void deep_once()
{
    Threads threads;
    std::vector<iso_thread_t *> sent;
    const unsigned count = 8;
    const size_t before = resident_kib();
    const auto deep = [](void *) -> void * {
        dig(4000); // more than 2 MiB
        EXPECT_STATUS(ISO_OK, iso_thread_migrate(1));
        arrived++;
        return nullptr;
    };
    for (unsigned i = 0; i < count && self == 0; i++)
        sent.push_back(threads.make(deep, nullptr, size_t{4} << 20));
    threads.run([&] {
        for (iso_thread_t *thread : sent)
            if (iso_heap_of(thread) != nullptr)
                return false;
        return self == 0 || arrived == count;
    });
    if (self == 0) {
        iso_stats_t stats;
        iso_stats(threads.job.job, &stats);
        EXPECT(stats.retained_bytes <= size_t{2} << 20);
        EXPECT(stats.released_bytes > count * (size_t{2} << 20) - (size_t{2} << 20));
#if !defined(__SANITIZE_ADDRESS__) // whose shadow of the stacks stays
        EXPECT(resident_kib() < before + (size_t{8} << 10));
#else
        (void)before;
#endif
    }
    threads.finish();
}

} // namespace

int main(int argc, char **argv)
{
    if (argc > 2 && std::string(argv[2]) == "restart")
        EXPECT_STATUS(ISO_OK, iso_restart_without_aslr(argv));
    const Test tests[] = {{"depth", depth},
                          {"random_walks", random_walks},
                          {"walks_with_death", walks_with_death},
                          {"exceptions", exceptions},
                          {"outside", outside},
                          {"refused", refused},
                          {"signed", signed_addresses},
                          {"overflow", overflow},
                          {"at_once", at_once},
                          {"death", death},
                          {"deep_once", deep_once}};
    return run_test(tests, argc, argv);
}
