// A heap in which a thread runs stays where it is, whoever asks: one that the thread has resumed, or another thread of the system's.
#include "tests/thread/threads.hpp"
#include <cstdio>
#include <functional>
#include <isomalloc/checkpoint.h>
#include <isomalloc/pup.h>
#include <semaphore.h>
#include <string>
#include <thread>

namespace {

const Threads *the_threads;
iso_heap_t *other; // not the one of the thread that runs

const iso_object_type_t holder = {sizeof holder,
                                  "holder",
                                  sizeof(iso_heap_t *),
                                  [](pup_er p, void *object) {
                                      iso_pup_heap(p, the_threads->job,
                                                   static_cast<iso_heap_t **>(object));
                                  },
                                  [](iso_job_t *, void *, uint32_t, iso_status_t, void *) {},
                                  nullptr,
                                  nullptr};

iso_status_t packed(iso_heap_t *heap, uint32_t flags)
{
    char bytes[64];
    pup_er packer = iso_pup_new_to_memory(bytes, sizeof bytes);
    iso_pup_set_use(packer, flags);
    iso_pup_heap(packer, the_threads->job, &heap);
    const iso_status_t status = iso_pup_status(packer);
    pup_destroy(packer);
    return status;
}

iso_status_t saved(iso_heap_t *heap)
{
    const std::string path = "running." + std::to_string(getpid());
    const iso_status_t status = iso_checkpoint(the_threads->job, path.c_str(), &heap, 1, nullptr);
    std::remove(path.c_str());
    return status;
}

// How many calls would have taken the heap away.
constexpr unsigned calls = 8;
unsigned refusals()
{
    iso_heap_t *heap = the_threads->heap;
    iso_request_t *request = nullptr;
    unsigned refused = 0;
    for (const iso_status_t status :
         {iso_heap_destroy(heap), iso_migrate(heap, 0, nullptr, 0, &request),
          iso_threads_move_heap(heap, 0), iso_threads_let_go(heap),
          iso_migrate_pup(the_threads->job, 0, "holder", &heap, &request), packed(heap, 0),
          packed(heap, ISO_PUP_DELETING), saved(heap)})
        refused += status == ISO_ERR_BUSY && iso_heap_state(heap) == ISO_HEAP_OWNED;
    return refused;
}

// The first thread of a chain: what it has on its stack is there when it comes back.
using Body = std::function<void()>;
void *goes_on(void *arg)
{
    volatile unsigned words[512];
    for (unsigned i = 0; i < 512; i++)
        words[i] = i;
    (*static_cast<Body *>(arg))();
    unsigned right = 0;
    for (unsigned i = 0; i < 512; i++)
        right += words[i] == i;
    return number(right);
}

struct Chain : Threads {
    Chain()
    {
        the_threads = this;
        if (iso_heap_create(job, &other) != ISO_OK || iso_pup_register(job, &holder) != ISO_OK)
            _exit(98);
    }
};

iso_thread_t *in_other(iso_thread_fn fn, void *arg = nullptr)
{
    const iso_thread_attr_t attr = {sizeof attr, 256 << 10, "the other", true};
    iso_thread_t *thread = nullptr;
    REQUIRE(iso_thread_create(other, fn, arg, &attr, &thread) == ISO_OK);
    return thread;
}

iso_stack_t *first_stack()
{
    iso_stack_t *first = nullptr;
    iso_stack_walk(
        the_threads->heap,
        [](iso_stack_t *stack, void *arg) {
            *static_cast<iso_stack_t **>(arg) = stack;
            return false;
        },
        static_cast<void *>(&first));
    return first;
}

} // namespace

