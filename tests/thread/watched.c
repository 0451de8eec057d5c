/*
 * watched.c - threads that stop in the depth of their calls, for Valgrind to watch: see valgrind.sh.
 *
 * watched right|below: without a mistake; or one of them reads what is below its stack pointer.
 */
#include <isomalloc/thread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static volatile char *kept; /* in a frame that has gone */

static __attribute__((noinline)) int deep(int n)
{
    volatile char room[1024];
    memset((char *)room, n, sizeof room);
    if (n == 0) {
        kept = room;
        iso_thread_yield();
    } else if (deep(n - 1) != n - 1) {
        return -1;
    }
    for (size_t i = 0; i < sizeof room; i++)
        if (room[i] != n)
            return -1;
    return n;
}

static void *work(void *arg)
{
    for (int i = 0; i < 3; i++)
        if (deep(100) != 100)
            return arg;
    return NULL;
}

static void *reads_below(void *arg)
{
    if (deep(100) != 100)
        return arg;
    iso_thread_yield();
    return *kept == 0 ? NULL : arg;
}

int main(int argc, char **argv)
{
    enum {
        COUNT = 4
    };
    iso_job_t *job;
    iso_heap_t *heap;
    iso_thread_t *threads[COUNT];
    const int below = argc > 1 && strcmp(argv[1], "below") == 0;
    if (iso_init(NULL, &job) != ISO_OK || iso_threads_open(job, NULL) != ISO_OK ||
        iso_heap_create(job, &heap) != ISO_OK)
        return 1;
    const int count = below ? 1 : COUNT;
    for (int i = 0; i < count; i++)
        if (iso_thread_create(heap, below ? reads_below : work, heap, NULL, &threads[i]) != ISO_OK)
            return 1;
    for (int i = 0; i < count; i++) {
        void *result;
        if (iso_thread_join(threads[i], &result) != ISO_OK || result)
            return 1;
    }
    if (iso_threads_close(job) != ISO_OK || iso_finalize(job) != ISO_OK)
        return 1;
    puts("ok");
    return 0;
}
