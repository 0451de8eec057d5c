/*
 * dump.c - what a rank is doing, as text: for people who look at a job that hangs.
 *
 * The lock is waited for, but not for ever: a rank whose lock is never given back is one of those that
 * are looked at. Then the text may be torn, and says so.
 */
#include "core/arrive.h"
#include "core/job.h"
#include "core/left.h"
#include "core/migrate.h"
#include "core/os.h"
#include "core/quantity.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LOCK_SECONDS 1
#define LINES_MAX 64 /* of a list; the rest is counted */

static const char *const incoming_names[] = {
    [ISO_INCOMING_LISTING] = "LISTING",
    [ISO_INCOMING_RESERVED] = "RESERVED",
    [ISO_INCOMING_ARRIVED] = "ARRIVED",
};

static void dump_requests(const iso_job_t *job, FILE *out)
{
    unsigned count = 0;
    double now = iso_os_now();
    for (const iso_request_t *r = job->requests; r; r = r->next)
        if (count++ < LINES_MAX && r->step == ISO_STEP_PREPARING) {
            fprintf(out, "  heap %p is prepared for rank %" PRIu32 ", times out in %.1f s\n",
                    (void *)r->heap, r->dest, r->deadline - now);
        } else if (count <= LINES_MAX) {
            fprintf(out,
                    "  heap %p to rank %" PRIu32 ": %s, epoch %" PRIu64 ", %s of %s put, %s, "
                    "decided by %s",
                    (void *)r->heap, r->dest, iso_step_name(r->step), r->epoch,
                    ISO_SIZE(r->bytes_put), ISO_SIZE(r->runs.bytes),
                    r->grant ? "standing grant" : "reservation",
                    r->decided_by_node ? "the node's word" : "messages");
            if (r->step < ISO_STEP_STOPPING)
                fprintf(out, ", times out in %.1f s", r->deadline - now);
            fputc('\n', out);
        }
    if (count > LINES_MAX)
        fprintf(out, "  ... and %u more on their way out\n", count - LINES_MAX);
}

static void dump_incoming(const iso_job_t *job, FILE *out)
{
    unsigned count = 0;
    for (const iso_incoming_t *in = job->incoming; in; in = in->next)
        if (count++ < LINES_MAX)
            fprintf(out, "  heap %p from rank %" PRIu32 ": %s, epoch %" PRIu64 "%s\n",
                    (void *)in->heap, in->source, incoming_names[in->step], in->epoch,
                    in->handover ? ", handed over" : "");
    if (count > LINES_MAX)
        fprintf(out, "  ... and %u more on their way in\n", count - LINES_MAX);
    count = 0;
    for (const iso_delivery_t *delivery = job->deliveries; delivery; delivery = delivery->next)
        count++;
    if (count > 0)
        fprintf(out, "  %u arrivals wait for %s\n", count,
                job->params.arrival ? "the next iso_progress" : "an arrival callback");
}

static void dump_peers(const iso_job_t *job, FILE *out)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < job->peers.bucket_count; i++)
        for (const iso_peer_t *peer = job->peers.buckets[i]; peer; peer = peer->next) {
            unsigned queued = 0;
            for (const iso_outgoing_t *message = peer->queue; message; message = message->next)
                queued++;
            if (count++ >= LINES_MAX)
                continue;
            fprintf(out, "  peer %" PRIu32 ": %s, %s%s", peer->rank,
                    peer->same_node ? "same node" : "another node",
                    peer->dead     ? "dead"
                    : peer->broken ? "given up by its transport"
                    : peer->ep     ? "reached"
                                   : "not reached",
                    peer->hello_received || peer->dead ? "" : ", has not spoken yet");
            if (queued > 0)
                fprintf(out, ", %u messages wait for it", queued);
            fputc('\n', out);
        }
    if (count > LINES_MAX)
        fprintf(out, "  ... and %u more peers\n", count - LINES_MAX);
}

static void dump_heaps(const iso_job_t *job, FILE *out)
{
    unsigned states[ISO_HEAP_IN_DOUBT + 1] = {0}, granted = 0, revoking = 0;
    for (const iso_hold_t *hold = job->holds; hold; hold = hold->next)
        states[hold->state]++;
    for (const iso_left_t *left = job->retain.oldest; left; left = left->next) {
        granted += left->state == ISO_LEFT_GRANTED;
        revoking += left->state == ISO_LEFT_REVOKING;
    }
    fprintf(out,
            "  heaps: %u owned, %u on their way, %u in doubt; grants given: %u standing, %u being "
            "revoked\n",
            states[ISO_HEAP_OWNED], states[ISO_HEAP_MOVING], states[ISO_HEAP_IN_DOUBT], granted,
            revoking);
    fprintf(out, "  slots: %" PRIu32 " free (%" PRIu32 " of other ranks' strips); retained %s%s\n",
            job->slots.free_count, job->slots.foreign_free,
            ISO_SIZE(iso_retain_bytes(&job->retain)),
            job->borrow ? "; a thread waits for slots of another rank" : "");
}

static void dump_windows(const iso_job_t *job, FILE *out)
{
    const iso_windows_t *windows = job->windows;
    unsigned recalled = 0;
    for (const iso_key_t *key = job->keys_recalled; key; key = key->next_recalled)
        recalled++;
    if (windows)
        fprintf(out,
                "  windows: %" PRIu32 " of at most %" PRIu32 " registered, %" PRIu32
                " lent, %" PRIu32 " on their way out; %" PRIu32 " keys asked for by peers\n",
                windows->registered, windows->room, windows->lent, windows->closing,
                windows->want_count);
    if (recalled > 0)
        fprintf(out, "  keys: %u called back by peers are in use still\n", recalled);
}

static bool lock_in_time(iso_job_t *job)
{
    struct timespec until;
    if (job->params.thread_level == ISO_THREAD_SINGLE)
        return true;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LOCK_SECONDS;
    return pthread_mutex_timedlock(&job->lock, &until) == 0;
}

static void write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, text, length);
        if (n < 0 && errno != EINTR)
            return; /* whom to tell? */
        if (n > 0) {
            text += n;
            length -= (size_t)n;
        }
    }
}

void iso_dump(iso_job_t *job, int fd)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        return;
    bool locked = lock_in_time(job);
    fprintf(out,
            "isomalloc: rank %" PRIu32 " of %" PRIu32
            ", process %d, iso space %p + %s, backing %s, transport %s\n",
            job->rank, job->size, (int)getpid(), (void *)job->space.base, ISO_SIZE(job->space.size),
            iso_backing_name(job), iso_transport_name(job));
    if (!locked)
        fprintf(out, "  a thread has held the job's lock for %d s: what follows may be torn\n",
                LOCK_SECONDS);
    dump_heaps(job, out);
    dump_windows(job, out);
    dump_requests(job, out);
    dump_incoming(job, out);
    dump_peers(job, out);
    if (locked)
        iso_job_unlock(job);
    if (fclose(out) == 0)
        write_all(fd, text, length); /* at once, so that ranks' blocks do not mix */
    free(text);
}
