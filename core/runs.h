/*
 * runs.h - lists of runs: ranges of addresses, of what a heap ships or leaves behind.
 */
#ifndef ISO_CORE_RUNS_H
#define ISO_CORE_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_run {
    uintptr_t address;
    size_t length;
} iso_run_t;

/* Begins as all zeros. */
typedef struct iso_runs {
    iso_run_t *list; /* from malloc, but for is_lent */
    size_t count, room;
    bool
        is_lent; /* it is memory of somebody else's, which is used until more is needed: see iso_runs_lend */
    uint64_t bytes; /* of all of them */
} iso_runs_t;

/* false: there is no memory, and the list is as it was. */
bool iso_runs_add(iso_runs_t *runs, uintptr_t address, size_t length);
/* A list that is empty gets room for as many in the caller's memory, which it must not outlive. Most lists are short, and made
 * for each migration. */
void iso_runs_lend(iso_runs_t *runs, iso_run_t *list, size_t room);
/* Its memory goes; bytes still says how many they were. */
void iso_runs_free(iso_runs_t *runs);

#ifdef __cplusplus
}
#endif

#endif
