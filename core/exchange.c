/*
 * exchange.c - see exchange.h.
 *
 * Where the bootstrap can gather, records are combined along a tree of ranks: in the first step every
 * FAN-th rank takes the records of those up to the next, in the second every FAN*FAN-th, and so on;
 * then all take the total from rank 0. Every exchange has as many steps at every rank.
 */
#include "core/exchange.h"
#include "core/depth.h"
#include "core/job.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FAN 64u

const uint32_t *iso_exchange_host(const iso_job_t *job, uint32_t *count_p)
{
    bool gathers = job->bootstrap && job->bootstrap->gather;
    *count_p = gathers ? job->bootstrap->host_count : job->size;
    return gathers ? job->bootstrap->host_ranks : NULL;
}

static void fold(void *into, void *from, uint32_t rank, size_t len, iso_combine_fn combine)
{
    iso_record_t *mine = into, *theirs = from;
    if (theirs->magic != ISO_RECORD_MAGIC)
        *theirs = (iso_record_t){ISO_RECORD_MAGIC, ISO_ERR_PEER_DEAD, rank};
    if (mine->status != ISO_OK)
        return;
    if (theirs->status != ISO_OK)
        memcpy(into, from, len);
    else if (combine)
        combine(into, from);
}

/* ---- without gather ---- */

iso_status_t iso_exchange_all(iso_job_t *job, const void *mine, size_t len, void **all_p)
{
    void *all = malloc(len * job->size);
    if (!all)
        return ISO_ERR_NO_MEMORY;
    iso_status_t status = ISO_OK;
    iso_depth_enter(); /* a caller's own bootstrap */
    if (job->bootstrap)
        status = job->bootstrap->allgather(job->bootstrap->ctx, mine, all, len);
    else
        memcpy(all, mine, len);
    iso_depth_leave();
    if (status != ISO_OK) {
        free(all);
        return status;
    }
    *all_p = all;
    return ISO_OK;
}

static iso_status_t fold_all(iso_job_t *job, void *record, size_t len, iso_combine_fn combine,
                             void **host_p)
{
    void *all;
    iso_status_t status = iso_exchange_all(job, record, len, &all);
    if (status != ISO_OK)
        return status;
    memcpy(record, all, len);
    if (((iso_record_t *)record)->magic != ISO_RECORD_MAGIC)
        *(iso_record_t *)record = (iso_record_t){ISO_RECORD_MAGIC, ISO_ERR_PEER_DEAD, 0};
    for (uint32_t r = 1; r < job->size; r++)
        fold(record, (char *)all + r * len, r, len, combine);
    *host_p = all;
    return ISO_OK;
}

/* ---- with gather ---- */

static iso_status_t gather(const iso_job_t *job, const void *mine, size_t len,
                           const uint32_t *ranks, uint32_t count, void *theirs)
{
    iso_depth_enter();
    iso_status_t status =
        job->bootstrap->gather(job->bootstrap->ctx, mine, len, ranks, count, theirs);
    iso_depth_leave();
    return status;
}

/* The lowest rank of a host takes its records, and the others take them from there all at once: one question
 * a rank, not one for each other rank of the host. */
static iso_status_t gather_host(const iso_job_t *job, const void *mine, size_t len, void **host_p)
{
    uint32_t count;
    const uint32_t *ranks = iso_exchange_host(job, &count);
    bool first = ranks[0] == job->rank;
    void *gathered = malloc(count * len), *host = malloc(count * len);
    iso_status_t status = gathered && host ? ISO_OK : ISO_ERR_NO_MEMORY;
    if (status == ISO_OK)
        status = gather(job, mine, len, ranks, first ? count : 0, gathered);
    if (status == ISO_OK)
        status = gather(job, first ? gathered : NULL, count * len, ranks, 1, host);
    free(gathered);
    if (status == ISO_OK)
        *host_p = host;
    else
        free(host);
    return status;
}

/* One step up: a rank that is a multiple of stride gives what it has combined, and one that is a multiple
 * of the next step's stride takes. */
static iso_status_t step_up(const iso_job_t *job, uint64_t stride, void *record, size_t len,
                            iso_combine_fn combine, void *theirs)
{
    uint32_t ranks[FAN], count = 0;
    if (job->rank % (stride * FAN) == 0)
        for (uint64_t r = job->rank + stride; r < job->size && count < FAN - 1; r += stride)
            ranks[count++] = (uint32_t)r;
    iso_status_t status =
        gather(job, job->rank % stride == 0 ? record : NULL, len, ranks, count, theirs);
    for (uint32_t i = 0; i < count && status == ISO_OK; i++)
        fold(record, (char *)theirs + i * len, ranks[i], len, combine);
    return status;
}

static iso_status_t fold_tree(const iso_job_t *job, void *record, size_t len,
                              iso_combine_fn combine)
{
    static const uint32_t root = 0;
    void *theirs = malloc((FAN - 1) * len);
    iso_status_t status = theirs ? ISO_OK : ISO_ERR_NO_MEMORY;
    for (uint64_t stride = 1; status == ISO_OK && stride < job->size; stride *= FAN)
        status = step_up(job, stride, record, len, combine, theirs);
    if (status == ISO_OK)
        status = gather(job, job->rank == root ? record : NULL, len, &root, 1, theirs);
    if (status == ISO_OK) {
        memcpy(record, theirs, len);
        if (((iso_record_t *)record)->magic != ISO_RECORD_MAGIC)
            *(iso_record_t *)record = (iso_record_t){ISO_RECORD_MAGIC, ISO_ERR_PEER_DEAD, root};
    }
    free(theirs);
    return status;
}

/* ---- */

iso_status_t iso_exchange(iso_job_t *job, const void *mine, size_t len, iso_combine_fn combine,
                          void *total, void **host_p)
{
    void *host = NULL, *record = malloc(len);
    if (!record)
        return ISO_ERR_NO_MEMORY;
    memcpy(record, mine, len);
    iso_record_t *head = record;
    head->rank = job->rank;
    iso_status_t status = ISO_OK;
    if (!job->bootstrap || !job->bootstrap->gather) {
        status = fold_all(job, record, len, combine, &host);
    } else {
        if (host_p)
            status = gather_host(job, record, len, &host);
        if (status == ISO_OK)
            status = fold_tree(job, record, len, combine);
    }
    if (status == ISO_OK && head->status != ISO_OK) {
        status = (iso_status_t)head->status;
        if (job->rank == 0 && head->rank != 0)
            iso_log(&job->logger, ISO_LOG_ERROR, "rank %" PRIu32 " cannot join the job: %s",
                    head->rank, iso_status_string(status));
    }
    if (status == ISO_OK) {
        memcpy(total, record, len);
        if (host_p) {
            *host_p = host;
            host = NULL;
        }
    }
    free(host);
    free(record);
    return status;
}

iso_status_t iso_exchange_one(iso_job_t *job, const void *mine, size_t len, uint32_t rank,
                              void *theirs)
{
    if (job->bootstrap && job->bootstrap->gather)
        return gather(job, mine, len, &rank, 1, theirs);
    void *all;
    iso_status_t status = iso_exchange_all(job, mine, len, &all);
    if (status != ISO_OK)
        return status;
    memcpy(theirs, (char *)all + rank * len, len);
    free(all);
    return ISO_OK;
}
