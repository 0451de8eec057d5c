// Images that were cut, or of which something was changed, are refused.
#include "core/checksum.h"
#include "core/image.h"
#include "tests/unit/image.hpp"
#include <fcntl.h>
#include <sys/mman.h>

namespace {

// What the process says on standard error, taken line by line; nothing of it comes out.
class Said {
  public:
    Said() : file_(memfd_create("said", MFD_CLOEXEC)), loud_(dup(STDERR_FILENO))
    {
        REQUIRE(file_ >= 0);
        dup2(file_, STDERR_FILENO);
    }
    ~Said()
    {
        dup2(loud_, STDERR_FILENO);
        close(loud_);
        close(file_);
    }
    Said(const Said &) = delete;
    Said &operator=(const Said &) = delete;
    std::string take()
    {
        char text[1000];
        const ssize_t length = pread(file_, text, sizeof text, 0);
        ftruncate(file_, 0);
        lseek(STDERR_FILENO, 0, SEEK_SET);
        return {text, length > 0 ? static_cast<size_t>(length) : 0};
    }

  private:
    int file_, loud_;
};

// A line that ends there, which says of some bytes, this one among them, that they are not as they were.
bool names_byte(const std::string &text, size_t at)
{
    const size_t bytes = text.find("bytes "), to = text.find(" to ", bytes);
    return line_count(text) == 1 && bytes != std::string::npos && to != std::string::npos &&
           std::stoull(text.substr(bytes + 6)) <= at && std::stoull(text.substr(to + 4)) >= at;
}

// A heap of a few pages, and an image of it that is as small as one gets.
struct Small {
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap();
    unsigned char *block = static_cast<unsigned char *>(iso_calloc(heap, 1, 9000));
    std::string path = folder / "image";

    Small()
    {
        for (size_t i = 0; i < 9000; i++)
            block[i] = static_cast<unsigned char>(i * 7 >> 3);
    }
    void destroy()
    {
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        heap = nullptr;
    }
    // The process is as it was: nothing has come out, and no slot was used.
    [[nodiscard]] bool is_unchanged(uint64_t before) const
    {
        return heap == nullptr && job.slots_free() == before;
    }
};

} // namespace

TEST_CASE("image: cut at any byte a file is refused with a line that says where, and nothing has "
          "changed",
          "[image]")
{
    Small small;
    REQUIRE(save(small.job.job, small.path, {small.heap}, "of the program") == ISO_OK);
    small.destroy();
    const uint64_t before = small.job.slots_free();
    const std::string whole = contents_of(small.path);
    size_t wrong = SIZE_MAX, end = whole.size();
    std::string line;
    {
        Said said;
        while (end-- > 0 && wrong == SIZE_MAX) {
            const bool cut = truncate(small.path.c_str(), static_cast<off_t>(end)) == 0;
            const iso_status_t status = restore(small.job.job, small.path, 0, &small.heap);
            line = said.take();
            if (!cut || status != ISO_ERR_INVALID || !small.is_unchanged(before) ||
                line_count(line) != 1 ||
                !(contains(line, "ends at byte " + std::to_string(end) + ",") ||
                  contains(line, "ends at byte " + std::to_string(end) + ":")))
                wrong = end;
        }
    }
    INFO(line);
    REQUIRE(wrong == SIZE_MAX);
    write_file(small.path, whole);
    REQUIRE(restore(small.job.job, small.path, 0, &small.heap) == ISO_OK);
}

TEST_CASE("image: with any byte of a file changed, by a bit or wholly, it is refused with a line "
          "that says where, and nothing has changed",
          "[image]")
{
    for (const bool increment : {false, true}) {
        INFO(increment);
        Small small;
        const std::string parent = small.folder / "parent";
        if (increment) {
            REQUIRE(save(small.job.job, parent, {small.heap}) == ISO_OK);
            small.block[4500] ^= 1;
        }
        REQUIRE(save(small.job.job, small.path, {small.heap}, "of the program",
                     increment ? parent.c_str() : nullptr) == ISO_OK);
        small.destroy();
        const uint64_t before = small.job.slots_free();
        const std::string whole = contents_of(small.path);
        const int fd = open(small.path.c_str(), O_RDWR | O_CLOEXEC);
        size_t wrong = SIZE_MAX;
        std::string line;
        {
            Said said;
            // a sanitizer looks at a part of them
            for (size_t try_ = 0; try_ < 2 * whole.size() && wrong == SIZE_MAX;
                 try_ += scale == 1 ? 1 : 7) {
                const size_t at = try_ / 2;
                const auto mask = static_cast<char>(try_ % 2 == 0 ? 1 << at % 8 : 0xff);
                const char changed = static_cast<char>(whole[at] ^ mask);
                const bool done = pwrite(fd, &changed, 1, static_cast<off_t>(at)) == 1;
                const iso_status_t status = restore(small.job.job, small.path, 0, &small.heap);
                line = said.take();
                if (!done || (status != ISO_ERR_INVALID && status != ISO_ERR_VERSION) ||
                    !small.is_unchanged(before) || !names_byte(line, at))
                    wrong = at;
                pwrite(fd, &whole[at], 1, static_cast<off_t>(at));
            }
        }
        close(fd);
        INFO(line);
        REQUIRE(wrong == SIZE_MAX);
        REQUIRE(restore(small.job.job, small.path, 0, &small.heap) == ISO_OK);
        REQUIRE(small.block[8999] == static_cast<unsigned char>(8999 * 7 >> 3));
    }
}

