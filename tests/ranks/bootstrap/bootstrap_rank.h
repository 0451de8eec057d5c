/*
 * bootstrap_rank.h - what the scenarios of bootstrap_rank share: the job, and ways to say and check things.
 *
 * A scenario that finds something wrong says so and exits with status WRONG.
 */
#ifndef ISO_TESTS_BOOTSTRAP_RANK_H
#define ISO_TESTS_BOOTSTRAP_RANK_H

#include <isomalloc/bootstrap.h>
#include <unistd.h> /* _exit */

#define WRONG 98

typedef struct scenario {
    const char *name;
    void (*run)(void);
} scenario_t;

/* One list a file; the last has no name. */
extern const scenario_t collective_scenarios[], mistake_scenarios[], end_scenarios[],
    process_scenarios[];

extern const iso_bootstrap_module_t *module;
extern iso_bootstrap_t *job; /* between open_job and close_job */
extern const char *argument; /* of the scenario; "": none */

/* A line "rank R: ..." in one write, so that those of several ranks do not mix. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define CHECK(condition)                                      \
    do {                                                      \
        if (!(condition)) {                                   \
            say("line %d: not so: %s", __LINE__, #condition); \
            _exit(WRONG);                                     \
        }                                                     \
    } while (0)

void log_line(iso_log_level_t level, const char *text);
void open_job(void);
void close_job(void);
void nap(double seconds);
__attribute__((noreturn)) void sleep_for_ever(void);

/* The byte at `at` of what a rank contributes. */
unsigned char pattern(uint32_t rank, size_t at);
/* An allgather of len bytes of each rank. */
void gather_and_check(size_t len);
iso_status_t wait_barrier(void);
iso_status_t barrier(void);
/* Waits for the news of a death; returns who it is. */
uint32_t wait_death(void);

#endif
