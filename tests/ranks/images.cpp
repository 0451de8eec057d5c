// Images over jobs: saved by some ranks, restored by as many, fewer or more, in a later job.
#include "ranks.hpp"
#include <fcntl.h>
#include <isomalloc/checkpoint.h>
#include <isomalloc/stack.h>
#include <sys/mman.h>

namespace {

const char *argument = nullptr; // the second one

// A list whose nodes are in two heaps by turns, which end up in the images of two ranks.
struct Node {
    Node *next;
    uint64_t value;
};
const uint64_t nodes = 20000 / sanitizer_scale;

struct Root {
    uint64_t maker;
    Node *list; // in the first of the two heaps; else NULL
    char large[3000000];
};

uint64_t value_of(uint64_t maker, uint64_t i)
{
    return maker * 1000003 + i * 7;
}

void make(Job &job, iso_heap_t *heaps[2])
{
    Root *roots[2];
    for (int which : {0, 1}) {
        heaps[which] = job.heap();
        roots[which] = static_cast<Root *>(iso_malloc(heaps[which], sizeof(Root)));
        EXPECT(roots[which] != nullptr);
        *roots[which] = {self, nullptr, {}};
        std::memset(roots[which]->large, static_cast<int>(self + 1), sizeof roots[which]->large);
        iso_heap_set_root(heaps[which], roots[which]);
    }
    for (uint64_t i = 0; i < nodes; i++) {
        auto *node = static_cast<Node *>(iso_malloc(heaps[i % 2], sizeof(Node)));
        EXPECT(node != nullptr);
        *node = {roots[0]->list, value_of(self, i)};
        roots[0]->list = node;
        if (i % 3 == 0)
            iso_free(iso_malloc(heaps[i % 2], 1000 + i % 5000));
    }
}

void check(const Root *root)
{
    for (const char byte : root->large)
        EXPECT(byte == static_cast<char>(root->maker + 1));
    uint64_t i = nodes;
    for (const Node *node = root->list; node != nullptr; node = node->next)
        EXPECT(node->value == value_of(root->maker, --i));
    EXPECT(root->list == nullptr || i == 0);
}

std::string image_of(uint32_t rank)
{
    return std::string(argument) + "/image." + std::to_string(rank);
}

void save_to(const std::string &path, Job &job, const std::vector<iso_heap_t *> &heaps)
{
    EXPECT_STATUS(ISO_OK, iso_checkpoint(job.job, path.c_str(), heaps.data(),
                                         static_cast<uint32_t>(heaps.size()), nullptr));
}

// Each rank makes two heaps, and the second moves on: image r has the first of r, and the second of the rank before.
void save()
{
    Job job;
    iso_heap_t *heaps[2];
    make(job, heaps);
    job.send(heaps[1], (self + 1) % job.size());
    heaps[1] = job.receive().heap;
    save_to(image_of(self), job, {heaps[0], heaps[1]});
    job.barrier();
    job.finish();
}

// Two checkpoints, between which a heap migrates: image.r is of the first set, image.r.next of the second.
void save_sets(uint64_t first, uint64_t second)
{
    Job job;
    iso_heap_t *heap = self == 0 ? job.heap() : nullptr;
    for (const bool again : {false, true}) {
        const char *end = again ? ".next" : "";
        iso_checkpoint_params_t params = {};
        params.struct_size = sizeof params;
        params.set = again ? second : first;
        EXPECT_STATUS(ISO_OK, iso_checkpoint(job.job, (image_of(self) + end).c_str(), &heap,
                                             heap != nullptr ? 1 : 0, &params));
        job.barrier();
        if (!again && self == 0) {
            job.send(heap, 1);
            heap = nullptr;
        } else if (!again && self == 1) {
            heap = job.receive().heap;
        }
        job.barrier();
    }
    job.finish();
}

void sets()
{
    save_sets(7, 8);
}

// The program gives no numbers.
void moments()
{
    save_sets(0, 0);
}

// The job begins; as many heaps as the argument says are restored at all ranks, of which it has one.
void begin()
{
    Job job;
    iso_stats_t stats;
    EXPECT_STATUS(ISO_OK, iso_restart(job.job, nullptr, nullptr));
    iso_stats(job.job, &stats);
    EXPECT(stats.heaps == std::strtoul(argument, nullptr, 10));
    job.finish();
}

struct Restored {
    std::vector<iso_heap_t *> heaps;
};

void restored(iso_job_t *job, iso_heap_t *heap, const iso_image_t *image, uint32_t number,
              void *arg)
{
    iso_image_info_t info;
    iso_image_heap_t in_image;
    iso_image_query(image, &info);
    EXPECT_STATUS(ISO_OK, iso_image_heap(image, number, &in_image));
    EXPECT(in_image.heap == heap && iso_heap_state(heap) == ISO_HEAP_OWNED);
    EXPECT(info.rank % iso_size(job) == iso_rank(job));
    static_cast<Restored *>(arg)->heaps.push_back(heap);
}

// Restores all; rank 0 gathers the heaps, of as many ranks as the argument says, follows the lists and ends them.
void restart()
{
    Job job;
    iso_heap_t *other = job.heap(); // nobody gets addresses that are to be restored
    for (int i = 0; i < 8; i++) {
        void *block = iso_malloc(other, 3000000);
        EXPECT(block != nullptr);
        std::memset(block, 0xff, 3000000);
    }
    Restored mine;
    EXPECT_STATUS(ISO_OK, iso_restart(job.job, restored, &mine));
    EXPECT_STATUS(ISO_OK, iso_restart(job.job, restored, nullptr)); // nothing is left to do
    job.barrier();
    if (self != 0) {
        for (iso_heap_t *heap : mine.heaps)
            job.send(heap, 0);
    } else {
        const size_t saved = 2 * std::strtoul(argument, nullptr, 10);
        while (mine.heaps.size() < saved)
            mine.heaps.push_back(job.receive().heap);
        size_t lists = 0;
        for (iso_heap_t *heap : mine.heaps) {
            const auto *root = static_cast<Root *>(iso_heap_root(heap));
            check(root);
            lists += root->list != nullptr;
        }
        EXPECT(lists == saved / 2);
        for (iso_heap_t *heap : mine.heaps) {
            EXPECT(iso_malloc(heap, 100) != nullptr && iso_malloc(heap, 5000000) != nullptr);
            iso_heap_stats_t stats; // which also looks for damage
            EXPECT_STATUS(ISO_OK, iso_heap_stats(heap, &stats));
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
        }
    }
    job.barrier();
    const auto *block = static_cast<unsigned char *>(iso_malloc(other, 1));
    EXPECT(block != nullptr);
    EXPECT_STATUS(ISO_OK, iso_heap_destroy(other));
    job.finish();
}

uint64_t bytes_of(const std::string &path)
{
    iso_image_t *image = nullptr;
    iso_image_info_t info;
    EXPECT_STATUS(ISO_OK, iso_image_open(path.c_str(), &image));
    EXPECT_STATUS(ISO_OK, iso_image_verify(image));
    iso_image_query(image, &info);
    iso_image_close(image);
    return info.bytes;
}

// As many ranks as have saved go on, and save an increment to what they were given.
void increment()
{
    Job job;
    Restored mine;
    EXPECT_STATUS(ISO_OK, iso_restart(job.job, restored, &mine));
    EXPECT(mine.heaps.size() == 2);
    for (iso_heap_t *heap : mine.heaps)
        EXPECT(iso_malloc(heap, 100) != nullptr);
    const std::string before = image_of(self), after = before + ".next";
    const iso_checkpoint_params_t params = {sizeof params, nullptr, 0, before.c_str(), 0};
    EXPECT_STATUS(ISO_OK, iso_checkpoint(job.job, after.c_str(), mine.heaps.data(), 2, &params));
    EXPECT(bytes_of(after) * 20 < bytes_of(before));
    job.barrier();
    job.finish();
}

// Of two ranks, and one image, which is rank 0's: rank 1 may not; damaged it is refused, and can be tried again.
void damaged()
{
    Job job;
    iso_image_t *image = nullptr;
    iso_heap_t *heap = nullptr;
    EXPECT_STATUS(ISO_OK, iso_image_open(argument, &image));
    iso_image_info_t info;
    iso_image_query(image, &info);
    if (self == 1)
        EXPECT_STATUS(ISO_ERR_NOT_OWNER, iso_image_restore(job.job, image, 0, &heap));
    job.barrier();
    if (self == 0) {
        const int fd = open(argument, O_RDWR | O_CLOEXEC);
        const auto at = static_cast<off_t>(4096 + info.page_bytes - 100);
        char byte = 0;
        EXPECT(pread(fd, &byte, 1, at) == 1);
        byte = static_cast<char>(~byte);
        EXPECT(pwrite(fd, &byte, 1, at) == 1);
        Restored none;
        const iso_stats_t before = job.stats();
        EXPECT_STATUS(ISO_ERR_INVALID, iso_restart(job.job, restored, &none)); // in its second heap
        EXPECT(none.heaps.size() == 1 && job.stats().heaps == before.heaps + 1);
        byte = static_cast<char>(~byte);
        EXPECT(pwrite(fd, &byte, 1, at) == 1);
        close(fd);
        EXPECT_STATUS(ISO_OK, iso_restart(job.job, restored, &none));
        EXPECT(none.heaps.size() == 2);
        EXPECT_STATUS(ISO_ERR_BUSY, iso_image_restore(job.job, image, 0, &heap)); // it is here
        // When it has ended its slots are free here, and the image is one as any.
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(none.heaps[0]));
        EXPECT_STATUS(ISO_OK, iso_image_restore(job.job, image, 0, &heap));
        EXPECT(heap == none.heaps[0]);
        // Away, it is alive.
        job.send(heap, 1);
        EXPECT_STATUS(ISO_ERR_BUSY, iso_image_restore(job.job, image, 0, &heap));
    } else {
        job.receive();
    }
    job.barrier();
    iso_image_close(image);
    job.finish();
}

