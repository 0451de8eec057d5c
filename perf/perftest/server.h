/*
 * server.h - two processes that find each other by a TCP connection: `iso_perftest` here, `iso_perftest
 * HOST` there. The client is rank 0, and says what is measured; the server is rank 1.
 *
 * The connection serves the jobs of the two as their bootstrap, one after the other. It ends with the
 * processes; if it ends before, the other process is gone. Errors are said, and end the process.
 */
#ifndef ISO_PERFTEST_SERVER_H
#define ISO_PERFTEST_SERVER_H

#include <isomalloc/bootstrap.h>
#include <stdbool.h>
#include <stddef.h>

/* What stands before everything on the connection. */
typedef struct server_frame {
    uint32_t magic, kind;
    uint64_t length; /* of what follows */
} server_frame_t;

typedef struct server {
    iso_bootstrap_t table; /* for iso_params_t::caller_bootstrap */
    int fd;
    size_t barrier_got; /* bytes of the peer's barrier that have come */
    server_frame_t barrier;
} server_t;

/* The client's end: connects to the server on host, and tells it a text. */
void server_reach(server_t *server, const char *host, size_t port, const char *text);
/* The server's end: waits for one client. *text_p is what it told; the caller frees it. */
void server_await(server_t *server, size_t port, char **text_p);
/* Tells the client that its text is understood. */
void server_ready(const server_t *server);
/* Ends the process when the other one is gone. */
void server_check(const server_t *server);
void server_close(server_t *server);

#endif
