// What is in a heap is there after it has moved: every byte, at every rank, and no more than that is
// shipped.
#include "ranks.hpp"
#include <algorithm>
#include <random>
#include <set>

namespace {

// ---- a graph with pointers both ways ----

struct Node {
    Node *next, *previous, *other; // other: a random node, whose `from` is this one
    Node *from;
    uint64_t value;
};

uint64_t check_graph(const iso_heap_t *heap, uint64_t count)
{
    uint64_t sum = 0, seen = 0;
    for (Node *node = static_cast<Node *>(iso_heap_root(heap)); node != nullptr;
         node = node->next) {
        EXPECT(iso_heap_of(node) == heap);
        EXPECT(node->next == nullptr || node->next->previous == node);
        EXPECT(node->other->from == node);
        sum = sum * 31 + node->value;
        seen++;
    }
    EXPECT(seen == count);
    return sum;
}

iso_heap_t *build_graph(Job &job, uint64_t count)
{
    iso_heap_t *heap = job.heap();
    std::vector<Node *> nodes(count);
    for (uint64_t i = 0; i < count; i++)
        EXPECT((nodes[i] = static_cast<Node *>(iso_malloc(heap, sizeof(Node)))) != nullptr);
    std::vector<Node *> others = nodes;
    std::mt19937_64 random(5);
    std::shuffle(others.begin(), others.end(), random);
    for (uint64_t i = 0; i < count; i++) {
        *nodes[i] = {i + 1 < count ? nodes[i + 1] : nullptr, i > 0 ? nodes[i - 1] : nullptr,
                     others[i], nodes[i]->from, random()};
        others[i]->from = nodes[i];
    }
    iso_heap_set_root(heap, nodes[0]);
    return heap;
}

// Heaps full of ones travel and end, so that slots have had other lives everywhere.
void soil(Job &job)
{
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 4; i++) {
            iso_heap_t *heap = job.heap();
            void *block = iso_malloc(heap, 3000000);
            EXPECT(block != nullptr);
            std::memset(block, 0xff, 3000000);
            job.send(heap, (self + 1) % job.size());
        }
        for (int i = 0; i < 4; i++)
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(job.receive().heap));
        job.barrier();
    }
}

void check_zero(iso_heap_t *heap)
{
    for (const size_t size : {24, 500, 5000, 70000, 2500000}) {
        auto *block = static_cast<unsigned char *>(iso_calloc(heap, 1, size));
        EXPECT(block != nullptr);
        for (size_t i = 0; i < size; i++)
            EXPECT(block[i] == 0);
        std::memset(block, 0xff, size);
        iso_free(block);
    }
}

void graph()
{
    Job job;
    const uint64_t count = 1000000 / scale;
    soil(job);
    void *base = nullptr;
    size_t size = 0;
    iso_space(job.job, &base, &size);
    for (uint32_t lap = 0; lap < 2; lap++) {
        if (self == 0) {
            iso_heap_t *heap = build_graph(job, count);
            uint64_t sum = check_graph(heap, count);
            check_zero(heap);
            job.send(heap, 1 % job.size(), &sum, sizeof sum);
        }
        const Arrived got = job.receive();
        uint64_t sum = 0;
        EXPECT(got.header.size() == sizeof sum);
        std::memcpy(&sum, got.header.data(), sizeof sum);
        EXPECT(check_graph(got.heap, count) == sum);
        check_zero(got.heap);
        if (self != 0)
            job.send(got.heap, (self + 1) % job.size(), &sum, sizeof sum);
        else
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(got.heap));
        job.barrier();
    }
    job.finish();
}

// ---- what is shipped ----

struct Pages {
    std::set<uintptr_t> pages, slots;
    size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
};

uint64_t allowed(iso_heap_t *heap)
{
    Pages count;
    EXPECT_STATUS(ISO_OK, iso_heap_walk(
                              heap,
                              [](void *block, size_t size, void *arg) {
                                  auto *c = static_cast<Pages *>(arg);
                                  const auto at = reinterpret_cast<uintptr_t>(block);
                                  for (uintptr_t p = at / c->page; p <= (at + size - 1) / c->page;
                                       p++)
                                      c->pages.insert(p);
                                  for (uintptr_t s = at / ISO_SLOT_SIZE;
                                       s <= (at + size - 1) / ISO_SLOT_SIZE; s++)
                                      c->slots.insert(s);
                                  return true;
                              },
                              &count));
    const uint64_t live = count.pages.size() * count.page;
    return live + live / 50 + std::max<uint64_t>(65536, 4 * count.page) +
           count.slots.size() * count.page;
}

