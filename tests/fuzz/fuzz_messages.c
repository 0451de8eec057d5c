/*
 * fuzz_messages.c - rank 0 of a job of three whose other ranks are the fuzzer.
 *
 * The input is a program of two-byte steps: the rank makes heaps, sends them, gives up, frees; the others send any
 * message, most of them nearly right (heaps that exist, epochs that are near, slots of theirs or
 * not), some with bytes changed or cut, from either rank. After every step: a message that was
 * dropped has changed nothing, and every heap that is here has its contents.
 */
#include "fuzz_job.h"
#include <isomalloc/pup.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

iso_heap_t *fuzz_heaps[HEAPS];
static iso_request_t *requests[HEAPS];

static unsigned char mark_of(unsigned i)
{
    return (unsigned char)(0xa0 + i);
}

static void heap_new(unsigned i)
{
    iso_stats_t stats;
    iso_stats(fuzz_job, &stats);
    if (fuzz_heaps[i] || stats.slots_free == 0) /* it would wait for a peer to give some */
        return;
    CHECK(iso_heap_create(fuzz_job, &fuzz_heaps[i]) == ISO_OK);
    unsigned char *block = iso_malloc(fuzz_heaps[i], MARK_BYTES);
    if (block)
        memset(block, mark_of(i), MARK_BYTES);
    iso_heap_set_root(fuzz_heaps[i], block);
}

static void check_heap(unsigned i)
{
    if (!fuzz_heaps[i])
        return;
    iso_heap_state_t state = iso_heap_state(fuzz_heaps[i]);
    if (state == ISO_HEAP_ELSEWHERE)
        return;
    const unsigned char *block = iso_heap_root(fuzz_heaps[i]);
    for (size_t at = 0; block && at < MARK_BYTES; at++)
        CHECK(block[at] == mark_of(i));
}

/* An object of one heap, or of two. */
typedef struct thing {
    uint32_t count;
    iso_heap_t *heaps[2];
} thing_t;

static thing_t things[HEAPS];

static void pup_thing(pup_er p, void *object)
{
    thing_t *thing = object;
    pup_uint(p, &thing->count);
    for (uint32_t i = 0; i < 2 && i < thing->count; i++)
        iso_pup_heap(p, fuzz_job, &thing->heaps[i]);
}

static void thing_arrived(iso_job_t *where, void *object, uint32_t source, iso_status_t status,
                          void *arg)
{
    (void)where, (void)source, (void)status, (void)arg;
    free(object);
}

static void heap_send(unsigned i, uint32_t dest, uint32_t of_object)
{
    const unsigned j = (i + 1) % HEAPS;
    if (!fuzz_heaps[i] || requests[i])
        return;
    if (of_object == 0) {
        iso_migrate(fuzz_heaps[i], dest, "header", 6, &requests[i]);
        return;
    }
    things[i] = (thing_t){of_object, {fuzz_heaps[i], fuzz_heaps[j]}};
    if (of_object == 1 || (fuzz_heaps[j] && !requests[j]))
        iso_migrate_pup(fuzz_job, dest, "thing", &things[i], &requests[i]);
}

static void request_look(unsigned i, bool cancel)
{
    if (!requests[i])
        return;
    if (cancel)
        iso_cancel(requests[i]);
    if (iso_test(requests[i]) != ISO_INPROGRESS)
        requests[i] = NULL;
}

static void heap_destroy(unsigned i)
{
    if (fuzz_heaps[i] && iso_heap_state(fuzz_heaps[i]) == ISO_HEAP_OWNED &&
        iso_heap_destroy(fuzz_heaps[i]) == ISO_OK)
        fuzz_heaps[i] = NULL;
}

static void step(input_t *in)
{
    unsigned what = fuzz_take(in);
    unsigned i = fuzz_take(in) % HEAPS;
    switch (what % 16) {
    case 0:
        heap_new(i);
        break;
    case 1:
    case 2:
        heap_send(i, 1 + what / 16 % 2, what / 32 % 4 < 2 ? 0 : what / 32 % 4 - 1);
        break;
    case 3:
        request_look(i, what >= 128);
        break;
    case 4:
        heap_destroy(i);
        break;
    case 5:
    case 6:
        fuzz_answer(in, ISO_MSG_GRANT);
        break;
    case 7:
    case 8:
        fuzz_answer(in, ISO_MSG_ACK);
        break;
    case 9:
        fuzz_come_back(in);
        break;
    case 10:
        if (what >= 224)
            iso_peer_declare_dead(fuzz_job, 1 + what % 2);
        break;
    case 11:
        fuzz_lend(in, ISO_MSG_LEND);
        break;
    case 12:
        fuzz_lend(in, ISO_MSG_RECALL);
        break;
    default:
        fuzz_message(in);
        break;
    }
    iso_progress(fuzz_job);
    for (unsigned h = 0; h < HEAPS; h++)
        check_heap(h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input_t in = {data, data + size};
    iso_params_t params;
    memset(fuzz_heaps, 0, sizeof fuzz_heaps);
    memset(requests, 0, sizeof requests);
    fuzz_params_fill(&params, fuzz_take(&in));
    CHECK(iso_init(&params, &fuzz_job) == ISO_OK);
    const iso_object_type_t type = {.struct_size = sizeof type,
                                    .name = "thing",
                                    .size = sizeof(thing_t),
                                    .pup = pup_thing,
                                    .arrived = thing_arrived};
    CHECK(iso_pup_register(fuzz_job, &type) == ISO_OK);
    fuzz_look_at_space();
    heap_new(0);
    heap_send(0, 1, 0); /* the first words have the cookie in them */
    request_look(0, true);
    heap_new(1);
    heap_send(1, 2, 0);
    request_look(1, true);
    fuzz_say_hello();
    for (int steps = 0; in.at < in.end && steps < 200; steps++)
        step(&in);
    /* whatever state it is in: certain death settles it */
    for (uint32_t r = 1; r < RANKS; r++)
        CHECK(iso_peer_declare_dead(fuzz_job, r) == ISO_OK);
    for (unsigned i = 0; i < HEAPS; i++) {
        CHECK(!requests[i] || iso_test(requests[i]) != ISO_INPROGRESS);
        check_heap(i);
    }
    CHECK(iso_finalize(fuzz_job) == ISO_OK);
    return 0;
}
