// Own puts of the UCX transport (ux_own.c, ux_land.c): over lanes where no device writes. What lands, what does not, and
// when a flush ends. Ranks are instances in this process; garbage comes from a worker of UCX's alone.
#include "tests/unit/ucx.hpp"
#include <deque>
#include <memory>
#include <ucp/api/ucp.h>

namespace {

// Lanes that have own puts.
std::vector<std::string> own_lanes()
{
    std::vector<std::string> own;
    for (const std::string &tls : lanes())
        if (!is_rdma(tls))
            own.push_back(tls);
    return own;
}

#define OVER_EACH_OWN                  \
    const auto over_all = own_lanes(); \
    if (over_all.empty())              \
        return;                        \
    const std::string over = use(GENERATE_COPY(from_range(over_all)))

// Where address and length of the region are in an rkey's blob: they are the word of the rank that made it.
constexpr size_t rkey_address = 24, rkey_length = 32;
// Of an address blob, see ux_address.c.
constexpr size_t address_am_id = 12, address_ucp_len = 16;

// The way from a rank that puts to one that is put to. The latter's memory is set to a pattern.
struct Way {
    Way(UcxRank &from, UcxRank &to, size_t size = 1 << 20)
        : from(from), to(to), source(size), target(size)
    {
        const iso_memory_t here = source.all(), there = target.all();
        std::mt19937_64 random(from.host.rank + 1);
        for (size_t i = 0; i + 8 <= size; i += 8) {
            const uint64_t word = random();
            memcpy(source.bytes + i, &word, sizeof word);
        }
        memset(target.bytes, untouched, size);
        REQUIRE(from.connect(to.host.rank, to.address(), &ep) == ISO_OK);
        REQUIRE(to.connect(from.host.rank, from.address(), &back) == ISO_OK);
        REQUIRE(ucx().mem_register(from.tp, &here, &region) == ISO_OK);
        REQUIRE(ucx().mem_register(to.tp, &there, &landing) == ISO_OK);
        char bytes[ISO_TRANSPORT_RKEY_MAX];
        size_t len = sizeof bytes;
        REQUIRE(ucx().rkey_pack(landing, bytes, &len) == ISO_OK);
        blob.assign(bytes, len);
        rkey = unpack(blob);
    }
    ~Way()
    {
        for (iso_rkey_t *one : rkeys)
            ucx().rkey_destroy(one);
        if (ep != nullptr)
            ucx().disconnect(ep);
        if (back != nullptr)
            ucx().disconnect(back);
        if (landing != nullptr)
            ucx().mem_deregister(landing);
        ucx().mem_deregister(region);
    }
    Way(const Way &) = delete;
    Way &operator=(const Way &) = delete;

    iso_rkey_t *unpack(const std::string &bytes)
    {
        iso_rkey_t *one = nullptr;
        REQUIRE(ucx().rkey_unpack(ep, bytes.data(), bytes.size(), &one) == ISO_OK);
        rkeys.push_back(one);
        return one;
    }
    iso_status_t put(size_t at, size_t len, Operation &operation)
    {
        return put_to(reinterpret_cast<uintptr_t>(target.bytes) + at, at, len, operation);
    }
    iso_status_t put_to(uint64_t remote, size_t at, size_t len, Operation &operation)
    {
        return operation.began(
            ucx().put(ep, source.bytes + at, len, region, remote, rkey, &operation.completion));
    }
    iso_status_t flush(Operation &operation)
    {
        return operation.began(ucx().flush(ep, &operation.completion));
    }
    // Both make progress.
    bool until(const std::function<bool()> &done, double seconds = 10)
    {
        return from.until(
            [&] {
                to.progress();
                return done();
            },
            seconds);
    }
    iso_status_t flushed()
    {
        Operation flush;
        REQUIRE(until([&] {
            flush.ended = false;
            return this->flush(flush) != ISO_ERR_AGAIN;
        }));
        REQUIRE(until([&] { return flush.ended; }));
        return flush.status;
    }
    bool landed(size_t at, size_t len) const
    {
        return memcmp(source.bytes + at, target.bytes + at, len) == 0;
    }
    bool is_untouched(size_t at, size_t len) const
    {
        for (size_t i = at; i < at + len; i++)
            if (target.bytes[i] != untouched)
                return false;
        return true;
    }

