/*
 * options.h - what iso_perftest is asked to do: its command line, batch files, and what a client tells
 * its server, which is a batch file as well. The letters are ucx_perftest's where they mean the same.
 */
#ifndef ISO_PERFTEST_OPTIONS_H
#define ISO_PERFTEST_OPTIONS_H

#include "table.h"
#include "tests.h"
#include <sched.h>

#define OPTIONS_LABEL 40 /* bytes of a test's name in a batch file, the last one 0 */
#define OPTIONS_WORD 64  /* of a transport's name, likewise */

/* One test to run, everything decided. */
typedef struct plan {
    char label[OPTIONS_LABEL]; /* what the user calls it */
    const test_t *test;
    size_t size, iterations, warm_up, outstanding, threads;
    size_t node_size; /* of linked nodes; 0: one block */
} plan_t;

typedef struct options {
    const char *host; /* NULL: none, a launcher's ranks or a server */
    size_t port;
    char transport[OPTIONS_WORD]; /* "": as the environment says */
    table_format_t format;
    bool pinned;
    cpu_set_t processors;
    plan_t *plans;
    size_t plan_count;
    bool named; /* tests were named by -t or -b */
} options_t;

/* Reads the command line. Help and errors end the process, with status 0 or 2. */
void options_read(options_t *options, int argc, char **argv);
void options_free(options_t *options);

/* A client's tests and transport as text for its server; the caller frees. NULL: no memory. */
char *options_tell(const options_t *options);
/* The server's end of it: replaces its tests and transport. false: it is not understood, which is said. */
bool options_hear(options_t *options, const char *text);

#endif
