/*
 * join.c - how a job begins and ends.
 *
 * Joining is three exchanges among all ranks (exchange.h):
 *   1. who is where, and do all have the same (meet.h); then transports are opened (links.h);
 *   2. where the iso space is, and on what memory (place.h);
 *   3. is everything mapped and registered.
 * A rank sees what all have said combined into one record, and what its host's ranks have said. That is
 * freed at the end of iso_init: nothing of the size of the job stays, except where a caller's bootstrap
 * cannot look up a rank's card.
 */
#include "core/arrive.h"
#include "core/code.h"
#include "core/depth.h"
#include "core/exchange.h"
#include "core/fault.h"
#include "core/images.h"
#include "core/job.h"
#include "core/launch.h"
#include "core/links.h"
#include "core/meet.h"
#include "core/migrate.h"
#include "core/object.h"
#include "core/os.h"
#include "core/params.h"
#include "core/place.h"
#include "core/poison.h"
#include "core/quantity.h"
#include "core/register.h"
#include "core/shared.h"
#include "core/stack.h"
#include <inttypes.h>
#include <stdlib.h>

static iso_status_t open_tables(iso_job_t *job)
{
    uint32_t slots = iso_space_slots(&job->space);
    job->hold_of = iso_os_table_map(slots * sizeof *job->hold_of);
    job->extent_at = iso_os_table_map(slots * sizeof *job->extent_at);
    job->shared_of = iso_os_table_map(slots * sizeof *job->shared_of);
    iso_status_t status =
        job->hold_of && job->extent_at && job->shared_of ? ISO_OK : ISO_ERR_NO_MEMORY;
    if (status == ISO_OK)
        status = iso_slots_open(&job->slots, slots, job->rank, job->size);
    if (status == ISO_OK)
        status = iso_retain_open(&job->retain, job->params.retain, slots);
    if (status == ISO_OK)
        status = iso_guard_open(job);
    if (status == ISO_OK)
        status = iso_poison_open(job);
    if (status != ISO_OK)
        iso_log(&job->logger, ISO_LOG_ERROR,
                "no room for the tables of an iso space of %" PRIu32
                " slots: set ISO_SPACE_SIZE to less",
                slots);
    return status;
}

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

static void in_forked_child(void)
{
    for (int i = 0; i < ISO_JOBS_MAX; i++)
        if (iso_job_table[i].job)
            iso_job_table[i].job->forked = true;
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, in_forked_child);
}

static iso_status_t enter_table(iso_job_t *job)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    iso_status_t status = ISO_ERR_LIMIT;
    pthread_mutex_lock(&table_lock);
    for (int i = 0; i < ISO_JOBS_MAX && status != ISO_OK; i++)
        if (!iso_job_table[i].job) {
            iso_job_row_t *row = &iso_job_table[i];
            row->base = (uintptr_t)job->space.base;
            row->table = job->slots.table;
            row->job = job;
            atomic_store_explicit(&row->size, (size_t)job->space.size, memory_order_release);
            status = ISO_OK;
        }
    pthread_mutex_unlock(&table_lock);
    if (status != ISO_OK)
        iso_log(&job->logger, ISO_LOG_ERROR,
                "this process is in %d jobs already: finalize one of them first", ISO_JOBS_MAX);
    return status;
}

static void leave_table(iso_job_t *job)
{
    pthread_mutex_lock(&table_lock);
    for (int i = 0; i < ISO_JOBS_MAX; i++)
        if (iso_job_table[i].job == job) {
            atomic_store(&iso_job_table[i].size, 0);
            iso_job_table[i].job = NULL;
        }
    pthread_mutex_unlock(&table_lock);
}

