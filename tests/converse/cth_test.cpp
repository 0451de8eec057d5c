// Converse's threads in one process: who runs when, and through memory and back.
#include "tests/unit/support.hpp"
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <converse.h>
#include <cstdlib>
#include <cstring>
#include <isomalloc/thread.h>
#include <pup_c.h>
#include <string>
#include <thread>
#include <vector>

namespace {

std::string trace;
CthThread the_main, other;

void letters(void *arg)
{
    const char letter = *static_cast<const char *>(arg);
    for (int i = 0; i < 3; i++) {
        trace += letter;
        CthYield();
    }
}

void once(void *arg)
{
    trace += static_cast<const char *>(arg);
    CthSuspend();
    trace += static_cast<const char *>(arg);
    CthAwaken(the_main);
}

void switches(void *arg)
{
    trace += static_cast<const char *>(arg);
    CthResume(other); // this one is suspended
    trace += static_cast<const char *>(arg);
}

struct Frame {
    int values[100];
    int *first;
    CmiIsomallocContext context;
};

// What a stack and its context hold is there afterwards.
void remembers(void *arg)
{
    Frame frame;
    frame.context = CmiIsomallocGetThreadContext(CthSelf());
    frame.first = frame.values;
    for (int i = 0; i < 100; i++)
        frame.values[i] = i;
    auto *block = static_cast<char *>(CmiIsomallocContextMalloc(frame.context, 100000));
    std::memset(block, 5, 100000);
    CthSuspend();
    bool whole = frame.first == frame.values;
    for (int i = 0; i < 100; i++)
        whole = whole && frame.first[i] == i;
    whole = whole && block[0] == 5 && std::memcmp(block, block + 1, 99999) == 0;
    *static_cast<bool *>(arg) = whole;
}

} // namespace

TEST_CASE("Cth: threads that yield run in turn")
{
    trace.clear();
    for (const char *letter : {"a", "b", "c"})
        CthAwaken(CthCreateMigratable(letters, const_cast<char *>(letter), 0, {nullptr}));
    REQUIRE(trace.empty()); // nobody runs by being awakened
    for (int i = 0; i < 3; i++)
        CthYield();
    REQUIRE(trace == "abcabcabc");
    CthYield(); // they end
    CthYield();
    REQUIRE(trace == "abcabcabc");
}

TEST_CASE("Cth: who suspends waits until it is awakened, the outside as well")
{
    trace.clear();
    the_main = CthSelf();
    REQUIRE(CthMigratable() == 1);
    CthThread thread = CthCreateMigratable(once, const_cast<char *>("x"), 32768, {nullptr});
    REQUIRE(thread != nullptr);
    REQUIRE(thread != the_main);
    REQUIRE(CmiIsomallocGetThreadContext(thread).opaque != nullptr);
    REQUIRE(CmiIsomallocGetThreadContext(the_main).opaque == nullptr);
    CthYield();
    REQUIRE(trace.empty()); // made, and not awakened
    CthAwaken(thread);
    CthAwaken(thread); // it is
    CthYield();
    CthYield();
    REQUIRE(trace == "x");
    CthAwaken(thread);
    CthSuspend(); // until it awakens this one
    REQUIRE(trace == "xx");
}

TEST_CASE("Cth: threads of a job that follows another run as those of the first did")
{
    const auto result = in_child([] {
        for (int round = 0; round < 2; round++) {
            iso_job_t *job = nullptr;
            trace.clear();
            if (iso_init(nullptr, &job) != ISO_OK || CmiIsomallocUseJob(job) != ISO_OK)
                return 1;
            CthYield();
            CthThread thread = CthCreateMigratable(letters, const_cast<char *>("a"), 0, {nullptr});
            if (thread == nullptr)
                return 2;
            CthAwaken(thread);
            for (int i = 0; i < 4; i++)
                CthYield();
            if (trace != "aaa" || iso_threads_close(job) != ISO_OK || iso_finalize(job) != ISO_OK ||
                CmiIsomallocUseJob(nullptr) != ISO_OK)
                return 3;
        }
        return 0;
    });
    INFO(result.stderr_text);
    REQUIRE(WIFEXITED(result.status));
    REQUIRE(WEXITSTATUS(result.status) == 0);
}

namespace {

void yields_by_hand(void *arg)
{
    for (int i = 0; i < 2; i++) {
        trace += *static_cast<const char *>(arg);
        CthAwaken(CthSelf());
        CthSuspend();
    }
}

} // namespace

TEST_CASE("Cth: who is awakened before it suspends goes on")
{
    trace.clear();
    for (const char *letter : {"a", "b"})
        CthAwaken(CthCreateMigratable(yields_by_hand, const_cast<char *>(letter), 0, {nullptr}));
    for (int i = 0; i < 3; i++)
        CthYield();
    REQUIRE(trace == "abab");
    CthAwaken(CthSelf());
    CthSuspend(); // and the outside as well
}

