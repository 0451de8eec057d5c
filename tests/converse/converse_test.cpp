// The statements of Converse's manual about isomalloc, and the context calls of Charm++ 8, in a program that calls nothing
// else of the library: the first call starts the job.
#include "tests/unit/support.hpp"
#include <converse.h>
#include <csignal>
#include <cstring>
#include <isomalloc/checkpoint.h>
#include <pup_c.h>
#include <set>
#include <sys/mman.h>
#include <vector>

namespace {

bool holds(const void *block, size_t size, unsigned char value)
{
    const auto *bytes = static_cast<const unsigned char *>(block);
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

// A process of its own, in which the job starts anew.
int status_of(const std::function<int()> &body)
{
    const auto result = in_child(body);
    INFO(result.stderr_text);
    return WIFSIGNALED(result.status) ? 1000 + WTERMSIG(result.status) : WEXITSTATUS(result.status);
}

} // namespace

TEST_CASE("a program that calls nothing else works")
{
    REQUIRE(status_of([] {
                void *block = CmiIsomalloc(100);
                if (block == nullptr || CmiIsomallocEnabled() != 1)
                    return 1;
                std::memset(block, 1, 100);
                CmiIsomallocFree(block);
                exit(0); // with the job's end
            }) == 0);
}

TEST_CASE("a job of the program's own is used, once")
{
    REQUIRE(status_of([] {
                iso_job_t *job = nullptr;
                if (iso_init(nullptr, &job) != ISO_OK || CmiIsomallocUseJob(job) != ISO_OK ||
                    CmiIsomallocUseJob(job) != ISO_ERR_BUSY)
                    return 1;
                void *block = CmiIsomalloc(100);
                iso_stats_t stats;
                iso_stats(job, &stats);
                if (stats.heaps != 1)
                    return 2;
                CmiIsomallocFree(block);
                return iso_finalize(job) == ISO_OK ? 0 : 3;
            }) == 0);
}

TEST_CASE("a process that the program forks ends without a word: the job is its parent's")
{
    const auto result = in_child([] {
        if (CmiIsomalloc(100) == nullptr)
            return 1;
        const pid_t child = fork();
        if (child == 0)
            exit(3);
        int status = 0;
        if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 3)
            return 2;
        exit(0); // with the job's end
    });
    INFO(result.stderr_text);
    REQUIRE_FALSE(contains(result.stderr_text, "isomalloc"));
    REQUIRE(WIFEXITED(result.status));
    REQUIRE(WEXITSTATUS(result.status) == 0);
}

TEST_CASE("a job of the program's own is let go of, and another may follow it")
{
    REQUIRE(status_of([] {
                for (int round = 0; round < 3; round++) {
                    iso_job_t *job = nullptr;
                    if (iso_init(nullptr, &job) != ISO_OK || CmiIsomallocUseJob(job) != ISO_OK)
                        return 1;
                    CmiIsomallocFree(CmiIsomalloc(100));
                    if (round != 1 && CmiIsomallocUseJob(nullptr) != ISO_OK)
                        return 2;
                    if (iso_finalize(job) != ISO_OK)
                        return 3;
                    if (CmiIsomallocUseJob(nullptr) != ISO_OK) // also when it has ended; also twice
                        return 4;
                }
                if (CmiIsomalloc(100) == nullptr) // starts the default one
                    return 5;
                return CmiIsomallocUseJob(nullptr) == ISO_ERR_BUSY ? 0 : 6;
            }) == 0);
}

TEST_CASE("allocate size bytes at a unique virtual address")
{
    REQUIRE(status_of([] {
                std::set<void *> seen;
                for (int size = 0; size < 200; size++)
                    if (!seen.insert(CmiIsomalloc(size * 1000)).second)
                        return 1;
                return seen.count(nullptr) == 0 ? 0 : 2;
            }) == 0);
}

TEST_CASE("allocations have page granularity")
{
    REQUIRE(status_of([] {
                for (const int size : {1, 5000, 100000})
                    if (reinterpret_cast<uintptr_t>(CmiIsomalloc(size)) % 4096 != 0)
                        return 1;
                return 0;
            }) == 0);
}

