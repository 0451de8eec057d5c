// Increments: images that have only the pages that differ from those of an earlier one.
#include "tests/unit/image.hpp"

namespace {

// A heap of some tens of pages.
Model of_pages(iso_heap_t *heap)
{
    Model model(heap, 1);
    for (int i = 0; i < 40; i++)
        model.allocate(5000);
    return model;
}

} // namespace

TEST_CASE("image: an increment with 1 % of the pages written takes at most 5 % of the bytes, and a "
          "chain of them restores what was there each time",
          "[image]")
{
    Folder folder;
    Job job;
    const size_t large = (64u << 20) / scale, pages = large / 4096;
    iso_heap_t *heap = job.heap(), *other = job.heap(), *const address = heap;
    auto *bytes = static_cast<unsigned char *>(iso_malloc(heap, large));
    std::mt19937_64 random(1);
    for (size_t i = 0; i < large / 8; i++)
        reinterpret_cast<uint64_t *>(bytes)[i] = random();
    using Blocks = std::map<unsigned char *, unsigned char>; // small ones, and their first bytes
    std::vector<std::vector<unsigned char>> then;
    std::vector<Blocks> blocks;
    Blocks now;
    const auto name = [&](size_t i) { return folder / ("image." + std::to_string(i)); };
    for (size_t i = 0; i < 6; i++) {
        const std::string since = i > 0 ? name(i - 1) : "";
        REQUIRE(save(job.job, name(i), {other, heap}, "", i > 0 ? since.c_str() : nullptr) ==
                ISO_OK);
        then.emplace_back(bytes, bytes + large);
        blocks.push_back(now);
        Opened full(name(0)), opened(name(i));
        REQUIRE(opened.info().parents <= i); // those that have a page of it
        REQUIRE((opened.info().parents > 0) == (i > 0));
        REQUIRE(iso_image_verify(opened.image) == ISO_OK);
        if (i == 1) { // nothing was written but what a checkpoint itself may
            REQUIRE(opened.info().bytes * 100 <= full.info().bytes);
        } else if (i > 1) {
            REQUIRE(opened.info().bytes * 20 <= full.info().bytes);
        }
        for (size_t page = 0; i > 0 && page < pages / 100; page++)
            bytes[random() % large] ^= 1;
        for (int step = 0; i > 1 && step < 20; step++) { // blocks come and go, too
            auto *block = static_cast<unsigned char *>(iso_malloc(heap, 100 + random() % 3000));
            now[block] = *block = static_cast<unsigned char>(random());
            if (step % 3 == 0) {
                iso_free(now.begin()->first);
                now.erase(now.begin());
            }
        }
    }
    for (const size_t i : {5u, 0u, 3u, 4u, 1u, 2u}) {
        INFO(i);
        if (heap != nullptr)
            REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        heap = nullptr;
        job.soil();
        REQUIRE(restore(job.job, name(i), 1, &heap) == ISO_OK);
        REQUIRE(heap == address);
        REQUIRE(std::memcmp(bytes, then[i].data(), large) == 0);
        for (const auto &[block, fill] : blocks[i])
            REQUIRE(*block == fill);
        iso_heap_stats_t stats; // which also looks for damage
        REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
        REQUIRE(stats.blocks == 1 + blocks[i].size());
    }
}

TEST_CASE("image: an increment whose parent is gone, replaced or damaged is refused; nor may it "
          "replace its parent",
          "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap();
    Model model = of_pages(heap);
    const std::string first = folder / "first", second = folder / "second";
    REQUIRE(save(job.job, first, {heap}) == ISO_OK);
    REQUIRE(save(job.job, second, {heap}, "", first.c_str()) == ISO_OK);
    REQUIRE(save(job.job, first, {heap}, "", first.c_str()) == ISO_ERR_INVALID);
    REQUIRE(save(job.job, first, {heap}, "", second.c_str()) == ISO_ERR_INVALID);
    REQUIRE(save(job.job, "/tmp/elsewhere", {heap}, "", first.c_str()) == ISO_ERR_INVALID);
    REQUIRE(save(job.job, folder / "third", {heap}, "", "/tmp/no such image") == ISO_ERR_SYSTEM);
    model.check_all();
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    heap = nullptr;
    const std::string whole = contents_of(first);
    const auto says = [&](const std::string &line) {
        const ChildResult child = in_child([&] {
            Opened opened(second);
            return opened.status == ISO_OK && iso_image_verify(opened.image) == ISO_OK ? 1 : 0;
        });
        REQUIRE(child.exited_with(0));
        REQUIRE(contains(child.stderr_text, line));
        REQUIRE(restore(job.job, second, 0, &heap) != ISO_OK);
        REQUIRE(heap == nullptr);
    };
    std::string damaged = whole;
    damaged[10000] = static_cast<char>(~damaged[10000]);
    write_file(first, damaged);
    says("bytes 8192 to 12287 of first (a page of heap 0x");
    damaged = whole;
    damaged[100] = static_cast<char>(~damaged[100]);
    write_file(first, damaged);
    says("is an increment to first in the same folder, which was replaced since, or is damaged");
    write_file(first, whole.substr(0, 9000));
    says("first ends at byte 9000");
    unlink(first.c_str());
    says("is an increment to first in the same folder, which cannot be read");
    write_file(first, whole);
    REQUIRE(restore(job.job, second, 0, &heap) == ISO_OK);
    model.check_all();
}

