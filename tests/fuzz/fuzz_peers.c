/*
 * fuzz_peers.c - what the other ranks say: answers that are right, and messages that are nearly right: of heaps that exist, of
 * epochs that are near, of slots of theirs or not, some with bytes changed or cut, from either rank.
 */
#include "core/heap.h"
#include "core/heap_layout.h"
#include "fuzz_job.h"
#include <string.h>

static uint64_t take_heap(input_t *in)
{
    void *base;
    size_t size;
    unsigned how = fuzz_take(in);
    iso_space(fuzz_job, &base, &size);
    if (how < 160)
        return (uintptr_t)fuzz_heaps[how % HEAPS];
    if (how < 240) /* a heap that could be there, of any rank */
        return (uintptr_t)iso_heap_at_slot(
            (uintptr_t)base + (fuzz_take(in) % (size / ISO_SLOT_SIZE)) * ISO_SLOT_SIZE);
    return fuzz_take_int(in, 8);
}

static void fill_extents(input_t *in, iso_msg_t *msg, iso_msg_lists_t *lists)
{
    unsigned count = fuzz_take(in) % 5;
    for (unsigned i = 0; i < count; i++) {
        unsigned first = fuzz_take(in), length = fuzz_take(in);
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

static uint64_t epoch_near(input_t *in, uint64_t heap)
{
    for (unsigned i = 0; i < 16; i++)
        if (fuzz_committed[i].heap == heap && heap)
            return fuzz_committed[i].epoch + fuzz_take(in) % 4 - 1;
    return fuzz_take(in) % 6;
}

void fuzz_message(input_t *in)
{
    iso_msg_t msg = {.type = 0};
    iso_msg_lists_t lists;
    unsigned char bytes[ISO_WIRE_MAX];
    const uint32_t source = fuzz_take(in) % 8 == 0 ? fuzz_take(in) % 4 : 1 + fuzz_take(in) % 2;
    msg.type = (iso_msg_type_t)(1 + fuzz_take(in) % 18);
    msg.source = fuzz_take(in) % 16 == 0 ? fuzz_take(in) : source;
    msg.heap = take_heap(in);
    msg.epoch = epoch_near(in, msg.heap);
    msg.generation = fuzz_take(in) % 4;
    msg.flags = fuzz_take(in) % 4 == 0;
    msg.bytes = fuzz_take_int(in, 2);
    msg.parts = fuzz_take(in) % 8 == 0 ? fuzz_take(in) : 1;
    msg.part = msg.parts > 1 ? fuzz_take(in) % msg.parts : 0;
    msg.token = fuzz_take(in) % 4;
    msg.promise = fuzz_take(in) % 4;
    msg.reason = -(int32_t)(fuzz_take(in) % 20);
    msg.about = (iso_msg_type_t)(fuzz_take(in) % 8);
    if (fuzz_take(in) % 8 != 0)
        memcpy(msg.cookie, fuzz_cookie, sizeof fuzz_cookie);
    msg.data = bytes;
    msg.data_len = msg.type == ISO_MSG_HELLO ? 16 : fuzz_take(in);
    memset(bytes, 7, sizeof bytes);
    fill_extents(in, &msg, &lists);
    if (msg.type != ISO_MSG_RESERVE)
        msg.slots = fuzz_take(in);
    const unsigned char *payload = memset(malloc(msg.data_len + 1), 7, msg.data_len + 1);
    msg.data = payload;
    size_t length = iso_wire_encode(&msg, fuzz_cookie, bytes);
    free((void *)payload);
    unsigned damage = fuzz_take(in);
    if (damage < 16)
        bytes[fuzz_take_int(in, 2) % length] ^= (unsigned char)(1 + fuzz_take(in) % 255);
    else if (damage < 24)
        length = fuzz_take_int(in, 2) % (length + 1);

    iso_stats_t before, after;
    iso_progress(fuzz_job);
    iso_stats(fuzz_job, &before);
    fuzz_push_message(source, bytes, length);
    iso_progress(fuzz_job);
    iso_stats(fuzz_job, &after);
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

void fuzz_lend(input_t *in, iso_msg_type_t type)
{
    unsigned char bytes[ISO_WIRE_MAX];
    iso_msg_t msg = {.type = 0};
    const uint64_t rkey[2] = {0, UINT64_MAX};
    unsigned i = fuzz_take(in) % HEAPS;
    if (!fuzz_heaps[i])
        return;
    msg.type = type;
    msg.slots = (uint32_t)(((uintptr_t)fuzz_heaps[i] - fuzz_space) / ISO_SLOT_SIZE / WINDOW_SLOTS);
    msg.token = fuzz_take(in) % 2;
    msg.reason = fuzz_take(in) % 8 == 0 ? ISO_ERR_LIMIT : ISO_OK;
    msg.data = rkey;
    msg.data_len = sizeof rkey;
    msg.source = 1 + fuzz_take(in) % 2;
    fuzz_push_message(msg.source, bytes, iso_wire_encode(&msg, fuzz_cookie, bytes));
    iso_progress(fuzz_job);
}

void fuzz_answer(input_t *in, iso_msg_type_t type)
{
    unsigned char bytes[ISO_WIRE_MAX];
    iso_msg_t msg = {.type = 0};
    unsigned i = fuzz_take(in) % HEAPS;
    if (!fuzz_heaps[i])
        return;
    msg.type = type;
    msg.heap = (uintptr_t)fuzz_heaps[i];
    msg.epoch = fuzz_heaps[i]->epoch;
    msg.source = 1 + fuzz_take(in) % 2;
    fuzz_push_message(msg.source, bytes, iso_wire_encode(&msg, fuzz_cookie, bytes));
    iso_progress(fuzz_job);
}

void fuzz_come_back(input_t *in)
{
    unsigned char bytes[ISO_WIRE_MAX];
    iso_msg_t msg = {.type = 0};
    unsigned i = fuzz_take(in) % 16;
    iso_heap_t *heap = (iso_heap_t *)(uintptr_t)fuzz_committed[i].heap;
    if (!heap || !fuzz_committed[i].promise || iso_heap_state(heap) != ISO_HEAP_ELSEWHERE)
        return;
    msg.type = ISO_MSG_COMMIT;
    msg.heap = fuzz_committed[i].heap;
    msg.epoch = fuzz_committed[i].epoch + 1;
    msg.generation = fuzz_committed[i].promise;
    msg.source = fuzz_committed[i].dest;
    /* nearly what an object of this heap has in its header */
    unsigned char header[sizeof fuzz_object_type + sizeof(uint32_t) + 2 * sizeof(uint64_t)];
    const uint32_t count = fuzz_take(in) % 3;
    const uint64_t mark[2] = {fuzz_take(in) % 8 ? 0x50414548 : 0, (uintptr_t)heap};
    memcpy(header, fuzz_object_type, sizeof fuzz_object_type);
    memcpy(header + sizeof fuzz_object_type, &count, sizeof count);
    memcpy(header + sizeof header - sizeof mark, mark, sizeof mark);
    msg.flags = fuzz_take(in) % 2 ? ISO_COMMIT_OBJECT : 0;
    msg.data = header;
    msg.data_len = fuzz_take(in) % 4 == 0 ? fuzz_take(in) % sizeof header : sizeof header;
    for (unsigned h = 0; h < HEAPS; h++)
        if (fuzz_heaps[h] == heap && iso_in_range(heap))
            iso_heap_set_epoch(heap, msg.epoch); /* as the put of the header page would */
    fuzz_push_message(msg.source, bytes, iso_wire_encode(&msg, fuzz_cookie, bytes));
    msg.type = ISO_MSG_DONE;
    if (fuzz_take(in) % 4 != 0)
        fuzz_push_message(msg.source, bytes, iso_wire_encode(&msg, fuzz_cookie, bytes));
    iso_progress(fuzz_job);
}

void fuzz_say_hello(void)
{
    unsigned char bytes[ISO_WIRE_MAX];
    iso_msg_t msg = {.type = 0};
    const uint64_t rkey[2] = {0, UINT64_MAX};
    msg.type = ISO_MSG_HELLO;
    memcpy(msg.cookie, fuzz_cookie, sizeof fuzz_cookie);
    msg.data = rkey;
    msg.data_len = sizeof rkey;
    msg.slots = fuzz_peers_windows ? WINDOW_SLOTS : 0;
    msg.token = 3;
    for (msg.source = 1; msg.source < RANKS; msg.source++)
        fuzz_push_message(msg.source, bytes, iso_wire_encode(&msg, fuzz_cookie, bytes));
    iso_progress(fuzz_job);
}
