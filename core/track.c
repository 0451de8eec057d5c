/* track.c - see track.h. */
#include "core/track.h"
#include "core/image.h"
#include "core/job.h"
#include <string.h>

static const char *why_not(const iso_job_t *job)
{
    if (job->space.backing != ISO_BACKING_ANON)
        return "it takes ISO_BACKING=anon: other ranks reach the memory of this one by mappings of "
               "their own";
    if ((job->node_link && job->node_link->caps.pins_memory) ||
        (job->net_link && job->net_link->caps.pins_memory))
        return "the transport's device writes to memory that it pins";
    return iso_os_page_size() == ISO_IMAGE_PAGE ? NULL : "pages of this system are not of 4 KiB";
}

/* Under the job's lock. */
static void open_once(iso_job_t *job)
{
    iso_track_t *track = &job->track;
    if (track->tried)
        return;
    track->tried = true;
    const char *why = why_not(job);
    const int error =
        why ? 0 : iso_os_writes_open(job->space.base, (size_t)job->space.size, &track->writes);
    track->on = !why && !error;
    if (!track->on)
        iso_log(
            &job->logger, ISO_LOG_WARN,
            "ISO_TRACK_WRITES: what is written cannot be told (%s%s): checkpoints read all "
            "pages",
            why ? why : "userfaultfd and PAGEMAP_SCAN, Linux 6.7: ", why ? "" : strerror(error));
}

bool iso_track_begin(iso_job_t *job, uint64_t since)
{
    iso_track_t *track = &job->track;
    if (!job->params.track_writes)
        return false;
    iso_job_lock(job);
    open_once(job);
    const bool known = track->on && since && since == track->image;
    track->image = 0;
    iso_job_unlock(job);
    return known;
}

bool iso_track_take(iso_job_t *job, const iso_contents_t *contents, uint8_t *bits, uint64_t first)
{
    if (!job->track.on)
        return false;
    for (uint64_t i = 0; i < contents->runs.count; i++) {
        const iso_run_t *run = &contents->runs.list[i];
        if (iso_os_writes_take(&job->track.writes, (void *)run->address, run->length, bits,
                               (size_t)first) != 0)
            return false; /* mapped from an image, for one */
        first += run->length / ISO_IMAGE_PAGE;
    }
    return true;
}

void iso_track_end(iso_job_t *job, uint64_t image)
{
    iso_job_lock(job);
    if (job->track.on)
        job->track.image = image;
    iso_job_unlock(job);
}

void iso_track_close(iso_track_t *track)
{
    if (track->on)
        iso_os_writes_close(&track->writes);
    track->on = false;
}
