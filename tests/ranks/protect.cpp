// Protections of a heap's pages where the heap goes: they are there at its next rank, and nowhere else.
#include "access.hpp"
#include "ranks.hpp"
#include <isomalloc/checkpoint.h>
#include <sys/mman.h>

namespace {

const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
constexpr int kinds[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_EXEC};
const char *const seen[] = {"---", "r--", "r-x"};

// What a heap's root says of it: blocks of several sizes, each with one page of each kind.
struct Contents {
    char *blocks[3];
    unsigned turns;
};

size_t size_of(size_t block)
{
    const size_t sizes[] = {4 * page, 100 * page, 3 << 20};
    return sizes[block];
}

// The page of a kind is in the middle: behind the first.
char *protected_page(const Contents *contents, size_t block, size_t kind)
{
    return contents->blocks[block] + (kind + 1) * page;
}

iso_heap_t *make(const Job &job)
{
    iso_heap_t *heap = job.heap();
    auto *contents = static_cast<Contents *>(iso_calloc(heap, 1, sizeof(Contents)));
    for (size_t i = 0; i < 3; i++) {
        contents->blocks[i] = static_cast<char *>(iso_aligned_alloc(heap, page, size_of(i)));
        EXPECT(contents->blocks[i] != nullptr);
        std::memset(contents->blocks[i], 'a' + static_cast<int>(i), size_of(i));
        for (size_t k = 0; k < 3; k++)
            EXPECT_STATUS(ISO_OK,
                          iso_protect(heap, protected_page(contents, i, k), page, kinds[k]));
    }
    iso_heap_set_root(heap, contents);
    return heap;
}

// The protections hold, and nothing else is protected.
void check_protected(const iso_heap_t *heap)
{
    const auto *contents = static_cast<const Contents *>(iso_heap_root(heap));
    for (size_t i = 0; i < 3; i++) {
        for (size_t k = 0; k < 3; k++)
            EXPECT(access_to(protected_page(contents, i, k)) == seen[k]);
        EXPECT(access_to(contents->blocks[i]) == "rw-");
        EXPECT(access_to(contents->blocks[i] + size_of(i) - 1) == (i == 0 ? "r-x" : "rw-"));
    }
}

// What the pages hold, which takes the protections away for a while.
void check_contents(iso_heap_t *heap)
{
    const auto *contents = static_cast<const Contents *>(iso_heap_root(heap));
    for (size_t i = 0; i < 3; i++) {
        const auto mark = static_cast<char>('a' + static_cast<int>(i));
        EXPECT_STATUS(ISO_OK, iso_protect(heap, protected_page(contents, i, 0), 3 * page,
                                          PROT_READ | PROT_WRITE));
        const char *block = contents->blocks[i];
        EXPECT(*block == mark && std::memcmp(block, block + 1, size_of(i) - 1) == 0);
        for (size_t k = 0; k < 3; k++)
            EXPECT_STATUS(ISO_OK,
                          iso_protect(heap, protected_page(contents, i, k), page, kinds[k]));
    }
}

// Nothing of them is left in this process.
void check_gone(const Contents &contents)
{
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < 3; k++)
            EXPECT(access_to(protected_page(&contents, i, k)) == "rw-");
}

// To every rank and home again, several times: the way back is by a standing grant.
void round_trip()
{
    Job job;
    iso_heap_t *heap = self == 0 ? make(job) : nullptr;
    const unsigned turns = 3 * job.size();
    for (unsigned turn = 0; turn < turns; turn++) {
        if (turn % job.size() != self) {
            job.barrier();
            continue;
        }
        if (turn > 0)
            heap = job.receive().heap;
        auto *contents = static_cast<Contents *>(iso_heap_root(heap));
        const Contents was = *contents;
        EXPECT(contents->turns++ == turn);
        check_protected(heap);
        if (turn % 2 == 1)
            check_contents(heap);
        EXPECT_STATUS(ISO_OK, iso_heap_populate(heap));
        check_protected(heap);
        job.send(heap, (self + 1) % job.size());
        check_gone(was);
        job.barrier();
    }
    if (self == turns % job.size()) {
        heap = job.receive().heap;
        check_protected(heap);
        check_contents(heap);
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
    }
    job.barrier();
    job.finish();
}

