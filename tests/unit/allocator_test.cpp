// The allocator against a model: what it hands out, what it ships, and whether shipping only that is
// enough.
#include "core/heap.h"
#include "core/heap_layout.h"
#include "core/live.h"
#include "tests/unit/support.hpp"
#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace {

struct Job {
    iso_job_t *job = nullptr;
    uint32_t flags; // of its heaps
    // poison: for a sanitizer every block gets a gap behind it, and none grows where it is
    explicit Job(uint64_t retain = 256u << 20, uint32_t heap_flags = 0, bool poison = true)
        : flags(heap_flags)
    {
        iso_params_t params;
        REQUIRE(iso_params_init(&params) == ISO_OK);
        params.space_size = 16ull << 30;
        params.retain = retain;
        params.poison = poison;
        REQUIRE(iso_init(&params, &job) == ISO_OK);
    }
    ~Job()
    {
        iso_finalize(job);
    }
    [[nodiscard]] iso_heap_t *heap() const
    {
        iso_heap_t *heap = nullptr;
        REQUIRE(iso_heap_create_flags(job, flags, &heap) == ISO_OK);
        return heap;
    }
};

// A heap and what must be in it: every block with its size and the byte it is filled with.
class Model {
  public:
    explicit Model(iso_heap_t *heap, uint32_t seed) : heap_(heap), random_(seed)
    {
    }

    void allocate(size_t size)
    {
        add(iso_malloc(heap_, size), size);
    }

    void allocate_aligned(size_t alignment, size_t size)
    {
        void *block = iso_aligned_alloc(heap_, alignment, size);
        REQUIRE(reinterpret_cast<uintptr_t>(block) % alignment == 0);
        add(block, size);
    }

    void allocate_zeroed(size_t size)
    {
        auto *block = static_cast<unsigned char *>(iso_calloc(heap_, 1, size));
        REQUIRE(block != nullptr);
        for (size_t i = 0; i < size; i++)
            if (block[i] != 0)
                FAIL("byte " << i << " of a calloc'ed block of " << size << " is not zero");
        add(block, size);
    }

    void reallocate(size_t size)
    {
        const auto it = pick();
        const auto [address, old] = *it;
        check(address, old);
        const size_t kept = std::min(old.size, size);
        blocks_.erase(it);
        auto *moved = static_cast<unsigned char *>(iso_realloc(heap_, address, size));
        REQUIRE(moved != nullptr);
        check(moved, {kept, old.fill});
        add(moved, size);
    }

    void free()
    {
        const auto it = pick();
        check(it->first, it->second);
        iso_free(it->first);
        blocks_.erase(it);
    }

    void step(size_t largest)
    {
        const auto size = [&] { // small ones are the most frequent, all magnitudes occur
            const unsigned magnitude = 1 + random_() % 64;
            const size_t limit = std::min<size_t>(largest, size_t{1} << std::min(magnitude, 22u));
            return random_() % (limit + 1);
        };
        switch (random_() % 10) {
        case 0:
        case 1:
        case 2:
        case 3:
            return allocate(size());
        case 4:
            return allocate_zeroed(size());
        case 5:
            return allocate_aligned(size_t{1} << random_() % 22, size());
        case 6:
            return blocks_.empty() ? allocate(1) : reallocate(size());
        default:
            return blocks_.empty() ? allocate(1) : free();
        }
    }

    void check_all() const
    {
        for (const auto &[address, block] : blocks_)
            check(address, block);
        std::set<void *> walked;
        struct Arg {
            std::set<void *> *walked;
            bool sizes_right = true;
        } arg = {&walked};
        REQUIRE(iso_heap_walk(
                    heap_,
                    [](void *block, size_t size, void *p) {
                        auto *a = static_cast<Arg *>(p);
                        a->walked->insert(block);
                        a->sizes_right = a->sizes_right && size == iso_usable_size(block);
                        return true;
                    },
                    &arg) == ISO_OK);
        REQUIRE(arg.sizes_right);
        REQUIRE(walked.size() == blocks_.size());
        for (const auto &[address, block] : blocks_)
            REQUIRE(walked.count(address) == 1);
    }

