/* table.c - see table.h. */
#include "table.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB (1024.0 * 1024.0)
#define CELL 32 /* text of a figure */

static const char head[] = "+--------------+--------------+------------------------------+---------"
                           "------------+-----------------------+\n"
                           "|              |              |       latency (usec)         |  "
                           "bandwidth (MiB/s)  |  message rate (msg/s) |\n"
                           "+--------------+--------------+----------+---------+---------+---------"
                           "-+----------+-----------+-----------+\n"
                           "|    Stage     | # iterations | %8s | average | overall |  average |  "
                           "overall |  average  |  overall  |\n"
                           "+--------------+--------------+----------+---------+---------+---------"
                           "-+----------+-----------+-----------+\n";

double table_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The lines above the rows: of a table each time, of CSV once a process. */
static void print_head(table_t *table)
{
    static bool csv_begun;
    char percentile[CELL];
    if (table->begun)
        return;
    table->begun = true;
    if (!table->format.csv) {
        snprintf(percentile, sizeof percentile, "%.1f%%ile", table->format.rank);
        printf(head, percentile);
    } else if (!csv_begun) {
        printf("test,transport,backing,bytes,outstanding,stage,iterations,%.1f_percentile_us,"
               "average_us,overall_us,average_MiB/s,overall_MiB/s,average_msg/s,overall_msg/s\n",
               table->format.rank);
        csv_begun = true;
    }
}

static void print_line(const table_t *table, const char *format, va_list args)
{
    if (table->silent)
        return;
    if (table->format.csv)
        fputs("# ", stdout);
    vprintf(format, args);
    putchar('\n');
    fflush(stdout);
}

void table_note(const table_t *table, const char *format, ...)
{
    va_list args;
    if (table->format.final_only)
        return;
    va_start(args, format);
    print_line(table, format, args);
    va_end(args);
}

void table_result(const table_t *table, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line(table, format, args);
    va_end(args);
}

void series_open(series_t *series, table_t *table, size_t room, size_t bytes)
{
    *series = (series_t){.table = table, .bytes = bytes, .room = room};
    series->samples = malloc((room ? room : 1) * sizeof *series->samples);
    if (!series->samples) {
        fprintf(stderr, "no memory for %zu samples: take fewer iterations (-n)\n", room);
        exit(1);
    }
    for (size_t i = 0; i < room; i++) /* so that no page of it faults while something is measured */
        series->samples[i] = -1;
}

void series_close(series_t *series)
{
    free(series->samples);
    series->samples = NULL;
}

void series_add(series_t *series, double seconds, unsigned operations, bool ticking)
{
    if (series->count < series->room)
        series->samples[series->count++] = seconds / operations;
    series->operations += operations;
    series->seconds += seconds;
    if (ticking && series->count < series->room && series->seconds - series->row_seconds >= 1)
        series_row(series, "", false);
}

void series_add_time(series_t *series, double seconds)
{
    series->seconds += seconds;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double series_typical(const series_t *series)
{
    if (series->count == 0)
        return 0;
    double *sorted = malloc(series->count * sizeof *sorted);
    if (!sorted) {
        fprintf(stderr, "no memory to sort %zu samples: take fewer iterations (-n)\n",
                series->count);
        exit(1);
    }
    memcpy(sorted, series->samples, series->count * sizeof *sorted);
    qsort(sorted, series->count, sizeof *sorted, by_value);
    size_t at = (size_t)(series->table->format.rank / 100 * (double)series->count);
    double value = sorted[at < series->count ? at : series->count - 1];
    free(sorted);
    return value;
}

static double overall_of(const series_t *series)
{
    return series->operations > 0 ? series->seconds / series->operations : 0;
}

/* What a figure looks like: `digits` behind the point, with the thousands apart if wished. */
static const char *cell(const table_t *table, char text[CELL], double value, int digits)
{
    char plain[CELL];
    snprintf(plain, sizeof plain, "%.*f", digits, value);
    const char *point = strchr(plain, '.');
    size_t whole = point ? (size_t)(point - plain) : strlen(plain), to = 0;
    for (size_t i = 0; plain[i] && to + 2 < CELL; i++) {
        if (table->format.thousands && i > 0 && i < whole && (whole - i) % 3 == 0)
            text[to++] = ',';
        text[to++] = plain[i];
    }
    text[to] = '\0';
    return text;
}

/* Bandwidth where there is none: "-" in the table, nothing in CSV. */
static const char *rate(const series_t *series, char text[CELL], double seconds)
{
    if (series->bytes == 0)
        return series->table->format.csv ? "" : "-";
    return cell(series->table, text, (double)series->bytes / seconds / MIB, 2);
}

void series_row(series_t *series, const char *stage, bool final)
{
    table_t *table = series->table;
    double since = series->operations - series->row_operations;
    double overall = overall_of(series);
    double average = since > 0 ? (series->seconds - series->row_seconds) / since : overall;
    char text[8][CELL];
    series->row_operations = series->operations;
    series->row_seconds = series->seconds;
    if (table->silent || series->operations == 0 || (table->format.final_only && !final))
        return;
    print_head(table);
    table_t numbers = *table; /* a CSV figure has no commas */
    numbers.format.thousands = table->format.thousands && !table->format.csv;
    if (table->format.csv)
        printf("%s,%s,%s,%zu,%u,%s,", table->test, table->transport, table->backing, table->bytes,
               table->outstanding, *stage ? stage : "interval");
    else
        printf("%s%-*s ", stage, 13 - (int)strlen(stage) > 0 ? 13 - (int)strlen(stage) : 0,
               *stage ? ":" : "");
    printf(table->format.csv ? "%s,%s,%s,%s,%s,%s,%s,%s\n"
                             : "%14s %10s %9s %9s %10s %10s %11s %11s\n",
           cell(&numbers, text[0], series->operations, 0),
           cell(&numbers, text[1], series_typical(series) * 1e6, 3),
           cell(&numbers, text[2], average * 1e6, 3), cell(&numbers, text[3], overall * 1e6, 3),
           rate(series, text[4], average), rate(series, text[5], overall),
           cell(&numbers, text[6], 1 / average, 0), cell(&numbers, text[7], 1 / overall, 0));
    fflush(stdout);
}
