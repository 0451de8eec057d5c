// A runtime in Converse's manner, of several ranks: contexts with protected pages, and blocks, go round in objects.
#include "rounds.hpp"
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

bool faults(volatile char *address, bool written = false)
{
    const pid_t pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        (void)*address;
        if (written)
            *address = *address;
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
    EXPECT(faults(thread.stack + 2 * page, true) && !faults(thread.stack + 3 * page, true));
    const char *block = static_cast<char *>(thread.block);
    EXPECT(CmiIsomallocLength(thread.block) == block_size);
    EXPECT(block[0] == mark && std::memcmp(block, block + 1, block_size - 1) == 0);
    EXPECT(CmiIsomallocInRange(thread.block) == 1);
}

} // namespace

int main()
{
    Job job;
    Rounds<Thread> rounds(job, "thread", pup_thread);
    auto *here = static_cast<Thread *>(calloc(1, sizeof(Thread)));
    here->from = self;
    here->context = CmiIsomallocContextCreate(static_cast<int>(self), static_cast<int>(job.size()));
    here->stack =
        static_cast<char *>(CmiIsomallocContextMallocAlign(here->context, page, stack_size));
    std::memset(here->stack, 'a' + static_cast<int>(self), stack_size);
    CmiIsomallocContextProtect(here->context, here->stack, page, PROT_NONE);
    CmiIsomallocContextProtect(here->context, here->stack + 2 * page, page, PROT_READ);
    here->block = CmiIsomalloc(block_size);
    std::memset(here->block, 'a' + static_cast<int>(self), block_size);
    for (uint32_t hop = 0; hop < 2 * job.size(); hop++) {
        check(*here);
        Thread *leaving = here;
        char *const stack = leaving->stack;
        rounds.hand_on(leaving);
        EXPECT(leaving->context.opaque == nullptr && leaving->block == nullptr);
        free(leaving);
        here = rounds.take();
        EXPECT(here->stack != stack); // unique in the job
        job.barrier();
    }
    // by iso_migrate, which knows nothing of contexts: each rank's round, and home
    for (uint32_t hop = 0; hop < 2 * job.size(); hop++) {
        job.send(static_cast<iso_heap_t *>(here->context.opaque), (self + 1) % job.size(),
                 &here->stack, sizeof here->stack);
        const Arrived arrived = job.receive();
        here->context.opaque = arrived.heap;
        std::memcpy(&here->stack, arrived.header.data(), sizeof here->stack);
        EXPECT(faults(here->stack) && faults(here->stack + 2 * page, true));
        EXPECT(here->stack[page] == here->stack[2 * page] && !faults(here->stack + page, true));
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
