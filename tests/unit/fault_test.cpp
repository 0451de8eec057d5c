// Faults in the iso space, explained by ISO_FAULT_HANDLER, and what comes after the explanation.
#include "tests/unit/support.hpp"
#include <csignal>
#include <isomalloc/isomalloc.h>
#include <sys/stat.h>

namespace {

iso_job_t *join(bool handler = true, iso_backing_t backing = ISO_BACKING_AUTO)
{
    iso_params_t params;
    iso_job_t *job = nullptr;
    iso_params_init(&params);
    params.space_size = 1ull << 30;
    params.backing = backing;
    params.poison = false; // a sanitizer would be the first to find what is done here
    params.fault_handler = handler;
    params.guard = ISO_GUARD_ALL;
    if (iso_init(&params, &job) != ISO_OK)
        _exit(99);
    return job;
}

struct Freed {
    iso_job_t *job = join();
    iso_heap_t *heap = nullptr;
    volatile char *block;
    Freed()
    {
        iso_heap_create(job, &heap);
        block = static_cast<char *>(iso_malloc(heap, 5 << 20));
        block[1 << 20] = 1;
        iso_free(const_cast<char *>(block));
        fprintf(stderr, "%p %p\n", (void *)(block + (1 << 20)), (void *)heap);
    }
};

bool died_of(const ChildResult &child, int number)
{
    return WIFSIGNALED(child.status) && WTERMSIG(child.status) == number;
}

// The first line has address and heap; the second has to name them.
void check_line(const std::string &text, const std::string &cause)
{
    REQUIRE(line_count(text) >= 2);
    const size_t space = text.find(' '), end = text.find('\n');
    const std::string said = text.substr(end + 1);
    CHECK(contains(said, "[0] isomalloc: FATAL SIG"));
    CHECK(contains(said, " at " + text.substr(0, space) + ", in a slot"));
    CHECK(contains(said, "heap " + text.substr(space + 1, end - space - 1)));
    CHECK(contains(said, cause));
}

void exits_with_info(int /*number*/, siginfo_t *info, void *context)
{
    fprintf(stderr, "then %p\n", info->si_addr);
    _exit(context != nullptr ? 21 : 20);
}

volatile char *volatile nowhere = reinterpret_cast<char *>(8); // NOLINT

void exits(int number)
{
    _exit(number);
}

} // namespace

TEST_CASE("use after free of a large block is named, and ends the process as ever")
{
    const ChildResult child = in_child([] {
        const Freed freed;
        return static_cast<int>(freed.block[1 << 20]);
    });
    INFO(child.stderr_text);
    CHECK(died_of(child, SIGSEGV));
    check_line(child.stderr_text, "use after free");
    CHECK(line_count(child.stderr_text) == 2);
}

TEST_CASE("memory that is not there is named")
{
    const ChildResult child = in_child([] {
        iso_job_t *job = join(true, ISO_BACKING_PRIVATE);
        iso_heap_t *heap = nullptr;
        iso_heap_create(job, &heap);
        volatile char *block = static_cast<char *>(iso_malloc(heap, 5 << 20));
        fprintf(stderr, "%p %p\n", (void *)(block + (1 << 20)), (void *)heap);
        for (int fd = 3; fd < 100; fd++) { // the memory object is the one that long
            struct stat st = {};
            if (fstat(fd, &st) == 0 && st.st_size == 1 << 30 && ftruncate(fd, 0) != 0)
                return 98;
        }
        return static_cast<int>(block[1 << 20]);
    });
    INFO(child.stderr_text);
    CHECK(died_of(child, SIGBUS));
    check_line(child.stderr_text, "there is no memory for the page");
}

TEST_CASE("the handler before ours runs after it, however it was installed")
{
    const bool with_info = GENERATE(true, false);
    const ChildResult child = in_child([&] {
        struct sigaction action = {};
        if (with_info) {
            action.sa_flags = SA_SIGINFO;
            action.sa_sigaction = exits_with_info;
        } else {
            action.sa_handler = exits;
        }
        sigaction(SIGSEGV, &action, nullptr);
        const Freed freed;
        return static_cast<int>(freed.block[1 << 20]);
    });
    INFO(child.stderr_text);
    CHECK(child.exited_with(with_info ? 21 : SIGSEGV));
    check_line(child.stderr_text, "use after free");
    CHECK(contains(child.stderr_text, "then 0x") == with_info);
}

TEST_CASE("faults elsewhere and signals that are sent are not ours to explain")
{
    const int way = GENERATE(0, 1, 2);
    const ChildResult child = in_child([&] {
        if (way == 2)
            signal(SIGSEGV, SIG_IGN);
        join();
        if (way == 0)
            *nowhere = 1;
        raise(SIGSEGV);
        return 7;
    });
    INFO(child.stderr_text);
    CHECK(child.stderr_text.empty());
    CHECK((way == 2 ? child.exited_with(7) : died_of(child, SIGSEGV)));
}

TEST_CASE("the handler comes with the first job and goes with the last")
{
    const ChildResult child = in_child([] {
        struct sigaction before = {}, now = {};
        before.sa_handler = exits;
        sigaction(SIGSEGV, &before, nullptr);
        iso_job_t *none = join(false), *first = join(), *second = join();
        sigaction(SIGSEGV, nullptr, &now);
        if (now.sa_handler == exits || !(now.sa_flags & SA_ONSTACK))
            return 1;
        iso_finalize(first);
        sigaction(SIGSEGV, nullptr, &now);
        if (now.sa_handler == exits)
            return 2;
        iso_finalize(second);
        sigaction(SIGSEGV, nullptr, &now);
        if (now.sa_handler != exits)
            return 3;
        // one that was put in front of ours stays when ours goes
        iso_job_t *third = join();
        signal(SIGSEGV, SIG_IGN);
        iso_finalize(third);
        sigaction(SIGSEGV, nullptr, &now);
        iso_finalize(none);
        return now.sa_handler == SIG_IGN ? 0 : 4;
    });
    INFO(child.stderr_text);
    CHECK(child.exited_with(0));
}
