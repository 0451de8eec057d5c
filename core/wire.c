/* wire.c - see wire.h. Which fields each type has stands once, in fields_of: encoding and decoding
 * both follow it. */
#include "core/wire.h"
#include <assert.h>
#include <endian.h>
#include <string.h>

enum {
    HAS_HEAP = 1u << 0,
    HAS_EPOCH = 1u << 1,
    HAS_GENERATION = 1u << 2,
    HAS_FLAGS = 1u << 3,
    HAS_BYTES = 1u << 4,
    HAS_PART = 1u << 5, /* part, parts, slots */
    HAS_TOKEN = 1u << 6,
    HAS_SLOTS = 1u << 7,
    HAS_REASON = 1u << 8, /* reason, about */
    HAS_COOKIE = 1u << 9,
    HAS_DATA = 1u << 10,
    HAS_EXTENTS = 1u << 11,
    HAS_PROMISE = 1u << 12,
    HAS_DENSE = 1u << 13,
    HAS_PIECES = 1u << 14
};

#define HEADER_BYTES 20

static unsigned fields_of(unsigned type)
{
    switch (type) {
    case ISO_MSG_HELLO:
        return HAS_TOKEN | HAS_SLOTS | HAS_COOKIE | HAS_DATA;
    case ISO_MSG_RESERVE:
        return HAS_HEAP | HAS_EPOCH | HAS_FLAGS | HAS_BYTES | HAS_PART | HAS_EXTENTS | HAS_DENSE;
    case ISO_MSG_GRANT:
        return HAS_HEAP | HAS_EPOCH;
    case ISO_MSG_COMMIT:
        return HAS_HEAP | HAS_EPOCH | HAS_GENERATION | HAS_PROMISE | HAS_FLAGS | HAS_BYTES |
               HAS_DATA | HAS_PIECES;
    case ISO_MSG_ACK:
    case ISO_MSG_DONE:
    case ISO_MSG_CANCEL:
        return HAS_HEAP | HAS_EPOCH;
    case ISO_MSG_NACK:
        return HAS_HEAP | HAS_EPOCH | HAS_REASON;
    case ISO_MSG_REVOKE:
    case ISO_MSG_UNGRANT:
        return HAS_HEAP | HAS_GENERATION;
    case ISO_MSG_SLOT_REQUEST:
        return HAS_TOKEN | HAS_SLOTS;
    case ISO_MSG_SLOT_GIVE:
        return HAS_EPOCH | HAS_TOKEN | HAS_EXTENTS;
    case ISO_MSG_WANT:
        return HAS_EXTENTS;
    case ISO_MSG_LEND:
        return HAS_TOKEN | HAS_SLOTS | HAS_REASON | HAS_DATA;
    case ISO_MSG_RECALL:
    case ISO_MSG_RETURN:
        return HAS_TOKEN | HAS_SLOTS;
    case ISO_MSG_PREPARE:
        return HAS_HEAP | HAS_EPOCH | HAS_EXTENTS;
    case ISO_MSG_OFFER:
        return HAS_HEAP | HAS_EPOCH | HAS_GENERATION;
    default:
        return 0;
    }
}

const char *iso_msg_name(iso_msg_type_t type)
{
    static const char *const names[] = {"?",       "HELLO",        "RESERVE",   "GRANT",  "COMMIT",
                                        "ACK",     "NACK",         "DONE",      "CANCEL", "REVOKE",
                                        "UNGRANT", "SLOT_REQUEST", "SLOT_GIVE", "WANT",   "LEND",
                                        "RECALL",  "RETURN",       "PREPARE",   "OFFER"};
    return names[type <= ISO_MSG_OFFER ? type : 0];
}

typedef struct out {
    uint8_t *at;
} out_t;

static void put_int(out_t *out, uint64_t value, size_t bytes)
{
    const uint64_t little =
        htole64(value); /* not byte by byte: each migration has three messages */
    memcpy(out->at, &little, bytes);
    out->at += bytes;
}

static void put_bytes(out_t *out, const void *data, size_t len)
{
    if (len > 0)
        memcpy(out->at, data, len);
    out->at += len;
}

static void put_extents(out_t *out, const iso_extent_t *extents, uint32_t count)
{
    put_int(out, count, 2);
    for (uint32_t i = 0; i < count; i++) {
        put_int(out, extents[i].first, 4);
        put_int(out, extents[i].count, 4);
    }
}

