/*
 * params.c - the table of settings, and everything that follows from it: defaults, what the
 * environment says, the list that iso_info prints, validation. What a value may be: params_kind.c.
 *
 * A setting is one row of SETTINGS. Its default is parsed from the same text that people read, by
 * the same parser as the environment's, so that the two cannot differ.
 */
#include "core/params.h"
#include "core/params_kind.h"
#include "core/params_names.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const guard_names[] = {"none", "first", "all", NULL};
static const char *const backing_names[] = {"auto", "shared", "private", "anon", NULL};
static const char *const huge_pages_names[] = {"auto", "n", NULL};
static const char *const registration_names[] = {"auto", "space", "odp", "window", NULL};
static const char *const thread_level_names[] = {"single", "serialized", "multiple", NULL};

/* NAME, field, kind, names of an enum's values, default, help */
#define SETTINGS(ROW)                                                                            \
    ROW(SPACE_SIZE, space_size, SLOTS, NULL, "0",                                                \
        "bytes of the iso space, a multiple of 2M; 0: 16T, less under sanitizers or where "      \
        "addresses are fewer")                                                                   \
    ROW(SPACE_BASE, space_base, SLOTS, NULL, "0",                                                \
        "its address, a multiple of 2M; 0: the preferred base, or another that all ranks have "  \
        "free")                                                                                  \
    ROW(BACKING, backing, ENUM, backing_names, "auto",                                           \
        "memory behind the space: shared (one object a node: migrations inside it move no "      \
        "bytes), private (one a rank), anon (a rank's own anonymous memory), auto (shared "      \
        "where a node has several ranks, anon where it has one)")                                \
    ROW(NODE_SIZE, node_size, COUNT, NULL, "0",                                                  \
        "ranks of a pretended node, for tests on one machine; 0: nodes as they are")             \
    ROW(TRANSPORT, transport, NAME, NULL, "auto", "transport between nodes: auto or a module")   \
    ROW(OFI_PROVIDER, ofi_provider, STRING, NULL, "",                                            \
        "of transport ofi: libfabric's provider, such as tcp or verbs (`fi_info -l`); empty: "   \
        "the best that is there")                                                                \
    ROW(BOOTSTRAP, bootstrap, NAME, NULL, "auto",                                                \
        "how ranks find each other: auto (by the launcher), a module, or single (a job of one "  \
        "rank, whatever the launcher says)")                                                     \
    ROW(MODULE_PATH, module_path, STRING, NULL, "",                                              \
        "folders with modules, ':' between; empty: the install's own")                           \
    ROW(IMAGES, images, STRING, NULL, "",                                                        \
        "images of heaps that the program may restore, ':' between, the same in every rank: "    \
        "their addresses are kept free, and the iso space is where it was")                      \
    ROW(MIXED_IMAGES, mixed_images, BOOL, NULL, "n",                                             \
        "take images of one job also if its ranks saved them at different times, or in sets of " \
        "different numbers: y or n (such a mixture may miss heaps that migrated in between)")    \
    ROW(MAP_IMAGES, map_images, BOOL, NULL, "n",                                                 \
        "iso_restart maps heaps copy-on-write from their images, where backing is anon")         \
    ROW(TRACK_WRITES, track_writes, BOOL, NULL, "n",                                             \
        "increments to an image read only pages that were written since, as the kernel tells "   \
        "(backing anon, Linux 6.7); else all, by checksums. The first write to a page after a "  \
        "checkpoint costs microseconds then: for programs that write a few per cent of theirs")  \
    ROW(RETAIN, retain, SIZE, NULL, "256M",                                                      \
        "bytes of unused pages that a rank keeps resident for what comes next")                  \
    ROW(HUGE_PAGES, huge_pages, ENUM, huge_pages_names, "n",                                     \
        "huge pages for memory that is about to be filled: n, or auto (where the kernel makes "  \
        "them: Linux 6.1; making one waits for a kernel thread on every processor)")             \
    ROW(REGISTER, registration, ENUM, registration_names, "auto",                                \
        "what is registered with the transport, and pinned where it pins: space (all, at the "   \
        "start), odp (all, where the device fetches pages on demand), window (parts of it, "     \
        "ahead of use, within ISO_PIN_LIMIT), auto (space where it fits, else window)")          \
    ROW(PIN_LIMIT, pin_limit, SIZE, NULL, "0",                                                   \
        "bytes that may be registered at a time, 4M or more; 0: what ulimit -l and half of the " \
        "memory allow")                                                                          \
    ROW(INLINE_MAX, inline_max, SIZE, NULL, "4K",                                                \
        "bytes of a heap that may ride in the message that ends its migration: metadata and "    \
        "small blocks; what is more is put; 0: all is put; more than 8K are never taken")        \
    ROW(TIMEOUT, timeout, SECONDS, NULL, "10",                                                   \
        "seconds to wait for an answer before a migration is given up or in doubt")              \
    ROW(LOG_LEVEL, log_level, ENUM, iso_log_level_names, "warn",                                 \
        "what goes to stderr: error, warn, info or debug")                                       \
    ROW(THREAD_LEVEL, thread_level, ENUM, thread_level_names, "multiple",                        \
        "threads that may call: single, serialized (any, one at a time) or multiple")            \
    ROW(CORE_DUMP, core_dump, BOOL, NULL, "n",                                                   \
        "iso space in core files: y or n (slow: the range is large)")                            \
    ROW(PROGRESS_THREAD, progress_thread, BOOL, NULL, "n",                                       \
        "a thread of the library's own makes progress: for programs that compute for long "      \
        "between their calls; callbacks run in it: y or n")                                      \
    ROW(DUMP_SIGNAL, dump_signal, COUNT, NULL, "0",                                              \
        "number of a signal at which the rank writes to stderr what it is doing, such as 12 "    \
        "(SIGUSR2, which iso_run and mpirun pass on); 0: none")                                  \
    ROW(VERIFY_HANDOVER, verify_handover, BOOL, NULL, "n",                                       \
        "look for damage in all metadata of a heap also before a handover, whose cost then "     \
        "grows with the heap (before puts it is always done): y or n")                           \
    ROW(FAULT_HANDLER, fault_handler, BOOL, NULL, "n",                                           \
        "a handler for SIGSEGV and SIGBUS says of which heap the address is or was, and why "    \
        "it faults, before the handler that was there (or the end): y or n")                     \
    ROW(GUARD, guard, ENUM, guard_names, "first",                                                \
        "what faults when it is used, of a freed block of more than 2M: its first page, all "    \
        "(finds more, costs microseconds a page that is used again), or none, which leaves out " \
        "the pages below stacks as well")                                                        \
    ROW(GUARD_BUDGET, guard_budget, COUNT, NULL, "1024",                                         \
        "such guards at a time on kernels where each splits a mapping (before Linux 6.15)")      \
    ROW(POISON, poison, BOOL, NULL, "y",                                                         \
        "tell AddressSanitizer or Valgrind, where the program runs under one of them, what is "  \
        "a block and what is free: y or n")