uint32_t to_last(const iso_image_t * /*image*/, uint32_t number, uint32_t size, void * /*arg*/)
{
    EXPECT(iso_call_depth() > 0); // no thread may be switched here: the job's lock may be held
    return number == 0 ? size - 1 : 0;
}

// The program says who restores what.
void shared_out()
{
    iso_params_t params;
    iso_job_t *job = nullptr;
    EXPECT_STATUS(ISO_OK, iso_params_init(&params));
    params.image_rank = to_last;
    EXPECT_STATUS(ISO_OK, iso_init(&params, &job));
    self = iso_rank(job);
    EXPECT_STATUS(ISO_OK, iso_restart(job, nullptr, nullptr));
    iso_stats_t stats;
    iso_stats(job, &stats);
    const uint64_t images = std::strtoul(argument, nullptr, 10);
    EXPECT(stats.heaps == (self == 0 ? images : 0) + (self == iso_size(job) - 1 ? images : 0));
    EXPECT_STATUS(ISO_OK, iso_finalize(job));
}

// A heap whose original lives, here or at another rank, is not restored.
void alive()
{
    Job job;
    iso_heap_t *heap = nullptr, *none = nullptr;
    iso_image_t *image = nullptr;
    if (self == 0) {
        heap = job.heap();
        save_to(image_of(0), job, {heap});
    }
    job.barrier();
    EXPECT_STATUS(ISO_OK, iso_image_open(image_of(0).c_str(), &image));
    EXPECT_STATUS(ISO_ERR_BUSY, iso_image_restore(job.job, image, 0, &none));
    job.barrier();
    if (self == 0)
        job.send(heap, 1);
    else
        heap = job.receive().heap;
    EXPECT_STATUS(ISO_ERR_BUSY, iso_image_restore(job.job, image, 0, &none));
    job.barrier();
    if (self == 1) { // where it ends, its slots are free
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
        EXPECT_STATUS(ISO_OK, iso_image_restore(job.job, image, 0, &none));
        EXPECT(none == heap);
    }
    iso_image_close(image);
    job.barrier();
    job.finish();
}

// Something else is where the images were.
void taken()
{
    iso_image_t *image = nullptr;
    iso_job_t *job = nullptr;
    EXPECT_STATUS(ISO_OK, iso_image_open(argument, &image));
    iso_image_info_t info;
    iso_image_query(image, &info);
    iso_image_close(image);
    void *there = reinterpret_cast<void *>(info.space_base + (1u << 20)); // NOLINT
    EXPECT(mmap(there, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) ==
           there);
    EXPECT_STATUS(ISO_ERR_NO_SPACE, iso_init(nullptr, &job));
}

} // namespace

int main(int argc, char **argv)
{
    argument = argc > 2 ? argv[2] : "";
    return run_test({{"save", save},
                     {"restart", restart},
                     {"increment", increment},
                     {"sets", sets},
                     {"moments", moments},
                     {"begin", begin},
                     {"damaged", damaged},
                     {"shared_out", shared_out},
                     {"alive", alive},
                     {"taken", taken}},
                    argc, argv);
}