void ship_once(Job &job, size_t size, size_t total, const char *pattern)
{
    struct Kept {
        Kept *next;
        size_t size;
    };
    const auto fill = [](Kept *block) {
        return static_cast<int>(reinterpret_cast<uintptr_t>(block) >> 4 & 0xff);
    };
    if (self == 0) {
        iso_heap_t *heap = job.heap();
        std::vector<Kept *> blocks;
        std::mt19937 random(9);
        for (size_t bytes = 0; bytes < total; bytes += size) {
            blocks.push_back(static_cast<Kept *>(iso_malloc(heap, size)));
            EXPECT(blocks.back() != nullptr);
        }
        Kept *kept = nullptr;
        for (Kept *block : blocks) {
            const auto address = reinterpret_cast<uintptr_t>(block);
            const bool odd = (address >> 20 & 1) != 0;
            const bool group = (address >> 13) * 2654435761u % 1000 < 900;
            if (*pattern == 'e' || (*pattern == 's' && odd) || (*pattern == 'g' && group) ||
                (*pattern == 'r' && random() % 10 != 0)) {
                iso_free(block);
                continue;
            }
            std::memset(block, fill(block), size);
            *block = {kept, size};
            kept = block;
        }
        iso_heap_set_root(heap, kept);
        const uint64_t most = allowed(heap);
        iso_request_t *request = job.start(heap, 1);
        iso_request_info_t info;
        iso_request_query(request, &info);
        EXPECT(info.path == ISO_PATH_PUT);
        EXPECT(info.live_bytes <= most);
        EXPECT(info.live_bytes > 0);
        EXPECT_STATUS(ISO_OK, iso_wait(request));
        job.barrier();
        return;
    }
    if (self == 1) {
        const Arrived got = job.receive();
        for (Kept *block = static_cast<Kept *>(iso_heap_root(got.heap)); block != nullptr;) {
            const auto *bytes = reinterpret_cast<unsigned char *>(block);
            for (size_t i = sizeof *block; i < size; i++)
                EXPECT(bytes[i] == fill(block));
            Kept *next = block->next;
            if ((reinterpret_cast<uintptr_t>(block) >> 6 & 1) != 0)
                iso_free(block);
            block = next;
        }
        for (int i = 0; i < 1000; i++) // it goes on being a heap
            EXPECT(iso_malloc(got.heap, size) != nullptr);
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(got.heap));
    }
    job.barrier();
}

void shipped()
{
    Job job;
    for (const size_t size : {64, 4096, 65536}) {
        for (const char *pattern :
             {"full", "second MiB freed", "random 90 % freed", "groups of 8 KiB, 90 % freed"})
            ship_once(job, size, (size_t{48} << 20) / scale, pattern);
        ship_once(job, size, (size_t{1} << 30) / scale, "emptied");
    }
    job.finish();
}

// ---- back and forth ----

size_t lines_of(const char *path)
{
    FILE *file = std::fopen(path, "re");
    size_t lines = 0;
    for (int c; (c = std::fgetc(file)) != EOF;)
        lines += c == '\n';
    std::fclose(file);
    return lines;
}

// A second heap goes the other way, so that what the two leave behind does not fit ISO_RETAIN: the rank
// that they left revokes its grants while they are on their way back. Its one block has another size at
// each hop.
struct Companion {
    uint64_t hop, size;
    unsigned char *bytes()
    {
        return reinterpret_cast<unsigned char *>(this + 1);
    }
};

// Returns the number of its hop.
uint64_t renew_companion(iso_heap_t *heap)
{
    auto *old = static_cast<Companion *>(iso_heap_root(heap));
    const uint64_t hop = old == nullptr ? 0 : old->hop + 1, size = 1 + hop * 7919 % 400000;
    if (old != nullptr) {
        for (uint64_t i = 0; i < old->size; i += 61)
            EXPECT(old->bytes()[i] == static_cast<unsigned char>(old->hop + i));
        iso_free(old);
    }
    auto *data = static_cast<Companion *>(iso_malloc(heap, sizeof(Companion) + size));
    EXPECT(data != nullptr);
    *data = {hop, size};
    for (uint64_t i = 0; i < size; i += 61)
        data->bytes()[i] = static_cast<unsigned char>(hop + i);
    iso_heap_set_root(heap, data);
    return hop;
}

