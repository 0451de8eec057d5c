/*
 * fuzz_messages.c - rank 0 of a job of three whose other ranks are the fuzzer.
 *
 * The input is a program of two-byte steps: the rank makes heaps, sends them, gives up, frees; the others send any
 * message, most of them nearly right (heaps that exist, epochs that are near, slots of theirs or
 * not), some with bytes changed or cut, from either rank. After every step: a message that was
 * dropped has changed nothing, and every heap that is here has its contents.
 */
#include "core/head.h"
#include "core/heap.h"
#include "core/heap_layout.h"
#include "core/wire.h"
#include "fuzz_transport.h"
#include <dlfcn.h>
#include <isomalloc/bootstrap.h>
#include <isomalloc/pup.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANKS 3
#define HEAPS 6
#define MARK_BYTES 5000
#define WINDOW_SLOTS 4                  /* of the others' */
#define SPACE_SIZE ((uint64_t)96 << 20) /* 48 slots */

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                \
        }                                                                           \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the job ---- */

static iso_job_t *job;
static fuzz_push_fn push;
static fuzz_unflushed_fn unflushed;
static uint8_t cookie[16];
static uint64_t space;     /* its address */
static bool peers_windows; /* the others have windows */

static iso_status_t allgather(void *ctx, const void *mine, void *all, size_t len)
{
    (void)ctx;
    for (int r = 0; r < RANKS; r++)
        memcpy((char *)all + (size_t)r * len, mine, len);
    return ISO_OK;
}

static iso_status_t at_once(void *ctx)
{
    (void)ctx;
    return ISO_OK;
}

static const iso_bootstrap_t bootstrap = {.abi_version = ISO_BOOTSTRAP_ABI,
                                          .name = "fuzz",
                                          .rank = 0,
                                          .size = RANKS,
                                          .allgather = allgather,
                                          .barrier_start = at_once,
                                          .barrier_test = at_once,
                                          .event_fd = -1};

/* ---- what the library says ---- */

static struct {
    uint64_t heap, epoch;
    uint32_t promise, dest;
} committed[16]; /* the last COMMITs */
static unsigned committed_count;
static unsigned char
    object_type[8]; /* of the last COMMIT of an object: what its header begins with */

static void on_sent(uint32_t dest, const void *data, size_t len)
{
    iso_msg_t msg;
    iso_msg_lists_t lists;
    if (len >= 20)
        memcpy(cookie, (const char *)data + 12, 8);
    CHECK(iso_wire_decode(data, len, cookie, &lists, &msg) == ISO_OK && msg.source == 0);
    if (msg.type == ISO_MSG_HELLO)
        memcpy(cookie, msg.cookie, sizeof cookie);
    if (msg.type == ISO_MSG_COMMIT || msg.type == ISO_MSG_CANCEL) /* nothing lands after them */
        CHECK(!unflushed(dest, msg.heap));
    for (uint32_t i = 0; msg.type == ISO_MSG_RETURN && i < WINDOW_SLOTS; i++) /* nor there */
        CHECK(!unflushed(dest, space + (uint64_t)(msg.slots * WINDOW_SLOTS + i) * ISO_SLOT_SIZE));
    if (msg.type == ISO_MSG_COMMIT) {
        unsigned i = committed_count++ % 16;
        committed[i].heap = msg.heap;
        committed[i].epoch = msg.epoch;
        committed[i].promise = msg.promise;
        if (msg.flags & ISO_COMMIT_OBJECT)
            memcpy(object_type, msg.data, sizeof object_type);
        committed[i].dest = dest;
    }
}

/* ---- what the fuzzer does ---- */

typedef struct input {
    const uint8_t *at, *end;
} input_t;

