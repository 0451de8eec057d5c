// Slots between ranks: borrowed where a rank has none, and more of them in one heap than a message can name.
#include "marked.hpp"

namespace {

void borrow()
{
    Job job; // with a space of 64 slots
    void *base = nullptr;
    size_t space = 0;
    iso_space(job.job, &base, &space);
    const uint64_t total = space / ISO_SLOT_SIZE, strip = total / job.size();
    if (self == 0) {
        std::vector<iso_heap_t *> heaps;
        iso_heap_t *heap = nullptr;
        while (iso_heap_create(job.job, &heap) == ISO_OK)
            heaps.push_back(heap);
        EXPECT(heaps.size() == total); // all of the others', too
        EXPECT_STATUS(ISO_ERR_NO_SPACE, iso_heap_create(job.job, &heap));
        errno = 0;
        EXPECT(iso_malloc(heaps[0], 3 << 20) == nullptr);
        EXPECT(errno == ENOMEM);
        for (iso_heap_t *one : heaps)
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(one));
        heap = job.heap();
        void *large = iso_malloc(heap, 10 << 20);
        EXPECT(large != nullptr);
        std::memset(large, 1, 10 << 20);
        job.barrier();
    } else {
        job.barrier();
        // what was freed came home, or comes when it is asked for
        for (uint64_t i = 0; i < strip / 2; i++)
            EXPECT(job.heap() != nullptr);
    }
    job.barrier();
    job.finish();
}

// More ranks than slots: whose strip is empty borrows before anything fails.
void borrow_first()
{
    Job job;
    void *base = nullptr;
    size_t space = 0;
    iso_space(job.job, &base, &space);
    EXPECT(space / ISO_SLOT_SIZE < job.size());
    for (uint32_t rank = 0; rank < job.size(); rank++) {
        if (rank == self) {
            std::vector<iso_heap_t *> heaps;
            for (iso_heap_t *heap = nullptr; iso_heap_create(job.job, &heap) == ISO_OK;) {
                EXPECT(iso_malloc(heap, 100) != nullptr);
                heaps.push_back(heap);
            }
            EXPECT(heaps.size() == space / ISO_SLOT_SIZE); // each has all of them in its turn
            for (iso_heap_t *one : heaps)
                EXPECT_STATUS(ISO_OK, iso_heap_destroy(one));
        }
        job.barrier();
    }
    job.finish();
}

// A heap of many large blocks, each of them an extent of its own and in its own place marked.
constexpr size_t scattered_size = 5000;

iso_heap_t *scattered(Job &job, size_t count, unsigned char mark)
{
    iso_heap_t *heap = job.heap();
    auto **blocks = static_cast<unsigned char **>(iso_calloc(heap, count + 1, sizeof(void *)));
    EXPECT(blocks != nullptr);
    iso_heap_set_root(heap, blocks);
    for (size_t i = 0; i < count; i++) {
        blocks[i] =
            static_cast<unsigned char *>(iso_aligned_alloc(heap, ISO_SLOT_SIZE, scattered_size));
        EXPECT(blocks[i] != nullptr);
        std::memset(blocks[i], static_cast<unsigned char>(mark + i), scattered_size);
    }
    return heap;
}

void expect_scattered(iso_heap_t *heap, size_t count, unsigned char mark)
{
    auto **blocks = static_cast<unsigned char **>(iso_heap_root(heap));
    for (size_t i = 0; i < count; i++)
        for (size_t at = 0; at < scattered_size; at++)
            EXPECT(blocks[i][at] == static_cast<unsigned char>(mark + i));
    EXPECT(blocks[count] == nullptr);
}

// More extents than one message holds: the list goes in parts.
void parts()
{
    constexpr size_t count = 1700;
    Job job;
    if (self == 0) {
        iso_heap_t *heap = scattered(job, count, 1);
        iso_heap_stats_t stats;
        EXPECT_STATUS(ISO_OK, iso_heap_stats(heap, &stats));
        EXPECT(stats.slots > count && stats.blocks == count + 1);
        job.send(heap, 1);
        heap = job.receive().heap;
        expect_scattered(heap, count, 1);
        iso_free(static_cast<void **>(iso_heap_root(heap))[count / 2]); // other extents than before
        static_cast<void **>(iso_heap_root(heap))[count / 2] =
            static_cast<void **>(iso_heap_root(heap))[0];
        job.send(heap, 1);
    } else {
        iso_heap_t *heap = job.receive().heap;
        expect_scattered(heap, count, 1);
        job.send(heap, 0); // back, by a grant where pages were left
        heap = job.receive().heap;
        iso_heap_stats_t stats;
        EXPECT_STATUS(ISO_OK, iso_heap_stats(heap, &stats));
        EXPECT(stats.blocks == count);
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
        EXPECT(job.stats().heaps == 0);
    }
    EXPECT(job.stats().messages_dropped == 0);
    job.barrier();
    job.finish();
}

// More messages than a peer that does not listen has room for: none is lost, and none overtakes.
void full_ring()
{
    constexpr size_t heaps = 120, extents = 100;
    Job job;
    std::vector<char> header(ISO_HEADER_MAX);
    if (self == 1) {
        tell_pid(job);
        std::vector<bool> seen(heaps);
        for (size_t i = 0; i < heaps; i++) {
            const Arrived got = job.receive();
            const auto mark = static_cast<unsigned char>(got.header[0]);
            EXPECT(got.header.size() == ISO_HEADER_MAX && got.header.back() == got.header[0]);
            EXPECT(mark < heaps && !seen[mark]);
            seen[mark] = true;
            expect_scattered(got.heap, extents, mark);
        }
        job.barrier();
    } else {
        const pid_t pid = hear_pid(job);
        std::vector<iso_request_t *> requests;
        std::vector<iso_heap_t *> all;
        for (size_t i = 0; i < heaps; i++)
            all.push_back(scattered(job, extents, static_cast<unsigned char>(i)));
        stop_process(pid);
        for (size_t i = 0; i < heaps; i++) {
            header.assign(ISO_HEADER_MAX, static_cast<char>(i));
            requests.push_back(job.start(all[i], 1, header.data(), header.size()));
        }
        for (int i = 0; i < 100; i++)
            iso_progress(job.job);
        EXPECT(kill(pid, SIGCONT) == 0);
        for (iso_request_t *request : requests)
            EXPECT_STATUS(ISO_OK, iso_wait(request));
        job.barrier();
    }
    EXPECT(job.stats().messages_dropped == 0);
    job.finish();
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {
        {"borrow", borrow},
        {"borrow_first", borrow_first},
        {"parts", parts},
        {"full_ring", full_ring},
    };
    return run_test(tests, argc, argv);
}
