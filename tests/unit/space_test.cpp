// Finding addresses: proposals, holes, intersections, and what is said when there is no room.
#include "core/space.h"
#include "tests/unit/support.hpp"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <vector>

namespace {

const iso_logger_t quiet = {ISO_LOG_ERROR, 0};
constexpr uint64_t GiB = 1ull << 30;

iso_params_t params()
{
    iso_params_t p;
    REQUIRE(iso_params_init(&p) == ISO_OK);
    return p;
}

} // namespace

TEST_CASE("the proposal is the same every time and honours the settings", "[space]")
{
    iso_params_t p = params();
    uint64_t base[2], size[2];
    iso_space_propose(&p, &base[0], &size[0]);
    iso_space_propose(&p, &base[1], &size[1]);
    CHECK(base[0] == base[1]);
    CHECK(size[0] == size[1]);
    CHECK(base[0] % ISO_SLOT_SIZE == 0);
    CHECK(size[0] % ISO_SLOT_SIZE == 0);
    p.space_base = 5 * GiB;
    p.space_size = GiB;
    iso_space_propose(&p, &base[0], &size[0]);
    CHECK(base[0] == 5 * GiB);
    CHECK(size[0] == GiB);
}

TEST_CASE("the proposal does not depend on where the caller's stack is", "[space]")
{
    constexpr size_t size = 1 << 20;
    void *stack = mmap(reinterpret_cast<void *>(GiB), size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    REQUIRE(stack == reinterpret_cast<void *>(GiB)); // as a user-level thread's in a static array
    struct Proposal {
        iso_params_t params;
        uint64_t base, size;
    } here = {params(), 0, 0}, there = here;
    iso_space_propose(&here.params, &here.base, &here.size);
    pthread_attr_t attributes;
    pthread_t thread;
    REQUIRE(pthread_attr_init(&attributes) == 0);
    REQUIRE(pthread_attr_setstack(&attributes, stack, size) == 0);
    REQUIRE(pthread_create(
                &thread, &attributes,
                [](void *arg) -> void * {
                    auto *p = static_cast<Proposal *>(arg);
                    iso_space_propose(&p->params, &p->base, &p->size);
                    return nullptr;
                },
                &there) == 0);
    REQUIRE(pthread_join(thread, nullptr) == 0);
    pthread_attr_destroy(&attributes);
    munmap(stack, size);
    CHECK(there.base == here.base);
    CHECK(there.size == here.size);
}

TEST_CASE("addresses that are in use are not taken, and the message names what is there", "[space]")
{
    iso_params_t p = params();
    uint64_t base, size;
    iso_space_propose(&p, &base, &size);
    void *there = mmap(reinterpret_cast<void *>(base + GiB), 4096, PROT_READ,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    REQUIRE(there != MAP_FAILED);
    iso_space_t space = {};
    CHECK(iso_space_reserve(&space, &quiet, base, 2 * GiB) == ISO_ERR_NO_SPACE);
    CHECK(space.base == nullptr);
    const ChildResult child = in_child([&] {
        iso_space_explain(&quiet, base, 2 * GiB);
        return 0;
    });
    char address[32];
    snprintf(address, sizeof address, "%lx-", static_cast<unsigned long>(base + GiB));
    CHECK(child.stderr_text.find(address) != std::string::npos);
    CHECK(child.stderr_text.find("ISO_SPACE_BASE") != std::string::npos);
    REQUIRE(munmap(there, 4096) == 0);
    REQUIRE(iso_space_reserve(&space, &quiet, base, 2 * GiB) == ISO_OK);
    iso_space_release(&space);
}

TEST_CASE("holes are free: each one offered can be reserved", "[space]")
{
    iso_os_hole_t holes[ISO_SPACE_HOLES];
    const size_t count = iso_space_holes(64 * GiB, holes);
    REQUIRE(count > 0);
    for (size_t i = 0; i < count; i++) {
        CHECK(holes[i].size >= 64 * GiB);
        CHECK((i == 0 || holes[i].size <= holes[i - 1].size));
        iso_space_t space = {};
        REQUIRE(iso_space_reserve(&space, &quiet, holes[i].start, 64 * GiB) == ISO_OK);
        iso_space_release(&space);
    }
}

TEST_CASE("the base chosen fits every rank's holes, and none is chosen where none does", "[space]")
{
    // rank 0: [10,30) [50,90); rank 1: [20,60); rank 2: [0,100)
    const std::vector<iso_os_hole_t> holes = {{50, 40}, {10, 20}, {20, 40},
                                              {0, 0},   {0, 100}, {0, 0}};
    const uint32_t counts[] = {2, 1, 1};
    CHECK(iso_space_intersect(holes.data(), counts, 2, 3, 10) == 20);
    CHECK(iso_space_intersect(holes.data(), counts, 2, 3, 11) == 0);
    CHECK(iso_space_intersect(holes.data(), counts, 2, 1, 11) == 10);
    CHECK(iso_space_intersect(holes.data(), counts, 2, 1, 30) == 50);
}

TEST_CASE("a space that a limit forbids is refused with the number to set", "[space]")
{
    const ChildResult child = in_child([] {
        iso_space_t space = {};
        const rlimit limit = {8 * GiB, 8 * GiB};
        if (setrlimit(RLIMIT_AS, &limit) != 0)
            return 2;
        return iso_space_reserve(&space, &quiet, 64 * GiB, 16 * GiB) == ISO_ERR_LIMIT &&
                       iso_space_reserve(&space, &quiet, 64 * GiB, GiB) == ISO_OK
                   ? 0
                   : 1;
    });
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) // a shadow is over the limit
    CHECK(child.exited_with(0));
#endif
    CHECK(child.stderr_text.find("RLIMIT_AS") != std::string::npos);
    CHECK(child.stderr_text.find("ISO_SPACE_SIZE") != std::string::npos);
    iso_space_t space = {};
    CHECK(iso_space_reserve(&space, &quiet, 64 * GiB, 1ull << 60) == ISO_ERR_LIMIT);
}
