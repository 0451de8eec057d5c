/*
 * windows.h - what is put into memory objects of peers on this host: by the kernel at first, and by stores into alias
 * mappings where it is put again and again. One-sided: nothing runs at the peer. Figures are explained in windows.c.
 *
 * Compiled into every module that wants it: a module needs nothing outside itself.
 */
#ifndef TRANSPORT_COMMON_WINDOWS_H
#define TRANSPORT_COMMON_WINDOWS_H

#include "transport/common/object.h"
#include <stdbool.h>

#define WINDOW_BYTES ((uint64_t)64 << 20)
#define WINDOWS 256
#define WINDOW_BUCKETS 512
#define WINDOW_MIN_PAGE 4096

/* One aligned piece of a peer's memory object. */
typedef struct window {
    object_t *object; /* NULL: not in use */
    uint64_t index;   /* offset / WINDOW_BYTES */
    struct window *next_in_bucket;
    struct window *newer, *older; /* windows.newest ... windows.oldest, all of them */
    unsigned char *map;           /* the alias mapping; NULL: nothing is warm yet */
    unsigned doubt;               /* puts that still look for holes the owner may have punched */
    /* Of each OS page: puts so far, or PAGE_MAPPED: in our page table, at least once. */
    uint8_t heat[WINDOW_BYTES / WINDOW_MIN_PAGE];
} window_t;

/* An instance's. */
typedef struct windows {
    const iso_transport_host_t *host;
    size_t page_size;
    bool no_populate, no_addresses; /* cannot be had here; said once */
    window_t *windows;              /* WINDOWS */
    window_t *buckets[WINDOW_BUCKETS];
    window_t *newest, *oldest;
} windows_t;

/* false: no memory. */
bool windows_open(windows_t *all, const iso_transport_host_t *host);
void windows_close(windows_t *all);
/* The object will be closed. */
void windows_drop(windows_t *all, const object_t *object);
/* Bytes [offset, offset + len) of the object, which has them: there when it returns, before what is stored later. */
iso_status_t windows_put(windows_t *all, object_t *object, uint64_t offset, const void *src,
                         size_t len);

#endif
