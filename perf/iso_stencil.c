/*
 * iso_stencil.c - a stencil in threads that migrate: what balancing gains when the load wanders.
 *
 * The same work runs twice, with its strips where they began and with a balancer, and its result is compared with that
 * of a serial run, bit by bit. See stencil/tasks.h.
 */
#include "perftest/number.h"
#include "stencil/fail.h"
#include "stencil/tasks.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <isomalloc/stack.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char usage[] =
    "usage: iso_stencil [-t THREADS] [-r ROWS] [-c COLUMNS] [-i STEPS] [-b PERIOD] [-w WEIGHT] [-g "
    "GRAIN] [-p NAME]\n"
    "Computes a Jacobi stencil in threads that migrate, without and with balancing of a load that\n"
    "wanders; start it with iso_run -n RANKS iso_stencil, or by mpirun.\n"
    "  -t THREADS   of each rank, a strip of the plane each (default 16, at least 8)\n"
    "  -r ROWS      of a strip (default 32)\n"
    "  -c COLUMNS   of the plane (default 512)\n"
    "  -i STEPS     (default 400)\n"
    "  -b PERIOD    steps from one balancing to the next (default 5)\n"
    "  -w WEIGHT    times that a quarter of the threads compute their step (default 16)\n"
    "  -g GRAIN     times more, for all (default 2)\n"
    "  -p NAME, --plot NAME\n"
    "               draw the load of each rank over time, to NAME.svg and NAME.png (gnuplot)\n"
    "  -h           this help\n";

typedef struct options {
    size_t threads, rows, columns, steps, period, weight, grain;
    const char *plot;
} options_t;

/* A period's figures, kept for the picture. */
typedef struct point {
    uint32_t step;
    double *seconds; /* by rank */
} point_t;

/* One of the two runs. Rank 0. */
typedef struct record {
    uint32_t ranks, period, last;
    const char *title;
    point_t *points;
    size_t count;
    totals_t totals;
} record_t;

static void *new_array(size_t count, size_t size)
{
    void *array = calloc(count, size);
    if (!array)
        fail("no memory", "take fewer or smaller strips");
    return array;
}

/* ---- options ------------------------------------------------------------------------------------- */

static void parse(int argc, char **argv, options_t *options)
{
    static const struct option longs[] = {
        {"plot", required_argument, NULL, 'p'}, {"help", no_argument, NULL, 'h'}, {0}};
    int c;
    *options = (options_t){16, 32, 512, 400, 5, 16, 2, NULL};
    const struct {
        char letter;
        size_t *value, least, most;
    } numbers[] = {{'t', &options->threads, 8, 100000},  {'r', &options->rows, 1, 1 << 20},
                   {'c', &options->columns, 1, 1 << 20}, {'i', &options->steps, 1, 1 << 30},
                   {'b', &options->period, 1, 1 << 30},  {'w', &options->weight, 1, 10000},
                   {'g', &options->grain, 1, 100000}};
    while ((c = getopt_long(argc, argv, "t:r:c:i:b:w:g:p:h", longs, NULL)) != -1) {
        if (c == 'h') {
            fputs(usage, stdout);
            exit(0);
        }
        if (c == 'p')
            options->plot = optarg;
        bool known = c == 'p';
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            if (c != numbers[i].letter)
                continue;
            known = true;
            if (number_parse(optarg, numbers[i].least, numbers[i].most, numbers[i].value))
                continue;
            fprintf(stderr, "iso_stencil: -%c %s: give a number from %zu to %zu\n", c, optarg,
                    numbers[i].least, numbers[i].most);
            exit(2);
        }
        if (!known) {
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "iso_stencil: %s: no option\n%s", argv[optind], usage);
        exit(2);
    }
}

/* ---- what is told -------------------------------------------------------------------------------- */

