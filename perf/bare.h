/*
 * bare.h - what the programs share that measure a network's library alone (ucx_put, ofi_put): two processes, what
 * they tell each other before they are connected, the loops that are timed, the options and the table.
 *
 * A program describes its network by a table of functions; all of them end the process with a line when something
 * fails. Both processes call set_up and tear_down, which wait for each other.
 */
#ifndef ISO_BARE_H
#define ISO_BARE_H

#include "perftest/table.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct bare_options {
    size_t size, iterations, warm_up, outstanding, message;
    bool latency;
    bool errors_handled; /* -e, where the network knows it */
    table_format_t format;
} bare_options_t;

typedef struct bare_network bare_network_t;

/* One of the two processes; the beginning of a struct of the network's own. */
typedef struct bare_side {
    const bare_network_t *network;
    const bare_options_t *options;
    bool source;   /* puts first, and prints */
    pid_t child;   /* of the source */
    int socket;    /* to the other side, for what is told before there is a connection */
    char *memory;  /* options->outstanding puts' worth */
    size_t length; /* of it, and of the other side's */
    char *message; /* options->message bytes */
    unsigned looks;
} bare_side_t;

struct bare_network {
    const char *program, *transport;
    const char *purpose;  /* sentences of the usage after its first line */
    bool knows_errors;    /* -e */
    const char *of_error; /* its line of the usage */
    void (*note)(const bare_side_t *side, table_t *table);
    void (*set_up)(bare_side_t *side);
    void (*put)(bare_side_t *side, size_t slot);    /* begins one, from and to the slot's memory */
    void (*finish)(bare_side_t *side, size_t slot); /* waits until the slot can be used again */
    void (*flush)(bare_side_t *side); /* all puts that have finished are at the peer */
    void (*send)(bare_side_t *side);
    void (*await)(bare_side_t *side); /* the next message */
    void (*tear_down)(bare_side_t *side);
};

/* bare_main.c: runs the two processes; side has the size of the network's own struct. */
int bare_main(const bare_network_t *network, bare_side_t *side, int argc, char **argv);
/* To be called while waiting: ends the process when the other has ended. */
void bare_look(bare_side_t *side);
__attribute__((noreturn)) void bare_fail(const bare_side_t *side, const char *what,
                                         const char *why); /* cppcheck overlooks _Noreturn */

/* bare_tell.c */
void bare_tell(const bare_side_t *side, const void *data, size_t len);
/* Has the other side told a byte? It is taken. */
bool bare_heard(const bare_side_t *side);
/* A blob to the other side and back its own, of which *len_p (if not NULL) is the length. The caller frees. */
void *bare_swap(const bare_side_t *side, const void *mine, uint64_t len, uint64_t *len_p);

/* bare_options.c */
void bare_options_read(const bare_network_t *network, int argc, char **argv,
                       bare_options_t *options);

/* bare_loop.c: the timed loops. */
void bare_bandwidth(bare_side_t *side, table_t *table);
void bare_latency(bare_side_t *side, table_t *table);

#endif
