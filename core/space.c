/* space.c - see space.h. */
#include "core/space.h"
#include "core/quantity.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

/* Weak: set where the program was built with the sanitizer, whatever this library was built with. */
extern void __tsan_init(void) __attribute__((weak));

/* The end of user addresses, rounded up to a power of two: the process's first stack is at the top of them,
 * and what the kernel has put on it. The caller's own may be anywhere, such as a user-level thread's. */
static uint64_t address_top(void)
{
    uint64_t top = UINT64_C(1) << 36;
    while (top <= getauxval(AT_RANDOM))
        top <<= 1;
    return top;
}

/*
 * Where the base is, with 47 bits of addresses (x86_64; with 5-level paging the kernel stays below
 * that unless asked): 32 to 48 TiB. Position-independent programs and their brk heaps are at 85 to
 * 87 TiB, mmap and stacks near 128 TiB, non-PIE programs at 4 MiB, AddressSanitizer's shadow ends at
 * 17.6 TiB and its heap starts at 96 TiB. ThreadSanitizer allows mappings of its own ranges only:
 * the lowest, below 512 GiB, has room for a space of 64 GiB at 64 GiB. With fewer address bits
 * (aarch64 with 39 or 42) the same proportions serve: a quarter up, an eighth long.
 */
void iso_space_propose(const iso_params_t *params, uint64_t *base_p, uint64_t *size_p)
{
    uint64_t top = address_top(), base = top / 4, size = top / 8;
    if (__tsan_init) {
        base = UINT64_C(64) << 30;
        size = UINT64_C(64) << 30;
    }
    *base_p = params->space_base ? params->space_base : base;
    *size_p = params->space_size ? params->space_size : size;
}

iso_status_t iso_space_reserve(iso_space_t *space, const iso_logger_t *logger, uint64_t base,
                               uint64_t size)
{
    uint64_t limit = iso_os_address_limit(), top = address_top();
    if (size > limit) {
        iso_log(logger, ISO_LOG_ERROR,
                "an iso space of %s does not fit RLIMIT_AS, which leaves %s: raise it (ulimit -v "
                "unlimited) or set ISO_SPACE_SIZE to at most %" PRIu64 "M",
                ISO_SIZE(size), ISO_SIZE(limit), (limit / 2 & ~(uint64_t)ISO_SLOT_MASK) >> 20);
        return ISO_ERR_LIMIT;
    }
    if (base >= top) {
        iso_log(logger, ISO_LOG_ERROR,
                "ISO_SPACE_BASE=0x%" PRIx64 " is beyond this machine's user addresses (0x%" PRIx64
                "): leave it unset, or set it to less",
                base, top);
        return ISO_ERR_LIMIT;
    }
    if (size > top - base) {
        uint64_t most = top - base < top / 2 ? top - base : top / 2;
        iso_log(logger, ISO_LOG_ERROR,
                "an iso space of %s at 0x%" PRIx64 " ends beyond this machine's user "
                "addresses (0x%" PRIx64 "): set ISO_SPACE_SIZE to at most %" PRIu64 "M, or a lower "
                "ISO_SPACE_BASE",
                ISO_SIZE(size), base, top, most >> 20);
        return ISO_ERR_LIMIT;
    }
    int error = iso_os_reserve((void *)(uintptr_t)base, (size_t)size);
    if (error == EEXIST)
        return ISO_ERR_NO_SPACE;
    if (error) {
        iso_log(logger, ISO_LOG_ERROR,
                "cannot reserve %s of addresses at 0x%" PRIx64 ": %s; set "
                "ISO_SPACE_SIZE to less, or ISO_SPACE_BASE to another address",
                ISO_SIZE(size), base, strerror(error));
        return ISO_ERR_LIMIT;
    }
    space->base = (char *)(uintptr_t)base;
    space->size = size;
    space->fd = -1;
    return ISO_OK;
}

