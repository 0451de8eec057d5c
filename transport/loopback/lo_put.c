/*
 * lo_put.c - puts: bytes written into a peer's memory object while the peer does nothing. (Into memory
 * without one: lo_vm.c.)
 *
 * There are two ways to write a page, and each page has its own history (lo_window_t::heat):
 *
 *   pwrite() to the object     for the first PUTS_BEFORE_MAP puts to a page. The kernel fills the
 *                              page without a page-table entry of ours, and a new page that is
 *                              written whole is not zeroed first.
 *   lo_copy() to an alias map  for pages that are put to again and again: no system call.
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
 * LO_WINDOWS, 16 GiB of addresses and at most 32 MiB of page tables, the least recently used going
 * first. Nothing is touched outside the range of a put: its target's memory does not grow by more.
 *
 * The owner may punch holes into its object at any time, which takes pages out of our tables as
 * well. Puts stay right but pay an exception a page. A copy that took suspiciously long makes the
 * next DOUBT_PUTS puts to its window ask the kernel (mincore) which pages are there; those that are
 * not start anew with pwrite.
 */
#include "loopback.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define PUTS_BEFORE_MAP 4
#define LO_PAGE_MAPPED 255 /* of lo_window_t::heat */
#define DOUBT_PUTS 16
#define TIMED_BYTES \
    16384 /* shorter puts would pay more for two looks at the clock than they save */
#define SLOW_NS_PER_PAGE 1000 /* a warm copy takes a quarter of it, an exception more */
#define SLOW_NS_EXTRA 4000

/* ---- windows --------------------------------------------------------------------------------- */

iso_status_t lo_windows_create(iso_transport_t *tp)
{
    tp->windows = calloc(LO_WINDOWS, sizeof *tp->windows); /* large: touched only where used */
    if (tp->windows == NULL) {
        lo_log(tp, ISO_LOG_ERROR, "no memory for the table of windows");
        return ISO_ERR_NO_MEMORY;
    }
    for (unsigned i = 0; i < LO_WINDOWS; i++) {
        tp->windows[i].older = i + 1 < LO_WINDOWS ? &tp->windows[i + 1] : NULL;
        tp->windows[i].newer = i > 0 ? &tp->windows[i - 1] : NULL;
    }
    tp->window_newest = &tp->windows[0];
    tp->window_oldest = &tp->windows[LO_WINDOWS - 1];
    return ISO_OK;
}

static lo_window_t **bucket_of(iso_transport_t *tp, const lo_file_t *file, uint64_t index)
{
    const uint64_t hash = (file->inode * 31 + file->rank + index) * 0x9e3779b97f4a7c15u;

    return &tp->buckets[hash >> 32 & (LO_WINDOW_BUCKETS - 1)];
}

static void unlink_window(iso_transport_t *tp, const lo_window_t *window)
{
    *(window->newer != NULL ? &window->newer->older : &tp->window_newest) = window->older;
    *(window->older != NULL ? &window->older->newer : &tp->window_oldest) = window->newer;
}

static void make_newest(iso_transport_t *tp, lo_window_t *window)
{
    if (tp->window_newest == window)
        return;
    unlink_window(tp, window);
    window->newer = NULL;
    window->older = tp->window_newest;
    window->older->newer = window;
    tp->window_newest = window;
}

static void make_oldest(iso_transport_t *tp, lo_window_t *window)
{
    if (tp->window_oldest == window)
        return;
    unlink_window(tp, window);
    window->older = NULL;
    window->newer = tp->window_oldest;
    window->newer->older = window;
    tp->window_oldest = window;
}

static void release_window(iso_transport_t *tp, lo_window_t *window)
{
    lo_window_t **link;

    if (window->file == NULL)
        return;
    link = bucket_of(tp, window->file, window->index);
    while (*link != window)
        link = &(*link)->next_in_bucket;
    *link = window->next_in_bucket;
    if (window->map != NULL)
        munmap(window->map, LO_WINDOW_BYTES);
    window->file = NULL;
    window->map = NULL;
    window->doubt = 0;
    memset(window->heat, 0, LO_WINDOW_BYTES / tp->page_size);
}

