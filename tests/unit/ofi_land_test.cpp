// Writes that the target counts (of_land.c), mostly over tcp: what comes after a fence, when a flush ends, and what waits for
// writes that have not come. Ranks are instances in this process; what a rank of ours would not send comes from an
// endpoint of libfabric's alone, which says that it is rank 1.
#include "tests/unit/network.hpp"
#include <deque>
#include <dlfcn.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_rma.h>
#include <sys/mman.h>

namespace {

// The calls that are not by a table, of the libfabric that the module has loaded.
void *libfabric()
{
    static void *const library = dlopen("libfabric.so.1", RTLD_LAZY | RTLD_NOLOAD);
    REQUIRE(library != nullptr);
    return library;
}
#define FI(name) reinterpret_cast<decltype(&name)>(dlsym(libfabric(), #name))

constexpr unsigned char untouched = 0x5a;

// Memory of a rank that is put to, and its key.
struct Landing {
    explicit Landing(NetRank &at, size_t size = 4 << 20) : memory(size)
    {
        const iso_memory_t all = memory.all();
        char bytes[ISO_TRANSPORT_RKEY_MAX];
        size_t len = sizeof bytes;
        memset(memory.bytes, untouched, size);
        REQUIRE(net().mem_register(at.tp, &all, &region) == ISO_OK);
        REQUIRE(net().rkey_pack(region, bytes, &len) == ISO_OK);
        blob.assign(bytes, len);
    }
    ~Landing()
    {
        net().mem_deregister(region);
    }
    Landing(const Landing &) = delete;
    Landing &operator=(const Landing &) = delete;
    Memory memory;
    iso_region_t *region = nullptr;
    std::string blob;
};

// Rank 0 puts to rank 1.
struct Two {
    Two() : zero(0), one(1), source(4 << 20), target(one)
    {
        const iso_memory_t all = source.all();
        std::mt19937_64 random(1);
        for (size_t i = 0; i < source.size; i += 8) {
            const uint64_t word = random();
            memcpy(source.bytes + i, &word, sizeof word);
        }
        REQUIRE(zero.connect(1, one.address(), &ep) == ISO_OK);
        REQUIRE(net().mem_register(zero.tp, &all, &region) == ISO_OK);
        REQUIRE(net().rkey_unpack(ep, target.blob.data(), target.blob.size(), &rkey) == ISO_OK);
    }
    ~Two()
    {
        net().rkey_destroy(rkey);
        net().disconnect(ep);
        if (back != nullptr)
            net().disconnect(back);
        net().mem_deregister(region);
    }
    Two(const Two &) = delete;
    Two &operator=(const Two &) = delete;
    void connect_back()
    {
        REQUIRE(one.connect(0, zero.address(), &back) == ISO_OK);
    }
    iso_status_t put(size_t at, size_t len, Operation &operation)
    {
        return operation.began(net().put(ep, source.bytes + at, len, region,
                                         reinterpret_cast<uintptr_t>(target.memory.bytes + at),
                                         rkey, &operation.completion));
    }
    iso_status_t flush(Operation &operation)
    {
        return operation.began(net().flush(ep, &operation.completion));
    }
    bool landed(size_t at, size_t len) const
    {
        return memcmp(source.bytes + at, target.memory.bytes + at, len) == 0;
    }
    bool until(const std::function<bool()> &done, double seconds = 10)
    {
        return zero.until([&] { return one.progress(), done(); }, seconds);
    }
    NetRank zero, one;
    Memory source;
    Landing target;
    iso_endpoint_t *ep = nullptr, *back = nullptr;
    iso_region_t *region = nullptr;
    iso_rkey_t *rkey = nullptr;
};

struct Header { // see ofi.h
    uint32_t magic = 0x6d69666f, version = 5, source = 1, len = 0;
    uint64_t number = 0;
    unsigned char cookie[16];
};
enum Kind : uint32_t {
    whole,
    begun,
    after,
    ask,
    answer
};

constexpr size_t address_name = 176; // see of_address.c

struct Bare {
    explicit Bare(NetRank &to, const char *provider) : to(to)
    {
        const std::string address = to.address();
        fi_info *hints = FI(fi_dupinfo)(nullptr);
        hints->caps = FI_MSG | FI_RMA;
        hints->mode = FI_CONTEXT | FI_CONTEXT2;
        hints->ep_attr->type = FI_EP_RDM;
        hints->fabric_attr->prov_name = strdup(provider);
        hints->domain_attr->threading = FI_THREAD_DOMAIN;
        hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
        REQUIRE(FI(fi_getinfo)(FI_VERSION(1, 17), nullptr, nullptr, 0, hints, &info) == 0);
        FI(fi_freeinfo)(hints);
        fi_cq_attr cq_attr = {};
        fi_av_attr av_attr = {};
        cq_attr.format = FI_CQ_FORMAT_CONTEXT;
        av_attr.type = FI_AV_TABLE;
        REQUIRE(FI(fi_fabric)(info->fabric_attr, &fabric, nullptr) == 0);
        REQUIRE(fi_domain(fabric, info, &domain, nullptr) == 0);
        REQUIRE(fi_cq_open(domain, &cq_attr, &cq, nullptr) == 0);
        REQUIRE(fi_av_open(domain, &av_attr, &av, nullptr) == 0);
        REQUIRE(fi_endpoint(domain, info, &ep, nullptr) == 0);
        REQUIRE(fi_ep_bind(ep, &av->fid, 0) == 0);
        REQUIRE(fi_ep_bind(ep, &cq->fid, FI_TRANSMIT | FI_RECV) == 0);
        REQUIRE(fi_enable(ep) == 0);
        REQUIRE(fi_av_insert(av, &address[address_name], 1, &peer, 0, nullptr) == 1);
    }
    ~Bare()
    {
        fi_close(&ep->fid);
        fi_close(&av->fid);
        fi_close(&cq->fid);
        fi_close(&domain->fid);
        fi_close(&fabric->fid);
        FI(fi_freeinfo)(info);
    }
    Bare(const Bare &) = delete;
    Bare &operator=(const Bare &) = delete;
    // Until libfabric has let go of it.
    void finish(const std::function<ssize_t()> &begin)
    {
        fi_cq_entry entry;
        ssize_t begun = -FI_EAGAIN;
        REQUIRE(to.until([&] {
            if (begun == -FI_EAGAIN)
                begun = begin();
            return fi_cq_read(cq, &entry, 1) == 1;
        }));
    }
    void add(Kind kind, const void *data, uint32_t len)
    {
        const uint32_t record[2] = {len, kind};
        records.append(reinterpret_cast<const char *>(record), sizeof record);
        records.append(static_cast<const char *>(data), len);
        records.append((8 - len % 8) % 8, '\0');
    }
    void note(Kind kind, uint32_t number, uint32_t writes)
    {
        const uint32_t both[2] = {number, writes};
        add(kind, both, sizeof both);
    }
    void send()
    {
        Header header;
        memset(header.cookie, 7, sizeof header.cookie);
        header.len = static_cast<uint32_t>(records.size());
        header.number = number++;
        const std::string piece =
            std::string(reinterpret_cast<const char *>(&header), sizeof header) + records;
        records.clear();
        finish([&] { return fi_send(ep, piece.data(), piece.size(), nullptr, peer, &context); });
    }
    // To the beginning of the region, as a write of that round.
    void write(const Landing &landing, const std::string &data, uint32_t round, uint64_t rank = 1)
    {
        uint64_t key;
        memcpy(&key, &landing.blob[48], sizeof key); // see of_mem.c; addresses are offsets
        finish([&] {
            return fi_writedata(ep, data.data(), data.size(), nullptr, rank << 32 | round, peer, 0,
                                key, &context);
        });
    }
    NetRank &to;
    std::string records;
    uint64_t number = 0;
    fi_info *info = nullptr;
    fid_fabric *fabric = nullptr;
    fid_domain *domain = nullptr;
    fid_cq *cq = nullptr;
    fid_av *av = nullptr;
    fid_ep *ep = nullptr;
    fi_addr_t peer = 0;
    fi_context2 context;
};

} // namespace