#define PUBLIC_ROW(name, field, kind, names, default_text, help) {#name, default_text, help},
#define FIELD_ROW(name, field, kind, names, default_text, help) \
    {ISO_PARAM_##kind, offsetof(iso_params_t, field), sizeof((iso_params_t *)0)->field, names},

static const iso_setting_t settings[] = {SETTINGS(PUBLIC_ROW)};
static const iso_param_field_t fields[] = {SETTINGS(FIELD_ROW)};

#define SETTING_COUNT (sizeof settings / sizeof settings[0])

_Static_assert(sizeof(iso_backing_t) == sizeof(unsigned) &&
                   sizeof(iso_huge_pages_t) == sizeof(unsigned) &&
                   sizeof(iso_registration_t) == sizeof(unsigned) &&
                   sizeof(iso_log_level_t) == sizeof(unsigned) &&
                   sizeof(iso_thread_level_t) == sizeof(unsigned) &&
                   sizeof(iso_guard_t) == sizeof(unsigned),
               "enum fields are copied through iso_param_value_t.index");

static void *field_of(const iso_params_t *params, const iso_param_field_t *field)
{
    return (char *)params + field->offset;
}

/* ISO_<name> of the environment, or NULL. */
static const char *environment_value(const iso_setting_t *setting)
{
    char name[64];

    snprintf(name, sizeof name, "ISO_%s", setting->name);
    return getenv(name);
}

static void set_default(iso_params_t *params, size_t i)
{
    iso_param_value_t value;
    const bool parsed = iso_param_parse(&fields[i], settings[i].default_value, &value);

    assert(parsed);
    (void)parsed;
    memcpy(field_of(params, &fields[i]), &value, fields[i].size);
}

/* A bad value is reported and the default stands in for it. */
static iso_status_t read_environment(const iso_logger_t *logger, iso_params_t *params)
{
    iso_status_t status = ISO_OK;
    char buf[128];

    iso_params_warn_of_unknown_names(logger);
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const char *text = environment_value(&settings[i]);
        iso_param_value_t value;

        if (text == NULL) {
            set_default(params, i);
        } else if (iso_param_parse(&fields[i], text, &value)) {
            memcpy(field_of(params, &fields[i]), &value, fields[i].size);
        } else {
            set_default(params, i);
            iso_log(logger, ISO_LOG_ERROR, "ISO_%s='%s' cannot be used: give %s", settings[i].name,
                    text, iso_param_accepted(&fields[i], buf, sizeof buf));
            status = ISO_ERR_INVALID;
        }
    }
    return status;
}

