// Guards of freed large blocks where their slots change hands: none is left where a heap is used.
#include "ranks.hpp"

namespace {

constexpr size_t large = 5 << 20;

void fill(char *block, int value)
{
    for (size_t i = 0; i < large; i += 512)
        block[i] = static_cast<char>(value + static_cast<int>(i >> 12));
}

void look(const char *block, int value)
{
    for (size_t i = 0; i < large; i += 512)
        EXPECT(block[i] == static_cast<char>(value + static_cast<int>(i >> 12)));
}

// Large blocks until the whole space is in them, linked by their first words.
unsigned take_everything(iso_heap_t *heap)
{
    unsigned count = 0;
    while (auto *block = static_cast<char *>(iso_malloc(heap, large))) {
        fill(block, static_cast<int>(count++));
        std::memcpy(block, &count, sizeof count);
        void *before = iso_heap_root(heap);
        std::memcpy(block + 8, &before, sizeof before);
        iso_heap_set_root(heap, block);
    }
    return count;
}

void look_at_everything(iso_heap_t *heap, unsigned count)
{
    for (auto *block = static_cast<char *>(iso_heap_root(heap)); block; count--) {
        unsigned number = 0;
        std::memcpy(&number, block, sizeof number);
        EXPECT(number == count);
        void *before = nullptr;
        std::memcpy(&before, block + 8, sizeof before);
        const int value = static_cast<int>(number - 1);
        const char first[16] = {};
        std::memcpy(block, first, sizeof first);
        for (size_t i = 512; i < large; i += 512)
            EXPECT(block[i] == static_cast<char>(value + static_cast<int>(i >> 12)));
        block = static_cast<char *>(before);
    }
    EXPECT(count == 0);
}

// A rank frees large blocks, guarded; their slots go to another rank, which fills them; that heap comes
// to the first rank, is used, freed, and so on the other way round.
void change_hands()
{
    Job job;
    const uint32_t other = 1 - self;
    for (int round = 0; round < 4; round++) {
        const bool first = (round % 2 == 0) == (self == 0);
        if (first) {
            iso_heap_t *heap = job.heap();
            EXPECT(take_everything(heap) > 8);
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
            EXPECT(job.stats().guards > 0); // of slots of both ranks' strips
            job.barrier();
            Arrived arrived = job.receive();
            unsigned count = 0;
            std::memcpy(&count, arrived.header.data(), sizeof count);
            look_at_everything(arrived.heap, count);
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(arrived.heap));
        } else {
            job.barrier();
            iso_heap_t *heap = job.heap();
            const unsigned count = take_everything(heap);
            EXPECT(count > 8);
            job.send(heap, other, &count, sizeof count);
        }
        job.barrier();
    }
    EXPECT(job.stats().slots_received > 0);
    job.finish();
}

// A heap goes to and fro over pages that were left, while large blocks of it come and go.
void to_and_fro()
{
    Job job;
    iso_heap_t *heap = self == 0 ? job.heap() : nullptr;
    for (int turn = 0; turn < 12; turn++) {
        if (static_cast<int>(self) != turn % 2)
            continue;
        if (turn > 0)
            heap = job.receive().heap;
        if (auto *kept = static_cast<char *>(iso_heap_root(heap))) {
            look(kept, turn - 1);
            if (turn % 3 == 0)
                iso_free(kept);
        }
        auto *block = static_cast<char *>(iso_malloc(heap, large));
        auto *other = static_cast<char *>(iso_malloc(heap, large));
        EXPECT(block && other);
        fill(block, turn);
        fill(other, turn);
        iso_free(other);
        iso_heap_set_root(heap, block);
        if (turn < 11)
            job.send(heap, 1 - self);
    }
    job.barrier();
    job.finish();
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"change_hands", change_hands}, {"to_and_fro", to_and_fro}};
    return run_test(tests, argc, argv);
}
