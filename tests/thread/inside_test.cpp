// What a thread is refused while it is inside of something: of a callback of the library's, where what called it is half done, and
// of the memory that it runs on.
#include "tests/thread/threads.hpp"
#include <functional>
#include <isomalloc/pup.h>
#include <vector>

namespace {

const Threads *the_threads;
std::vector<std::string> stayed,
    moved; // the callbacks that a thread could not leave, and those that it could

// In a callback: may the thread that it is called in stop?
void tries(const char *where)
{
    (iso_thread_yield() == ISO_ERR_BUSY && iso_thread_migrate(0) == ISO_ERR_BUSY ? stayed : moved)
        .emplace_back(where);
}

// What `body` does as a thread, and which callbacks were tried in it.
int in_a_thread(const std::function<void()> &body, const iso_threads_params_t *params = nullptr)
{
    stayed.clear();
    moved.clear();
    const Threads threads(params);
    the_threads = &threads;
    iso_thread_t *thread = threads.make(
        [](void *arg) -> void * {
            (*static_cast<const std::function<void()> *>(arg))();
            return iso_thread_yield() == ISO_OK ? arg : nullptr; // afterwards it may
        },
        const_cast<std::function<void()> *>(&body), 256 << 10);
    for (int i = 0; i < 2; i++)
        resume(thread);
    const bool good = moved.empty() && iso_thread_state(thread) == ISO_THREAD_FINISHED;
    return good ? static_cast<int>(stayed.size()) : 99;
}

iso_status_t on_items(void *, void *, size_t, size_t, iso_pup_type_t)
{
    tries("items");
    return ISO_OK;
}
iso_status_t on_mark(void *, unsigned, const char *)
{
    tries("mark");
    return ISO_OK;
}
iso_status_t on_flush(void *)
{
    tries("flush");
    return ISO_OK;
}
void on_destroy(void *)
{
    tries("destroy");
}
const iso_pup_kind_t kind = {sizeof kind, "tries",  ISO_PUP_PACKING, on_items,
                             on_mark,     on_flush, on_destroy};

const iso_object_type_t type = {
    sizeof type,
    "tries",
    sizeof(int),
    [](pup_er p, void *object) {
        pup_int(p, static_cast<int *>(object));
        tries(pup_isUnpacking(p) ? "unpacks" : pup_isDeleting(p) ? "frees" : "packs");
    },
    [](iso_job_t *, void *object, uint32_t, iso_status_t, void *) {
        tries("arrived");
        free(object);
    },
    nullptr,
    nullptr};

bool in_walk(iso_thread_t *, void *)
{
    tries("threads");
    return true;
}

} // namespace

TEST_CASE("a thread stays where it is while a walk calls it")
{
    const ChildResult child = in_child([] {
        return in_a_thread([] {
            iso_heap_walk(
                the_threads->heap,
                [](void *, size_t, void *) {
                    tries("blocks");
                    return false;
                },
                nullptr);
            iso_stack_walk(
                the_threads->heap,
                [](iso_stack_t *, void *) {
                    tries("stacks");
                    return true;
                },
                nullptr);
            iso_thread_walk(the_threads->heap, in_walk, nullptr);
        });
    });
    CHECK(child.exited_with(3));
}

TEST_CASE("a thread stays where it is while a pup_er of its own calls it, or an object's routine")
{
    const ChildResult child = in_child([] {
        return in_a_thread([] {
            int value = 1;
            pup_er p = iso_pup_new(&kind, nullptr);
            pup_int(p, &value);
            pup_comment(p, "mark");
            pup_destroy(p); // and flush
        });
    });
    CHECK(child.exited_with(4));
    const ChildResult object = in_child([] {
        return in_a_thread([] {
            int value = 1;
            iso_request_t *request = nullptr;
            if (iso_pup_register(the_threads->job, &type) != ISO_OK ||
                iso_migrate_pup(the_threads->job, 0, "tries", &value, &request) != ISO_OK ||
                iso_wait(request) != ISO_OK)
                moved.emplace_back("never");
            iso_progress(the_threads->job);
        });
    });
    CHECK(object.exited_with(4)); // packs, frees, unpacks, arrived
}