iso_status_t iso_params_init_sized(iso_params_t *params, size_t struct_size)
{
    const iso_logger_t logger = iso_logger_default();
    iso_params_t complete = {.struct_size = struct_size};
    const size_t known_size = struct_size < sizeof complete ? struct_size : sizeof complete;
    iso_status_t status;

    if (params == NULL || struct_size < sizeof params->struct_size) {
        iso_log(&logger, ISO_LOG_ERROR,
                "iso_params_init_sized: params %p of %zu bytes: no struct to fill", (void *)params,
                struct_size);
        return ISO_ERR_INVALID;
    }

    status = read_environment(&logger, &complete);
    if (status != ISO_OK)
        return status;

    /* A program built with an older header has a shorter struct: its fields are all there is. One
     * built with a newer header has a longer one, of which nothing is known but that 0 is neutral.
     * A field that the shorter struct cuts in two does not exist: fields are only ever appended. */
    if (struct_size > sizeof complete)
        memset((char *)params + sizeof complete, 0, struct_size - sizeof complete);
    memcpy(params, &complete, known_size);
    return ISO_OK;
}

const iso_setting_t *iso_settings(size_t *count_p)
{
    *count_p = SETTING_COUNT;
    return settings;
}

iso_status_t iso_params_validate(const iso_logger_t *logger, const iso_params_t *params)
{
    iso_status_t status = ISO_OK;
    char fault_buf[64], accepted_buf[128];
    uint64_t end;

    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const char *fault;
        iso_param_value_t value;

        memcpy(&value, field_of(params, &fields[i]), fields[i].size);
        fault = iso_param_find_fault(&fields[i], &value, fault_buf, sizeof fault_buf);
        if (fault != NULL) {
            iso_log(logger, ISO_LOG_ERROR,
                    "ISO_%s (in iso_params_t) is %s, cannot be used: give %s", settings[i].name,
                    fault, iso_param_accepted(&fields[i], accepted_buf, sizeof accepted_buf));
            status = ISO_ERR_INVALID;
        }
    }
    if (__builtin_add_overflow(params->space_base, params->space_size, &end)) {
        iso_log(logger, ISO_LOG_ERROR,
                "ISO_SPACE_BASE 0x%" PRIx64 " and ISO_SPACE_SIZE 0x%" PRIx64
                " reach beyond the last address: lower one of them",
                params->space_base, params->space_size);
        status = ISO_ERR_INVALID;
    }
    return status;
}

/* Of params that cannot be used: what it takes to tell the other ranks so. */
static void fall_back(const iso_params_t *bad, iso_params_t *params_p)
{
    iso_params_t params = {.struct_size = sizeof params};

    for (size_t i = 0; i < SETTING_COUNT; i++)
        set_default(&params, i);
    params.caller_bootstrap = bad->caller_bootstrap;
    if (iso_param_is_module_name(bad->bootstrap))
        params.bootstrap = bad->bootstrap;
    params.module_path = bad->module_path;
    *params_p = params;
}

iso_status_t iso_params_import(const iso_logger_t *logger, const iso_params_t *given,
                               iso_params_t *params_p)
{
    iso_params_t complete = {.struct_size = sizeof complete};
    iso_status_t status = ISO_OK;

    if (given != NULL && given->struct_size < sizeof given->struct_size) {
        iso_log(logger, ISO_LOG_ERROR,
                "params have a struct_size of %zu: call iso_params_init first", given->struct_size);
        status = ISO_ERR_INVALID;
        given = NULL;
    }
    if (given == NULL || given->struct_size < sizeof complete) {
        const iso_status_t environment = read_environment(logger, &complete);
        if (status == ISO_OK)
            status = environment;
    }
    if (given != NULL) {
        memcpy(&complete, given,
               given->struct_size < sizeof complete ? given->struct_size : sizeof complete);
        complete.struct_size = sizeof complete;
    }
    for (size_t i = 0; i < SETTING_COUNT; i++)
        if ((fields[i].kind == ISO_PARAM_NAME || fields[i].kind == ISO_PARAM_STRING) &&
            *(const char **)field_of(&complete, &fields[i]) == NULL)
            set_default(&complete, i);
    if (status == ISO_OK)
        status = iso_params_validate(logger, &complete);
    if (status == ISO_OK)
        *params_p = complete;
    else
        fall_back(&complete, params_p);
    return status;
}