    static constexpr unsigned char untouched = 0xd7;
    UcxRank &from, &to;
    Memory source, target;
    std::string blob;
    iso_endpoint_t *ep = nullptr, *back = nullptr;
    iso_region_t *region = nullptr, *landing = nullptr;
    iso_rkey_t *rkey = nullptr;
    std::vector<iso_rkey_t *> rkeys;
};

// Some of libucp's functions, from the library that the module has loaded: the tests do not link it, since what it
// does when it is loaded is not for the other tests.
template <typename Function> Function *ucp(const char *name)
{
    static void *library = dlopen("libucp.so.0", RTLD_NOW);
    REQUIRE(library != nullptr);
    void *found = dlsym(library, name);
    REQUIRE(found != nullptr);
    return reinterpret_cast<Function *>(found);
}
#define UCP(function) ucp<decltype(::function)>(#function)

// As ux_own_header_t.
struct Header {
    uint16_t version = 3, kind = 1;
    uint32_t source = 1, connection = 1, region = 1, flush = 1, pieces = 0;
    uint64_t address = 0;
    uint8_t cookie[16];
};

// As ux_header_t, with the first bytes of a message.
struct Text {
    uint32_t magic = 0x6d786375, version = 3, source = 1, len = 4;
    uint64_t number = 0;
    uint32_t connection = 1, flush = 0;
    uint64_t pieces = 0;
    uint8_t cookie[16];
    char text[5];
};

// A worker of UCX's alone, which sends what it likes to a rank.
struct Bare {
    explicit Bare(UcxRank &to) : to(to)
    {
        const std::string address = to.address();
        uint32_t ucp_len;
        memcpy(&am_id, &address[address_am_id], sizeof am_id);
        memcpy(&ucp_len, &address[address_ucp_len], sizeof ucp_len);
        ucp_params_t params = {};
        params.field_mask = UCP_PARAM_FIELD_FEATURES;
        params.features = UCP_FEATURE_AM;
        ucp_worker_params_t worker_params = {};
        REQUIRE(UCP(ucp_init_version)(UCP_API_MAJOR, UCP_API_MINOR, &params, nullptr, &context) ==
                UCS_OK);
        REQUIRE(UCP(ucp_worker_create)(context, &worker_params, &worker) == UCS_OK);
        ucp_ep_params_t way = {};
        way.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS;
        way.address =
            reinterpret_cast<const ucp_address_t *>(address.data() + address.size() - ucp_len);
        REQUIRE(UCP(ucp_ep_create)(worker, &way, &ep) == UCS_OK);
    }
    ~Bare()
    {
        UCP(ucp_worker_destroy)(worker);
        UCP(ucp_cleanup)(context);
    }
    Bare(const Bare &) = delete;
    Bare &operator=(const Bare &) = delete;
    void progress()
    {
        UCP(ucp_worker_progress)(worker);
    }
    void emit(const void *header, size_t header_len, const void *bytes, size_t len)
    {
        ucp_request_param_t param = {};
        param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
        param.flags = UCP_AM_SEND_FLAG_EAGER;
        void *request = UCP(ucp_am_send_nbx)(ep, am_id, header, header_len, bytes, len, &param);
        REQUIRE_FALSE(UCS_PTR_IS_ERR(request));
        if (request == nullptr)
            return;
        REQUIRE(to.until([&] {
            progress();
            return UCP(ucp_request_check_status)(request) != UCS_INPROGRESS;
        }));
        UCP(ucp_request_free)(request);
    }

    UcxRank &to;
    uint32_t am_id;
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_ep_h ep;
};

} // namespace

TEST_CASE("own puts: a long one goes in pieces, whole, and a flush ends when all of it is there",
          "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0), one(1);
    Way way(zero, one, 24 << 20);
    // Odd places and lengths: about the size of a piece, of several, of very many.
    const size_t lengths[] = {1, 4095, 8191, 8193, 61439, 61441, 200003, 17 << 20};
    size_t at = 3;
    std::deque<Operation> puts;
    for (const size_t length : lengths) {
        puts.emplace_back();
        REQUIRE(way.put(at, length, puts.back()) >= 0);
        at += length + 5;
    }
    Operation flush;
    REQUIRE(way.flush(flush) >= 0);
    for (const auto start = Clock::now(); since(start) < 0.1;)
        zero.progress(); // alone
    CHECK_FALSE(flush.ended);
    REQUIRE(way.until([&] { return flush.ended; }, 30));
    CHECK(flush.status == ISO_OK);
    at = 3;
    CHECK(way.is_untouched(0, 3));
    for (const size_t length : lengths) {
        CHECK(way.landed(at, length));
        CHECK(way.is_untouched(at + length, 5));
        at += length + 5;
    }
    REQUIRE(way.until([&] {
        for (const Operation &put : puts)
            if (!put.ended || put.status != ISO_OK)
                return false;
        return true;
    }));
}

