// The tables of size classes.
#include "core/heap_layout.h"
#include <catch2/catch.hpp>

TEST_CASE("the tables of size classes follow from the sizes", "[allocator]")
{
    for (size_t size = 0; size <= ISO_CLASS_MAX; size++) {
        const unsigned klass = iso_class_of(size);
        if (iso_classes[klass].size < size || (klass > 0 && iso_classes[klass - 1].size >= size))
            FAIL("size " << size << " is in class " << klass);
    }
    CHECK(iso_classes[ISO_TINY_CLASSES - 1].size == ISO_TINY_MAX);
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