    void free_all()
    {
        while (!blocks_.empty())
            free();
    }

    [[nodiscard]] size_t count() const
    {
        return blocks_.size();
    }

  private:
    struct Block {
        size_t size;
        unsigned char fill;
    };

    void add(void *block, size_t size)
    {
        REQUIRE(block != nullptr);
        REQUIRE(reinterpret_cast<uintptr_t>(block) % 16 == 0);
        const size_t usable = iso_usable_size(block);
        REQUIRE(usable >= size);
        REQUIRE(iso_heap_of(block) == heap_);
        auto *address = static_cast<unsigned char *>(block);
        const auto above = blocks_.lower_bound(address);
        if (above != blocks_.end())
            REQUIRE(address + usable <= above->first);
        if (above != blocks_.begin()) {
            const auto below = std::prev(above);
            REQUIRE(below->first + below->second.size <= address);
        }
        const auto fill = static_cast<unsigned char>(1 + random_() % 255);
        std::memset(address, fill, usable); // all that may be used
        blocks_[address] = {usable, fill};
    }

    static void check(const unsigned char *address, const Block &block)
    {
        const size_t size = block.size;
        bool right = true;
        if (size > 0)
            right = address[0] == block.fill &&
                    (size == 1 || std::memcmp(address, address + 1, size - 1) == 0);
        if (!right)
            FAIL("block " << static_cast<const void *>(address) << " of " << size
                          << " has changed");
    }

    std::map<unsigned char *, Block>::iterator pick()
    {
        auto it = blocks_.lower_bound(
            blocks_.begin()->first + random_() % static_cast<uint64_t>(blocks_.rbegin()->first -
                                                                       blocks_.begin()->first + 1));
        return it == blocks_.end() ? blocks_.begin() : it;
    }

    iso_heap_t *heap_;
    std::mt19937_64 random_;
    std::map<unsigned char *, Block> blocks_;
};

using Runs = std::vector<std::pair<char *, size_t>>;

Runs live_runs(iso_heap_t *heap, size_t page)
{
    Runs runs;
    iso_live_runs(
        iso_hold_find(nullptr, heap), page,
        [](void *address, size_t length, void *arg) {
            static_cast<Runs *>(arg)->emplace_back(static_cast<char *>(address), length);
            return true;
        },
        &runs);
    return runs;
}

size_t total(const Runs &runs)
{
    size_t bytes = 0;
    for (const auto &[address, length] : runs)
        bytes += length;
    return bytes;
}

// What a migration does to the memory of a heap: only its live runs survive, all else is garbage.
void migrate_in_place(iso_heap_t *heap)
{
    iso_hold_t *hold = iso_hold_find(nullptr, heap);
    iso_heap_freeze(hold);
    const Runs runs = live_runs(heap, 4096);
    std::vector<std::vector<char>> shipped;
    for (const auto &[address, length] : runs)
        shipped.emplace_back(address, address + length);
    const std::vector<iso_extent_t> extents(hold->extents, hold->extents + hold->extent_count);
    void *base = nullptr;
    size_t size = 0;
    iso_space(hold->job, &base, &size);
    for (const iso_extent_t &extent : extents)
        std::memset(static_cast<char *>(base) +
                        (static_cast<size_t>(extent.first) << ISO_SLOT_SHIFT),
                    0xA5, static_cast<size_t>(iso_extent_slots(&extent)) << ISO_SLOT_SHIFT);
    for (size_t i = 0; i < runs.size(); i++)
        std::copy(shipped[i].begin(), shipped[i].end(), runs[i].first);
    REQUIRE(iso_heap_check_arrived(heap, hold->epoch) == ISO_OK);
    iso_heap_thaw(hold);
}

// The bound of the design, live pages counted from the blocks.
size_t allowed(iso_heap_t *heap, size_t page)
{
    struct Count {
        size_t page;
        std::set<uintptr_t> pages, slots;
    } count = {page, {}, {}};
    REQUIRE(iso_heap_walk(
                heap,
                [](void *block, size_t size, void *arg) {
                    auto *c = static_cast<Count *>(arg);
                    const auto first = reinterpret_cast<uintptr_t>(block);
                    for (uintptr_t p = first / c->page; p <= (first + size - 1) / c->page; p++)
                        c->pages.insert(p);
                    for (uintptr_t s = first / ISO_SLOT_SIZE;
                         s <= (first + size - 1) / ISO_SLOT_SIZE; s++)
                        c->slots.insert(s);
                    return true;
                },
                &count) == ISO_OK);
    const size_t live = count.pages.size() * page;
    return live + live / 50 + std::max<size_t>(65536, 4 * page) + count.slots.size() * page;
}

