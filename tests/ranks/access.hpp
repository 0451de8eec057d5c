// What this process may do with a page, by what the kernel says, without a fault.
#ifndef ISO_TESTS_ACCESS_HPP
#define ISO_TESTS_ACCESS_HPP

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <string>

// As /proc/self/maps has it, "rwx" with '-' for what is not; "": nothing is mapped there.
inline std::string access_to(const void *address)
{
    const auto at = reinterpret_cast<uintptr_t>(address);
    std::string found;
    FILE *maps = std::fopen("/proc/self/maps", "re");
    char line[512];
    while (maps != nullptr && std::fgets(line, sizeof line, maps) != nullptr) {
        uintptr_t start = 0, end = 0;
        char flags[5] = "";
        if (std::sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &start, &end, flags) == 3 &&
            at >= start && at < end)
            found = std::string(flags, 3);
    }
    if (maps != nullptr)
        std::fclose(maps);
    return found;
}

#endif
