/* os.c - Linux. See os.h. */
#include "core/os.h"
#include "core/atomic.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13, for memory objects 6.15 */
#define MADV_GUARD_REMOVE 103
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#ifndef MADV_COLD
#define MADV_COLD 20 /* Linux 5.4 */
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434 /* Linux 5.3 */
#endif

#define LEAST_PAGE 4096 /* of any machine */

size_t iso_os_page_size(void)
{
    static ISO_ATOMIC(size_t) known; /* the same for ever; each look at a stack asks */
    size_t size = atomic_load_explicit(&known, memory_order_relaxed);
    if (size == 0) {
        size = (size_t)sysconf(_SC_PAGESIZE);
        atomic_store_explicit(&known, size, memory_order_relaxed);
    }
    return size;
}

double iso_os_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double iso_os_now_coarse(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

iso_status_t iso_os_random(void *buf, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = getrandom((char *)buf + done, len - done, 0);
        if (n < 0 && errno != EINTR)
            return ISO_ERR_SYSTEM;
        done += n > 0 ? (size_t)n : 0;
    }
    return ISO_OK;
}

void *iso_os_table_map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void iso_os_table_unmap(void *table, size_t bytes)
{
    if (table)
        munmap(table, bytes);
}

int iso_os_reserve(void *address, size_t size)
{
    void *p = mmap(address, size, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (p == MAP_FAILED)
        return errno;
    if (p != address) { /* a kernel before 4.17 takes the address for a hint */
        munmap(p, size);
        return EEXIST;
    }
    return 0;
}

int iso_os_memfd_create(const char *name, uint64_t size, int *fd_p)
{
    if (size > iso_os_file_limit())
        return EFBIG;
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0)
        return errno;
    if (ftruncate(fd, (off_t)size) != 0) {
        int error = errno;
        close(fd);
        return error;
    }
    *fd_p = fd;
    return 0;
}

int iso_os_memfd_open_of(int32_t pid, int fd, int *fd_p)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%" PRId32 "/fd/%d", pid, fd);
    int opened = open(path, O_RDWR | O_CLOEXEC);
    if (opened < 0)
        return errno;
    *fd_p = opened;
    return 0;
}

int iso_os_memfd_map(int fd, uint64_t offset, size_t size, void *fixed, void **address_p)
{
    void *p = mmap(fixed, size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_NORESERVE | (fixed ? MAP_FIXED : 0), fd, (off_t)offset);
    if (p == MAP_FAILED)
        return errno;
    *address_p = p;
    return 0;
}

void iso_os_pieces_done(struct iovec **pieces_p, int *count_p, size_t bytes)
{
    for (; *count_p > 0 && bytes >= (*pieces_p)->iov_len; (*pieces_p)++, (*count_p)--)
        bytes -= (*pieces_p)->iov_len;
    if (*count_p > 0) {
        (*pieces_p)->iov_base = (char *)(*pieces_p)->iov_base + bytes;
        (*pieces_p)->iov_len -= bytes;
    }
}

int iso_os_file_map(void *fixed, size_t size, int fd, uint64_t offset)
{
    void *p = mmap(fixed, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd,
                   (off_t)offset);
    return p == MAP_FAILED ? errno : 0;
}

int iso_os_anon_map(void *fixed, size_t size)
{
    void *p = mmap(fixed, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (p == MAP_FAILED)
        return errno;
    madvise(fixed, size, MADV_NOHUGEPAGE); /* a kernel without huge pages says EINVAL: fine */
    /* Parts of a mapping that has had a page have its anon_vma in common and can be merged again,
     * whatever happens while it is split (iso_os_huge_make); others may each get one of their own. */
    *(volatile char *)p = 0;
    madvise(p, iso_os_page_size(), MADV_DONTNEED);
    return 0;
}

void iso_os_unmap(void *address, size_t size)
{
    munmap(address, size);
}

void iso_os_no_dump(void *address, size_t size)
{
    madvise(address, size, MADV_DONTDUMP);
}

int iso_os_memfd_punch(int fd, uint64_t offset, uint64_t size)
{
    while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size))
        if (errno != EINTR)
            return errno;
    return 0;
}

void iso_os_memfd_data(int fd, uint64_t from, uint64_t *begin_p, uint64_t *end_p)
{
    const off_t begin = lseek(fd, (off_t)from, SEEK_DATA);
    const bool none = begin < 0 && errno == ENXIO;
    const off_t end = begin >= 0 ? lseek(fd, begin, SEEK_HOLE) : -1;
    *begin_p = none ? UINT64_MAX : begin >= 0 ? (uint64_t)begin : from; /* not known: it has */
    *end_p = end >= 0 ? (uint64_t)end : UINT64_MAX;
}

