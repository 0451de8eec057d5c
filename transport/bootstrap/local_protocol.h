/*
 * local_protocol.h - what iso_run and the ranks that it started say to each other.
 *
 * Each rank inherits one end of a SOCK_SEQPACKET pair; iso_run keeps the other. A message is one
 * packet, but for the two that can be long (a contribution to an allgather and its result), which
 * are split into packets that each say where their part belongs. So nothing is ever read from its
 * middle: a process that takes over the socket of one that died (`sh -c 'a; b'`) drops packets
 * whose `join` is not its own. Both sides are on one host and of one build: host byte order.
 *
 *   from a rank                              from iso_run
 *   HELLO     payload iso_local_hello_t      WELCOME   payload iso_local_hello_t, or ERROR
 *   ALLGATHER total = its length             GATHERED  total = all ranks' bytes, or ERROR
 *   BARRIER                                  PASSED, or ERROR
 *   PUBLISH   payload = the blob             (no answer)
 *   LOOKUP    rank = whose                   FOUND     payload = the blob, or ERROR
 *   BYE                                      (no answer)
 *                                            DEAD      rank = whose process is gone; any time
 *
 * A contribution above ISO_LOCAL_MAX_GATHER / size is refused: only its head is sent.
 * An ERROR has the status, the request that it answers, and one line of text without a line end.
 * Collectives have no number: the k-th of a rank belongs to the k-th of every other.
 */
#ifndef ISO_LOCAL_PROTOCOL_H
#define ISO_LOCAL_PROTOCOL_H

#include <stdint.h>

#define ISO_LOCAL_PROTOCOL 1u /* of this file: changes with any change to what is sent */

/* The environment of a rank, and of everything that it starts. */
#define ISO_LOCAL_ENV_RANK "ISO_LOCAL_RANK"
#define ISO_LOCAL_ENV_SIZE "ISO_LOCAL_SIZE"
#define ISO_LOCAL_ENV_FD "ISO_LOCAL_FD"
/* The inode of the socket: tells it from another file that has got its descriptor's number. */
#define ISO_LOCAL_ENV_SOCKET "ISO_LOCAL_SOCKET"
/* The folder of the modules that were installed with iso_run: for programs with the static library. */
#define ISO_LOCAL_ENV_MODULES "ISO_LOCAL_MODULES"

#define ISO_LOCAL_MAX_RANKS 65536u
#define ISO_LOCAL_MAX_BLOB 4096u                 /* bytes that a rank can publish */
#define ISO_LOCAL_MAX_GATHER ((uint64_t)1 << 30) /* bytes of all ranks in one allgather */
#define ISO_LOCAL_MAX_PAYLOAD 32768u             /* bytes in a packet beside its head */
#define ISO_LOCAL_MAX_TEXT 256u                  /* bytes of an error's line */

typedef enum iso_local_type {
    ISO_LOCAL_NONE = 0,
    ISO_LOCAL_HELLO = 1,
    ISO_LOCAL_WELCOME = 2,
    ISO_LOCAL_ALLGATHER = 3,
    ISO_LOCAL_GATHERED = 4,
    ISO_LOCAL_BARRIER = 5,
    ISO_LOCAL_PASSED = 6,
    ISO_LOCAL_PUBLISH = 7,
    ISO_LOCAL_LOOKUP = 8,
    ISO_LOCAL_FOUND = 9,
    ISO_LOCAL_BYE = 10,
    ISO_LOCAL_DEAD = 11,
    ISO_LOCAL_ERROR = 12
} iso_local_type_t;

typedef struct iso_local_head {
    uint32_t version; /* ISO_LOCAL_PROTOCOL; stays first, so that any two versions can tell */
    uint16_t type;    /* iso_local_type_t */
    uint16_t answers; /* of an ERROR: the type of the request */
    uint64_t join;   /* chosen by the rank for each open: what belongs to an earlier one is stale */
    uint32_t rank;   /* DEAD, LOOKUP, FOUND: whom it is about */
    int32_t status;  /* of an ERROR: iso_status_t */
    uint64_t total;  /* bytes of the whole message */
    uint64_t offset; /* of this packet's payload in it */
} iso_local_head_t;

typedef struct iso_local_packet {
    iso_local_head_t head;
    char payload[ISO_LOCAL_MAX_PAYLOAD];
} iso_local_packet_t;

/* Both sides say who the rank is: a module and a launcher that disagree must not work together. */
typedef struct iso_local_hello {
    uint32_t rank, size;
} iso_local_hello_t;

#endif
