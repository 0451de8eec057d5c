/* image.h - the demo's index from one job to the next: in a file. */
#ifndef ISO_PERF_DEMO_IMAGE_H
#define ISO_PERF_DEMO_IMAGE_H

#include <isomalloc/isomalloc.h>

/* Saves the heap of an index. */
iso_status_t index_save(iso_job_t *job, iso_heap_t *heap, const char *path);

/* In a job that was begun with the image's name: the heap of its index, at the rank that it comes to; elsewhere NULL. The log of the
 * earlier tour is gone. NULL, and *fault_p says why: it cannot be restored, or is not the demo's. */
iso_heap_t *index_restore(iso_job_t *job, const char **fault_p);

#endif
