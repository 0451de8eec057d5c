// Memory that an RDMA device has registered: it is pinned, and what the device writes there is what the processor
// reads, whatever became of the blocks meanwhile, also after fork(). ci/rdma runs these tests over such a device,
// where a registration that is stale shows; where nothing is pinned they hold, too, but for `space`.
#include "marked.hpp"
#include <dlfcn.h>
#include <random>
#include <sys/wait.h>

namespace {

// Each rank has put to the other, and has been put to.
void meet(Job &job)
{
    job.send(marked(job, 100000, 3), 1 - self);
    Arrived got = job.receive();
    expect_marked(got.heap, 100000, 3);
    EXPECT_STATUS(ISO_OK, iso_heap_destroy(got.heap));
    job.barrier();
}

// What is pinned beside the transport's own buffers is what is registered, the iso space; and nothing when the job
// has ended. Those buffers do not depend on the space: two jobs with spaces of different sizes tell them apart.
void space()
{
    size_t bytes[2] = {}, own[2] = {};
    const char *const sizes[2] = {"64M", "96M"};
    EXPECT(pinned() == 0);
    for (int i = 0; i < 2; i++) {
        setenv("ISO_SPACE_SIZE", sizes[i], 1);
        Job job;
        void *base = nullptr;
        iso_space(job.job, &base, &bytes[i]);
        meet(job);
        EXPECT(pinned() > bytes[i]);
        own[i] = pinned() - bytes[i];
        std::printf("rank %u: %zu KiB pinned, the space is %zu KiB\n", self, pinned() >> 10,
                    bytes[i] >> 10);
        job.barrier();
        job.finish();
        EXPECT(pinned() == 0);
    }
    EXPECT(bytes[0] != bytes[1] && own[0] == own[1]);
}

// What has been registered once is not registered again for a put out of it, nor for one into it; and what is deregistered, as
// windows are whose heaps are not in motion any more, is pinned no longer. registrations.c counts.
void registered_once()
{
    auto *registrations =
        reinterpret_cast<uint64_t (*)()>(dlsym(RTLD_DEFAULT, "test_registrations"));
    EXPECT(registrations != nullptr);
    constexpr size_t size = 300000;
    constexpr int warm_up = 3, rounds = 10;
    Job job;
    iso_heap_t *heap = self == 0 ? marked(job, size, 5) : nullptr;
    uint64_t warm = 0;
    for (int i = 0; i < warm_up + rounds; i++) {
        if (i == warm_up)
            warm = registrations();
        if (self == 0)
            job.send(heap, 1);
        heap = job.receive().heap;
        expect_marked(heap, size, 5);
        if (self == 1)
            job.send(heap, 0);
    }
    std::printf("rank %u: %llu registrations to warm up, %llu in %d migrations\n", self,
                static_cast<unsigned long long>(warm),
                static_cast<unsigned long long>(registrations() - warm), 2 * rounds);
    EXPECT(warm > 0 && registrations() == warm);
    job.barrier();
    job.finish();
    EXPECT(pinned() == 0);
}

// ---- blocks come and go while heaps do ----

// A heap's root: its blocks, each with contents that follow from its size and its mark.
struct Bag {
    static constexpr size_t places = 12;
    unsigned hops;
    unsigned char mark[places];
    size_t size[places];
    unsigned char *block[places];
};

unsigned char byte_at(const Bag *bag, size_t place, size_t i)
{
    return static_cast<unsigned char>(bag->mark[place] + i / 61 + (i >> 12));
}

void put_in(iso_heap_t *heap, Bag *bag, size_t place, std::mt19937 &random)
{
    static const size_t sizes[] = {100, 5000, 70000, 700000, 3 << 20};
    const size_t of =
        place < 2 ? 4
                  : random() % 4; // two large ones at most: such are guarded when they are freed
    bag->size[place] = sizes[of] / 2 + random() % (sizes[of] / 2);
    bag->mark[place] = static_cast<unsigned char>(random());
    bag->block[place] = static_cast<unsigned char *>(iso_malloc(heap, bag->size[place]));
    for (size_t i = 0; bag->block[place] != nullptr && i < bag->size[place]; i += 61)
        bag->block[place][i] = byte_at(bag, place, i);
}

void look_into(const Bag *bag)
{
    for (size_t place = 0; place < Bag::places; place++)
        for (size_t i = 0; bag->block[place] != nullptr && i < bag->size[place]; i += 61)
            EXPECT(bag->block[place][i] == byte_at(bag, place, i));
}

// Some blocks go, and others come, at once or at another rank.
void shake(iso_heap_t *heap, std::mt19937 &random)
{
    auto *bag = static_cast<Bag *>(iso_heap_root(heap));
    look_into(bag);
    for (size_t place = 0; place < Bag::places; place++) {
        if (random() % 3 == 0) {
            iso_free(bag->block[place]);
            bag->block[place] = nullptr;
        }
        if (bag->block[place] == nullptr && random() % 2 == 0)
            put_in(heap, bag, place, random);
    }
    look_into(bag);
}

iso_heap_t *fresh_bag(Job &job)
{
    iso_heap_t *heap = nullptr;
    if (iso_heap_create(job.job, &heap) != ISO_OK)
        return nullptr; // others have all slots
    auto *bag = static_cast<Bag *>(iso_calloc(heap, 1, sizeof(Bag)));
    EXPECT(bag != nullptr);
    iso_heap_set_root(heap, bag);
    return heap;
}

// Heaps wander from rank to rank; blocks in them are allocated, freed, guarded, given back and used again on
// the way, and heaps that nobody sends come and go between, in the slots that they have left.
void churn()
{
    constexpr unsigned heaps = 6;
    const unsigned hops = 160 / scale;
    Job job;
    std::mt19937 random(seed() + self);
    std::vector<iso_heap_t *> all;
    iso_heap_t *local = nullptr;
    for (unsigned i = 0; self == 0 && i < heaps; i++)
        all.push_back(fresh_bag(job));
    unsigned ended = 0;
    for (bool go_on = true; go_on;) {
        for (; !all.empty(); all.pop_back()) {
            iso_heap_t *heap = all.back();
            auto *bag = static_cast<Bag *>(iso_heap_root(heap));
            shake(heap, random);
            if (bag->hops == hops && self == 0) {
                EXPECT_STATUS(ISO_OK, iso_heap_destroy(heap));
                ended++;
                continue;
            }
            const uint32_t other = (self + 1 + random() % (job.size() - 1)) % job.size();
            const uint32_t next = bag->hops == hops ? 0 : other;
            bag->hops += bag->hops < hops;
            job.send(heap, next);
            if (local != nullptr && random() % 2 == 0) {
                EXPECT_STATUS(ISO_OK, iso_heap_destroy(local));
                local = nullptr;
            } else if (local == nullptr) {
                local = fresh_bag(job);
            }
            if (local != nullptr)
                shake(local, random);
        }
        if (self == 0 && ended == heaps) {
            for (uint32_t rank = 1; rank < job.size(); rank++)
                job.send(job.heap(), rank, "end", 3);
            break;
        }
        const Arrived got = job.receive();
        go_on = got.header.empty();
        if (go_on)
            all.push_back(got.heap);
    }
    job.barrier();
    EXPECT(job.stats().messages_dropped == 0);
    job.finish();
}

// Is all of it there?
void look_at(iso_heap_t *heap, size_t size)
{
    const auto *block = static_cast<volatile unsigned char *>(iso_heap_root(heap));
    for (size_t i = 0; i < size; i += 4096)
        (void)block[i];
}

// A child that is forked while memory is registered: what it has goes on being what it was, and what its parent's
// heaps do goes on being right, for the parent and for its peers.
void forked()
{
    constexpr size_t size = 6 << 20;
    Job job;
    const bool copied = std::string(iso_backing_name(job.job)) == "anon"; // else it is shared
    int go[2];
    iso_heap_t *stays = marked(job, size, 1), *moves = marked(job, size, 2);
    meet(job);
    EXPECT(pipe(go) == 0);
    const pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        char byte = 0;
        close(go[1]);
        if (copied) {
            expect_marked(stays, size, 1);
            expect_marked(moves, size, 2);
            std::memset(iso_heap_root(stays), 9, size);
        } else {
            look_at(stays, size);
        }
        EXPECT(read(go[0], &byte, 1) == 0); // until the parent has gone on
        if (copied) {
            expect_marked(stays, size, 9);
            expect_marked(moves, size, 2);
        }
        _exit(0);
    }
    close(go[0]);
    expect_marked(stays, size, 1);
    for (unsigned char mark = 3; mark < 7;
         mark++) { // there and back: puts out of this memory, and into it
        std::memset(iso_heap_root(moves), mark, size);
        job.send(moves, 1 - self);
        const Arrived away = job.receive();
        expect_marked(away.heap, size, mark);
        job.send(away.heap, 1 - self);
        moves = job.receive().heap;
        expect_marked(moves, size, mark);
        std::memset(iso_heap_root(stays), mark, size);
    }
    expect_marked(stays, size, 6);
    job.send(stays, 1 - self);
    expect_marked(job.receive().heap, size, 6);
    close(go[1]);
    int status = -1;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    job.barrier();
    job.finish();
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"space", space},
                          {"registered_once", registered_once},
                          {"churn", churn},
                          {"forked", forked}};
    return run_test(tests, argc, argv);
}
