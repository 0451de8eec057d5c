// What the tests of own puts of the UCX transport share: lanes that have them, and the way from a rank to another.
#ifndef ISO_TESTS_UNIT_UCX_OWN_HPP
#define ISO_TESTS_UNIT_UCX_OWN_HPP

#include "tests/unit/ucx.hpp"

// Lanes that have own puts.
inline std::vector<std::string> own_lanes()
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

#endif
