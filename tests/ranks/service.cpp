// What the library does in threads of its own: progress, and telling people what a rank is doing.
#include "marked.hpp"
#include <atomic>
#include <csignal>
#include <sys/mman.h>

namespace {

struct Service {
    iso_job_t *job = nullptr;
    std::atomic<iso_heap_t *> arrived{nullptr};
};

iso_job_t *start(Service *service, bool progress_thread, uint32_t dump_signal = 0)
{
    iso_params_t params;
    EXPECT_STATUS(ISO_OK, iso_params_init(&params));
    params.progress_thread = progress_thread;
    params.dump_signal = dump_signal;
    params.arrival_arg = service;
    params.arrival = [](iso_job_t *, const iso_arrival_t *arrival, void *arg) {
        static_cast<Service *>(arg)->arrived = arrival->heap;
    };
    EXPECT_STATUS(ISO_OK, iso_init(&params, &service->job));
    self = iso_rank(service->job);
    return service->job;
}

// Rank 1 never calls while heaps come to it and are asked back for slots.
void progress_thread()
{
    Service service;
    iso_job_t *job = start(&service, true);
    if (self == 0) {
        for (int i = 0; i < 20; i++) {
            iso_heap_t *heap = nullptr;
            iso_request_t *request = nullptr;
            EXPECT_STATUS(ISO_OK, iso_heap_create(job, &heap));
            auto *block = static_cast<char *>(iso_malloc(heap, 500000));
            EXPECT(block != nullptr);
            std::memset(block, i, 500000);
            iso_heap_set_root(heap, block);
            EXPECT_STATUS(ISO_OK, iso_migrate(heap, 1, nullptr, 0, &request));
            EXPECT_STATUS(ISO_OK, iso_wait(request));
        }
    } else {
        iso_heap_t *seen = nullptr;
        const double until = now() + 20;
        for (int count = 0; count < 20;) { // looks at its own memory only
            EXPECT(now() < until);
            iso_heap_t *heap = service.arrived;
            if (heap == seen)
                continue;
            seen = heap;
            iso_stats_t stats;
            iso_stats(job, &stats);
            count = static_cast<int>(stats.migrations_in);
        }
    }
    EXPECT_STATUS(ISO_OK, iso_barrier(job));
    EXPECT_STATUS(ISO_OK, iso_finalize(job));
}

// A callback that runs in the progress thread has ended when the barrier after its migration has.
void barrier_waits()
{
    static std::atomic<bool> done{false};
    iso_params_t params;
    iso_job_t *job = nullptr;
    EXPECT_STATUS(ISO_OK, iso_params_init(&params));
    params.progress_thread = true;
    params.arrival = [](iso_job_t *, const iso_arrival_t *, void *) {
        usleep(200000);
        done = true;
    };
    EXPECT_STATUS(ISO_OK, iso_init(&params, &job));
    self = iso_rank(job);
    if (self == 0) {
        iso_heap_t *heap = nullptr;
        iso_request_t *request = nullptr;
        EXPECT_STATUS(ISO_OK, iso_heap_create(job, &heap));
        EXPECT_STATUS(ISO_OK, iso_migrate(heap, 1, nullptr, 0, &request));
        EXPECT_STATUS(ISO_OK, iso_wait(request));
    }
    EXPECT_STATUS(ISO_OK, iso_barrier(job));
    EXPECT(done == (self == 1));
    EXPECT_STATUS(ISO_OK, iso_finalize(job));
}

std::string read_all(int fd)
{
    std::string text(100000, '\0');
    const ssize_t length = pread(fd, text.data(), text.size(), 0);
    EXPECT(length >= 0);
    text.resize(static_cast<size_t>(length));
    return text;
}

bool has(const std::string &text, const std::string &what)
{
    if (text.find(what) != std::string::npos)
        return true;
    std::fprintf(stderr, "not in it: '%s'\n%s", what.c_str(), text.c_str());
    return false;
}

int chained = 0;

void dump()
{
    struct sigaction mine = {};
    mine.sa_handler = [](int) { chained = chained + 1; };
    EXPECT(sigaction(SIGUSR2, &mine, nullptr) == 0);
    Service service;
    iso_job_t *job = start(&service, false, SIGUSR2);
    const int file = memfd_create("dump", MFD_CLOEXEC);
    if (self == 0) {
        iso_heap_t *heap = nullptr;
        iso_request_t *request = nullptr;
        EXPECT_STATUS(ISO_OK, iso_heap_create(job, &heap));
        EXPECT(iso_malloc(heap, 3 << 20) != nullptr);
        EXPECT_STATUS(ISO_OK, iso_migrate(heap, 1, nullptr, 0, &request));
        iso_dump(job, file); // rank 1 does not listen yet
        std::string text = read_all(file);
        EXPECT(has(text, "rank 0 of 2") && has(text, "to rank 1: RESERVING") &&
               has(text, "peer 1"));
        // the same by a signal, while this thread holds still
        const int stderr_before = dup(STDERR_FILENO);
        EXPECT(ftruncate(file, 0) == 0 && dup2(file, STDERR_FILENO) >= 0);
        EXPECT(lseek(file, 0, SEEK_SET) == 0);
        EXPECT(kill(getpid(), SIGUSR2) == 0);
        for (const double until = now() + 5; read_all(file).empty() && now() < until;)
            usleep(1000);
        EXPECT(dup2(stderr_before, STDERR_FILENO) >= 0);
        text = read_all(file);
        EXPECT(has(text, "rank 0 of 2") && has(text, "to rank 1: RESERVING"));
        EXPECT(chained == 1);
        EXPECT_STATUS(ISO_OK, iso_barrier(job)); // rank 1 listens in it
        EXPECT_STATUS(ISO_OK, iso_wait(request));
    } else {
        usleep(300000);
        EXPECT_STATUS(ISO_OK, iso_barrier(job));
    }
    EXPECT_STATUS(ISO_OK, iso_barrier(job));
    EXPECT_STATUS(ISO_OK, iso_finalize(job));
    struct sigaction after = {};
    EXPECT(sigaction(SIGUSR2, nullptr, &after) == 0 && after.sa_handler == mine.sa_handler);
}

void refused()
{
    iso_params_t params;
    iso_job_t *job = nullptr;
    EXPECT_STATUS(ISO_OK, iso_params_init(&params));
    params.progress_thread = true;
    params.thread_level = ISO_THREAD_SERIALIZED;
    EXPECT_STATUS(ISO_ERR_INVALID, iso_init(&params, &job));
    params.progress_thread = false;
    params.dump_signal = SIGKILL; // cannot be caught
    EXPECT_STATUS(ISO_ERR_INVALID, iso_init(&params, &job));
    params.dump_signal = SIGSEGV; // would be waited for where it must be explained
    EXPECT_STATUS(ISO_ERR_INVALID, iso_init(&params, &job));
    params.dump_signal = 0;
    EXPECT_STATUS(ISO_OK, iso_init(&params, &job));
    EXPECT_STATUS(ISO_OK, iso_finalize(job));
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"progress_thread", progress_thread},
                          {"barrier_waits", barrier_waits},
                          {"dump", dump},
                          {"refused", refused}};
    return run_test(tests, argc, argv);
}
