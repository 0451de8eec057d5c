// A heap whose metadata the program has overwritten, and that migrates all the same: before puts it is found, before a handover
// only where ISO_VERIFY_HANDOVER asks for that, and else by the next operation at the other rank.
//   damaged leaves     it is to be found before it leaves
//   damaged arrives    it is to be found where it has come
#include "ranks.hpp"

namespace {

constexpr size_t size = 64;
constexpr uintptr_t page = 4096; // of tiny blocks, whatever the OS page is

// The first of a heap's tiny blocks is the last of its page: what is written past its end is the next page's beginning, of which
// the root is a block. Allocation has gone on to a later page, so that nothing but a look at all metadata comes there.
iso_heap_t *damaged(const Job &job)
{
    const auto page_of = [](const void *at) { return reinterpret_cast<uintptr_t>(at) / page; };
    iso_heap_t *heap = job.heap();
    char *first = static_cast<char *>(iso_malloc(heap, size)), *block = first;
    for (int i = 0; page_of(block) < page_of(first) + 3; i++) {
        block = static_cast<char *>(iso_malloc(heap, size));
        EXPECT(block != nullptr && page_of(block) >= page_of(first) && i < 100000);
        if (page_of(block) == page_of(first) + 1)
            iso_heap_set_root(heap, block);
    }
    std::memset(first + iso_usable_size(first), 'x', 8);
    return heap;
}

void go(bool arrives)
{
    Job job;
    if (self == 0) {
        iso_heap_t *heap = damaged(job);
        std::fprintf(stderr, "heap %p is damaged\n", static_cast<void *>(heap));
        job.send(heap, 1);
        EXPECT(arrives); // else nobody has looked
        job.barrier();
    } else {
        void *block = iso_heap_root(job.receive().heap);
        iso_free(block);
        EXPECT(block == nullptr); // it was not found
    }
    job.finish();
}

void leaves()
{
    go(false);
}

void arrives()
{
    go(true);
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"leaves", leaves}, {"arrives", arrives}};
    return run_test(tests, argc, argv);
}
