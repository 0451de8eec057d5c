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
    iso_run_t *list; /* from malloc */
    size_t count, room;
    uint64_t bytes; /* of all of them */
} iso_runs_t;

/* false: there is no memory, and the list is as it was. */
bool iso_runs_add(iso_runs_t *runs, uintptr_t address, size_t length);
/* Its memory goes; bytes still says how many they were. */
void iso_runs_free(iso_runs_t *runs);

#ifdef __cplusplus
}
#endif

#endif