TEST_CASE("ofi: a message after a fence comes when what was put before it is there", "[ofi]")
{
    use_network("ofi tcp");
    Two two;
    constexpr size_t room = 70000;
    const size_t lengths[] = {1, 8192, 30000, 69000};
    const unsigned each = GENERATE(1u, 4u); // fences before a message
    constexpr unsigned all = 56;
    std::deque<Operation> puts;
    unsigned heard = 0;
    bool right = true;
    two.one.handler = [&](uint32_t, const void *, size_t) {
        for (unsigned i = 0; i < each; i++, heard++)
            right = right && two.landed(heard * room, lengths[heard % 4]);
    };
    for (unsigned put = 0; put < all; put++) {
        puts.emplace_back();
        iso_status_t status = ISO_ERR_AGAIN;
        REQUIRE(two.put(put * room, lengths[put % 4], puts.back()) >= 0);
        CHECK(two.until([&] { return (status = net().fence(two.ep)) != ISO_ERR_AGAIN; }));
        REQUIRE(status == ISO_OK);
        if (put % each == each - 1)
            CHECK(two.until([&] { return say(two.ep, "look") == ISO_OK; }));
    }
    CHECK(two.until([&] { return heard == all; }));
    CHECK(right);
    CHECK(two.until([&] {
        return std::all_of(puts.begin(), puts.end(),
                           [](const Operation &put) { return put.ended; });
    }));
    two.one.handler = nullptr;
}

