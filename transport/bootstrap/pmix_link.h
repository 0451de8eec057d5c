/*
 * pmix_link.h - this process as a client of its launcher's PMIx server.
 *
 * A process initialises PMIx once, at the first open, and finalizes it when it exits: the servers of
 * the launchers in use do not take a client back in. MPI in the same process initialises it too; PMIx
 * counts.
 *
 * PMIx calls back in a thread of its own. What its callbacks change is marked, and guarded by `lock`;
 * everything else belongs to the thread that calls the bootstrap.
 */
#ifndef ISO_PMIX_LINK_H
#define ISO_PMIX_LINK_H

#include "transport/common/news.h"
#include <isomalloc/bootstrap.h>
#include <pmix.h>
#include <pthread.h>
#include <sys/types.h>

/* The watch over another rank of the host, see pmix_watch.h. A descriptor is -1 while unused. */
typedef struct iso_pmix_watch {
    int claim_fd;    /* listens under this rank's name: this process is the rank */
    int bye_fd;      /* connected to the watched rank's claim_fd */
    int pid_fd;      /* its process */
    uint32_t fences; /* passed in this open */
    uint32_t rank;   /* who is watched, if pid_fd >= 0 */
} iso_pmix_watch_t;

typedef struct iso_pmix_link {
    void (*log)(iso_log_level_t level, const char *text);
    pmix_proc_t self;
    uint32_t size;
    pid_t pid; /* that initialised PMIx: a forked child must not speak for it; 0: none has */
    uint32_t *host_ranks, host_count; /* ascending; 0: the launcher does not say */
    bool keeps_survivors;             /* of a death, as far as the launcher says */
    uint32_t opens;                   /* which open this is; part of every key */
    uint32_t round;                   /* collectives with data since */
    bool partial;                     /* somebody was missing in the last blocking fence */
    iso_pmix_watch_t watch;

    pthread_mutex_t lock; /* guards the rest, which PMIx's thread reads and writes */
    bool open;
    news_t news;       /* of the watched rank's pid_fd, and of what nobody has fetched */
    bool barrier_open; /* started, its end not fetched */
    uint64_t fences_started, fences_ended; /* of those in two halves, in all opens */
    pmix_status_t fence_status;            /* of the last that ended */
    uint32_t *dead; /* in the order in which they became known, from all opens */
    uint32_t dead_count, dead_room, dead_fetched;
} iso_pmix_link_t;

void iso_pmix_log(const iso_pmix_link_t *link, iso_log_level_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What PMIx says has gone wrong, logged: ISO_ERR_SYSTEM. */
iso_status_t iso_pmix_failed(const iso_pmix_link_t *link, const char *call, pmix_status_t error);
/* Raises or lowers `news` by what is unfetched now. The lock is held. */
void iso_pmix_settle(iso_pmix_link_t *link);

/* Initialises PMIx, the first time, and asks for this rank's place. Logged. */
iso_status_t iso_pmix_join(iso_pmix_link_t *link);

/* Puts bytes where other ranks get them once a fence has followed. Logged. */
iso_status_t iso_pmix_put(iso_pmix_link_t *link, const char *what, const void *data, size_t len);
/* The key of this open for it. */
void iso_pmix_key(const iso_pmix_link_t *link, const char *what, pmix_key_t key);

/* Deaths become known by the launcher's events, by other ranks' of this host, and by the watch. */
bool iso_pmix_is_dead(iso_pmix_link_t *link, uint32_t rank);
void iso_pmix_add_dead(iso_pmix_link_t *link, uint32_t rank);
bool iso_pmix_next_dead(iso_pmix_link_t *link, uint32_t *rank_p);
/* Tells the other ranks of this host. */
void iso_pmix_tell_dead(iso_pmix_link_t *link, uint32_t rank);

#endif
