// Images: how little of them is read and made resident, and what is left when a heap cannot come out.
#include "core/checksum.h"
#include "core/image.h"
#include "core/os.h"
#include "core/shared.h"
#include "tests/unit/allocator.hpp"
#include "tests/unit/no_memory.hpp"
#include "tests/unit/support.hpp"
#include <fcntl.h>
#include <fstream>
#include <isomalloc/checkpoint.h>
#include <sstream>
#include <sys/mman.h>

namespace {

// A file that is removed at the end of the scope.
class File {
  public:
    File()
    {
        char name[] = "/tmp/iso-image-set-XXXXXX";
        const int fd = mkstemp(name);
        REQUIRE(fd >= 0);
        close(fd);
        path_ = name;
    }
    ~File()
    {
        unlink(path_.c_str());
    }
    File(const File &) = delete;
    File &operator=(const File &) = delete;
    operator const char *() const
    {
        return path_.c_str();
    }
    [[nodiscard]] std::string bytes() const
    {
        std::ifstream file(path_, std::ios::binary);
        std::ostringstream all;
        all << file.rdbuf(); // an iterator takes seconds under ASan
        return all.str();
    }
    void write(const std::string &bytes) const
    {
        std::ofstream file(path_, std::ios::binary | std::ios::trunc);
        file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        REQUIRE(file.flush());
    }

  private:
    std::string path_;
};

iso_status_t save(const Job &job, const File &file, iso_heap_t *heap)
{
    return iso_checkpoint(job.job, file, &heap, 1, nullptr);
}

iso_status_t restore(const Job &job, const File &file, iso_heap_t **heap_p, bool map = false)
{
    iso_image_t *image = nullptr;
    iso_status_t status = iso_image_open(file, &image);
    if (status == ISO_OK)
        status = (map ? iso_image_map : iso_image_restore)(job.job, image, 0, heap_p);
    iso_image_close(image);
    return status;
}

uint64_t slots_free(const Job &job)
{
    iso_stats_t stats;
    iso_stats(job.job, &stats);
    return stats.slots_free;
}

size_t resident(const void *block, size_t size)
{
    size_t sum = 0;
    const uintptr_t first = reinterpret_cast<uintptr_t>(block) & ~(ISO_SLOT_SIZE - 1);
    for (size_t at = 0; at < size; at += ISO_SLOT_SIZE)
        sum += iso_os_resident(reinterpret_cast<void *>(first + at), ISO_SLOT_SIZE); // NOLINT
    return sum;
}

// Uses `size` bytes of addresses for something else, and gives them back warm.
void soil(const Job &job, size_t size)
{
    iso_heap_t *other = job.heap();
    std::memset(iso_malloc(other, size), 0xff, size);
    REQUIRE(iso_heap_destroy(other) == ISO_OK);
}

uint64_t read_so_far()
{
    std::ifstream io("/proc/self/io");
    std::string name;
    uint64_t count = 0;
    io >> name >> count;
    REQUIRE(name == "rchar:");
    return count;
}

} // namespace

TEST_CASE("image: pages of zeros, many in a row, are zeros when they come out, and not resident",
          "[image]")
{
    const size_t large = 32u << 20, page = 4096;
    for (const char *backing : {"private", "anon"}) {
        INFO(backing);
        ScopedEnv env("ISO_BACKING", backing);
        const File file;
        Job job;
        iso_heap_t *heap = job.heap(), *const address = heap;
        auto *bytes = static_cast<unsigned char *>(iso_calloc(heap, 1, large));
        // data of all lengths between rows of zeros of all lengths
        std::vector<size_t> data;
        for (size_t at = 3 * page, row = 1; at < large - 3u * 256 * page;
             at += row * page * (row % 5 == 0 ? 20 : 1), row++)
            for (size_t i = 0; i < row % 7 + (row % 13 == 0 ? 300 : 1); i++, at += page)
                data.push_back(at + i % page);
        for (const size_t at : data)
            bytes[at] = 7;
        REQUIRE(data.size() * page < large / 4);
        REQUIRE(save(job, file, heap) == ISO_OK);
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        soil(job, large + (4u << 20));
        REQUIRE(restore(job, file, &heap) == ISO_OK);
        REQUIRE(heap == address);
        const size_t there = resident(bytes, large);
        size_t next = 0;
        for (size_t at = 0; at < large; at += page) {
            std::vector<unsigned char> wanted(page);
            for (; next < data.size() && data[next] < at + page; next++)
                wanted[data[next] - at] = 7;
            if (std::memcmp(bytes + at, wanted.data(), page) != 0)
                FAIL("the page at " << at);
        }
        REQUIRE(there >= data.size() * page);
        REQUIRE(there < large / 2);
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);

        std::string damaged = file.bytes();
        iso_image_t *image = nullptr;
        REQUIRE(iso_image_open(file, &image) == ISO_OK);
        uint64_t last = 0; // of a page that is a hole in the file, in the last long row
        for (uint64_t i = 0; i < image->header.page_count; i++)
            if (image->tables.pages[i] == iso_checksum_of(std::string(page, 0).data(), page))
                last = page + i * page;
        iso_image_close(image);
        damaged[last + 9] = 1;
        file.write(damaged);
        const uint64_t before = slots_free(job);
        heap = nullptr;
        REQUIRE(restore(job, file, &heap) == ISO_ERR_INVALID);
        REQUIRE(heap == nullptr);
        REQUIRE(slots_free(job) == before);
    }
}

