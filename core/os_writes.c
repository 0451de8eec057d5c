/*
 * os_writes.c - which pages are written to, as the kernel tells (Linux 6.7): userfaultfd protects pages against writing, a write takes
 * the protection away by itself and is not waited for (WP_ASYNC), and PAGEMAP_SCAN lists the pages that have none.
 *
 * Whatever the kernel knows nothing of counts as written: a page that was never protected, was given back, or was mapped anew.
 */
#include "core/os.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* of headers that are newer than those of many systems */
#define WP_ASYNC (UINT64_C(1) << 15)
#define WP_UNPOPULATED (UINT64_C(1) << 13)
#define USER_MODE_ONLY \
    1 /* which everybody may; a write of the kernel's own needs no handler either */
#define PAGE_WRITTEN (UINT64_C(1) << 1)
#define PAGE_PRESENT (UINT64_C(1) << 3)
#define PAGE_SWAPPED (UINT64_C(1) << 4) /* a protected page that was never touched, too */
#define SCAN_PROTECTS (UINT64_C(1) << 0)
#define SCAN_MUST_PROTECT (UINT64_C(1) << 1)

typedef struct region {
    uint64_t start, end, categories;
} region_t;

typedef struct scan {
    uint64_t size, flags;
    uint64_t start, end, walk_end;
    uint64_t regions, region_count, pages_most;
    uint64_t inverted, wanted, wanted_any, returned;
} scan_t;

#define SCAN _IOWR('f', 16, scan_t)

int iso_os_writes_open(void *base, size_t size, iso_os_writes_t *writes_p)
{
    struct uffdio_api api = {.api = UFFD_API, .features = WP_ASYNC | WP_UNPOPULATED};
    struct uffdio_register range = {.range = {(uintptr_t)base, size},
                                    .mode = UFFDIO_REGISTER_MODE_WP};
    scan_t scan = {.size = sizeof scan,
                   .start = (uintptr_t)base,
                   .end = (uintptr_t)base + iso_os_page_size(),
                   .wanted = PAGE_WRITTEN};
    iso_os_writes_t writes = {.pagemap = -1};
    writes.fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
    if (writes.fd < 0)
        return errno;
    writes.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (writes.pagemap < 0 || ioctl(writes.fd, UFFDIO_API, &api) != 0 ||
        ioctl(writes.pagemap, SCAN, &scan) < 0 || ioctl(writes.fd, UFFDIO_REGISTER, &range) != 0) {
        const int error = errno;
        iso_os_writes_close(&writes);
        return error;
    }
    *writes_p = writes;
    return 0;
}

void iso_os_writes_close(iso_os_writes_t *writes)
{
    if (writes->pagemap >= 0)
        close(writes->pagemap);
    if (writes->fd >= 0)
        close(writes->fd);
    writes->pagemap = writes->fd = -1;
}

static void set_bits(uint8_t *bits, size_t first, size_t count)
{
    for (size_t bit = first; bit < first + count; bit++)
        bits[bit / 8] |= (uint8_t)(1u << bit % 8);
}

/* The next regions that the scan asks for, of which something is left: *count_p of them. 0, or the errno. */
static int scan_on(const iso_os_writes_t *writes, scan_t *scan, int *count_p)
{
    int count;
    do
        count = ioctl(writes->pagemap, SCAN, scan);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return errno;
    scan->start = scan->walk_end;
    *count_p = count;
    return 0;
}

/* After all that has a page table is protected: what has none (2 MiB that were given back whole) counts as written. Linux lists it as
 * that, and protects it, since July 2026, and in stable series since; before that no scan does. Tested as older ones do it. */
static int take_holes(const iso_os_writes_t *writes, const void *address, size_t size,
                      uint8_t *bits, size_t first)
{
    const size_t page = iso_os_page_size();
    const uintptr_t begin = (uintptr_t)address;
    uint64_t seen = begin;
    region_t regions[256] = {{0}};
    scan_t scan = {.size = sizeof scan,
                   .start = begin,
                   .end = begin + size,
                   .regions = (uintptr_t)regions,
                   .region_count = sizeof regions / sizeof *regions,
                   .wanted_any = PAGE_PRESENT | PAGE_SWAPPED,
                   .returned = PAGE_PRESENT | PAGE_SWAPPED};
    for (int count = 0; scan.start < scan.end;) {
        const int error = scan_on(writes, &scan, &count);
        if (error)
            return error;
        for (int i = 0; i < count; seen = regions[i++].end)
            set_bits(bits, first + (size_t)(seen - begin) / page,
                     (size_t)(regions[i].start - seen) / page);
    }
    set_bits(bits, first + (size_t)(seen - begin) / page, (size_t)(begin + size - seen) / page);
    return 0;
}

int iso_os_writes_take(const iso_os_writes_t *writes, const void *address, size_t size,
                       uint8_t *bits, size_t first)
{
    const size_t page = iso_os_page_size();
    region_t regions[256] = {{0}};
    scan_t scan = {.size = sizeof scan,
                   .flags = SCAN_PROTECTS | SCAN_MUST_PROTECT,
                   .start = (uintptr_t)address,
                   .end = (uintptr_t)address + size,
                   .regions = (uintptr_t)regions,
                   .region_count = sizeof regions / sizeof *regions,
                   .wanted = PAGE_WRITTEN,
                   .returned = PAGE_WRITTEN};
    for (int count = 0; scan.start < scan.end;) {
        const int error = scan_on(writes, &scan, &count);
        if (error)
            return error;
        for (int i = 0; i < count; i++)
            set_bits(bits, first + (size_t)(regions[i].start - (uintptr_t)address) / page,
                     (size_t)(regions[i].end - regions[i].start) / page);
    }
    return take_holes(writes, address, size, bits, first);
}
