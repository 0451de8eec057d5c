// Ranks for the tests of network transports; see loopback.hpp, which has what is not of one transport.
// A child is forked before its parent opens an instance: neither UCX nor libfabric outlives a fork.
#ifndef ISO_TESTS_UNIT_NETWORK_HPP
#define ISO_TESTS_UNIT_NETWORK_HPP

#include "tests/unit/loopback.hpp"
#include <map>
#include <random>

// A transport and what it goes over: "ucx tcp,self", "ofi shm". The one in use is the one that use() named last.
struct Network {
    const iso_transport_ops_t *ops = nullptr;
    std::string over;
    bool one_sided() const
    {
        return over == "ofi shm" || is_rdma();
    }
    bool is_rdma() const // a device, in a guest whose processor is slow
    {
        return over.compare(0, 6, "ucx rc") == 0 || over.compare(0, 6, "ucx dc") == 0;
    }
};

inline Network &network()
{
    static Network in_use;
    return in_use;
}

inline const iso_transport_ops_t &net()
{
    return *network().ops;
}

// Opens the module before anything is forked: parent and child run the same.
inline std::string use_network(const std::string &over)
{
    static std::map<std::string, const iso_transport_ops_t *> opened;
    static std::string provider; // what host.provider points to
    const std::string transport = over.substr(0, 3), way = over.substr(4);
    if (opened.find(transport) == opened.end())
        opened[transport] =
            open_module((ISO_TEST_MODULE_DIR "/libisomalloc-" + transport + ".so").c_str());
    if (transport == "ucx")
        setenv("UCX_TLS", way.c_str(), 1);
    provider = way;
    provider_in_use() = provider.c_str();
    network() = {opened[transport], over};
    return over;
}

// All that every machine has; or ISO_TEST_UCX_TLS (rc_v,self where there is an RDMA device).
inline std::vector<std::string> networks()
{
    std::vector<std::string> all;
    const char *given = getenv("ISO_TEST_UCX_TLS");
    if (given != nullptr)
        return {std::string("ucx ") + given};
#if ISO_TEST_UCX
    for (const char *way : {"tcp,self", "posix,cma,self", "sysv,cma,self"})
        all.push_back(std::string("ucx ") + way);
#endif
#if ISO_TEST_OFI
    for (const char *way : {"tcp", "shm"})
        all.push_back(std::string("ofi ") + way);
#endif
    return all;
}

#define OVER_EACH_NETWORK const std::string over = use_network(GENERATE(from_range(networks())))

struct NetRank : Rank {
    explicit NetRank(uint32_t rank, uint32_t size = 2, uint8_t cookie = 7)
        : Rank(rank, size, cookie, net())
    {
    }
};

inline iso_status_t say(iso_endpoint_t *ep, const std::string &text)
{
    return net().send(ep, text.data(), text.size());
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

// Rank 1 in a child: connected to rank 0, with registered memory that this process sees as well.
struct Far {
    // false: said why, as CHILD_REQUIRE does
    bool meets(Channel &parent, const Memory &target)
    {
        return offers(parent, target) == 0;
    }
    NetRank rank{1};
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    std::string key; // packed, for the parent

  private:
    int offers(Channel &parent, const Memory &target)
    {
        const iso_memory_t all = target.all();
        char bytes[ISO_TRANSPORT_RKEY_MAX];
        size_t len = sizeof bytes;
        CHILD_REQUIRE(rank.opened == ISO_OK);
        CHILD_REQUIRE(meet(rank, parent, 0, &ep) == ISO_OK);
        CHILD_REQUIRE(net().mem_register(rank.tp, &all, &region) == ISO_OK);
        CHILD_REQUIRE(net().rkey_pack(region, bytes, &len) == ISO_OK);
        key.assign(bytes, len);
        return 0;
    }
};

// In a child: does what puts and messages of rank 0 need.
inline int serve(Channel &parent, const Memory &target)
{
    Far far;
    CHILD_REQUIRE(far.meets(parent, target));
    parent.put(far.key);
    CHILD_REQUIRE(far.rank.until([&] { return parent.waiting(); }, 60));
    net().mem_deregister(far.region);
    net().disconnect(far.ep);
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
        REQUIRE(net().mem_register(rank.tp, &all, &region) == ISO_OK);
        blob = child.channel.get();
        REQUIRE(net().rkey_unpack(ep, blob.data(), blob.size(), &rkey) == ISO_OK);
    }
    ~Near()
    {
        net().rkey_destroy(rkey);
        net().disconnect(ep);
        net().mem_deregister(region);
    }
    Near(const Near &) = delete;
    Near &operator=(const Near &) = delete;
    iso_status_t put(size_t from, size_t len, const unsigned char *to, Operation &operation)
    {
        return operation.began(net().put(ep, source.bytes + from, len, region,
                                         reinterpret_cast<uintptr_t>(to), rkey,
                                         &operation.completion));
    }
    iso_status_t flush(Operation &operation)
    {
        return operation.began(net().flush(ep, &operation.completion));
    }
    NetRank rank;
    Memory source;
    std::string address, blob;
    iso_endpoint_t *ep = nullptr;
    iso_region_t *region = nullptr;
    iso_rkey_t *rkey = nullptr;
};

#endif
