// What the tests of the allocator share: a job of one rank, and a model of what a heap must hold.
#ifndef ISO_TESTS_UNIT_ALLOCATOR_HPP
#define ISO_TESTS_UNIT_ALLOCATOR_HPP

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <isomalloc/isomalloc.h>
#include <map>
#include <random>
#include <set>

// A sanitizer's tests do a part of the work.
#if defined(__SANITIZE_ADDRESS__)
constexpr int scale = 8;
#else
constexpr int scale = 1;
#endif

// A job of one rank, and the flags that its heaps get.
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
    // Uses addresses that a heap has left for something else, and gives them back.
    void soil() const
    {
        iso_heap_t *other = heap();
        for (const size_t size : {100, 5000, 100000, 3000000, 6000000})
            std::memset(iso_malloc(other, size), 0xff, size);
        REQUIRE(iso_heap_destroy(other) == ISO_OK);
    }
    [[nodiscard]] uint64_t slots_free() const
    {
        iso_stats_t stats;
        iso_stats(job, &stats);
        return stats.slots_free;
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

    // Small blocks on a few pages, and one of more than a slot.
    void allocate_mixture()
    {
        for (int i = 0; i < 40; i++)
            allocate(1000);
        allocate(3000000);
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

#endif
