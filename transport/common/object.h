/*
 * object.h - memory objects of peers on this host, opened here, and what else of a peer's descriptors is reached.
 *
 * Compiled into every module that wants it: a module needs nothing outside itself.
 */
#ifndef TRANSPORT_COMMON_OBJECT_H
#define TRANSPORT_COMMON_OBJECT_H

#include "transport/common/process.h"
#include <isomalloc/transport.h>

/* A peer's memory object; one for all rkeys that name it. */
typedef struct object {
    struct object *next; /* in a list of the instance */
    uint32_t rank;
    int remote_fd;
    uint64_t inode;
    int fd;
    uint32_t users;
} object_t;

/* A range of one, as its owner names it. */
typedef struct object_part {
    int32_t fd; /* the owner's; open there until the range is deregistered */
    uint64_t inode, offset, length;
} object_part_t;

/* Opens again what descriptor fd of the process refers to; logs why not. what: "memory" */
iso_status_t object_reach(const iso_transport_host_t *host, uint32_t rank,
                          const process_id_t *process, int fd, const char *what, int *fd_p);
/* May this process write at `length` of a file? Beyond RLIMIT_FSIZE a signal would end it. */
iso_status_t object_limit(const iso_transport_host_t *host, uint64_t length);
/* A memory object that has bytes [offset, offset + length)? */
bool object_holds(int fd, uint64_t offset, uint64_t length, uint64_t *inode_p);
/* Finds it in the list, or opens it, for one user more. */
iso_status_t object_open(const iso_transport_host_t *host, object_t **all, uint32_t rank,
                         const process_id_t *process, const object_part_t *part,
                         object_t **object_p);
/* One user less; true: there is none any more, close it. */
bool object_leave(object_t *object);
void object_close(object_t **all, object_t *object);

#endif