TEST_CASE("ofi: a flush ends when the target has answered, as soon as it can", "[ofi]")
{
    use_network("ofi tcp");
    Two two;
    Operation put, first, second, third, nothing;
    CHECK(two.flush(nothing) == ISO_OK);
    REQUIRE(two.put(0, 3 << 20, put) == ISO_INPROGRESS);
    REQUIRE(two.flush(first) == ISO_INPROGRESS);
    REQUIRE(two.flush(second) == ISO_INPROGRESS);
    CHECK(two.until([&] { return put.ended && two.landed(0, 3 << 20); }));
    CHECK_FALSE(two.until([&] { return first.ended || second.ended; }, 0.1)); // no way to answer
    two.connect_back();
    CHECK(two.until([&] { return first.ended && second.ended; }));
    CHECK(first.status == ISO_OK);
    CHECK(second.status == ISO_OK);
    CHECK(two.flush(nothing) == ISO_OK);

    // Whoever disconnects hears of nothing any more, and the next way is a new one.
    Operation again;
    REQUIRE(two.put(0, 100, again) == ISO_INPROGRESS);
    CHECK(two.until([&] { return again.ended; }));
    net().rkey_destroy(two.rkey);
    net().disconnect(two.ep);
    REQUIRE(two.zero.connect(1, two.one.address(), &two.ep) == ISO_OK);
    REQUIRE(net().rkey_unpack(two.ep, two.target.blob.data(), two.target.blob.size(), &two.rkey) ==
            ISO_OK);
    Operation last;
    REQUIRE(two.put(1000, 100, last) == ISO_INPROGRESS);
    REQUIRE(two.flush(third) == ISO_INPROGRESS);
    CHECK(two.until([&] { return third.ended && last.ended; }));
    CHECK(third.status == ISO_OK);
    CHECK(two.landed(1000, 100));
}

