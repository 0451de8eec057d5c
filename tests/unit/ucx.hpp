// Ranks for the tests of the transport ucx; see loopback.hpp, which has what is not of one transport.
// A child is forked before its parent opens an instance: UCX does not outlive a fork.
#ifndef ISO_TESTS_UNIT_UCX_HPP
#define ISO_TESTS_UNIT_UCX_HPP

#include "tests/unit/loopback.hpp"
#include <random>

inline const iso_transport_ops_t &ucx()
{
    static const iso_transport_ops_t *ops = open_module(ISO_TEST_MODULE_DIR "/libisomalloc-ucx.so");
    return *ops;
}

inline std::string use(const std::string &tls)
{
    setenv("UCX_TLS", tls.c_str(), 1);
    ucx(); // parent and child run the same module
    return tls;
}

// What the tests go over: ISO_TEST_UCX_TLS (rc_v,self where there is an RDMA device), or all that every
// machine has.
inline std::vector<std::string> lanes()
{
    const char *given = getenv("ISO_TEST_UCX_TLS");
    if (given != nullptr)
        return {given};
    return {"tcp,self", "posix,cma,self", "sysv,cma,self"};
}

inline bool is_rdma(const std::string &tls)
{
    return tls.compare(0, 2, "rc") == 0 || tls.compare(0, 2, "dc") == 0;
}

#define OVER_EACH const std::string over = use(GENERATE(from_range(lanes())))

struct UcxRank : Rank {
    explicit UcxRank(uint32_t rank, uint32_t size = 2, uint8_t cookie = 7)
        : Rank(rank, size, cookie, ucx())
    {
    }
};

inline iso_status_t say(iso_endpoint_t *ep, const std::string &text)
{
    return ucx().send(ep, text.data(), text.size());
}

// Says it when there is room.
inline bool say_soon(Rank &rank, iso_endpoint_t *ep, const std::string &text)
{
    iso_status_t status = ISO_ERR_AGAIN;
    rank.until([&] { return (status = say(ep, text)) != ISO_ERR_AGAIN; });
    return status == ISO_OK;
}

// A put or flush that remembers how it ended.
struct Operation {
    iso_completion_t completion;
    bool ended = false;
    iso_status_t status = ISO_INPROGRESS;

    Operation() : completion{on_end}
    {
    }
    Operation(const Operation &) = delete;
    Operation &operator=(const Operation &) = delete;
    // For what a call returned.
    iso_status_t began(iso_status_t returned)
    {
        if (returned != ISO_INPROGRESS) {
            ended = true;
            status = returned;
        }
        return returned;
    }

  private:
    static void on_end(iso_completion_t *self, iso_status_t status)
    {
        auto *operation = reinterpret_cast<Operation *>(self);
        operation->ended = true;
        operation->status = status;
    }
};

// Rank 1 in a child, with memory that this process sees as well; it does what puts and messages need.
inline int serve(Channel &parent, const Memory &target)
{
    UcxRank rank(1);
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    const iso_memory_t all = target.all();
    char bytes[ISO_TRANSPORT_RKEY_MAX];
    size_t len = sizeof bytes;
    CHILD_REQUIRE(rank.opened == ISO_OK);
    CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
    CHILD_REQUIRE(ucx().mem_register(rank.tp, &all, &region) == ISO_OK);
    CHILD_REQUIRE(ucx().rkey_pack(region, bytes, &len) == ISO_OK);
    parent.put(std::string(bytes, len));
    CHILD_REQUIRE(rank.until([&] { return parent.waiting(); }, 60));
    ucx().mem_deregister(region);
    ucx().disconnect(ep);
    return 0;
}

// Rank 0 here, which puts to rank 1.
struct Near {
    explicit Near(Child &child) : rank(0), source(4 << 20)
    {
        const iso_memory_t all = source.all();
        std::mt19937_64 random(1);
        for (size_t i = 0; i < source.size; i += 8) {
            const uint64_t word = random();
            memcpy(source.bytes + i, &word, sizeof word);
        }
        REQUIRE(rank.opened == ISO_OK);
        address = child.channel.get();
        child.channel.put(rank.address());
        REQUIRE(rank.connect(1, address, &ep) == ISO_OK);
        REQUIRE(ucx().mem_register(rank.tp, &all, &region) == ISO_OK);
        blob = child.channel.get();
        REQUIRE(ucx().rkey_unpack(ep, blob.data(), blob.size(), &rkey) == ISO_OK);
    }
    ~Near()
    {
        ucx().rkey_destroy(rkey);
        ucx().disconnect(ep);
        ucx().mem_deregister(region);
    }
    Near(const Near &) = delete;
    Near &operator=(const Near &) = delete;
    iso_status_t put(size_t from, size_t len, const unsigned char *to, Operation &operation)
    {
        return operation.began(ucx().put(ep, source.bytes + from, len, region,
                                         reinterpret_cast<uintptr_t>(to), rkey,
                                         &operation.completion));
    }
    iso_status_t flush(Operation &operation)
    {
        return operation.began(ucx().flush(ep, &operation.completion));
    }
    UcxRank rank;
    Memory source;
    std::string address, blob;
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    iso_rkey_t *rkey = nullptr;
};

#endif
