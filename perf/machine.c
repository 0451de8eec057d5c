/*
 * machine.c - reads /proc, /sys and the resource limits; see machine.h. A file that is not there (a
 * container hides it, the kernel lacks it) is shown as "unknown" and gives no advice.
 */
#include "machine.h"
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#define SHMEM_HUGE "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define ANON_HUGE "/sys/kernel/mm/transparent_hugepage/enabled"
#define OVERCOMMIT "/proc/sys/vm/overcommit_memory"
#define MAP_COUNT "/proc/sys/vm/max_map_count"
#define YAMA "/proc/sys/kernel/yama/ptrace_scope"

#define CAP_IPC_LOCK_BIT 14 /* lifts RLIMIT_MEMLOCK */
#define SMALL_MEMLOCK (UINT64_C(1) << 30)
#define SMALL_NOFILE 1024
#define DEFAULT_MAP_COUNT 65530

const char *machine_bytes_text(uint64_t bytes, char *buf)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    double value = (double)bytes;

    while (value >= 1024) {
        value /= 1024;
        unit++;
    }
    snprintf(buf, MACHINE_BYTES_TEXT, "%.4g %s", value, units[unit]);
    return buf;
}

/* The first line of a file; false when it cannot be read. */
static bool read_line(const char *path, char *line, size_t len)
{
    FILE *file = fopen(path, "re");
    bool read = false;

    if (file != NULL) {
        read = fgets(line, (int)len, file) != NULL;
        fclose(file);
    }
    if (read)
        line[strcspn(line, "\n")] = '\0';
    return read;
}

static const char *line_or_unknown(const char *path, char *line, size_t len)
{
    return read_line(path, line, len) ? line : "unknown";
}

/* Of "always [madvise] never" the choice in brackets. */
static const char *choice_or_unknown(const char *path, char *buf, size_t len)
{
    char *open, *close;

    if (!read_line(path, buf, len))
        return "unknown";
    open = strchr(buf, '[');
    close = open != NULL ? strchr(open, ']') : NULL;
    if (close == NULL)
        return "unknown";
    *close = '\0';
    return open + 1;
}

/* The number after "key:" in a file like /proc/meminfo. */
static bool read_value(const char *path, const char *key, int base, uint64_t *value_p)
{
    FILE *file = fopen(path, "re");
    char line[256];
    bool found = false;

    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        found = strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':';
        if (found)
            *value_p = strtoull(line + strlen(key) + 1, NULL, base);
    }
    if (file != NULL)
        fclose(file);
    return found;
}

static uint64_t limit_of(int resource) /* the soft one; RLIM_INFINITY: none */
{
    struct rlimit limit;

    return getrlimit(resource, &limit) == 0 ? limit.rlim_cur : RLIM_INFINITY;
}

static const char *limit_text(int resource, char *buf)
{
    const uint64_t limit = limit_of(resource);

    return limit == RLIM_INFINITY ? "unlimited" : machine_bytes_text(limit, buf);
}

static const char *memory_text(const char *key, char *buf)
{
    uint64_t kib;

    return read_value("/proc/meminfo", key, 10, &kib) ? machine_bytes_text(kib << 10, buf)
                                                      : "unknown";
}

static bool locks_without_limit(void)
{
    uint64_t capabilities;

    return limit_of(RLIMIT_MEMLOCK) == RLIM_INFINITY ||
           (read_value("/proc/self/status", "CapEff", 16, &capabilities) &&
            (capabilities >> CAP_IPC_LOCK_BIT & 1) != 0);
}

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

