/* image.c - see image.h. */
#include "image.h"
#include "index.h"
#include <isomalloc/checkpoint.h>
#include <string.h>

static const char tag[] = "index of iso_demo"; /* tells its images from others' */

iso_status_t index_save(iso_job_t *job, iso_heap_t *heap, const char *path)
{
    iso_checkpoint_params_t params = {
        .struct_size = sizeof params, .user = tag, .user_len = sizeof tag};
    return iso_checkpoint(job, path, &heap, 1, &params);
}

static void restored(iso_job_t *job, iso_heap_t *heap, const iso_image_t *image, uint32_t number,
                     void *arg)
{
    iso_heap_t **heap_p = arg;
    iso_image_info_t info;
    (void)job;
    iso_image_query(image, &info);
    if (number == 0 && info.user_len == sizeof tag && memcmp(info.user, tag, sizeof tag) == 0)
        *heap_p = heap;
}

iso_heap_t *index_restore(iso_job_t *job, const char **fault_p)
{
    iso_heap_t *heap = NULL;
    iso_stats_t stats;
    iso_status_t status = iso_restart(job, restored, &heap);
    iso_stats(job, &stats);
    *fault_p = status != ISO_OK            ? iso_status_string(status)
               : !heap && stats.heaps != 0 ? "it is not an image of iso_demo"
                                           : NULL;
    if (!heap || *fault_p)
        return NULL;
    index_t *index = iso_heap_root(heap);
    for (hop_t *hop = index->hops, *previous; hop; hop = previous) {
        previous = hop->previous;
        iso_free(hop);
    }
    index->hops = NULL;
    return heap;
}