TEST_CASE("free releases the block and its addresses, which may be used again")
{
    REQUIRE(status_of([] {
                void *first = CmiIsomalloc(5000);
                CmiIsomallocFree(first);
                return CmiIsomalloc(5000) == first ? 0 : 1;
            }) == 0);
}

TEST_CASE("after a free references to the block result in a segmentation violation")
{
    for (const int size : {100, 5000000})
        REQUIRE(status_of([size] {
                    setenv("ISO_POISON", "n", 1);
                    auto *block = static_cast<volatile char *>(CmiIsomalloc(size));
                    block[0] = 1;
                    CmiIsomallocFree(const_cast<char *>(block));
                    block[0] = 2;
                    return 0;
                }) == 1000 + SIGSEGV);
}

TEST_CASE("it is illegal to free the same block more than once: caught")
{
    REQUIRE(status_of([] {
                void *block = CmiIsomalloc(100);
                CmiIsomallocFree(block);
                CmiIsomallocFree(block);
                return 0;
            }) == 1000 + SIGABRT);
}

TEST_CASE("length is the length of this block")
{
    REQUIRE(status_of([] {
                for (const int size : {0, 1, 17, 4096, 100000, 5000001}) {
                    void *block = CmiIsomalloc(size);
                    if (CmiIsomallocLength(block) != size)
                        return 1;
                    std::memset(block, 1, static_cast<size_t>(size));
                }
                return 0;
            }) == 0);
}

TEST_CASE("in range: 0 for malloc, 1 for CmiIsomalloc")
{
    REQUIRE(status_of([] {
                void *block = CmiIsomalloc(100), *other = malloc(100);
                int on_the_stack = 0;
                const bool right =
                    CmiIsomallocInRange(block) == 1 && CmiIsomallocInRange(other) == 0 &&
                    CmiIsomallocInRange(&on_the_stack) == 0 && CmiIsomallocInRange(nullptr) == 0;
                free(other);
                return right ? 0 : 1;
            }) == 0);
}

TEST_CASE("after unpacking the pointer has the same value that it had before packing")
{
    REQUIRE(status_of([] {
                for (const int size : {10, 100000, 3000000}) {
                    std::vector<char> bytes(static_cast<size_t>(size) + 65536);
                    void *block = CmiIsomalloc(size), *const before = block;
                    std::memset(block, 7, static_cast<size_t>(size));
                    pup_er p = pup_new_sizer();
                    CmiIsomallocPup(p, &block);
                    if (pup_size(p) < static_cast<size_t>(size) || pup_size(p) > bytes.size())
                        return 1;
                    pup_destroy(p);
                    p = pup_new_toMem(bytes.data());
                    iso_pup_set_use(p, ISO_PUP_DELETING);
                    CmiIsomallocPup(p, &block);
                    pup_destroy(p);
                    if (block != nullptr) // packing to move implies deletion
                        return 2;
                    p = pup_new_fromMem(bytes.data());
                    CmiIsomallocPup(p, &block);
                    pup_destroy(p);
                    if (block != before || !holds(block, static_cast<size_t>(size), 7) ||
                        CmiIsomallocLength(block) != size)
                        return 3;
                    CmiIsomallocFree(block);
                }
                return 0;
            }) == 0);
}

TEST_CASE("a size that cannot be is no block")
{
    REQUIRE(status_of([] { return CmiIsomalloc(-1) == nullptr && errno == EINVAL ? 0 : 1; }) == 0);
}

