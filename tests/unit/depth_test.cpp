// The library knows of a thread that is inside of it, in whatever function of the program's that it calls.
#include "tests/unit/stack.hpp"
#include <cstring>
#include <isomalloc/bootstrap.h>
#include <isomalloc/transport.h>
#include <string>
#include <vector>

namespace {
unsigned depth_in_walk;
bool ask_depth(void * /*block*/, size_t /*size*/, void * /*arg*/)
{
    depth_in_walk = iso_call_depth();
    return true;
}
} // namespace

TEST_CASE("a thread is inside of the library while it has the lock of a heap, or is called")
{
    const Space space(ISO_GUARD_FIRST, ISO_HEAP_SHARED);
    REQUIRE(iso_malloc(space.heap, 64) != nullptr);
    CHECK(iso_call_depth() == 0);
    iso_heap_walk(space.heap, ask_depth, nullptr);
    CHECK(depth_in_walk == 2); // the lock, and the call
    CHECK(iso_call_depth() == 0);
    unsigned depth = 0;
    iso_set_arrival(
        space.job,
        [](iso_job_t *, const iso_arrival_t *, void *arg) {
            *static_cast<unsigned *>(arg) = iso_call_depth();
        },
        &depth);
    iso_request_t *request;
    REQUIRE(iso_migrate(space.heap, 0, nullptr, 0, &request) == ISO_OK);
    REQUIRE(iso_wait(request) == ISO_OK);
    iso_progress(space.job);
    CHECK(depth == 1);
    CHECK(iso_call_depth() == 0);
}

namespace {

std::vector<std::string>
    called; // functions of the program's, where the library was not said to be around them

void note(const char *what)
{
    if (iso_call_depth() == 0)
        called.emplace_back(what);
}

// Of a job of one rank.
iso_status_t only_mine(void *, const void *mine, void *all, size_t len)
{
    note("allgather");
    memcpy(all, mine, len);
    return ISO_OK;
}
iso_status_t at_once(void *)
{
    note("barrier");
    return ISO_OK;
}
iso_status_t published(void *, const void *, size_t)
{
    note("publish");
    return ISO_OK;
}
iso_status_t not_there(void *, uint32_t, void *, size_t *)
{
    note("lookup");
    return ISO_ERR_UNREACHABLE;
}
iso_status_t none_died(void *, uint32_t *)
{
    note("next_dead");
    return ISO_INPROGRESS;
}

unsigned calls; // of `ends`

void ends(iso_job_t *, void *)
{
    note("end");
    calls++;
}

} // namespace

TEST_CASE("a thread is inside of the library in whatever of the program's that calls")
{
    iso_bootstrap_t bootstrap{};
    bootstrap.abi_version = ISO_BOOTSTRAP_ABI;
    bootstrap.name = "own";
    bootstrap.size = 1;
    bootstrap.event_fd = -1;
    bootstrap.allgather = only_mine;
    bootstrap.barrier_start = bootstrap.barrier_test = at_once;
    bootstrap.publish = published;
    bootstrap.lookup = not_there;
    bootstrap.next_dead = none_died;
    bootstrap.close = [](void *) {
        note("close");
        calls++;
    };
    iso_params_t params;
    REQUIRE(iso_params_init(&params) == ISO_OK);
    params.space_size = 256u << 20;
    params.caller_bootstrap = &bootstrap;
    iso_job_t *job = nullptr;
    called.clear();
    calls = 0;
    REQUIRE(iso_init(&params, &job) == ISO_OK);
    iso_set_end(job, ends, nullptr);
    iso_heap_t *heap = nullptr;
    REQUIRE(iso_heap_create(job, &heap) == ISO_OK);
    REQUIRE(iso_malloc(heap, 64) != nullptr);
    depth_in_walk = 0;
    iso_heap_walk(heap, ask_depth, nullptr);
    CHECK(depth_in_walk == 1);
    iso_barrier(job);
    iso_progress(job);
    iso_modules(
        &params, [](const iso_module_info_t *, void *) { note("modules"); }, nullptr);
    REQUIRE(iso_finalize(job) == ISO_OK);
    CHECK(calls == 2);
    CHECK(called.empty());
    CHECK(iso_call_depth() == 0);
}