TEST_CASE("own puts land without a flush, and while who put them sleeps", "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0), one(1);
    Way way(zero, one);
    CHECK(way.flushed() == ISO_OK); // they know each other
    Operation small, large;
    REQUIRE(way.put(0, 10, small) >= 0);
    CHECK(way.until([&] { return small.ended && way.landed(0, 10); }));
    REQUIRE(way.put(1000, 20000, large) >= 0);
    REQUIRE(zero.until([&] { return ucx().arm(zero.tp) == ISO_OK; }));
    CHECK(one.until([&] { return way.landed(1000, 20000); }));
}

TEST_CASE("own puts to what is not registered any more change nothing, and the flush says so",
          "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0), one(1);
    Way way(zero, one);
    Operation outside, across, gone, good;
    const uint64_t start = reinterpret_cast<uintptr_t>(way.target.bytes);

    // An rkey that says more than is true: the rank that is put to looks for itself.
    std::string wrong = way.blob;
    uint64_t address = start - 4096, length = way.target.size + 8192;
    memcpy(&wrong[rkey_address], &address, sizeof address);
    memcpy(&wrong[rkey_length], &length, sizeof length);
    iso_rkey_t *right = way.rkey;
    way.rkey = way.unpack(wrong);
    REQUIRE(way.put_to(start - 1, 0, 100, outside) >= 0);
    REQUIRE(way.put_to(start + way.target.size - 50, 0, 51, across) >= 0);
    CHECK(way.flushed() == ISO_ERR_INVALID);
    CHECK(zero.said("rank 1 refused 2 pieces"));
    CHECK(way.is_untouched(0, way.target.size));

    // It goes on.
    way.rkey = right;
    REQUIRE(way.put(100, 100000, good) >= 0);
    CHECK(way.flushed() == ISO_OK);
    CHECK(way.landed(100, 100000));

    // The same memory, registered anew: an rkey of before opens nothing.
    const iso_memory_t all = way.target.all();
    memset(way.target.bytes, Way::untouched, way.target.size);
    ucx().mem_deregister(way.landing);
    REQUIRE(ucx().mem_register(one.tp, &all, &way.landing) == ISO_OK);
    REQUIRE(way.put(0, 5000, gone) >= 0);
    CHECK(way.flushed() == ISO_ERR_INVALID);
    CHECK(way.is_untouched(0, way.target.size));
}

TEST_CASE("own puts of who was disconnected do not land, and who comes back is told", "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0), one(1);
    Way way(zero, one);
    Operation put, flush;
    CHECK(way.flushed() == ISO_OK); // they know each other
    ucx().disconnect(way.back);
    way.back = nullptr;
    REQUIRE(way.put(0, 300000, put) >= 0);
    const iso_status_t asked = way.flush(flush);
    if (asked < 0 || way.until([&] { return flush.ended; }, 0.3)) {
        CHECK(over == "tcp,self"); // which notices
        CHECK((asked == ISO_ERR_UNREACHABLE || flush.status == ISO_ERR_UNREACHABLE));
    } else {
        REQUIRE(one.connect(0, zero.address(), &way.back) == ISO_OK);
        REQUIRE(way.until([&] { return flush.ended; }));
        CHECK(flush.status == ISO_ERR_INVALID);
    }
    CHECK(way.is_untouched(0, way.target.size));
}

