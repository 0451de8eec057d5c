/*
 * iso_run.h - the parts of the launcher iso_run, and what they share.
 *
 *   iso_run.c             main, and the keeper: the process that outlives all others of the job
 *   iso_run_options.c     the command line
 *   iso_run_children.c    starting a rank, describing its end, killing what is left over
 *   iso_run_job.c         the life of the job: ends of ranks, signals, time limits; the event loop
 *   iso_run_link.c        the conversation with each rank: packets in, packets out
 *   iso_run_collective.c  matching the ranks' allgathers and barriers
 *
 * Two processes. The keeper (whose pid the caller of iso_run knows) forks the server, which starts
 * the ranks and serves them. Both adopt orphans, so whichever is killed, the other one finds every
 * process of the job and ends it. The server is one thread around one epoll.
 */
#ifndef ISO_RUN_H
#define ISO_RUN_H

#include "local_protocol.h"
#include <isomalloc/isomalloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>

/* Exit statuses, as env(1) and timeout(1) have them. */
#define ISO_RUN_FAILED 1
#define ISO_RUN_USAGE 2
#define ISO_RUN_TIMED_OUT 124
#define ISO_RUN_CANNOT_EXECUTE 126
#define ISO_RUN_NOT_FOUND 127
#define ISO_RUN_SIGNAL_BASE 128

#define ISO_RUN_GRACE 2.0   /* seconds between asking a job's processes to end and killing them */
#define ISO_RUN_VERDICT 1.0 /* ... that a wrapper has to report the end of the rank inside it */
#define ISO_RUN_ABANDON 5.0 /* ... that a killed process has to end */
#define ISO_RUN_QUEUE 4     /* answers that can wait for a rank: see iso_run_link.c */
#define ISO_RUN_LINE 512    /* bytes of a message to people */

typedef struct iso_run_options {
    uint32_t size;
    bool keep_going;
    bool no_aslr;
    double timeout; /* seconds; 0: none */
    char **argv;    /* the program and its arguments, up to NULL */
} iso_run_options_t;

/* Bytes that several ranks may be sent at their own pace. */
typedef struct iso_run_bytes {
    uint32_t refs;
    uint64_t len;
    char data[];
} iso_run_bytes_t;

/* A message on its way to a rank. */
typedef struct iso_run_message {
    iso_local_head_t head;    /* total and offset are filled in as it is sent */
    iso_run_bytes_t *payload; /* NULL: none; the message holds a reference */
    uint64_t sent;            /* bytes of it */
} iso_run_message_t;

typedef struct iso_run_rank {
    uint32_t rank;

    /* Processes. The rank is over when both have ended, and gone from the collectives then at the
     * latest; it never comes back. */
    pid_t pid;        /* the process that was started: the program, or a wrapper around it */
    bool reaped;      /* it has ended, with wait_status */
    int wait_status;  /* of waitpid */
    bool judged;      /* what follows from its end has been done */
    pid_t member_pid; /* the process that has said HELLO last, if it lives; often pid itself */
    int member_fd;    /* its pidfd, where it is not pid; else -1 */
    bool over, gone;
    double verdict_at; /* when to give up on a rank that lost its member or its socket; 0: not */

    /* Conversation. */
    int fd;           /* the socket; -1 once the rank is over */
    uint32_t watched; /* the events that epoll waits for */
    bool in_epoll;
    bool closed;    /* nobody holds the other end any more */
    bool suspended; /* its next collective cannot be served before the current one ends */
    bool blocked;   /* its socket has no room for what is queued */
    bool joined;    /* HELLO, and no BYE after it */
    uint64_t join;  /* of that HELLO */
    uint32_t deaths_told, deaths_at_join; /* positions in the job's list of deaths */
    iso_run_message_t queue[ISO_RUN_QUEUE];
    uint32_t queued;
    iso_run_bytes_t *blob; /* published; NULL: nothing */

    /* Its part of the current collective. */
    bool contributing;           /* some packets have come */
    bool arrived;                /* all of them */
    uint16_t request;            /* which kind it called */
    uint64_t arrived_join;       /* in which membership: a later one gets no answer */
    bool death_noted, end_noted; /* is it in the list of deaths, and as what */
} iso_run_rank_t;

/* The collective that the ranks are in: there is only one, the next one starts when it has ended. */
typedef struct iso_run_collective {
    bool open;
    uint16_t kind;    /* ISO_LOCAL_ALLGATHER or ISO_LOCAL_BARRIER: as its first rank called it */
    uint64_t len;     /* of a contribution */
    uint32_t first;   /* that rank */
    uint32_t arrived; /* ranks */
    iso_run_bytes_t *gather;
    iso_run_bytes_t *error; /* once it has failed: what every rank is told as it arrives */
    iso_status_t status;    /* with the error */
} iso_run_collective_t;

/* A rank that has ended. One that had left the job in order (`orderly`) is no news to the ranks that
 * were in the job with it; to those that join later, and to all if they miss it, it is. */
typedef struct iso_run_death {
    uint32_t rank;
    bool orderly;
} iso_run_death_t;