TEST_CASE("a thread stays where it is while an arrival, or a question of the library's, calls it")
{
    const ChildResult child = in_child([] {
        const iso_threads_params_t params = {
            sizeof params, nullptr,
            [](iso_job_t *, const iso_arrival_t *, void *) { tries("arrival"); }, nullptr};
        return in_a_thread(
            [] {
                iso_heap_t *heap = nullptr;
                iso_request_t *request = nullptr;
                if (iso_heap_create(the_threads->job, &heap) != ISO_OK ||
                    iso_migrate(heap, 0, nullptr, 0, &request) != ISO_OK ||
                    iso_wait(request) != ISO_OK)
                    moved.emplace_back("never");
                iso_progress(the_threads->job);
            },
            &params);
    });
    CHECK(child.exited_with(1));
}

TEST_CASE("a thread stays where it is while the runtime's scheduler is told of another one")
{
    const ChildResult child = in_child([] {
        const iso_threads_params_t params = {sizeof params,
                                             [](iso_thread_t *thread, void *) {
                                                 if (iso_thread_self() == nullptr)
                                                     return;
                                                 tries("ready");
                                                 // others are resumed from there
                                                 iso_thread_state_t state;
                                                 if (iso_thread_resume(thread, &state) != ISO_OK)
                                                     moved.emplace_back("never");
                                             },
                                             nullptr, nullptr};
        return in_a_thread(
            [] {
                const iso_thread_fn waits = [](void *) -> void * {
                    iso_thread_yield();
                    iso_thread_suspend();
                    return nullptr;
                };
                iso_thread_t *other = the_threads->make(waits);
                iso_thread_resume(other, nullptr);
                iso_thread_awaken(other);
                iso_heap_t *heap = nullptr;
                iso_thread_t *taken_in = nullptr;
                if (iso_heap_create(the_threads->job, &heap) != ISO_OK ||
                    iso_thread_create(heap, waits, nullptr, nullptr, &taken_in) != ISO_OK ||
                    iso_threads_let_go(heap) != ISO_OK || iso_threads_take_in(heap) != ISO_OK)
                    moved.emplace_back("never");
            },
            &params);
    });
    CHECK(child.exited_with(4)); // made, awakened, made, taken in
}

TEST_CASE("a thread that ends may still do what threads do, in the destructors of its values")
{
    const Threads threads;
    static iso_thread_key_t key;
    static int turns;
    REQUIRE(iso_thread_key_create(
                [](void *) {
                    for (turns = 0; turns < 3; turns++)
                        iso_thread_yield();
                },
                &key) == ISO_OK);
    iso_thread_t *thread = threads.make([](void *arg) -> void * {
        iso_thread_set_value(key, &key);
        return arg;
    });
    for (int i = 0; i < 3; i++)
        CHECK(resume(thread) == ISO_THREAD_READY);
    CHECK(resume(thread) == ISO_THREAD_FINISHED);
    CHECK(turns == 3);
}

// ---- the memory that it runs on ----

namespace {

// In a thread that is called `tested`, whose heap is an own one.
ChildResult on_its_own(iso_thread_fn fn)
{
    return in_child([fn] {
        const Threads threads;
        the_threads = &threads;
        return threads.run(fn) == number(1) ? 0 : 1;
    });
}

} // namespace

TEST_CASE("a thread does not destroy the heap that its stack is in, or send it away, or save it")
{
    const ChildResult child = on_its_own([](void *) -> void * {
        iso_heap_t *heap = the_threads->heap;
        iso_request_t *request = nullptr;
        if (iso_heap_destroy(heap) != ISO_ERR_BUSY ||
            iso_finalize(the_threads->job) != ISO_ERR_BUSY ||
            iso_migrate(heap, 0, nullptr, 0, &request) != ISO_ERR_BUSY ||
            iso_threads_move_heap(heap, 0) != ISO_ERR_BUSY ||
            iso_threads_let_go(heap) != ISO_ERR_BUSY)
            return nullptr;
        const iso_object_type_t holder = {
            sizeof holder,
            "holder",
            sizeof heap,
            [](pup_er p, void *object) {
                iso_pup_heap(p, the_threads->job, static_cast<iso_heap_t **>(object));
            },
            [](iso_job_t *, void *, uint32_t, iso_status_t, void *) {},
            nullptr,
            nullptr};
        if (iso_pup_register(the_threads->job, &holder) != ISO_OK ||
            iso_migrate_pup(the_threads->job, 0, "holder", &heap, &request) != ISO_ERR_BUSY)
            return nullptr;
        char bytes[64];
        pup_er packer = iso_pup_new_to_memory(bytes, sizeof bytes);
        iso_pup_heap(packer, the_threads->job, &heap);
        const iso_status_t status = iso_pup_status(packer);
        pup_destroy(packer);
        return number(status == ISO_ERR_BUSY && iso_heap_state(heap) == ISO_HEAP_OWNED);
    });
    CHECK(child.exited_with(0));
    CHECK(contains(child.stderr_text, "iso_heap_destroy of heap 0x"));
    CHECK(contains(child.stderr_text, "the thread that calls has its stack 'tested' in it"));
    CHECK(contains(child.stderr_text, "iso_finalize: the thread that calls has its stack in the"));
}