TEST_CASE("image: which addresses it wants is known from some bytes of it", "[image]")
{
    const File file;
    Job job;
    iso_heap_t *heap = job.heap();
    const size_t large = 16u << 20;
    std::memset(iso_malloc(heap, large), 1, large);
    REQUIRE(save(job, file, heap) == ISO_OK);
    const iso_logger_t logger = iso_logger_default();
    iso_image_t *image = nullptr;
    const uint64_t before = read_so_far();
    REQUIRE(iso_image_open_lists(&logger, file, &image) == ISO_OK);
    REQUIRE(read_so_far() - before < 16384);
    iso_image_heap_t wanted;
    REQUIRE(iso_image_heap(image, 0, &wanted) == ISO_OK);
    REQUIRE(wanted.heap == heap);
    REQUIRE(wanted.slots > large / ISO_SLOT_SIZE);
    REQUIRE(iso_image_complete(image, &logger) == ISO_OK);
    REQUIRE(iso_image_verify(image) == ISO_OK);
    const uint64_t lists = 4096 + image->header.stored_count * 4096;
    const uint64_t pages = lists + iso_image_lists_bytes(&image->header);
    iso_image_close(image);

    const std::string whole = file.bytes();
    for (uint64_t at = lists; at < pages + 100; at++) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ 1);
        file.write(damaged);
        image = nullptr;
        const iso_status_t status = iso_image_open_lists(&logger, file, &image);
        REQUIRE(status == (at < pages ? ISO_ERR_INVALID : ISO_OK));
        if (image != nullptr)
            REQUIRE(iso_image_complete(image, &logger) == ISO_ERR_INVALID);
        iso_image_close(image);
        at += at < pages ? 0 : 13;
    }
}

#ifdef CAN_FAIL_ALLOCATION
TEST_CASE("image: a heap that there is no memory for when its pages have come leaves plain memory",
          "[image]")
{
    const File file;
    iso_heap_t *heap = nullptr, *address = nullptr;
    {
        Job job(256u << 20, ISO_HEAP_SHARED);
        address = heap = job.heap();
        std::memset(iso_malloc(heap, 3000000), 1, 3000000);
        REQUIRE(save(job, file, heap) == ISO_OK);
    }
    const std::string bytes = file.bytes();
    for (const bool map : {false, true}) {
        INFO(map);
        heap = nullptr;
        Job job(256u << 20, ISO_HEAP_SHARED); // which has no lock of an earlier heap's
        const uint64_t before = slots_free(job);
        no_memory_for = sizeof(iso_shared_t);
        const iso_status_t status = restore(job, file, &heap, map);
        no_memory_for = 0;
        REQUIRE(status == ISO_ERR_NO_MEMORY);
        REQUIRE(heap == nullptr);
        REQUIRE(slots_free(job) == before);
        std::ifstream maps("/proc/self/maps");
        const std::string mapped(std::istreambuf_iterator<char>(maps), {});
        REQUIRE_FALSE(contains(mapped, static_cast<const char *>(file)));
        soil(job, 4000000);
        REQUIRE(file.bytes() == bytes);
        REQUIRE(restore(job, file, &heap, map) == ISO_OK);
        REQUIRE(heap == address);
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    }
}
#endif

TEST_CASE("image: zeros that come out where another image was mapped are zeros", "[image]")
{
    const File zeros, others;
    const size_t large = 4u << 20;
    ScopedEnv backing("ISO_BACKING", "anon");
    Job job;
    iso_heap_t *heap = job.heap();
    auto *block = static_cast<unsigned char *>(iso_calloc(heap, 1, large));
    REQUIRE(save(job, zeros, heap) == ISO_OK);
    std::memset(block, 7, large);
    REQUIRE(save(job, others, heap) == ISO_OK);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    REQUIRE(restore(job, others, &heap, true) == ISO_OK);
    REQUIRE(block[large / 2] == 7);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    REQUIRE(restore(job, zeros, &heap) == ISO_OK);
    for (size_t at = 0; at < large; at++)
        if (block[at] != 0)
            FAIL("byte " << at);
}
