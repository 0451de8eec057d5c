// A heap that moves in a stream of bytes, by whatever way the program has: here a pipe's worth of a file. It is packed
// at one rank, unpacked at another, and its slots are its own all the while.
#include "ranks.hpp"
#include <fcntl.h>
#include <isomalloc/pup.h>

namespace {

struct Node {
    Node *next;
    uint64_t value;
};

uint64_t check(const iso_heap_t *heap, uint64_t count)
{
    uint64_t sum = 0, seen = 0;
    for (const Node *node = static_cast<Node *>(iso_heap_root(heap)); node != nullptr;
         node = node->next, seen++)
        sum = sum * 31 + node->value;
    EXPECT(seen == count);
    return sum;
}

std::string path_of(const char *folder, uint32_t rank)
{
    return std::string(folder) + "/pup." + std::to_string(rank);
}

void write_to(const std::string &path, Job &job, iso_heap_t **heap_p, uint64_t *sum)
{
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    EXPECT(fd >= 0);
    pup_er p = iso_pup_new_to_fd(fd);
    EXPECT_STATUS(ISO_OK, iso_pup_set_use(p, ISO_PUP_DELETING | ISO_PUP_MIGRATION));
    pup_ulong(p, sum);
    iso_pup_heap(p, job.job, heap_p);
    EXPECT_STATUS(ISO_OK, iso_pup_flush(p));
    EXPECT(*heap_p == nullptr);
    pup_destroy(p);
    close(fd);
}

iso_heap_t *read_from(const std::string &path, Job &job, uint64_t *sum)
{
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT(fd >= 0);
    iso_heap_t *heap = nullptr;
    pup_er p = iso_pup_new_from_fd(fd);
    pup_ulong(p, sum);
    iso_pup_heap(p, job.job, &heap);
    EXPECT_STATUS(ISO_OK, iso_pup_status(p));
    pup_destroy(p);
    close(fd);
    return heap;
}

} // namespace

// Each rank's heap goes round all ranks, by file and by migration in turn; other heaps come and go meanwhile.
int main(int argc, char **argv)
{
    EXPECT(argc == 2);
    const char *folder = argv[1];
    Job job;
    const uint64_t count = 20000 / sanitizer_scale;
    iso_heap_t *heap = job.heap();
    Node *first = nullptr;
    for (uint64_t i = 0; i < count; i++) {
        auto *node = static_cast<Node *>(iso_malloc(heap, sizeof(Node)));
        EXPECT(node != nullptr);
        *node = {first, i * (self + 1)};
        first = node;
        EXPECT(iso_malloc(heap, 100) != nullptr);
    }
    EXPECT(iso_malloc(heap, 5000000) != nullptr);
    iso_heap_set_root(heap, first);
    uint64_t sum = check(heap, count);
    const iso_heap_t *own = heap;

    for (uint32_t hop = 0; hop < 2 * job.size(); hop++) {
        EXPECT(check(heap, count) == sum);
        if (hop % 2 == 0) {
            const iso_heap_t *gone = heap;
            write_to(path_of(folder, self), job, &heap, &sum);
            EXPECT(iso_heap_state(gone) == ISO_HEAP_ELSEWHERE);
            iso_heap_t *other = job.heap(); // its slots are nobody's: not this one's either
            EXPECT(other != gone);
            std::memset(iso_malloc(other, 3000000), 0xff, 3000000);
            job.barrier();
            heap = read_from(path_of(folder, (self + job.size() - 1) % job.size()), job, &sum);
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(other));
        } else {
            job.send(heap, (self + 1) % job.size(), &sum, sizeof sum);
            const Arrived arrived = job.receive();
            heap = arrived.heap;
            EXPECT(arrived.header.size() == sizeof sum);
            std::memcpy(&sum, arrived.header.data(), sizeof sum);
        }
        EXPECT(check(heap, count) == sum);
        iso_free(iso_malloc(heap, 70000));
        job.barrier();
    }
    EXPECT(heap == own); // twice around
    EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
    job.barrier();
    job.finish();
    return 0;
}
