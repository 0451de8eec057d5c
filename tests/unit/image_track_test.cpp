// Increments with ISO_TRACK_WRITES: whatever happens to a page between two images, the second has what was there, although pages that
// the kernel has seen no write to are not read for it.
#include "tests/unit/image.hpp"
#include <cstdarg>
#include <fcntl.h>
#include <isomalloc/stack.h>
#include <sstream>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

// Linux as it was before 2026: a scan for pages that were written lists nothing that has no page table (2 MiB that were given back
// whole), nor protects it. Newer ones do, and have that in their stable series. This scan leaves out all that has no page.
static bool older_kernel = false;

extern "C" int ioctl(int fd, unsigned long request, ...) noexcept
{
    va_list arguments;
    va_start(arguments, request);
    auto *scan = va_arg(arguments, uint64_t *);
    va_end(arguments);
    constexpr unsigned long pagemap_scan = _IOC(_IOC_READ | _IOC_WRITE, 'f', 16, 96);
    constexpr uint64_t written = 1u << 1, present = 1u << 3, swapped = 1u << 4;
    if (older_kernel && request == pagemap_scan && scan[9] == written) // what a page must be
        scan[10] = present | swapped;                                  // one of these, too
    return static_cast<int>(syscall(SYS_ioctl, fd, request, scan));
}

namespace {

const size_t large = 8u << 20, page = 4096;

// What an image says of pages that were not read.
struct Passed {
    uint64_t pages = 0, passed = 0;
};

// Of each image, in their order.
std::vector<Passed> passed_in(const std::string &text)
{
    std::vector<Passed> all;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        const size_t end = line.find(" were not read"), at = line.rfind("pages ", end),
                     of = line.rfind(": of ", end);
        if (end != std::string::npos && at != std::string::npos && of != std::string::npos)
            all.push_back({std::stoull(line.substr(of + 5)), std::stoull(line.substr(at + 6))});
    }
    return all;
}

bool is_told(const std::string &text)
{
    if (!contains(text, "what is written cannot be told"))
        return true;
    WARN("left out: this kernel does not tell what is written");
    return false;
}

// ---- heaps that live for a while, in a child: no assertions ----

using Contents = std::map<unsigned char *, std::vector<unsigned char>>;

// A heap and where its blocks are.
struct Held {
    iso_heap_t *heap = nullptr;
    std::map<unsigned char *, size_t> blocks;
    iso_stack_t *stack = nullptr;

    [[nodiscard]] Contents contents() const
    {
        Contents now;
        for (const auto &[block, size] : blocks)
            now[block].assign(block, block + size);
        if (stack != nullptr) {
            auto *sp = static_cast<unsigned char *>(stack->sp);
            now[sp].assign(sp, reinterpret_cast<unsigned char *>(stack));
        }
        return now;
    }
};

class Life {
  public:
    Life(iso_job_t *job, unsigned seed) : job_(job), random_(seed)
    {
    }
    bool begin(Held &held)
    {
        held = {};
        if (iso_heap_create(job_, &held.heap) != ISO_OK)
            return false;
        for (const size_t size : {large, size_t{3000000}, size_t{70000}, size_t{5000}, size_t{40}})
            if (!add(held, iso_malloc(held.heap, size), size))
                return false;
        held.stack = iso_stack_create(held.heap, 256u << 10, "a stack");
        return held.stack != nullptr && move_stack(held);
    }
    // false: something cannot be done that can. Most steps change a few pages.
    bool step(Held &held)
    {
        const auto [block, size] =
            *std::next(held.blocks.begin(), static_cast<long>(random_() % held.blocks.size()));
        const size_t length = std::min<size_t>(size, 1 + random_() % 9000);
        unsigned char *at = block + random_() % (size - length + 1);
        switch (random_() % 12) {
        case 0: { // a block goes; another one, or none
            iso_free(block);
            held.blocks.erase(block);
            const size_t other = some_size();
            return random_() % 4 == 0 && !held.blocks.empty()
                       ? true
                       : add(held, iso_malloc(held.heap, other), other);
        }
        case 1: {
            const size_t other = some_size();
            return add(held, iso_malloc(held.heap, other), other);
        }
        case 2: {
            const size_t other = some_size();
            auto *zeros = static_cast<unsigned char *>(iso_calloc(held.heap, 1, other));
            if (zeros == nullptr)
                return false;
            held.blocks[zeros] = other;
            return true;
        }
        case 3: { // grows or shrinks
            const size_t other = some_size();
            auto *moved = static_cast<unsigned char *>(iso_realloc(held.heap, block, other));
            held.blocks.erase(block);
            if (moved == nullptr)
                return false;
            held.blocks[moved] = other;
            for (size_t i = size; i < other; i++)
                moved[i] = 3;
            return true;
        }
        case 4: { // as loopback puts to anonymous memory
            std::vector<unsigned char> bytes(length, static_cast<unsigned char>(random_()));
            iovec from = {bytes.data(), length}, to = {at, length};
            return process_vm_writev(getpid(), &from, 1, &to, 1, 0) == static_cast<ssize_t>(length);
        }
        case 5: { // the kernel writes
            const int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
            const bool read_all = read(fd, at, length) == static_cast<ssize_t>(length);
            close(fd);
            return read_all;
        }
        case 6: { // copied on write from here on: both write
            const pid_t child = fork();
            if (child == 0) {
                std::memset(at, 0x55, length);
                _exit(*at == 0x55 ? 0 : 1);
            }
            at[0] ^= 1;
            int status = 1;
            return waitpid(child, &status, 0) == child && status == 0;
        }
        case 7: // the program gives pages back
        case 10:
            return give_back(block, size);
        case 8:
            return move_stack(held);
        case 9: // another heap, at these addresses or others
            return random_() % 3 != 0 || (iso_heap_destroy(held.heap) == ISO_OK && begin(held));
        default:
            std::memset(at, random_() % 3 == 0 ? 0 : static_cast<int>(random_()), length);
            return true;
        }
    }

