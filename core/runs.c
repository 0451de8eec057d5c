/* runs.c - see runs.h. */
#include "core/runs.h"
#include <stdlib.h>
#include <string.h>

bool iso_runs_add(iso_runs_t *runs, uintptr_t address, size_t length)
{
    if (runs->count == runs->room) {
        size_t room = runs->room ? runs->room * 2 : 16;
        iso_run_t *list = realloc(runs->is_lent ? NULL : runs->list, room * sizeof *list);
        if (!list)
            return false;
        if (runs->is_lent)
            memcpy(list, runs->list, runs->count * sizeof *list);
        runs->list = list;
        runs->room = room;
        runs->is_lent = false;
    }
    runs->list[runs->count++] = (iso_run_t){address, length};
    runs->bytes += length;
    return true;
}

void iso_runs_lend(iso_runs_t *runs, iso_run_t *list, size_t room)
{
    runs->list = list;
    runs->room = room;
    runs->is_lent = true;
}

void iso_runs_free(iso_runs_t *runs)
{
    if (!runs->is_lent)
        free(runs->list);
    runs->list = NULL;
    runs->count = runs->room = 0;
    runs->is_lent = false;
}