TEST_CASE("who was resumed by a thread does not take that one's heap away")
{
    const ChildResult child = in_child([] {
        const Chain chain;
        unsigned refused = 0;
        Body body = [&] {
            iso_thread_t *second = in_other(
                [](void *arg) -> void * {
                    *static_cast<unsigned *>(arg) = refusals();
                    iso_thread_yield();
                    *static_cast<unsigned *>(arg) += refusals();
                    return nullptr;
                },
                static_cast<void *>(&refused));
            resume(second);
            iso_thread_yield(); // now nobody runs
            resume(second);
        };
        iso_thread_t *first = chain.make(goes_on, static_cast<void *>(&body));
        resume(first);
        const iso_status_t stopped = packed(chain.heap, 0); // no room, but allowed
        const iso_status_t gone = iso_threads_let_go(chain.heap);
        const iso_status_t back = iso_threads_take_in(chain.heap);
        resume(first);
        if (chain.join(first) != number(512))
            return 1;
        if (refused != 2 * calls || stopped == ISO_ERR_BUSY || gone != ISO_OK || back != ISO_OK)
            return 2;
        return iso_heap_destroy(chain.heap) == ISO_OK ? 0 : 3;
    });
    CHECK(child.exited_with(0));
    for (const char *call :
         {"iso_heap_destroy of heap 0x", "iso_migrate of heap 0x", "iso_migrate_pup, heap 0x",
          "iso_pup_heap of heap 0x", "iso_checkpoint of heap 0x"})
        CHECK(contains(child.stderr_text, call));
    CHECK(contains(child.stderr_text, "a thread runs on its stack 'tested': it has resumed the"));
    CHECK(line_count(child.stderr_text) == 2 * calls + 1); // and that there was no room
}

TEST_CASE("a heap is not taken away while another thread of the system runs a thread of it")
{
    const ChildResult child = in_child([] {
        Chain chain;
        sem_t runs, done;
        sem_init(&runs, 0, 0);
        sem_init(&done, 0, 0);
        Body body = [&] {
            sem_post(&runs);
            while (sem_wait(&done) != 0) {
            }
        };
        iso_thread_t *first = chain.make(goes_on, static_cast<void *>(&body));
        std::thread system([&] { resume(first); });
        while (sem_wait(&runs) != 0) {
        }
        const unsigned refused = refusals();
        const iso_status_t ended = iso_finalize(chain.job);
        sem_post(&done);
        system.join();
        if (chain.join(first) != number(512))
            return 1;
        if (refused != calls || ended != ISO_ERR_BUSY)
            return 2;
        return iso_heap_destroy(chain.heap) == ISO_OK ? 0 : 3;
    });
    CHECK(child.exited_with(0));
    CHECK(contains(child.stderr_text, "iso_finalize: a thread runs on its stack 'tested'"));
    CHECK(line_count(child.stderr_text) == calls + 1);
}

TEST_CASE("a stack that a thread runs on, which has resumed another one, is not freed by that")
{
    const bool frees = GENERATE(true, false);
    const ChildResult child = in_child([frees] {
        const Chain chain;
        Body body = [&] {
            resume(in_other(
                [](void *arg) -> void * {
                    iso_stack_t *stack = first_stack();
                    if (*static_cast<const bool *>(arg))
                        iso_free(static_cast<char *>(stack->low) - sysconf(_SC_PAGESIZE));
                    else
                        iso_stack_destroy(stack);
                    return nullptr;
                },
                const_cast<bool *>(&frees)));
        };
        resume(chain.make(goes_on, static_cast<void *>(&body)));
        return 0;
    });
    CHECK(child.aborted());
    CHECK(contains(child.stderr_text, "[0] isomalloc: FATAL block 0x"));
    CHECK(contains(child.stderr_text, "is the stack 'tested', and a thread runs on it"));
}

TEST_CASE("a heap is destroyed with threads that wait, and with those that have ended")
{
    const Chain chain;
    Body nothing = [] {};
    resume(chain.make([](void *arg) -> void * { return iso_thread_suspend(), arg; }));
    iso_thread_t *ends = chain.make(goes_on, static_cast<void *>(&nothing));
    CHECK(resume(ends) == ISO_THREAD_FINISHED);
    CHECK(iso_heap_destroy(chain.heap) == ISO_OK);
}