  private:
    size_t some_size()
    {
        constexpr size_t sizes[] = {40, 300, 5000, 70000, 400000, 2500000, 6000000};
        return sizes[random_() % std::size(sizes)];
    }
    bool add(Held &held, void *memory, size_t size)
    {
        auto *block = static_cast<unsigned char *>(memory);
        if (block == nullptr)
            return false;
        const uint64_t first = random_();
        for (size_t i = 0; i < size; i++)
            block[i] = static_cast<unsigned char>(first + (i >> 6));
        held.blocks[block] = size;
        return true;
    }
    // All whole pages of a block, or whole 2 MiB of it.
    bool give_back(unsigned char *block, size_t size)
    {
        const size_t unit = random_() % 2 == 0 ? page : ISO_SLOT_SIZE;
        const uintptr_t from = (reinterpret_cast<uintptr_t>(block) + unit - 1) & ~(unit - 1),
                        to = (reinterpret_cast<uintptr_t>(block) + size) & ~(unit - 1);
        return to <= from || madvise(reinterpret_cast<void *>(from), to - from, // NOLINT
                                     MADV_DONTNEED) == 0;
    }
    // Its used part is longer or shorter than it was, and other.
    bool move_stack(Held &held)
    {
        auto *low = static_cast<unsigned char *>(held.stack->low);
        auto *end = reinterpret_cast<unsigned char *>(held.stack);
        held.stack->sp = end - (1000 + random_() % (static_cast<size_t>(end - low) - 2000));
        std::memset(held.stack->sp, static_cast<int>(random_()), 900);
        return true;
    }

    iso_job_t *job_;
    std::mt19937_64 random_;
};

const char *life_of(const Folder &folder, unsigned seed)
{
    constexpr unsigned images = 6;
    iso_job_t *job = start();
    if (job == nullptr)
        return "start";
    Life life(job, seed);
    std::mt19937_64 random(seed + 100);
    Held held[3];
    std::vector<iso_heap_t *> heaps[images];
    std::vector<Contents> then[images];
    const auto name = [&](unsigned i) { return folder / std::to_string(i); };
    for (Held &one : held)
        if (!life.begin(one))
            return "a heap";
    for (unsigned i = 0; i < images; i++) {
        const std::string since = i > 0 ? name(i - 1) : "";
        for (const Held &one : held) {
            heaps[i].push_back(one.heap);
            then[i].push_back(one.contents());
        }
        if (save(job, name(i), heaps[i], "", i > 0 ? since.c_str() : nullptr) != ISO_OK)
            return "a checkpoint";
        for (unsigned steps = 20; steps > 0; steps--) // the last heap has a quiet life
            if (!life.step(held[random() % 2]))
                return "a step";
    }
    for (const Held &one : held)
        if (iso_heap_destroy(one.heap) != ISO_OK)
            return "the end of a heap";
    for (unsigned i = 0; i < images; i++)
        for (uint32_t number = 0; number < std::size(held); number++) {
            iso_heap_t *heap = nullptr;
            if (restore(job, name(i), number, &heap) != ISO_OK || heap != heaps[i][number])
                return "a restart";
            for (const auto &[block, bytes] : then[i][number])
                if (std::memcmp(block, bytes.data(), bytes.size()) != 0)
                    return "contents";
            iso_heap_stats_t stats; // which also looks for damage
            if (iso_heap_stats(heap, &stats) != ISO_OK || iso_heap_destroy(heap) != ISO_OK)
                return "a restored heap";
        }
    return iso_finalize(job) == ISO_OK ? nullptr : "the end";
}

} // namespace

