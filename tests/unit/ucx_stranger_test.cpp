// What the UCX transport does with messages of own puts that no rank of the library would send, or in no such order: they
// come from a worker of UCX's alone.
#include "tests/unit/ucx_own.hpp"
#include <ucp/api/ucp.h>

namespace {

// Of an address blob, see ux_address.c.
constexpr size_t address_am_id = 24, address_ucp = 112;

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
    uint16_t version = 4, kind = 1;
    uint32_t source = 1, connection = 1, region = 1, flush = 1, pieces = 0;
    uint64_t address = 0;
    uint8_t cookie[16];
};

// As ux_header_t, with the first bytes of a message.
struct Text {
    uint32_t magic = 0x6d786375, version = 4, source = 1, len = 4;
    uint64_t number = 0;
    uint8_t cookie[16];
    uint32_t connection = 1, flush = 0;
    uint64_t pieces = 0;
    char text[5];
};

// A worker of UCX's alone, which sends what it likes to a rank.
struct Bare {
    explicit Bare(UcxRank &to) : to(to)
    {
        const std::string address = to.address();
        memcpy(&am_id, &address[address_am_id], sizeof am_id);
        ucp_params_t params = {};
        params.field_mask = UCP_PARAM_FIELD_FEATURES;
        params.features = UCP_FEATURE_AM;
        ucp_worker_params_t worker_params = {};
        REQUIRE(UCP(ucp_init_version)(UCP_API_MAJOR, UCP_API_MINOR, &params, nullptr, &context) ==
                UCS_OK);
        REQUIRE(UCP(ucp_worker_create)(context, &worker_params, &worker) == UCS_OK);
        ucp_ep_params_t way = {};
        way.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS;
        way.address = reinterpret_cast<const ucp_address_t *>(address.data() + address_ucp);
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