TEST_CASE("a thread that frees its own stack ends the process, in a line with its name")
{
    for (const iso_thread_fn fn : {iso_thread_fn{[](void *) -> void * {
                                       iso_stack_t *stack = nullptr;
                                       iso_stack_walk(
                                           the_threads->heap,
                                           [](iso_stack_t *found, void *arg) {
                                               *static_cast<iso_stack_t **>(arg) = found;
                                               return true;
                                           },
                                           &stack);
                                       iso_stack_destroy(stack);
                                       return number(1);
                                   }},
                                   iso_thread_fn{[](void *) -> void * {
                                       iso_heap_walk(
                                           the_threads->heap,
                                           [](void *block, size_t size, void *) {
                                               if (size > 60000)
                                                   iso_free(block);
                                               return size <= 60000;
                                           },
                                           nullptr);
                                       return number(1);
                                   }}}) {
        const ChildResult child = on_its_own(fn);
        CHECK(child.aborted());
        CHECK(contains(child.stderr_text, "is the stack 'tested', and who frees it runs on it"));
    }
}

TEST_CASE("a heap and a stack are destroyed by other threads of theirs, or from outside")
{
    const Threads threads;
    the_threads = &threads;
    static iso_heap_t *other;
    REQUIRE(iso_heap_create(threads.job, &other) == ISO_OK);
    static iso_stack_t *stack;
    stack = iso_stack_create(threads.heap, 16 << 10, "another");
    REQUIRE(stack != nullptr);
    REQUIRE(iso_stack_create(other, 16 << 10, "another") != nullptr);
    CHECK(threads.run([](void *) -> void * {
        iso_stack_destroy(stack);
        return number(iso_heap_destroy(other) == ISO_OK);
    }) == number(1));
}

TEST_CASE("the job's threads are not closed by one of them, nor while the scheduler runs")
{
    const ChildResult child = in_child([] {
        const Threads threads;
        the_threads = &threads;
        if (threads.run([](void *) -> void * {
                return number(iso_threads_close(the_threads->job));
            }) != number(static_cast<uintptr_t>(ISO_ERR_BUSY)))
            return 1;
        iso_status_t status = ISO_OK;
        iso_threads_run(
            threads.job,
            [](void *arg) {
                *static_cast<iso_status_t *>(arg) = iso_threads_close(the_threads->job);
                return true;
            },
            &status);
        if (status != ISO_ERR_BUSY)
            return 2;
        status = ISO_OK;
        if (iso_malloc(threads.heap, 16) == nullptr)
            return 3;
        iso_heap_walk(
            threads.heap,
            [](void *, size_t, void *arg) {
                *static_cast<iso_status_t *>(arg) = iso_threads_close(the_threads->job);
                return false;
            },
            &status);
        return status == ISO_ERR_BUSY ? 0 : 4;
    });
    CHECK(child.exited_with(0));
    CHECK(line_count(child.stderr_text) == 3);
    CHECK(contains(child.stderr_text,
                   "iso_threads_close: a thread calls, or a callback, or iso_threads_run runs"));
}

TEST_CASE("outside of any thread, iso_thread_exit ends the process with a line")
{
    const ChildResult child = in_child([]() -> int {
        const Threads threads;
        iso_thread_exit(nullptr);
    });
    CHECK_FALSE(child.exited_with(0));
    CHECK(contains(child.stderr_text, "iso_thread_exit: the caller is no thread"));
}
