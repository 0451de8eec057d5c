/*
 * tests.h - the tests: a table of names, and what a test is given.
 *
 * A test runs in ranks 0 and 1 of a fresh job (those of one rank: in rank 0 only); rank 0 prints. The
 * job is in `pair`, see pair.h.
 */
#ifndef ISO_PERFTEST_TESTS_H
#define ISO_PERFTEST_TESTS_H

#include <stddef.h>

struct pair;
struct plan;
struct table;

typedef struct test {
    const char *name;
    unsigned ranks;      /* that take part: 1 or 2 */
    const char *options; /* of "snwOTD", those that mean something to it */
    size_t size;         /* what -s is unless given */
    size_t node_size;    /* what -D is unless given; 0: one block */
    size_t volume;       /* so many bytes are moved by iterations, unless -n is given */
    size_t iterations;   /* and so many at most */
    void (*run)(struct pair *pair, const struct plan *plan, struct table *table);
    const char *help; /* lines under the name in -h */
} test_t;

extern const test_t tests[];
extern const size_t tests_count;

void test_put_lat(struct pair *pair, const struct plan *plan, struct table *table);
void test_put_bw(struct pair *pair, const struct plan *plan, struct table *table);
void test_register(struct pair *pair, const struct plan *plan, struct table *table);
void test_migrate_lat(struct pair *pair, const struct plan *plan, struct table *table);
void test_migrate_bw(struct pair *pair, const struct plan *plan, struct table *table);
void test_migrate_frag(struct pair *pair, const struct plan *plan, struct table *table);
void test_migrate_cold(struct pair *pair, const struct plan *plan, struct table *table);
void test_migrate_memcpy(struct pair *pair, const struct plan *plan, struct table *table);
void test_attach(struct pair *pair, const struct plan *plan, struct table *table);
void test_alloc(struct pair *pair, const struct plan *plan, struct table *table);
void test_handover(struct pair *pair, const struct plan *plan, struct table *table);
void test_visit(struct pair *pair, const struct plan *plan, struct table *table);
void test_progress(struct pair *pair, const struct plan *plan, struct table *table);
void test_idle(struct pair *pair, const struct plan *plan, struct table *table);
void test_heaps(struct pair *pair, const struct plan *plan, struct table *table);
void test_checkpoint(struct pair *pair, const struct plan *plan, struct table *table);
void test_increment(struct pair *pair, const struct plan *plan, struct table *table);
void test_windows(struct pair *pair, const struct plan *plan, struct table *table);
#ifdef ISO_PERFTEST_THREADS /* there is libisomalloc-thread */
void test_thread_switch(struct pair *pair, const struct plan *plan, struct table *table);
void test_thread_migrate(struct pair *pair, const struct plan *plan, struct table *table);
#endif

#endif