int iso_os_anon_discard(void *address, size_t size)
{
    while (madvise(address, size, MADV_DONTNEED) != 0)
        if (errno != EINTR && errno != EAGAIN)
            return errno;
    return 0;
}

void iso_os_populate(void *address, size_t size)
{
    size_t page = iso_os_page_size();
    uintptr_t first = (uintptr_t)address & ~(page - 1);
    uintptr_t end = ((uintptr_t)address + size + page - 1) & ~(page - 1);
    int saved = errno; /* EINVAL on kernels without it: touches fault one by one as ever */
    madvise((void *)first, end - first, MADV_POPULATE_WRITE);
    errno = saved;
}

static int advise(void *address, size_t size, int advice)
{
    int saved = errno, error = 0;
    while (madvise(address, size, advice) != 0) {
        error = errno;
        if (error != EINTR && error != EAGAIN)
            break;
        error = 0;
    }
    errno = saved;
    return error;
}

void iso_os_write_back(int fd, uint64_t offset, uint64_t size)
{
    sync_file_range(fd, (off_t)offset, (off_t)size, SYNC_FILE_RANGE_WRITE);
}

int iso_os_guard_install(void *address, size_t size)
{
    return advise(address, size, MADV_GUARD_INSTALL);
}

int iso_os_guard_remove(void *address, size_t size)
{
    return advise(address, size, MADV_GUARD_REMOVE);
}

int iso_os_protect_as(void *address, size_t size, int protection)
{
    int saved = errno;
    int error = mprotect(address, size, protection) ? errno : 0;
    errno = saved;
    return error;
}

int iso_os_protect(void *address, size_t size, bool usable)
{
    return iso_os_protect_as(address, size, usable ? PROT_READ | PROT_WRITE : PROT_NONE);
}

size_t iso_os_resident(void *address, size_t size)
{
    unsigned char there[ISO_SLOT_SIZE / LEAST_PAGE];
    size_t page = iso_os_page_size(), count = size / page, resident = 0;
    if (count > sizeof there)
        count = sizeof there;
    if (mincore(address, count * page, there) != 0)
        return 0;
    for (size_t i = 0; i < count; i++)
        resident += there[i] & 1;
    return resident * page;
}

size_t iso_os_first_resident(void *address, size_t size)
{
    unsigned char there[ISO_SLOT_SIZE / LEAST_PAGE];
    size_t page = iso_os_page_size();
    for (size_t at = 0, part; at < size; at += part) {
        part = size - at < sizeof there * page ? size - at : sizeof there * page;
        if (mincore((char *)address + at, part, there) != 0)
            return at;
        for (size_t i = 0; i < part / page; i++)
            if (there[i] & 1)
                return at + i * page;
    }
    return size;
}

size_t iso_os_memfd_first_page(int fd, uint64_t offset, size_t size)
{
    int saved = errno;
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    bool none = data < 0 && errno == ENXIO;
    errno = saved;
    if (none || (data >= 0 && (uint64_t)data - offset >= size))
        return size;
    return data < 0 ? 0 : (size_t)((uint64_t)data - offset);
}

int iso_os_huge_make(void *address, size_t size, bool anon)
{
    /* The range stands apart from its mapping for as long as this takes, and is merged again. */
    if (anon && madvise(address, size, MADV_HUGEPAGE) != 0)
        return errno;
    /* One page of each must be there; a read would show the zero page. A peer may be writing to it, so that
     * nothing is written from here. */
    for (size_t at = 0; at < size; at += ISO_SLOT_SIZE)
        iso_os_populate((char *)address + at, 1);
    int error = madvise(address, size, MADV_COLLAPSE) == 0 ? 0 : errno;
    if (anon)
        madvise(address, size, MADV_NOHUGEPAGE);
    return error;
}

void iso_os_huge_split(void *address, size_t size)
{
    madvise(address, size, MADV_COLD); /* Linux 5.4; a part of a huge page cannot be cold alone */
}

