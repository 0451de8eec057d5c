// Heap corruption, found and named: a child damages its own heap's metadata and goes on; it has to end
// by abort, with a line that names the heap and what is wrong, never by a signal or as if nothing were.
#include "core/heap.h"
#include "core/verify.h"
#include "tests/unit/support.hpp"
#include <cstring>
#include <vector>

namespace {

// A job of this (child) process and a heap in it.
struct Own {
    iso_job_t *job = nullptr;
    iso_heap_t *heap = nullptr;
    Own()
    {
        iso_params_t params;
        iso_params_init(&params);
        params.space_size = 1ull << 30;
        params.poison = false; // a sanitizer would be the first to find what is done here
        if (iso_init(&params, &job) != ISO_OK || iso_heap_create(job, &heap) != ISO_OK)
            _exit(99);
    }
};

iso_hold_t *hold_of(const iso_heap_t *heap)
{
    return iso_hold_find(nullptr, heap);
}

// What a migration by puts does first.
void depart(const iso_heap_t *heap)
{
    iso_heap_verify(hold_of(heap));
    iso_heap_freeze(hold_of(heap));
}

// Blocks of one size until one begins a slot's last unit: the next one there is a slot away.
std::vector<char *> fill_slot(iso_heap_t *heap, size_t size)
{
    std::vector<char *> blocks;
    while (blocks.empty() || iso_slot_of(blocks.back()) == iso_slot_of(blocks.front()))
        blocks.push_back(static_cast<char *>(iso_malloc(heap, size)));
    return blocks;
}

enum Operation {
    FREE,
    MALLOC,
    REALLOC,
    USABLE_SIZE,
    STATS,
    DEPART,
    OPERATIONS
};

// `block` lies behind the damaged metadata, in the same page (or unit).
void operate(iso_heap_t *heap, char *block, size_t size, int operation)
{
    switch (operation) {
    case FREE:
        return iso_free(block);
    case MALLOC:
        (void)!iso_malloc(heap, size);
        return;
    case REALLOC:
        (void)!iso_realloc(heap, block, size * 3);
        return;
    case USABLE_SIZE:
        (void)!iso_usable_size(block);
        return;
    case STATS: {
        iso_heap_stats_t stats;
        (void)iso_heap_stats(heap, &stats);
        return;
    }
    default:
        return depart(heap);
    }
}

const char *const names[] = {"free", "malloc", "realloc", "usable size", "stats", "depart"};

} // namespace

TEST_CASE("a write past the end of a chunk's last block is found by whatever comes next")
{
    const size_t size = GENERATE(16, 32, 48, 64, 80);
    const size_t length = GENERATE(1, 8, 100);
    const int fill = GENERATE(0, 'x', 0xff);
    const int operation = GENERATE(range(0, int{OPERATIONS}));
    CAPTURE(size, length, fill, names[operation]);
    const ChildResult child = in_child([&] {
        const Own own;
        // the last block of a chunk, which is the first that is taken, and two of the chunk behind it
        std::vector<char *> blocks;
        while (blocks.size() < 3 ||
               iso_chunk_of(blocks[blocks.size() - 2]) == iso_chunk_of(blocks[blocks.size() - 3]))
            blocks.push_back(static_cast<char *>(iso_malloc(own.heap, size)));
        char *last = blocks.front(), *behind = blocks.back();
        fprintf(stderr, "heap %p: ... %p ... before it, %p of\n", (void *)own.heap,
                (void *)iso_chunk_of(behind), (void *)last);
        memset(last + iso_usable_size(last), fill, length);
        operate(own.heap, behind, size, operation);
        return 0;
    });
    INFO(child.stderr_text);
    CHECK(child.aborted());
    REQUIRE(line_count(child.stderr_text) == 2);
    const std::string said = child.stderr_text.substr(0, child.stderr_text.find('\n'));
    const std::string found = child.stderr_text.substr(said.size());
    const auto part = [&](const char *from, const char *to) {
        const size_t at = said.find(from);
        return said.substr(at, said.find(to, at) - at);
    };
    CHECK(contains(found, part("heap", ":")));
    CHECK(contains(found, part("before it", " of")));
    CHECK(contains(found, "check word was overwritten"));
}

