/*
 * windows.c - bytes written into a peer's memory object while the peer does nothing.
 *
 * There are two ways to write a page, and each page has its own history (window_t::heat):
 *
 *   pwrite() to the object     for the first PUTS_BEFORE_MAP puts to a page. The kernel fills the
 *                              page without a page-table entry of ours, and a new page that is
 *                              written whole is not zeroed first.
 *   copy_to_peer() to an alias map for pages that are put to again and again: no system call.
 *
 * Measured where a page exception costs 10 us and a system call 1 us (virtual machine, 4 KiB pages,
 * GB/s by size of a put):          4 KiB   64 KiB   1 MiB
 *   new page: plain stores          0.35     0.33     0.35
 *             populate + memcpy     0.4      1.1      1.3
 *             pwrite                1.1      3.2      3.2
 *   resident, not mapped here:
 *             populate + memcpy     0.5      1.5      1.8
 *             pwrite                2.1      6.4      7.5
 *   mapped:   memcpy               16       15       17
 * So a first put is 2 to 3 times faster by pwrite, and mapping a page pays after some 4 puts to it.
 *
 * An object may be 16 TiB long, so that it is aliased in windows, of which an instance keeps
 * WINDOWS, 16 GiB of addresses and at most 32 MiB of page tables, the least recently used going
 * first. Nothing is touched outside the range of a put: its target's memory does not grow by more.
 *
 * The owner may punch holes into its object at any time, which takes pages out of our tables as
 * well. Puts stay right but pay an exception a page. A copy that took suspiciously long makes the
 * next DOUBT_PUTS puts to its window ask the kernel (mincore) which pages are there; those that are
 * not start anew with pwrite.
 */
#include "transport/common/windows.h"
#include "transport/common/caller.h"
#include "transport/common/copy.h"
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define PUTS_BEFORE_MAP 4
#define PAGE_MAPPED 255 /* of window_t::heat */
#define DOUBT_PUTS 16
#define STEP ((size_t)1 << 20) /* most bytes that are looked at, timed and copied at once */
#define TIMED_BYTES \
    16384 /* shorter puts would pay more for two looks at the clock than they save */
#define SLOW_NS_PER_PAGE 1000 /* a warm copy takes a quarter of it, an exception more */
#define SLOW_NS_EXTRA 4000

/* ---- windows --------------------------------------------------------------------------------- */

bool windows_open(windows_t *all, const iso_transport_host_t *host)
{
    *all = (windows_t){.host = host, .page_size = (size_t)sysconf(_SC_PAGESIZE)};
    all->windows = calloc(WINDOWS, sizeof *all->windows); /* large: touched only where used */
    if (all->windows == NULL)
        return false;
    for (unsigned i = 0; i < WINDOWS; i++) {
        all->windows[i].older = i + 1 < WINDOWS ? &all->windows[i + 1] : NULL;
        all->windows[i].newer = i > 0 ? &all->windows[i - 1] : NULL;
    }
    all->newest = &all->windows[0];
    all->oldest = &all->windows[WINDOWS - 1];
    return true;
}

static window_t **bucket_of(windows_t *all, const object_t *object, uint64_t index)
{
    const uint64_t hash = (object->inode * 31 + object->rank + index) * 0x9e3779b97f4a7c15u;

    return &all->buckets[hash >> 32 & (WINDOW_BUCKETS - 1)];
}

static void unlink_window(windows_t *all, const window_t *window)
{
    *(window->newer != NULL ? &window->newer->older : &all->newest) = window->older;
    *(window->older != NULL ? &window->older->newer : &all->oldest) = window->newer;
}

static void make_newest(windows_t *all, window_t *window)
{
    if (all->newest == window)
        return;
    unlink_window(all, window);
    window->newer = NULL;
    window->older = all->newest;
    window->older->newer = window;
    all->newest = window;
}

static void make_oldest(windows_t *all, window_t *window)
{
    if (all->oldest == window)
        return;
    unlink_window(all, window);
    window->older = NULL;
    window->newer = all->oldest;
    window->newer->older = window;
    all->oldest = window;
}