static void hole_offer(uint64_t start, uint64_t end, uint64_t min_size, uint64_t alignment,
                       iso_os_hole_t *holes, size_t max, size_t *count)
{
    start = (start + alignment - 1) / alignment * alignment;
    end = end / alignment * alignment;
    if (start >= end || end - start < min_size)
        return;
    iso_os_hole_t hole = {start, end - start};
    size_t at = *count;
    while (at > 0 && holes[at - 1].size < hole.size)
        at--;
    if (at >= max)
        return;
    size_t last = *count < max ? (*count)++ : max - 1;
    memmove(&holes[at + 1], &holes[at], (last - at) * sizeof *holes);
    holes[at] = hole;
}

size_t iso_os_holes(uint64_t low, uint64_t high, uint64_t min_size, uint64_t alignment,
                    iso_os_hole_t *holes, size_t max)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps)
        return 0;
    char line[512];
    uint64_t at = low;
    size_t count = 0;
    while (fgets(line, sizeof line, maps)) {
        uint64_t start, end;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) != 2)
            continue; /* the rest of a line with a long path */
        if (start > at)
            hole_offer(at, start < high ? start : high, min_size, alignment, holes, max, &count);
        if (end > at)
            at = end;
        if (at >= high)
            break;
    }
    if (at < high)
        hole_offer(at, high, min_size, alignment, holes, max, &count);
    fclose(maps);
    return count;
}

static uint64_t mix(uint64_t hash, const void *data, size_t len)
{
    for (size_t i = 0; i < len; i++) /* FNV-1a */
        hash = (hash ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
    return hash;
}

uint64_t iso_os_host_key(void)
{
    uint64_t hash = 0xcbf29ce484222325u;
    char boot_id[64] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = read(fd, boot_id, sizeof boot_id);
        hash = mix(hash, boot_id, n > 0 ? (size_t)n : 0);
        close(fd);
    }
    static const char *const namespaces[] = {"/proc/self/ns/pid", "/proc/self/ns/net"};
    for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++) {
        struct stat st;
        if (stat(namespaces[i], &st) == 0)
            hash = mix(hash, &st.st_ino, sizeof st.st_ino);
    }
    return hash;
}

uint64_t iso_os_start_time(int32_t pid)
{
    char path[64], text[1024];
    /* of its first thread, which began with it: qemu's user mode makes a process's own stat up */
    snprintf(path, sizeof path, "/proc/%" PRId32 "/task/%" PRId32 "/stat", pid, pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    char *field = strrchr(text, ')'); /* the name may hold anything; field 3 follows it */
    for (int i = 2; field && i < 22; i++)
        field = strchr(field + 1, ' ');
    return field ? strtoull(field + 1, NULL, 10) : 0;
}

static bool has_ended(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, 0) > 0 && (p.revents & POLLIN);
}

int iso_os_process_watch(int32_t pid, uint64_t start, int *fd_p, bool *dead_p)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0 && errno != ESRCH)
        return errno;
    if (fd < 0 || (start && iso_os_start_time(pid) != start)) {
        if (fd >= 0)
            close(fd);
        *dead_p = true;
        *fd_p = -1;
        return 0;
    }
    *dead_p = has_ended(fd);
    *fd_p = fd;
    return 0;
}

uint64_t iso_os_file_limit(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY ? limit.rlim_cur
                                                                                   : UINT64_MAX;
}

uint64_t iso_os_address_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    uint64_t used_pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm) {
        if (fscanf(statm, "%" SCNu64, &used_pages) != 1)
            used_pages = 0;
        fclose(statm);
    }
    uint64_t used = used_pages * iso_os_page_size();
    return used < limit.rlim_cur ? limit.rlim_cur - used : 0;
}

uint64_t iso_os_memory(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * iso_os_page_size();
}

/* A number of /proc/self/status. */
static bool read_status(const char *name, int base, uint64_t *value_p)
{
    FILE *status = fopen("/proc/self/status", "re");
    char line[256];
    bool found = false;
    while (status && !found && fgets(line, sizeof line, status))
        found = strncmp(line, name, strlen(name)) == 0;
    if (found)
        *value_p = strtoull(line + strlen(name), NULL, base);
    if (status)
        fclose(status);
    return found;
}

uint64_t iso_os_lock_limit(void)
{
    struct rlimit limit;
    uint64_t capabilities = 0;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    if (read_status("CapEff:", 16, &capabilities) && capabilities >> CAP_IPC_LOCK & 1)
        return UINT64_MAX;
    return limit.rlim_cur;
}

uint64_t iso_os_pinned(void)
{
    uint64_t kib = 0;
    return read_status("VmPin:", 10, &kib) ? kib << 10 : 0;
}
