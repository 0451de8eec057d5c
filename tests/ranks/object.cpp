// Objects that a pup routine describes go from rank to rank with their heaps and blocks, whole or not at all.
#include "ranks.hpp"
#include <isomalloc/pup.h>

namespace {

iso_job_t *the_job = nullptr;

struct Node {
    Node *next;
    uint64_t value;
};

// Something of everything that an object can have.
struct Mesh {
    uint32_t hops, points, blocks;
    double *weights;    // from malloc
    iso_heap_t *nodes;  // a list, its root
    iso_heap_t *shared; // of many threads
    void *block[3];     // that move on their own
};

uint64_t peak_bytes = 0;                       // of the large object, in `peak`
const bool emulated = scale > sanitizer_scale; // where each byte that is put takes its time
const size_t block_sizes[3] = {100, 70000, emulated ? size_t{2500000} : size_t{5000000}};
int deleted = 0;

// One that labels what it packs.
void pup_labelled(pup_er p, Mesh *mesh)
{
    pup_er labels = pup_new_fmt(p);
    pup_fmt_sync_begin_object(labels);
    pup_uint(labels, &mesh->blocks);
    iso_pup_heap(labels, the_job, &mesh->nodes);
    pup_fmt_sync_end_object(labels);
    pup_destroy(labels);
}

void pup_mesh(pup_er p, void *object)
{
    auto *mesh = static_cast<Mesh *>(object);
    pup_uint(p, &mesh->hops);
    pup_uint(p, &mesh->points);
    if (pup_isUnpacking(p))
        mesh->weights = static_cast<double *>(malloc(mesh->points * sizeof(double) + 1));
    pup_doubles(p, mesh->weights, mesh->points);
    pup_labelled(p, mesh);
    for (uint32_t i = 0; i < mesh->blocks; i++)
        iso_pup_block(p, the_job, &mesh->block[i]);
    bool has_shared = mesh->shared != nullptr;
    pup_bytes(p, &has_shared, sizeof has_shared);
    if (has_shared)
        iso_pup_heap(p, the_job, &mesh->shared);
    if (pup_isDeleting(p)) {
        free(mesh->weights);
        mesh->weights = nullptr;
        deleted++;
    }
}

Mesh make_mesh(Job &job, uint32_t points, uint32_t nodes, uint32_t blocks, bool shared)
{
    Mesh mesh = {};
    mesh.points = points;
    mesh.blocks = blocks;
    mesh.weights = static_cast<double *>(malloc(points * sizeof(double) + 1));
    for (uint32_t i = 0; i < points; i++)
        mesh.weights[i] = i * 0.25 + self;
    mesh.nodes = job.heap();
    Node *first = nullptr;
    for (uint32_t i = 0; i < nodes; i++) {
        auto *node = static_cast<Node *>(iso_malloc(mesh.nodes, sizeof(Node)));
        *node = {first, i};
        first = node;
    }
    iso_heap_set_root(mesh.nodes, first);
    for (uint32_t i = 0; i < blocks; i++) {
        mesh.block[i] = iso_movable_alloc(job.job, block_sizes[i]);
        std::memset(mesh.block[i], static_cast<int>(i + 1), block_sizes[i]);
    }
    if (shared) {
        EXPECT_STATUS(ISO_OK, iso_heap_create_flags(job.job, ISO_HEAP_SHARED, &mesh.shared));
        iso_heap_set_root(mesh.shared, iso_malloc(mesh.shared, 3000));
        std::memset(iso_heap_root(mesh.shared), 9, 3000);
    }
    return mesh;
}

void check_mesh(const Mesh &mesh, uint32_t from, uint32_t nodes)
{
    for (uint32_t i = 0; i < mesh.points; i++)
        EXPECT(mesh.weights[i] == i * 0.25 + from);
    uint32_t seen = 0;
    EXPECT(iso_heap_state(mesh.nodes) == ISO_HEAP_OWNED);
    for (auto *node = static_cast<Node *>(iso_heap_root(mesh.nodes)); node != nullptr;
         node = node->next, seen++)
        EXPECT(node->value == nodes - 1 - seen && iso_heap_of(node) == mesh.nodes);
    EXPECT(seen == nodes);
    for (uint32_t i = 0; i < mesh.blocks; i++) {
        const auto *bytes = static_cast<unsigned char *>(mesh.block[i]);
        EXPECT(bytes[0] == i + 1 && std::memcmp(bytes, bytes + 1, block_sizes[i] - 1) == 0);
        EXPECT(iso_heap_of(bytes) != mesh.nodes);
    }
    if (mesh.shared != nullptr) {
        const auto *bytes = static_cast<unsigned char *>(iso_heap_root(mesh.shared));
        EXPECT(bytes[0] == 9 && std::memcmp(bytes, bytes + 1, 2999) == 0);
        iso_free(iso_malloc(mesh.shared, 100));
    }
    iso_free(iso_malloc(mesh.nodes, 5000));
}

void end_mesh(Mesh &mesh)
{
    free(mesh.weights);
    EXPECT_STATUS(ISO_OK, iso_heap_destroy(mesh.nodes));
    for (uint32_t i = 0; i < mesh.blocks; i++)
        iso_free(mesh.block[i]);
    if (mesh.shared != nullptr)
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(mesh.shared));
}