TEST_CASE("ofi: what comes after writes waits for all of its round, and only for those", "[ofi]")
{
    use_network("ofi sockets"); // not taken for a stream
    NetRank zero(0, 3);
    Landing landing(zero);
    Bare bare(zero, "sockets");
    const std::string data(3000, 'x');
    const auto hears = [&](size_t count, double seconds = 10) {
        return zero.until([&] { return zero.messages.size() == count; }, seconds);
    };
    // The note is there before the writes, and a message of the same piece before the note.
    bare.add(whole, "before", 6);
    bare.note(after, 1, 2);
    bare.add(whole, "behind", 6);
    bare.send();
    bare.add(whole, "later", 5);
    bare.send();
    CHECK(hears(1));
    CHECK(zero.messages[0].data == "before");
    bare.write(landing, data, 1);
    bare.write(landing, data, 2);    // of another round,
    bare.write(landing, data, 1, 2); // of another rank,
    bare.write(landing, data, 1, 7); // and of none of this job
    CHECK_FALSE(hears(2, 0.1));
    bare.write(landing, std::string(3000, 'y'), 1);
    CHECK(hears(3));
    CHECK(zero.messages[1].data == "behind");
    CHECK(zero.messages[2].data == "later");
    CHECK(landing.memory.bytes[2999] == 'y');

    // The writes are there before the note, of rounds in no order.
    bare.write(landing, data, 9);
    bare.write(landing, data, 2);
    bare.note(after, 2, 2);
    bare.note(after, 9, 1);
    bare.add(whole, "both", 4);
    bare.send();
    CHECK(hears(4));

    // Notes that make no sense: the rest of the piece is dropped, and nothing else.
    bare.add(after, "12", 2);
    bare.add(whole, "dropped", 7);
    bare.send();
    bare.add(static_cast<Kind>(6), "12345678", 8);
    bare.send();
    bare.note(answer, 4, 0); // to what was not asked
    bare.note(ask, 4, 0);    // by one that cannot be answered
    bare.add(whole, "end", 3);
    bare.send();
    CHECK(hears(5));
    CHECK(zero.messages[4].data == "end");
    CHECK(zero.said("makes no sense"));
    CHECK(zero.failures.empty());
}

TEST_CASE("ofi: in a stream, what comes before its writes comes without them, and is never heard",
          "[ofi]")
{
    use_network("ofi tcp");
    NetRank zero(0);
    Landing landing(zero);
    Bare bare(zero, "tcp");
    const std::string data(3000, 'x');
    bare.write(landing, data, 1);
    bare.note(after, 1, 1);
    bare.add(whole, "right", 5);
    bare.send();
    bare.note(after, 2, 2);
    bare.add(whole, "wrong", 5);
    bare.write(landing, data, 2);
    bare.send();
    CHECK(zero.until([&] { return zero.said("what rank 1 has put has not come"); }));
    REQUIRE(zero.messages.size() == 1);
    CHECK(zero.messages[0].data == "right");
    CHECK(landing.memory.bytes[2999] == 'x');
}

TEST_CASE("ofi: there is a fence where writes go in a stream, and only there", "[ofi]")
{
    const std::string provider = GENERATE("tcp", "sockets", "shm");
    CAPTURE(provider);
    use_network("ofi " + provider);
    NetRank zero(0), one(1);
    iso_endpoint_t *ep = nullptr;
    REQUIRE(zero.connect(1, one.address(), &ep) == ISO_OK);
    CHECK(net().fence(ep) == (provider == "tcp" ? ISO_OK : ISO_ERR_INVALID));
    net().disconnect(ep);
}

TEST_CASE("ofi: in a stream, a piece that comes before its turn says that others are lost", "[ofi]")
{
    use_network("ofi tcp");
    NetRank zero(0);
    Bare bare(zero, "tcp");
    bare.add(whole, "first", 5);
    bare.send();
    CHECK(zero.until([&] { return zero.messages.size() == 1; }));
    bare.number++;
    bare.add(whole, "third", 5);
    bare.send();
    CHECK(zero.until([&] { return zero.said("what rank 1 has said has not all come"); }));
    bare.number = 1;
    bare.add(whole, "second", 6); // too late
    bare.send();
    CHECK_FALSE(zero.until([&] { return zero.messages.size() > 1; }, 0.1));
}