static unsigned take(input_t *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static uint64_t take_int(input_t *in, unsigned bytes)
{
    uint64_t value = 0;
    while (bytes-- > 0)
        value = value << 8 | take(in);
    return value;
}

static iso_heap_t *heaps[HEAPS];
static iso_request_t *requests[HEAPS];

static unsigned char mark_of(unsigned i)
{
    return (unsigned char)(0xa0 + i);
}

static void heap_new(unsigned i)
{
    iso_stats_t stats;
    iso_stats(job, &stats);
    if (heaps[i] || stats.slots_free == 0) /* it would wait for a peer to give some */
        return;
    CHECK(iso_heap_create(job, &heaps[i]) == ISO_OK);
    unsigned char *block = iso_malloc(heaps[i], MARK_BYTES);
    if (block)
        memset(block, mark_of(i), MARK_BYTES);
    iso_heap_set_root(heaps[i], block);
}

static void check_heap(unsigned i)
{
    if (!heaps[i])
        return;
    iso_heap_state_t state = iso_heap_state(heaps[i]);
    if (state == ISO_HEAP_ELSEWHERE)
        return;
    const unsigned char *block = iso_heap_root(heaps[i]);
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
        iso_pup_heap(p, job, &thing->heaps[i]);
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
    if (!heaps[i] || requests[i])
        return;
    if (of_object == 0) {
        iso_migrate(heaps[i], dest, "header", 6, &requests[i]);
        return;
    }
    things[i] = (thing_t){of_object, {heaps[i], heaps[j]}};
    if (of_object == 1 || (heaps[j] && !requests[j]))
        iso_migrate_pup(job, dest, "thing", &things[i], &requests[i]);
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
    if (heaps[i] && iso_heap_state(heaps[i]) == ISO_HEAP_OWNED &&
        iso_heap_destroy(heaps[i]) == ISO_OK)
        heaps[i] = NULL;
}

static uint64_t take_heap(input_t *in)
{
    void *base;
    size_t size;
    unsigned how = take(in);
    iso_space(job, &base, &size);
    if (how < 160)
        return (uintptr_t)heaps[how % HEAPS];
    if (how < 240) /* a heap that could be there, of any rank */
        return (uintptr_t)iso_heap_at_slot((uintptr_t)base +
                                           (take(in) % (size / ISO_SLOT_SIZE)) * ISO_SLOT_SIZE);
    return take_int(in, 8);
}

static void fill_extents(input_t *in, iso_msg_t *msg, iso_msg_lists_t *lists)
{
    unsigned count = take(in) % 5;
    for (unsigned i = 0; i < count; i++) {
        unsigned first = take(in), length = take(in);
        lists->extents[i] =
            (iso_extent_t){first, (length & 0x80 ? ISO_EXTENT_RUN : 0) | length % 8};
        msg->slots += length % 8;
    }
    msg->extents = lists->extents;
    msg->extent_count = count;
    msg->dense = lists->dense;
    msg->dense_count = count; /* of the same bytes, right or wrong */
    for (unsigned i = 0; i < count; i++)
        lists->dense[i] = (iso_extent_t){lists->extents[i].first + lists->extents[i].count % 3,
                                         lists->extents[i].count};
}

/* Pieces for a COMMIT: what lies there, so that where they are taken nothing changes; or for places that are nobody's. */
static void fill_pieces(input_t *in, iso_msg_t *msg, iso_msg_lists_t *lists)
{
    static unsigned char bytes[4 * 256];
    const unsigned count = take(in) % 5;
    size_t used = 0;
    for (unsigned i = 0; i < count; i++) {
        const uint64_t heap = take(in) % 8 == 0 ? take_heap(in) : msg->heap;
        uint64_t address = heap - ISO_HEAP_OFFSET + take_int(in, 3) % (2 * ISO_SLOT_SIZE);
        if (take(in) % 16 == 0)
            address = take_int(in, 8);
        lists->pieces[i] = (iso_run_t){address, take(in)};
        if (address - space < SPACE_SIZE - 256)
            memcpy(&bytes[used], (const void *)(uintptr_t)address, lists->pieces[i].length);
        used += lists->pieces[i].length;
    }
    msg->pieces = lists->pieces;
    msg->piece_count = count;
    msg->piece_bytes = bytes;
}

static uint64_t epoch_near(input_t *in, uint64_t heap)
{
    for (unsigned i = 0; i < 16; i++)
        if (committed[i].heap == heap && heap)
            return committed[i].epoch + take(in) % 4 - 1;
    return take(in) % 6;
}

static void message(input_t *in)
{
    iso_msg_t msg = {.type = 0};
    iso_msg_lists_t lists;
    unsigned char bytes[ISO_WIRE_MAX];
    const uint32_t source = take(in) % 8 == 0 ? take(in) % 4 : 1 + take(in) % 2;
    msg.type = (iso_msg_type_t)(1 + take(in) % 18);
    msg.source = take(in) % 16 == 0 ? take(in) : source;
    msg.heap = take_heap(in);
    msg.epoch = epoch_near(in, msg.heap);
    msg.generation = take(in) % 4;
    msg.flags = take(in) % 4 == 0;
    msg.bytes = take_int(in, 2);
    msg.parts = take(in) % 8 == 0 ? take(in) : 1;
    msg.part = msg.parts > 1 ? take(in) % msg.parts : 0;
    msg.token = take(in) % 4;
    msg.promise = take(in) % 4;
    msg.reason = -(int32_t)(take(in) % 20);
    msg.about = (iso_msg_type_t)(take(in) % 8);
    if (take(in) % 8 != 0)
        memcpy(msg.cookie, cookie, sizeof cookie);
    msg.data = bytes;
    msg.data_len = msg.type == ISO_MSG_HELLO ? 16 : take(in);
    memset(bytes, 7, sizeof bytes);
    fill_extents(in, &msg, &lists);
    if (msg.type != ISO_MSG_RESERVE)
        msg.slots = take(in);
    if (msg.type == ISO_MSG_COMMIT) {
        fill_pieces(in, &msg, &lists);
        if (take(in) % 8 == 0)
            msg.flags |= ISO_COMMIT_HEAD;
    }
    const unsigned char *payload = memset(malloc(msg.data_len + 1), 7, msg.data_len + 1);
    msg.data = payload;
    size_t length = iso_wire_encode(&msg, cookie, bytes);
    free((void *)payload);
    unsigned damage = take(in);
    /* pieces that are damaged would be taken, as a put is, and change a heap; fuzz_wire damages them */
    if (damage < 16 && msg.piece_count == 0)
        bytes[take_int(in, 2) % length] ^= (unsigned char)(1 + take(in) % 255);
    else if (damage < 24)
        length = take_int(in, 2) % (length + 1);

    iso_stats_t before, after;
    iso_progress(job);
    iso_stats(job, &before);
    push(source, bytes, length);
    iso_progress(job);
    iso_stats(job, &after);
    if (after.messages_dropped > before.messages_dropped) {
        /* counters of what was said apart, nothing has changed (a look at the node's affairs, the
         * end of an earlier migration, may have happened in the same progress) */
        CHECK(after.slots_given == before.slots_given);
        CHECK(after.slots_received == before.slots_received);
        CHECK(after.migrations_in == before.migrations_in);
        if (after.migrations_out == before.migrations_out &&
            after.migrations_failed == before.migrations_failed) {
            CHECK(after.slots_free == before.slots_free);
            CHECK(after.slots_total == before.slots_total);
            CHECK(after.heaps == before.heaps);
            CHECK(after.retained_bytes == before.retained_bytes);
        }
    }
}

/* What a lender says of the window that a heap is in: here is its key, give it back. */
static void lend(input_t *in, iso_msg_type_t type)
{
    unsigned char bytes[ISO_WIRE_MAX];
    iso_msg_t msg = {.type = 0};
    const uint64_t rkey[2] = {0, UINT64_MAX};
    unsigned i = take(in) % HEAPS;
    if (!heaps[i])
        return;
    msg.type = type;
    msg.slots = (uint32_t)(((uintptr_t)heaps[i] - space) / ISO_SLOT_SIZE / WINDOW_SLOTS);
    msg.token = take(in) % 2;
    msg.reason = take(in) % 8 == 0 ? ISO_ERR_LIMIT : ISO_OK;
    msg.data = rkey;
    msg.data_len = sizeof rkey;
    msg.source = 1 + take(in) % 2;
    push(msg.source, bytes, iso_wire_encode(&msg, cookie, bytes));
    iso_progress(job);
}

/* The answer that a sound peer would give, so that what comes after a sound start is reached. */
static void answer(input_t *in, iso_msg_type_t type)
{
    unsigned char bytes[ISO_WIRE_MAX];
    iso_msg_t msg = {.type = 0};
    unsigned i = take(in) % HEAPS;
    if (!heaps[i])
        return;
    msg.type = type;
    msg.heap = (uintptr_t)heaps[i];
    msg.epoch = heaps[i]->epoch;
    msg.source = 1 + take(in) % 2;
    push(msg.source, bytes, iso_wire_encode(&msg, cookie, bytes));
    iso_progress(job);
}

/* The head of a heap, as a rank that has it would tell it. */
static bool add_piece(void *address, size_t length, void *arg)
{
    iso_msg_t *msg = arg;
    if (msg->piece_count == ISO_WIRE_PIECES_MAX)
        return false;
    ((iso_run_t *)(uintptr_t)msg->pieces)[msg->piece_count++] =
        (iso_run_t){(uintptr_t)address, length};
    return true;
}

/* A heap that left for a rank with a promised grant comes straight back: its pages are still here. */
static void come_back(input_t *in)
{
    unsigned char bytes[ISO_WIRE_MAX];
    iso_msg_t msg = {.type = 0};
    unsigned i = take(in) % 16;
    iso_heap_t *heap = (iso_heap_t *)(uintptr_t)committed[i].heap;
    if (!heap || !committed[i].promise || iso_heap_state(heap) != ISO_HEAP_ELSEWHERE)
        return;
    msg.type = ISO_MSG_COMMIT;
    msg.heap = committed[i].heap;
    msg.epoch = committed[i].epoch + 1;
    msg.generation = committed[i].promise;
    msg.source = committed[i].dest;
    /* nearly what an object of this heap has in its header */
    unsigned char header[sizeof object_type + sizeof(uint32_t) + 2 * sizeof(uint64_t)];
    const uint32_t count = take(in) % 3;
    const uint64_t mark[2] = {take(in) % 8 ? 0x50414548 : 0, (uintptr_t)heap};
    memcpy(header, object_type, sizeof object_type);
    memcpy(header + sizeof object_type, &count, sizeof count);
    memcpy(header + sizeof header - sizeof mark, mark, sizeof mark);
    msg.flags = take(in) % 2 ? ISO_COMMIT_OBJECT : 0;
    msg.data = header;
    msg.data_len = take(in) % 4 == 0 ? take(in) % sizeof header : sizeof header;
    for (unsigned h = 0; h < HEAPS; h++)
        if (heaps[h] == heap && iso_in_range(heap))
            iso_heap_set_epoch(heap, msg.epoch); /* as the put of the header page would */
    iso_run_t pieces[ISO_WIRE_PIECES_MAX];
    msg.pieces = pieces;
    if (take(in) % 2 && iso_heap_magic(heap) == ISO_HEAP_MAGIC_FROZEN &&
        iso_head_pieces(heap, add_piece, &msg))
        msg.flags |= ISO_COMMIT_HEAD;
    push(msg.source, bytes, iso_wire_encode(&msg, cookie, bytes));
    msg.type = ISO_MSG_DONE;
    if (take(in) % 4 != 0)
        push(msg.source, bytes, iso_wire_encode(&msg, cookie, bytes));
    iso_progress(job);
}

static void step(input_t *in)
{
    unsigned what = take(in);
    unsigned i = take(in) % HEAPS;
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
        answer(in, ISO_MSG_GRANT);
        break;
    case 7:
    case 8:
        answer(in, ISO_MSG_ACK);
        break;
    case 9:
        come_back(in);
        break;
    case 10:
        if (what >= 224)
            iso_peer_declare_dead(job, 1 + what % 2);
        break;
    case 11:
        lend(in, ISO_MSG_LEND);
        break;
    case 12:
        lend(in, ISO_MSG_RECALL);
        break;
    default:
        message(in);
        break;
    }
    iso_progress(job);
    for (unsigned h = 0; h < HEAPS; h++)
        check_heap(h);
}

