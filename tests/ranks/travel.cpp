// Threads that migrate among ranks with all that is on their stacks: compiled several times, see CMakeLists.txt, since what
// compilers keep across a call is what can go wrong.
#include "travel.hpp"
#include <cfenv>
#include <csignal>
#include <stdexcept>

namespace {

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

// ---- modes and values ----

iso_thread_key_t key;

void *carries(void *arg)
{
    const uint32_t home = ask();
    std::fesetround(FE_UPWARD);
    EXPECT_STATUS(ISO_OK, iso_thread_set_value(key, arg));
    for (uint32_t dest : {1 - home, home}) {
        EXPECT_STATUS(ISO_OK, iso_thread_migrate(dest));
        EXPECT(ask() == dest && std::fegetround() == FE_UPWARD && iso_thread_value(key) == arg);
    }
    return arg;
}

void modes()
{
    Threads threads;
    EXPECT_STATUS(ISO_OK, iso_thread_key_create(nullptr, &key));
    EXPECT(threads.home(threads.make(carries, &threads)) == &threads);
    EXPECT(std::fegetround() == FE_TONEAREST);
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
    threads.run([&] { // until it is dead
        iso_heap_t *probe = threads.job.heap();
        iso_request_t *request = nullptr;
        iso_status_t status = iso_migrate(probe, 2, nullptr, 0, &request);
        if (status == ISO_OK)
            while ((status = iso_test(request)) == ISO_INPROGRESS)
                iso_threads_progress(threads.job.job);
        return status != ISO_OK;
    });
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
                   job->stats().bytes_inline == first.bytes_inline &&
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
    const Test tests[] = {{"depth", depth},         {"exceptions", exceptions},
                          {"outside", outside},     {"refused", refused},
                          {"overflow", overflow},   {"signed", signed_addresses},
                          {"at_once", at_once},     {"death", death},
                          {"deep_once", deep_once}, {"modes", modes}};
    return run_test(tests, argc, argv);
}
