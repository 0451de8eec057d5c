/*
 * iso_mallocbench.c - iso_malloc beside glibc's malloc, mimalloc and jemalloc, in one run.
 *
 * The machine's speed drifts, so what is compared takes turns: in a round every allocator runs the
 * workload once, each in a new process, and the median of the rounds' ratios is printed. A process's
 * memory is its peak of resident pages, shared ones included, over what it had before it opened the
 * allocator; pages of program text do not count. A line that begins with "ratio" is for a bound.
 */
#include "mallocbench/allocator.h"
#include "mallocbench/workload.h"
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 1000
#define ALL WORKLOADS /* in the place of a workload's number */

static void print_usage(FILE *to)
{
    fprintf(to,
            "usage: iso_mallocbench [-r ROUNDS] [-w WORKLOAD] [-a ALLOCATOR]\n"
            "  -r ROUNDS     rounds, 1 to %d (default 7)\n"
            "  -w WORKLOAD   only this one:\n",
            ROUNDS_MAX);
    for (unsigned i = 0; i < WORKLOADS; i++)
        fprintf(to, "       %-14s %s\n", workloads[i].name, workloads[i].help);
    fputs("  -a ALLOCATOR  run WORKLOAD once with iso, iso-shared, glibc, mimalloc or jemalloc, "
          "for a\n"
          "                profiler\n"
          "  -h            this help\n",
          to);
}

/* ---- figures ---- */

typedef struct figures {
    double ms[ROUNDS_MAX], mib[ROUNDS_MAX];
} figures_t;

static figures_t figures[WORKLOADS][ALLOCATORS];
static bool present[ALLOCATORS];
static unsigned rounds = 7;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the values, or of their ratios to as many others. */
static double median(const double *values, const double *others)
{
    static double sorted[ROUNDS_MAX];
    for (unsigned i = 0; i < rounds; i++)
        sorted[i] = others ? values[i] / others[i] : values[i];
    qsort(sorted, rounds, sizeof *sorted, by_value);
    return (sorted[(rounds - 1) / 2] + sorted[rounds / 2]) / 2;
}

static const double *values_of(unsigned workload, unsigned id, bool memory)
{
    return memory ? figures[workload][id].mib : figures[workload][id].ms;
}

static void print_table(const char *title, unsigned only, bool memory)
{
    printf("\n%-14s", title);
    for (unsigned id = 0; id < ALLOCATORS; id++)
        if (present[id])
            printf(" %10s", allocator_names[id]);
    for (unsigned id = GLIBC; id < ALLOCATORS; id++)
        if (present[id])
            printf("  iso/%-8s", allocator_names[id]);
    printf("\n");
    for (unsigned i = 0; i < WORKLOADS; i++) {
        if (only != ALL && only != i)
            continue;
        printf("%-14s", workloads[i].name);
        for (unsigned id = 0; id < ALLOCATORS; id++)
            if (present[id])
                printf(" %10.1f", median(values_of(i, id, memory), NULL));
        for (unsigned id = GLIBC; id < ALLOCATORS; id++)
            if (present[id])
                printf("  %-12.2f", median(values_of(i, ISO, memory), values_of(i, id, memory)));
        printf("\n");
    }
}

static void print_ratios(const char *what, unsigned only, bool memory)
{
    double logarithms = 0;
    unsigned count = 0;
    for (unsigned i = 0; i < WORKLOADS; i++) {
        if (only != ALL && only != i)
            continue;
        double ratio = median(values_of(i, ISO, memory), values_of(i, MIMALLOC, memory));
        printf("ratio %s %s %.2f of mimalloc's\n", what, workloads[i].name, ratio);
        logarithms += log(ratio);
        count++;
    }
    printf("ratio %s geometric-mean %.2f of mimalloc's\n", what, exp(logarithms / count));
}

/* ---- one process, one allocator, one workload ---- */

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* A line of /proc/self/status, in KiB. */
static long status_kib(const char *name)
{
    char line[256];
    long kib = -1;
    size_t length = strlen(name);
    FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status))
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            kib = strtol(line + length + 1, NULL, 10);
    if (status)
        fclose(status);
    if (kib < 0)
        die("/proc/self/status: cannot be read");
    return kib;
}

/* The peak of resident pages starts anew: what exec left behind does not count. */
static void reset_peak(void)
{
    FILE *clear = fopen("/proc/self/clear_refs", "we");
    if (!clear || fputs("5\n", clear) < 0 || fclose(clear) != 0)
        die("/proc/self/clear_refs: cannot be written");
}