void pingpong()
{
    Job job;
    constexpr size_t words = 4000;
    const unsigned hops = 10000 / scale;
    struct Data {
        uint64_t hop;
        uint64_t *block; // freed and allocated anew now and then
        void *litter;
        uint64_t values[words];
    };
    size_t maps = 0;
    std::deque<iso_request_t *> requests;
    const auto send_on = [&](iso_heap_t *heap, uint64_t hop, const char *name) {
        if (hop < hops)
            requests.push_back(job.start(heap, 1 - self, name, std::strlen(name)));
    };
    const auto visit = [&](iso_heap_t *heap) {
        auto *data = static_cast<Data *>(iso_heap_root(heap));
        const uint64_t hop = data->hop;
        for (size_t i = 0; i < words; i++)
            EXPECT(data->values[i] == hop * (i + 1) && data->block[i] == hop * (i + 1));
        if (hop % 7 == 0) {
            iso_free(data->block);
            void *litter = iso_malloc(heap, 1 + hop * 37 % 200000); // so that it lies elsewhere
            EXPECT(litter != nullptr);
            iso_free(data->litter);
            data->litter = litter;
            data->block = static_cast<uint64_t *>(iso_malloc(heap, words * 8));
            EXPECT(data->block != nullptr);
        }
        data->hop++;
        for (size_t i = 0; i < words; i++)
            data->values[i] = data->block[i] = data->hop * (i + 1);
        if (hop == 200 || hop == 201)
            maps = lines_of("/proc/self/maps");
        send_on(heap, hop, "");
    };
    iso_heap_t *first = job.heap();
    if (self == 0) {
        auto *data = static_cast<Data *>(iso_calloc(first, 1, sizeof(Data)));
        data->block = static_cast<uint64_t *>(iso_calloc(first, words, 8));
        iso_heap_set_root(first, data);
        visit(first);
    } else {
        send_on(first, renew_companion(first), "companion");
    }
    for (unsigned visits = 0; visits < hops; visits++) {
        const Arrived got = job.receive();
        if (got.header.empty())
            visit(got.heap);
        else
            send_on(got.heap, renew_companion(got.heap), "companion");
        for (size_t i = requests.size(); i-- > 0; requests.pop_front()) {
            const iso_status_t status = iso_test(requests.front());
            if (status == ISO_INPROGRESS)
                requests.push_back(requests.front());
            else
                EXPECT_STATUS(ISO_OK, status);
        }
    }
    for (iso_request_t *request : requests)
        EXPECT_STATUS(ISO_OK, iso_wait(request));
    EXPECT(lines_of("/proc/self/maps") <= maps + 8);
    const iso_stats_t stats = job.stats();
    const char *retain = std::getenv("ISO_RETAIN"), *transport = std::getenv("ISO_TRANSPORT");
    // over libfabric heaps move so much in step that fewer grants are in the way of others
    const bool in_step = transport != nullptr && std::string(transport) == "ofi";
    if (retain != nullptr && std::string(retain) == "0")
        EXPECT(stats.grants_used == 0 && stats.retained_bytes == 0);
    else if (stats.handovers_out == 0 && retain != nullptr && std::string(retain) == "512K")
        EXPECT(stats.grants_used > hops / 20 && stats.grants_revoked > hops / (in_step ? 200 : 20));
    else if (stats.handovers_out == 0)
        EXPECT(stats.grants_used >= stats.migrations_out / 4);
    EXPECT(stats.messages_dropped == 0);
    job.barrier();
    job.finish();
}

