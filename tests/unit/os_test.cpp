// The calls into the system whose effect a process can see in itself: the memory of a space.
#include "core/space.h"
#include "tests/unit/support.hpp"
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

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

// Of the page at this address: 1 or 0; -1: not to be known (it takes root).
int is_part_of_huge_page(const void *address)
{
    constexpr uint64_t present = 1ull << 63, frame_mask = (1ull << 55) - 1, huge = 1ull << 22;
    uint64_t entry = 0, flags = 0;
    const auto index = reinterpret_cast<uintptr_t>(address) / iso_os_page_size();
    const int pages = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    const int all = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
    const bool known =
        pread(pages, &entry, sizeof entry, static_cast<off_t>(index * 8)) == sizeof entry &&
        (entry & present) != 0 && (entry & frame_mask) != 0 &&
        pread(all, &flags, sizeof flags, static_cast<off_t>((entry & frame_mask) * 8)) ==
            sizeof flags;
    close(pages);
    close(all);
    return known ? static_cast<int>((flags & huge) != 0) : -1;
}

// Are there huge pages here? The kernel may lack them, or have none free: then nothing is to be seen.
bool made(void *slots, size_t length, bool anon)
{
    const int error = iso_os_huge_make(slots, length, anon);
    if (error != 0)
        WARN("madvise(MADV_COLLAPSE): " << strerror(error) << ": not tested");
    return error == 0;
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

TEST_CASE("a slot becomes a huge page with its contents, and no mapping is split for good", "[os]")
{
    const bool anon = GENERATE(false, true);
    Space s(anon);
    char *slots = s.space.base + 8 * ISO_SLOT_SIZE;
    memset(slots + 5000, 7, 5000);
    CHECK(iso_os_resident(slots, ISO_SLOT_SIZE) == 2 * iso_os_page_size());
    if (!made(slots, 4 * ISO_SLOT_SIZE, anon))
        return;
    CHECK(iso_os_resident(slots, ISO_SLOT_SIZE) == ISO_SLOT_SIZE);
    CHECK(smaps_value(s.space.base, anon ? "AnonHugePages" : "ShmemPmdMapped") == 4 * 2048);
    CHECK(slots[4999] == 0);
    CHECK(slots[5000] == 7);
    CHECK(slots[9999] == 7);
    CHECK(slots[10000] == 0);
    memset(slots, 1, 4 * ISO_SLOT_SIZE);
    CHECK(smaps_value(s.space.base, "Size") == size >> 10); // all of the space, one mapping
    slots[8 * ISO_SLOT_SIZE] = 1;                           // what comes later is small again
    CHECK(iso_os_resident(slots + 8 * ISO_SLOT_SIZE, ISO_SLOT_SIZE) == iso_os_page_size());
}

TEST_CASE("a part of a huge page that is given back is free, and the rest stays", "[os]")
{
    const bool anon = GENERATE(false, true);
    Space s(anon);
    char *slot = s.space.base;
    if (!made(slot, ISO_SLOT_SIZE, anon))
        return;
    memset(slot, 7, ISO_SLOT_SIZE);
    const size_t kept = 64 << 10, length = ISO_SLOT_SIZE - 2 * kept;
    CHECK(is_part_of_huge_page(slot) != 0);
    if (anon)
        iso_os_huge_split(slot + kept, length);
    REQUIRE(iso_space_give_back(&s.space, &quiet, kept, length));
    if (anon) /* of an object, what stays has to be mapped anew */
        CHECK(smaps_value(slot, "Rss") == 2 * kept >> 10);
    CHECK(is_part_of_huge_page(slot) != 1); // or none of its memory would be free
    if (!anon) {
        struct stat st;
        REQUIRE(fstat(s.space.fd, &st) == 0);
        CHECK(static_cast<size_t>(st.st_blocks) * 512 == 2 * kept);
    }
    CHECK(slot[kept - 1] == 7);
    CHECK(slot[kept] == 0);
    CHECK(slot[kept + length - 1] == 0);
    CHECK(slot[kept + length] == 7);
}

TEST_CASE("anonymous memory comes in small pages unless asked for", "[os]")
{
    Space s(true);
    s.space.base[0] = 1;
    s.space.base[3 << 20] = 1;
    CHECK(smaps_value(s.space.base, "Rss") == 2 * iso_os_page_size() >> 10);
}
