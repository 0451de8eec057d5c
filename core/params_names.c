/*
 * params_names.c - see params_names.h.
 */
#include "core/params_names.h"
#include <isomalloc/isomalloc.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The number of letters to insert, delete or replace to make one word the other. */
static size_t edit_distance(const char *a, const char *b)
{
    enum {
        LONGEST = 63
    };
    const size_t a_len = strlen(a), b_len = strlen(b);
    size_t row[LONGEST + 1];

    if (a_len > LONGEST || b_len > LONGEST)
        return SIZE_MAX;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[b_len];
}

/* What only tests set: to the library's own hooks, and to test programs and scripts (tests/README.md has what each does).
 * tests/checks/hooks.sh holds that all are here that are read. */
static const char *const of_tests[] = {
    "TEST_AT",           "TEST_CHECKPOINT_AT", "TEST_NO_GUARD_INSTALL",
    "TEST_NO_VM_WRITEV", "TEST_CABLE",         "TEST_CHECKED",
    "TEST_DETECTED",     "TEST_MEMLOCK",       "TEST_PIN",
    "TEST_PIN_LIMIT",    "TEST_NO_AS_LIMIT",   "TEST_RDMA",
    "TEST_ROUNDS",       "TEST_RDMA_TIMEOUT",  "TEST_SCALE",
    "TEST_SEED",         "TEST_SPAN",          "TEST_UCX_TLS"};

#define OF_TESTS_COUNT (sizeof of_tests / sizeof of_tests[0])

/* The i-th name that somebody reads, without ISO_; NULL beyond the last. */
static const char *known_name(size_t i)
{
    size_t count;
    const iso_setting_t *settings = iso_settings(&count);

    if (i < count)
        return settings[i].name;
    return i - count < OF_TESTS_COUNT ? of_tests[i - count] : NULL;
}

static const char *nearest_name(const char *name)
{
    size_t best_distance = strlen(name) / 2 + 1;
    const char *best = NULL, *known;

    for (size_t i = 0; (known = known_name(i)) != NULL; i++) {
        const size_t distance = edit_distance(name, known);
        if (distance < best_distance) {
            best_distance = distance;
            best = known;
        }
    }
    return best;
}

static bool is_known(const char *name)
{
    static const char *const launchers[] = {"LOCAL_", "JOB_"}; /* beginnings */
    const char *known;

    for (size_t i = 0; i < sizeof launchers / sizeof launchers[0]; i++)
        if (strncmp(name, launchers[i], strlen(launchers[i])) == 0)
            return true;
    for (size_t i = 0; (known = known_name(i)) != NULL; i++)
        if (strcmp(name, known) == 0)
            return true;
    return false;
}

void iso_params_warn_of_unknown_names(const iso_logger_t *logger)
{
    static atomic_flag warned = ATOMIC_FLAG_INIT; /* once a process, however many jobs it joins */

    if (atomic_flag_test_and_set(&warned))
        return;
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        const char *const equals = strchr(*entry, '=');
        char name[64];
        const char *nearest;

        if (strncmp(*entry, "ISO_", 4) != 0 || equals == NULL)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(equals - *entry - 4), *entry + 4);
        if (is_known(name))
            continue;
        nearest = nearest_name(name);
        if (nearest != NULL)
            iso_log(logger, ISO_LOG_WARN, "ISO_%s is no setting: did you mean ISO_%s?", name,
                    nearest);
        else
            iso_log(logger, ISO_LOG_WARN, "ISO_%s is no setting: `iso_info -c` lists them", name);
    }
}