void check_bound(iso_heap_t *heap)
{
    iso_hold_t *hold = iso_hold_find(nullptr, heap);
    for (const size_t page : {4096u, 16384u, 65536u}) {
        CAPTURE(page);
        const size_t most = allowed(heap, page);
        iso_heap_freeze(hold);
        const size_t shipped = total(live_runs(heap, page));
        iso_heap_thaw(hold);
        CHECK(shipped <= most);
    }
}

#if defined(__SANITIZE_ADDRESS__)
constexpr int scale = 8;
#else
constexpr int scale = 1;
#endif

} // namespace

TEST_CASE("random operations agree with a model", "[allocator]")
{
    const uint32_t flags = GENERATE(0, ISO_HEAP_SHARED);
    Job job(256u << 20, flags);
    struct Kind {
        size_t largest;
        int steps;
    };
    for (const Kind &kind : {Kind{600, 40000}, Kind{40000, 20000}, Kind{5000000, 1200}}) {
        Model model(job.heap(), static_cast<uint32_t>(kind.largest));
        for (int i = 0; i < kind.steps / scale; i++) {
            model.step(kind.largest);
            if (i % 8000 == 0)
                model.check_all();
        }
        model.check_all();
        model.free_all();
        model.check_all();
    }
}

TEST_CASE("a heap of which only the live runs survived goes on as if nothing had happened",
          "[allocator]")
{
    const uint32_t flags = GENERATE(0, ISO_HEAP_SHARED);
    Job job(1u << 20, flags);
    struct Kind {
        size_t largest;
        int rounds, steps;
    };
    for (const Kind &kind : {Kind{600, 40, 400}, Kind{70000, 20, 200}, Kind{4000000, 8, 40}}) {
        iso_heap_t *heap = job.heap();
        Model model(heap, static_cast<uint32_t>(kind.largest));
        for (int round = 0; round < 1 + kind.rounds / scale; round++) {
            for (int i = 0; i < kind.steps; i++)
                model.step(kind.largest);
            migrate_in_place(heap);
            model.check_all();
        }
        model.free_all();
        migrate_in_place(heap);
        CHECK(live_runs(heap, 4096) ==
              Runs{{reinterpret_cast<char *>(iso_heap_slot_of(heap)), 8192}});
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    }
}

TEST_CASE("what is shipped is within the bound", "[allocator]")
{
    const uint32_t flags = GENERATE(0, ISO_HEAP_SHARED);
    Job job(256u << 20, flags);
    const size_t size =
        GENERATE(16, 64, 128, 160, 224, 256, 1000, 4096, 5000, 20000, 32768, 65536, 300000);
    CAPTURE(size);
    iso_heap_t *heap = job.heap();
    const size_t count = std::min<size_t>((32u << 20) / scale / size, 400000);
    std::vector<void *> blocks;
    for (size_t i = 0; i < count; i++)
        blocks.push_back(iso_malloc(heap, size));
    std::mt19937 random(3);
    SECTION("full")
    {
        check_bound(heap);
    }
    SECTION("every second MiB freed")
    {
        for (void *block : blocks)
            if (reinterpret_cast<uintptr_t>(block) >> 20 & 1)
                iso_free(block);
        check_bound(heap);
    }
    SECTION("90 % freed at random")
    {
        for (void *block : blocks)
            if (random() % 10 != 0)
                iso_free(block);
        check_bound(heap);
    }
    SECTION("one block left of every 64 KiB")
    {
        std::set<uintptr_t> seen;
        for (void *block : blocks)
            if (!seen.insert(reinterpret_cast<uintptr_t>(block) >> 16).second)
                iso_free(block);
        check_bound(heap);
    }
    SECTION("one block left of every slot")
    {
        std::set<uintptr_t> seen;
        for (void *block : blocks)
            if (!seen.insert(reinterpret_cast<uintptr_t>(block) >> 21).second)
                iso_free(block);
        check_bound(heap);
    }
    SECTION("all freed")
    {
        for (void *block : blocks)
            iso_free(block);
        check_bound(heap);
        iso_heap_stats_t stats;
        REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
        CHECK(stats.slots == 1);
        CHECK(stats.blocks == 0);
    }
}