std::deque<std::pair<Mesh *, uint32_t>> meshes;

iso_status_t last_status = ISO_OK;

void on_mesh(iso_job_t * /*job*/, void *object, uint32_t source, iso_status_t status, void *arg)
{
    last_status = status;
    EXPECT(arg == &meshes);
    meshes.emplace_back(static_cast<Mesh *>(object), source);
}

const iso_object_type_t mesh_type = {sizeof mesh_type, "mesh",  sizeof(Mesh), pup_mesh,
                                     on_mesh,          nullptr, &meshes};

Mesh *receive(Job &job, uint32_t source, iso_status_t expected = ISO_OK)
{
    const double until = now() + 60;
    while (meshes.empty()) {
        EXPECT(now() < until);
        iso_progress_wait(job.job, 0.5);
    }
    const auto [mesh, from] = meshes.front();
    meshes.pop_front();
    EXPECT(from == source);
    EXPECT_STATUS(expected, last_status);
    return mesh;
}

void send(Job &job, uint32_t dest, Mesh *mesh)
{
    iso_request_t *request = nullptr;
    const int before = deleted;
    EXPECT_STATUS(ISO_OK, iso_migrate_pup(job.job, dest, "mesh", mesh, &request));
    EXPECT_STATUS(ISO_OK, iso_wait(request));
    EXPECT(deleted == before + 1);
    EXPECT(mesh->weights == nullptr && mesh->nodes == nullptr);
    for (uint32_t i = 0; i < mesh->blocks; i++)
        EXPECT(mesh->block[i] == nullptr);
}

// Every rank's object goes round twice (emulated: once), and by itself to its rank, too.
void round_trip(Job &job)
{
    const uint32_t nodes = 30000 / scale, left = (self + job.size() - 1) % job.size();
    const uint64_t heaps = job.stats().heaps;
    for (const uint32_t points : {0u, 10u, 400000 * sanitizer_scale / scale}) {
        Mesh first = make_mesh(job, points, nodes, points == 0 ? 0 : 3, points != 0);
        Mesh *mesh = &first;
        uint32_t owner = self;
        for (uint32_t hop = 0; hop < (emulated ? 1 : 2) * job.size(); hop++) {
            check_mesh(*mesh, owner, nodes);
            send(job, (self + 1) % job.size(), mesh);
            if (mesh != &first)
                free(mesh);
            mesh = receive(job, left);
            owner = (owner + job.size() - 1) % job.size();
            check_mesh(*mesh, owner, nodes);
            if (hop % 3 == 0) {
                send(job, self, mesh);
                free(mesh);
                mesh = receive(job, self);
            }
            job.barrier();
        }
        EXPECT(owner == self);
        check_mesh(*mesh, self, nodes);
        end_mesh(*mesh);
        free(mesh);
    }
    job.barrier();
    EXPECT(job.stats().heaps == heaps); // no carrier stays
    EXPECT(job.arrivals.empty());
}

