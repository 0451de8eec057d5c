/*
 * increment.c - one page of a hundred of a heap is written, in turns with an increment to the image before.
 *
 * What the program pays between two checkpoints for ISO_TRACK_WRITES, and what an increment saves by it, are both rows. Files are where
 * those of image.c are.
 */
#include "options.h"
#include "pair.h"
#include "table.h"
#include <isomalloc/checkpoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PATH_ROOM 4096
#define PAGE ((size_t)4096)
#define STEP 100 /* one page of so many */

/* Number 0 is of all pages, each other one an increment to the one before. */
static void path_of(char path[PATH_ROOM], size_t number)
{
    const char *folder = getenv("TMPDIR");
    snprintf(path, PATH_ROOM, "%s/iso_perftest.%ld.%zu", folder ? folder : "/var/tmp",
             (long)getpid(), number);
}

static double seconds_of_writes(unsigned char *block, size_t size)
{
    const double start = table_now();
    for (size_t at = 0; at < size; at += STEP * PAGE)
        block[at]++;
    return table_now() - start;
}

/* And its bytes. */
static double seconds_of_image(pair_t *pair, iso_heap_t *heap, size_t number, uint64_t *bytes_p)
{
    char path[PATH_ROOM], before[PATH_ROOM];
    iso_image_t *image;
    iso_image_info_t info;
    path_of(path, number);
    path_of(before, number - (number > 0));
    const iso_checkpoint_params_t params = {.struct_size = sizeof params,
                                            .since = number > 0 ? before : NULL};
    const double start = table_now();
    pair_check(iso_checkpoint(pair->job, path, &heap, 1, &params), "iso_checkpoint");
    const double seconds = table_now() - start;
    pair_check(iso_image_open(path, &image), "iso_image_open");
    iso_image_query(image, &info);
    iso_image_close(image);
    *bytes_p = info.bytes;
    return seconds;
}

void test_increment(pair_t *pair, const plan_t *plan, table_t *table)
{
    char path[PATH_ROOM];
    series_t written, saved;
    iso_heap_t *heap;
    uint64_t full, bytes, most = 0;
    if (!pair->first)
        return;
    pair_check(iso_heap_create(pair->job, &heap), "iso_heap_create");
    unsigned char *block = iso_malloc(heap, plan->size);
    if (!block)
        pair_fail("iso_malloc", ISO_ERR_NO_SPACE);
    for (size_t at = 0; at < plan->size; at++) /* no page is like another one */
        block[at] = (unsigned char)(at % PAGE < sizeof at ? at / PAGE >> 8 * (at % PAGE) : at * 7);
    series_open(&written, table, plan->iterations, 0);
    series_open(&saved, table, plan->iterations, plan->size);
    seconds_of_image(pair, heap, 0, &full);
    for (size_t i = 1; i <= plan->iterations + 1; i++) {
        const double stores = seconds_of_writes(block, plan->size);
        const double seconds = seconds_of_image(pair, heap, i, &bytes);
        if (i == 1)
            continue;
        most = bytes > most ? bytes : most;
        series_add(&written, stores, 1, false);
        series_add(&saved, seconds, 1, false);
    }
    for (size_t i = 0; i <= plan->iterations + 1; i++) {
        path_of(path, i);
        unlink(path);
    }
    series_row(&written, "Writes", false);
    series_row(&saved, "Final", true);
    table_result(table, "ratio %.4f of the bytes of an image of all pages",
                 (double)most / (double)full);
    series_close(&written);
    series_close(&saved);
}