/* All places first, then all bytes. */
static void put_pieces(out_t *out, const iso_msg_t *msg)
{
    const uint8_t *bytes = msg->piece_bytes;
    put_int(out, msg->piece_count, 2);
    for (uint32_t i = 0; i < msg->piece_count; i++) {
        put_int(out, msg->pieces[i].address, 8);
        put_int(out, msg->pieces[i].length, 2);
    }
    for (uint32_t i = 0; i < msg->piece_count; i++) {
        const iso_run_t *piece = &msg->pieces[i];
        put_bytes(out, bytes ? bytes : (const void *)piece->address, piece->length);
        bytes = bytes ? bytes + piece->length : NULL;
    }
}

size_t iso_wire_encode(const iso_msg_t *msg, const uint8_t cookie[16], void *buf)
{
    unsigned fields = fields_of(msg->type);
    assert(fields != 0 && msg->extent_count <= ISO_WIRE_EXTENTS_MAX);
    assert(msg->dense_count <= ISO_WIRE_DENSE_MAX);
    assert(!(fields & HAS_DATA) || msg->data_len <= ISO_HEADER_MAX);
    assert(msg->piece_count <= ISO_WIRE_PIECES_MAX);
    out_t out = {buf};
    put_bytes(&out, "IS", 2);
    put_int(&out, ISO_WIRE_VERSION, 1);
    put_int(&out, msg->type, 1);
    uint8_t *length_at = out.at;
    put_int(&out, 0, 4);
    put_int(&out, msg->source, 4);
    put_bytes(&out, cookie, 8);
    if (fields & HAS_HEAP)
        put_int(&out, msg->heap, 8);
    if (fields & HAS_EPOCH)
        put_int(&out, msg->epoch, 8);
    if (fields & HAS_GENERATION)
        put_int(&out, msg->generation, 4);
    if (fields & HAS_PROMISE)
        put_int(&out, msg->promise, 4);
    if (fields & HAS_FLAGS)
        put_int(&out, msg->flags, 4);
    if (fields & HAS_BYTES)
        put_int(&out, msg->bytes, 8);
    if (fields & HAS_PART) {
        put_int(&out, msg->part, 4);
        put_int(&out, msg->parts, 4);
        put_int(&out, msg->slots, 4);
    }
    if (fields & HAS_TOKEN)
        put_int(&out, msg->token, 4);
    if (fields & HAS_SLOTS)
        put_int(&out, msg->slots, 4);
    if (fields & HAS_REASON) {
        put_int(&out, (uint32_t)msg->reason, 4);
        put_int(&out, msg->about, 1);
    }
    if (fields & HAS_COOKIE)
        put_bytes(&out, msg->cookie, sizeof msg->cookie);
    if (fields & HAS_DATA) {
        put_int(&out, msg->data_len, 2);
        put_bytes(&out, msg->data, msg->data_len);
    }
    if (fields & HAS_EXTENTS)
        put_extents(&out, msg->extents, msg->extent_count);
    if (fields & HAS_DENSE)
        put_extents(&out, msg->dense, msg->dense_count);
    if (fields & HAS_PIECES)
        put_pieces(&out, msg);
    size_t length = (size_t)(out.at - (uint8_t *)buf);
    assert(length <= ISO_WIRE_MAX);
    out.at = length_at;
    put_int(&out, length, 4);
    return length;
}

typedef struct in {
    const uint8_t *at, *end;
    bool cut; /* something was asked for that is not there; all that follows reads as 0 */
} in_t;

static uint64_t get_int(in_t *in, size_t bytes)
{
    if (in->cut || (size_t)(in->end - in->at) < bytes) {
        in->cut = true;
        return 0;
    }
    uint64_t little = 0;
    memcpy(&little, in->at, bytes);
    in->at += bytes;
    return le64toh(little);
}

static const uint8_t *get_bytes(in_t *in, size_t len)
{
    if (in->cut || (size_t)(in->end - in->at) < len) {
        in->cut = true;
        return NULL;
    }
    const uint8_t *at = in->at;
    in->at += len;
    return at;
}

static uint32_t get_extents(in_t *in, iso_extent_t *extents, uint32_t max)
{
    uint32_t count = (uint32_t)get_int(in, 2);
    if (count > max) { /* as if they were not there */
        in->cut = true;
        return 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        extents[i].first = (uint32_t)get_int(in, 4);
        extents[i].count = (uint32_t)get_int(in, 4);
    }
    return count;
}

