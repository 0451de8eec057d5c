// A runtime in Converse's manner, of several ranks: contexts with protected pages, and blocks, go round in objects.
#include "ranks.hpp"
#include <csignal>
#include <isomalloc/converse.h>
#include <sys/mman.h>
#include <sys/wait.h>

namespace {

struct Thread {
    CmiIsomallocContext context;
    char *stack; // in it, with a page that faults below
    void *block;
    uint32_t from;
};

constexpr size_t page = 4096, stack_size = 64 << 10;
constexpr int block_size = 100000;

void pup_thread(pup_er p, void *object)
{
    auto *thread = static_cast<Thread *>(object);
    pup_uint(p, &thread->from);
    pup_pointer(p, reinterpret_cast<void **>(&thread->stack));
    CmiIsomallocContextPup(p, &thread->context);
    CmiIsomallocPup(p, &thread->block);
}

std::deque<Thread *> arrived; // the next one may come before this rank has sent its own

const iso_object_type_t type = {
    sizeof type,
    "thread",
    sizeof(Thread),
    pup_thread,
    [](iso_job_t *, void *object, uint32_t, iso_status_t status, void *) {
        EXPECT_STATUS(ISO_OK, status);
        arrived.push_back(static_cast<Thread *>(object));
    },
    nullptr,
    nullptr};

bool faults(volatile char *address)
{
    const pid_t pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        (void)*address;
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

void check(const Thread &thread)
{
    const auto mark = static_cast<char>('a' + thread.from);
    const char *stack = thread.stack + page;
    EXPECT(stack[0] == mark && std::memcmp(stack, stack + 1, stack_size - page - 1) == 0);
    EXPECT(faults(thread.stack));
    const char *block = static_cast<char *>(thread.block);
    EXPECT(CmiIsomallocLength(thread.block) == block_size);
    EXPECT(block[0] == mark && std::memcmp(block, block + 1, block_size - 1) == 0);
    EXPECT(CmiIsomallocInRange(thread.block) == 1);
}

} // namespace

int main()
{
    Job job;
    EXPECT_STATUS(ISO_OK, CmiIsomallocUseJob(job.job));
    EXPECT_STATUS(ISO_OK, iso_pup_register(job.job, &type));
    auto *here = static_cast<Thread *>(calloc(1, sizeof(Thread)));
    here->from = self;
    here->context = CmiIsomallocContextCreate(static_cast<int>(self), static_cast<int>(job.size()));
    here->stack =
        static_cast<char *>(CmiIsomallocContextMallocAlign(here->context, page, stack_size));
    std::memset(here->stack, 'a' + static_cast<int>(self), stack_size);
    CmiIsomallocContextProtect(here->context, here->stack, page, PROT_NONE);
    here->block = CmiIsomalloc(block_size);
    std::memset(here->block, 'a' + static_cast<int>(self), block_size);
    for (uint32_t hop = 0; hop < 2 * job.size(); hop++) {
        check(*here);
        Thread *leaving = here;
        char *const stack = leaving->stack;
        iso_request_t *request = nullptr;
        EXPECT_STATUS(
            ISO_OK, iso_migrate_pup(job.job, (self + 1) % job.size(), "thread", leaving, &request));
        EXPECT_STATUS(ISO_OK, iso_wait(request));
        EXPECT(leaving->context.opaque == nullptr && leaving->block == nullptr);
        free(leaving);
        for (const double until = now() + 60; arrived.empty();) {
            EXPECT(now() < until);
            iso_progress_wait(job.job, 0.5);
        }
        here = arrived.front();
        arrived.pop_front();
        EXPECT(here->stack != stack); // unique in the job
        job.barrier();
    }
    EXPECT(here->from == self);
    check(*here);
    CmiIsomallocContextDelete(here->context);
    CmiIsomallocFree(here->block);
    free(here);
    job.finish();
    return 0;
}