TEST_CASE("a heap that grew to 1 GiB and was emptied ships next to nothing", "[allocator]")
{
    Job job;
    iso_heap_t *heap = job.heap();
    std::vector<void *> blocks;
    for (size_t bytes = 0; bytes < (size_t{1} << 30); bytes += 65536)
        blocks.push_back(iso_malloc(heap, 65536));
    for (void *block : blocks)
        iso_free(block);
    check_bound(heap);
    iso_heap_stats_t stats;
    REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
    CHECK(stats.slots == 1);
    CHECK(stats.live_bytes <= 65536);
}

TEST_CASE("sizes and alignments of every kind are handed out as C says", "[allocator]")
{
    Job job(256u << 20, 0, false);
    iso_heap_t *heap = job.heap();
    for (size_t size = 0; size < 5000000; size += 1 + size / 9) {
        void *a = iso_malloc(heap, size), *b = iso_malloc(heap, size);
        REQUIRE(a != nullptr);
        REQUIRE(a != b);
        CHECK(reinterpret_cast<uintptr_t>(a) % 16 == 0);
        if (size > 0 && size <= 4096 && (size & (size - 1)) == 0)
            CHECK(reinterpret_cast<uintptr_t>(a) % size == 0);
        CHECK(iso_usable_size(a) >= size);
        CHECK(iso_usable_size(a) <= size + std::max<size_t>(16, size / 4 + 16));
        iso_free(a);
        iso_free(b);
    }
    for (size_t alignment = 1; alignment <= ISO_SLOT_SIZE; alignment *= 2)
        for (size_t size :
             {size_t{0}, size_t{1}, size_t{100}, size_t{4096}, size_t{70000}, size_t{3000000}}) {
            void *block = iso_aligned_alloc(heap, alignment, size);
            REQUIRE(block != nullptr);
            CHECK(reinterpret_cast<uintptr_t>(block) % alignment == 0);
            REQUIRE(iso_usable_size(block) >= size);
            std::memset(block, 1, size);
            iso_free(block);
        }
    errno = 0;
    CHECK(iso_aligned_alloc(heap, 3, 8) == nullptr);
    CHECK(errno == EINVAL);
    errno = 0;
    CHECK(iso_aligned_alloc(heap, 2 * ISO_SLOT_SIZE, 8) == nullptr);
    CHECK(errno == EINVAL);
    volatile size_t huge = PTRDIFF_MAX; // not known to the compiler, which would warn
    errno = 0;
    CHECK(iso_malloc(heap, huge + 1) == nullptr);
    CHECK(errno == ENOMEM);
    errno = 0;
    CHECK(iso_calloc(heap, huge, 4) == nullptr);
    CHECK(errno == ENOMEM);
    void *kept = iso_malloc(heap, 100);
    std::memset(kept, 7, 100);
    errno = 0;
    CHECK(iso_realloc(heap, kept, huge) == nullptr);
    CHECK(errno == ENOMEM);
    CHECK(static_cast<unsigned char *>(kept)[99] == 7);
    iso_free(nullptr);
    CHECK(iso_usable_size(nullptr) == 0);
    int outside = 0;
    CHECK_FALSE(iso_in_range(&outside));
    CHECK(iso_heap_of(&outside) == nullptr);
    CHECK(iso_in_range(kept));
}

TEST_CASE("a block that grows step by step is not copied at every step", "[allocator]")
{
    Job job(256u << 20, 0, false);
    iso_heap_t *heap = job.heap();
    void *block = iso_malloc(heap, 1 << 20);
    int moves = 0;
    for (size_t size = 1 << 20; size < (size_t{64} << 20); size += 65536) {
        void *grown = iso_realloc(heap, block, size);
        REQUIRE(grown != nullptr);
        moves += grown != block;
        block = grown;
    }
    CHECK(moves <= 16);
}

