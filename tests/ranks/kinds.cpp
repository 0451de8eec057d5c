// Every kind of pup_er, and every kind of object: each goes through memory and files at its rank, to the other rank by
// iso_migrate_pup, the same there, and back.
#include "ranks.hpp"
#include <isomalloc/pup.h>
#include <random>

namespace {

iso_job_t *the_job = nullptr;
size_t block_bytes = 0; // of the large block

struct Node {
    Node *next;
    uint64_t value;
};

struct Object {
    uint32_t number, count;
    double value;
    char name[20];
    double *weights; // from malloc, count of them
    char **texts;    // from malloc, and each of them
    iso_heap_t *heap;
    void *block;
    uint64_t block_size;
};

const size_t list_nodes = 1000000 / scale, holes = 20000 / scale;

// ---- what there is, and how it is made and looked at ----

void pup_array(pup_er p, Object *object)
{
    if (pup_isUnpacking(p)) {
        object->weights = static_cast<double *>(calloc(object->count + 1, sizeof(double)));
        object->texts = static_cast<char **>(calloc(object->count + 1, sizeof(char *)));
    }
    pup_doubles(p, object->weights, object->count);
    for (uint32_t i = 0; i < object->count; i++) {
        size_t length = object->texts[i] != nullptr ? std::strlen(object->texts[i]) : 0;
        pup_size_t(p, &length);
        if (pup_isUnpacking(p))
            object->texts[i] = static_cast<char *>(calloc(length + 1, 1));
        pup_chars(p, object->texts[i], length);
    }
    if (!pup_isDeleting(p))
        return;
    for (uint32_t i = 0; i < object->count; i++)
        free(object->texts[i]);
    free(object->texts);
    free(object->weights);
    object->texts = nullptr;
    object->weights = nullptr;
}

void pup_object(pup_er p, void *it)
{
    auto *object = static_cast<Object *>(it);
    pup_uint(p, &object->number);
    pup_uint(p, &object->count);
    pup_double(p, &object->value);
    pup_chars(p, object->name, sizeof object->name);
    bool has[3] = {object->weights != nullptr, object->heap != nullptr, object->block != nullptr};
    pup_bytes(p, has, sizeof has);
    if (has[0])
        pup_array(p, object);
    if (has[1])
        iso_pup_heap(p, the_job, &object->heap);
    pup_ulong(p, &object->block_size);
    if (has[2])
        iso_pup_block(p, the_job, &object->block);
}

Object small()
{
    Object object = {};
    object.value = 0.5;
    std::strcpy(object.name, "a name");
    return object;
}

Object arrays()
{
    Object object = small();
    object.count = 3000;
    object.weights = static_cast<double *>(calloc(object.count + 1, sizeof(double)));
    object.texts = static_cast<char **>(calloc(object.count + 1, sizeof(char *)));
    for (uint32_t i = 0; i < object.count; i++) {
        object.weights[i] = i * 0.25;
        object.texts[i] = static_cast<char *>(calloc(i % 100 + 1, 1));
        std::memset(object.texts[i], 'a' + static_cast<int>(i % 26), i % 100);
    }
    return object;
}

Node *add(iso_heap_t *heap, Node *next, uint64_t value, size_t size)
{
    auto *node = static_cast<Node *>(iso_malloc(heap, size));
    EXPECT(node != nullptr);
    *node = {next, value};
    return node;
}

Object list()
{
    Object object = small();
    Node *first = nullptr;
    EXPECT_STATUS(ISO_OK, iso_heap_create(the_job, &object.heap));
    for (size_t i = 0; i < list_nodes; i++)
        first = add(object.heap, first, i, sizeof(Node));
    iso_heap_set_root(object.heap, first);
    object.count = list_nodes;
    return object;
}

// Every other block of all sizes is freed.
Object half_freed()
{
    Object object = small();
    std::minstd_rand random(seed());
    Node *first = nullptr;
    std::vector<void *> gone;
    EXPECT_STATUS(ISO_OK, iso_heap_create(the_job, &object.heap));
    for (size_t i = 0; i < holes; i++) {
        const size_t size = i % 1000 == 0 ? 3000000 : 16 + random() % 3000;
        if (i % 2 == 0)
            first = add(object.heap, first, i, size);
        else
            gone.push_back(iso_malloc(object.heap, size));
    }
    for (void *block : gone)
        iso_free(block);
    iso_heap_set_root(object.heap, first);
    object.count = static_cast<uint32_t>(holes / 2);
    return object;
}

Object block()
{
    Object object = small();
    object.block_size = block_bytes;
    object.block = iso_movable_alloc(the_job, block_bytes);
    EXPECT(object.block != nullptr);
    auto *words = static_cast<uint64_t *>(object.block);
    for (size_t i = 0; i < block_bytes / 8; i++)
        words[i] = i * 0x9e3779b97f4a7c15u;
    return object;
}

void check(const Object &object, uint32_t number)
{
    EXPECT(object.number == number && object.value == 0.5);
    EXPECT(std::strcmp(object.name, "a name") == 0);
    for (uint32_t i = 0; object.weights != nullptr && i < object.count; i++) {
        EXPECT(object.weights[i] == i * 0.25 && std::strlen(object.texts[i]) == i % 100);
        EXPECT(i % 100 == 0 || object.texts[i][i % 100 - 1] == 'a' + static_cast<int>(i % 26));
    }
    if (object.heap != nullptr) {
        const bool holed = object.count == holes / 2;
        uint64_t seen = 0;
        for (auto *node = static_cast<Node *>(iso_heap_root(object.heap)); node != nullptr;
             node = node->next)
            EXPECT(node->value == (object.count - ++seen) * (holed ? 2 : 1));
        EXPECT(seen == object.count);
        iso_free(iso_malloc(object.heap, 1000)); // it can be used
    }
    const auto *words = static_cast<const uint64_t *>(object.block);
    for (size_t i = 0; words != nullptr && i < object.block_size / 8; i++)
        EXPECT(words[i] == i * 0x9e3779b97f4a7c15u);
}

// ---- kinds ----

size_t size_of(Object *object)
{
    pup_er p = pup_new_sizer();
    pup_object(p, object);
    EXPECT_STATUS(ISO_OK, iso_pup_status(p));
    const size_t size = pup_size(p);
    pup_destroy(p);
    return size;
}

uint64_t sum_of(Object *object)
{
    pup_er p = iso_pup_new_checksum();
    pup_object(p, object);
    EXPECT_STATUS(ISO_OK, iso_pup_status(p));
    const uint64_t sum = iso_pup_digest(p);
    pup_destroy(p);
    return sum;
}

// One of the program's own: to and from the end of a string.
struct Own {
    std::string bytes;
    size_t at = 0;
};
const iso_pup_kind_t to_own = {
    sizeof to_own,
    "to a string",
    ISO_PUP_PACKING,
    [](void *context, void *data, size_t count, size_t size, iso_pup_type_t) {
        static_cast<Own *>(context)->bytes.append(static_cast<char *>(data), count * size);
        return ISO_OK;
    },
    nullptr,
    nullptr,
    nullptr};
const iso_pup_kind_t from_own = {
    sizeof from_own,
    "from a string",
    ISO_PUP_UNPACKING,
    [](void *context, void *data, size_t count, size_t size, iso_pup_type_t) {
        auto *own = static_cast<Own *>(context);
        if (count * size > own->bytes.size() - own->at)
            return ISO_ERR_INVALID;
        std::memcpy(data, own->bytes.data() + own->at, count * size);
        own->at += count * size;
        return ISO_OK;
    },
    nullptr,
    nullptr,
    nullptr};

constexpr const char *kind_names[] = {
    "memory", "memory of Converse's", "descriptor", "stdio", "labels", "own", "network"};

// The object goes through it: it is nowhere else meanwhile.
void through(size_t kind, Object *object, size_t size)
{
    std::vector<char> room(kind <= 1 || kind == 6 ? size : kind == 4 ? 2 * size + (1u << 20) : 0);
    FILE *file = kind == 2 || kind == 3 ? std::tmpfile() : nullptr;
    Own own;
    auto make = [&](bool packs) -> pup_er {
        switch (kind) {
        case 1:
            return packs ? pup_new_toMem(room.data()) : pup_new_fromMem(room.data());
        case 2:
            EXPECT(lseek(fileno(file), 0, SEEK_SET) == 0);
            return packs ? iso_pup_new_to_fd(fileno(file)) : iso_pup_new_from_fd(fileno(file));
        case 3:
            std::rewind(file);
            return packs ? iso_pup_new_to_file(file) : iso_pup_new_from_file(file);
        case 6:
            return packs ? pup_new_network_pack(room.data()) : pup_new_network_unpack(room.data());
        case 5:
            return packs ? iso_pup_new(&to_own, &own) : iso_pup_new(&from_own, &own);
        default:
            return packs ? iso_pup_new_to_memory(room.data(), room.size())
                         : iso_pup_new_from_memory(room.data(), room.size());
        }
    };
    for (const bool packs : {true, false}) {
        pup_er below = make(packs);
        EXPECT(below != nullptr);
        if (packs)
            EXPECT_STATUS(ISO_OK, iso_pup_set_use(below, ISO_PUP_DELETING));
        else
            *object = {};
        pup_er p = kind == 4 ? pup_new_fmt(below) : below;
        pup_object(p, object);
        EXPECT_STATUS(ISO_OK, iso_pup_flush(p));
        if (packs)
            EXPECT(object->heap == nullptr && object->block == nullptr &&
                   object->weights == nullptr);
        if (kind == 4)
            pup_destroy(p);
        pup_destroy(below);
    }
    if (file != nullptr)
        std::fclose(file);
}

void every_kind(Object *object, uint32_t number, uint32_t hop)
{
    const size_t size = size_of(object);
    const bool by_value = object->heap == nullptr && object->block == nullptr;
    const uint64_t sum = sum_of(object);
    EXPECT(sum_of(object) == sum); // of heaps and blocks as well: they are as they were
    check(*object, number);
    for (size_t kind = 0; kind < std::size(kind_names); kind++) {
        // of what is large some kinds at each stop do: each kind at one of them
        if (object->block != nullptr && kind % (iso_size(the_job) + 1) != hop)
            continue;
        through(kind, object, size);
        check(*object, number);
        EXPECT(object->block != nullptr || object->heap != nullptr || size_of(object) == size);
        EXPECT(!by_value || sum_of(object) == sum);
    }
}

std::deque<Object *> came;

void on_object(iso_job_t * /*job*/, void *object, uint32_t /*source*/, iso_status_t status,
               void * /*arg*/)
{
    EXPECT_STATUS(ISO_OK, status);
    came.push_back(static_cast<Object *>(object));
}

} // namespace