TEST_CASE("own puts of several ranks are told apart, and more flushes than there is room for wait",
          "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0, 3), one(1, 3), two(2, 3);
    Way from_one(one, zero), from_two(two, zero);
    constexpr size_t size = 20000, count = 50;
    Way *ways[] = {&from_one, &from_two};
    std::deque<Operation> puts, flushes[2];
    size_t begun[2] = {0, 0}, refused = 0;
    bool right = true;
    const auto turn = [&] {
        for (size_t i = 0; i < 2; i++) {
            if (begun[i] < count) {
                puts.emplace_back();
                if (ways[i]->put(begun[i] * size, size, puts.back()) == ISO_ERR_AGAIN)
                    continue;
                flushes[i].emplace_back();
                iso_status_t status = ways[i]->flush(flushes[i].back());
                if (status == ISO_ERR_AGAIN) {
                    refused++; // the next one is for both puts
                    flushes[i].pop_back();
                }
                begun[i]++;
            }
            for (size_t at = 0; at < flushes[i].size(); at++)
                if (flushes[i][at].ended) // and with it all that was put before
                    right = right && flushes[i][at].status == ISO_OK &&
                            (at > 25 || ways[i]->landed(at * size, size));
        }
    };
    for (int i = 0; i < 60; i++)
        turn(); // nobody makes progress
    CHECK(refused > 0);
    REQUIRE(zero.until(
        [&] {
            one.progress();
            two.progress();
            turn();
            return begun[0] == count && begun[1] == count;
        },
        20));
    for (Way *way : ways)
        CHECK(way->flushed() == ISO_OK);
    CHECK(right);
    for (size_t i = 0; i < 2; i++) {
        CHECK(ways[i]->landed(0, count * size));
        CHECK(ways[i]->is_untouched(count * size, ways[i]->target.size - count * size));
        for (const Operation &flush : flushes[i])
            CHECK((flush.ended && flush.status == ISO_OK));
    }
}

TEST_CASE("own puts: two that disconnect and connect again begin anew", "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0), one(1);
    Way way(zero, one);
    for (int round = 0; round < 5; round++) {
        CAPTURE(round);
        std::deque<Operation> lost(4);
        for (Operation &put : lost) // not flushed; some of it goes, and some does not
            REQUIRE(way.put(0, 200000, put) >= 0);
        ucx().rkey_destroy(way.rkeys.back());
        way.rkeys.pop_back();
        ucx().disconnect(way.ep);
        ucx().disconnect(way.back); // before it finds out that the other has
        REQUIRE(zero.connect(1, one.address(), &way.ep) == ISO_OK);
        REQUIRE(one.connect(0, zero.address(), &way.back) == ISO_OK);
        way.rkey = way.unpack(way.blob);
        memset(way.target.bytes, Way::untouched, way.target.size);
        Operation put;
        REQUIRE(way.put(400000, 300000, put) >= 0);
        CHECK(way.flushed() == ISO_OK);
        CHECK(way.landed(400000, 300000));
        for (const Operation &one_of : lost)
            CHECK((!one_of.ended || one_of.status == ISO_OK));
    }
}

TEST_CASE("own puts of a stranger change nothing", "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0, 2, 7), one(1, 2, 7), stranger(1, 2, 8);
    Way way(one, zero); // zero knows a rank 1
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    iso_rkey_t *rkey = nullptr;
    const iso_memory_t source = way.source.all();
    REQUIRE(stranger.connect(0, zero.address(), &ep) == ISO_OK);
    REQUIRE(ucx().mem_register(stranger.tp, &source, &region) == ISO_OK);
    REQUIRE(ucx().rkey_unpack(ep, way.blob.data(), way.blob.size(), &rkey) == ISO_OK);
    Operation put, flush;
    CHECK(put.began(ucx().put(ep, way.source.bytes, 50000, region,
                              reinterpret_cast<uintptr_t>(way.target.bytes), rkey,
                              &put.completion)) >= 0);
    CHECK(flush.began(ucx().flush(ep, &flush.completion)) >= 0);
    CHECK(zero.until([&] {
        stranger.progress();
        return zero.said("not of this job");
    }));
    CHECK_FALSE(zero.until(
        [&] {
            stranger.progress();
            return flush.ended;
        },
        0.1));
    CHECK(way.is_untouched(0, way.target.size));
    CHECK(way.flushed() == ISO_OK); // the rank 1 that is one goes on
    ucx().rkey_destroy(rkey);
    ucx().disconnect(ep);
    ucx().mem_deregister(region);
}

