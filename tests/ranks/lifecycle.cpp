// Jobs begin and end more than once in a process, side by side, and wherever the addresses are taken.
#include "ranks.hpp"
#include <sys/mman.h>
#include <sys/wait.h>

namespace {

void *space_base(const iso_job_t *job)
{
    void *base = nullptr;
    size_t size = 0;
    iso_space(job, &base, &size);
    return base;
}

int open_descriptors()
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += dup2(fd, fd) == fd;
    return count;
}

// A heap goes round all ranks, so that everything of a job has been in use.
void go_round(Job &job, unsigned char mark)
{
    constexpr size_t size = 300000;
    if (self == 0) {
        iso_heap_t *heap = job.heap();
        void *block = iso_malloc(heap, size);
        EXPECT(block != nullptr);
        std::memset(block, mark, size);
        iso_heap_set_root(heap, block);
        job.send(heap, 1 % job.size());
    }
    const Arrived got = job.receive();
    const auto *bytes = static_cast<const unsigned char *>(iso_heap_root(got.heap));
    for (size_t i = 0; i < size; i++)
        EXPECT(bytes[i] == mark);
    if (self != 0)
        job.send(got.heap, (self + 1) % job.size());
    job.barrier();
}

void again()
{
    void *base = nullptr;
    int descriptors = 0;
    for (unsigned char round = 0; round < (scale < 16 ? 5 : 3); round++) {
        Job job;
        EXPECT(round == 0 || space_base(job.job) == base);
        base = space_base(job.job);
        go_round(job, round);
        job.finish();
        const int left = open_descriptors();
        EXPECT(round == 0 || left == descriptors); // the second round leaves no more than the first
        descriptors = left;
    }
}

// One rank has something where the space should be.
void base_taken()
{
    void *preferred = nullptr, *other = nullptr, *taken = nullptr;
    size_t size = 0;
    {
        Job job;
        iso_space(job.job, &preferred, &size);
        job.finish();
    }
    if (self == 1) {
        taken = mmap(static_cast<char *>(preferred) + size / 2, 4096, PROT_READ,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        EXPECT(taken != MAP_FAILED);
    }
    {
        Job job;
        other = space_base(job.job);
        EXPECT(other != preferred);
        // the same in all ranks: a heap at its address at home is valid everywhere
        iso_heap_t *heap = job.heap();
        job.send(heap, (self + 1) % job.size(), &other, sizeof other);
        const Arrived got = job.receive();
        EXPECT(std::memcmp(got.header.data(), &other, sizeof other) == 0);
        go_round(job, 3);
        job.finish();
    }
    if (self == 1)
        EXPECT(munmap(taken, 4096) == 0);
    Job job;
    EXPECT(space_base(job.job) == preferred);
    job.finish();
}

// A job of this process alone beside the job of all.
void two_jobs()
{
    Job all;
    iso_params_t params;
    iso_job_t *own = nullptr;
    EXPECT_STATUS(ISO_OK, iso_params_init(&params));
    params.bootstrap = "single";
    params.space_size = size_t{1} << 30;
    EXPECT_STATUS(ISO_OK, iso_init(&params, &own));
    EXPECT(iso_size(own) == 1 && all.size() > 1);
    EXPECT(space_base(own) != space_base(all.job));
    iso_heap_t *private_heap = nullptr;
    EXPECT_STATUS(ISO_OK, iso_heap_create(own, &private_heap));
    iso_heap_t *heap = all.heap();
    void *a = iso_malloc(heap, 100), *b = iso_malloc(private_heap, 100);
    EXPECT(iso_heap_of(a) == heap && iso_heap_of(b) == private_heap);
    EXPECT(iso_in_range(a) && iso_in_range(b) && !iso_in_range(&params));
    go_round(all, 9);
    iso_free(a);
    iso_free(b);
    EXPECT_STATUS(ISO_OK, iso_finalize(own));
    EXPECT(iso_heap_of(b) == nullptr && !iso_in_range(b));
    go_round(all, 11);
    all.finish();
}

// What one rank cannot do, all are told: nobody waits for it, and another try is a clean one.
void one_fails()
{
    const char *local = std::getenv("ISO_LOCAL_RANK");
    const char *rank = local != nullptr ? local : std::getenv("PMIX_RANK");
    const bool mine = rank != nullptr && std::string(rank) == "1";
    iso_job_t *job = nullptr;
    if (mine)
        setenv("ISO_TIMEOUT", "soon", 1);
    EXPECT_STATUS(ISO_ERR_INVALID, iso_init(nullptr, &job));
    EXPECT(job == nullptr);
    unsetenv("ISO_TIMEOUT");
    if (mine)
        setenv("ISO_TRANSPORT", "carrier-pigeon", 1);
    EXPECT(iso_init(nullptr, &job) < 0); // settings differ
    unsetenv("ISO_TRANSPORT");
    Job good;
    go_round(good, 1);
    good.finish();
}

// A child that a rank forks, and that ends as programs end, does its parent no harm.
void forked()
{
    Job job;
    iso_heap_t *heap = job.heap();
    int status = -1;
    go_round(job, 1);
    const pid_t child = fork();
    if (child == 0) {
        iso_request_t *request = nullptr;
        EXPECT(iso_progress(job.job) == 0);
        EXPECT_STATUS(ISO_ERR_INVALID, iso_migrate(heap, (self + 1) % 3, nullptr, 0, &request));
        EXPECT_STATUS(ISO_ERR_INVALID, iso_barrier(job.job));
        EXPECT_STATUS(ISO_ERR_INVALID, iso_finalize(job.job));
        _exit(0);
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    go_round(job, 2);
    job.finish();
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"again", again},
                          {"base_taken", base_taken},
                          {"two_jobs", two_jobs},
                          {"one_fails", one_fails},
                          {"forked", forked}};
    return run_test(tests, argc, argv);
}
