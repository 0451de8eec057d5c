/* turns.c - see turns.h. */
#include "transport/common/turns.h"

void turns_keep(turns_t *turns, turn_t *turn, uint64_t number)
{
    turn_t **at = &turns->first;

    while (*at != NULL && (*at)->number <= number)
        at = &(*at)->next;
    turn->number = number;
    turn->next = *at;
    *at = turn;
    turns->count++;
}

turn_t *turns_take(turns_t *turns)
{
    turn_t *turn = turns->first;

    if (turn == NULL)
        return NULL;
    turns->first = turn->next;
    turns->count--;
    return turn;
}