static int run_once(allocator_id_t id, unsigned workload)
{
    workload_prepare();
    reset_peak();
    long before = status_kib("VmRSS") - status_kib("RssFile");
    if (!allocator_open(id))
        return 1;
    double start = now_ms();
    workloads[workload].run();
    double ms = now_ms() - start;
    long peak = status_kib("VmHWM") - status_kib("RssFile") - before;
    printf("%.3f ms %.3f MiB\n", ms, (double)(peak > 0 ? peak : 1) / 1024);
    return 0;
}

/* The same in a process of its own. */
static void run_child(allocator_id_t id, unsigned workload, unsigned round)
{
    int ends[2];
    if (pipe(ends) != 0)
        die("pipe: no descriptors");
    pid_t child = fork();
    if (child < 0)
        die("fork: no process");
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl("/proc/self/exe", "iso_mallocbench", "-a", allocator_names[id], "-w",
              workloads[workload].name, (char *)NULL);
        die("/proc/self/exe: cannot be run");
    }
    close(ends[1]);
    FILE *output = fdopen(ends[0], "r");
    figures_t *to = &figures[workload][id];
    int status, found = 0;
    if (output)
        found = fscanf(output, "%lf ms %lf MiB", &to->ms[round], &to->mib[round]);
    if (output)
        fclose(output);
    if (waitpid(child, &status, 0) != child || status != 0 || found != 2) {
        fprintf(stderr, "iso_mallocbench: %s with %s: did not run\n", workloads[workload].name,
                allocator_names[id]);
        exit(1);
    }
}

/* ---- the command line ---- */

/* The word's place in a list of names of `stride` bytes each, or the program ends. */
static unsigned place(const char *word, const void *names, size_t stride, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const char *name;
        memcpy(&name, (const char *)names + i * stride, sizeof name);
        if (strcmp(word, name) == 0)
            return i;
    }
    fprintf(stderr, "iso_mallocbench: %s: no such name\n", word);
    print_usage(stderr);
    exit(2);
}

static unsigned number(const char *word)
{
    char *end;
    unsigned long value = strtoul(word, &end, 10);
    if (*word < '0' || *word > '9' || *end || value < 1 || value > ROUNDS_MAX) {
        fprintf(stderr, "iso_mallocbench: -r %s: not a number from 1 to %d\n", word, ROUNDS_MAX);
        exit(2);
    }
    return (unsigned)value;
}

/* jemalloc's thread-local data have to fit into what the loader keeps free for libraries that come
 * late, and by default that is too little. */
static void make_room_for_tls(char **argv)
{
    if (getenv("GLIBC_TUNABLES"))
        return;
    setenv("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=16384", 1);
    execv("/proc/self/exe", argv);
    die("/proc/self/exe: cannot be run");
}

int main(int argc, char **argv)
{
    unsigned workload = ALL, id = ALLOCATORS;
    static const struct option longs[] = {{"help", no_argument, NULL, 'h'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "r:w:a:h", longs, NULL)) != -1;) {
        if (c == 'r') {
            rounds = number(optarg);
        } else if (c == 'w') {
            workload = place(optarg, workloads, sizeof *workloads, WORKLOADS);
        } else if (c == 'a') {
            id = place(optarg, allocator_names, sizeof *allocator_names, ALLOCATORS);
        } else {
            print_usage(c == 'h' ? stdout : stderr);
            return c == 'h' ? 0 : 2;
        }
    }
    if (optind != argc || (id != ALLOCATORS && workload == ALL)) {
        print_usage(stderr);
        return 2;
    }
    make_room_for_tls(argv);
    if (id != ALLOCATORS)
        return run_once(id, workload);
    for (id = 0; id < ALLOCATORS; id++) {
        present[id] = id == ISO || id == ISO_SHARED || allocator_open(id);
        if (!present[id])
            continue;
        const char *version = allocator_version(id); /* jemalloc's has a commit after a '-' */
        printf("%s%s %.*s", id == ISO ? "" : ", ", allocator_names[id], (int)strcspn(version, "-"),
               version);
    }
    printf("; %u rounds\n", rounds);
    fflush(stdout);
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned i = 0; i < WORKLOADS; i++)
            for (unsigned turn = 0; turn < ALLOCATORS; turn++) {
                id = (round + turn) % ALLOCATORS; /* each is the first in its turn */
                if (present[id] && (workload == ALL || workload == i))
                    run_child(id, i, round);
            }
    print_table("time, ms", workload, false);
    print_table("peak, MiB", workload, true);
    if (present[MIMALLOC]) {
        printf("\n");
        print_ratios("time", workload, false);
        print_ratios("memory", workload, true);
    }
    return 0;
}
