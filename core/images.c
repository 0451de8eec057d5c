/* images.c - see images.h. */
#include "core/images.h"
#include "core/checksum.h"
#include "core/depth.h"
#include "core/image.h"
#include "core/job.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct named {
    char *path;         /* absolute: the program may change its folder */
    uint64_t check;     /* of its header: that it is still the same file */
    uint8_t cookie[16]; /* of the job that saved it */
    uint64_t set, moment;
    uint32_t rank, size; /* which of its ranks, of how many */
    uint32_t heap_count;
    uint32_t left;  /* heaps that were not restored yet */
    bool *restored; /* per heap */
} named_t;

struct iso_images {
    named_t *images;
    uint32_t count;
    uint64_t base, space_size;
    iso_extent_t *carved; /* of all heaps, ascending; until iso_images_carve */
    uint64_t carved_count;
};

static iso_status_t no_memory(const iso_job_t *job)
{
    iso_log(&job->logger, ISO_LOG_ERROR, "no memory for the lists of ISO_IMAGES");
    return ISO_ERR_NO_MEMORY;
}

static named_t *find(const iso_job_t *job, const iso_image_t *image)
{
    for (uint32_t i = 0; job->images && i < job->images->count; i++)
        if (job->images->images[i].check == image->header.check)
            return &job->images->images[i];
    return NULL;
}

/* ---- when the job begins ----------------------------------------------------------------------- */

/* False: no memory. An image without heaps wants nothing (realloc to no bytes would free the list). */
static bool carve_later(struct iso_images *images, const iso_image_t *image)
{
    const uint64_t count = image->header.extent_count;
    if (count == 0)
        return true;
    iso_extent_t *carved = realloc(images->carved, (images->carved_count + count) * sizeof *carved);
    if (!carved)
        return false;
    memcpy(carved + images->carved_count, image->tables.extents, count * sizeof *carved);
    images->carved = carved;
    images->carved_count += count;
    return true;
}

/* Takes over where the image is. */
static iso_status_t add_image(iso_job_t *job, iso_image_t *image)
{
    struct iso_images *images = job->images;
    const iso_image_header_t *header = &image->header;
    if (images->count == 0)
        images->base = header->base;
    if (images->base != header->base ||
        (job->params.space_base && job->params.space_base != header->base)) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "image %s is of an iso space at %#" PRIx64 ", %s at %#" PRIx64
                ": they cannot be in one job",
                image->path, header->base,
                images->base != header->base ? "the one before is" : "ISO_SPACE_BASE says",
                images->base != header->base ? images->base : job->params.space_base);
        return ISO_ERR_INVALID;
    }
    if (find(job, image)) {
        iso_log(&job->logger, ISO_LOG_ERROR, "image %s is named twice in ISO_IMAGES", image->path);
        return ISO_ERR_INVALID;
    }
    bool *restored = calloc(header->heap_count + 1, sizeof *restored);
    if (!restored || !carve_later(images, image)) {
        free(restored);
        return no_memory(job);
    }
    if (images->space_size < header->space_size)
        images->space_size = header->space_size;
    images->images[images->count++] = (named_t){.path = image->real,
                                                .check = header->check,
                                                .set = header->set,
                                                .moment = header->moment,
                                                .rank = header->rank,
                                                .size = header->size,
                                                .heap_count = header->heap_count,
                                                .left = header->heap_count,
                                                .restored = restored};
    memcpy(images->images[images->count - 1].cookie, header->cookie, sizeof header->cookie);
    image->real = NULL;
    return ISO_OK;
}

static int by_first(const void *a, const void *b)
{
    const iso_extent_t *left = a, *right = b;
    return left->first < right->first ? -1 : left->first > right->first;
}

static iso_status_t check_overlap(const iso_job_t *job)
{
    const struct iso_images *images = job->images;
    if (images->carved_count > 0)
        qsort(images->carved, images->carved_count, sizeof *images->carved, by_first);
    for (uint64_t i = 1; i < images->carved_count; i++) {
        const iso_extent_t *before = &images->carved[i - 1];
        if (images->carved[i].first - before->first >= iso_extent_slots(before))
            continue;
        iso_log(&job->logger, ISO_LOG_ERROR,
                "two heaps in the images of ISO_IMAGES want the address %#" PRIx64
                ": they are of different times or jobs, name one of them only",
                images->base + ((uint64_t)images->carved[i].first << ISO_SLOT_SHIFT));
        return ISO_ERR_INVALID;
    }
    return ISO_OK;
}

static bool of_one_job(const named_t *a, const named_t *b)
{
    return memcmp(a->cookie, b->cookie, sizeof a->cookie) == 0;
}

/* The newest of those that its rank saved, without a number of the program's. */
static const named_t *newest_of_rank(const struct iso_images *images, const named_t *of)
{
    const named_t *newest = of;
    for (uint32_t i = 0; i < images->count; i++) {
        const named_t *image = &images->images[i];
        if (of_one_job(image, of) && image->rank == of->rank && image->moment > newest->moment)
            newest = image;
    }
    return newest;
}

