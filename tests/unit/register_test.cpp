// Which policy of registration is chosen, and what is said of it.
#include "core/register.h"
#include "support.hpp"
#include <catch2/catch.hpp>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

uint64_t own_pinned = 0; // of the transport

std::string describe(const iso_params_t &params, bool pins, uint64_t space, bool on_demand = false)
{
    iso_transport_caps_t caps{};
    caps.own_pinned = own_pinned;
    char text[192];
    caps.pins_memory = pins;
    caps.on_demand = on_demand;
    iso_register_describe(&params, &caps, space, text, sizeof text);
    return text;
}

constexpr uint64_t mib = 1 << 20, huge = uint64_t(16) << 40;

// Of a user without privileges. Not more than anybody may lock by default (8 MiB): a hard limit stays.
void limit_locked(uint64_t bytes)
{
    const rlimit limit = {bytes, bytes};
    setrlimit(RLIMIT_MEMLOCK, &limit);
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
    syscall(SYS_capset, &header, data);
}

// Output of a child that may lock so much.
std::string described_with(uint64_t limit, const iso_params_t &params, uint64_t space)
{
    return in_child([&] {
               limit_locked(limit);
               const std::string text = describe(params, true, space);
               return write(2, text.data(), text.size()) > 0 ? 0 : 1;
           })
        .stderr_text;
}

} // namespace

TEST_CASE("what nothing pins is registered as a whole", "[register]")
{
    iso_params_t params{};
    CHECK(describe(params, false, huge) == "space: nothing is pinned by that");
    params.pin_limit = 64 * mib;
    CHECK(describe(params, false, huge) == "space: nothing is pinned by that");
}

TEST_CASE("a device that pins gets windows unless all of the space fits", "[register]")
{
    iso_params_t params{};
    params.pin_limit = 64 * mib;
    CHECK(contains(describe(params, true, 64 * mib), "space: all of it, 64 MiB, fits"));
    const std::string text = describe(params, true, 66 * mib);
    CHECK(contains(text, "window: at most 64 MiB at a time (ISO_PIN_LIMIT)"));
    CHECK(contains(text, "all of the space, 66 MiB, would be pinned"));
    params.pin_limit = 0;
    CHECK(contains(describe(params, true, huge), "window: at most"));
}

TEST_CASE("the limit on locked memory bounds what is registered", "[register]")
{
    iso_params_t params{};
    CHECK(contains(described_with(8 * mib, params, huge),
                   "window: at most 6 MiB at a time (ulimit -l)"));
    CHECK(contains(described_with(8 * mib, params, 6 * mib), "space: all of it"));
    params.pin_limit = 256 * mib; // which the system does not let be
    CHECK(contains(described_with(8 * mib, params, huge), "at most 6 MiB at a time (ulimit -l)"));
    params.pin_limit = 4 * mib;
    CHECK(
        contains(described_with(8 * mib, params, huge), "at most 4 MiB at a time (ISO_PIN_LIMIT)"));
    params.pin_limit = 0;
    const std::string none = described_with(1 * mib, params, huge);
    CHECK(contains(none, "none: ulimit -l allows 0.8 MiB"));
    CHECK(contains(none, "4 MiB are the least: raise it to 5462 (KiB) or more"));
    CHECK(contains(described_with(5462 << 10, params, huge), "window: at most 4 MiB at a time"));
}

TEST_CASE("what a transport pins for itself, later on, is not registered", "[register]")
{
    iso_params_t params{};
    own_pinned = 3 * mib;
    CHECK(contains(described_with(8 * mib, params, huge),
                   "window: at most 5 MiB at a time (ulimit -l)"));
    CHECK(contains(described_with(8 * mib, params, 5 * mib), "space: all of it"));
    CHECK(contains(described_with(7 * mib, params, huge),
                   "window: at most 4 MiB at a time (ulimit -l)"));
    const std::string none = described_with(6 * mib, params, huge);
    CHECK(contains(none, "none: ulimit -l allows 3.0 MiB"));
    CHECK(contains(none, "4 MiB are the least: raise it to 7168 (KiB) or more"));
    own_pinned = 9 * mib; // all of the limit, and more
    CHECK(contains(described_with(8 * mib, params, huge), "none: ulimit -l allows 0.0 MiB"));
    own_pinned = 0;
}

TEST_CASE("a policy that cannot be is refused with what to set", "[register]")
{
    iso_params_t params{};
    params.registration = ISO_REGISTER_ODP;
    CHECK(contains(describe(params, true, huge), "none: ISO_REGISTER=odp: no device here"));
    CHECK(contains(describe(params, false, huge), "set ISO_REGISTER=auto"));
    CHECK(describe(params, false, huge, true) == "odp: as ISO_REGISTER says");
    params.registration = ISO_REGISTER_SPACE;
    params.pin_limit = 64 * mib;
    CHECK(contains(describe(params, true, huge), "none: ISO_REGISTER=space pins 16777216 MiB"));
    CHECK(contains(describe(params, false, huge), "space: as ISO_REGISTER says"));
    params.registration = ISO_REGISTER_WINDOW;
    CHECK(contains(describe(params, false, huge), "window: at most 64 MiB"));
    params.pin_limit = 3 * mib;
    CHECK(contains(describe(params, false, huge), "none: ISO_PIN_LIMIT allows 3.0 MiB"));
}
