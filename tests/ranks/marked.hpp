// Heaps with contents that tell whose they are, and processes that are stopped at will.
#ifndef ISO_TESTS_MARKED_HPP
#define ISO_TESTS_MARKED_HPP

#include "ranks.hpp"
#include <csignal>

// A heap with a block whose contents say whose it is.
inline iso_heap_t *marked(Job &job, size_t size, unsigned char mark)
{
    iso_heap_t *heap = job.heap();
    auto *block = static_cast<unsigned char *>(iso_malloc(heap, size));
    EXPECT(block != nullptr);
    std::memset(block, mark, size);
    iso_heap_set_root(heap, block);
    return heap;
}

inline void expect_marked(iso_heap_t *heap, size_t size, unsigned char mark)
{
    const auto *block = static_cast<unsigned char *>(iso_heap_root(heap));
    for (size_t i = 0; i < size; i++)
        EXPECT(block[i] == mark);
}

// Tells rank 0 this rank's process, in a heap of its own.
inline void tell_pid(Job &job)
{
    const pid_t pid = getpid();
    job.send(job.heap(), 0, &pid, sizeof pid);
}

inline pid_t hear_pid(Job &job)
{
    pid_t pid = 0;
    const Arrived got = job.receive();
    EXPECT(got.header.size() == sizeof pid);
    std::memcpy(&pid, got.header.data(), sizeof pid);
    EXPECT_STATUS(ISO_OK, iso_heap_destroy(got.heap));
    return pid;
}

inline void stop_process(pid_t pid)
{
    EXPECT(kill(pid, SIGSTOP) == 0);
    const std::string path = "/proc/" + std::to_string(pid) + "/stat";
    for (char state = 0; state != 'T';) {
        FILE *file = std::fopen(path.c_str(), "re");
        EXPECT(file != nullptr && std::fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
        std::fclose(file);
    }
}

// Bytes of this process that the kernel counts as pinned (VmPin).
inline uint64_t pinned()
{
    char line[256];
    uint64_t kib = 0;
    bool is_there = false;
    FILE *status = std::fopen("/proc/self/status", "re");
    EXPECT(status != nullptr);
    while (std::fgets(line, sizeof line, status) != nullptr)
        if (std::strncmp(line, "VmPin:", 6) == 0) {
            kib = std::strtoul(line + 6, nullptr, 10);
            is_there = true;
        }
    std::fclose(status);
    EXPECT(is_there); // else every bound on it would hold
    return kib << 10;
}

#endif