static void destroy(iso_job_t *job)
{
    iso_fault_close(job);
    iso_service_close(job);
    leave_table(job);
    iso_migrate_close(job);
    iso_arrive_close(job);
    iso_peers_close(job);
    iso_windows_close(job);
    for (iso_delivery_t *delivery = job->deliveries, *next; delivery; delivery = next) {
        next = delivery->next;
        iso_parcel_free(delivery->settled);
        free(delivery);
    }
    iso_object_kinds_close(job);
    if (job->shared_of)
        iso_shared_close_all(job);
    for (iso_hold_t *hold = job->holds, *next; hold; hold = next) {
        next = hold->next;
        iso_poison_heap_gone(hold); /* another job may have a heap at its address */
        iso_hold_undirect(hold);
        iso_hold_free(hold);
    }
    iso_wait_close(job);
    if (job->net_link != job->node_link)
        iso_link_close(job->net_link);
    iso_link_close(job->node_link);
    iso_guard_close(job);
    iso_poison_close(job);
    iso_trial_close(job->trials);
    iso_track_close(&job->track);
    iso_images_close(job);
    iso_huge_close(&job->huge);
    iso_retain_close(&job->retain);
    iso_slots_close(&job->slots);
    iso_os_table_unmap(job->shared_of, iso_space_slots(&job->space) * sizeof *job->shared_of);
    iso_os_table_unmap(job->extent_at, iso_space_slots(&job->space) * sizeof *job->extent_at);
    iso_os_table_unmap(job->hold_of, iso_space_slots(&job->space) * sizeof *job->hold_of);
    iso_space_release(&job->space);
    iso_node_close(&job->node);
    free(job->blobs);
    iso_depth_enter();
    if (job->bootstrap && job->bootstrap->close)
        job->bootstrap->close(job->bootstrap->ctx);
    iso_depth_leave();
    iso_module_close(&job->bootstrap_module);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

/* All ranks have the same failure, and rank 0 says why. Nobody returns before it has: a launcher ends
 * the job when the first rank exits. */
static iso_status_t fail_together(iso_job_t *job, iso_status_t status)
{
    iso_record_t said = {.magic = ISO_RECORD_MAGIC}, total;
    iso_exchange(job, &said, sizeof said, NULL, &total, NULL);
    return status;
}

static iso_status_t join(iso_job_t *job, iso_status_t so_far)
{
    iso_meeting_t meeting;
    iso_status_t own, status = iso_meet(job, so_far, &meeting, &own);
    if (status != ISO_OK)
        return fail_together(job, status);
    /* from here on a failure is told to the others in the next exchange */
    status = own == ISO_OK ? iso_links_open(job, meeting.other_hosts) : own;
    iso_status_t published = iso_links_publish(job);
    status =
        iso_place_settle(job, meeting.base, meeting.size, status == ISO_OK ? published : status);
    if (status == ISO_OK)
        status = open_tables(job);
    if (status == ISO_OK)
        status = iso_images_carve(job);
    if (status == ISO_OK)
        status = iso_register_open(job);
    if (status == ISO_OK)
        status = iso_huge_open(job);
    if (status == ISO_OK)
        status = iso_wait_open(job);
    if (status == ISO_OK)
        status = enter_table(job);
    iso_job_lock(
        job); /* the library's own threads call the bootstrap, too: not before we are done */
    if (status == ISO_OK)
        status = iso_service_open(job);
    if (status == ISO_OK)
        status = iso_fault_open(job);
    iso_record_t mine = {.magic = ISO_RECORD_MAGIC, .status = status}, all;
    iso_status_t gathered = iso_exchange(job, &mine, sizeof mine, NULL, &all, NULL);
    if (gathered != ISO_OK)
        fail_together(job, gathered);
    iso_job_unlock(job);
    return gathered;
}

iso_status_t iso_init(const iso_params_t *params, iso_job_t **job_p)
{
    iso_params_t imported;
    iso_logger_t logger = iso_logger_default();
    /* bad settings are this rank's failure, and it is told to the others, too */
    iso_status_t settings = iso_params_import(&logger, params, &imported);
    iso_job_t *job = calloc(1, sizeof *job);
    if (!job)
        return ISO_ERR_NO_MEMORY;
    job->params = imported;
    logger.level = job->params.log_level;
    job->logger = logger;
    job->space.fd = job->node.fd = -1;
    job->wait.event_fd = job->wait.timer_fd = job->wait.loop_fd = job->service.dump_fd = -1;
    if (job->params.dump_signal && job->params.thread_level == ISO_THREAD_SINGLE)
        job->params.thread_level = ISO_THREAD_SERIALIZED; /* the thread that dumps needs the lock */
    job->deliveries_end = &job->deliveries;
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&job->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    iso_status_t status = iso_code_open(); /* before modules are loaded */
    if (status == ISO_OK)
        status = iso_launch_open(&logger, &job->params, &job->bootstrap_module, &job->bootstrap);
    if (status != ISO_OK)
        goto fail;
    job->rank = job->bootstrap ? job->bootstrap->rank : 0;
    job->size = job->bootstrap ? job->bootstrap->size : 1;
    job->logger.rank = (int32_t)job->rank;
    if (settings == ISO_OK)
        settings = iso_stage_open(job);
    if (settings == ISO_OK)
        settings = iso_images_open(job);
    status = join(job, settings);
    if (status != ISO_OK)
        goto fail;
    iso_log(&job->logger, ISO_LOG_INFO,
            "rank %" PRIu32 " of %" PRIu32 ", iso space %p + %s, backing %s, node of "
            "%" PRIu32 ", transport between nodes %s",
            job->rank, job->size, (void *)job->space.base, ISO_SIZE(job->space.size),
            iso_backing_name(job), job->node.rank_count, iso_transport_name(job));
    *job_p = job;
    return ISO_OK;
fail:
    destroy(job);
    return settings != ISO_OK ? settings : status;
}

/* Is a migration under way that will be settled within the timeout? One in doubt may never be. */
static bool migrating(iso_job_t *job)
{
    bool any = false;
    iso_job_lock(job);
    for (const iso_request_t *request = job->requests; request; request = request->next)
        any = any || !request->in_doubt;
    iso_job_unlock(job);
    return any;
}

iso_status_t iso_finalize(iso_job_t *job)
{
    if (!iso_job_is_ours(job, "iso_finalize"))
        return ISO_ERR_INVALID;
    if (iso_stack_is_callers_job(job)) {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "iso_finalize: the thread that calls has its stack in the job's iso space: call "
                "from outside of its threads");
        return ISO_ERR_BUSY;
    }
    char why[ISO_STACK_WHY];
    if (iso_stack_job_in_use(job, why)) {
        iso_log(&job->logger, ISO_LOG_ERROR, "iso_finalize: %s", why);
        return ISO_ERR_BUSY;
    }
    for (iso_waiter_t waiter = {0}; migrating(job);) {
        iso_waiter_progress(job, &waiter);
        iso_waiter_sleep(job, iso_os_now() + 0.1, &waiter);
    }
    job->ending = true;
    iso_status_t status = iso_barrier(job);
    iso_service_close(job);
    if (status != ISO_OK)
        iso_log(&job->logger, ISO_LOG_WARN, "not all ranks came to the end of the job: %s",
                iso_status_string(status));
    iso_depth_enter();
    if (job->end)
        job->end(job, job->end_arg);
    iso_depth_leave();
    destroy(job);
    return status;
}