static void release_window(windows_t *all, window_t *window)
{
    window_t **link;

    if (window->object == NULL)
        return;
    link = bucket_of(all, window->object, window->index);
    while (*link != window)
        link = &(*link)->next_in_bucket;
    *link = window->next_in_bucket;
    if (window->map != NULL)
        munmap(window->map, WINDOW_BYTES);
    window->object = NULL;
    window->map = NULL;
    window->doubt = 0;
    memset(window->heat, 0, WINDOW_BYTES / all->page_size);
}

void windows_drop(windows_t *all, const object_t *object)
{
    for (unsigned i = 0; i < WINDOWS; i++)
        if (all->windows[i].object == object) {
            release_window(all, &all->windows[i]);
            make_oldest(all, &all->windows[i]);
        }
}

void windows_close(windows_t *all)
{
    for (unsigned i = 0; i < WINDOWS; i++)
        release_window(all, &all->windows[i]);
    free(all->windows);
}

static window_t *get_window(windows_t *all, object_t *object, uint64_t index)
{
    window_t **bucket = bucket_of(all, object, index);
    window_t *window = *bucket;

    while (window != NULL && (window->object != object || window->index != index))
        window = window->next_in_bucket;
    if (window == NULL) {
        window = all->oldest;
        release_window(all, window);
        window->object = object;
        window->index = index;
        window->next_in_bucket = *bucket;
        *bucket = window;
    }
    make_newest(all, window);
    return window;
}

/* Gives the window its mapping. Not a failure if it cannot be had: pwrite needs none. */
static void map_window(windows_t *all, window_t *window)
{
    /* It may reach beyond the end of the object: no put does. */
    void *map = mmap(NULL, WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                     window->object->fd, (off_t)(window->index * WINDOW_BYTES));

    if (map == MAP_FAILED) {
        all->no_addresses = true;
        caller_log(all->host, ISO_LOG_INFO,
                   "no addresses for a window of %" PRIu64
                   " bytes on a peer's memory (%s): further "
                   "puts copy through the kernel, slower",
                   WINDOW_BYTES, strerror(errno));
        return;
    }
    madvise(map, WINDOW_BYTES, MADV_DONTDUMP);
    window->map = map;
}

/* ---- the ways to write ----------------------------------------------------------------------- */

