/*
 * turns.h - messages of a peer that are kept until their turn comes.
 *
 * A network that promises no order may hand over a message before those that were sent before it, and one whose turn it is
 * may have to wait for something else. So each has a number, they are handled in the order of the numbers, and what comes
 * too early is kept here. A number may come twice: the second is one once more, to be dropped.
 *
 * Compiled into every module that wants it: a module needs nothing outside itself.
 */
#ifndef TRANSPORT_COMMON_TURNS_H
#define TRANSPORT_COMMON_TURNS_H

#include <stddef.h>
#include <stdint.h>

/* A part of a message. */
typedef struct turn {
    struct turn *next; /* in turns.first */
    uint64_t number;
} turn_t;

/* Of one peer. */
typedef struct turns {
    turn_t *first; /* by number, and of one number as they came */
    unsigned count;
    uint64_t heard; /* number of the message whose turn it is */
} turns_t;

void turns_keep(turns_t *turns, turn_t *turn, uint64_t number);
/* The first, where it is its turn, or its turn has been (its number is less than turns.heard); NULL: none. */
static inline turn_t *turns_due(const turns_t *turns)
{
    return turns->first != NULL && turns->first->number <= turns->heard ? turns->first : NULL;
}
/* The first is not kept any more; NULL: there was none. */
turn_t *turns_take(turns_t *turns);

#endif