typedef struct iso_run_job {
    const iso_run_options_t *options;
    pid_t keeper, self;
    sigset_t original_mask; /* what the ranks get back */
    struct rlimit original_files;
    void (*original_sigpipe)(int);
    int null_fd; /* /dev/null; in a rank its number becomes the socket's */
    int epoll_fd, signal_fd, keeper_fd;
    double timeout_at, kill_at, abandon_at; /* 0: not */

    iso_run_rank_t *ranks;
    uint32_t over, gone;
    iso_run_death_t *deaths; /* room for two of each rank */
    uint32_t death_count;
    iso_run_collective_t collective;

    int exit_status; /* of the first that failed */
    bool ending;     /* all are to end; what is asked for from now on is refused: */
    iso_status_t end_status;
    char end_text[ISO_LOCAL_MAX_TEXT];
    iso_local_packet_t packet; /* the one being taken in */
} iso_run_job_t;

/* ---- iso_run_options.c ------------------------------------------------------------------------- */

/* Reads the command line. Returns true, or false with the status to exit with (0 after --help). */
bool iso_run_options_read(int argc, char **argv, iso_run_options_t *options_p, int *exit_status_p);

/* One line to stderr, "iso_run: ...", in one write. */
void iso_run_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- iso_run_children.c ------------------------------------------------------------------------ */

/* Starts the rank's process, connected by rank->fd. 0, or a status to exit with: it said why. */
int iso_run_child_start(iso_run_job_t *job, iso_run_rank_t *rank);

/* "exited with status 3", "was killed by signal 11 (Segmentation fault), core dumped". */
void iso_run_child_describe(int wait_status, char *text, size_t room);

/* Kills and reaps all children of this process, and those that it inherits from them, until none is
 * left; names those that do not end in ISO_RUN_ABANDON seconds. */
void iso_run_children_kill(void);

int iso_run_pidfd_open(pid_t pid);
int iso_run_pidfd_signal(int pidfd, int signal);

/* ---- iso_run_job.c ----------------------------------------------------------------------------- */

/* Runs the job from start to end; returns the status to exit with. `signals` are blocked and ours. */
int iso_run_job_run(const iso_run_options_t *options, pid_t keeper, const sigset_t *signals,
                    const sigset_t *original_mask);

/* Begins to end the job: `signal` to all that live, SIGKILL after the grace. Ranks that wait are told
 * `status` and `text`. The first reason counts. `from_terminal`: the signal came from the terminal,
 * so those in our process group have it already. */
void iso_run_job_end(iso_run_job_t *job, int exit_status, int signal, bool from_terminal,
                     iso_status_t status, const char *text);

/* Puts an ended rank on the list of deaths, and tells the ranks whose news it is. */
void iso_run_job_note_death(iso_run_job_t *job, iso_run_rank_t *rank, bool orderly);

double iso_run_now(void); /* seconds, monotonic */

/* What epoll gives back: which descriptor, of which rank. */
typedef enum iso_run_source {
    ISO_RUN_SIGNAL = 0,
    ISO_RUN_KEEPER = 1,
    ISO_RUN_LINK = 2,
    ISO_RUN_MEMBER = 3
} iso_run_source_t;
/* True, or false with errno. */
bool iso_run_watch(const iso_run_job_t *job, int operation, int fd, uint32_t events,
                   iso_run_source_t source, uint32_t rank);

/* ---- iso_run_link.c ---------------------------------------------------------------------------- */

/* Serves what the rank has sent: up to `limit` packets. */
void iso_run_link_read(iso_run_job_t *job, iso_run_rank_t *rank, unsigned limit);
/* Sends what is due, as far as there is room. */
void iso_run_link_pump(iso_run_job_t *job, iso_run_rank_t *rank);
void iso_run_link_event(iso_run_job_t *job, iso_run_rank_t *rank, uint32_t events);
/* Waits for what can happen next on the socket. */
void iso_run_link_watch(iso_run_job_t *job, iso_run_rank_t *rank);
/* Drops what nobody will read any more. */
void iso_run_link_clear(iso_run_rank_t *rank);
void iso_run_link_close(iso_run_job_t *job, iso_run_rank_t *rank);

/* Queues an answer; the payload's reference stays the caller's. */
void iso_run_link_answer(iso_run_job_t *job, iso_run_rank_t *rank, uint16_t type, uint32_t about,
                         iso_run_bytes_t *payload);
void iso_run_link_refuse(iso_run_job_t *job, iso_run_rank_t *rank, uint16_t request,
                         iso_status_t status, iso_run_bytes_t *text);

/* Zeroed, with one reference; NULL: no memory. */
iso_run_bytes_t *iso_run_bytes_new(uint64_t len);
/* A few bytes: no memory for them ends iso_run, and so the job. */
iso_run_bytes_t *iso_run_bytes_copy(const void *data, size_t len);
void iso_run_bytes_drop(iso_run_bytes_t *bytes);

/* ---- iso_run_collective.c ---------------------------------------------------------------------- */

/* A packet of a rank's call of a collective. */
void iso_run_collective_part(iso_run_job_t *job, iso_run_rank_t *rank, const iso_local_head_t *head,
                             const char *payload, size_t len);
/* After a rank has gone: can the collective end without it, or not at all? */
void iso_run_collective_check(iso_run_job_t *job);
/* What the rank has sent of an unfinished contribution does not count. */
void iso_run_collective_forget(iso_run_job_t *job, iso_run_rank_t *rank);
/* The job is ending: whoever waits is told so. */
void iso_run_collective_abandon(iso_run_job_t *job);

#endif