bool admit_none(iso_job_t * /*job*/, const iso_arrival_t * /*arrival*/, void * /*arg*/)
{
    return self != 1;
}

// What ends otherwise leaves the object as it was, and usable.
void stays(Job &job)
{
    Mesh mesh = make_mesh(job, 1000, 100, 3, true);
    iso_request_t *request = nullptr;
    if (self == 0) {
        const uint64_t heaps = job.stats().heaps, slots = job.stats().slots_free;
        for (int i = 0; i < 3; i++) {
            EXPECT_STATUS(ISO_OK, iso_migrate_pup(job.job, 1, "mesh", &mesh, &request));
            EXPECT(iso_heap_state(mesh.nodes) == ISO_HEAP_MOVING);
            EXPECT_STATUS(ISO_ERR_BUSY, iso_heap_destroy(mesh.nodes));
            EXPECT_STATUS(ISO_ERR_REFUSED, iso_wait(request));
            check_mesh(mesh, self, 100);
        }
        EXPECT_STATUS(ISO_OK, iso_migrate_pup(job.job, 1, "mesh", &mesh, &request));
        EXPECT_STATUS(ISO_OK, iso_cancel(request));
        EXPECT_STATUS(ISO_ERR_CANCELED, iso_wait(request));
        check_mesh(mesh, self, 100);
        EXPECT_STATUS(ISO_ERR_RANK, iso_migrate_pup(job.job, 9, "mesh", &mesh, &request));
        EXPECT_STATUS(ISO_ERR_INVALID, iso_migrate_pup(job.job, 1, "moon", &mesh, &request));
        EXPECT_STATUS(ISO_ERR_INVALID, iso_pup_register(job.job, &mesh_type)); // once
        iso_heap_t *nodes = mesh.nodes;
        std::swap(mesh.shared, nodes); // the same heap twice
        mesh.nodes = mesh.shared;
        EXPECT_STATUS(ISO_ERR_BUSY, iso_migrate_pup(job.job, 1, "mesh", &mesh, &request));
        EXPECT(iso_heap_state(mesh.nodes) == ISO_HEAP_OWNED);
        mesh.shared = nodes;
        check_mesh(mesh, self, 100);
        void *block = mesh.block[1]; // not movable
        mesh.block[1] = iso_heap_root(mesh.nodes);
        EXPECT_STATUS(ISO_ERR_NOT_MOVABLE, iso_migrate_pup(job.job, 1, "mesh", &mesh, &request));
        mesh.block[1] = block;
        check_mesh(mesh, self, 100);
        EXPECT(deleted == 0);
        EXPECT(job.stats().heaps == heaps && job.stats().slots_free == slots);
    }
    job.barrier();
    end_mesh(mesh);
    EXPECT(meshes.empty());
}

// An object of one heap, and little beside it, goes as a heap does: by grants, from the second time on.
void alone(Job &job)
{
    Mesh first = {}, *mesh = nullptr;
    if (self == 0) {
        first = make_mesh(job, 100, 100, 0, false);
        mesh = &first;
    }
    for (uint32_t hop = 0; hop < 20; hop++) {
        const iso_stats_t before = job.stats();
        if (hop % 2 == self) {
            send(job, 1 - self, mesh);
            if (mesh != &first)
                free(mesh);
            EXPECT(hop < 4 || job.stats().reservations == before.reservations);
            EXPECT(job.stats().migrations_out == before.migrations_out + 1);
        } else {
            mesh = receive(job, 1 - self);
            check_mesh(*mesh, 0, 100);
        }
        EXPECT(job.stats().heaps <= 1); // no carrier
        job.barrier();
    }
    if (self == 0) {
        end_mesh(*mesh);
        free(mesh);
    }
}