TEST_CASE("messages of own puts that make no sense are dropped, and change nothing", "[ucx]")
{
    use("tcp,self");
    if (own_lanes().empty())
        return;
    UcxRank zero(0), one(1);
    Way way(one, zero);
    Bare bare(zero);
    const std::string data(3000, 'x');
    const auto emit = [&](const void *header, size_t header_len, size_t len) {
        bare.emit(header, header_len, data.data(), len);
    };
    Header right;
    memset(right.cookie, 7, sizeof right.cookie);
    right.address = reinterpret_cast<uintptr_t>(way.target.bytes);

    std::vector<Header> wrong(12, right);
    wrong[0].version = 0;
    wrong[1].version++;
    wrong[2].kind = 0;
    wrong[3].kind = 4;
    wrong[4].source = 2;
    wrong[5].source = UINT32_MAX;
    wrong[6].connection = 0;
    wrong[7].flush = 0;
    wrong[8].flush = 32;
    wrong[9].flush = UINT32_MAX;
    wrong[10].cookie[15]++;
    wrong[11].kind = 2; // a question that has bytes
    for (Header &header : wrong) {
        header.address += 100000;
        emit(&header, sizeof header, 1000);
    }
    emit(&right, sizeof right, 0);           // a piece of none
    emit(&right, sizeof right - 1, 1000);    // cut
    emit(&right, sizeof right, data.size()); // at last, one that is right
    CHECK(zero.until([&] {
        bare.progress();
        return way.target.bytes[data.size() - 1] == 'x';
    }));
    CHECK(std::string(reinterpret_cast<char *>(way.target.bytes), data.size()) == data);
    CHECK(way.is_untouched(data.size(), way.target.size - data.size()));
    CHECK(zero.said("says what cannot be"));
    CHECK(zero.messages.empty());
    CHECK(zero.failures.empty());

    // What is counted is what has come: a question may be there before it. Rank 1 asks about no piece, and one has
    // come in its name; then it is two.
    Operation flush;
    REQUIRE(way.flush(flush) >= 0);
    const auto soon = [&](double seconds) {
        return way.until(
            [&] {
                bare.progress();
                return flush.ended;
            },
            seconds);
    };
    CHECK_FALSE(soon(0.1));
    Header ask = right;
    ask.kind = 2;
    ask.pieces = 2;
    emit(&ask, sizeof ask, 0);
    CHECK_FALSE(soon(0.1));
    emit(&right, sizeof right, 1000);
    CHECK(soon(10));
    CHECK(flush.status == ISO_OK);

    // An answer to what was not asked, in the name of both.
    Header answer = right;
    answer.kind = 3;
    answer.flush = 5;
    emit(&answer, sizeof answer, 0);
    answer.source = 0;
    emit(&answer, sizeof answer, 0);
    CHECK_FALSE(zero.until(
        [&] {
            bare.progress();
            return !zero.failures.empty() || !zero.messages.empty();
        },
        0.1));
}

TEST_CASE("own puts: a message after a fence comes when they are there", "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    UcxRank zero(0), one(1);
    Way way(zero, one, 4 << 20);
    constexpr size_t room = 70000;
    const size_t lengths[] = {1, 8192, 8193, 30000, 69000};
    unsigned put = 0, told = 0, heard = 0, flushed = 0;
    bool right = true;
    std::deque<Operation> puts;
    one.handler = [&](uint32_t, const void *, size_t) {
        right = right && way.landed(heard * room, lengths[heard % 5]);
        heard++;
    };
    CHECK(way.flushed() == ISO_OK); // they know each other
    while (put < 50) {
        const unsigned together = 1 + put % 3; // fences without a message between them
        for (unsigned i = 0; i < together && put < 50; i++, put++) {
            puts.emplace_back();
            REQUIRE(way.put(put * room, lengths[put % 5], puts.back()) >= 0);
            iso_status_t status = ISO_ERR_AGAIN;
            for (unsigned turn = 0; turn < 20 && status == ISO_ERR_AGAIN; turn++) {
                status = ucx().fence(way.ep);
                zero.progress();
                one.progress();
            }
            if (status == ISO_ERR_AGAIN) { // as many as the peer tells apart: an answer makes room
                flushed++;
                CHECK(way.flushed() == ISO_OK);
                status = ucx().fence(way.ep);
            }
            REQUIRE(status == ISO_OK);
        }
        for (; told < put; told++)
            REQUIRE(say_soon(zero, way.ep, "look"));
    }
    CHECK(way.until([&] { return heard == 50; }));
    CHECK(right);
    CHECK(flushed > 0);
    CHECK(flushed < 10);
    one.handler = nullptr;
    CHECK(way.flushed() == ISO_OK);
}