// Where it ends at another rank, its slots come home, and whoever gets them may use all of them.
void ends_elsewhere()
{
    Job job;
    for (int round = 0; round < 4; round++) {
        if (self == 0) {
            job.send(make(job), 1);
            job.barrier();
            iso_heap_t *heap = job.heap();
            for (int i = 0; i < 4; i++) { // more than there was
                const size_t size = 6 << 20;
                void *block = iso_malloc(heap, size);
                EXPECT(block != nullptr);
                std::memset(block, i, size);
                std::memset(iso_malloc(heap, size / 8), i, size / 8);
            }
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
        } else {
            iso_heap_t *heap = job.receive().heap;
            check_protected(heap);
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
            job.barrier();
        }
        job.barrier();
    }
    job.finish();
}

// A heap that stays has protected pages in a window that is registered for another one.
void neighbour()
{
    Job job;
    if (self == 0) {
        iso_heap_t *stays = make(job);
        for (int i = 0; i < 4; i++) {
            iso_heap_t *leaves = job.heap();
            std::memset(iso_malloc(leaves, 100 * page), i, 100 * page);
            job.send(leaves, 1);
            check_protected(stays);
        }
        check_contents(stays);
    } else {
        for (int i = 0; i < 4; i++)
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(job.receive().heap));
    }
    job.barrier();
    job.finish();
}

bool refuses(iso_job_t *, const iso_arrival_t *, void *)
{
    return self == 0;
}

// A migration that fails leaves them as they were.
void stays()
{
    Job job(refuses);
    job.barrier();
    if (self == 0) {
        iso_heap_t *heap = make(job);
        for (int i = 0; i < 3; i++) {
            EXPECT_STATUS(ISO_ERR_REFUSED, iso_wait(job.start(heap, 1)));
            check_protected(heap);
        }
        check_contents(heap);
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
    }
    job.barrier();
    job.finish();
}

// While it is on its way nothing of it is changed, or looked at.
void on_its_way()
{
    Job job;
    if (self == 0) {
        iso_heap_t *heap = make(job);
        char *block = static_cast<Contents *>(iso_heap_root(heap))->blocks[0];
        iso_request_t *request = job.start(heap, 1);
        const iso_status_t status = iso_protect(heap, block, page, PROT_NONE);
        EXPECT(status == ISO_ERR_BUSY || status == ISO_ERR_NOT_OWNER);
        EXPECT_STATUS(ISO_OK, iso_wait(request));
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_protect(heap, block, page, PROT_NONE));
    } else {
        check_protected(job.receive().heap);
    }
    job.barrier();
    job.finish();
}

// Saved where it has come to, and restored there after its end: by reading, and where the memory is this rank's own, mapped.
void saved()
{
    Job job;
    const std::string path = "protected-" + std::to_string(getpid()) + ".image";
    if (self == 0) {
        job.send(make(job), 1);
    } else {
        iso_heap_t *heap = job.receive().heap;
        EXPECT_STATUS(ISO_OK, iso_checkpoint(job.job, path.c_str(), &heap, 1, nullptr));
        check_protected(heap);
        for (const bool mapped : {false, true}) {
            if (mapped && std::string(iso_backing_name(job.job)) != "anon")
                continue;
            const Contents was = *static_cast<Contents *>(iso_heap_root(heap));
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
            check_gone(was);
            iso_image_t *image = nullptr;
            EXPECT_STATUS(ISO_OK, iso_image_open(path.c_str(), &image));
            EXPECT_STATUS(ISO_OK,
                          (mapped ? iso_image_map : iso_image_restore)(job.job, image, 0, &heap));
            iso_image_close(image);
            check_protected(heap);
            check_contents(heap);
        }
        unlink(path.c_str());
        job.send(heap, 0);
    }
    if (self == 0) {
        iso_heap_t *heap = job.receive().heap;
        check_protected(heap);
        check_contents(heap);
    }
    job.barrier();
    job.finish();
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"round_trip", round_trip}, {"ends_elsewhere", ends_elsewhere},
                          {"stays", stays},           {"neighbour", neighbour},
                          {"on_its_way", on_its_way}, {"saved", saved}};
    return run_test(tests, argc, argv);
}