// An object waits for its type to be registered; what its routine does not unpack arrives as heaps do.
void late(Job &job)
{
    Mesh mesh = make_mesh(job, 10, 100, 2, false);
    if (self == 0) {
        EXPECT_STATUS(ISO_OK, iso_pup_register(job.job, &mesh_type));
        send(job, 1, &mesh);
        job.barrier();
    } else {
        end_mesh(mesh);
        for (int i = 0; i < 100; i++)
            iso_progress_wait(job.job, 0.002);
        job.barrier();
        EXPECT(meshes.empty());
        iso_object_type_t blind = mesh_type;
        blind.pup = [](pup_er p, void *object) { pup_uint(p, &static_cast<Mesh *>(object)->hops); };
        EXPECT_STATUS(ISO_OK, iso_pup_register(job.job, &blind));
        free(receive(job, 0));
        for (int i = 0; i < 3; i++)
            EXPECT_STATUS(ISO_OK, iso_heap_destroy(job.receive().heap));
    }
    job.barrier();
}

// kB of /proc/self/status.
uint64_t status_of(const std::string &name)
{
    char line[256];
    uint64_t value = 0;
    FILE *file = std::fopen("/proc/self/status", "re");
    EXPECT(file != nullptr);
    while (std::fgets(line, sizeof line, file) != nullptr)
        if (std::string(line).rfind(name + ":", 0) == 0)
            value = std::strtoull(line + name.size() + 1, nullptr, 10);
    std::fclose(file);
    EXPECT(value != 0);
    return value;
}

// A large object moves in no more memory than it has, at either end: nothing of a heap or a block is copied.
struct Large {
    void *block;
    uint64_t size;
};

Large *large = nullptr;

void pup_large(pup_er p, void *object)
{
    auto *it = static_cast<Large *>(object);
    pup_ulong(p, &it->size);
    iso_pup_block(p, the_job, &it->block);
}

void peak(Job &job)
{
    const uint64_t size = peak_bytes;
    const iso_object_type_t type = {sizeof type,
                                    "large",
                                    sizeof(Large),
                                    pup_large,
                                    [](iso_job_t *, void *object, uint32_t, iso_status_t, void *) {
                                        large = static_cast<Large *>(object);
                                    },
                                    nullptr,
                                    nullptr};
    EXPECT_STATUS(ISO_OK, iso_pup_register(job.job, &type));
    const uint64_t before = status_of("VmHWM");
    Large mine = {};
    if (self == 0) {
        mine.size = size;
        mine.block = iso_movable_alloc(job.job, size);
        std::memset(mine.block, 7, size);
        large = &mine;
    }
    for (uint32_t turn = 0; turn < 4; turn++) {
        if (turn % 2 == self) {
            Large *leaving = large;
            iso_request_t *request = nullptr;
            large = nullptr;
            EXPECT_STATUS(ISO_OK, iso_migrate_pup(job.job, 1 - self, "large", leaving, &request));
            EXPECT_STATUS(ISO_OK, iso_wait(request));
            EXPECT(leaving->block == nullptr);
            if (leaving != &mine)
                free(leaving);
        }
        for (const double until = now() + 60; turn % 2 != self && large == nullptr;) {
            EXPECT(now() < until);
            iso_progress_wait(job.job, 0.5);
        }
        job.barrier();
    }
    if (self == 0) {
        const auto *bytes = static_cast<const unsigned char *>(large->block);
        EXPECT(large->size == size && bytes[0] == 7);
        EXPECT(std::memcmp(bytes, bytes + 1, size - 1) == 0);
    }
    const uint64_t grown = (status_of("VmHWM") - before) << 10;
    std::printf("rank %u: %.2f times the object\n", self,
                static_cast<double>(grown) / static_cast<double>(size));
    EXPECT(static_cast<double>(grown) <= 1.05 * static_cast<double>(size) + (4 << 20));
}

} // namespace

int main(int argc, char **argv)
{
    EXPECT(argc == 2 || argc == 3);
    peak_bytes = argc == 3 ? std::strtoull(argv[2], nullptr, 10) << 20 : 64u << 20;
    const std::string test = argv[1];
    Job job(test == "stays" ? admit_none : nullptr);
    the_job = job.job;
    if (test != "late")
        EXPECT_STATUS(ISO_OK, iso_pup_register(job.job, &mesh_type));
    if (test == "round_trip")
        round_trip(job);
    else if (test == "stays")
        stays(job);
    else if (test == "alone")
        alone(job);
    else if (test == "late")
        late(job);
    else if (test == "peak")
        peak(job);
    else
        EXPECT(!"a test of this name");
    job.finish();
    return 0;
}
