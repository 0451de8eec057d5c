// The alternate signal stack that a thread of the system gets when it first resumes one of ours: unmapped once, whatever fails, and
// not in the way of one that the program has put there. The system's calls are stood in for.
#include "tests/thread/threads.hpp"
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <thread>
#include <vector>

namespace {

std::atomic<bool> none_can_be_set, watched;
std::vector<void *> unmapped; // while it is watched: pieces as long as such a stack

} // namespace

extern "C" int sigaltstack(const stack_t *stack, stack_t *old) noexcept
{
    if (stack != nullptr && none_can_be_set) {
        errno = ENOMEM;
        return -1;
    }
    return static_cast<int>(syscall(SYS_sigaltstack, stack, old));
}

extern "C" int munmap(void *address, size_t length) noexcept
{
    if (watched && length == (size_t{64} << 10))
        unmapped.push_back(address);
    return static_cast<int>(syscall(SYS_munmap, address, length));
}

namespace {

// Resumes a thread in a thread of the system that is new, and ends that.
void resume_in_new_one(
    const Threads &threads, void (*afterwards)() = [] {})
{
    iso_thread_t *thread = threads.make([](void *arg) { return arg; }, nullptr, 16 << 10, true);
    unmapped.clear();
    watched = true;
    std::thread([thread, afterwards] {
        iso_thread_resume(thread, nullptr);
        afterwards();
    }).join();
    watched = false;
}

char own[64 << 10];

} // namespace

TEST_CASE("an alternate stack that cannot be set is unmapped once")
{
    const Threads threads;
    none_can_be_set = true;
    resume_in_new_one(threads);
    none_can_be_set = false;
    CHECK(unmapped.size() == 1);
    resume_in_new_one(threads);
    CHECK(unmapped.size() == 1);
}

TEST_CASE("an alternate stack of the program's own stays set when the thread of the system ends")
{
    const Threads threads;
    static stack_t at_the_end;
    resume_in_new_one(threads, [] {
        const stack_t mine = {own, 0, sizeof own};
        sigaltstack(&mine, nullptr);
        static pthread_key_t last; // made after the library's: its destructor is called later
        pthread_key_create(&last, [](void *) { sigaltstack(nullptr, &at_the_end); });
        pthread_setspecific(last, own);
    });
    CHECK(unmapped.size() == 1);
    CHECK(at_the_end.ss_sp == own);
    CHECK((at_the_end.ss_flags & SS_DISABLE) == 0);
}