/* Does the kernel make 2 MiB of new memory, anonymous or of a memory object, a huge page on request? */
static bool makes_huge_page(bool anonymous)
{
    const size_t huge = (size_t)2 << 20;
    const int fd = anonymous ? -1 : memfd_create("iso_info", MFD_CLOEXEC);
    bool made = false;

    if (anonymous || (fd >= 0 && ftruncate(fd, (off_t)(2 * huge)) == 0)) {
        void *map = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE,
                         anonymous ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
        if (map != MAP_FAILED && anonymous) {
            char *start = (char *)map + (huge - (uintptr_t)map % huge);
            *start = 1;
            made = madvise(start, huge, MADV_COLLAPSE) == 0;
        } else if (map != MAP_FAILED) { /* aligned as its offset is */
            char *start = (char *)map + (huge - (uintptr_t)map % huge) % huge;
            if (mmap(start, huge, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == start) {
                *start = 1;
                made = madvise(start, huge, MADV_COLLAPSE) == 0;
            }
        }
        if (map != MAP_FAILED)
            munmap(map, 2 * huge);
    }
    if (fd >= 0)
        close(fd);
    return made;
}

/* May a process write to its own memory as ranks write to each other's? 0, or errno. What only tells ranks apart (users, Yama)
 * this does not see. */
static int forbids_writes(void)
{
    char here = 1, there = 0;
    const struct iovec from = {.iov_base = &here, .iov_len = 1},
                       to = {.iov_base = &there, .iov_len = 1};

    return process_vm_writev(getpid(), &from, 1, &to, 1, 0) == 1 ? 0 : errno;
}

void machine_print(void)
{
    char buf[256], buf2[256];
    struct utsname kernel;

    printf("machine\n");
    if (uname(&kernel) == 0)
        printf("  kernel            %s %s %s\n", kernel.sysname, kernel.release, kernel.machine);
    printf("  processors        %ld online\n", sysconf(_SC_NPROCESSORS_ONLN));
    printf("  page size         %s\n", machine_bytes_text((uint64_t)sysconf(_SC_PAGESIZE), buf));
    printf("  huge pages        anonymous memory %s, ",
           choice_or_unknown(ANON_HUGE, buf, sizeof buf));
    printf("shared memory %s (shmem_enabled)\n", choice_or_unknown(SHMEM_HUGE, buf, sizeof buf));
    printf(
        "                    on request (MADV_COLLAPSE): anonymous memory %s, shared memory %s\n",
        makes_huge_page(true) ? "yes" : "no", makes_huge_page(false) ? "yes" : "no");
    printf("  memory            %s, available %s\n", memory_text("MemTotal", buf),
           memory_text("MemAvailable", buf2));
    printf("  address space     %s (RLIMIT_AS)\n", limit_text(RLIMIT_AS, buf));
    printf("  locked memory     %s (RLIMIT_MEMLOCK)%s\n", limit_text(RLIMIT_MEMLOCK, buf),
           locks_without_limit() && limit_of(RLIMIT_MEMLOCK) != RLIM_INFINITY
               ? ", lifted by CAP_IPC_LOCK"
               : "");
    if (limit_of(RLIMIT_NOFILE) == RLIM_INFINITY)
        printf("  open files        unlimited (RLIMIT_NOFILE)\n");
    else
        printf("  open files        %" PRIu64 " (RLIMIT_NOFILE)\n", limit_of(RLIMIT_NOFILE));
    printf("  overcommit        %s (vm.overcommit_memory)\n",
           line_or_unknown(OVERCOMMIT, buf, sizeof buf));
    printf("  mappings          %s (vm.max_map_count)\n",
           line_or_unknown(MAP_COUNT, buf, sizeof buf));
    printf("  ASLR              %s (kernel.randomize_va_space)\n",
           line_or_unknown("/proc/sys/kernel/randomize_va_space", buf, sizeof buf));
    if (read_line(YAMA, buf, sizeof buf))
        printf("  ptrace            %s (kernel.yama.ptrace_scope)\n", buf);
    printf("\n");
}

void machine_advise(void)
{
    char buf[256];
    const char *huge = choice_or_unknown(SHMEM_HUGE, buf, sizeof buf);

    if ((strcmp(huge, "never") == 0 || strcmp(huge, "advise") == 0 || strcmp(huge, "deny") == 0) &&
        !makes_huge_page(false))
        printf(
            "advice: shmem_enabled is '%s' and the kernel makes no huge pages on request: the iso "
            "space gets none, and first touches of it are slow; as root: echo within_size "
            "> " SHMEM_HUGE "\n",
            huge);
    if (!locks_without_limit() && limit_of(RLIMIT_MEMLOCK) < SMALL_MEMLOCK)
        printf("advice: only %s can be locked: transports that pin memory (InfiniBand) will not "
               "register much; raise it with 'ulimit -l' or in /etc/security/limits.conf\n",
               limit_text(RLIMIT_MEMLOCK, buf));
    if (limit_of(RLIMIT_AS) != RLIM_INFINITY)
        printf("advice: the address space is limited to %s: the iso space must fit; use "
               "'ulimit -v unlimited' or set ISO_SPACE_SIZE\n",
               limit_text(RLIMIT_AS, buf));
    if (limit_of(RLIMIT_NOFILE) < SMALL_NOFILE)
        printf("advice: only %" PRIu64 " files can be open: connections to many ranks need more; "
               "raise it with 'ulimit -n'\n",
               limit_of(RLIMIT_NOFILE));
    if (read_line(YAMA, buf, sizeof buf) && strtoull(buf, NULL, 10) > 1)
        printf("advice: kernel.yama.ptrace_scope is %s: ranks of one host cannot write to each "
               "other's "
               "anonymous memory, and use ISO_BACKING=private instead of anon; as root: sysctl "
               "kernel.yama.ptrace_scope=1\n",
               buf);
    const int forbidden = forbids_writes();
    if (forbidden != 0)
        printf("advice: process_vm_writev is refused (%s): ranks of one host cannot write to each "
               "other's anonymous memory, and use ISO_BACKING=private instead of anon; in a "
               "container allow the call (seccomp)\n",
               strerror(forbidden));
    if (read_line(OVERCOMMIT, buf, sizeof buf) && strcmp(buf, "2") == 0)
        printf("advice: vm.overcommit_memory is 2: memory is refused beyond a commit limit of %s, "
               "also where much is free; as root: sysctl vm.overcommit_memory=0\n",
               memory_text("CommitLimit", buf));
    if (read_line(MAP_COUNT, buf, sizeof buf) && strtoull(buf, NULL, 10) < DEFAULT_MAP_COUNT)
        printf("advice: vm.max_map_count is %s, less than the usual %d; as root: sysctl "
               "vm.max_map_count=%d\n",
               buf, DEFAULT_MAP_COUNT, DEFAULT_MAP_COUNT);
}
