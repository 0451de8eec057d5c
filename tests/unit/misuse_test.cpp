// Misuse of a heap: the process ends, and says with what address, which heap and why.
#include "core/heap.h"
#include "tests/unit/allocator.hpp"
#include "tests/unit/support.hpp"
#include <cstdio>
#include <functional>
#include <string>

namespace {

// What a process says that misuses a heap. The heap is made by the process itself: the memory of a
// job is shared with a forked child, and what the child breaks would be broken here.
class Misuse {
  public:
    Misuse(const Job &job, const std::function<void *(iso_heap_t *)> &prepare,
           const std::function<void(iso_heap_t *, void *)> &misuse)
    {
        const ChildResult child = in_child([&] {
            iso_heap_t *heap = nullptr;
            if (iso_heap_create_flags(job.job, job.flags, &heap) != ISO_OK)
                return 1;
            void *address = prepare(heap);
            fprintf(stderr, "%p %p\n", static_cast<void *>(heap), address);
            misuse(heap, address);
            return 0;
        });
        CHECK(child.aborted());
        char heap[32] = "", address[32] = "";
        CHECK(sscanf(child.stderr_text.c_str(), "%31s %31s", heap, address) == 2);
        heap_ = heap;
        address_ = address;
        text_ = child.stderr_text.substr(child.stderr_text.find('\n') + 1);
    }
    [[nodiscard]] bool says(const std::string &what) const
    {
        return text_.find(what) != std::string::npos;
    }
    [[nodiscard]] bool names_address() const
    {
        return says(address_);
    }
    [[nodiscard]] bool names_heap() const
    {
        return says(heap_);
    }

  private:
    std::string heap_, address_, text_;
};

void free_it(iso_heap_t * /*heap*/, void *address)
{
    iso_free(address);
}

} // namespace

TEST_CASE("misuse ends with a message that names address, heap and cause", "[allocator]")
{
    const uint32_t flags = GENERATE(0, ISO_HEAP_SHARED);
    Job job(256u << 20, flags);
    for (const size_t size : {16, 200, 300, 5000, 100000, 5000000}) {
        CAPTURE(size);
        const Misuse twice(
            job,
            [&](iso_heap_t *heap) {
                void *keep = iso_malloc(heap, size); // so that the span stays
                void *block = iso_malloc(heap, size);
                if (keep != nullptr)
                    iso_free(block);
                return block;
            },
            free_it);
        CHECK(twice.names_address());
        CHECK(twice.says("free"));
        const Misuse interior(
            job, [&](iso_heap_t *heap) { return static_cast<char *>(iso_malloc(heap, size)) + 8; },
            free_it);
        CHECK(interior.names_address());
        CHECK(interior.names_heap());
        CHECK(interior.says("not the start of a block"));
    }
    int local = 0;
    const Misuse foreign(
        job, [&](iso_heap_t * /*heap*/) { return &local; }, free_it);
    CHECK(foreign.names_address());
    CHECK(foreign.says("no iso space"));
    const auto block_of_100 = [](iso_heap_t *heap) { return iso_malloc(heap, 100); };
    const Misuse frozen(job, block_of_100, [](iso_heap_t *heap, void *block) {
        iso_heap_freeze(iso_hold_find(nullptr, heap));
        iso_free(block);
    });
    CHECK(frozen.names_address());
    CHECK(frozen.says("migrating"));
    const Misuse used(job, block_of_100, [](iso_heap_t *heap, void * /*block*/) {
        iso_heap_freeze(iso_hold_find(nullptr, heap));
        static_cast<void>(iso_malloc(heap, 100) == nullptr);
    });
    CHECK(used.names_heap());
    CHECK(used.says("migrating"));
    iso_heap_t *other = job.heap();
    const Misuse mixed(job, block_of_100, [&](iso_heap_t * /*heap*/, void *block) {
        static_cast<void>(iso_realloc(other, block, 500) == nullptr);
    });
    CHECK(mixed.names_address());
    CHECK(mixed.says("not of heap"));
    const Misuse destroyed(job, block_of_100, [](iso_heap_t *heap, void *block) {
        iso_heap_destroy(heap);
        iso_free(block);
    });
    CHECK(destroyed.names_address());
    CHECK(destroyed.says("no heap at this rank"));
}
