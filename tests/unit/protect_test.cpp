// Protections of a heap's user: what becomes of a list that is not what it should be.
#include "tests/unit/allocator.hpp"
#include "tests/unit/support.hpp"
#include <isomalloc/pup.h>
#include <sys/mman.h>

namespace {

// Packs the heap, which follows its list.
size_t pack(iso_job_t *job, iso_heap_t *heap)
{
    std::vector<char> bytes(8u << 20);
    pup_er p = iso_pup_new_to_memory(bytes.data(), bytes.size());
    iso_pup_heap(p, job, &heap);
    const size_t size = iso_pup_status(p) == ISO_OK ? pup_size(p) : 0;
    pup_destroy(p);
    return size;
}

} // namespace

TEST_CASE("protections: a list that leads out of the heap, goes round, or is not of its pages ends "
          "the process with a line",
          "[protect]")
{
    const auto of = [](void (*damage)(iso_protection_t *, iso_protection_t *, char *)) {
        return in_child([&] {
            iso_job_t *job = nullptr;
            iso_heap_t *heap = nullptr;
            if (iso_init(nullptr, &job) != ISO_OK || iso_heap_create(job, &heap) != ISO_OK)
                return 1;
            const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
            auto *block = static_cast<char *>(iso_aligned_alloc(heap, page, 4 * page));
            auto *range =
                static_cast<iso_protection_t *>(iso_malloc(heap, sizeof(iso_protection_t)));
            static iso_protection_t elsewhere;
            *range = {nullptr, block, page, PROT_NONE};
            elsewhere = *range;
            iso_heap_set_protections(heap, range);
            mprotect(block, page, PROT_NONE);
            damage(range, &elsewhere, block);
            return pack(job, heap) > 0 ? 0 : 2;
        });
    };
    const auto is_refused = [](const ChildResult &child) {
        return child.aborted() && contains(child.stderr_text, "its list of protections");
    };
    const ChildResult right = of([](iso_protection_t *, iso_protection_t *, char *) {});
    INFO(right.stderr_text);
    REQUIRE(right.exited_with(0));
    REQUIRE(is_refused(of([](iso_protection_t *range, iso_protection_t *elsewhere, char *) {
        range->next = elsewhere;
    })));
    REQUIRE(is_refused(
        of([](iso_protection_t *range, iso_protection_t *, char *) { range->next = range; })));
    REQUIRE(is_refused(
        of([](iso_protection_t *range, iso_protection_t *, char *) { range->length -= 1; })));
    REQUIRE(is_refused(
        of([](iso_protection_t *range, iso_protection_t *, char *) { range->length <<= 20; })));
    REQUIRE(is_refused(of([](iso_protection_t *range, iso_protection_t *, char *block) {
        range->start = block + 16;
    })));
    REQUIRE(is_refused(
        of([](iso_protection_t *range, iso_protection_t *, char *) { range->prot = 64; })));
}