int main(int argc, char **argv)
{
    Job job;
    the_job = job.job;
    block_bytes = argc > 1 ? std::strtoull(argv[1], nullptr, 10) << 20 : 64u << 20;
    const iso_object_type_t type = {sizeof type, "object", sizeof(Object), pup_object,
                                    on_object,   nullptr,  nullptr};
    EXPECT_STATUS(ISO_OK, iso_pup_register(job.job, &type));
    Object (*const makers[])() = {small, arrays, list, half_freed, block};
    for (uint32_t number = 0; number < std::size(makers); number++) {
        Object first = {}, *object = nullptr;
        if (self == 0) {
            first = makers[number]();
            first.number = number;
            object = &first;
        }
        for (uint32_t hop = 0; hop <= job.size(); hop++) { // round, and home
            if (hop % job.size() != self) {
                job.barrier();
                continue;
            }
            if (hop > 0) {
                for (const double until = now() + 100; came.empty();) {
                    EXPECT(now() < until);
                    iso_progress_wait(job.job, 0.5);
                }
                object = came.front();
                came.pop_front();
            }
            every_kind(object, number, hop);
            if (hop < job.size()) {
                iso_request_t *request = nullptr;
                EXPECT_STATUS(ISO_OK, iso_migrate_pup(job.job, (self + 1) % job.size(), "object",
                                                      object, &request));
                EXPECT_STATUS(ISO_OK, iso_wait(request));
                if (object != &first)
                    free(object);
            }
            job.barrier();
        }
        if (self == 0) {
            check(*object, number);
            if (object->heap != nullptr)
                EXPECT_STATUS(ISO_OK, iso_heap_destroy(object->heap));
            iso_free(object->block);
            for (uint32_t i = 0; object->texts != nullptr && i < object->count; i++)
                free(object->texts[i]);
            free(object->texts);
            free(object->weights);
            free(object);
        }
        job.barrier();
        EXPECT(came.empty() && job.stats().heaps == 0);
    }
    job.finish();
    return 0;
}
