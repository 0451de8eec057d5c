// Who owns what after a death, and what is left of the dead. The survivors say so at the end.
#include "marked.hpp"
#include <dirent.h>

namespace {

// The target dies while a migration to it waits for its answer; a third rank goes on.
void target_dies()
{
    constexpr size_t size = 400000;
    Job job;
    if (self == 1) {
        tell_pid(job);
        job.send(marked(job, size, 7), 0);
        job.barrier();
        for (;;)
            pause();
    }
    if (self == 0) {
        const pid_t pid = hear_pid(job);
        iso_heap_t *heap = job.receive().heap, *fresh = marked(job, size, 9);
        job.barrier();
        stop_process(pid); // so that it answers nothing any more
        iso_request_t *with = job.start(heap, 1), *without = job.start(fresh, 1);
        for (int i = 0; i < 100; i++)
            iso_progress(job.job);
        EXPECT(kill(pid, SIGKILL) == 0);
        const double start = now();
        EXPECT_STATUS(ISO_ERR_PEER_DEAD, iso_wait(with));
        EXPECT_STATUS(ISO_ERR_PEER_DEAD, iso_wait(without));
        EXPECT(now() - start < 5);
        for (iso_heap_t *one : {heap, fresh})
            EXPECT(iso_heap_state(one) == ISO_HEAP_OWNED);
        expect_marked(heap, size, 7);
        expect_marked(fresh, size, 9);
        iso_request_t *request = nullptr;
        EXPECT_STATUS(ISO_ERR_PEER_DEAD, iso_migrate(heap, 1, nullptr, 0, &request));
        job.send(heap, 2);
        job.send(fresh, 2);
    } else {
        job.barrier();
        expect_marked(job.receive().heap, size, 7);
        expect_marked(job.receive().heap, size, 9);
    }
    job.barrier(); // of the two that live
    job.finish();
    std::printf("survivor %u ok\n", self);
}

// The target is killed while bytes are being put into its memory.
void target_dies_in_put()
{
    const size_t size = (256 << 20) / scale;
    Job job;
    if (self == 1) {
        tell_pid(job);
        expect_marked(job.receive().heap, 100, 1); // they know each other
        job.barrier();
        for (;;)
            iso_progress_wait(job.job, 1);
    }
    if (self == 0) {
        const pid_t pid = hear_pid(job);
        iso_heap_t *heap = marked(job, size, 7);
        job.send(marked(job, 100, 1), 1);
        job.barrier();
        iso_request_t *request = job.start(heap, 1);
        iso_request_info_t info = {};
        while (info.bytes_put == 0) {
            EXPECT_STATUS(ISO_INPROGRESS, iso_test(request));
            iso_request_query(request, &info);
        }
        EXPECT(!info.puts_complete && info.bytes_put < info.live_bytes);
        EXPECT(kill(pid, SIGKILL) == 0);
        const double start = now();
        EXPECT_STATUS(ISO_ERR_PEER_DEAD, iso_wait(request));
        EXPECT(now() - start < 10);
        EXPECT(iso_heap_state(heap) == ISO_HEAP_OWNED);
        expect_marked(heap, size, 7);
        job.send(heap, 2);
    } else {
        job.barrier();
        expect_marked(job.receive().heap, size, 7);
    }
    job.barrier();
    job.finish();
    std::printf("survivor %u ok\n", self);
}

// The source dies in the midst of things; what it had not given away is gone, and nothing else.
void source_dies()
{
    Job job;
    if (self == 1) {
        job.send(marked(job, 100, 5), 2);
        job.send(marked(job, 100, 6), 0);
        job.barrier();
        job.start(marked(job, 8 << 20, 1), 0);
        kill(getpid(), SIGKILL);
    }
    iso_heap_t *mine = job.receive().heap;
    job.barrier();
    for (const double until = now() + 2; now() < until;)
        iso_progress_wait(job.job, 0.1);
    expect_marked(mine, 100, self == 0 ? 6 : 5);
    const uint32_t other = self == 0 ? 2 : 0;
    job.send(mine, other);
    Arrived got = job.receive();
    if (got.source == 1) // its last heap, if it had committed it
        got = job.receive();
    expect_marked(got.heap, 100, self == 0 ? 5 : 6);
    job.barrier();
    job.finish();
    std::printf("survivor %u ok\n", self);
}

// The source gives its heap away in its first words to the target, and dies before they are heard.
void first_words()
{
    Job job;
    job.barrier();
    if (self == 1) {
        job.start(marked(job, 100, 5), 0);
        kill(getpid(), SIGKILL);
    }
    if (self == 0) {
        usleep(500000);
        const Arrived got = job.receive(10);
        EXPECT(got.source == 1);
        expect_marked(got.heap, 100, 5);
        job.send(got.heap, 2);
    } else {
        expect_marked(job.receive().heap, 100, 5);
    }
    iso_request_t *request = nullptr;
    for (const double until = now() + 5; now() < until; iso_progress_wait(job.job, 0.1))
        if (iso_migrate(job.heap(), 1, nullptr, 0, &request) == ISO_ERR_PEER_DEAD)
            break;
    EXPECT_STATUS(ISO_ERR_PEER_DEAD, iso_migrate(job.heap(), 1, nullptr, 0, &request));
    job.barrier();
    job.finish();
    std::printf("survivor %u ok\n", self);
}

// Memory objects of iso spaces that this process has open.
unsigned spaces_open()
{
    unsigned count = 0;
    DIR *folder = opendir("/proc/self/fd");
    EXPECT(folder != nullptr);
    while (const dirent *entry = readdir(folder)) {
        char target[100] = {0};
        const std::string path = std::string("/proc/self/fd/") + entry->d_name;
        if (readlink(path.c_str(), target, sizeof target - 1) > 0)
            count += std::strstr(target, "memfd:iso-space") != nullptr;
    }
    closedir(folder);
    return count;
}

// The memory of a dead rank is not held by those that put into it.
void memory_of_the_dead()
{
    Job job; // private backing
    const unsigned own = spaces_open();
    if (self == 1) {
        tell_pid(job);
        expect_marked(job.receive().heap, 1 << 20, 3);
        job.barrier();
        for (;;)
            pause();
    }
    if (self == 0) {
        const pid_t pid = hear_pid(job);
        job.send(marked(job, 1 << 20, 3), 1);
        EXPECT(spaces_open() > own);
        job.barrier();
        EXPECT(kill(pid, SIGKILL) == 0);
        for (const double until = now() + 5; spaces_open() > own; iso_progress_wait(job.job, 0.05))
            EXPECT(now() < until);
    } else {
        job.barrier();
    }
    job.barrier();
    job.finish();
    std::printf("survivor %u ok\n", self);
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {
        {"target_dies", target_dies},
        {"target_dies_in_put", target_dies_in_put},
        {"source_dies", source_dies},
        {"first_words", first_words},
        {"memory_of_the_dead", memory_of_the_dead},
    };
    return run_test(tests, argc, argv);
}