static void get_pieces(in_t *in, iso_run_t *pieces, iso_msg_t *msg)
{
    size_t length = 0;
    uint32_t count = (uint32_t)get_int(in, 2);
    const uint8_t *places = get_bytes(in, (size_t)count * ISO_WIRE_PIECE);
    if (!places || count > ISO_WIRE_PIECES_MAX) { /* as if they were not there */
        in->cut = true;
        return;
    }
    for (uint32_t i = 0; i < count; i++, places += ISO_WIRE_PIECE) {
        uint64_t address;
        uint16_t bytes;
        memcpy(&address, places, sizeof address);
        memcpy(&bytes, places + sizeof address, sizeof bytes);
        pieces[i].address = le64toh(address);
        pieces[i].length = le16toh(bytes);
        length += pieces[i].length;
    }
    msg->pieces = pieces;
    msg->piece_count = count;
    msg->piece_bytes = get_bytes(in, length);
}

iso_status_t iso_wire_decode(const void *buf, size_t len, const uint8_t cookie[16],
                             iso_msg_lists_t *lists, iso_msg_t *msg_p)
{
    iso_msg_t *msg = msg_p;
    in_t in = {buf, (const uint8_t *)buf + len, false};
    if (len < HEADER_BYTES || len > ISO_WIRE_MAX || memcmp(get_bytes(&in, 2), "IS", 2) != 0)
        return ISO_ERR_INVALID;
    if (get_int(&in, 1) != ISO_WIRE_VERSION)
        return ISO_ERR_VERSION;
    unsigned type = (unsigned)get_int(&in, 1);
    unsigned fields = fields_of(type);
    if (fields == 0 || get_int(&in, 4) != len)
        return ISO_ERR_INVALID;
    *msg = (iso_msg_t){.type = (iso_msg_type_t)type,
                       .source = (uint32_t)get_int(&in, 4),
                       .extents = lists->extents,
                       .dense = lists->dense};
    if (memcmp(get_bytes(&in, 8), cookie, 8) != 0)
        return ISO_ERR_INVALID;
    if (fields & HAS_HEAP)
        msg->heap = get_int(&in, 8);
    if (fields & HAS_EPOCH)
        msg->epoch = get_int(&in, 8);
    if (fields & HAS_GENERATION)
        msg->generation = (uint32_t)get_int(&in, 4);
    if (fields & HAS_PROMISE)
        msg->promise = (uint32_t)get_int(&in, 4);
    if (fields & HAS_FLAGS)
        msg->flags = (uint32_t)get_int(&in, 4);
    if (fields & HAS_BYTES)
        msg->bytes = get_int(&in, 8);
    if (fields & HAS_PART) {
        msg->part = (uint32_t)get_int(&in, 4);
        msg->parts = (uint32_t)get_int(&in, 4);
        msg->slots = (uint32_t)get_int(&in, 4);
        if (msg->part >= msg->parts)
            return ISO_ERR_INVALID;
    }
    if (fields & HAS_TOKEN)
        msg->token = (uint32_t)get_int(&in, 4);
    if (fields & HAS_SLOTS)
        msg->slots = (uint32_t)get_int(&in, 4);
    if (fields & HAS_REASON) {
        msg->reason = (int32_t)(uint32_t)get_int(&in, 4);
        msg->about = (iso_msg_type_t)get_int(&in, 1);
    }
    if (fields & HAS_COOKIE) {
        const uint8_t *bytes = get_bytes(&in, sizeof msg->cookie);
        if (bytes)
            memcpy(msg->cookie, bytes, sizeof msg->cookie);
    }
    if (fields & HAS_DATA) {
        msg->data_len = (uint32_t)get_int(&in, 2);
        if (msg->data_len > ISO_HEADER_MAX)
            return ISO_ERR_INVALID;
        msg->data = get_bytes(&in, msg->data_len);
    }
    if (fields & HAS_EXTENTS)
        msg->extent_count = get_extents(&in, lists->extents, ISO_WIRE_EXTENTS_MAX);
    if (fields & HAS_DENSE)
        msg->dense_count = get_extents(&in, lists->dense, ISO_WIRE_DENSE_MAX);
    if (fields & HAS_PIECES)
        get_pieces(&in, lists->pieces, msg);
    return in.cut || in.at != in.end ? ISO_ERR_INVALID : ISO_OK;
}