TEST_CASE("Cth: a thread switches to another, and comes back when it is resumed")
{
    trace.clear();
    CthThread first = CthCreateMigratable(switches, const_cast<char *>("1"), 0, {nullptr});
    other = CthCreateMigratable(once, const_cast<char *>("2"), 0, {nullptr});
    the_main = CthSelf();
    CthResume(first);
    REQUIRE(trace == "12"); // the second has suspended itself: nobody is left
    CthResume(first);
    REQUIRE(trace == "121");
    CthResume(other);
    REQUIRE(trace == "1212");
}

namespace {

void queues_itself_and_switches(void *arg)
{
    trace += *static_cast<const char *>(arg);
    CthAwaken(CthSelf());
    CthResume(other);
    trace += *static_cast<const char *>(arg);
    CthSuspend(); // that was one awakening
    trace += "too soon";
}

void writes(void *arg)
{
    trace += static_cast<const char *>(arg);
}

void switches_to_main(void *arg)
{
    for (int i = 0; i < 3; i++) {
        trace += *static_cast<const char *>(arg);
        CthResume(the_main);
    }
}

CthThread make(CthVoidFn fn, const char *text)
{
    return CthCreateMigratable(fn, const_cast<char *>(text), 0, {nullptr});
}

} // namespace

TEST_CASE("Cth: who is awakened before it switches to another goes on in its turn")
{
    trace.clear();
    CthThread first = make(queues_itself_and_switches, "1"), third = make(writes, "3");
    other = make(writes, "2");
    CthAwaken(first);
    CthAwaken(third);
    CthYield();
    REQUIRE(trace == "123"); // the second at once, the third was awakened before
    CthYield();
    REQUIRE(trace == "1231");
    CthYield();
    CthYield();
    REQUIRE(trace == "1231");
    CmiIsomallocContextDelete(CmiIsomallocGetThreadContext(first));
}

TEST_CASE("Cth: a thread switches to the outside, whatever that has called")
{
    trace.clear();
    the_main = CthSelf();
    CthThread first = make(switches_to_main, "1"), second = make(writes, "2");
    CthAwaken(first);
    CthAwaken(second);
    CthSuspend(); // nobody has awakened it
    REQUIRE(trace == "1");
    CthAwaken(first); // behind the second
    CthYield();
    REQUIRE(trace == "121");
    CthAwaken(second = make(writes, "2"));
    CthResume(first);
    REQUIRE(trace == "1211"); // at once
    CthAwaken(first);
    CthAwaken(make(switches_to_main, "3"));
    CthYield();
    REQUIRE(trace == "121123");
    CthAwaken(the_main);
    CthSuspend(); // being switched to was none of the awakenings that this one waits for
    REQUIRE(trace == "121123");
}

namespace {

// Between the end of its function and its own it lets others run.
void end_slowly(void *value)
{
    CthYield();
    trace += static_cast<const char *>(value);
}
iso_thread_key_t slow_key()
{
    iso_thread_key_t key = ISO_THREAD_KEYS;
    iso_thread_key_create(end_slowly, &key);
    return key;
}
const iso_thread_key_t slow = slow_key(); // before there are threads

void ends_slowly(void *arg)
{
    iso_thread_set_value(slow, arg);
}

void exits(void *)
{
    iso_thread_exit(nullptr);
}

} // namespace

TEST_CASE("Cth: a context of its own goes with its thread, however that ends")
{
    trace.clear();
    CthThread yields = make(ends_slowly, "y"), leaves = make(exits, "");
    void *heaps[] = {CmiIsomallocGetThreadContext(yields).opaque,
                     CmiIsomallocGetThreadContext(leaves).opaque};
    CthAwaken(yields);
    CthAwaken(leaves);
    CthAwaken(make(writes, "w"));
    for (int i = 0; i < 3; i++)
        CthYield();
    REQUIRE(trace == "wy");
    REQUIRE(iso_heap_of(heaps[0]) == nullptr);
    REQUIRE(iso_heap_of(heaps[1]) == nullptr);
}

TEST_CASE(
    "Cth: a context that is deleted takes along those of its threads that wait for their turn")
{
    const ChildResult child = in_child([] {
        const CmiIsomallocContext context = CmiIsomallocContextCreate(0, 0);
        CthThread gone = CthCreateMigratable(writes, const_cast<char *>("gone"), 0, context);
        trace.clear();
        CthAwaken(gone);
        CthAwaken(make(writes, "2"));
        CmiIsomallocContextDelete(context);
        CthYield();
        CthYield();
        return trace == "2" ? 0 : 1;
    });
    CHECK(child.exited_with(0));
    CHECK(child.stderr_text.empty());
}

