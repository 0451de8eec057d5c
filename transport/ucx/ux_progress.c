/*
 * ux_progress.c - progress, sleeping, and what a process had sent that has ended: UCX is progressed until it finds nothing
 * (transport/common/life.h).
 */
#include "ucx.h"

#define TURNS 64          /* of UCX's progress in a call, while nothing has come of it */
#define SLEEP_NS 1000000L /* while UCX has something to end for which it gives no event */
#define STUCK_MS 5        /* that UCX is busy with nothing before it is not believed */

/* ---- descriptors ----------------------------------------------------------------------------- */

iso_status_t ux_events_open(iso_transport_t *tp)
{
    int worker_fd = -1;
    const ucs_status_t status = ucp_worker_get_efd(tp->worker, &worker_fd);

    tp->polled = status != UCS_OK;
    if (tp->polled && !tp->shares_context) {
        ux_log(tp, ISO_LOG_ERROR, "UCX gives no event descriptor: %s", ucs_status_string(status));
        return ISO_ERR_SYSTEM;
    }
    if (tp->polled)
        ux_log(tp, ISO_LOG_INFO,
               "the program's UCX context has no UCP_FEATURE_WAKEUP: who waits polls");
    return events_open(&tp->events, &tp->peers, tp->polled ? -1 : worker_fd);
}

unsigned ux_drain(iso_transport_t *tp)
{
    unsigned events = 0;

    for (unsigned turn = 0; turn < UX_DRAIN_TURNS && ucp_worker_progress(tp->worker) > 0; turn++)
        ;
    events += ux_eps_failed(tp);
    events += ux_own_news(tp);
    events += ux_inbox_deliver(tp);
    return events;
}

/* ---- progress -------------------------------------------------------------------------------- */

/* What was put into the inbox is taken out, but for failures, which come first. Returns events. */
static unsigned empty_inbox(iso_transport_t *tp)
{
    unsigned events = ux_own_news(tp);

    events += ux_inbox_deliver(tp);
    if (!tp->shares_worker)
        ux_ops_take(tp);
    return events;
}

unsigned ux_progress(iso_transport_t *tp)
{
    unsigned events = 0;

    if (tp->in_progress)
        return 0; /* from a callback */
    tp->in_progress = true;
    /* Where another thread progresses the worker, an operation may be seen to have ended before the failure
     * that ended it. Of what had ended before a turn of our own, which waits for the other thread's, the
     * failure is seen after it. */
    const unsigned before = atomic_load_explicit(&tp->inbox.added, memory_order_acquire);
    if (tp->shares_worker)
        ux_ops_take(tp);
    /* What UCX finds to do for itself (keepalive), and pieces of puts that land, are no event for the library. */
    unsigned turns = 0;
    while (turns < TURNS && ucp_worker_progress(tp->worker) > 0) {
        turns++;
        if (ux_inbox_ready(tp))
            break;
    }
    const uint64_t now = clock_coarse_ms();
    if (turns > 0)
        tp->busy_until = now + STUCK_MS;
    const unsigned added = atomic_load_explicit(&tp->inbox.added, memory_order_acquire);
    const bool filled = added != tp->seen;
    tp->seen = tp->shares_worker ? before : added;
    if (filled)
        events += ux_eps_failed(tp);
    if (events_due(&tp->events, now))
        events += life_look(&tp->peers, &tp->events);
    if (tp->peers.undecided > 0)
        events += life_decide(&tp->peers);
    if (filled)
        events += empty_inbox(tp);
    if (tp->ended != NULL || tp->held != NULL)
        events += ux_ops_end(tp);
    if (tp->busy != NULL)
        ux_own_advance(tp);
    tp->in_progress = false;
    return events;
}

/* ---- sleeping -------------------------------------------------------------------------------- */

int ux_event_fd(iso_transport_t *tp)
{
    return tp->polled ? -1 : tp->events.event_fd;
}

/* Shared memory calls itself busy for as long as a peer's queue is full, which that of a stopped peer stays,
 * and that of a dead one for ever (UCX 1.13 waits to flush it). Who sleeps then looks now and then. */
iso_status_t ux_arm(iso_transport_t *tp)
{
    ux_own_advance(tp);
    tp->events.armed = true; /* the next progress looks at the descriptors as it should */
    if (ux_inbox_ready(tp) || tp->ended != NULL)
        return ISO_ERR_BUSY;
    const ucs_status_t status = tp->polled ? UCS_OK : ucp_worker_arm(tp->worker);
    const bool stuck = status == UCS_ERR_BUSY && clock_coarse_ms() > tp->busy_until;
    if (status == UCS_OK || stuck) {
        events_set_timer(&tp->events,
                         stuck || tp->peers.undecided > 0 || tp->closing > 0 ? SLEEP_NS : 0);
        return ISO_OK;
    }
    if (status != UCS_ERR_BUSY)
        ux_log(tp, ISO_LOG_ERROR, "UCX cannot be waited for: %s", ucs_status_string(status));
    return ISO_ERR_BUSY;
}
