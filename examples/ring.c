/* A linked list visits every rank and comes home: same addresses, nothing packed. */
#include <isomalloc/isomalloc.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct item { struct item *next; unsigned rank; } item_t;
static iso_heap_t *here; /* the heap, while it is at this rank */

static void check(iso_status_t status)
{
    if (status != ISO_OK) fprintf(stderr, "ring: %s\n", iso_status_string(status)), exit(1);
}
static void arrived(iso_job_t *job, const iso_arrival_t *arrival, void *arg)
{
    (void)job, (void)arg, here = arrival->heap;
}
int main(void)
{
    iso_job_t *job;
    iso_request_t *request;
    check(iso_init(NULL, &job));
    iso_set_arrival(job, arrived, NULL);
    unsigned rank = iso_rank(job), size = iso_size(job);
    if (rank == 0) check(iso_heap_create(job, &here));
    for (unsigned turn = 0; turn < (rank == 0 ? 2 : 1); turn++) {
        while (!here) check(iso_progress_wait(job, -1)); /* sleeps until the heap comes */
        item_t *item = iso_malloc(here, sizeof *item);
        if (!item) return 1;
        *item = (item_t){iso_heap_root(here), rank};
        iso_heap_set_root(here, item);
        if (turn == 1 || size == 1) break; /* home again */
        check(iso_migrate(here, (rank + 1) % size, NULL, 0, &request));
        here = NULL;
        check(iso_wait(request)); /* from here on the heap is the next rank's */
    }
    for (item_t *item = here ? iso_heap_root(here) : NULL; item; item = item->next)
        printf("%p was allocated at rank %u\n", (void *)item, item->rank);
    check(iso_finalize(job));
}