namespace {

bool exiting;

void exit_is_called(void *)
{
    exiting = true;
    exit(7);
}

// Behind what the job has at exit: LeakSanitizer would not look at the stack that the process has left.
void end_at_once()
{
    if (exiting)
        _exit(7);
}
const int at_exit = atexit(end_at_once); // before there is a job

} // namespace

TEST_CASE("Cth: a thread that calls exit ends the process, and that is said in one line")
{
    const ChildResult child = in_child([] {
        CthAwaken(make(exit_is_called, ""));
        CthYield();
        return 1;
    });
    CHECK(child.exited_with(7));
    CHECK(line_count(child.stderr_text) == 1);
    CHECK(contains(child.stderr_text, "exit was called by a thread"));
}

TEST_CASE("Cth: a suspended thread goes through memory and goes on where it was")
{
    for (const bool deleting : {true, false}) {
        bool whole = false;
        CthThread thread = CthCreateMigratable(remembers, &whole, 0, {nullptr}), again = nullptr;
        CthResume(thread);
        pup_er sizer = pup_new_sizer();
        REQUIRE(CthPup(sizer, thread) == thread);
        std::vector<char> bytes(pup_size(sizer));
        pup_destroy(sizer);
        REQUIRE(bytes.size() < 150000); // of the stack what is in use
        pup_er p = iso_pup_new_to_memory(bytes.data(), bytes.size());
        REQUIRE(iso_pup_set_use(p, deleting ? ISO_PUP_DELETING : 0) == ISO_OK);
        REQUIRE(CthPup(p, thread) == (deleting ? nullptr : thread));
        REQUIRE(iso_pup_status(p) == ISO_OK);
        pup_destroy(p);
        if (deleting) {
            p = iso_pup_new_from_memory(bytes.data(), bytes.size());
            again = CthPup(p, nullptr);
            REQUIRE(iso_pup_status(p) == ISO_OK);
            REQUIRE(again == thread);
            pup_destroy(p);
        }
        CthResume(thread);
        REQUIRE(whole);
    }
}

TEST_CASE("Cth: what is not suspended is not packed, and not resumed")
{
    bool whole = false;
    CthThread thread = CthCreateMigratable(remembers, &whole, 0, {nullptr});
    CthAwaken(thread);
    pup_er sizer = pup_new_sizer();
    CthPup(sizer, thread);
    REQUIRE(iso_pup_status(sizer) == ISO_ERR_BUSY);
    pup_destroy(sizer);
    sizer = pup_new_sizer();
    CthPup(sizer, CthSelf());
    REQUIRE(iso_pup_status(sizer) == ISO_ERR_INVALID);
    pup_destroy(sizer);
    CthResume(thread); // a line, and nothing
    REQUIRE(!whole);
    CthYield();
    CthAwaken(thread);
    CthYield();
    REQUIRE(whole);
    REQUIRE(CthCreateMigratable(remembers, &whole, -1, {nullptr}) == nullptr);
}

namespace {

constexpr unsigned crowd = 100, // more than the queue has room for at first
    rounds = 200;
unsigned ran[crowd];

void is_awakened(void *arg)
{
    for (unsigned *mine = static_cast<unsigned *>(arg); ++*mine < rounds;)
        CthSuspend();
}

} // namespace

TEST_CASE("Cth: a thread of the library's tells of threads while others are run")
{
    CthThread threads[crowd];
    unsigned seen[crowd] = {};
    static std::atomic<bool> waits[crowd], done;
    for (unsigned i = 0; i < crowd; i++) {
        ran[i] = 0;
        threads[i] = CthCreateMigratable(is_awakened, &ran[i], 32768, {nullptr});
        REQUIRE(threads[i] != nullptr);
        waits[i] = true;
    }
    done = false;
    std::thread other([&threads] { // in the place of arrivals under ISO_PROGRESS_THREAD
        while (!done)
            for (unsigned i = 0; i < crowd; i++)
                if (waits[i].exchange(false))
                    iso_thread_awaken(reinterpret_cast<iso_thread_t *>(threads[i]));
    });
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(40);
    unsigned ended = 0;
    while (ended < crowd && std::chrono::steady_clock::now() < until) {
        CthYield();
        for (unsigned i = 0; i < crowd; i++)
            if (ran[i] != seen[i]) {
                seen[i] = ran[i];
                ended += ran[i] == rounds;
                waits[i] = ran[i] < rounds;
            }
    }
    done = true;
    other.join();
    REQUIRE(ended == crowd);
}
