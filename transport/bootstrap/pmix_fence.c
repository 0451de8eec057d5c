/*
 * pmix_fence.c - see pmix_fence.h.
 *
 * A server takes a rank that dies out of the fences that are under way, but may count it in later ones
 * (PMIx 4.2, if it hears of the death from the launcher first). So, where all ranks are on this host
 * and know of each other's deaths, a fence after one names who lives. Ranks that do not know of it yet
 * wait in another fence meanwhile: so, if the launcher keeps survivors, a fence for which not all are
 * there after some time ends, and is begun again with what is known then. It is not done without need,
 * because a server that ends a fence in the moment in which it passes is not sound (PMIx 4.2). On
 * several hosts a fence is always one of the namespace.
 */
#include "pmix_fence.h"
#include "pmix_watch.h"

#include <stdlib.h>

#define FENCE_SECONDS 2 /* until it is begun again */

typedef struct members {
    pmix_proc_t *procs; /* NULL: all of the namespace */
    size_t count;
    pmix_info_t limit;
    size_t limits; /* 0 or 1 */
} members_t;

static iso_status_t find_members(iso_pmix_link_t *link, members_t *members)
{
    const int seconds = FENCE_SECONDS;
    bool one_host = link->host_count == link->size, deaths;

    *members = (members_t){.limits = one_host && link->keeps_survivors};
    PMIX_INFO_LOAD(&members->limit, PMIX_TIMEOUT, &seconds, PMIX_INT);
    pthread_mutex_lock(&link->lock);
    deaths = link->dead_count > 0;
    pthread_mutex_unlock(&link->lock);
    if (!one_host || !deaths)
        return ISO_OK;
    members->procs = malloc(link->size * sizeof *members->procs);
    if (members->procs == NULL) {
        iso_pmix_log(link, ISO_LOG_ERROR, "no memory for a fence of %u ranks", link->size);
        return ISO_ERR_NO_MEMORY;
    }
    for (uint32_t rank = 0; rank < link->size; rank++) {
        if (iso_pmix_is_dead(link, rank))
            continue;
        members->procs[members->count] = link->self;
        members->procs[members->count++].rank = rank;
    }
    return ISO_OK;
}

/* Partial success: some have died, the others were all there. */
static bool has_passed(pmix_status_t status)
{
    return status == PMIX_SUCCESS || status == PMIX_OPERATION_SUCCEEDED ||
           status == PMIX_ERR_PARTIAL_SUCCESS;
}

iso_status_t iso_pmix_fence(iso_pmix_link_t *link)
{
    pmix_status_t error;
    members_t members;

    do {
        iso_status_t status = find_members(link, &members);

        if (status != ISO_OK)
            return status;
        error = PMIx_Fence(members.procs, members.count, &members.limit, members.limits);
        free(members.procs);
        if (error == PMIX_ERR_TIMEOUT)
            iso_pmix_watch_look(link);
    } while (error == PMIX_ERR_TIMEOUT);
    if (!has_passed(error))
        return iso_pmix_failed(link, "PMIx_Fence", error);
    link->partial = error == PMIX_ERR_PARTIAL_SUCCESS;
    iso_pmix_watch_begin(link);
    return ISO_OK;
}

static void end_barrier(iso_pmix_link_t *link)
{
    pthread_mutex_lock(&link->lock);
    link->barrier_open = false;
    iso_pmix_settle(link);
    pthread_mutex_unlock(&link->lock);
}

/* In PMIx's thread, or in fence_start. */
static void on_fence(pmix_status_t status, void *arg)
{
    iso_pmix_link_t *link = arg;

    pthread_mutex_lock(&link->lock);
    link->fences_ended++;
    link->fence_status = status;
    iso_pmix_settle(link);
    pthread_mutex_unlock(&link->lock);
}

iso_status_t iso_pmix_fence_start(iso_pmix_link_t *link)
{
    pmix_status_t error;
    members_t members;
    iso_status_t status = find_members(link, &members);

    if (status != ISO_OK)
        return status;
    pthread_mutex_lock(&link->lock);
    link->fences_started++;
    link->barrier_open = true;
    iso_pmix_settle(link);
    pthread_mutex_unlock(&link->lock);
    error =
        PMIx_Fence_nb(members.procs, members.count, &members.limit, members.limits, on_fence, link);
    free(members.procs);
    if (error == PMIX_SUCCESS)
        return ISO_OK;
    on_fence(error, link); /* it is not called then */
    if (error == PMIX_OPERATION_SUCCEEDED)
        return ISO_OK;
    end_barrier(link); /* told here, not by a test */
    return iso_pmix_failed(link, "PMIx_Fence_nb", error);
}

iso_status_t iso_pmix_fence_test(iso_pmix_link_t *link)
{
    iso_status_t status;
    pmix_status_t error;
    bool ended;

    pthread_mutex_lock(&link->lock);
    ended = link->fences_ended == link->fences_started;
    error = link->fence_status;
    pthread_mutex_unlock(&link->lock);
    if (!ended)
        return ISO_INPROGRESS;
    if (error == PMIX_ERR_TIMEOUT) {
        status = iso_pmix_fence_start(link);
        if (status == ISO_OK)
            return ISO_INPROGRESS;
        end_barrier(link);
        return status;
    }
    end_barrier(link);
    if (!has_passed(error))
        return iso_pmix_failed(link, "a fence", error);
    iso_pmix_watch_begin(link);
    return ISO_OK;
}
