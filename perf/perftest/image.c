/*
 * image.c - a heap is saved to a file, in turns with dd, which writes the same bytes to another one.
 *
 * Both write a new file, which takes the place of the one of the round before when its bytes are on the disk. The files are in TMPDIR, or in /var/tmp, which is on a disk where /tmp is not.
 */
#include "load.h"
#include "options.h"
#include "pair.h"
#include "table.h"
#include <isomalloc/checkpoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATH_ROOM 4096

static void path_of(char path[PATH_ROOM], const char *name)
{
    const char *folder = getenv("TMPDIR");
    snprintf(path, PATH_ROOM, "%s/iso_perftest.%ld.%s", folder ? folder : "/var/tmp",
             (long)getpid(), name);
}

/* false: it has failed; no file of this name is left. */
static bool run_dd(const char *from, const char *to)
{
    char in[PATH_ROOM + 3], out[PATH_ROOM + 8], *part = out + 3;
    int status = -1;
    snprintf(in, sizeof in, "if=%s", from);
    snprintf(out, sizeof out, "of=%s.part", to);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("dd", "dd", in, out, "bs=1M", "conv=fsync", "status=none", (char *)NULL);
        _exit(127);
    }
    if (pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 && rename(part, to) == 0)
        return true;
    unlink(part);
    unlink(to);
    return false;
}

void test_checkpoint(pair_t *pair, const plan_t *plan, table_t *table)
{
    char image[PATH_ROOM], copy[PATH_ROOM];
    series_t of_dd, saved, ratios;
    if (!pair->first)
        return;
    iso_heap_t *heap = load_new(pair, plan->size, plan->node_size);
    path_of(image, "image");
    path_of(copy, "copy");
    series_open(&of_dd, table, plan->iterations, plan->size);
    series_open(&saved, table, plan->iterations, plan->size);
    series_open(&ratios, table, plan->iterations, 0);
    for (size_t i = 0; i <= plan->iterations; i++) {
        double start = table_now();
        iso_status_t status = iso_checkpoint(pair->job, image, &heap, 1, NULL);
        double seconds = table_now() - start;
        const bool copied = status == ISO_OK && run_dd(image, copy);
        if (!copied)
            unlink(image);
        pair_check(status, "iso_checkpoint");
        if (!copied)
            pair_fail("dd", ISO_ERR_SYSTEM);
        double dd = table_now() - start - seconds;
        if (i == 0) /* the files of the others are there already */
            continue;
        series_add(&of_dd, dd, 1, false);
        series_add(&saved, seconds, 1, false);
        series_add(&ratios, dd / seconds, 1, false);
    }
    unlink(image);
    unlink(copy);
    series_row(&of_dd, "dd", false);
    series_row(&saved, "Final", true);
    table_result(table, "ratio %.2f of dd's rate", series_typical(&ratios));
    series_close(&of_dd);
    series_close(&saved);
    series_close(&ratios);
}
