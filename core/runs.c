/* runs.c - see runs.h. */
#include "core/runs.h"
#include <stdlib.h>

bool iso_runs_add(iso_runs_t *runs, uintptr_t address, size_t length)
{
    if (runs->count == runs->room) {
        size_t room = runs->room ? runs->room * 2 : 16;
        iso_run_t *list = realloc(runs->list, room * sizeof *list);
        if (!list)
            return false;
        runs->list = list;
        runs->room = room;
    }
    runs->list[runs->count++] = (iso_run_t){address, length};
    runs->bytes += length;
    return true;
}

void iso_runs_free(iso_runs_t *runs)
{
    free(runs->list);
    runs->list = NULL;
    runs->count = runs->room = 0;
}