TEST_CASE("image: with ISO_TRACK_WRITES each of a chain of images has what was there, whatever "
          "happened to pages in between",
          "[image]")
{
    const struct {
        const char *retain, *guard, *huge;
        bool older;
    } rows[] = {{"256M", "first", "n", false},
                {"0", "all", "n", false},
                {"0", "first", "auto", false},
                {"1M", "none", "auto", true},
                {"256M", "all", "n", true}};
    unsigned seed = 1;
    for (const auto &row : rows) {
        Folder folder;
        ScopedEnv track("ISO_TRACK_WRITES", "y"), level("ISO_LOG_LEVEL", "info"),
            backing("ISO_BACKING", "anon"), retain("ISO_RETAIN", row.retain),
            guard("ISO_GUARD", row.guard), huge("ISO_HUGE_PAGES", row.huge);
        const ChildResult child = in_child([&] {
            older_kernel = row.older;
            const char *wrong = life_of(folder, seed);
            if (wrong != nullptr)
                fprintf(stderr, "WRONG: %s\n", wrong);
            return wrong == nullptr ? 0 : 1;
        });
        INFO("seed " << seed << "\n" << child.stderr_text);
        if (!is_told(child.stderr_text))
            return;
        REQUIRE(child.exited_with(0));
        const std::vector<Passed> images = passed_in(child.stderr_text);
        REQUIRE(images.size() == 6);
        REQUIRE(images[0].passed == 0);
        for (size_t i = 1; i < images.size(); i++)
            REQUIRE(images[i].passed * page > large); // of the heap with a quiet life at least
        seed++;
    }
}

TEST_CASE("image: with ISO_TRACK_WRITES an increment reads only what was written", "[image]")
{
    Folder folder;
    const unsigned rounds = 4;
    const auto name = [&](unsigned i) { return folder / std::to_string(i); };
    ScopedEnv track("ISO_TRACK_WRITES", "y"), level("ISO_LOG_LEVEL", "info"),
        backing("ISO_BACKING", "anon");
    const ChildResult child = in_child([&] {
        iso_job_t *job = start();
        iso_heap_t *heaps[2] = {};
        unsigned char *blocks[2];
        for (int i : {0, 1}) {
            if (job == nullptr || iso_heap_create(job, &heaps[i]) != ISO_OK)
                return 1;
            blocks[i] = static_cast<unsigned char *>(iso_malloc(heaps[i], large));
            for (size_t at = 0; at < large; at++)
                blocks[i][at] = static_cast<unsigned char>(at >> 3);
        }
        for (unsigned round = 0; round < rounds; round++) {
            const std::string since = round > 0 ? name(round - 1) : "";
            if (save(job, name(round), {heaps[0], heaps[1]}, "",
                     round > 0 ? since.c_str() : nullptr) != ISO_OK)
                return 2;
            for (int i = 0; i < 5; i++)
                blocks[0][(i * 7 + round) * page * 13] ^= 1;
            if (round == 1) { // another heap at the same addresses
                const iso_heap_t *before = heaps[1];
                if (iso_heap_destroy(heaps[1]) != ISO_OK ||
                    iso_heap_create(job, &heaps[1]) != ISO_OK || heaps[1] != before)
                    return 3;
                blocks[1] = static_cast<unsigned char *>(iso_calloc(heaps[1], 1, large));
                blocks[1][large / 2] = 9;
            }
            // the next one is not an increment to the last one
            if (round == 2 && save(job, folder / "beside", {heaps[0]}) != ISO_OK)
                return 4;
        }
        return iso_finalize(job) == ISO_OK ? 0 : 5;
    });
    INFO(child.stderr_text);
    if (!is_told(child.stderr_text))
        return;
    REQUIRE(child.exited_with(0));
    const std::vector<Passed> images = passed_in(child.stderr_text);
    REQUIRE(images.size() == rounds + 1);
    const uint64_t block_pages = large / page, changed = 20;
    for (const Passed &image : images)
        REQUIRE(image.pages >= block_pages);
    REQUIRE(images[0].passed == 0);
    REQUIRE(images[1].passed > 2 * block_pages - changed);
    REQUIRE(images[2].passed > block_pages - changed); // of the new heap all was written
    REQUIRE(images[2].passed < block_pages + changed);
    REQUIRE(images[3].passed == 0); // "beside"
    REQUIRE(images[4].passed == 0);
}