TEST_CASE("ofi: a connection that ends takes no message with it unnoticed", "[ofi]")
{
    use_network("ofi tcp");
    Two two;
    Operation put;
    iso_rkey_t *stale = nullptr;
    uint64_t there;
    size_t said = 0;
    two.connect_back();
    {
        Landing gone(two.one);
        there = reinterpret_cast<uintptr_t>(gone.memory.bytes);
        REQUIRE(net().rkey_unpack(two.ep, gone.blob.data(), gone.blob.size(), &stale) == ISO_OK);
    }
    CHECK(say_soon(two.zero, two.ep, "before"));
    CHECK(two.until([&] { return two.one.messages.size() == 1; }));
    REQUIRE(put.began(net().put(two.ep, two.source.bytes, 4096, two.region, there, stale,
                                &put.completion)) >= 0);
    CHECK(two.until([&] {
        said += say(two.ep, std::to_string(said)) == ISO_OK;
        return !two.zero.failures.empty();
    }));
    for (size_t i = 1; i < two.one.messages.size(); i++)
        CHECK(two.one.messages[i].data == std::to_string(i - 1));
    CHECK(two.one.messages.size() - 1 < said);
    net().rkey_destroy(stale);
}

TEST_CASE("ofi: what was not sent when a way ended leaves no gap for the next way", "[ofi]")
{
    use_network("ofi tcp");
    Two two;
    CHECK(say(two.ep, "never leaves: there is no connection yet") == ISO_OK);
    net().rkey_destroy(two.rkey);
    net().disconnect(two.ep);
    REQUIRE(two.zero.connect(1, two.one.address(), &two.ep) == ISO_OK);
    REQUIRE(net().rkey_unpack(two.ep, two.target.blob.data(), two.target.blob.size(), &two.rkey) ==
            ISO_OK);
    CHECK(say_soon(two.zero, two.ep, "heard"));
    CHECK(two.until(
        [&] { return !two.one.messages.empty() && two.one.messages.back().data == "heard"; }));
}

TEST_CASE("ofi: what is kept of a peer until its turn comes is bounded", "[ofi]")
{
    use_network("ofi sockets"); // not taken for a stream
    NetRank zero(0);
    Landing landing(zero);
    Bare bare(zero, "sockets");
    SECTION("pieces")
    {
        bare.number = 1; // 0 never comes
        for (unsigned i = 0; i < 1024; i++) {
            bare.add(whole, "kept", 4);
            bare.send();
        }
        CHECK_FALSE(zero.until([&] { return zero.said("not heard any more"); }, 0.1));
        bare.add(whole, "too many", 8);
        bare.send();
        CHECK(zero.until([&] { return zero.said("what rank 1 says waits too long"); }));
        bare.number = 0;
        bare.add(whole, "too late", 8);
        bare.send();
    }
    SECTION("rounds of writes")
    {
        for (uint32_t round = 1; round <= 1024; round++)
            bare.write(landing, "x", round);
        CHECK_FALSE(zero.until([&] { return zero.said("not heard any more"); }, 0.1));
        bare.write(landing, "x", 1025);
        CHECK(
            zero.until([&] { return zero.said("what rank 1 has put is more than it tells of"); }));
        bare.add(whole, "too late", 8);
        bare.send();
    }
    CHECK_FALSE(zero.until([&] { return !zero.messages.empty(); }, 0.1));
}

TEST_CASE("ofi: over shm, what is put to memory of an object is stored into the object", "[ofi]")
{
    use_network("ofi shm");
    Two two;
    const Memory &target = two.target.memory;
    REQUIRE(mprotect(target.bytes, target.size, PROT_NONE) == 0); // to others as well
    for (unsigned i = 0; i < 10; i++) {                           // by the kernel, then by stores
        Operation put;
        CHECK(two.put(1000 * i, 100000, put) == ISO_OK);
    }
    REQUIRE(mprotect(target.bytes, target.size, PROT_READ | PROT_WRITE) == 0);
    CHECK(two.landed(0, 109000));
    CHECK(target.bytes[109000] == untouched);
}
