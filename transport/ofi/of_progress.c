/*
 * of_progress.c - progress, sleeping, and what a process had sent that has ended.
 *
 * Its death is reported after all of that has been delivered (transport/common/life.h), and after the last of its puts that are
 * still on the way here have landed: so libfabric is asked as often as it takes to empty what buffers there are.
 */
#include "ofi.h"

#define TURNS 16 /* of asking in a call, while nothing has come of it */
#define NAP_LEAST_NS \
    50000L /* where there is something to do for which there is no event: at first */
#define NAP_MOST_NS 1000000L /* and when nothing has come for a while */
#define STUCK_MS 5           /* that libfabric is busy with nothing before it is not believed */

/* ---- descriptors ----------------------------------------------------------------------------- */

iso_status_t of_events_open(iso_transport_t *tp)
{
    tp->nap = NAP_LEAST_NS;
    return events_open(&tp->events, &tp->peers, tp->cq_fd);
}

unsigned of_drain(iso_transport_t *tp)
{
    unsigned events = 0;

    for (unsigned turn = 0; turn < OF_DRAIN_TURNS; turn++)
        turn = of_cq_take(tp) > 0 ? 0 : turn;
    events += of_eps_failed(tp);
    events += of_msgs_deliver(tp);
    return events;
}

/* ---- progress -------------------------------------------------------------------------------- */

static bool has_news(const iso_transport_t *tp)
{
    return tp->arrived != NULL || tp->landed != NULL || tp->ended != NULL || tp->failed != NULL ||
           tp->room > 0;
}

unsigned of_progress(iso_transport_t *tp)
{
    unsigned events = 0;

    if (tp->in_progress)
        return 0; /* from a callback */
    tp->in_progress = true;
    tp->turn++;
    unsigned turns = 0;
    while (turns < TURNS && of_cq_take(tp) > 0) {
        turns++;
        if (tp->arrived != NULL || tp->ended != NULL)
            break;
    }
    const uint64_t now = clock_coarse_ms();
    if (turns > 0)
        tp->busy_until = now + STUCK_MS;
    if (tp->room > 0) {
        tp->room = 0;
        events++;
    }
    if (tp->failed != NULL)
        events += of_eps_failed(tp);
    if (events_due(&tp->events, now))
        events += life_look(&tp->peers, &tp->events);
    if (tp->peers.undecided > 0)
        events += life_decide(&tp->peers);
    if (tp->arrived != NULL || tp->landed != NULL)
        events += of_msgs_deliver(tp);
    if (tp->ended != NULL || tp->held != NULL)
        events += of_ops_tell(tp);
    if (tp->busy != NULL)
        of_eps_advance(tp);
    if (tp->posted < OF_RECVS)
        of_recvs_post(tp);
    if (events > 0)
        tp->nap = NAP_LEAST_NS;
    tp->in_progress = false;
    return events;
}

/* ---- sleeping -------------------------------------------------------------------------------- */

int of_event_fd(iso_transport_t *tp)
{
    return tp->events.event_fd;
}

iso_status_t of_arm(iso_transport_t *tp)
{
    of_eps_advance(tp);
    tp->events.armed = true; /* the next progress looks at the descriptors as it should */
    if (has_news(tp))
        return ISO_ERR_BUSY;
    struct fid *fids[] = {&tp->cq->fid};
    const int error = tp->cq_fd >= 0 ? fi_trywait(tp->fabric, fids, 1) : 0;
    const bool stuck = error == -FI_EAGAIN && clock_coarse_ms() > tp->busy_until;
    if (error == 0 || stuck) {
        const bool nap = tp->cq_fd < 0 || stuck || tp->peers.undecided > 0 || tp->busy != NULL;
        events_set_timer(&tp->events, nap ? tp->nap : 0);
        tp->nap = tp->nap * 2 < NAP_MOST_NS ? tp->nap * 2 : NAP_MOST_NS;
        return ISO_OK;
    }
    if (error != -FI_EAGAIN)
        of_log(tp, ISO_LOG_ERROR, "libfabric cannot be waited for: %s", fi_strerror(-error));
    return ISO_ERR_BUSY;
}
