// The wire format: what is encoded is decoded, and nothing else is.
#include "core/wire.h"
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

namespace {

const uint8_t cookie[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
const char data[] = "a user's header";
const char lump[] = "bytes of a heap, in their place";

struct Message : iso_msg_t {
    iso_msg_lists_t lists;
};

std::unique_ptr<Message> message(iso_msg_type_t type, uint32_t extents)
{
    auto msg = std::make_unique<Message>();
    msg->type = type;
    msg->source = 3;
    msg->heap = 0x200000000900;
    msg->epoch = 0x1122334455667788;
    msg->generation = 77;
    msg->flags = ISO_RESERVE_HANDOVER;
    msg->bytes = 1ull << 40;
    msg->part = 1;
    msg->parts = 2;
    msg->slots = 9;
    msg->token = 5;
    msg->promise = 78;
    msg->reason = ISO_ERR_REFUSED;
    msg->about = ISO_MSG_COMMIT;
    std::memcpy(msg->cookie, cookie, sizeof cookie);
    msg->data = data;
    msg->data_len = sizeof data;
    msg->extents = msg->lists.extents;
    msg->extent_count = extents;
    for (uint32_t i = 0; i < extents; i++)
        msg->lists.extents[i] = {i * 3, (i % 2 != 0u ? ISO_EXTENT_RUN : 0) | (i + 1)};
    msg->dense = msg->lists.dense;
    msg->dense_count = extents < ISO_WIRE_DENSE_MAX ? extents : ISO_WIRE_DENSE_MAX;
    for (uint32_t i = 0; i < msg->dense_count; i++)
        msg->lists.dense[i] = {i * 5, i + 2};
    msg->pieces = msg->lists.pieces;
    msg->piece_count = extents < 5 ? extents : 5;
    for (uint32_t i = 0; i < msg->piece_count; i++)
        msg->lists.pieces[i] = {reinterpret_cast<uintptr_t>(lump) + i * 3, i + 2};
    return msg;
}

std::vector<uint8_t> encode(const iso_msg_t &msg)
{
    std::vector<uint8_t> bytes(ISO_WIRE_MAX);
    bytes.resize(iso_wire_encode(&msg, cookie, bytes.data()));
    return bytes;
}

iso_status_t decode(const std::vector<uint8_t> &bytes, Message *msg)
{
    // a copy of exactly this length on the heap: a read beyond it is an error that ASan sees
    const std::unique_ptr<uint8_t[]> exact(new uint8_t[bytes.size()]);
    std::copy(bytes.begin(), bytes.end(), exact.get());
    const iso_status_t status =
        iso_wire_decode(exact.get(), bytes.size(), cookie, &msg->lists, msg);
    if (status == ISO_OK && msg->data != nullptr) {
        static std::vector<uint8_t> kept;
        const auto *at = static_cast<const uint8_t *>(msg->data);
        kept.assign(at, at + msg->data_len);
        msg->data = kept.data();
    }
    if (status == ISO_OK && msg->piece_bytes != nullptr) {
        static std::vector<uint8_t> kept;
        size_t length = 0;
        for (uint32_t i = 0; i < msg->piece_count; i++)
            length += msg->pieces[i].length;
        const auto *at = static_cast<const uint8_t *>(msg->piece_bytes);
        kept.assign(at, at + length);
        msg->piece_bytes = kept.data();
    }
    return status;
}

const std::vector<iso_msg_type_t> types = {
    ISO_MSG_HELLO,        ISO_MSG_RESERVE,   ISO_MSG_GRANT,  ISO_MSG_COMMIT, ISO_MSG_ACK,
    ISO_MSG_NACK,         ISO_MSG_DONE,      ISO_MSG_CANCEL, ISO_MSG_REVOKE, ISO_MSG_UNGRANT,
    ISO_MSG_SLOT_REQUEST, ISO_MSG_SLOT_GIVE, ISO_MSG_WANT,   ISO_MSG_LEND,   ISO_MSG_RECALL,
    ISO_MSG_RETURN,       ISO_MSG_PREPARE,   ISO_MSG_OFFER};

} // namespace

TEST_CASE("every message type survives the wire", "[wire]")
{
    for (const iso_msg_type_t type : types) {
        CAPTURE(iso_msg_name(type));
        auto sent = message(type, ISO_WIRE_EXTENTS_MAX), got = message(type, 0);
        REQUIRE(decode(encode(*sent), got.get()) == ISO_OK);
        CHECK(got->type == type);
        CHECK(got->source == 3);
        // decoding again what was decoded gives the same bytes: every field that the type has
        CHECK(encode(*got) == encode(*sent));
    }
    auto got = message(ISO_MSG_HELLO, 0);
    REQUIRE(decode(encode(*message(ISO_MSG_RESERVE, 5)), got.get()) == ISO_OK);
    CHECK(got->heap == 0x200000000900);
    CHECK(got->epoch == 0x1122334455667788);
    CHECK(got->flags == ISO_RESERVE_HANDOVER);
    CHECK(got->bytes == 1ull << 40);
    CHECK(got->part == 1);
    CHECK(got->parts == 2);
    CHECK(got->slots == 9);
    REQUIRE(got->extent_count == 5);
    CHECK(got->extents[3].first == 9);
    CHECK(got->extents[3].count == (ISO_EXTENT_RUN | 4));
    REQUIRE(got->dense_count == 5);
    CHECK(got->dense[4].first == 20);
    CHECK(got->dense[4].count == 6);
    REQUIRE(decode(encode(*message(ISO_MSG_NACK, 0)), got.get()) == ISO_OK);
    CHECK(got->reason == ISO_ERR_REFUSED);
    CHECK(got->about == ISO_MSG_COMMIT);
    REQUIRE(decode(encode(*message(ISO_MSG_COMMIT, 0)), got.get()) == ISO_OK);
    CHECK(got->data_len == sizeof data);
    CHECK(std::memcmp(got->data, data, sizeof data) == 0);
    REQUIRE(decode(encode(*message(ISO_MSG_COMMIT, 3)), got.get()) == ISO_OK);
    REQUIRE(got->piece_count == 3);
    CHECK(got->pieces[2].address == reinterpret_cast<uintptr_t>(lump) + 6);
    CHECK(got->pieces[2].length == 4);
    CHECK(std::memcmp(got->piece_bytes, "bytes of", 2) == 0);
    CHECK(std::memcmp(static_cast<const char *>(got->piece_bytes) + 5, lump + 6, 4) == 0);
    REQUIRE(decode(encode(*message(ISO_MSG_LEND, 0)), got.get()) == ISO_OK);
    CHECK(got->slots == 9);
    CHECK(got->token == 5);
    CHECK(got->reason == ISO_ERR_REFUSED);
    CHECK(got->data_len == sizeof data);
    REQUIRE(decode(encode(*message(ISO_MSG_HELLO, 0)), got.get()) == ISO_OK);
    CHECK(got->slots == 9);
    CHECK(got->token == 5);
}

TEST_CASE("the longest messages fit what every transport can send", "[wire]")
{
    auto longest = message(ISO_MSG_RESERVE, ISO_WIRE_EXTENTS_MAX);
    CHECK(encode(*longest).size() <= ISO_TRANSPORT_MIN_SEND);
    std::vector<char> header(ISO_HEADER_MAX);
    auto commit = message(ISO_MSG_COMMIT, 0);
    commit->data = header.data();
    commit->data_len = ISO_HEADER_MAX;
    const size_t room = ISO_WIRE_MAX - ISO_WIRE_COMMIT - ISO_HEADER_MAX;
    const std::vector<char> memory(room);
    const size_t each = room / ISO_WIRE_PIECES_MAX;
    for (uint32_t i = 0; i < ISO_WIRE_PIECES_MAX; i++)
        commit->lists.pieces[i] = {reinterpret_cast<uintptr_t>(memory.data()),
                                   each - ISO_WIRE_PIECE};
    commit->lists.pieces[0].length += room % ISO_WIRE_PIECES_MAX;
    commit->piece_count = ISO_WIRE_PIECES_MAX;
    CHECK(encode(*commit).size() == ISO_TRANSPORT_MIN_SEND);
}

TEST_CASE("a message that is cut or has something behind it is refused", "[wire]")
{
    auto got = message(ISO_MSG_HELLO, 0);
    for (const iso_msg_type_t type : types) {
        CAPTURE(iso_msg_name(type));
        const std::vector<uint8_t> whole = encode(*message(type, 3));
        for (size_t length = 0; length < whole.size(); length++)
            REQUIRE(decode({whole.begin(), whole.begin() + static_cast<long>(length)}, got.get()) ==
                    ISO_ERR_INVALID);
        // even when its length field goes along with the cut, or with the surplus
        for (size_t length = 20; length <= whole.size() + 8; length++) {
            if (length == whole.size())
                continue;
            std::vector<uint8_t> bytes = whole;
            bytes.resize(length);
            bytes[4] = static_cast<uint8_t>(length);
            bytes[5] = static_cast<uint8_t>(length >> 8);
            REQUIRE(decode(bytes, got.get()) == ISO_ERR_INVALID);
        }
    }
}

TEST_CASE("messages of another job, version or kind are refused", "[wire]")
{
    auto got = message(ISO_MSG_HELLO, 0);
    std::vector<uint8_t> bytes = encode(*message(ISO_MSG_ACK, 0));
    auto with = [&](size_t at, uint8_t value) {
        std::vector<uint8_t> changed = bytes;
        changed[at] = value;
        return decode(changed, got.get());
    };
    CHECK(decode(bytes, got.get()) == ISO_OK);
    CHECK(with(0, 'X') == ISO_ERR_INVALID);
    CHECK(with(2, ISO_WIRE_VERSION + 1) == ISO_ERR_VERSION);
    CHECK(with(3, 0) == ISO_ERR_INVALID);
    CHECK(with(3, 200) == ISO_ERR_INVALID);
    CHECK(with(12, 99) == ISO_ERR_INVALID); // cookie
}

TEST_CASE("counts beyond the limits are refused", "[wire]")
{
    auto got = message(ISO_MSG_HELLO, 0);
    std::vector<uint8_t> give = encode(*message(ISO_MSG_SLOT_GIVE, 2));
    give[32] = 0xff; // extent count, after header, epoch and token
    give[33] = 0xff;
    CHECK(decode(give, got.get()) == ISO_ERR_INVALID);
    std::vector<uint8_t> dense = encode(*message(ISO_MSG_RESERVE, 0));
    REQUIRE(dense[dense.size() - 1] == 0); // the count of dense ranges comes last
    dense[dense.size() - 2] = ISO_WIRE_DENSE_MAX + 1;
    dense.resize(dense.size() + static_cast<size_t>(ISO_WIRE_DENSE_MAX + 1) * 8);
    dense[4] = static_cast<uint8_t>(dense.size());
    dense[5] = static_cast<uint8_t>(dense.size() >> 8);
    CHECK(decode(dense, got.get()) == ISO_ERR_INVALID);
    std::vector<uint8_t> pieces = encode(*message(ISO_MSG_COMMIT, 0));
    REQUIRE(pieces[pieces.size() - 1] == 0); // their count
    pieces[pieces.size() - 2] = ISO_WIRE_PIECES_MAX + 1;
    pieces.resize(pieces.size() + static_cast<size_t>(ISO_WIRE_PIECES_MAX + 1) * ISO_WIRE_PIECE);
    pieces[4] = static_cast<uint8_t>(pieces.size());
    pieces[5] = static_cast<uint8_t>(pieces.size() >> 8);
    CHECK(decode(pieces, got.get()) == ISO_ERR_INVALID);
    auto reserve = message(ISO_MSG_RESERVE, 1);
    reserve->part = 2;
    reserve->parts = 2;
    CHECK(decode(encode(*reserve), got.get()) == ISO_ERR_INVALID);
}

TEST_CASE("random bytes behind a good header never read out of bounds", "[wire]")
{
    std::mt19937 random(7);
    auto got = message(ISO_MSG_HELLO, 0);
    unsigned accepted = 0;
    for (int i = 0; i < 200000; i++) {
        std::vector<uint8_t> bytes = encode(*message(types[random() % types.size()], random() % 4));
        for (unsigned flips = 1 + random() % 3; flips > 0; flips--)
            bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
        if (random() % 2 != 0u)
            bytes.resize(random() % (bytes.size() + 4));
        accepted += decode(bytes, got.get()) == ISO_OK;
    }
    CHECK(accepted > 0); // a flip in a value is a message as good as any
}