void come_home()
{
    Job job;
    const unsigned heaps = 50000 / scale;
    if (self == 0) {
        std::deque<iso_request_t *> requests;
        for (unsigned i = 0; i < heaps; i++) {
            iso_heap_t *heap = job.heap();
            auto *value = static_cast<unsigned *>(iso_malloc(heap, sizeof(unsigned)));
            *value = i;
            iso_heap_set_root(heap, value);
            requests.push_back(job.start(heap, 1, &i, sizeof i));
            for (; requests.size() > i % 9; requests.pop_front())
                EXPECT_STATUS(ISO_OK, iso_wait(requests.front()));
        }
        for (; !requests.empty(); requests.pop_front())
            EXPECT_STATUS(ISO_OK, iso_wait(requests.front()));
    } else if (self == 1) {
        for (unsigned i = 0; i < heaps; i++) {
            const Arrived got = job.receive();
            unsigned sent = 0;
            std::memcpy(&sent, got.header.data(), sizeof sent);
            EXPECT(*static_cast<unsigned *>(iso_heap_root(got.heap)) == sent);
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(got.heap));
        }
    }
    job.barrier();
    EXPECT(job.stats().heaps == 0);
    EXPECT(job.stats().messages_dropped == 0);
    if (self == 0)
        EXPECT(job.stats().slots_received > heaps / 2);
    job.finish();
}

// Heaps of all sizes go in all directions at once; each is somewhere, once, and whole.
struct Wanderer {
    uint64_t size, id, hops;
    unsigned char *bytes() // behind it
    {
        return reinterpret_cast<unsigned char *>(this + 1);
    }
};

void paint(Wanderer *w)
{
    for (uint64_t i = 0; i < w->size; i += 61)
        w->bytes()[i] = static_cast<unsigned char>(w->id * 31 + i + w->hops);
}

void expect_painted(Wanderer *w)
{
    for (uint64_t i = 0; i < w->size; i += 61)
        EXPECT(w->bytes()[i] == static_cast<unsigned char>(w->id * 31 + i + w->hops));
}

void overlap()
{
    const unsigned per_rank = scale < 16 ? 32 : 8;
    Job job;
    std::mt19937 random(seed() + self);
    std::vector<iso_heap_t *> here;
    std::vector<iso_request_t *> requests;
    for (unsigned i = 0; i < per_rank; i++) {
        iso_heap_t *heap = job.heap();
        const uint64_t size = random() % 16 == 0 ? random() % 3000000 : random() % 30000;
        auto *w = static_cast<Wanderer *>(iso_malloc(heap, sizeof(Wanderer) + size));
        EXPECT(w != nullptr);
        *w = {size, self * per_rank + i, 0};
        paint(w);
        iso_heap_set_root(heap, w);
        here.push_back(heap);
    }
    const double until = now() + 4;
    while (now() < until || !requests.empty()) {
        while (now() < until && !here.empty() && requests.size() < 64 && random() % 4 != 0) {
            std::swap(here[random() % here.size()], here.back());
            auto *w = static_cast<Wanderer *>(iso_heap_root(here.back()));
            expect_painted(w);
            w->hops++;
            paint(w);
            requests.push_back(
                job.start(here.back(), static_cast<uint32_t>(random()) % job.size()));
            here.pop_back();
        }
        iso_progress(job.job);
        for (size_t i = 0; i < requests.size();) {
            const iso_status_t status = iso_test(requests[i]);
            if (status == ISO_INPROGRESS) {
                i++;
                continue;
            }
            EXPECT_STATUS(ISO_OK, status);
            requests[i] = requests.back();
            requests.pop_back();
        }
        for (; !job.arrivals.empty(); job.arrivals.pop_front())
            here.push_back(job.arrivals.front().heap);
    }
    job.barrier();
    for (; !job.arrivals.empty(); job.arrivals.pop_front())
        here.push_back(job.arrivals.front().heap);
    EXPECT(job.stats().heaps == here.size());
    EXPECT(job.stats().messages_dropped == 0);
    // all of them to rank 0, which counts
    for (iso_heap_t *heap : here) {
        expect_painted(static_cast<Wanderer *>(iso_heap_root(heap)));
        job.send(heap, 0);
    }
    if (self == 0) {
        std::set<uint64_t> seen;
        while (seen.size() < per_rank * job.size()) {
            const Arrived got = job.receive();
            auto *w = static_cast<Wanderer *>(iso_heap_root(got.heap));
            expect_painted(w);
            EXPECT(seen.insert(w->id).second);
        }
    }
    job.barrier();
    EXPECT(job.arrivals.empty());
    job.finish();
}

} // namespace

int main(int argc, char **argv)
{
    const Test tests[] = {{"graph", graph},
                          {"shipped", shipped},
                          {"pingpong", pingpong},
                          {"come_home", come_home},
                          {"overlap", overlap}};
    return run_test(tests, argc, argv);
}
