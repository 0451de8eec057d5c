/*
 * local_link.h - a rank's side of the socket to iso_run: packets out, packets in, and what they say.
 *
 * Taking in a packet changes the link's state (an answer has come, a barrier has passed, a rank has
 * died); the functions of the bootstrap table in local.c look at that state. Whatever comes while
 * they wait for something else is kept, and the link's `news` stay readable until it is fetched.
 */
#ifndef ISO_LOCAL_LINK_H
#define ISO_LOCAL_LINK_H

#include "local_protocol.h"
#include "transport/common/news.h"
#include <isomalloc/bootstrap.h>
#include <sys/types.h>

/* The request that a caller waits for: at most one, since those requests block. */
typedef struct iso_local_wait {
    uint16_t request; /* its iso_local_type_t; ISO_LOCAL_NONE: nobody waits */
    char *into;       /* where the payload of the answer goes */
    uint64_t room;    /* there */
    uint64_t have;    /* bytes of the answer that have come */
    bool done;
    iso_status_t status; /* once done */
} iso_local_wait_t;

typedef struct iso_local_link {
    void (*log)(iso_log_level_t level, const char *text);
    uint32_t rank, size;
    pid_t pid;     /* the process that opened it: a forked child must not speak for it */
    int fd;        /* the socket; inherited, never closed */
    news_t news;   /* of the socket, and of what was taken in and nobody has fetched */
    uint64_t join; /* of this open */
    bool lost;     /* iso_run is gone, or talks nonsense: logged, nothing works any more */

    iso_local_wait_t wait;
    bool barrier_open;           /* started, its end not fetched */
    bool barrier_done;           /* ... and it has ended */
    iso_status_t barrier_status; /* once done */
    uint32_t *dead;              /* in the order in which they became known; room for all */
    uint32_t dead_count, dead_fetched;
    iso_local_packet_t packet; /* the one being taken in */
} iso_local_link_t;

void iso_local_log(const iso_local_link_t *link, iso_log_level_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Sends a message, in as many packets as it takes; takes in what comes while there is no room.
 * ISO_ERR_SYSTEM: iso_run is gone. */
iso_status_t iso_local_send(iso_local_link_t *link, uint16_t type, uint32_t rank, const void *data,
                            size_t len);

/* Takes in what has come, without waiting. */
iso_status_t iso_local_take_all(iso_local_link_t *link);

/* Before a blocking request is sent: where its answer goes. It may come while the rest of the
 * request is still being sent (a contribution that is refused). */
void iso_local_expect(iso_local_link_t *link, uint16_t request, void *into, uint64_t room);
/* Waits for that answer; *len_p: its length. Its end is the status that iso_run gave. */
iso_status_t iso_local_wait(iso_local_link_t *link, uint64_t *len_p);

/* Raises or lowers `news` by what is unfetched now: at the end of every call of the table. */
void iso_local_settle(iso_local_link_t *link);

#endif