static void print_shares(const char *of, const period_t *period, uint32_t ranks, bool planned)
{
    double sum = 0;
    printf("  %s", of);
    for (uint32_t rank = 0; rank < ranks; rank++)
        sum += planned ? period->shares[rank].planned : period->shares[rank].seconds;
    for (uint32_t rank = 0; rank < ranks; rank++) {
        const double seconds =
            planned ? period->shares[rank].planned : period->shares[rank].seconds;
        printf(" %5.1f", sum > 0 ? 100 * seconds / sum : 0);
    }
}

static void tell_period(const period_t *period, void *arg)
{
    record_t *record = arg;
    point_t *point = &record->points[record->count++];
    const uint32_t steps = period->step - record->last;
    record->last = period->step;
    point->step = period->step;
    point->seconds = new_array(record->ranks, sizeof *point->seconds);
    for (uint32_t rank = 0; rank < record->ranks; rank++)
        point->seconds[rank] = period->shares[rank].seconds;
    printf("%7u %9.3f ms", period->step, 1e3 * period->elapsed / steps);
    print_shares("share %", period, record->ranks, false);
    if (period->moved > 0) {
        print_shares("-> planned %", period, record->ranks, true);
        printf("  %u moved in %.3f ms", period->moved, 1e3 * period->balancing);
    }
    putchar('\n');
}

static void tell_totals(const record_t *record)
{
    const totals_t *totals = &record->totals;
    printf(
        "%s: %.3f s, busiest rank %.3f s of processor, %.1f %% of all; %llu migrations, %.2f MiB "
        "put, %.3f s in balancing\n",
        record->title, totals->elapsed, totals->busiest, 100 * totals->busiest / totals->work,
        (unsigned long long)totals->migrations, (double)totals->bytes / (1 << 20),
        totals->balancing);
}

/* Both runs do the same work. How much of the processor's time that takes changes with what else the machine does, by more than
 * balancing gains; the part of it that the busiest rank has does not. */
static void tell_gain(const totals_t *without, const totals_t *with)
{
    printf("gain %.2f: the busiest rank has so much less of all time of processor; %.2f of its "
           "seconds, "
           "%.2f of elapsed time\n",
           without->busiest / without->work / (with->busiest / with->work),
           without->busiest / with->busiest, without->elapsed / with->elapsed);
}

/* ---- the picture --------------------------------------------------------------------------------- */

static void plot_data(FILE *to, const record_t *record, unsigned number)
{
    fprintf(to, "$run%u << EOD\n", number);
    for (size_t i = 0; i < record->count; i++) {
        const uint32_t steps = record->points[i].step - (i > 0 ? record->points[i - 1].step : 0);
        fprintf(to, "%u", record->points[i].step);
        for (uint32_t rank = 0; rank < record->ranks; rank++)
            fprintf(to, " %g", 1e3 * record->points[i].seconds[rank] / steps);
        fputc('\n', to);
    }
    fputs("EOD\n", to);
}

/* Started with what is written to *to_p as its standard input. */
static pid_t start_gnuplot(FILE **to_p)
{
    char *const argv[] = {(char[]){"gnuplot"}, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2];
    pid_t process;
    if (pipe2(ends, O_CLOEXEC) != 0)
        fail("gnuplot", strerror(errno));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
    const int error = posix_spawnp(&process, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[0]);
    if (error)
        fail("gnuplot (Debian: gnuplot-nox)", strerror(error));
    *to_p = fdopen(ends[1], "w");
    if (!*to_p)
        fail("gnuplot", strerror(errno));
    return process;
}

