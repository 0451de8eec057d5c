/* place.c - see place.h. */
#include "core/place.h"
#include "core/backing.h"
#include "core/exchange.h"
#include "core/job.h"
#include "core/os.h"
#include "core/quantity.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPACE_ROUNDS 3

typedef struct place {
    iso_record_t head;
    int32_t reserve;                /* ISO_OK, ISO_ERR_NO_SPACE */
    int32_t segment_fd, backing_fd; /* of a node's leader */
    uint32_t backing;               /* of a node's leader, for the node; else 0 */
    uint32_t anon;                  /* that backing is anon; combined: somewhere */
    uint32_t trials;                /* iso_trial_wanted */
} place_t;

typedef struct offer {
    iso_record_t head;
    uint32_t count;
    iso_os_hole_t holes[ISO_SPACE_HOLES];
} offer_t;

static void combine_places(void *into_record, const void *from_record)
{
    place_t *into = into_record;
    const place_t *from = from_record;
    if (into->reserve == ISO_OK)
        into->reserve = from->reserve;
    into->anon |= from->anon;
    into->trials |= from->trials;
}

static iso_status_t try_holes(iso_job_t *job, uint64_t size)
{
    for (int round = 0; round < SPACE_ROUNDS; round++) {
        offer_t mine = {.head = {.magic = ISO_RECORD_MAGIC}};
        void *all;
        mine.count = (uint32_t)iso_space_holes(size, mine.holes);
        iso_status_t status = iso_exchange_all(job, &mine, sizeof mine, &all);
        if (status != ISO_OK)
            return status;
        const offer_t *offers = all;
        uint32_t *counts = malloc(job->size * sizeof *counts);
        iso_os_hole_t *holes = malloc(job->size * sizeof mine.holes);
        uint64_t base = 0;
        if (counts && holes) {
            for (uint32_t r = 0; r < job->size; r++) {
                counts[r] = offers[r].count < ISO_SPACE_HOLES ? offers[r].count : ISO_SPACE_HOLES;
                memcpy(&holes[(size_t)r * ISO_SPACE_HOLES], offers[r].holes, sizeof mine.holes);
            }
            base = iso_space_intersect(holes, counts, ISO_SPACE_HOLES, job->size, size);
        }
        free(holes);
        free(counts);
        free(all);
        place_t place = {.head = {.magic = ISO_RECORD_MAGIC}, .reserve = ISO_ERR_NO_SPACE};
        if (base) {
            place.reserve = iso_space_reserve(&job->space, &job->logger, base, size);
            if (place.reserve != ISO_OK && place.reserve != ISO_ERR_NO_SPACE)
                place.head.status = place.reserve;
        }
        place_t total;
        status = iso_exchange(job, &place, sizeof place, combine_places, &total, NULL);
        if (status != ISO_OK || total.reserve == ISO_OK)
            return status;
        iso_space_release(&job->space);
    }
    if (job->rank == 0)
        iso_log(&job->logger, ISO_LOG_ERROR,
                "no range of %s is free at the same addresses in every rank (%" PRIu32
                "): set ISO_SPACE_SIZE to less",
                ISO_SIZE(size), job->size);
    return ISO_ERR_NO_SPACE;
}

static iso_status_t no_memory_object(const iso_job_t *job, uint64_t size, int error)
{
    bool forbidden = error == EPERM || error == EACCES || error == ENOSYS;
    iso_log(&job->logger, ISO_LOG_ERROR,
            "cannot create the memory object of the iso space (%s): %s; %s", ISO_SIZE(size),
            strerror(error),
            forbidden        ? "allow memfd_create (in a container, its seccomp profile)"
            : error == EFBIG ? "set ulimit -f unlimited, or ISO_SPACE_SIZE to less"
            : error == EMFILE || error == ENFILE ? "set ulimit -n to more"
                                                 : "set ISO_SPACE_SIZE to less");
    return forbidden ? ISO_ERR_SYSTEM : ISO_ERR_LIMIT;
}

/* The leader makes what the node shares. */
static iso_status_t make_shared(iso_job_t *job, uint64_t size, place_t *place)
{
    int fd, error;
    if (job->node.rank_count > 1) {
        iso_status_t status = iso_node_create(&job->node, &job->logger, job->cookie,
                                              (uint32_t)(size >> ISO_SLOT_SHIFT));
        if (status != ISO_OK)
            return status;
        place->segment_fd = job->node.fd;
    }
    if (place->backing != ISO_BACKING_SHARED)
        return ISO_OK;
    error = iso_os_memfd_create("iso-space", size, &fd);
    if (error)
        return no_memory_object(job, size, error);
    place->backing_fd = fd;
    return ISO_OK;
}