static iso_status_t write_through(windows_t *all, const object_t *object, uint64_t offset,
                                  const unsigned char *src, size_t len)
{
    while (len > 0) {
        const ssize_t n = pwrite(object->fd, src, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            const int error = n < 0 ? errno : EIO;
            caller_log(all->host, ISO_LOG_ERROR,
                       "cannot put %zu bytes at offset %" PRIu64 " of rank %u: %s", len, offset,
                       object->rank, strerror(error));
            return error == ENOMEM || error == ENOSPC ? ISO_ERR_NO_MEMORY : ISO_ERR_SYSTEM;
        }
        src += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return ISO_OK;
}

/* Brings pages of the window into our page table, so that the copy after it meets no exception, and
 * an object that has no memory for them fails here, not with a signal. */
static iso_status_t populate(windows_t *all, window_t *window, size_t page, size_t count)
{
    void *start = window->map + page * all->page_size;

    while (!all->no_populate && madvise(start, count * all->page_size, MADV_POPULATE_WRITE) != 0) {
        if (errno == EINVAL) {
            all->no_populate = true;
            caller_log(
                all->host, ISO_LOG_INFO,
                "this kernel cannot populate pages (MADV_POPULATE_WRITE, Linux 5.14): the first "
                "stores to a page cost an exception each");
        } else if (errno != EINTR && errno != EAGAIN) {
            const int error = errno;
            caller_log(all->host, ISO_LOG_ERROR,
                       "no pages for a put of %zu bytes at offset %" PRIu64 " of rank %u: %s",
                       count * all->page_size,
                       window->index * WINDOW_BYTES + (uint64_t)page * all->page_size,
                       window->object->rank, strerror(error));
            return error == ENOMEM ? ISO_ERR_NO_MEMORY : ISO_ERR_SYSTEM;
        }
    }
    memset(window->heat + page, PAGE_MAPPED, count);
    return ISO_OK;
}

/* ---- holes ----------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Forgets the heat of pages [first, end) that the owner has punched out. */
static void find_holes(windows_t *all, window_t *window, size_t first, size_t end)
{
    unsigned char there[STEP / WINDOW_MIN_PAGE + 1];

    window->doubt--;
    if (mincore(window->map + first * all->page_size, (end - first) * all->page_size, there) != 0)
        return; /* a hint is lost, nothing else */
    for (size_t page = first; page < end; page++)
        if ((there[page - first] & 1) == 0) {
            window->heat[page] = 0;
            window->doubt = DOUBT_PUTS;
        }
}

/* ---- put ------------------------------------------------------------------------------------- */

typedef enum way {
    WAY_WRITE,
    WAY_POPULATE,
    WAY_COPY
} way_t;

static way_t way_of(const windows_t *all, const window_t *window, size_t page)
{
    if (window->heat[page] == PAGE_MAPPED)
        return WAY_COPY;
    return window->heat[page] < PUTS_BEFORE_MAP || all->no_addresses ? WAY_WRITE : WAY_POPULATE;
}

/* Writes [at, at + len) of the window, whose pages [page, end) all go the same way. */
static iso_status_t put_run(windows_t *all, window_t *window, way_t way, size_t page, size_t end,
                            const unsigned char *src, size_t at, size_t len)
{
    iso_status_t status = ISO_OK;

    if (way == WAY_POPULATE) {
        if (window->map == NULL)
            map_window(all, window);
        if (window->map == NULL)
            way = WAY_WRITE;
        else
            status = populate(all, window, page, end - page);
    }
    if (status != ISO_OK)
        return status;
    if (way != WAY_WRITE) {
        copy_to_peer(window->map + at, src, len);
        return ISO_OK;
    }
    for (; page < end; page++)
        if (window->heat[page] < PUTS_BEFORE_MAP)
            window->heat[page]++;
    return write_through(all, window->object, window->index * WINDOW_BYTES + at, src, len);
}

/* Writes [at, at + len) of the window, len > 0. */
static iso_status_t put_to_window(windows_t *all, window_t *window, size_t at,
                                  const unsigned char *src, size_t len)
{
    const size_t first = at / all->page_size, end = (at + len - 1) / all->page_size + 1;
    const size_t stop = at + len;
    iso_status_t status = ISO_OK;

    if (window->doubt > 0 && window->map != NULL)
        find_holes(all, window, first, end);
    for (size_t page = first; page < end && status == ISO_OK;) {
        const way_t way = way_of(all, window, page);
        size_t next = page + 1;
        while (next < end && way_of(all, window, next) == way)
            next++;
        const size_t run_stop = next < end ? next * all->page_size : stop;
        const uint64_t started = way == WAY_COPY && run_stop - at >= TIMED_BYTES ? now_ns() : 0;
        status = put_run(all, window, way, page, next, src, at, run_stop - at);
        if (started != 0 && now_ns() - started > SLOW_NS_EXTRA + (run_stop - at) / WINDOW_MIN_PAGE *
                                                                     SLOW_NS_PER_PAGE)
            window->doubt = DOUBT_PUTS;
        src += run_stop - at;
        at = run_stop;
        page = next;
    }
    return status;
}

iso_status_t windows_put(windows_t *all, object_t *object, uint64_t offset, const void *src,
                         size_t len)
{
    const unsigned char *from = src;

    while (len > 0) {
        window_t *window = get_window(all, object, offset / WINDOW_BYTES);
        const size_t at = offset % WINDOW_BYTES, room = (size_t)WINDOW_BYTES - at;
        const size_t step = room < STEP ? room : STEP, part = len < step ? len : step;
        const iso_status_t status = put_to_window(all, window, at, from, part);
        if (status != ISO_OK)
            return status;
        from += part;
        offset += part;
        len -= part;
    }
    atomic_thread_fence(memory_order_seq_cst); /* a message that follows comes after it */
    return ISO_OK;
}