static void plot_format(const record_t *records, const char *name, const char *format)
{
    FILE *to;
    int status = 0;
    const pid_t process = start_gnuplot(&to);
    fprintf(to, "set terminal %s size 900,600\nset output \"", format);
    for (const char *at = name; *at; at++)
        fprintf(to, strchr("\"\\`", *at) ? "\\%c" : "%c", *at);
    fprintf(to,
            ".%s\"\nset multiplot layout 2,1\nset key outside\nset xlabel 'step'\n"
            "set ylabel 'ms of processor a step'\nset yrange [0:*]\n",
            format);
    for (unsigned i = 0; i < 2; i++) {
        plot_data(to, &records[i], i);
        fprintf(to, "set title '%s'\nplot ", records[i].title);
        for (uint32_t rank = 0; rank < records[i].ranks; rank++)
            fprintf(to, "%s$run%u using 1:%u with lines lw 2 title 'rank %u'", rank ? ", " : "", i,
                    rank + 2, rank);
        fputc('\n', to);
    }
    fputs("unset multiplot\n", to);
    fclose(to);
    if (waitpid(process, &status, 0) != process || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "iso_stencil: gnuplot did not draw %s.%s\n", name, format);
        exit(1);
    }
}

/* ---- both runs ----------------------------------------------------------------------------------- */

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void compare(const work_t *work, const double *plane)
{
    const grid_t *grid = &work->grid;
    double *serial = grid_serial(grid, work->steps);
    if (!serial)
        fail("no memory for the serial run", "take fewer or smaller strips");
    const size_t first = grid->columns, count = (size_t)grid->strips * grid->rows * grid->columns;
    for (size_t i = first; i < first + count; i++)
        if (bits_of(plane[i]) != bits_of(serial[i])) {
            fprintf(stderr, "iso_stencil: row %zu, column %zu is %a, in the serial run %a\n",
                    i / grid->columns - 1, i % grid->columns, plane[i], serial[i]);
            exit(1);
        }
    free(serial);
}

static void free_record(record_t *record)
{
    for (size_t i = 0; i < record->count; i++)
        free(record->points[i].seconds);
    free(record->points);
}

static void run_both(iso_job_t *job, const options_t *options)
{
    const bool first = iso_rank(job) == 0;
    const uint32_t ranks = iso_size(job);
    work_t work = {.grid = {(uint32_t)options->threads * ranks, (uint32_t)options->rows,
                            (uint32_t)options->columns},
                   .steps = (uint32_t)options->steps,
                   .period = (uint32_t)options->period,
                   .weight = (uint32_t)options->weight,
                   .grain = (uint32_t)options->grain};
    record_t records[2] = {{.title = "without balancing"}, {.title = "with balancing"}};
    if (first)
        printf("# %u ranks, %zu threads each with %zu rows of %zu columns, %zu steps; a quarter of "
               "the threads computes %zu times as much\n",
               ranks, options->threads, options->rows, options->columns, options->steps,
               options->weight);
    for (unsigned i = 0; i < 2; i++) {
        record_t *record = &records[i];
        record->ranks = ranks;
        record->points = new_array(options->steps / options->period + 1, sizeof *record->points);
        double *plane = first ? new_array(1, grid_plane_bytes(&work.grid)) : NULL;
        work.balance = i == 1;
        if (first)
            printf("# %s\n#  step  time/step\n", record->title);
        tasks_run(&work, tell_period, record, plane, &record->totals);
        if (first)
            compare(&work, plane);
        free(plane);
    }
    if (first) {
        tell_totals(&records[0]);
        tell_totals(&records[1]);
        tell_gain(&records[0].totals, &records[1].totals);
        puts("result: bit-identical to the serial run");
    }
    if (first && options->plot) {
        plot_format(records, options->plot, "svg");
        plot_format(records, options->plot, "png");
    }
    free_record(&records[0]);
    free_record(&records[1]);
}

int main(int argc, char **argv)
{
    options_t options;
    iso_job_t *job;
    parse(argc, argv, &options);
    check(iso_restart_without_aslr(argv),
          "cannot start"); /* stacks want the same code at all ranks */
    check(iso_init(NULL, &job), "iso_init");
    setvbuf(stdout, NULL, _IOLBF, 0);
    tasks_open(job);
    run_both(job, &options);
    tasks_close();
    check(iso_finalize(job), "iso_finalize");
    return 0;
}
