// Converse's threads, as a runtime of its kind moves them: a routine of the object's that has CthPup in it.
#include "rounds.hpp"
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

void pup_chare(pup_er p, void *object)
{
    auto *chare = static_cast<Chare *>(object);
    pup_uint(p, &chare->from);
    pup_bytes(p, &chare->told, sizeof chare->told);
    chare->thread = CthPup(p, chare->thread);
}

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
    Rounds<Chare> rounds(job, "chare", pup_chare);
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
        rounds.hand_on(leaving);
        EXPECT(leaving->thread == nullptr);
        free(leaving);
        here = rounds.take();
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