static iso_status_t mixed(const iso_job_t *job, const named_t *image, const named_t *first)
{
    char what[2][32];
    const named_t *const two[] = {image, first};
    for (int i = 0; i < 2; i++)
        if (image->set != first->set)
            snprintf(what[i], sizeof what[i], "of set %" PRIu64, two[i]->set);
        else
            snprintf(what[i], sizeof what[i], "saved after %" PRIu64, two[i]->moment);
    iso_log(
        &job->logger, ISO_LOG_ERROR,
        "image %s is %s, %s %s%s of the same job: they are not of one checkpoint, name those of "
        "one, or set ISO_MIXED_IMAGES=y if that is what you want",
        image->path, what[0], first->path, what[1],
        image->set == first->set ? " calls of iso_barrier" : "");
    return ISO_ERR_INVALID;
}

/* The images of one job are those of one checkpoint of it: of one set, or, where the program gives no numbers, those that each rank
 * saved last are all from between the same two barriers. */
static iso_status_t check_sets(const iso_job_t *job)
{
    const struct iso_images *images = job->images;
    for (uint32_t i = 1; i < images->count && !job->params.mixed_images; i++) {
        const named_t *image = &images->images[i], *first = images->images;
        while (!of_one_job(first, image))
            first++;
        if (first->set != image->set)
            return mixed(job, image, first);
        if (first->set != 0)
            continue;
        first = newest_of_rank(images, first);
        image = newest_of_rank(images, image);
        if (first->moment != image->moment)
            return mixed(job, image, first);
    }
    return ISO_OK;
}

/* How many ranks of its job have an image here. Of the first of them; 0: of another. */
static uint32_t ranks_of_job(const struct iso_images *images, const named_t *first)
{
    uint32_t ranks = 0;
    for (uint32_t i = 0; i < images->count; i++) {
        const named_t *image = &images->images[i], *earlier = images->images;
        if (!of_one_job(image, first))
            continue;
        if (image < first)
            return 0;
        while (!of_one_job(earlier, image) || earlier->rank != image->rank)
            earlier++;
        ranks += earlier == image;
    }
    return ranks;
}

/* A program that does not number its sets may have saved at some ranks only. */
static void warn_of_missing(const iso_job_t *job)
{
    const struct iso_images *images = job->images;
    for (uint32_t i = 0; job->rank == 0 && i < images->count; i++) {
        const named_t *image = &images->images[i];
        const uint32_t ranks = image->set ? ranks_of_job(images, image) : 0;
        if (ranks > 0 && ranks < image->size)
            iso_log(&job->logger, ISO_LOG_WARN,
                    "ISO_IMAGES has images of %" PRIu32 " of the %" PRIu32
                    " ranks that saved set %" PRIu64 " (%s): heaps of the others are missing",
                    ranks, image->size, image->set, image->path);
    }
}

static iso_status_t open_all(iso_job_t *job, char *names)
{
    iso_status_t status = ISO_OK;
    char *rest = NULL;
    for (char *name = strtok_r(names, ":", &rest); name && status == ISO_OK;
         name = strtok_r(NULL, ":", &rest)) {
        iso_image_t *image;
        status = iso_image_open_lists(&job->logger, name, &image);
        if (status != ISO_OK)
            break;
        if (image->header.rank % job->size == job->rank) /* one rank looks at all of it */
            status = iso_image_complete(image, &job->logger);
        if (status == ISO_OK)
            status = add_image(job, image);
        iso_image_close(image);
    }
    if (status == ISO_OK)
        status = check_sets(job);
    if (status == ISO_OK)
        status = check_overlap(job);
    if (status == ISO_OK)
        warn_of_missing(job);
    return status;
}

iso_status_t iso_images_open(iso_job_t *job)
{
    const char *text = job->params.images;
    uint32_t most = 1;
    if (!*text)
        return ISO_OK;
    for (const char *colon = text; (colon = strchr(colon, ':')); colon++)
        most++;
    char *names = strdup(text);
    job->images = calloc(1, sizeof *job->images);
    if (job->images)
        job->images->images = calloc(most, sizeof *job->images->images);
    iso_status_t status =
        names && job->images && job->images->images ? open_all(job, names) : no_memory(job);
    free(names);
    if (status == ISO_OK && job->images->count > 0) {
        job->params.space_base = job->images->base;
        if (!job->params.space_size)
            job->params.space_size = job->images->space_size;
    }
    return status;
}

uint64_t iso_images_digest(const iso_job_t *job)
{
    uint64_t digest = 0;
    for (uint32_t i = 0; job->images && i < job->images->count; i++) {
        const uint64_t pair[] = {digest, job->images->images[i].check};
        digest = iso_checksum_of(pair, sizeof pair);
    }
    return digest;
}

