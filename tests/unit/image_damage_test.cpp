// Images that were cut, or of which something was changed, are refused.
#include "core/checksum.h"
#include "core/image.h"
#include "tests/unit/image.hpp"
#include <fcntl.h>

TEST_CASE("image: a file that ends anywhere, or goes on, is refused with a line that says where",
          "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap();
    Model model(heap, 3);
    model.allocate_mixture();
    REQUIRE(save(job.job, folder / "image", {heap}) == ISO_OK);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    heap = nullptr;
    const uint64_t before = job.slots_free();
    const std::string whole = contents_of(folder / "image"), cut = folder / "cut";
    const auto refused = [&] {
        const ChildResult child = in_child([&] {
            Opened opened(cut);
            return opened.status == ISO_ERR_INVALID ? 0 : 1;
        });
        REQUIRE(child.exited_with(0));
        REQUIRE(contains(child.stderr_text, "ends at byte"));
        REQUIRE(line_count(child.stderr_text) == 1);
    };
    for (size_t end = 0; end < whole.size(); end += end < 200 ? 1 : end < 70000 ? 7001 : 300007) {
        INFO(end);
        write_file(cut, whole.substr(0, end));
        refused();
    }
    write_file(cut, whole.substr(0, whole.size() - 1));
    refused();
    write_file(cut, whole + '\0');
    refused();
    // and one that is cut when it is open already
    write_file(cut, whole);
    Opened opened(cut);
    REQUIRE(opened.status == ISO_OK);
    REQUIRE(truncate(cut.c_str(), static_cast<off_t>(whole.size() - 50000)) == 0);
    REQUIRE(iso_image_verify(opened.image) == ISO_ERR_INVALID);
    REQUIRE(iso_image_restore(job.job, opened.image, 0, &heap) == ISO_ERR_INVALID);
    REQUIRE(heap == nullptr);
    REQUIRE(job.slots_free() == before);
    REQUIRE(restore(job.job, folder / "image", 0, &heap) == ISO_OK);
    model.check_all();
}

TEST_CASE("image: with any byte changed is refused, and nothing has changed", "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap();
    Model model(heap, 5);
    model.allocate_mixture();
    const std::string path = folder / "image";
    REQUIRE(save(job.job, path, {heap}, "of the program") == ISO_OK);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    heap = nullptr;
    const uint64_t before = job.slots_free();
    const std::string whole = contents_of(path);
    Opened whole_image(path);
    const size_t pages = 4096, lists = pages + whole_image.info().page_bytes;
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC), quiet = open("/dev/null", O_WRONLY);
    const int loud = dup(STDERR_FILENO); // a line for each of them
    REQUIRE(fd >= 0);
    dup2(quiet, STDERR_FILENO);
    // every byte of the header and of the lists, some of the pages
    size_t wrong = SIZE_MAX;
    for (size_t at = 0; at < whole.size() && wrong == SIZE_MAX;
         at += at < pages || at >= lists ? 1 : std::min<size_t>(100003, lists - at)) {
        const char changed = static_cast<char>(whole[at] ^ 1 << at % 8);
        pwrite(fd, &changed, 1, static_cast<off_t>(at));
        if (restore(job.job, path, 0, &heap) == ISO_OK || heap != nullptr ||
            job.slots_free() != before)
            wrong = at;
        pwrite(fd, &whole[at], 1, static_cast<off_t>(at));
    }
    dup2(loud, STDERR_FILENO);
    close(loud);
    close(quiet);
    REQUIRE(wrong == SIZE_MAX);
    const ChildResult child = in_child([&] { // says where: the page, and the heap
        const size_t at = pages + (1u << 20) + 5;
        const char changed = static_cast<char>(~whole[at]);
        pwrite(fd, &changed, 1, static_cast<off_t>(at));
        Opened opened(path);
        const bool right =
            opened.status == ISO_OK && iso_image_verify(opened.image) == ISO_ERR_INVALID;
        pwrite(fd, &whole[at], 1, static_cast<off_t>(at));
        return right ? 0 : 1;
    });
    close(fd);
    REQUIRE(child.exited_with(0));
    REQUIRE(contains(child.stderr_text, "bytes " + std::to_string(pages + (1u << 20)) + " to " +
                                            std::to_string(pages + (1u << 20) + 4095) +
                                            " of the file (a page of heap 0x"));
    job.soil();
    REQUIRE(restore(job.job, path, 0, &heap) == ISO_OK);
    model.check_all();
}

TEST_CASE("image: what cannot be is refused, also where its checksums are right", "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap(), *none = nullptr;
    const std::string path = folder / "image";
    REQUIRE(save(job.job, path, {heap}) == ISO_OK);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    const std::string whole = contents_of(path);
    const auto changed = [&](const std::function<void(iso_image_t &)> &change) {
        std::string bytes = whole;
        iso_image_t image = {};
        std::memcpy(&image.header, bytes.data(), sizeof image.header);
        const size_t tables = sizeof image.header + image.header.stored_count * ISO_IMAGE_PAGE;
        std::string memory = bytes.substr(tables);
        iso_image_tables_place(&image.header, memory.data(), &image.tables);
        change(image);
        image.header.tables = iso_checksum_of(memory.data(), memory.size());
        image.header.check = iso_checksum_of(&image.header, offsetof(iso_image_header_t, check));
        std::memcpy(bytes.data(), &image.header, sizeof image.header);
        write_file(path, bytes.replace(tables, memory.size(), memory));
        return restore(job.job, path, 0, &none);
    };
    REQUIRE(changed([](iso_image_t &image) { image.header.base += 4096; }) == ISO_ERR_INVALID);
    REQUIRE(changed([](iso_image_t &image) { image.header.space_size += 4096; }) ==
            ISO_ERR_INVALID);
    REQUIRE(changed([](iso_image_t &image) { image.header.space_size = -ISO_SLOT_SIZE; }) ==
            ISO_ERR_INVALID);
    REQUIRE(changed([](iso_image_t &image) {
                image.tables.extents[0].count = 1 | ISO_EXTENT_RUN; // a run is of two at least
            }) == ISO_ERR_INVALID);
    REQUIRE(none == nullptr);
    REQUIRE(changed([](iso_image_t &) {}) == ISO_OK);
}