TEST_CASE("own puts: a message that comes before those that it comes after waits for them", "[ucx]")
{
    use("tcp,self");
    if (own_lanes().empty())
        return;
    UcxRank zero(0), one(1);
    Way way(one, zero); // zero knows a rank 1
    Bare bare(zero);
    const std::string data(3000, 'x');
    Text first, second;
    memset(first.cookie, 7, sizeof first.cookie);
    memcpy(first.text, "look", 5);
    first.flush = 1;
    first.pieces = 3; // two, that is
    second = first;
    second.number = 1;
    Header piece;
    memset(piece.cookie, 7, sizeof piece.cookie);
    piece.address = reinterpret_cast<uintptr_t>(way.target.bytes);
    const auto hears = [&](size_t count, double seconds) {
        return zero.until(
            [&] {
                bare.progress();
                return zero.messages.size() == count;
            },
            seconds);
    };
    bare.emit(nullptr, 0, &first, offsetof(Text, text) + 4);
    bare.emit(nullptr, 0, &second, offsetof(Text, text) + 4);
    CHECK_FALSE(hears(1, 0.1));
    bare.emit(&piece, sizeof piece, data.data(), 1000);
    CHECK_FALSE(hears(1, 0.1));
    piece.address += 1000;
    bare.emit(&piece, sizeof piece, data.data(), 1000);
    CHECK(hears(2, 10));
    CHECK(way.target.bytes[1999] == 'x');

    // What comes after puts of the past does not wait for more of them.
    first.number = 2;
    bare.emit(nullptr, 0, &first, offsetof(Text, text) + 4);
    CHECK(hears(3, 10));
    CHECK(zero.failures.empty());
}

TEST_CASE("own puts: when a death was told, nothing of the dead lands any more", "[ucx]")
{
    OVER_EACH_OWN;
    CAPTURE(over);
    Memory target(8 << 20);
    const iso_memory_t all = target.all();
    Child child([&](Channel &parent) {
        UcxRank rank(1);
        Memory source(target.size);
        const iso_memory_t here = source.all();
        iso_endpoint_t *ep = nullptr;
        iso_region_t *region = nullptr;
        iso_rkey_t *rkey = nullptr;
        CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
        CHILD_REQUIRE(ucx().mem_register(rank.tp, &here, &region) == ISO_OK);
        const std::string blob = parent.get();
        CHILD_REQUIRE(ucx().rkey_unpack(ep, blob.data(), blob.size(), &rkey) == ISO_OK);
        std::deque<Operation> puts;
        for (unsigned char value = 1;; value++) {
            memset(source.bytes, value, source.size);
            for (const auto start = Clock::now(); since(start) < 0.01;) {
                puts.emplace_back();
                ucx().put(ep, source.bytes, source.size, region,
                          reinterpret_cast<uintptr_t>(target.bytes), rkey, &puts.back().completion);
                rank.progress();
            }
        }
        return 0;
    });
    UcxRank rank(0);
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    REQUIRE(meet(rank, child.channel, 1, &ep) == ISO_OK);
    REQUIRE(ucx().mem_register(rank.tp, &all, &region) == ISO_OK);
    char bytes[ISO_TRANSPORT_RKEY_MAX];
    size_t len = sizeof bytes;
    REQUIRE(ucx().rkey_pack(region, bytes, &len) == ISO_OK);
    child.channel.put(std::string(bytes, len));
    REQUIRE(rank.until([&] { return target.bytes[0] != 0; }));
    child.kill();
    REQUIRE(rank.until([&] { return !rank.failures.empty(); }));
    CHECK(rank.reported(1, ISO_FAILURE_DEAD));
    const std::vector<unsigned char> then(target.bytes, target.bytes + target.size);
    for (const auto start = Clock::now(); since(start) < 0.2;)
        rank.progress();
    CHECK(memcmp(then.data(), target.bytes, target.size) == 0);
    ucx().disconnect(ep);
    ucx().mem_deregister(region);
}