void iso_space_release(iso_space_t *space)
{
    if (space->base)
        iso_os_unmap(space->base, (size_t)space->size);
    if (space->fd >= 0)
        close(space->fd);
    memset(space, 0, sizeof *space);
    space->fd = -1;
}

void iso_space_explain(const iso_logger_t *logger, uint64_t base, uint64_t size)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    while (maps && fgets(line, sizeof line, maps)) {
        uint64_t start, end;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) != 2 || end <= base ||
            start >= base + size)
            continue;
        line[strcspn(line, "\n")] = 0;
        iso_log(logger, ISO_LOG_ERROR,
                "the iso space [0x%" PRIx64 ", 0x%" PRIx64 ") cannot be mapped, this is there: %s; "
                "set ISO_SPACE_BASE and ISO_SPACE_SIZE to a range that is free in every rank, or "
                "leave them unset",
                base, base + size, line);
        break;
    }
    if (maps)
        fclose(maps);
}

size_t iso_space_holes(uint64_t size, iso_os_hole_t holes[ISO_SPACE_HOLES])
{
    uint64_t low = UINT64_C(1) << 32; /* below are programs that are not position-independent */
    return iso_os_holes(low, address_top() / 16 * 15, size, UINT64_C(1) << 30, holes,
                        ISO_SPACE_HOLES);
}

static bool fits(uint64_t base, uint64_t size, const iso_os_hole_t *holes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (base >= holes[i].start && base + size <= holes[i].start + holes[i].size)
            return true;
    return false;
}

/* If there is a common base, then there is one at the start of some hole of some rank: slide any
 * common range down until it meets an edge. */
uint64_t iso_space_intersect(const iso_os_hole_t *holes, const uint32_t *counts, size_t stride,
                             size_t sets, uint64_t size)
{
    uint64_t best = 0;
    for (size_t s = 0; s < sets; s++) {
        for (uint32_t i = 0; i < counts[s]; i++) {
            uint64_t base = holes[s * stride + i].start;
            bool all = best == 0 || base < best;
            for (size_t t = 0; all && t < sets; t++)
                all = fits(base, size, &holes[t * stride], counts[t]);
            if (all)
                best = base;
        }
    }
    return best;
}

iso_status_t iso_space_map(iso_space_t *space, const iso_logger_t *logger, int fd, bool core_dump)
{
    void *mapped;
    int error = iso_os_memfd_map(fd, 0, (size_t)space->size, space->base, &mapped);
    if (error) {
        iso_log(logger, ISO_LOG_ERROR,
                "cannot map the iso space (%s at %p): %s; set ISO_SPACE_SIZE to less",
                ISO_SIZE(space->size), (void *)space->base, strerror(error));
        return ISO_ERR_LIMIT;
    }
    if (!core_dump)
        iso_os_no_dump(space->base, (size_t)space->size);
    space->fd = fd;
    return ISO_OK;
}

int iso_space_map_anon(iso_space_t *space, bool core_dump)
{
    int error = iso_os_anon_map(space->base, (size_t)space->size);
    if (!error && !core_dump)
        iso_os_no_dump(space->base, (size_t)space->size);
    return error;
}

bool iso_space_give_back(const iso_space_t *space, const iso_logger_t *logger, uint64_t offset,
                         uint64_t length)
{
    if (space->pinned) /* a device would go on writing to the pages that were */
        return false;
    bool anon = space->fd < 0;
    int error = anon ? iso_os_anon_discard(space->base + offset, (size_t)length)
                     : iso_os_memfd_punch(space->fd, offset, length);
    if (error)
        iso_log(logger, ISO_LOG_WARN, "cannot give pages back: %s: %s",
                anon ? "madvise(MADV_DONTNEED)" : "fallocate(FALLOC_FL_PUNCH_HOLE)",
                strerror(error));
    return !error;
}

uint64_t iso_space_first_page(const iso_space_t *space, uint64_t offset, uint64_t length)
{
    return space->fd < 0 ? iso_os_first_resident(space->base + offset, (size_t)length)
                         : iso_os_memfd_first_page(space->fd, offset, (size_t)length);
}
