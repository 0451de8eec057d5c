/*
 * process.h - processes of this host as transports see them: who one is, for ever, and whether it has
 * ended.
 *
 * Compiled into every module that wants it: a module needs nothing outside itself.
 */
#ifndef TRANSPORT_COMMON_PROCESS_H
#define TRANSPORT_COMMON_PROCESS_H

#include <isomalloc/isomalloc.h>
#include <sys/types.h>

/* A process on this host, for ever: pids are used again, but not within one clock tick. */
typedef struct process_id {
    uint64_t start; /* field 22 of /proc/<pid>/stat */
    int32_t pid;    /* 0: not known */
} process_id_t;

/* Where a process is, as far as descriptors, pids and abstract sockets reach. */
typedef struct process_place {
    char boot_id[40];
    uint64_t pid_ns, net_ns, time_ns;
} process_place_t;

/* Where and who this process is; else *why_p is one static line. */
iso_status_t process_find_self(process_place_t *place_p, process_id_t *self_p, const char **why_p);
/* The other process as this one can watch it; pid 0: its place is another, or one of them is not known. */
process_id_t process_seen(const process_place_t *place, const process_id_t *self,
                          const process_place_t *its_place, const process_id_t *it);
bool process_same(const process_id_t *a, const process_id_t *b);
/* A pidfd of the process, readable when it ends. 0 or errno, ESRCH when it is gone. */
int process_watch(const process_id_t *process, int *pidfd_p);
/* Has it ended, reaped or not? */
bool process_ended(int pidfd);

#endif
