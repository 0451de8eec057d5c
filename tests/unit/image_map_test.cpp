// Heaps that are mapped copy-on-write from an image in the place of being read.
#include "core/image.h"
#include "tests/unit/image.hpp"

TEST_CASE("image: mapped, heaps are what they were, and what is written to them is not in the file",
          "[image]")
{
    Folder folder;
    for (const uint32_t flags : {0u, static_cast<uint32_t>(ISO_HEAP_SHARED)}) {
        Job job(256u << 20, flags);
        const uint64_t before = job.slots_free();
        iso_heap_t *heap = job.heap(), *const address = heap;
        REQUIRE(std::string(iso_backing_name(job.job)) == "anon");
        Model model(heap, 3);
        for (int i = 0; i < 2000 / scale; i++)
            model.step(64u << 10);
        model.allocate(3000000);
        REQUIRE(save(job.job, folder / "image", {heap}) == ISO_OK);
        const std::string bytes = contents_of(folder / "image");
        for (int again = 0; again < 3; again++) {
            Model now = model;
            REQUIRE(iso_heap_destroy(heap) == ISO_OK);
            job.soil();
            Opened opened(folder / "image");
            REQUIRE(iso_image_map(job.job, opened.image, 0, &heap) == ISO_OK);
            REQUIRE(heap == address);
            iso_heap_t *none = nullptr;
            REQUIRE(iso_image_map(job.job, opened.image, 0, &none) == ISO_ERR_BUSY);
            now.check_all();
            for (int i = 0; i < 2000 / scale; i++) // grows, shrinks, gives pages back
                now.step(64u << 10);
            now.check_all();
            REQUIRE(contents_of(folder / "image") == bytes);
            REQUIRE(iso_image_verify(opened.image) == ISO_OK);
        }
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        REQUIRE(job.slots_free() == before);
    }
}

namespace {

// Is the address in a mapping that core dumps leave out?
bool is_not_dumped(const void *address)
{
    std::ifstream maps("/proc/self/smaps");
    const auto wanted = reinterpret_cast<uintptr_t>(address);
    bool in = false;
    for (std::string line; std::getline(maps, line);) {
        uintptr_t start = 0, end = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx ", &start, &end) == 2)
            in = start <= wanted && wanted < end;
        else if (in && line.rfind("VmFlags:", 0) == 0)
            return contains(line, " dd");
    }
    return false;
}

} // namespace

TEST_CASE("image: what is mapped is left out of core dumps as the rest of the space, also when it "
          "is plain memory again",
          "[image]")
{
    for (const char *dumped : {"n", "y"}) {
        ScopedEnv backing("ISO_BACKING", "anon"), dump("ISO_CORE_DUMP", dumped);
        const bool left_out = *dumped == 'n';
        Folder folder;
        Job job;
        iso_heap_t *heap = job.heap();
        void *block = iso_malloc(heap, 100000);
        std::memset(block, 1, 100000);
        REQUIRE(is_not_dumped(block) == left_out);
        REQUIRE(save(job.job, folder / "image", {heap}) == ISO_OK);
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        Opened opened(folder / "image");
        REQUIRE(iso_image_map(job.job, opened.image, 0, &heap) == ISO_OK);
        REQUIRE(is_not_dumped(block) == left_out);
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        REQUIRE(truncate((folder / "image").c_str(), 20000) == 0);
        REQUIRE(iso_image_map(job.job, opened.image, 0, &heap) == ISO_ERR_INVALID);
        REQUIRE(is_not_dumped(block) == left_out);
    }
}

TEST_CASE(
    "image: mapped with its first page damaged is refused, and its addresses are plain memory",
    "[image]")
{
    Folder folder;
    Job job;
    const uint64_t before = job.slots_free();
    iso_heap_t *heap = job.heap(), *const address = heap;
    std::memset(iso_malloc(heap, 100000), 1, 100000);
    REQUIRE(save(job.job, folder / "image", {heap}) == ISO_OK);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    std::string bytes = contents_of(folder / "image");
    Opened opened(folder / "image");
    const uint64_t page = opened.image->tables.runs[0].offset;
    for (size_t i = 0; i < 4096; i++)
        bytes[page + i] = 0;
    write_file(folder / "image", bytes); // the same file, as it must not be done
    heap = nullptr;
    REQUIRE(iso_image_map(job.job, opened.image, 0, &heap) != ISO_OK);
    REQUIRE(heap == nullptr);
    REQUIRE(job.slots_free() == before);
    job.soil();
    heap = job.heap();
    REQUIRE(heap == address);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    REQUIRE(contents_of(folder / "image") == bytes);
}