TEST_CASE("freed memory is given back beyond what ISO_RETAIN keeps", "[allocator]")
{
    const uint64_t retain = GENERATE(0ull, 8ull << 20);
    Job job(retain);
    iso_heap_t *heap = job.heap();
    for (const size_t size : {size_t{64}, size_t{4096}, size_t{100000}, size_t{16} << 20}) {
        std::vector<void *> blocks;
        for (size_t bytes = 0; bytes < (size_t{64} << 20); bytes += size) {
            blocks.push_back(iso_malloc(heap, size));
            std::memset(blocks.back(), 1, size);
        }
        for (void *block : blocks)
            iso_free(block);
        iso_stats_t stats;
        iso_stats(job.job, &stats);
        CAPTURE(size, retain);
        CHECK(stats.retained_bytes <= retain);
        CHECK(stats.released_bytes >= (size_t{40} << 20));
    }
}

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

TEST_CASE("a medium block that grows is put where it can go on growing", "[allocator]")
{
    Job job(256u << 20, 0, false);
    iso_heap_t *heap = job.heap();
    void *hole = iso_malloc(heap, 2 * ISO_UNIT_SIZE), *behind = iso_malloc(heap, ISO_UNIT_SIZE);
    REQUIRE(behind == static_cast<char *>(hole) + 2 * ISO_UNIT_SIZE);
    void *vector = iso_malloc(heap, 1000);
    iso_free(hole);
    void *grown = iso_realloc(heap, vector, 2 * ISO_UNIT_SIZE); // would fit into the hole, just so
    CHECK(grown != hole);
    CHECK(iso_realloc(heap, grown, 4 * ISO_UNIT_SIZE) == grown);
    CHECK(iso_malloc(heap, 2 * ISO_UNIT_SIZE) == hole); // what does not grow goes there
}

TEST_CASE("a block of a whole slot can be made smaller, and larger again", "[allocator]")
{
    const size_t whole = ISO_MEDIUM_MAX, size = GENERATE(40000, 61440, 61441, 100000, 1900000);
    CAPTURE(size);
    Job job(0, 0, false);
    iso_heap_t *heap = job.heap();
    auto *block = static_cast<char *>(iso_malloc(heap, whole));
    memset(block, 7, whole);
    REQUIRE(iso_realloc(heap, block, size) == block);
    CHECK(iso_usable_size(block) >= size);
    auto *other = static_cast<char *>(iso_malloc(heap, 70000)); // in what became free
    memset(other, 8, 70000);
    migrate_in_place(heap);
    CHECK(block[size - 1] == 7);
    auto *grown = static_cast<char *>(iso_realloc(heap, block, whole));
    REQUIRE(grown != nullptr);
    CHECK((grown[0] == 7 && grown[size - 1] == 7 && other[0] == 8 && other[69999] == 8));
    migrate_in_place(heap);
    iso_free(grown);
    iso_free(other);
    migrate_in_place(heap);
    iso_heap_stats_t stats;
    REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
    CHECK(stats.blocks == 0);
}

TEST_CASE("a flag that is unknown is refused", "[allocator]")
{
    const ScopedEnv quiet("ISO_LOG_LEVEL", "error");
    Job job;
    iso_heap_t *heap = nullptr;
    CHECK(iso_heap_create_flags(job.job, ISO_HEAP_SHARED | 0x40000000u, &heap) == ISO_ERR_INVALID);
    CHECK(heap == nullptr);
}

