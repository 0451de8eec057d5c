/* An object with an array, a heap and a block of its own visits every rank: one routine describes it. */
#include <isomalloc/pup.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct point {
    struct point *next;
    double at;
} point_t;

typedef struct mesh {
    int points, visits;
    double *weights; /* of the process: copied */
    iso_heap_t *heap; /* its list of points comes along as it is */
    char *name; /* and so does this block */
} mesh_t;

static iso_job_t *job;
static mesh_t *here; /* the object, while it is at this rank */

static void check(iso_status_t status)
{
    if (status != ISO_OK)
        fprintf(stderr, "mesh: %s\n", iso_status_string(status)), exit(1);
}

static void pup_mesh(pup_er p, void *object)
{
    mesh_t *mesh = object;
    pup_int(p, &mesh->points);
    pup_int(p, &mesh->visits);
    if (pup_isUnpacking(p))
        mesh->weights = calloc((size_t)mesh->points + 1, sizeof *mesh->weights);
    pup_doubles(p, mesh->weights, (size_t)mesh->points);
    iso_pup_heap(p, job, &mesh->heap);
    iso_pup_block(p, job, (void **)&mesh->name);
    if (pup_isDeleting(p))
        free(mesh->weights);
}

static void arrived(iso_job_t *where, void *object, uint32_t source, iso_status_t status, void *arg)
{
    (void)where, (void)source, (void)arg;
    check(status);
    here = object;
}

static mesh_t *make(int points)
{
    mesh_t *mesh = calloc(1, sizeof *mesh);
    mesh->points = points;
    mesh->weights = calloc((size_t)points + 1, sizeof *mesh->weights);
    check(iso_heap_create(job, &mesh->heap));
    for (int i = 0; i < points; i++) {
        point_t *point = iso_malloc(mesh->heap, sizeof *point);
        *point = (point_t){iso_heap_root(mesh->heap), i};
        iso_heap_set_root(mesh->heap, point);
        mesh->weights[i] = 1.0 / (i + 1);
    }
    mesh->name = iso_movable_alloc(job, 100);
    memcpy(mesh->name, "a mesh", sizeof "a mesh");
    return mesh;
}

static double sum(const mesh_t *mesh)
{
    double result = 0;
    for (const point_t *point = iso_heap_root(mesh->heap); point; point = point->next)
        result += point->at * mesh->weights[(int)point->at];
    return result;
}

int main(void)
{
    const iso_object_type_t type = {.struct_size = sizeof type,
                                    .name = "mesh",
                                    .size = sizeof(mesh_t),
                                    .pup = pup_mesh,
                                    .arrived = arrived};
    iso_request_t *request;
    check(iso_init(NULL, &job));
    check(iso_pup_register(job, &type));
    unsigned rank = iso_rank(job), size = iso_size(job);
    if (rank == 0)
        here = make(1000);
    for (unsigned turn = 0; turn < (rank == 0 ? 2 : 1); turn++) {
        while (!here)
            check(iso_progress_wait(job, -1));
        printf("rank %u: %s with %d points, visit %d, sum %.3f\n", rank, here->name, here->points,
               ++here->visits, sum(here));
        if (turn == 1 || size == 1)
            break; /* home again */
        mesh_t *leaving = here;
        here = NULL;
        check(iso_migrate_pup(job, (rank + 1) % size, "mesh", leaving, &request));
        check(iso_wait(request)); /* what it had here has been freed by the routine */
        free(leaving);
    }
    if (here) {
        iso_free(here->name);
        free(here->weights);
        free(here);
    }
    check(iso_finalize(job));
}