static iso_status_t open_backing(iso_job_t *job, uint64_t size, const place_t *leader, int *fd_p)
{
    int error;
    if (leader->backing != ISO_BACKING_SHARED) {
        error = iso_os_memfd_create("iso-space", size, fd_p);
        return error ? no_memory_object(job, size, error) : ISO_OK;
    }
    if (job->node.leader == job->rank) {
        *fd_p = leader->backing_fd;
        return ISO_OK;
    }
    error =
        iso_os_memfd_open_of(iso_node_pid(&job->node, job->node.leader), leader->backing_fd, fd_p);
    if (error) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "cannot open the memory object of the iso space at rank %" PRIu32
                ": %s; ranks of a node must be processes of one user that can see each other; "
                "ISO_NODE_SIZE=1 makes every rank a node of its own",
                job->node.leader, strerror(error));
        return ISO_ERR_SYSTEM;
    }
    return ISO_OK;
}

/* Anonymous memory, at this node or at another, is not relied on before it has been tried. */
static iso_status_t try_anon(iso_job_t *job, uint32_t trials, place_t *leader)
{
    bool good, wanted = leader->backing == ISO_BACKING_ANON;
    iso_status_t status = iso_trial_run(job, trials, wanted, &good);
    if (status == ISO_OK && wanted && !good)
        leader->backing = ISO_BACKING_PRIVATE;
    return status;
}

iso_status_t iso_place_settle(iso_job_t *job, uint64_t base, uint64_t size, iso_status_t so_far)
{
    place_t mine = {.head = {.magic = ISO_RECORD_MAGIC, .status = so_far},
                    .reserve = ISO_OK,
                    .segment_fd = -1,
                    .backing_fd = -1,
                    .trials = iso_trial_wanted(job)};
    if (mine.head.status == ISO_OK) {
        mine.reserve = iso_space_reserve(&job->space, &job->logger, base, size);
        if (mine.reserve == ISO_ERR_NO_SPACE && job->params.space_base)
            iso_space_explain(&job->logger, base, size);
        if (mine.reserve == ISO_ERR_NO_SPACE && job->images)
            iso_log(&job->logger, ISO_LOG_ERROR,
                    "the images of ISO_IMAGES can be restored at no other address: start the "
                    "program so that nothing else is there, or without them");
        if (mine.reserve != ISO_OK && (mine.reserve != ISO_ERR_NO_SPACE || job->params.space_base))
            mine.head.status = mine.reserve;
    }
    if (mine.head.status == ISO_OK && job->node.leader == job->rank) { /* decides for its node */
        mine.backing = iso_backing_choose(&job->logger, job->params.backing, job->node.rank_count);
        mine.head.status = make_shared(job, size, &mine);
    }
    mine.anon = mine.backing == ISO_BACKING_ANON;
    place_t total;
    place_t leader;
    iso_status_t status = iso_exchange(job, &mine, sizeof mine, combine_places, &total, NULL);
    if (status == ISO_OK)
        status = iso_exchange_one(job, &mine, sizeof mine, job->node.leader, &leader);
    if (status != ISO_OK) {
        if (mine.backing_fd >= 0)
            close(mine.backing_fd);
        return status;
    }
    if (total.reserve != ISO_OK) {
        iso_space_release(&job->space);
        status = try_holes(job, size);
    }
    if (status == ISO_OK && total.anon)
        status = try_anon(job, total.trials, &leader);
    int fd = mine.backing_fd;
    if (status == ISO_OK) {
        job->space.backing = (iso_backing_t)leader.backing;
        job->node.shared_pages = leader.backing == ISO_BACKING_SHARED;
    }
    if (status == ISO_OK && leader.backing != ISO_BACKING_ANON) {
        status = open_backing(job, size, &leader, &fd);
        if (status == ISO_OK)
            status = iso_space_map(&job->space, &job->logger, fd, job->params.core_dump);
    }
    if (status != ISO_OK && fd >= 0)
        close(fd);
    if (status == ISO_OK && job->node.rank_count > 1 && job->node.leader != job->rank)
        status = iso_node_attach(&job->node, &job->logger, job->cookie,
                                 iso_space_slots(&job->space), leader.segment_fd);
    return status;
}