TEST_CASE("the tables of size classes follow from the sizes", "[allocator]")
{
    for (size_t size = 0; size <= ISO_CLASS_MAX; size++) {
        const unsigned klass = iso_class_of(size);
        if (iso_classes[klass].size < size || (klass > 0 && iso_classes[klass - 1].size >= size))
            FAIL("size " << size << " is in class " << klass);
    }
    for (unsigned klass = 0; klass < ISO_CLASS_COUNT; klass++) {
        const iso_class_t &c = iso_classes[klass];
        const bool tiny = klass < ISO_TINY_CLASSES;
        const size_t area = tiny ? 4096 : 65536;
        CAPTURE(c.size);
        const size_t words = (area / c.size + 63) / 64, metadata = tiny ? 8 + 8 * words : 0;
        CHECK(c.count == (area - metadata) / c.size);
        CHECK(words <= (tiny ? 4 : ISO_SPAN_WORDS));
        CHECK(c.mask == area - 1);
        const size_t before =
            tiny ? 64 : 8 * ISO_SMALL_BITS(c.size); // bits in front of the blocks'
        // the number of every address of two areas: exact, or none; one of no block has a bit, too
        unsigned wrong = 0;
        for (uintptr_t address = 0x200000000000; address < 0x200000000000 + 2 * area; address++) {
            const size_t to_end = area - address % area;
            uint64_t number;
            const bool is_block = iso_class_number(klass, address, &number);
            const uint64_t index = (number >> 32) - before;
            wrong += is_block != (to_end % c.size == 0) ||
                     (is_block && (index >= 64 * words || index != to_end / c.size - 1 ||
                                   iso_class_offset(&c, index) != address % area));
        }
        CHECK(wrong == 0);
        // where the free bits of blocks are: behind the chunk's check word, or in the span
        for (unsigned unit = tiny ? 0 : 1; unit < ISO_UNITS_PER_SLOT; unit++) {
            const auto *slot = reinterpret_cast<iso_slot_t *>(UINT64_C(0x200000000000));
            const auto end = reinterpret_cast<uintptr_t>(slot) + unit * ISO_UNIT_SIZE + 0x6000;
            const auto block = tiny ? end - c.size : (end | 0xffff) + 1 - c.size;
            uint64_t number;
            REQUIRE(iso_class_number(klass, block, &number));
            const auto bits = reinterpret_cast<uintptr_t>(iso_block_word(klass, block, number));
            CHECK(iso_block_bit(number) == 1);
            if (tiny) {
                wrong += bits != (block & ~uintptr_t{4095}) + 8;
                wrong += iso_class_ways.base[klass] != ~uint64_t{4095};
            } else {
                const auto span = reinterpret_cast<uintptr_t>(&slot->spans[unit]);
                wrong += bits < span || bits + 8 * words > span + ISO_SPAN_FIELDS;
                wrong += bits !=
                         reinterpret_cast<uintptr_t>(&slot->spans[unit]) + ISO_SMALL_BITS(c.size);
                wrong += iso_class_ways.base[klass] != ~uint64_t{ISO_SLOT_MASK};
            }
        }
        CHECK(wrong == 0);
    }
    for (unsigned klass = ISO_CLASS_COUNT; klass < ISO_CLASSES; klass++) {
        uint64_t number;
        CHECK(iso_classes[klass].count == 0);
        CHECK_FALSE(iso_class_number(klass, 0x200000010000 - 16, &number));
    }
}

TEST_CASE("a space that is full hands out again what little was freed", "[allocator]")
{
    const size_t size = GENERATE(16, 64, 300, 1000, 5000, 32768);
    iso_params_t params;
    REQUIRE(iso_params_init(&params) == ISO_OK);
    params.space_size = 16u << 20;
    params.poison = false; // no gap behind a block
    iso_job_t *job = nullptr;
    iso_heap_t *heap = nullptr;
    REQUIRE(iso_init(&params, &job) == ISO_OK);
    REQUIRE(iso_heap_create(job, &heap) == ISO_OK);
    std::vector<void *> blocks;
    while (void *block = iso_malloc(heap, size))
        blocks.push_back(block);
    CHECK(blocks.size() > (12u << 20) / size);
    std::set<void *> freed; // one here, one there: fewer than make a span worth a visit
    for (size_t i = 7; i < blocks.size(); i += 40)
        freed.insert(blocks[i]);
    for (void *block : freed)
        iso_free(block);
    for (size_t left = freed.size(); left > 0; left--)
        CHECK(freed.erase(iso_malloc(heap, size)) == 1);
    CHECK(iso_malloc(heap, size) == nullptr);
    REQUIRE(iso_finalize(job) == ISO_OK);
}