TEST_CASE("image: where what is written cannot be told, ISO_TRACK_WRITES says so once, and all is "
          "read",
          "[image]")
{
    for (const char *backing : {"private", "shared"}) {
        INFO(backing);
        Folder folder;
        const std::string first = folder / "first", second = folder / "second";
        ScopedEnv env("ISO_TRACK_WRITES", "y"), behind("ISO_BACKING", backing);
        const ChildResult child = in_child([&] {
            iso_job_t *job = start();
            iso_heap_t *heap = nullptr;
            if (job == nullptr || iso_heap_create(job, &heap) != ISO_OK)
                return 1;
            auto *block = static_cast<unsigned char *>(iso_calloc(heap, 1, large));
            if (save(job, first, {heap}) != ISO_OK)
                return 2;
            block[large / 2] = 7;
            if (save(job, second, {heap}, "", first.c_str()) != ISO_OK ||
                iso_heap_destroy(heap) != ISO_OK || restore(job, second, 0, &heap) != ISO_OK)
                return 3;
            return block[large / 2] == 7 && iso_finalize(job) == ISO_OK ? 0 : 4;
        });
        INFO(child.stderr_text);
        REQUIRE(child.exited_with(0));
        REQUIRE(line_count(child.stderr_text) == 1);
        REQUIRE(contains(child.stderr_text, "it takes ISO_BACKING=anon"));
        REQUIRE(contains(child.stderr_text, "checkpoints read all pages"));
    }
}

TEST_CASE("image: with ISO_TRACK_WRITES what was given back, 2 MiB and whole, is as written, also "
          "where the kernel does not list what has no page table",
          "[image]")
{
    for (const bool older : {false, true}) {
        INFO(older);
        Folder folder;
        const std::string first = folder / "first", second = folder / "second";
        ScopedEnv env("ISO_TRACK_WRITES", "y"), backing("ISO_BACKING", "anon");
        Job job;
        iso_heap_t *heap = job.heap();
        auto *block = static_cast<unsigned char *>(iso_malloc(heap, large));
        std::memset(block, 7, large);
        older_kernel = older;
        REQUIRE(save(job.job, first, {heap}) == ISO_OK);
        const uintptr_t slot = (reinterpret_cast<uintptr_t>(block) | (ISO_SLOT_SIZE - 1)) + 1;
        auto *given = reinterpret_cast<unsigned char *>(slot); // NOLINT
        REQUIRE(madvise(given, ISO_SLOT_SIZE, MADV_DONTNEED) == 0);
        REQUIRE(madvise(given + ISO_SLOT_SIZE + page, 3 * page, MADV_DONTNEED) == 0);
        REQUIRE(save(job.job, second, {heap}, "", first.c_str()) == ISO_OK);
        older_kernel = false;
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        REQUIRE(restore(job.job, second, 0, &heap) == ISO_OK);
        for (size_t at = 0; at < large; at++) {
            const unsigned char *byte = block + at;
            const bool gone =
                (byte >= given && byte < given + ISO_SLOT_SIZE) ||
                (byte >= given + ISO_SLOT_SIZE + page && byte < given + ISO_SLOT_SIZE + 4 * page);
            if (*byte != (gone ? 0 : 7))
                FAIL("byte " << at);
        }
    }
}

TEST_CASE("image: with ISO_TRACK_WRITES a heap that was restored or mapped from an older image is "
          "not taken for the one that was saved last",
          "[image]")
{
    for (const bool map : {false, true}) {
        INFO(map);
        Folder folder;
        const std::string first = folder / "first", second = folder / "second",
                          third = folder / "third";
        ScopedEnv env("ISO_TRACK_WRITES", "y"), backing("ISO_BACKING", "anon");
        Job job;
        iso_heap_t *heap = job.heap();
        auto *block = static_cast<unsigned char *>(iso_malloc(heap, large));
        std::memset(block, 1, large);
        std::memset(block + large / 2, 0, large / 4); // zeros, which come out by themselves
        REQUIRE(save(job.job, first, {heap}) == ISO_OK);
        const std::vector<unsigned char> then(block, block + large);
        std::memset(block + large / 2, 2, large / 8);
        block[0] = 3;
        REQUIRE(save(job.job, second, {heap}) == ISO_OK);
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        {
            Opened opened(first);
            REQUIRE((map ? iso_image_map : iso_image_restore)(job.job, opened.image, 0, &heap) ==
                    ISO_OK);
        }
        REQUIRE(save(job.job, third, {heap}, "", second.c_str()) == ISO_OK);
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        job.soil();
        REQUIRE(restore(job.job, third, 0, &heap) == ISO_OK);
        REQUIRE(std::memcmp(block, then.data(), large) == 0);
    }
}
