/*
 * iso_perftest.c - figures of migrations between two ranks, each beside its yardstick in one run.
 *
 * Ranks 0 and 1 pass heaps back and forth. The machine's speed drifts, so what is compared takes
 * turns, and the median of the ratios is printed: a migration and the memcpy of as many bytes
 * between warm memfd mappings; a large heap and a small one. Cold (a rank's first time) and warm
 * are apart. Figures of other kinds (bytes shipped, processor time, mappings) are here, too, so that
 * iso_bounds has them all. A line that begins with "ratio" is the one that a bound is held against.
 */
#include <getopt.h>
#include <isomalloc/isomalloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define ITERATIONS_MAX 1000
#define WARM_UP 3
#define SMALL ((size_t)1 << 20) /* what a large heap is compared with */

static const char usage[] =
    "usage: iso_run -n 2 iso_perftest [-t TEST] [-s BYTES] [-n ITERATIONS] [-D nodes:BYTES]\n"
    "  -t migrate_bw   bandwidth of a heap of BYTES there and back, against memcpy (default)\n"
    "  -t migrate_lat  the same, time only: of the smallest heap unless -s says otherwise\n"
    "  -t handover     time of a heap of BYTES (default 1 GiB) against one of 1 MiB\n"
    "  -t progress     time of an iso_progress that finds nothing to do\n"
    "  -t visit        what looking at the heap costs on the first visit to a rank and later\n"
    "  -t migrate_frag bytes shipped of a heap of small blocks, half of them freed at random\n"
    "  -t idle         processor time of a rank that waits\n"
    "  -t heaps        mappings and memory of many heaps (-s: their number, default 10000)\n"
    "  -s BYTES        size of the heap's one block (default 64 MiB; migrate_lat: 16)\n"
    "  -D nodes:BYTES  migrate_frag: size of a block (default 64)\n"
    "  -n ITERATIONS   warm iterations, 1 to 1000 (default 21)\n"
    "  -h              this help\n"
    "ISO_BACKING=private (or anon) ISO_NODE_SIZE=1 measures puts, ISO_BACKING=shared handing "
    "over.\n";

static iso_job_t *job;
static bool first; /* is this rank 0, which has the heaps and prints? */
static iso_heap_t *here;
static double arrived;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static _Noreturn void fail(const char *what, iso_status_t status)
{
    fprintf(stderr, "iso_perftest: %s: %s\n", what, iso_status_string(status));
    exit(1);
}

static void check(iso_status_t status, const char *what)
{
    if (status != ISO_OK)
        fail(what, status);
}

static void on_arrival(iso_job_t *of, const iso_arrival_t *arrival, void *arg)
{
    (void)of;
    (void)arg;
    arrived = now();
    here = arrival->heap;
}

/* ---- figures ---- */

typedef struct series {
    double values[ITERATIONS_MAX];
    unsigned count;
} series_t;

