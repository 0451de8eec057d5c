/*
 * pair.h - two ranks of a job that pass heaps to each other: what the tests are made of.
 *
 * Whatever fails ends the process with a message: there is no figure then. Ranks beyond the first two
 * take no part.
 */
#ifndef ISO_PERFTEST_PAIR_H
#define ISO_PERFTEST_PAIR_H

#include "server.h"
#include <isomalloc/isomalloc.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct pair {
    iso_job_t *job;
    iso_params_t params; /* that the job was made with */
    server_t *server;    /* the connection of client and server; NULL: a launcher's ranks */
    bool first;          /* rank 0, which has the heaps first, and prints */
    uint32_t peer;
    bool same_node; /* as the peer */

    iso_heap_t **here; /* heaps that have arrived and were not taken, the oldest first */
    size_t here_count, here_room;
    unsigned char header[ISO_HEADER_MAX]; /* of the last that arrived */
    size_t header_len;
    double arrived;    /* when it did, by table_now */
    iso_heap_t *token; /* a small heap that goes round where ranks wait or tell; NULL: not here */
    unsigned turns;
} pair_t;

_Noreturn void pair_fail(const char *what, iso_status_t status);
void pair_check(iso_status_t status, const char *what);

/* Joins: the launcher's job, or that of client and server. transport: "" is as params say. */
void pair_open(pair_t *pair, const char *transport, server_t *server);
/* Collective, like iso_finalize. Heaps that are left are gone. */
void pair_close(pair_t *pair);

/* Sends heaps away at once, with a header, and waits until all are the peer's. */
void pair_send(pair_t *pair, iso_heap_t **heaps, size_t count, const void *header, size_t len);
/* Spins in progress until so many heaps have come, and takes them. */
void pair_receive(pair_t *pair, iso_heap_t **heaps, size_t count);
/* Heaps that rank 0 has go to rank 1, all at once, and back; half of the time, in seconds. */
double pair_round_trip(pair_t *pair, iso_heap_t **heaps, size_t count);
/* One turn of a wait: progress, and now and then a look whether the peer is still there. */
void pair_turn(pair_t *pair);

/* Bytes from each to the other, up to ISO_HEADER_MAX; both call it at the same time. turn (or NULL) is
 * called while waiting, for what else needs progress. */
void pair_exchange(pair_t *pair, const void *mine, void *theirs, size_t len,
                   void (*turn)(void *arg), void *arg);

#endif