TEST_CASE("a context's blocks: every way to allocate, and what there is of them")
{
    REQUIRE(status_of([] {
                CmiIsomallocContext ctx = CmiIsomallocContextCreate(3, 7);
                if (ctx.opaque == nullptr)
                    return 1;
                CmiIsomallocContextEnableRandomAccess(ctx);
                CmiIsomallocEnableRDMA(ctx, 1);
                CmiIsomallocRegion region = CmiIsomallocContextGetUsedExtent(ctx);
                if (region.start != nullptr || region.end != nullptr)
                    return 2;
                auto *a = static_cast<char *>(CmiIsomallocContextMalloc(ctx, 100));
                auto *b = static_cast<char *>(CmiIsomallocContextMallocAlign(ctx, 4096, 100));
                auto *c = static_cast<char *>(CmiIsomallocContextCalloc(ctx, 10, 10));
                auto *d = static_cast<char *>(CmiIsomallocContextPermanentAlloc(ctx, 5000));
                auto *e = static_cast<char *>(CmiIsomallocContextPermanentAllocAlign(ctx, 256, 50));
                if (reinterpret_cast<uintptr_t>(b) % 4096 != 0 ||
                    reinterpret_cast<uintptr_t>(e) % 256 != 0 || !holds(c, 100, 0))
                    return 3;
                a = static_cast<char *>(CmiIsomallocContextRealloc(ctx, a, 200000));
                if (CmiIsomallocContextGetLength(ctx, a) < 200000 || CmiIsomallocInRange(a) != 1)
                    return 4;
                region = CmiIsomallocContextGetUsedExtent(ctx);
                for (char *block : {a, b, c, d, e})
                    if (block < region.start || block >= region.end)
                        return 5;
                CmiIsomallocContextFree(ctx, b);
                CmiIsomallocContextFree(ctx, a);
                CmiIsomallocContextDelete(ctx);
                return iso_heap_of(d) == nullptr ? 0 : 6;
            }) == 0);
}

namespace {

bool faults(volatile char *address)
{
    const ChildResult child = in_child([&] {
        (void)*address;
        return 0;
    });
    return WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGSEGV;
}

} // namespace

TEST_CASE("a context's protections survive when it is packed, and when it is moved")
{
    REQUIRE(status_of([] {
                std::vector<char> bytes(1 << 20);
                CmiIsomallocContext ctx = CmiIsomallocContextCreate(0, 1);
                auto *stack = static_cast<char *>(CmiIsomallocContextMallocAlign(ctx, 4096, 65536));
                std::memset(stack, 3, 65536);
                CmiIsomallocContextProtect(ctx, stack, 8192, PROT_NONE);
                if (!faults(stack) || !faults(stack + 4096) || faults(stack + 8192))
                    return 1;
                CmiIsomallocContextProtect(ctx, stack + 4096, 4096, PROT_READ | PROT_WRITE);
                if (!faults(stack) || faults(stack + 4096))
                    return 2;
                for (const unsigned use : {0u, static_cast<unsigned>(ISO_PUP_DELETING)}) {
                    pup_er p = iso_pup_new_to_memory(bytes.data(), bytes.size());
                    iso_pup_set_use(p, use);
                    CmiIsomallocContextPup(p, &ctx);
                    if (iso_pup_status(p) != ISO_OK || (use != 0) != (ctx.opaque == nullptr))
                        return 3;
                    pup_destroy(p);
                    if (use == 0) {
                        if (!faults(stack) || faults(stack + 4096))
                            return 4;
                        continue;
                    }
                    if (faults(stack)) // nothing of it stays behind
                        return 5;
                    p = iso_pup_new_from_memory(bytes.data(), bytes.size());
                    CmiIsomallocContextPup(p, &ctx);
                    if (iso_pup_status(p) != ISO_OK || ctx.opaque == nullptr)
                        return 6;
                    pup_destroy(p);
                }
                if (!faults(stack) || faults(stack + 4096) || !holds(stack + 4096, 61440, 3))
                    return 7;
                CmiIsomallocContextProtect(ctx, stack, 4096, PROT_READ | PROT_WRITE);
                if (!holds(stack, 65536, 3))
                    return 8;
                CmiIsomallocContextDelete(ctx);
                return faults(stack) ? 9 : 0;
            }) == 0);
}

TEST_CASE("what cannot be protected is refused with a line")
{
    const auto result = in_child([] {
        CmiIsomallocContext ctx = CmiIsomallocContextCreate(0, 1);
        auto *block = static_cast<char *>(CmiIsomallocContextMallocAlign(ctx, 4096, 8192));
        CmiIsomallocContextProtect(ctx, block + 1, 4096, PROT_NONE);
        CmiIsomallocContextProtect(ctx, block, 1 << 20, PROT_NONE);
        std::memset(block, 1, 8192);
        return 0;
    });
    REQUIRE(result.exited_with(0));
    REQUIRE(line_count(result.stderr_text) == 2);
    REQUIRE(contains(result.stderr_text, "it has to begin with a page"));
    REQUIRE(contains(result.stderr_text, "it is not inside of one block of the heap"));
}