iso_status_t iso_images_carve(iso_job_t *job)
{
    struct iso_images *images = job->images;
    const uint32_t first = job->slots.strip_first, end = first + job->slots.strip_count;
    for (uint64_t i = 0; images && i < images->carved_count; i++) {
        const iso_extent_t *extent = &images->carved[i];
        const uint64_t extent_end = (uint64_t)extent->first + iso_extent_slots(extent);
        if (extent_end > job->slots.total) {
            iso_log(&job->logger, ISO_LOG_ERROR,
                    "the iso space is too short for the images of ISO_IMAGES: set ISO_SPACE_SIZE "
                    "to %" PRIu64 "M, or leave it unset",
                    images->space_size >> 20);
            return ISO_ERR_INVALID;
        }
        const uint32_t from = extent->first > first ? extent->first : first;
        const uint32_t to = extent_end < end ? (uint32_t)extent_end : end;
        if (from < to)
            iso_slots_take_exact(&job->slots, from, to - from);
    }
    if (images) {
        free(images->carved);
        images->carved = NULL;
    }
    return ISO_OK;
}

void iso_images_close(iso_job_t *job)
{
    struct iso_images *images = job->images;
    if (!images)
        return;
    for (uint32_t i = 0; i < images->count; i++) {
        free(images->images[i].path);
        free(images->images[i].restored);
    }
    free(images->images);
    free(images->carved);
    free(images);
    job->images = NULL;
}

/* ---- restoring --------------------------------------------------------------------------------- */

static iso_status_t rank_of(const iso_job_t *job, const iso_image_t *image, uint32_t number,
                            uint32_t *rank_p)
{
    if (!job->params.image_rank) {
        *rank_p = image->header.rank % job->size;
        return ISO_OK;
    }
    iso_depth_enter(); /* the job's lock may be held */
    uint32_t rank = job->params.image_rank(image, number, job->size, job->params.image_rank_arg);
    iso_depth_leave();
    if (rank < job->size) {
        *rank_p = rank;
        return ISO_OK;
    }
    iso_log(&job->logger, ISO_LOG_ERROR,
            "image %s: iso_params_t::image_rank gives rank %" PRIu32 " for heap %" PRIu32
            ": the job has %" PRIu32,
            image->path, rank, number, job->size);
    return ISO_ERR_RANK;
}

iso_status_t iso_images_claim(iso_job_t *job, const iso_image_t *image, uint32_t number,
                              bool *own_slots_p)
{
    named_t *named = find(job, image);
    uint32_t rank;
    if (!named) {
        *own_slots_p = false;
        return ISO_OK;
    }
    iso_status_t status = rank_of(job, image, number, &rank);
    if (status != ISO_OK)
        return status;
    if (rank != job->rank) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "image %s: heap %" PRIu32 " is rank %" PRIu32
                "'s to restore: let it migrate from there, or set iso_params_t::image_rank",
                image->path, number, rank);
        return ISO_ERR_NOT_OWNER;
    }
    *own_slots_p = !named->restored[number];
    named->left -= *own_slots_p;
    named->restored[number] = true;
    return ISO_OK;
}

void iso_images_unclaim(iso_job_t *job, const iso_image_t *image, uint32_t number)
{
    named_t *named = find(job, image);
    if (named) {
        named->restored[number] = false;
        named->left++;
    }
}

/* Others may restore heaps of it meanwhile. */
static bool is_left(iso_job_t *job, const named_t *named, uint32_t number)
{
    iso_job_lock(job);
    const bool left = !named->restored[number];
    iso_job_unlock(job);
    return left;
}

static bool has_left(iso_job_t *job, const named_t *named)
{
    iso_job_lock(job);
    const bool left = named->left > 0;
    iso_job_unlock(job);
    return left;
}

static iso_status_t restart_image(iso_job_t *job, const named_t *named, iso_restored_fn fn,
                                  void *arg)
{
    iso_image_t *image;
    iso_status_t status = iso_image_open_for(&job->logger, named->path, &image);
    if (status != ISO_OK)
        return status;
    if (image->header.check != named->check) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "image %s was replaced since the job began: another job may be using its name",
                named->path);
        status = ISO_ERR_INVALID;
    }
    for (uint32_t i = 0; i < named->heap_count && status == ISO_OK; i++) {
        uint32_t rank;
        iso_heap_t *heap;
        status = rank_of(job, image, i, &rank);
        if (status != ISO_OK || rank != job->rank || !is_left(job, named, i))
            continue;
        status = job->params.map_images ? iso_image_map(job, image, i, &heap)
                                        : iso_image_restore(job, image, i, &heap);
        if (status == ISO_OK && fn) {
            iso_depth_enter();
            fn(job, heap, image, i, arg);
            iso_depth_leave();
        }
    }
    iso_image_close(image);
    return status;
}

iso_status_t iso_restart(iso_job_t *job, iso_restored_fn fn, void *arg)
{
    iso_status_t status = ISO_OK;
    if (!iso_job_is_ours(job, "iso_restart"))
        return ISO_ERR_INVALID;
    for (uint32_t i = 0; job->images && i < job->images->count && status == ISO_OK; i++) {
        const named_t *named = &job->images->images[i];
        if ((job->params.image_rank || named->rank % job->size == job->rank) &&
            has_left(job, named))
            status = restart_image(job, named, fn, arg);
    }
    return status;
}
