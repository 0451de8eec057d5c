/* pair.c - see pair.h. */
#include "pair.h"
#include "table.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TURNS_A_LOOK 10000 /* of pair_turn, between two looks at the connection */

_Noreturn void pair_fail(const char *what, iso_status_t status)
{
    fprintf(stderr, "iso_perftest: %s: %s\n", what, iso_status_string(status));
    exit(1);
}

void pair_check(iso_status_t status, const char *what)
{
    if (status != ISO_OK)
        pair_fail(what, status);
}

static void on_arrival(iso_job_t *job, const iso_arrival_t *arrival, void *arg)
{
    pair_t *pair = arg;
    (void)job;
    pair->arrived = table_now();
    if (pair->here_count == pair->here_room) {
        size_t room = pair->here_room ? 2 * pair->here_room : 64;
        iso_heap_t **here = realloc(pair->here, room * sizeof(iso_heap_t *));
        if (!here)
            pair_fail("the list of arrived heaps", ISO_ERR_NO_MEMORY);
        pair->here = here;
        pair->here_room = room;
    }
    pair->here[pair->here_count++] = arrival->heap;
    pair->header_len = arrival->header_len;
    memcpy(pair->header, arrival->header, arrival->header_len);
}

void pair_open(pair_t *pair, const char *transport, server_t *server)
{
    *pair = (pair_t){.server = server};
    pair_check(iso_params_init(&pair->params), "settings");
    if (*transport) {
        pair->params.transport = transport;
        if (pair->params.node_size == 0)
            pair->params.node_size =
                1; /* or the transport between nodes would have nothing to do */
    }
    if (server)
        pair->params.caller_bootstrap = &server->table;
    pair->params.arrival = on_arrival;
    pair->params.arrival_arg = pair;
    pair_check(iso_init(&pair->params, &pair->job), "iso_init");
    pair->first = iso_rank(pair->job) == 0;
    pair->peer = pair->first ? 1 : 0;
    if (iso_size(pair->job) > 1)
        pair_check(iso_same_node(pair->job, pair->peer, &pair->same_node), "iso_same_node");
    if (pair->first && iso_size(pair->job) > 1)
        pair_check(iso_heap_create(pair->job, &pair->token), "iso_heap_create");
}

void pair_close(pair_t *pair)
{
    pair_check(iso_finalize(pair->job), "iso_finalize");
    free(pair->here);
    *pair = (pair_t){0};
}

void pair_turn(pair_t *pair)
{
    iso_progress(pair->job);
    if (pair->server && ++pair->turns % TURNS_A_LOOK == 0)
        server_check(pair->server);
}

/* Starts them all and waits for all; turn as pair_exchange has it. */
static void send(pair_t *pair, iso_heap_t **heaps, size_t count, const void *header, size_t len,
                 void (*turn)(void *arg), void *arg)
{
    iso_request_t *few[16], **requests = few;
    if (count > sizeof few / sizeof *few)
        requests = malloc(count * sizeof(iso_request_t *));
    if (!requests)
        pair_fail("the list of requests", ISO_ERR_NO_MEMORY);
    for (size_t i = 0; i < count; i++)
        pair_check(iso_migrate(heaps[i], pair->peer, header, len, &requests[i]), "iso_migrate");
    for (size_t i = 0; i < count; i++) {
        iso_status_t status;
        while ((status = iso_test(requests[i])) == ISO_INPROGRESS)
            if (turn)
                turn(arg);
        pair_check(status, "a migration");
    }
    if (requests != few)
        free(requests);
}

void pair_send(pair_t *pair, iso_heap_t **heaps, size_t count, const void *header, size_t len)
{
    send(pair, heaps, count, header, len, NULL, NULL);
}

static void take(pair_t *pair, iso_heap_t **heaps, size_t count)
{
    memcpy(heaps, pair->here, count * sizeof(iso_heap_t *));
    pair->here_count -= count;
    memmove(pair->here, pair->here + count, pair->here_count * sizeof(iso_heap_t *));
}

void pair_receive(pair_t *pair, iso_heap_t **heaps, size_t count)
{
    while (pair->here_count < count)
        pair_turn(pair);
    take(pair, heaps, count);
}

double pair_round_trip(pair_t *pair, iso_heap_t **heaps, size_t count)
{
    double start = table_now();
    if (pair->first)
        pair_send(pair, heaps, count, NULL, 0);
    pair_receive(pair, heaps, count);
    if (!pair->first)
        pair_send(pair, heaps, count, NULL, 0);
    return (table_now() - start) / 2;
}

static void receive_token(pair_t *pair, void *theirs, size_t len, void (*turn)(void *arg),
                          void *arg)
{
    while (pair->here_count < 1) {
        pair_turn(pair);
        if (turn)
            turn(arg);
    }
    take(pair, &pair->token, 1);
    if (pair->header_len != len)
        pair_fail("what the other rank tells", ISO_ERR_INVALID);
    memcpy(theirs, pair->header, len);
}

void pair_exchange(pair_t *pair, const void *mine, void *theirs, size_t len,
                   void (*turn)(void *arg), void *arg)
{
    if (!pair->first)
        receive_token(pair, theirs, len, turn, arg);
    send(pair, &pair->token, 1, mine, len, turn, arg);
    pair->token = NULL;
    if (pair->first)
        receive_token(pair, theirs, len, turn, arg);
}