TEST_CASE("a write past the end of a slot's last block is found by whatever comes next")
{
    const size_t size = GENERATE(208, 512, 5000, 40000);
    const int fill = GENERATE(0, 0xff);
    const int operation = GENERATE(range(0, int{OPERATIONS}));
    if (size == 208 && operation <= USABLE_SIZE)
        return; // tiny blocks have their free bits elsewhere: of those only the whole is looked over
    CAPTURE(size, fill, names[operation]);
    const ChildResult child = in_child([&] {
        const Own own;
        const std::vector<char *> blocks = fill_slot(own.heap, size);
        iso_slot_t *slot = iso_slot_of(blocks.back());
        memset(slot, fill, 24);
        operate(own.heap, blocks.back(), size, operation);
        return 0;
    });
    INFO(child.stderr_text);
    CHECK(child.aborted());
    CHECK(line_count(child.stderr_text) == 1);
    CHECK(contains(child.stderr_text, "check word was overwritten"));
    CHECK(contains(child.stderr_text, "past the end of the block before it"));
}

TEST_CASE("a large block's neighbour is found damaged")
{
    const int operation =
        GENERATE(int{FREE}, int{REALLOC}, int{USABLE_SIZE}, int{STATS}, int{DEPART});
    CAPTURE(names[operation]);
    const ChildResult child = in_child([&] {
        const Own own;
        auto *large = static_cast<char *>(iso_malloc(own.heap, 3 << 20));
        auto *behind = static_cast<char *>(iso_malloc(own.heap, 3 << 20));
        char *header = reinterpret_cast<char *>(iso_slot_of(behind));
        if (header != reinterpret_cast<char *>(iso_slot_of(large)) + 2 * ISO_SLOT_SIZE)
            return 98;
        const size_t size = iso_usable_size(large);
        memset(large + size, 0, static_cast<size_t>(header + 4 - large) - size);
        operate(own.heap, behind, 4 << 20, operation);
        return 0;
    });
    INFO(child.stderr_text);
    CHECK(child.aborted());
    CHECK(contains(child.stderr_text, "of 3145728 bytes"));
}

namespace {

// A heap with every kind of span and list, in more than one slot; blocks to operate on.
std::vector<char *> furnish(iso_heap_t *heap)
{
    std::vector<char *> blocks;
    const auto get = [&](size_t size) {
        blocks.push_back(static_cast<char *>(iso_malloc(heap, size)));
    };
    for (int i = 0; i < 700; i++)
        get(16);
    for (int i = 0; i < 5000; i++)
        get(64);
    for (int i = 0; i < 300; i++)
        get(1000);
    for (int i = 0; i < 20; i++)
        get(100000);
    get(3 << 20);
    for (size_t i = 0; i < blocks.size(); i += 3)
        iso_free(blocks[i]);
    std::vector<char *> left;
    for (size_t i = 0; i < blocks.size(); i++)
        if (i % 3 != 0)
            left.push_back(blocks[i]);
    return left;
}

// The words of a heap's metadata, as (address, may it be anything?).
struct Word {
    uint64_t *at;
    bool anything;
};

void add_words(std::vector<Word> *words, const void *from, size_t bytes, bool anything)
{
    auto *at = static_cast<uint64_t *>(const_cast<void *>(from));
    for (size_t i = 0; i < bytes / 8; i++)
        words->push_back({at + i, anything});
}

std::vector<Word> metadata_of(const iso_heap_t *heap, const std::vector<char *> &blocks)
{
    std::vector<Word> words;
    const auto *slot = iso_slot_of(heap);
    add_words(&words, slot, offsetof(iso_slot_t, prev) + 8, false);
    for (unsigned unit = 0; unit < ISO_UNITS_PER_SLOT; unit++) {
        const iso_span_t &span = slot->spans[unit];
        const char *fields = reinterpret_cast<const char *>(&span) + ISO_SPAN_FIELDS;
        add_words(&words, fields, 8, false);
        // of a unit in use: how large; which pages were populated is a hint. Links count in lists.
        const bool lists = span.listed && span.kind != ISO_SPAN_FREE;
        add_words(&words, fields + 8, 8, span.kind == ISO_SPAN_FREE || span.kind == ISO_SPAN_REST);
        add_words(&words, fields + 16, 16, !lists);
        const uint32_t count = iso_classes[span.klass].count;
        for (unsigned i = 0; span.kind == ISO_SPAN_SMALL && i * 64 < count; i++)
            add_words(&words, &iso_small_bits(&span)[i], 8, iso_block_bits(count, i) == UINT64_MAX);
    }
    add_words(&words, heap, offsetof(struct iso_heap, root), false);
    add_words(&words, &heap->root, 8, true);
    add_words(&words, &heap->none, 16, false);
    add_words(&words, &heap->keys, 8, true);
    add_words(&words, heap->current, sizeof *heap - offsetof(struct iso_heap, current), false);
    add_words(&words, iso_chunk_of(blocks.front()), 8, false);
    add_words(&words, iso_chunk_of(blocks.front())->bits, 24, true);
    add_words(&words, iso_chunk_of(blocks.front())->bits + 3, 8,
              false); // 61 bits of it are blocks'
    return words;
}

} // namespace