static void say_hello(void)
{
    unsigned char bytes[ISO_WIRE_MAX];
    iso_msg_t msg = {.type = 0};
    const uint64_t rkey[2] = {0, UINT64_MAX};
    msg.type = ISO_MSG_HELLO;
    memcpy(msg.cookie, cookie, sizeof cookie);
    msg.data = rkey;
    msg.data_len = sizeof rkey;
    msg.slots = peers_windows ? WINDOW_SLOTS : 0;
    msg.token = 3;
    for (msg.source = 1; msg.source < RANKS; msg.source++)
        push(msg.source, bytes, iso_wire_encode(&msg, cookie, bytes));
    iso_progress(job);
}

static void open_module(void)
{
    void *module = dlopen(FUZZ_MODULES "/libisomalloc-fuzz.so", RTLD_NOW);
    CHECK(module);
    fuzz_listen_fn listen;
    *(void **)&push = dlsym(module, "fuzz_push");
    *(void **)&listen = dlsym(module, "fuzz_listen");
    *(void **)&unflushed = dlsym(module, "fuzz_unflushed");
    CHECK(push && listen && unflushed);
    listen(on_sent);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input_t in = {data, data + size};
    iso_params_t params;
    if (!push)
        open_module();
    committed_count = 0;
    memset(committed, 0, sizeof committed);
    memset(heaps, 0, sizeof heaps);
    memset(requests, 0, sizeof requests);
    CHECK(iso_params_init(&params) == ISO_OK);
    params.caller_bootstrap = &bootstrap;
    params.transport = "fuzz";
    params.module_path = FUZZ_MODULES;
    params.node_size = 1;
    params.backing = ISO_BACKING_PRIVATE;
    params.space_size = SPACE_SIZE;
    params.retain = (uint64_t)4 << 20;
    const unsigned how = take(&in);
    params.timeout = how % 4 == 0 ? 1e-6 : 1000; /* every step times out, or none */
    params.huge_pages = how >= 240 ? ISO_HUGE_PAGES_AUTO : ISO_HUGE_PAGES_NONE; /* slow */
    peers_windows = how / 4 % 4 == 1;
    if (how / 16 % 4 == 1) {
        params.registration = ISO_REGISTER_WINDOW;
        params.pin_limit = (uint64_t)8 << 20;
    }
    params.poison = false; /* what peers put, and know of heaps, is read and stored here */
    params.log_level = ISO_LOG_ERROR;
    CHECK(iso_init(&params, &job) == ISO_OK);
    const iso_object_type_t type = {.struct_size = sizeof type,
                                    .name = "thing",
                                    .size = sizeof(thing_t),
                                    .pup = pup_thing,
                                    .arrived = thing_arrived};
    CHECK(iso_pup_register(job, &type) == ISO_OK);
    void *base;
    size_t length;
    iso_space(job, &base, &length);
    space = (uintptr_t)base;
    heap_new(0);
    heap_send(0, 1, 0); /* the first words have the cookie in them */
    request_look(0, true);
    heap_new(1);
    heap_send(1, 2, 0);
    request_look(1, true);
    say_hello();
    for (int steps = 0; in.at < in.end && steps < 200; steps++)
        step(&in);
    /* whatever state it is in: certain death settles it */
    for (uint32_t r = 1; r < RANKS; r++)
        CHECK(iso_peer_declare_dead(job, r) == ISO_OK);
    for (unsigned i = 0; i < HEAPS; i++) {
        CHECK(!requests[i] || iso_test(requests[i]) != ISO_INPROGRESS);
        check_heap(i);
    }
    CHECK(iso_finalize(job) == ISO_OK);
    return 0;
}
