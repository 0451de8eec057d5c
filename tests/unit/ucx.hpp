// Ranks for the tests of what only the transport ucx has; see network.hpp.
#ifndef ISO_TESTS_UNIT_UCX_HPP
#define ISO_TESTS_UNIT_UCX_HPP

#include "tests/unit/network.hpp"

inline std::string use(const std::string &tls)
{
    use_network("ucx " + tls);
    return tls;
}

inline const iso_transport_ops_t &ucx()
{
    if (network().ops == nullptr)
        use("tcp,self");
    return net();
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

using UcxRank = NetRank;

#endif