TEST_CASE("of a heap's metadata, any word that is damaged is found before the heap leaves")
{
    // how many words there are, and which; the child's heap is at the same place each time
    size_t count = 0, silent = 0, found = 0;
    const ChildResult counted = in_child([] {
        const Own own;
        const auto blocks = furnish(own.heap);
        fprintf(stderr, "%zu", metadata_of(own.heap, blocks).size());
        depart(own.heap); // undamaged: nothing is found
        return 0;
    });
    INFO(counted.stderr_text);
    REQUIRE(counted.exited_with(0));
    count = std::stoul(counted.stderr_text);
    REQUIRE(count > 350);
    for (size_t i = 0; i < count; i++) {
        const ChildResult child = in_child([i] {
            const Own own;
            const auto blocks = furnish(own.heap);
            const Word word = metadata_of(own.heap, blocks)[i];
            *word.at ^= UINT64_C(0xa5a5a5a5a5a5a5a5);
            depart(own.heap);
            return word.anything ? 0 : 1;
        });
        INFO("word " << i << ": " << child.stderr_text);
        if (child.exited_with(0)) {
            silent++; // free bits that can be, or what means nothing
            continue;
        }
        found++;
        REQUIRE(child.aborted());
        REQUIRE(line_count(child.stderr_text) == 1);
        REQUIRE(contains(child.stderr_text, "metadata at 0x"));
        REQUIRE(contains(child.stderr_text, "is damaged: "));
    }
    CHECK(found > count / 2);
}

TEST_CASE("a heap with damaged metadata never ends in a crash, whatever is done to it")
{
    // The heap's own words and the spans' small ones; not where blocks come from: a heap that is told
    // to take blocks from anywhere reads there first. Departing finds that (above).
    for (unsigned round = 0; round < 60; round++) {
        const ChildResult child = in_child([round] {
            const Own own;
            const auto blocks = furnish(own.heap);
            iso_slot_t *slot = iso_slot_of(own.heap);
            const unsigned unit = round % ISO_UNITS_PER_SLOT;
            uint64_t garbage = round < 30 ? UINT64_C(0xa5a5a5a5a5a5a5a5) : UINT64_MAX;
            memcpy(reinterpret_cast<char *>(&slot->spans[unit]) + ISO_SPAN_FIELDS + 8 * (round % 4),
                   &garbage, 8);
            for (size_t i = 0; i < blocks.size(); i++) {
                iso_free(blocks[i]);
                if (i % 2)
                    (void)!iso_malloc(own.heap, 16 + i % 2000);
            }
            depart(own.heap);
            return 0;
        });
        INFO("round " << round << ": " << child.stderr_text);
        REQUIRE((child.aborted() || child.exited_with(0)));
    }
}