TEST_CASE("image: an increment knows its parent by the name behind a symbolic link, and never "
          "replaces it, whatever that is called",
          "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap();
    Model model = of_pages(heap);
    const std::string first = folder / "first", second = folder / "second",
                      third = folder / "third", latest = folder / "latest";
    const auto verified = [](const std::string &path) {
        Opened opened(path);
        return opened.status == ISO_OK ? iso_image_verify(opened.image) : opened.status;
    };
    REQUIRE(save(job.job, first, {heap}) == ISO_OK);
    REQUIRE(symlink("first", latest.c_str()) == 0);
    REQUIRE(save(job.job, second, {heap}, "", latest.c_str()) == ISO_OK);
    REQUIRE(Opened(second).info().parents == 1);
    REQUIRE(unlink(latest.c_str()) == 0); // moved on, as it is each time
    REQUIRE(symlink("second", latest.c_str()) == 0);
    REQUIRE(verified(second) == ISO_OK);
    REQUIRE(verified(latest) == ISO_OK);
    REQUIRE(save(job.job, second, {heap}, "", latest.c_str()) == ISO_ERR_INVALID);
    REQUIRE(save(job.job, first, {heap}, "", latest.c_str()) == ISO_ERR_INVALID);
    { // a link in another folder: its parents are where the image itself is
        Folder other;
        REQUIRE(symlink(second.c_str(), (other / "link").c_str()) == 0);
        REQUIRE(verified(other / "link") == ISO_OK);
        REQUIRE(save(job.job, third, {heap}, "", (other / "link").c_str()) == ISO_OK);
        REQUIRE(save(job.job, other / "third", {heap}, "", (other / "link").c_str()) ==
                ISO_ERR_INVALID);
        REQUIRE(verified(third) == ISO_OK);
        // the folder by another name
        REQUIRE(symlink(folder.path().c_str(), (other / "folder").c_str()) == 0);
        REQUIRE(save(job.job, other / "folder/first", {heap}, "", third.c_str()) ==
                ISO_ERR_INVALID);
        REQUIRE(save(job.job, other / "folder/fourth", {heap}, "", third.c_str()) == ISO_OK);
        REQUIRE(verified(folder / "fourth") == ISO_OK);
    }
    REQUIRE(link(first.c_str(), (folder / "hard").c_str()) == 0);
    REQUIRE(save(job.job, folder / "hard", {heap}, "", third.c_str()) == ISO_ERR_INVALID);
    // what the new one is called until it is whole
    REQUIRE(rename(third.c_str(), (third + ".part").c_str()) == 0);
    REQUIRE(save(job.job, third, {heap}, "", (third + ".part").c_str()) == ISO_ERR_INVALID);
    REQUIRE(verified(third + ".part") == ISO_OK);
    REQUIRE(verified(first) == ISO_OK);
    model.check_all();
}

TEST_CASE("image: a chain ends with an image of all pages when it is as long as it may be",
          "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap();
    auto *bytes = static_cast<unsigned char *>(iso_malloc(heap, 64 * 4096));
    std::memset(bytes, 1, 64 * 4096);
    uint32_t most = 0, last = 0;
    std::string since;
    for (int i = 0; i < 40; i++) {
        const std::string path = folder / std::to_string(i);
        bytes[(i % 64) * 4096] ^= 1;
        REQUIRE(save(job.job, path, {heap}, "", i > 0 ? since.c_str() : nullptr) == ISO_OK);
        Opened opened(path);
        REQUIRE(iso_image_verify(opened.image) == ISO_OK);
        last = opened.info().parents;
        most = std::max(most, last);
        since = path;
    }
    REQUIRE(most == 32);
    REQUIRE(last == 6); // from no. 33 on again
}
