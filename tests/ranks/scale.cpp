// Many heaps, many migrations: no mapping a heap, and nothing grows.
#include "ranks.hpp"

namespace {

// A sanitizer maps as it likes: what must not grow is the number of mappings of memory objects.
struct Usage {
    size_t mappings, of_memory_objects, descriptors, resident_kib;
};

Usage usage()
{
    Usage now = {0, 0, 0, 0};
    char line[512];
    FILE *maps = std::fopen("/proc/self/maps", "re");
    EXPECT(maps != nullptr);
    while (std::fgets(line, sizeof line, maps) != nullptr) {
        now.mappings++;
        now.of_memory_objects += std::strstr(line, "/memfd:") != nullptr;
    }
    std::fclose(maps);
    for (int fd = 0; fd < 4096; fd++)
        now.descriptors += dup2(fd, fd) == fd;
    FILE *status = std::fopen("/proc/self/status", "re");
    EXPECT(status != nullptr);
    while (std::fgets(line, sizeof line, status) != nullptr)
        if (std::strncmp(line, "VmRSS:", 6) == 0)
            now.resident_kib = std::strtoul(line + 6, nullptr, 10);
    std::fclose(status);
    return now;
}

// Each with blocks of many sizes, all here at once, then all at the other rank.
void many_heaps()
{
    const size_t heaps = 10000 / scale;
    Job job;
    const Usage before = usage();
    std::vector<iso_heap_t *> all;
    if (self == 0) {
        for (size_t i = 0; i < heaps; i++) {
            iso_heap_t *heap = job.heap();
            auto *block = static_cast<size_t *>(iso_malloc(heap, 100 + i % 3000));
            EXPECT(block != nullptr);
            *block = i;
            iso_heap_set_root(heap, block);
            all.push_back(heap);
        }
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) // which have hundreds
        EXPECT(usage().mappings < before.mappings + 50);
#endif
        EXPECT(usage().of_memory_objects == before.of_memory_objects);
        EXPECT(usage().descriptors == before.descriptors);
        std::vector<iso_request_t *> requests;
        for (iso_heap_t *heap : all)
            requests.push_back(job.start(heap, 1));
        for (iso_request_t *request : requests)
            EXPECT_STATUS(ISO_OK, iso_wait(request));
    } else {
        for (size_t i = 0; i < heaps; i++) {
            const Arrived got = job.receive();
            EXPECT(*static_cast<size_t *>(iso_heap_root(got.heap)) < heaps);
            all.push_back(got.heap);
        }
        EXPECT(usage().of_memory_objects <= before.of_memory_objects + 2); // the other's inbox
        for (iso_heap_t *heap : all)
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
    }
    job.barrier();
    job.finish();
}

void many_migrations()
{
    const int round_trips = static_cast<int>(50000 / scale);
    Job job;
    Usage warm = {0, 0, 0, 0};
    iso_heap_t *heap = nullptr;
    if (self == 0) {
        heap = job.heap();
        auto *block = static_cast<int *>(iso_calloc(heap, 1, 20000));
        EXPECT(block != nullptr);
        iso_heap_set_root(heap, block);
    }
    for (int i = 0; i < round_trips; i++) {
        if (self == 0)
            job.send(heap, 1);
        heap = job.receive().heap;
        EXPECT(++*static_cast<int *>(iso_heap_root(heap)) == 2 * i + (self == 0 ? 2 : 1));
        if (self == 1)
            job.send(heap, 0);
        if (i == round_trips / 10)
            warm = usage();
    }
    const Usage end = usage();
    EXPECT(end.of_memory_objects == warm.of_memory_objects);
    EXPECT(end.descriptors == warm.descriptors);
    // Over verbs, of which there are fewer here, UCX has pools that grow by 2 MiB at any time, twice as a rule.
    const auto pools = scale > sanitizer_scale ? 4096u : 0u;
    EXPECT(end.resident_kib <= warm.resident_kib + 4096 * sanitizer_scale + pools);
    EXPECT(job.stats().migrations_out == static_cast<uint64_t>(round_trips));
    job.barrier();
    job.finish();
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"many_heaps", many_heaps}, {"many_migrations", many_migrations}};
    return run_test(tests, argc, argv);
}
