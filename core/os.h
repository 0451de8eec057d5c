/*
 * os.h - every call into the operating system that is not plain C: porting touches only this pair
 * of files. Constants that Debian's headers do not have yet are defined in os.c and detected at run
 * time.
 */
#ifndef ISO_CORE_OS_H
#define ISO_CORE_OS_H

#include <isomalloc/isomalloc.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of an OS page (4, 16 or 64 KiB). */
size_t iso_os_page_size(void);

/* Monotonic time in seconds. */
double iso_os_now(void);
/* The same clock, some milliseconds behind, but only a few loads. */
double iso_os_now_coarse(void);

/* len random bytes. */
iso_status_t iso_os_random(void *buf, size_t len);

/* Memory that reads as zero and costs nothing until touched; NULL when there is no room for the
 * addresses. For tables with a word per slot, of which few are ever used. */
void *iso_os_table_map(size_t bytes);
void iso_os_table_unmap(void *table, size_t bytes);

/* Takes the addresses [address, address+size) without memory, only if all are free. Returns 0 or
 * the errno: EEXIST when something is there. */
int iso_os_reserve(void *address, size_t size);

/* A sparse memory object of `size` bytes (close-on-exec, no name in any file system). 0 or errno. */
int iso_os_memfd_create(const char *name, uint64_t size, int *fd_p);
/* The memory object open as descriptor fd in process pid: a descriptor of our own. 0 or errno. */
int iso_os_memfd_open_of(int32_t pid, int fd, int *fd_p);

/* So many bytes of the pieces have been read or written: what is left of them. */
void iso_os_pieces_done(struct iovec **pieces_p, int *count_p, size_t bytes);
/* Maps a part of a file, copy-on-write, over a range of ours. Multiples of the page size. 0 or errno. */
int iso_os_file_map(void *fixed, size_t size, int fd, uint64_t offset);
/* Maps the object over a range that was reserved by us (fixed != NULL), or anywhere. 0 or errno. */
int iso_os_memfd_map(int fd, uint64_t offset, size_t size, void *fixed, void **address_p);
/* Makes a range that was reserved by us memory of this process alone, in small pages whatever the
 * system's setting is: a heap of a few blocks must not take 2 MiB. 0 or errno. */
int iso_os_anon_map(void *fixed, size_t size);
void iso_os_unmap(void *address, size_t size);
/* Keep the range out of core files. */
void iso_os_no_dump(void *address, size_t size);

/* Gives the pages of a range of the object back; they read as zero after. 0 or errno. */
int iso_os_memfd_punch(int fd, uint64_t offset, uint64_t size);
/* The next bytes of the object, at `from` or after it, that have pages: [*begin_p, *end_p). There are none: both are UINT64_MAX. To read those that
 * have none through a mapping would give them pages. */
void iso_os_memfd_data(int fd, uint64_t from, uint64_t *begin_p, uint64_t *end_p);

/* The same of anonymous memory. 0 or errno. */
int iso_os_anon_discard(void *address, size_t size);

/* Maps the pages of a range in one go where touching them would fault one by one. Best effort: does
 * nothing where the kernel (before 5.14) cannot. */
void iso_os_populate(void *address, size_t size);

/* Pages that fault when they are used, in this process only; contents stay on a memory object. install:
 * EINVAL where the kernel has no guards (before 6.13, for memory objects 6.15); remove: of any pages in
 * the range that have one. 0 or errno. */
int iso_os_guard_install(void *address, size_t size);
int iso_os_guard_remove(void *address, size_t size);
/* The same by protection, which splits a mapping. 0 or errno. */
int iso_os_protect(void *address, size_t size, bool usable);
int iso_os_protect_as(void *address, size_t size, int prot); /* as mprotect has it */

/* Bytes of a range that are in memory; 0 where that cannot be told. At most 2 MiB of it is looked at. */
size_t iso_os_resident(void *address, size_t size);
/* Where in the range its first page in memory is; `size`: there is none. 0 where the system cannot say. Of anonymous
 * memory by its address; of an object by its offset there, whoever of the object's users made the page. */
size_t iso_os_first_resident(void *address, size_t size);
size_t iso_os_memfd_first_page(int fd, uint64_t offset, size_t size);

/* Puts each 2 MiB of the range, whose contents stay, into a huge page. anon: as iso_os_anon_map made
 * it. 0 or errno: EINVAL where the kernel cannot, others where it has none now. */
int iso_os_huge_make(void *address, size_t size, bool anon);
/* Splits the huge page of anonymous memory that the range is a part of, so that giving the range back
 * frees its memory. Best effort. */
void iso_os_huge_split(void *address, size_t size);

/* Which pages of a range of anonymous memory are written to, by this process or by others through its mappings; not what a
 * device writes. take: sets the bit of each page (the first one's is number `first`) that was written to, given back or mapped
 * anew since it was taken last, or was never taken; from then on it is told again. EPERM: a part of it is not of
 * the range that was opened any more. Both: 0 or errno. */
typedef struct iso_os_writes {
    int fd, pagemap;
} iso_os_writes_t;
int iso_os_writes_open(void *base, size_t size, iso_os_writes_t *writes_p);
void iso_os_writes_close(iso_os_writes_t *writes);
int iso_os_writes_take(const iso_os_writes_t *writes, const void *address, size_t size,
                       uint8_t *bits, size_t first);

/* The disk may begin to write this part of a file, which would else wait for fsync. Best effort. */
void iso_os_write_back(int fd, uint64_t offset, uint64_t size);

/* The free ranges of this process's addresses that are at least min_size long after alignment to
 * `alignment`, inside [low, high): fills up to max, largest first; returns how many. */
typedef struct iso_os_hole {
    uint64_t start, size;
} iso_os_hole_t;
size_t iso_os_holes(uint64_t low, uint64_t high, uint64_t min_size, uint64_t alignment,
                    iso_os_hole_t *holes, size_t max);

/* Identifies the host as far as shared memory and process ids reach: equal for two processes iff
 * they share kernel, PID namespace and network namespace. */
uint64_t iso_os_host_key(void);

/* A descriptor that becomes readable when the process ends (even if nobody reaps it); *dead_p when
 * it has already. start is its start time as iso_os_start_time gave it there, 0: not checked. */
int iso_os_process_watch(int32_t pid, uint64_t start, int *fd_p, bool *dead_p);
uint64_t iso_os_start_time(int32_t pid);

/* Bytes of memory of this machine; that this process may lock or have pinned (UINT64_MAX: no limit); that it has
 * pinned, 0 where that cannot be told. */
uint64_t iso_os_memory(void);
uint64_t iso_os_lock_limit(void);
uint64_t iso_os_pinned(void);

/* Bytes that a file may have (ulimit -f); UINT64_MAX: any. To write beyond is no error, but SIGXFSZ: a process that ends without a word. */
uint64_t iso_os_file_limit(void);
/* Bytes of address space that this process may still map (RLIMIT_AS), UINT64_MAX when unlimited. */
uint64_t iso_os_address_limit(void);

#ifdef __cplusplus
}
#endif

#endif