void lo_windows_drop(iso_transport_t *tp, const lo_file_t *file)
{
    for (unsigned i = 0; i < LO_WINDOWS; i++)
        if (tp->windows[i].file == file) {
            release_window(tp, &tp->windows[i]);
            make_oldest(tp, &tp->windows[i]);
        }
}

void lo_windows_free(iso_transport_t *tp)
{
    for (unsigned i = 0; i < LO_WINDOWS; i++)
        release_window(tp, &tp->windows[i]);
    free(tp->windows);
}

static lo_window_t *get_window(iso_transport_t *tp, lo_file_t *file, uint64_t index)
{
    lo_window_t **bucket = bucket_of(tp, file, index);
    lo_window_t *window = *bucket;

    while (window != NULL && (window->file != file || window->index != index))
        window = window->next_in_bucket;
    if (window == NULL) {
        window = tp->window_oldest;
        release_window(tp, window);
        window->file = file;
        window->index = index;
        window->next_in_bucket = *bucket;
        *bucket = window;
    }
    make_newest(tp, window);
    return window;
}

/* Gives the window its mapping. Not a failure if it cannot be had: pwrite needs none. */
static void map_window(iso_transport_t *tp, lo_window_t *window)
{
    /* It may reach beyond the end of the object: no put does. */
    void *map = mmap(NULL, LO_WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                     window->file->fd, (off_t)(window->index * LO_WINDOW_BYTES));

    if (map == MAP_FAILED) {
        tp->no_windows = true;
        lo_log(tp, ISO_LOG_INFO,
               "no addresses for a window of %" PRIu64 " bytes on a peer's memory (%s): further "
               "puts copy through the kernel, slower",
               LO_WINDOW_BYTES, strerror(errno));
        return;
    }
    madvise(map, LO_WINDOW_BYTES, MADV_DONTDUMP);
    window->map = map;
}

/* ---- the ways to write ----------------------------------------------------------------------- */

