// The calls into the system whose effect a process can see in itself: the memory of a space.
#include "core/space.h"
#include "tests/unit/support.hpp"
#include <cstdio>
#include <cstring>
#include <sys/mman.h>

namespace {

const iso_logger_t quiet = {ISO_LOG_ERROR, 0};
constexpr uint64_t size = 64 << 20;

// KiB that /proc/self/smaps says of the mapping that has this address.
uint64_t smaps_value(const void *address, const char *key)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    char line[512];
    bool here = false;
    uint64_t value = 0;
    while (fgets(line, sizeof line, file) != nullptr) {
        unsigned long start, end, number;
        const auto at = reinterpret_cast<unsigned long>(address);
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            here = start <= at && at < end;
        else if (here && strncmp(line, key, strlen(key)) == 0 &&
                 sscanf(line + strlen(key), ": %lu", &number) == 1)
            value = number;
    }
    fclose(file);
    return value;
}

// A space of either kind, where no job is.
struct Space {
    explicit Space(bool anon)
    {
        iso_params_t params;
        uint64_t base, any;
        int fd = -1;
        REQUIRE(iso_params_init(&params) == ISO_OK);
        iso_space_propose(&params, &base, &any);
        REQUIRE(iso_space_reserve(&space, &quiet, base, size) == ISO_OK);
        if (anon) {
            REQUIRE(iso_space_map_anon(&space, false) == 0);
            return;
        }
        REQUIRE(iso_os_memfd_create("test", size, &fd) == 0);
        REQUIRE(iso_space_map(&space, &quiet, fd, false) == ISO_OK);
    }
    ~Space()
    {
        iso_space_release(&space);
    }
    Space(const Space &) = delete;
    Space &operator=(const Space &) = delete;
    iso_space_t space = {};
};

} // namespace

TEST_CASE("pages given back are the system's, and read as zero", "[os]")
{
    const bool anon = GENERATE(false, true);
    Space s(anon);
    memset(s.space.base, 7, 8 << 20);
    CHECK(smaps_value(s.space.base, "Rss") == 8 << 10);
    REQUIRE(iso_space_give_back(&s.space, &quiet, 1 << 20, 2 << 20));
    CHECK(smaps_value(s.space.base, "Rss") == 6 << 10);
    CHECK(s.space.base[(1 << 20) - 1] == 7);
    CHECK(s.space.base[1 << 20] == 0);
    CHECK(s.space.base[(3 << 20) - 1] == 0);
    CHECK(s.space.base[3 << 20] == 7);
}

TEST_CASE("pages that a transport has pinned are not given back", "[os]")
{
    const bool anon = GENERATE(false, true);
    Space s(anon);
    memset(s.space.base, 7, 1 << 20);
    s.space.pinned = true;
    CHECK_FALSE(iso_space_give_back(&s.space, &quiet, 0, 1 << 20));
    CHECK(s.space.base[0] == 7);
    CHECK(smaps_value(s.space.base, "Rss") == 1 << 10);
}

TEST_CASE("anonymous memory comes in small pages unless asked for", "[os]")
{
    Space s(true);
    s.space.base[0] = 1;
    s.space.base[3 << 20] = 1;
    CHECK(smaps_value(s.space.base, "Rss") == 2 * iso_os_page_size() >> 10);
}