TEST_CASE("a block of a page that has no block any more is free, whatever the page holds")
{
    const size_t size = GENERATE(16, 48, 80);
    const bool moves = GENERATE(false, true); // meanwhile, and back: the page is as it was
    const bool shared = GENERATE(false, true);
    CAPTURE(size, moves, shared);
    const ChildResult child = in_child([&] {
        const Own own;
        iso_heap_t *heap = own.heap;
        if (shared && iso_heap_create_flags(own.job, ISO_HEAP_SHARED, &heap) != ISO_OK)
            return 98;
        std::vector<char *> blocks;
        for (size_t i = 0; i < 3 * ISO_CHUNK_SIZE / size; i++)
            blocks.push_back(static_cast<char *>(iso_malloc(heap, size)));
        const auto *chunk = iso_chunk_of(blocks[ISO_CHUNK_SIZE / size]);
        char page[ISO_CHUNK_SIZE];
        memcpy(page, chunk, sizeof page);
        if (moves) { // pages of live chunks are shipped; this one is not when it comes back
            iso_heap_freeze(hold_of(heap));
            iso_heap_set_epoch(heap, ++hold_of(heap)->epoch);
            iso_heap_thaw(hold_of(heap));
        }
        char *dead = nullptr;
        for (char *block : blocks)
            if (iso_chunk_of(block) == chunk)
                iso_free(dead = block);
        if (moves)
            memcpy(const_cast<iso_chunk_t *>(chunk), page, sizeof page);
        for (int i = 0; i < 50; i++) // the others are what they were
            iso_free(iso_malloc(heap, size));
        iso_free(blocks.back());
        iso_heap_verify(hold_of(heap));
        fprintf(stderr, "%p\n", static_cast<void *>(dead));
        iso_free(dead);
        return 0;
    });
    INFO(child.stderr_text);
    CHECK(child.aborted());
    REQUIRE(line_count(child.stderr_text) == 2);
    const std::string address = child.stderr_text.substr(0, child.stderr_text.find('\n'));
    CHECK(contains(child.stderr_text, "iso_free(" + address + ")"));
    CHECK(contains(child.stderr_text, "free already"));
}

TEST_CASE("blocks in use that do not exist are found")
{
    const ChildResult child = in_child([] {
        const Own own;
        volatile uint64_t *bits = iso_chunk_of(iso_malloc(own.heap, 16))->bits;
        bits[3] = bits[3] & ~(UINT64_C(1) << 63);
        depart(own.heap);
        return 0;
    });
    INFO(child.stderr_text);
    CHECK(child.aborted());
    CHECK(contains(child.stderr_text, "blocks in use that do not exist"));
}

TEST_CASE("what arrives with a damaged first page is no heap")
{
    Own own;
    own.heap->epoch = 7;
    iso_hold_t *hold = hold_of(own.heap);
    hold->epoch = 7;
    iso_heap_freeze(hold);
    const auto arrived = [&](uint64_t epoch) {
        return iso_heap_check_arrived(own.heap, epoch, hold->extents, hold->extent_count);
    };
    CHECK(arrived(7) == ISO_OK);
    CHECK(arrived(8) == ISO_ERR_INVALID);
    iso_slot_of(own.heap)->check ^= 1;
    CHECK(arrived(7) == ISO_ERR_INVALID);
    iso_slot_of(own.heap)->check ^= 1;
    own.heap->layout++;
    CHECK(arrived(7) == ISO_ERR_VERSION);
    own.heap->layout--;
    iso_heap_thaw(hold);
    CHECK(iso_finalize(own.job) == ISO_OK);
}