static void add(series_t *series, double value)
{
    series->values[series->count++] = value;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(series_t *series)
{
    qsort(series->values, series->count, sizeof *series->values, by_value);
    return series->values[series->count / 2];
}

static void print_rate(const char *what, double seconds, size_t size)
{
    printf("  %-32s %12.1f us %10.2f GB/s\n", what, seconds * 1e6, (double)size / seconds * 1e-9);
}

static void print_time(const char *what, double seconds)
{
    printf("  %-32s %12.1f us\n", what, seconds * 1e6);
}

/* ---- passing a heap ---- */

/* A heap of one block of `size` bytes, at rank 0; elsewhere NULL. */
static iso_heap_t *heap_new(size_t size)
{
    iso_heap_t *heap = NULL;
    if (!first)
        return NULL;
    check(iso_heap_create(job, &heap), "iso_heap_create");
    void *block = iso_malloc(heap, size);
    if (!block)
        fail("iso_malloc", ISO_ERR_NO_SPACE);
    memset(block, 1, size);
    iso_heap_set_root(heap, block);
    return heap;
}

/* One way. The receiver spins in iso_progress, as a rank does that expects work. */
static void pass(bool mine)
{
    if (mine) {
        iso_request_t *request;
        check(iso_migrate(here, first ? 1 : 0, NULL, 0, &request), "iso_migrate");
        here = NULL;
        iso_status_t status;
        while ((status = iso_test(request)) == ISO_INPROGRESS)
            ;
        check(status, "iso_test");
    } else {
        while (!here)
            iso_progress(job);
    }
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

/* Rank 0's heap there and back; half of the time. */
static double round_trip(iso_heap_t *heap)
{
    if (first)
        here = heap;
    double start = now();
    pass(first);
    pass(!first);
    return (now() - start) / 2;
}

/* The same, and each rank looks at all of it; the time of this rank's look. */
static double round_trip_looking(iso_heap_t *heap, size_t size)
{
    double seconds = 0;
    if (first)
        here = heap;
    pass(first);
    if (!first)
        seconds = look(size);
    pass(!first);
    if (first)
        seconds = look(size);
    return seconds;
}

/* ---- the tests ---- */

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

static void migrate_bw(size_t size, unsigned iterations)
{
    static series_t times, copies, ratios;
    iso_heap_t *heap = heap_new(size);
    void *from = first ? memfd_map(size) : NULL, *to = first ? memfd_map(size) : NULL;
    double cold = round_trip(heap);
    for (int i = 0; i < WARM_UP; i++)
        round_trip(heap);
    for (unsigned i = 0; i < iterations; i++) {
        double start = now();
        if (from && to)
            memcpy(to, from, size);
        double copy = now() - start, time = round_trip(heap);
        add(&copies, copy);
        add(&times, time);
        add(&ratios, copy / time);
    }
    if (!first)
        return;
    print_rate("cold (first round trip, half)", cold, size);
    print_rate("warm, median", median(&times), size);
    print_rate("memcpy of as much, median", median(&copies), size);
    printf("ratio %.2f of memcpy's rate\n", median(&ratios));
}

static void migrate_lat(size_t size, unsigned iterations)
{
    static series_t times;
    iso_heap_t *heap = heap_new(size);
    double cold = round_trip(heap);
    for (int i = 0; i < WARM_UP; i++)
        round_trip(heap);
    for (unsigned i = 0; i < iterations; i++)
        add(&times, round_trip(heap));
    if (!first)
        return;
    print_time("cold (first round trip, half)", cold);
    print_time("warm, median", median(&times));
}

static void handover(size_t size, unsigned iterations)
{
    static series_t large, small, ratios;
    iso_heap_t *of_size = heap_new(size), *of_small = heap_new(SMALL);
    double cold = round_trip(of_size);
    for (int i = 0; i < WARM_UP; i++) {
        round_trip(of_small);
        round_trip(of_size);
    }
    for (unsigned i = 0; i < iterations; i++) {
        double less = round_trip(of_small), more = round_trip(of_size);
        add(&small, less);
        add(&large, more);
        add(&ratios, more / less);
    }
    if (!first)
        return;
    print_time("cold (first round trip, half)", cold);
    print_time("warm, median", median(&large));
    print_time("of 1 MiB, warm, median", median(&small));
    printf("ratio %.2f of the time of 1 MiB\n", median(&ratios));
}

static void visit(size_t size, unsigned iterations)
{
    static series_t later;
    size_t pages = (size + 4095) / 4096;
    iso_heap_t *heap = heap_new(size);
    double cold = round_trip_looking(heap, size);
    for (unsigned i = 0; i < iterations; i++)
        add(&later, round_trip_looking(heap, size));
    if (first)
        return;
    printf("  first visit to rank 1            %12.1f ns a page of 4 KiB\n",
           cold * 1e9 / (double)pages);
    printf("  later, median                    %12.1f ns a page of 4 KiB\n",
           median(&later) * 1e9 / (double)pages);
}

static void progress(size_t size, unsigned iterations)
{
    static series_t calls;
    const unsigned batch = 10000;
    (void)size;
    for (unsigned i = 0; first && i < iterations; i++) {
        double start = now();
        for (unsigned call = 0; call < batch; call++)
            iso_progress(job);
        add(&calls, (now() - start) / batch);
    }
    check(iso_barrier(job), "iso_barrier"); /* where the other rank sleeps meanwhile */
    if (first)
        printf("  a call, median                   %12.1f ns\n", median(&calls) * 1e9);
}

/* ---- bytes, processor time, mappings ---- */

static size_t node_size = 64; /* -D */

/* The pages that live blocks overlap, counted by a walk over the blocks, and the slots that have any. */
typedef struct pages {
    uintptr_t page, slot; /* the last one counted */
    size_t count, slots;
} pages_t;

static bool count_pages(void *block, size_t size, void *arg)
{
    pages_t *pages = arg;
    uintptr_t page_size = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)block;
    uintptr_t from = at / page_size, to = (at + size - 1) / page_size;
    if (from == pages->page)
        from++;
    if (to + 1 > from) {
        pages->count += to + 1 - from;
        pages->page = to;
    }
    for (uintptr_t slot = at / ISO_SLOT_SIZE; slot <= (at + size - 1) / ISO_SLOT_SIZE; slot++)
        if (slot != pages->slot) {
            pages->slot = slot;
            pages->slots++;
        }
    return true;
}

/* What may be shipped: the pages of live blocks and 2 %, 64 KiB or 4 pages, and a page a slot. */
static void migrate_frag(size_t size, unsigned iterations)
{
    size_t blocks = size / node_size, page = (size_t)sysconf(_SC_PAGESIZE);
    uint64_t random = 1;
    (void)iterations;
    if (first) {
        check(iso_heap_create(job, &here), "iso_heap_create");
        void **all = malloc(blocks * sizeof *all);
        for (size_t i = 0; all && i < blocks; i++)
            if (!(all[i] = iso_malloc(here, node_size)))
                fail("iso_malloc", ISO_ERR_NO_SPACE);
        for (size_t i = 0; all && i < blocks; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            if (random >> 63)
                iso_free(all[i]);
            else
                memset(all[i], 1, node_size);
        }
        free(all);
    }
    pages_t live = {0};
    iso_heap_stats_t before = {0};
    iso_stats_t stats = {0};
    if (first) {
        check(iso_heap_walk(here, count_pages, &live), "iso_heap_walk");
        check(iso_heap_stats(here, &before), "iso_heap_stats");
    }
    pass(first);
    iso_stats(job, &stats);
    if (!first)
        return;
    size_t slack = 4 * page > 65536 ? 4 * page : 65536;
    double most = 1.02 * (double)(live.count * page) + (double)(slack + live.slots * page);
    printf("  live blocks                      %12.2f MiB\n",
           (double)before.block_bytes / (1 << 20));
    printf("  their pages                      %12.2f MiB\n",
           (double)(live.count * page) / (1 << 20));
    printf("  shipped                          %12.2f MiB\n", (double)stats.bytes_put / (1 << 20));
    printf("ratio %.3f of what may be shipped\n", (double)stats.bytes_put / most);
}

static double processor_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void idle(size_t size, unsigned iterations)
{
    (void)size;
    (void)iterations;
    double used = processor_time(), start = now();
    while (now() - start < 1)
        iso_progress_wait(job, 1 - (now() - start));
    used = processor_time() - used;
    check(iso_barrier(job), "iso_barrier");
    if (first)
        printf("  processor time in 1 s of waiting %12.3f ms\n", used * 1e3);
}

/* Lines of /proc/self/maps. */
static unsigned mappings(void)
{
    unsigned lines = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    for (int c; maps && (c = fgetc(maps)) != EOF;)
        lines += c == '\n';
    if (maps)
        fclose(maps);
    return lines;
}

static void heaps(size_t count, unsigned iterations)
{
    (void)iterations;
    iso_heap_t *heap;
    double start = now();
    for (size_t i = 0; first && i < count; i++) {
        check(iso_heap_create(job, &heap), "iso_heap_create");
        if (!iso_malloc(heap, 100))
            fail("iso_malloc", ISO_ERR_NO_SPACE);
    }
    double seconds = now() - start;
    if (first) {
        printf("  mappings of the process          %12u\n", mappings());
        printf("  to make one, with a block of 100 %12.2f us\n", seconds * 1e6 / (double)count);
    }
    check(iso_barrier(job), "iso_barrier");
}

static const struct {
    const char *name;
    size_t size; /* unless -s says otherwise */
    void (*run)(size_t size, unsigned iterations);
} tests[] = {
    {"migrate_bw", (size_t)64 << 20, migrate_bw},
    {"migrate_lat", 16, migrate_lat},
    {"handover", (size_t)1 << 30, handover},
    {"progress", 0, progress},
    {"visit", (size_t)64 << 20, visit},
    {"migrate_frag", (size_t)64 << 20, migrate_frag},
    {"idle", 0, idle},
    {"heaps", 10000, heaps},
};

/* A number of at least 1 that fills the whole word, or the program ends. */
static size_t number(char option, const char *word, size_t most)
{
    char *end;
    unsigned long long value = strtoull(word, &end, 0);
    if (*word < '0' || *word > '9' || *end || value < 1 || value > most) {
        fprintf(stderr, "iso_perftest: -%c %s: not a number from 1 to %zu\n%s", option, word, most,
                usage);
        exit(2);
    }
    return (size_t)value;
}

int main(int argc, char **argv)
{
    const char *name = "migrate_bw";
    size_t size = 0, test = 0;
    unsigned iterations = 21;
    static const struct option longs[] = {{"help", no_argument, NULL, 'h'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "t:s:n:D:h", longs, NULL)) != -1;) {
        if (c == 't') {
            name = optarg;
        } else if (c == 's') {
            size = number('s', optarg, (size_t)1 << 46);
        } else if (c == 'n') {
            iterations = (unsigned)number('n', optarg, ITERATIONS_MAX);
        } else if (c == 'D' && strncmp(optarg, "nodes:", 6) == 0) {
            node_size = number('D', optarg + 6, ISO_SLOT_SIZE);
        } else if (c == 'D') {
            fprintf(stderr, "iso_perftest: -D %s: say nodes:BYTES\n%s", optarg, usage);
            return 2;
        } else {
            fputs(usage, c == 'h' ? stdout : stderr);
            return c == 'h' ? 0 : 2;
        }
    }
    while (test < sizeof tests / sizeof *tests && strcmp(tests[test].name, name) != 0)
        test++;
    if (optind != argc || test == sizeof tests / sizeof *tests) {
        fprintf(stderr, "iso_perftest: %s: no such test\n%s", optind != argc ? argv[optind] : name,
                usage);
        return 2;
    }
    if (size == 0)
        size = tests[test].size;
    check(iso_init(NULL, &job), "iso_init");
    if (iso_size(job) != 2) {
        fprintf(stderr, "iso_perftest: %u ranks; start it with iso_run -n 2\n", iso_size(job));
        return 2;
    }
    first = iso_rank(job) == 0;
    iso_set_arrival(job, on_arrival, NULL);
    if (first) {
        printf("%s, backing %s, transport %s, ", name, iso_backing_name(job),
               iso_transport_name(job));
        if (size > 0)
            printf("%zu %s, ", size, tests[test].run == heaps ? "heaps" : "bytes");
        printf("%u iterations\n", iterations);
        fflush(stdout);
    }
    check(iso_barrier(job), "iso_barrier");
    tests[test].run(size, iterations);
    check(iso_finalize(job), "iso_finalize");
    return 0;
}