TEST_CASE(
    "image: with any byte of an increment's parent changed, or the parent cut anywhere, it is "
    "refused or what comes out is right",
    "[image]")
{
    Small small;
    const std::string parent = small.folder / "parent";
    REQUIRE(save(small.job.job, parent, {small.heap}) == ISO_OK);
    small.block[4500] ^= 1;
    REQUIRE(save(small.job.job, small.path, {small.heap}, "", parent.c_str()) == ISO_OK);
    const std::vector<unsigned char> then(small.block, small.block + 9000);
    small.destroy();
    const uint64_t before = small.job.slots_free();
    const std::string whole = contents_of(parent);
    const int fd = open(parent.c_str(), O_RDWR | O_CLOEXEC);
    const size_t step = scale == 1 ? 1 : 7; // a sanitizer looks at a part of them
    size_t refused = 0;
    // Refused with nothing changed, or there as it was.
    const auto is_right = [&](const std::function<std::string()> &line) {
        const iso_status_t status = restore(small.job.job, small.path, 0, &small.heap);
        const std::string text = line();
        if (status != ISO_OK) {
            refused++;
            return status == ISO_ERR_INVALID && small.is_unchanged(before) &&
                   contains(text, "parent");
        }
        const bool right = std::memcmp(small.block, then.data(), then.size()) == 0;
        const bool ended = iso_heap_destroy(small.heap) == ISO_OK;
        small.heap = nullptr;
        return right && ended && text.empty();
    };
    size_t wrong = SIZE_MAX;
    {
        Said said;
        const auto line = [&] { return said.take(); };
        for (size_t at = 0; at < whole.size() && wrong == SIZE_MAX; at += step) {
            const char changed = static_cast<char>(whole[at] ^ 1 << at % 8);
            pwrite(fd, &changed, 1, static_cast<off_t>(at));
            if (!is_right(line))
                wrong = at;
            pwrite(fd, &whole[at], 1, static_cast<off_t>(at));
        }
        REQUIRE(refused > 2 * 4096u / step); // its header, and a page at least
        REQUIRE(refused < whole.size() / step);
        const size_t before_cuts = refused;
        size_t cuts = 0;
        for (size_t end = whole.size(); end > 0 && wrong == SIZE_MAX; cuts++) {
            end -= std::min(end, step);
            if (ftruncate(fd, static_cast<off_t>(end)) != 0 || !is_right(line))
                wrong = end;
        }
        REQUIRE(refused == before_cuts + cuts);
    }
    close(fd);
    REQUIRE(wrong == SIZE_MAX);
}

TEST_CASE("image: an increment whose parent is cut is not opened, mapped, or made the parent of "
          "another",
          "[image]")
{
    ScopedEnv backing("ISO_BACKING", "anon");
    Small small;
    const std::string parent = small.folder / "parent", child = small.folder / "child";
    REQUIRE(save(small.job.job, parent, {small.heap}) == ISO_OK);
    small.block[0] ^= 1;
    REQUIRE(save(small.job.job, small.path, {small.heap}, "", parent.c_str()) == ISO_OK);
    const off_t whole = static_cast<off_t>(contents_of(parent).size());
    Opened opened(small.path);
    REQUIRE(opened.status == ISO_OK);
    for (const off_t end : {off_t{4096}, off_t{5000}, whole - 1}) {
        INFO(end);
        REQUIRE(truncate(parent.c_str(), end) == 0);
        REQUIRE(Opened(small.path).status == ISO_ERR_INVALID);
        REQUIRE(save(small.job.job, child, {small.heap}, "", small.path.c_str()) ==
                ISO_ERR_INVALID);
        REQUIRE(small.folder.files().count("child") == 0);
    }
    small.destroy();
    const uint64_t before = small.job.slots_free();
    REQUIRE(iso_image_map(small.job.job, opened.image, 0, &small.heap) == ISO_ERR_INVALID);
    REQUIRE(small.is_unchanged(before));
    REQUIRE(iso_image_restore(small.job.job, opened.image, 0, &small.heap) == ISO_ERR_INVALID);
    REQUIRE(small.is_unchanged(before));
    small.job.soil();
}

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
    // pages that are no pages of the file: known when it is opened, so that nobody maps them
    REQUIRE(changed([](iso_image_t &image) {
                image.tables.runs[0].offset += image.header.stored_count * ISO_IMAGE_PAGE;
            }) == ISO_ERR_INVALID);
    REQUIRE(Opened(path).status == ISO_ERR_INVALID);
    REQUIRE(changed([](iso_image_t &image) { image.tables.runs[0].offset = 0; }) ==
            ISO_ERR_INVALID);
    REQUIRE(Opened(path).status == ISO_ERR_INVALID);
    REQUIRE(none == nullptr);
    REQUIRE(changed([](iso_image_t &) {}) == ISO_OK);
}