TEST_CASE("a length that is to be protected is rounded up to whole pages, as mprotect does")
{
    REQUIRE(status_of([] {
                setenv("ISO_POISON", "n", 1); // a tool would be the first to see what is done here
                CmiIsomallocContext ctx = CmiIsomallocContextCreate(0, 1);
                const size_t sizes[] = {5000, 100000, 3000000};
                for (const size_t size : sizes) {
                    auto *block = static_cast<char *>(
                        CmiIsomallocContextPermanentAllocAlign(ctx, 4096, size));
                    const size_t last = (size - 1) & ~size_t{4095};
                    CmiIsomallocContextProtect(ctx, block, size, PROT_NONE);
                    if (!faults(block) || !faults(block + last) || !faults(block + last + 4095))
                        return 1;
                    CmiIsomallocContextProtect(ctx, block, size, PROT_READ | PROT_WRITE);
                    std::memset(block, 1, size);
                }
                return 0;
            }) == 0);
}

TEST_CASE("a context with protections is saved and restored as any heap")
{
    REQUIRE(status_of([] {
                const char *const path = "converse-protected.image";
                iso_job_t *job = nullptr;
                iso_init(nullptr, &job);
                CmiIsomallocUseJob(job);
                CmiIsomallocContext ctx = CmiIsomallocContextCreate(0, 1);
                auto *block = static_cast<char *>(CmiIsomallocContextMallocAlign(ctx, 4096, 65536));
                std::memset(block, 3, 65536);
                CmiIsomallocContextProtect(ctx, block, 4096, PROT_NONE);
                auto *heap = static_cast<iso_heap_t *>(ctx.opaque);
                if (iso_checkpoint(job, path, &heap, 1, nullptr) != ISO_OK || !faults(block))
                    return 1;
                CmiIsomallocContextDelete(ctx);
                iso_image_t *image = nullptr;
                if (iso_image_open(path, &image) != ISO_OK ||
                    iso_image_restore(job, image, 0, &heap) != ISO_OK || heap != ctx.opaque)
                    return 2;
                iso_image_close(image);
                unlink(path);
                if (!faults(block) || !holds(block + 4096, 61440, 3))
                    return 3;
                CmiIsomallocContextProtect(ctx, block, 4096, PROT_READ | PROT_WRITE);
                return holds(block, 65536, 3) ? 0 : 4;
            }) == 0);
}

TEST_CASE("an alignment that is no power of two is rounded up to one")
{
    REQUIRE(status_of([] {
                CmiIsomallocContext ctx = CmiIsomallocContextCreate(0, 1);
                const struct {
                    size_t asked, got;
                } cases[] = {{0, 16},      {1, 16},      {24, 32},
                             {3000, 4096}, {4097, 8192}, {2097151, 2097152}};
                for (const auto &a : cases) {
                    void *one = CmiIsomallocContextMallocAlign(ctx, a.asked, 100);
                    void *two = CmiIsomallocContextPermanentAllocAlign(ctx, a.asked, 100);
                    if (one == nullptr || reinterpret_cast<uintptr_t>(one) % a.got != 0 ||
                        two == nullptr || reinterpret_cast<uintptr_t>(two) % a.got != 0)
                        return 1;
                }
                return CmiIsomallocContextMallocAlign(ctx, 2097153, 100) == nullptr ? 0 : 2;
            }) == 0);
}

TEST_CASE("the used extent is of the context's blocks: not of what the library keeps beside them")
{
    REQUIRE(status_of([] {
                setenv("ISO_POISON", "n", 1); // for blocks with nothing behind them
                CmiIsomallocContext ctx = CmiIsomallocContextCreate(0, 1);
                auto *block =
                    static_cast<char *>(CmiIsomallocContextMallocAlign(ctx, 65536, 65536));
                CmiIsomallocContextProtect(ctx, block, 4096, PROT_READ); // its list is a block
                const CmiIsomallocRegion region = CmiIsomallocContextGetUsedExtent(ctx);
                return region.start == block && region.end == block + 65536 ? 0 : 1;
            }) == 0);
}