static iso_status_t write_through(iso_transport_t *tp, const lo_file_t *file, uint64_t offset,
                                  const unsigned char *src, size_t len)
{
    while (len > 0) {
        const ssize_t n = pwrite(file->fd, src, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            const int error = n < 0 ? errno : EIO;
            lo_log(tp, ISO_LOG_ERROR, "cannot put %zu bytes at offset %" PRIu64 " of rank %u: %s",
                   len, offset, file->rank, strerror(error));
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
static iso_status_t populate(iso_transport_t *tp, lo_window_t *window, size_t page, size_t count)
{
    void *start = window->map + page * tp->page_size;

    while (!tp->no_populate && madvise(start, count * tp->page_size, MADV_POPULATE_WRITE) != 0) {
        if (errno == EINVAL) {
            tp->no_populate = true;
            lo_log(tp, ISO_LOG_INFO,
                   "this kernel cannot populate pages (MADV_POPULATE_WRITE, Linux 5.14): the first "
                   "stores to a page cost an exception each");
        } else if (errno != EINTR && errno != EAGAIN) {
            const int error = errno;
            lo_log(tp, ISO_LOG_ERROR,
                   "no pages for a put of %zu bytes at offset %" PRIu64 " of rank %u: %s",
                   count * tp->page_size,
                   window->index * LO_WINDOW_BYTES + (uint64_t)page * tp->page_size,
                   window->file->rank, strerror(error));
            return error == ENOMEM ? ISO_ERR_NO_MEMORY : ISO_ERR_SYSTEM;
        }
    }
    memset(window->heat + page, LO_PAGE_MAPPED, count);
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
static void find_holes(iso_transport_t *tp, lo_window_t *window, size_t first, size_t end)
{
    unsigned char there[LO_MAX_PUT / LO_MIN_PAGE + 1];

    window->doubt--;
    if (mincore(window->map + first * tp->page_size, (end - first) * tp->page_size, there) != 0)
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

static way_t way_of(const iso_transport_t *tp, const lo_window_t *window, size_t page)
{
    if (window->heat[page] == LO_PAGE_MAPPED)
        return WAY_COPY;
    return window->heat[page] < PUTS_BEFORE_MAP || tp->no_windows ? WAY_WRITE : WAY_POPULATE;
}

/* Writes [at, at + len) of the window, whose pages [page, end) all go the same way. */
static iso_status_t put_run(iso_transport_t *tp, lo_window_t *window, way_t way, size_t page,
                            size_t end, const unsigned char *src, size_t at, size_t len)
{
    iso_status_t status = ISO_OK;

    if (way == WAY_POPULATE) {
        if (window->map == NULL)
            map_window(tp, window);
        if (window->map == NULL)
            way = WAY_WRITE;
        else
            status = populate(tp, window, page, end - page);
    }
    if (status != ISO_OK)
        return status;
    if (way != WAY_WRITE) {
        lo_copy(window->map + at, src, len);
        return ISO_OK;
    }
    for (; page < end; page++)
        if (window->heat[page] < PUTS_BEFORE_MAP)
            window->heat[page]++;
    return write_through(tp, window->file, window->index * LO_WINDOW_BYTES + at, src, len);
}

/* Writes [at, at + len) of the window, len > 0. */
static iso_status_t put_to_window(iso_transport_t *tp, lo_window_t *window, size_t at,
                                  const unsigned char *src, size_t len)
{
    const size_t first = at / tp->page_size, end = (at + len - 1) / tp->page_size + 1;
    const size_t stop = at + len;
    iso_status_t status = ISO_OK;

    if (window->doubt > 0 && window->map != NULL)
        find_holes(tp, window, first, end);
    for (size_t page = first; page < end && status == ISO_OK;) {
        const way_t way = way_of(tp, window, page);
        size_t next = page + 1;
        while (next < end && way_of(tp, window, next) == way)
            next++;
        const size_t run_stop = next < end ? next * tp->page_size : stop;
        const uint64_t started = way == WAY_COPY && run_stop - at >= TIMED_BYTES ? now_ns() : 0;
        status = put_run(tp, window, way, page, next, src, at, run_stop - at);
        if (started != 0 &&
            now_ns() - started > SLOW_NS_EXTRA + (run_stop - at) / LO_MIN_PAGE * SLOW_NS_PER_PAGE)
            window->doubt = DOUBT_PUTS;
        src += run_stop - at;
        at = run_stop;
        page = next;
    }
    return status;
}

static iso_status_t check_put(const iso_endpoint_t *ep, const void *src, size_t len,
                              const iso_region_t *region, uint64_t remote, const iso_rkey_t *rkey)
{
    return caller_check_put(ep->tp->host, LO_MAX_PUT, region != NULL ? &region->memory : NULL, src,
                            len, ep->peer->rank,
                            (caller_target_t){rkey->rank, rkey->address, rkey->length}, remote);
}

iso_status_t lo_put(iso_endpoint_t *ep, const void *src, size_t len, iso_region_t *region,
                    uint64_t remote, iso_rkey_t *rkey, iso_completion_t *completion)
{
    iso_transport_t *tp = ep->tp;
    const unsigned char *from = src;
    iso_status_t status;

    (void)completion; /* complete, at the peer too, on return */
    status = check_put(ep, src, len, region, remote, rkey);
    if (status == ISO_OK && ep->peer->state == LO_PEER_DEAD)
        status = ISO_ERR_PEER_DEAD;
    if (status != ISO_OK)
        return status;
    if (rkey->file == NULL)
        return lo_vm_put(ep, from, len, remote);
    for (uint64_t offset = rkey->offset + (remote - rkey->address); len > 0;) {
        lo_window_t *window = get_window(tp, rkey->file, offset / LO_WINDOW_BYTES);
        const size_t at = offset % LO_WINDOW_BYTES;
        const size_t part = len < LO_WINDOW_BYTES - at ? len : (size_t)(LO_WINDOW_BYTES - at);
        status = put_to_window(tp, window, at, from, part);
        if (status != ISO_OK)
            return status;
        from += part;
        offset += part;
        len -= part;
    }
    return ISO_OK;
}

iso_status_t lo_fence(iso_endpoint_t *ep)
{
    (void)ep;
    atomic_thread_fence(memory_order_seq_cst);
    return ISO_OK;
}

iso_status_t lo_flush(iso_endpoint_t *ep, iso_completion_t *completion)
{
    (void)completion;
    return lo_fence(ep);
}
