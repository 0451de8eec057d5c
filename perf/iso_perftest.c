/*
 * iso_perftest.c - figures of migrations between two ranks, each beside its yardstick in one run.
 *
 * Ranks 0 and 1 pass a heap back and forth. The machine's speed drifts, so a migration and the memcpy of
 * the same number of bytes between warm memfd mappings take turns, and the median of their ratios
 * is printed. Cold (a rank's first time) and warm are reported apart.
 */
#include <getopt.h>
#include <isomalloc/isomalloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MOST 1000

static const char usage[] =
    "usage: iso_run -n 2 iso_perftest [-t TEST] [-s BYTES] [-n ITERATIONS]\n"
    "  -t migrate_bw  bandwidth of a heap of BYTES there and back, against memcpy (default)\n"
    "  -t migrate_lat the same, time only: of the smallest heap unless -s says otherwise\n"
    "  -t visit       what looking at the heap costs on the first visit to a rank and later\n"
    "  -s BYTES       size of the heap's one block (default 64 MiB; migrate_lat: 16)\n"
    "  -n ITERATIONS  warm iterations, 1 to 1000 (default 21)\n"
    "  -h             this help\n"
    "ISO_BACKING=private ISO_NODE_SIZE=1 measures puts, ISO_BACKING=shared handing over.\n";

static iso_job_t *job;
static iso_heap_t *here;
static double arrived;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check(iso_status_t status, const char *what)
{
    if (status == ISO_OK)
        return;
    fprintf(stderr, "iso_perftest: %s: %s\n", what, iso_status_string(status));
    exit(1);
}

static void on_arrival(iso_job_t *of, const iso_arrival_t *arrival, void *arg)
{
    (void)of;
    (void)arg;
    arrived = now();
    here = arrival->heap;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, by_value);
    return values[count / 2];
}

/* The yardstick: both sides are shared mappings of memory objects, and warm. */
static void *memfd_map(size_t size)
{
    int fd = memfd_create("iso_perftest", MFD_CLOEXEC);
    void *map = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)size) == 0)
        map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        perror("iso_perftest: memory for the yardstick");
        exit(1);
    }
    memset(map, 1, size);
    return map;
}

/* One way. The receiver waits in iso_progress, as a rank does that expects work; its clock is this
 * one's. Returns seconds from the call of iso_migrate to the arrival callback, at the receiver. */
static double pass(uint32_t from, double *source_seconds_p)
{
    double start = 0;
    if (iso_rank(job) == from) {
        iso_request_t *request;
        start = now();
        check(iso_migrate(here, 1 - from, &start, sizeof start, &request), "iso_migrate");
        here = NULL;
        iso_status_t status;
        while ((status = iso_test(request)) == ISO_INPROGRESS)
            ;
        check(status, "iso_test");
        *source_seconds_p = now() - start;
        return 0;
    }
    while (!here)
        iso_progress(job);
    return arrived;
}

static volatile unsigned char sink;

static double look(size_t size)
{
    const volatile unsigned char *bytes = iso_heap_root(here);
    double start = now();
    for (size_t i = 0; i < size; i += 4096)
        sink += bytes[i];
    return now() - start;
}

/* There and back, as rank 0 sees it, halved. looks not NULL: each rank looks at all of the heap, and
 * the time is not that of the migrations any more. */
static double round_trip(double *looks, size_t size)
{
    double seconds = 0, start = now();
    if (iso_rank(job) == 0) {
        pass(0, &seconds);
        pass(1, &seconds);
        double half = (now() - start) / 2;
        if (looks)
            looks[0] = look(size);
        return half;
    }
    pass(0, &seconds);
    if (looks)
        looks[1] = look(size);
    pass(1, &seconds);
    return 0;
}

int main(int argc, char **argv)
{
    const char *test = "migrate_bw";
    size_t size = 0;
    unsigned iterations = 21;
    for (int c; (c = getopt(argc, argv, "t:s:n:h")) != -1;) {
        if (c == 't') {
            test = optarg;
        } else if (c == 's') {
            size = strtoull(optarg, NULL, 0);
        } else if (c == 'n') {
            iterations = (unsigned)strtoul(optarg, NULL, 0);
        } else {
            fputs(usage, c == 'h' ? stdout : stderr);
            return c == 'h' ? 0 : 2;
        }
    }
    bool bandwidth = strcmp(test, "migrate_bw") == 0, visit = strcmp(test, "visit") == 0;
    bool latency = strcmp(test, "migrate_lat") == 0;
    if (!(bandwidth || visit || latency) || iterations < 1 || iterations > MOST) {
        fprintf(stderr, "iso_perftest: -t %s -n %u: no such test or number\n%s", test, iterations,
                usage);
        return 2;
    }
    if (size == 0)
        size = latency ? 16 : (size_t)64 << 20;
    check(iso_init(NULL, &job), "iso_init");
    if (iso_size(job) != 2) {
        fprintf(stderr, "iso_perftest: %u ranks; start it with iso_run -n 2\n", iso_size(job));
        return 2;
    }
    iso_set_arrival(job, on_arrival, NULL);
    bool first = iso_rank(job) == 0;
    void *from = first && bandwidth ? memfd_map(size) : NULL;
    void *to = first && bandwidth ? memfd_map(size) : NULL;
    if (first) {
        check(iso_heap_create(job, &here), "iso_heap_create");
        void *block = iso_malloc(here, size);
        if (!block)
            check(ISO_ERR_NO_SPACE, "iso_malloc");
        memset(block, 1, size);
        iso_heap_set_root(here, block);
    }
    double times[MOST], copies[MOST], ratios[MOST], later[MOST], cold[2] = {0, 0},
                                                                 looks[2] = {0, 0};
    check(iso_barrier(job), "iso_barrier");
    double cold_time = round_trip(visit ? cold : NULL, size);
    for (int i = 0; i < 3; i++)
        round_trip(visit ? looks : NULL, size);
    for (unsigned i = 0; i < iterations; i++) {
        double start = now();
        if (from)
            memcpy(to, from, size);
        copies[i] = now() - start;
        times[i] = round_trip(visit ? looks : NULL, size);
        later[i] = visit ? looks[first ? 0 : 1] : 0;
        ratios[i] = copies[i] / times[i];
    }
    check(iso_barrier(job), "iso_barrier");
    double pages = (double)(size + 4095) / 4096;
    if (first && !visit) {
        double time = median(times, iterations);
        printf("%s, backing %s, transport %s, %zu bytes, %u iterations\n", test,
               iso_backing_name(job), iso_transport_name(job), size, iterations);
        printf("  cold (first round trip, half)  %12.1f us %8.2f GB/s\n", cold_time * 1e6,
               (double)size / cold_time * 1e-9);
        printf("  warm, median                   %12.1f us %8.2f GB/s\n", time * 1e6,
               (double)size / time * 1e-9);
    }
    if (first && bandwidth) {
        double copy = median(copies, iterations);
        printf("  memcpy of as much, median      %12.1f us %8.2f GB/s\n", copy * 1e6,
               (double)size / copy * 1e-9);
        printf("ratio %.2f of memcpy at %zu\n", median(ratios, iterations), size);
    }
    if (!first && visit)
        printf("visit, backing %s: %.0f ns a page on the first visit to rank 1, %.0f ns later\n",
               iso_backing_name(job), cold[1] * 1e9 / pages,
               median(later, iterations) * 1e9 / pages);
    check(iso_finalize(job), "iso_finalize");
    return 0;
}
