/* exchange.c - see exchange.h. */
#include "core/exchange.h"
#include "core/job.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

iso_status_t iso_exchange(iso_job_t *job, const void *mine, size_t len, void **all_p)
{
    void *all = malloc(len * job->size);
    if (!all)
        return ISO_ERR_NO_MEMORY;
    iso_status_t status = ISO_OK;
    if (job->bootstrap)
        status = job->bootstrap->allgather(job->bootstrap->ctx, mine, all, len);
    else
        memcpy(all, mine, len);
    if (status != ISO_OK) {
        free(all);
        return status;
    }
    *all_p = all;
    return ISO_OK;
}

iso_status_t iso_exchange_check(iso_job_t *job, const void *all, size_t len)
{
    for (uint32_t r = 0; r < job->size; r++) {
        iso_record_t head;
        memcpy(&head, (const char *)all + r * len, sizeof head);
        iso_status_t status =
            head.magic == ISO_RECORD_MAGIC ? (iso_status_t)head.status : ISO_ERR_PEER_DEAD;
        if (status == ISO_OK)
            continue;
        if (job->rank == 0 && r != 0)
            iso_log(&job->logger, ISO_LOG_ERROR, "rank %" PRIu32 " cannot join the job: %s", r,
                    iso_status_string(status));
        return status;
    }
    return ISO_OK;
}
