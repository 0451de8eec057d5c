/*
 * bootstrap.h - how the ranks of a job find each other before a transport exists.
 *
 * A bootstrap is a table of functions: a module (libisomalloc-<name>.so that exports the symbol
 * iso_bootstrap_module, an iso_bootstrap_module_t) or the caller's own (iso_params_t::
 * caller_bootstrap). It knows ranks and bytes, nothing of spaces or heaps.
 *
 * Calls come from one thread at a time. All functions that say "collective" are called by every rank
 * in the same order. A rank that dies must not hang them: they fail, or, where the launcher keeps
 * survivors, go on without it (its part of what is gathered is then zeros).
 */
#ifndef ISOMALLOC_BOOTSTRAP_H
#define ISOMALLOC_BOOTSTRAP_H

#include <isomalloc/isomalloc.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_BOOTSTRAP_ABI 2u

typedef struct iso_bootstrap {
    uint32_t abi_version; /* ISO_BOOTSTRAP_ABI */
    const char *name;     /* for messages */
    void *ctx;            /* first argument of every function */
    uint32_t rank, size;

    /* Collective, blocking: len bytes of each rank to all, in rank order. */
    iso_status_t (*allgather)(void *ctx, const void *mine, void *all, size_t len);

    /* Optional, both or neither: for a start whose cost for a rank does not grow with the job. Without
     * them the library uses allgather.
     * gather: collective, blocking: of the `count` ranks that this one names (each rank may name
     * others, in any number) their len bytes, in the order named. mine NULL: nobody names this rank. len is
     * the same at a rank and at those that name it.
     * host_ranks: the ranks of this rank's host, ascending, itself among them. */
    iso_status_t (*gather)(void *ctx, const void *mine, size_t len, const uint32_t *ranks,
                           uint32_t count, void *theirs);
    const uint32_t *host_ranks;
    uint32_t host_count;

    /* Optional pair (both or neither): a rank publishes one blob (up to 4 KiB); any rank looks it up
     * at any time after the next collective, blocking. *len_p: room on entry, length on return.
     * Without the pair, the library exchanges the blobs by allgather and keeps them all. */
    iso_status_t (*publish)(void *ctx, const void *blob, size_t len);
    iso_status_t (*lookup)(void *ctx, uint32_t rank, void *blob, size_t *len_p);

    /* Collective, in two halves: start, then test until it is no longer ISO_INPROGRESS. */
    iso_status_t (*barrier_start)(void *ctx);
    iso_status_t (*barrier_test)(void *ctx);

    /* Optional. A rank that the launcher knows to be dead, each reported once: ISO_OK and
     * *rank_p, or ISO_INPROGRESS when there is none (yet). */
    iso_status_t (*next_dead)(void *ctx, uint32_t *rank_p);

    /* Readable when barrier_test or next_dead may have news; -1: none, they are then polled. */
    int event_fd;

    /* Optional. Ends the membership; the table is not used afterwards. */
    void (*close)(void *ctx);
} iso_bootstrap_t;

/* What a bootstrap module exports as the symbol `iso_bootstrap_module`. */
typedef struct iso_bootstrap_module {
    uint32_t abi_version; /* ISO_BOOTSTRAP_ABI */
    const char *name;
    /* Was this process started by the module's launcher? Looks at the environment only. */
    bool (*detect)(void);
    /* Joins; the table at *bootstrap_p lives until its close. log (never NULL) takes one line. */
    iso_status_t (*open)(void (*log)(iso_log_level_t level, const char *text),
                         iso_bootstrap_t **bootstrap_p);
} iso_bootstrap_module_t;

#define ISO_BOOTSTRAP_MODULE_SYMBOL "iso_bootstrap_module"

#ifdef __cplusplus
}
#endif
#endif
