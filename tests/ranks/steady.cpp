// The steady state: migrations to and fro once everything is warm. A rank says with prctl where it begins and ends, so
// that steady.sh finds the place in what strace saw.
#include "ranks.hpp"
#include <isomalloc/stack.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace {

constexpr size_t blocks = 200,
                 block_size = 3000; // half of them freed: no block is large, so no guards
constexpr int warm_up = 1500,
              rounds = 500; // two migrations each; to warm up: once through all rings

int64_t faults()
{
    rusage usage{};
    EXPECT(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_minflt + usage.ru_majflt;
}

iso_heap_t *fill(const Job &job)
{
    iso_heap_t *heap = job.heap();
    std::vector<void *> all;
    for (size_t i = 0; i < blocks; i++) {
        all.push_back(iso_malloc(heap, block_size));
        EXPECT(all.back() != nullptr);
        memset(all.back(), 1, block_size);
    }
    for (size_t i = 1; i < blocks; i += 2)
        iso_free(all[i]);
    iso_heap_set_root(heap, all[0]);
    return heap;
}

// A page below each of them faults, wherever the heap is.
iso_heap_t *fill_with_stacks(const Job &job)
{
    iso_heap_t *heap = fill(job);
    for (const size_t size : {size_t{16} << 10, size_t{1} << 20, size_t{3} << 20}) {
        iso_stack_t *stack = iso_stack_create(heap, size, "steady");
        EXPECT(stack != nullptr);
        memset(stack->low, 1, size); // was deep once
        stack->sp = reinterpret_cast<char *>(stack) - 1024;
    }
    return heap;
}

// What may not be in it: see steady.sh. Page faults are counted here.
void go_to_and_fro(iso_heap_t *(*make)(const Job &job))
{
    Job job;
    iso_heap_t *heap = self == 0 ? make(job) : nullptr;
    int64_t faults_before = 0;
    iso_stats_t before{};
    for (int i = 0; i < warm_up + rounds; i++) {
        if (i == warm_up) {
            before = job.stats();
            prctl(PR_SET_NAME, "steady-begins");
            faults_before = faults();
        }
        if (self == 0)
            job.send(heap, 1);
        heap = job.receive().heap;
        EXPECT(*static_cast<char *>(iso_heap_root(heap)) == 1);
        if (self == 1)
            job.send(heap, 0);
    }
    const int64_t faulted = faults() - faults_before;
    prctl(PR_SET_NAME, "steady-ends");
    const iso_stats_t after = job.stats();
    std::printf("rank %u: %d migrations, %lld page faults\n", self, 2 * rounds,
                static_cast<long long>(faulted));
    EXPECT(after.migrations_out - before.migrations_out == uint64_t{rounds});
    EXPECT(after.registered_bytes == before.registered_bytes);
    EXPECT(after.released_bytes == before.released_bytes);
    EXPECT(faulted <= 2); // of the system, on its own account; none is ours
    job.barrier();
    job.finish();
}

void to_and_fro()
{
    go_to_and_fro(fill);
}

// Where a guard splits a mapping it goes with the heap, and is made again: before Linux 6.15.
bool kernel_has_guards()
{
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const int fd = memfd_create("steady", MFD_CLOEXEC);
    EXPECT(fd >= 0 && ftruncate(fd, static_cast<off_t>(page)) == 0);
    void *at = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT(at != MAP_FAILED);
    const bool has = madvise(at, page, 102 /* MADV_GUARD_INSTALL */) == 0;
    munmap(at, page);
    close(fd);
    return has;
}

void stacks_to_and_fro()
{
    if (!kernel_has_guards()) {
        std::printf("this kernel has no guards of its own: stacks without guards\n");
        setenv("ISO_GUARD", "none", 1);
    }
    go_to_and_fro(fill_with_stacks);
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"to_and_fro", to_and_fro}, {"stacks_to_and_fro", stacks_to_and_fro}};
    return run_test(tests, argc, argv);
}
