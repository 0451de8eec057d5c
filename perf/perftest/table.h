/*
 * table.h - times of a test, and the table that ucx_perftest prints of them; or the same as CSV.
 *
 * A series has a sample for each timed step, which was one operation or several at once. Of it a row
 * tells: operations; time of one, typical (a percentile of the samples), average (since the row before
 * it) and overall; the rates that follow. All to standard output. One thread.
 */
#ifndef ISO_PERFTEST_TABLE_H
#define ISO_PERFTEST_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How to print, from the options. */
typedef struct table_format {
    bool final_only; /* of the rows and notes, a test's result only */
    bool csv;
    bool thousands; /* 1,234,567 */
    double rank;    /* the percentile of "typical", 0 to 100 */
} table_format_t;

/* What a table is about. Strings are the caller's and outlive the table. */
typedef struct table {
    table_format_t format;
    const char *test; /* as the user called it */
    const char *transport, *backing;
    size_t bytes; /* of the message or the heap */
    unsigned outstanding;
    bool silent; /* another rank prints */
    bool begun;  /* the lines above its rows are printed */
} table_t;

typedef struct series {
    table_t *table;
    size_t bytes; /* that one operation moves; 0: none, there is no bandwidth */
    double *samples;
    size_t count, room;
    double operations, seconds;
    double row_operations, row_seconds; /* what the row before told */
} series_t;

/* Seconds of the monotonic clock. */
double table_now(void);

/* A line of figures that are no row; `ratio` lines are a test's result, others are left out by
 * final_only. In CSV a comment. */
__attribute__((format(printf, 2, 3))) void table_note(const table_t *table, const char *format,
                                                      ...);
__attribute__((format(printf, 2, 3))) void table_result(const table_t *table, const char *format,
                                                        ...);

/* `room`: most samples that there will be. Ends the process when there is no memory. */
void series_open(series_t *series, table_t *table, size_t room, size_t bytes);
void series_close(series_t *series);
/* A step of so many operations. ticking: and, if a second of samples has passed, a row in between. */
void series_add(series_t *series, double seconds, unsigned operations, bool ticking);
/* Time that belongs to the operations and to none of the steps. */
void series_add_time(series_t *series, double seconds);
/* The percentile of the samples, in seconds. */
double series_typical(const series_t *series);
/* The table's first row has the lines above it; CSV has one such line a process. final: a test's result;
 * rows that are none are left out by final_only. */
void series_row(series_t *series, const char *stage, bool final);

#endif
