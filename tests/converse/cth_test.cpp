// Converse's threads in one process: who runs when, and through memory and back.
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

void awakens_itself_and_switches(void *arg)
{
    CthAwaken(CthSelf());
    CthResume(other);
    trace += static_cast<const char *>(arg);
}

void switches_to_main(void *arg)
{
    trace += static_cast<const char *>(arg);
    CthResume(the_main);
    trace += static_cast<const char *>(arg);
}

} // namespace

TEST_CASE("Cth: who is awakened and switches to another waits for its turn")
{
    trace.clear();
    CthThread first =
        CthCreateMigratable(awakens_itself_and_switches, const_cast<char *>("1"), 0, {nullptr});
    other = CthCreateMigratable(once, const_cast<char *>("2"), 0, {nullptr});
    the_main = CthSelf();
    CthAwaken(first);
    CthYield();
    REQUIRE(trace == "2"); // the second was first
    CthYield();
    REQUIRE(trace == "21");
    CthAwaken(other);
    CthSuspend();
    REQUIRE(trace == "212");
}

TEST_CASE("Cth: a thread switches to what is outside of any")
{
    trace.clear();
    the_main = CthSelf();
    CthThread first = CthCreateMigratable(switches_to_main, const_cast<char *>("1"), 0, {nullptr});
    CthThread second = CthCreateMigratable(switches_to_main, const_cast<char *>("2"), 0, {nullptr});
    CthAwaken(first);
    CthAwaken(second);
    CthSuspend(); // until the first one switches here
    REQUIRE(trace == "1");
    CthYield();
    REQUIRE(trace == "12");
    CthResume(first);
    REQUIRE(trace == "121");
    CthResume(second);
    REQUIRE(trace == "1212");
}

namespace {

bool is_there(CmiIsomallocContext context)
{
    return iso_heap_of(context.opaque) != nullptr;
}

void exits(void * /*arg*/)
{
    iso_thread_exit(nullptr);
}

void sets_a_value(void *arg)
{
    iso_thread_set_value(*static_cast<iso_thread_key_t *>(arg), arg);
}

} // namespace

TEST_CASE("Cth: a context of a thread's own ends with it, however that ends")
{
    iso_thread_key_t key;
    REQUIRE(iso_thread_key_create([](void *) { CthYield(); }, &key) == ISO_OK);
    CthThread thread = CthCreateMigratable(exits, nullptr, 0, {nullptr});
    CthThread yields = CthCreateMigratable(sets_a_value, &key, 0, {nullptr});
    const CmiIsomallocContext own = CmiIsomallocGetThreadContext(thread),
                              other_own = CmiIsomallocGetThreadContext(yields);
    const CmiIsomallocContext given = CmiIsomallocContextCreate(0, 0);
    CthThread in_given = CthCreateMigratable(exits, nullptr, 0, given);
    CthAwaken(thread);
    CthAwaken(yields);
    CthAwaken(in_given);
    CthYield();
    REQUIRE(!is_there(own));
    REQUIRE(is_there(other_own)); // its value's end yields
    CthYield();
    REQUIRE(!is_there(other_own));
    REQUIRE(is_there(given));
    CmiIsomallocContextDelete(given);
    REQUIRE(!is_there(given));
}

TEST_CASE("Cth: a context that is deleted takes its threads out of turn")
{
    trace.clear();
    CthThread gone = CthCreateMigratable(letters, const_cast<char *>("x"), 0, {nullptr});
    CthThread stays = CthCreateMigratable(letters, const_cast<char *>("a"), 0, {nullptr});
    CthAwaken(gone);
    CthAwaken(stays);
    CmiIsomallocContextDelete(CmiIsomallocGetThreadContext(gone));
    for (int i = 0; i < 5; i++)
        CthYield();
    REQUIRE(trace == "aaa");
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

TEST_CASE("Cth: a thread calls exit", "[.]") // ends the process
{
    CthResume(CthCreateMigratable([](void *) { std::exit(0); }, nullptr, 0, {nullptr}));
}
