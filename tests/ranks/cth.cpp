// Converse's threads, as a runtime of its kind moves them: a routine of the object's that has CthPup in it.
#include "ranks.hpp"
#include <converse.h>

namespace {

constexpr int depth = 200;

// What the thread tells, in its context's memory, which has the same address everywhere.
struct Told {
    uint32_t hops;
    bool ended;
};

struct Chare {
    CthThread thread;
    Told *told;
    uint32_t from; // where it began
};

std::deque<Chare *> arrived;

void pup_chare(pup_er p, void *object)
{
    auto *chare = static_cast<Chare *>(object);
    pup_uint(p, &chare->from);
    pup_bytes(p, &chare->told, sizeof chare->told);
    chare->thread = CthPup(p, chare->thread);
}

const iso_object_type_t type = {
    sizeof type,
    "chare",
    sizeof(Chare),
    pup_chare,
    [](iso_job_t *, void *object, uint32_t, iso_status_t status, void *) {
        EXPECT_STATUS(ISO_OK, status);
        arrived.push_back(static_cast<Chare *>(object));
    },
    nullptr,
    nullptr};

// Each frame stops once on the way down and once on the way up.
int descend(Told *told, int left, const int *above)
{
    int here = left, sum = 0;
    if (left % 20 == 0) {
        CthSuspend();
        told->hops++;
    }
    if (left > 0)
        sum = descend(told, left - 1, &here);
    if (left % 20 == 0) {
        CthSuspend();
        told->hops++;
    }
    EXPECT(here == left && (above == nullptr || *above == left + 1));
    return sum + here;
}

void body(void *arg)
{
    auto *told = static_cast<Told *>(arg);
    EXPECT(descend(told, depth, nullptr) == depth * (depth + 1) / 2);
    told->ended = true;
}

} // namespace

int main()
{
    Job job;
    EXPECT_STATUS(ISO_OK, CmiIsomallocUseJob(job.job));
    EXPECT_STATUS(ISO_OK, iso_pup_register(job.job, &type));
    auto *here = static_cast<Chare *>(calloc(1, sizeof(Chare)));
    const CmiIsomallocContext context = CmiIsomallocContextCreate(0, 0);
    here->told = static_cast<Told *>(CmiIsomallocContextCalloc(context, 1, sizeof(Told)));
    here->from = self;
    here->thread = CthCreateMigratable(body, here->told, 0, context);
    EXPECT(here->thread != nullptr);
    const uint32_t hops = 2 * (depth / 20 + 1);
    for (uint32_t hop = 0; hop < hops; hop++) {
        EXPECT(here->told->hops == (hop == 0 ? 0 : hop - 1) && !here->told->ended);
        CthResume(here->thread);
        Chare *leaving = here;
        iso_request_t *request = nullptr;
        EXPECT_STATUS(
            ISO_OK, iso_migrate_pup(job.job, (self + 1) % job.size(), "chare", leaving, &request));
        EXPECT_STATUS(ISO_OK, iso_wait(request));
        EXPECT(leaving->thread == nullptr);
        free(leaving);
        for (const double until = now() + 60; arrived.empty();) {
            EXPECT(now() < until);
            iso_progress_wait(job.job, 0.5);
        }
        here = arrived.front();
        arrived.pop_front();
        job.barrier();
    }
    // it ends at another rank than where it began
    const CmiIsomallocContext ended = CmiIsomallocGetThreadContext(here->thread);
    CthResume(here->thread);
    EXPECT(here->told->hops == hops && here->told->ended);
    EXPECT(here->from == (self + job.size() - hops % job.size()) % job.size());
    CmiIsomallocContextDelete(ended);
    free(here);
    job.barrier();
    EXPECT(job.stats().heaps == 0);
    job.finish();
    return 0;
}
