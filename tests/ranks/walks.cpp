// Many threads that walk from rank to rank at random while all compute: what each has computed is what it would have without
// travelling; and if a rank is killed meanwhile, those that were not there then go on.
#include "travel.hpp"
#include <atomic>
#include <csignal>
#include <fcntl.h>
#include <random>
#include <sys/mman.h>

namespace {

constexpr uint32_t most = 1000; // threads, of all ranks

struct Work {
    iso_heap_t *heap;
    uint32_t home, size;
    uint64_t seed, steps;
    uint64_t result;
    uint32_t number; // of the thread in the job
};

// go(leaves, dest): between two steps.
template <class Go> uint64_t compute(const Work *work, Go go)
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
        go(random() % 4 == 0, dest);
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

uint64_t compute_here(const Work *work)
{
    return compute(work, [](bool, uint32_t) {});
}

iso_thread_t *make(Threads &threads, iso_thread_fn fn, uint32_t number)
{
    iso_heap_t *heap = threads.job.heap();
    auto *work = static_cast<Work *>(iso_malloc(heap, sizeof(Work)));
    *work = {heap, self, threads.job.size(), self * 100000u + number + seed(), 40, 0, number};
    return threads.make(fn, work, size_t{32} << 10, heap);
}

// ---- all come home ----

unsigned came_home;

void *comes_home(void *arg)
{
    auto *work = static_cast<Work *>(arg);
    work->result = compute(work, [](bool leaves, uint32_t dest) {
        if (leaves)
            EXPECT_STATUS(ISO_OK, iso_thread_migrate(dest));
        else
            iso_thread_yield();
    });
    EXPECT_STATUS(ISO_OK, iso_thread_migrate(work->home));
    came_home++;
    return work;
}

void random_walks()
{
    Threads threads;
    const unsigned count = most / threads.job.size() / scale;
    std::vector<iso_thread_t *> all;
    for (unsigned i = 0; i < count; i++)
        all.push_back(make(threads, comes_home, i));
    threads.run([&] { return came_home == count; });
    for (iso_thread_t *thread : all) {
        void *result = nullptr;
        EXPECT_STATUS(ISO_OK, iso_thread_join(thread, &result));
        const auto *work = static_cast<Work *>(result);
        EXPECT(work->result == compute_here(work));
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(work->heap));
    }
    threads.finish();
}

// ---- a rank is killed ----

constexpr uint32_t doomed = 3;

// Where a thread is, as it has said last: at a rank, on its way between two, or ended at one.
constexpr uint32_t on_its_way = 0x100, ended = 0x200;
uint32_t way(uint32_t from, uint32_t to)
{
    return on_its_way | from << 4 | to;
}
// May it have gone with the rank that was killed?
bool is_lost(uint32_t where)
{
    return where == doomed ||
           ((where & on_its_way) != 0 && ((where & 15) == doomed || (where >> 4 & 15) == doomed));
}

// What the ranks know together: memory of all of them.
struct Known {
    std::atomic<uint32_t> where[most];
    std::atomic<iso_thread_t *> thread[most];
    std::atomic<uint32_t>
        settled; // ranks that know of the death, and have resumed all that have come until then
    std::atomic<bool> killed;
};
Known *known;

void share_known(Job &job)
{
    const std::string path = "/tmp/isomalloc-walks." + std::to_string(getppid()); // the launcher
    if (self == 0)
        unlink(path.c_str());
    else
        job.barrier(); // it is made
    const int fd =
        open(path.c_str(), O_RDWR | O_CLOEXEC | (self == 0 ? O_CREAT | O_EXCL : 0), 0600);
    EXPECT(fd >= 0 && ftruncate(fd, sizeof(Known)) == 0);
    void *memory = mmap(nullptr, sizeof(Known), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT(memory != MAP_FAILED);
    close(fd);
    known = static_cast<Known *>(memory);
    if (self == 0)
        job.barrier();
    job.barrier(); // all have it
    if (self == 0)
        unlink(path.c_str());
}

unsigned came_to_the_doomed;

void *goes_on(void *arg)
{
    auto *work = static_cast<Work *>(arg);
    const uint64_t result = compute(work, [work](bool leaves, uint32_t dest) {
        const uint32_t from = ask();
        if (!leaves || dest == from || (dest == doomed && known->settled > 0)) {
            iso_thread_yield();
            return;
        }
        known->where[work->number] = way(from, dest);
        const iso_status_t status = iso_thread_migrate(dest);
        EXPECT(status == ISO_OK || (dest == doomed && ask() == from)); // it is told, and goes on
        known->where[work->number] = ask();
        came_to_the_doomed += ask() == doomed;
    });
    EXPECT(result == compute_here(work));
    known->where[work->number] = ended | ask();
    return nullptr;
}

// A heap that is sent there says so. Then all that the dead one has said before has been heard as well.
bool is_dead(const Threads &threads)
{
    iso_heap_t *probe = threads.job.heap();
    iso_request_t *request = nullptr;
    iso_status_t status = iso_migrate(probe, doomed, nullptr, 0, &request);
    if (status == ISO_OK)
        while ((status = iso_test(request)) == ISO_INPROGRESS)
            iso_threads_progress(threads.job.job);
    if (status != ISO_OK)
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(probe));
    return status == ISO_ERR_PEER_DEAD;
}

void a_rank_dies()
{
    Threads threads;
    const unsigned count = most / threads.job.size() / scale, all = count * threads.job.size();
    share_known(threads.job);
    for (unsigned i = 0; i < count; i++) {
        const uint32_t number = self * count + i;
        known->where[number] = self;
        known->thread[number] = make(threads, goes_on, number);
    }
    threads.job.barrier();
    unsigned turns = 0; // since the death is known
    threads.run([&] {
        if (self == doomed && came_to_the_doomed >= count) {
            known->killed = true;
            raise(SIGKILL);
        }
        if (!known->killed || (turns == 0 && !is_dead(threads)))
            return false;
        if (++turns == 4) // so all that are here have said so
            known->settled++;
        if (known->settled < threads.job.size() - 1)
            return false;
        for (unsigned i = 0; i < all; i++) {
            const uint32_t where = known->where[i];
            if ((where & ended) == 0 && !is_lost(where))
                return false;
        }
        return true;
    });
    unsigned here = 0, lost = 0;
    for (unsigned i = 0; i < all; i++) {
        const uint32_t where = known->where[i];
        here += where == (ended | self);
        lost += is_lost(where);
        if (is_lost(where))
            EXPECT(iso_heap_of(known->thread[i]) == nullptr);
    }
    EXPECT(lost > 0 && lost < all);
    // each that has ended here has left its heap, and all that have gone on are seen to have left
    for (const double until = now() + 30; threads.job.stats().heaps != here;
         iso_threads_progress(threads.job.job))
        EXPECT(now() < until);
    threads.job.barrier();
    std::printf("survivor %u ok\n", self);
    std::fflush(stdout);
    threads.close();
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"random_walks", random_walks}, {"a_rank_dies", a_rank_dies}};
    return run_test(tests, argc, argv);
}
