/* borrow.c - see borrow.h. */
#include "core/borrow.h"
#include "core/job.h"
#include "core/left.h"
#include "core/migrate.h"
#include "core/quantity.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HOME_BATCH_MAX 64

/* A request for slots under way: one rank at a time is asked. */
typedef struct iso_borrow {
    uint32_t token;
    uint32_t asked; /* rank */
    bool answered;
} iso_borrow_t;

static uint32_t home_batch(const iso_job_t *job)
{
    uint32_t batch = job->slots.strip_count / 8;
    if (batch > HOME_BATCH_MAX)
        batch = HOME_BATCH_MAX;
    return batch > 0 ? batch : 1;
}

void iso_borrow_put(iso_job_t *job, uint32_t first, uint32_t count)
{
    iso_slots_put(&job->slots, first, count);
    if (job->slots.foreign_free >= home_batch(job))
        job->slots_going_home = true;
}

/* ---- giving ---- */

typedef struct gift {
    iso_extent_t extents[ISO_WIRE_EXTENTS_MAX];
    uint32_t count;
} gift_t;

static void send_gift(iso_job_t *job, iso_peer_t *peer, const gift_t *gift, uint32_t token)
{
    iso_msg_t msg = {.type = ISO_MSG_SLOT_GIVE,
                     .token = token,
                     .epoch = job->epoch_high,
                     .extents = gift->extents,
                     .extent_count = gift->count};
    iso_peer_send(job, peer, &msg);
}

static void give(iso_job_t *job, gift_t *gift, uint32_t first, uint32_t count)
{
    iso_slots_take_exact(&job->slots, first, count);
    iso_guard_lift(job, first, count);
    iso_retain_slots_leave(job, first, count);
    job->stats.slots_given += count;
    gift->extents[gift->count++] = (iso_extent_t){first, count};
}

/* Adds free slots at home with `home` to the gift while there is room; the longest run. */
static uint32_t give_home(iso_job_t *job, gift_t *gift, uint32_t home)
{
    uint32_t home_first, home_count, from, first, count, longest = 0;
    iso_slots_strip(job->slots.total, home, job->size, &home_first, &home_count);
    from = home_first;
    while (gift->count < ISO_WIRE_EXTENTS_MAX &&
           iso_slots_next_foreign(&job->slots, from, &first, &count) &&
           first < home_first + home_count) {
        if (count > home_first + home_count - first)
            count = home_first + home_count - first;
        give(job, gift, first, count);
        if (count > longest)
            longest = count;
        from = first + count;
    }
    return longest;
}

void iso_borrow_on_request(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    gift_t gift;
    gift.count = 0;
    uint32_t longest = give_home(job, &gift, peer->rank), first;
    if (longest < msg->slots && gift.count < ISO_WIRE_EXTENTS_MAX) {
        uint32_t batch = job->slots.free_count / 8;
        if (batch > msg->slots && iso_slots_take(&job->slots, batch, &first) == ISO_OK) {
            iso_slots_put(&job->slots, first, batch);
            give(job, &gift, first, batch);
        } else if (iso_slots_take(&job->slots, msg->slots, &first) == ISO_OK) {
            iso_slots_put(&job->slots, first, msg->slots);
            give(job, &gift, first, msg->slots);
        }
    }
    send_gift(job, peer, &gift, msg->token);
}

unsigned iso_borrow_advance(iso_job_t *job)
{
    unsigned sent = 0;
    uint32_t from = 0, first, count;
    if (!job->slots_going_home)
        return 0;
    job->slots_going_home = false;
    while (iso_slots_next_foreign(&job->slots, from, &first, &count)) {
        uint32_t home = iso_slots_home(job->slots.total, job->size, first);
        uint32_t home_first, home_count;
        iso_slots_strip(job->slots.total, home, job->size, &home_first, &home_count);
        from = home_first + home_count;
        iso_peer_t *peer;
        if (iso_peer_get(job, home, &peer) != ISO_OK)
            continue; /* they stay here, and serve here */
        gift_t gift;
        do {
            gift.count = 0;
            give_home(job, &gift, home);
            if (gift.count > 0) {
                send_gift(job, peer, &gift, 0);
                sent++;
            }
        } while (gift.count == ISO_WIRE_EXTENTS_MAX);
    }
    return sent;
}

/* ---- receiving ---- */

iso_status_t iso_borrow_on_give(iso_job_t *job, const iso_msg_t *msg)
{
    iso_migrate_settle(job);
    for (uint32_t i = 0; i < msg->extent_count; i++) {
        if (msg->extents[i].count & ISO_EXTENT_RUN ||
            !iso_slots_unknown(&job->slots, &msg->extents[i]))
            return ISO_ERR_INVALID;
        for (uint32_t j = 0; j < i; j++)
            if (msg->extents[i].first < msg->extents[j].first + msg->extents[j].count &&
                msg->extents[j].first < msg->extents[i].first + msg->extents[i].count)
                return ISO_ERR_INVALID;
    }
    iso_left_claim(job, NULL, msg->extents, msg->extent_count, ISO_COMING_FREE);
    if (job->epoch_high < msg->epoch)
        job->epoch_high = msg->epoch;
    for (uint32_t i = 0; i < msg->extent_count; i++) {
        /* not iso_borrow_put: what was borrowed is needed here, and goes home when it is freed */
        iso_slots_put(&job->slots, msg->extents[i].first, msg->extents[i].count);
        job->stats.slots_received += msg->extents[i].count;
    }
    if (job->borrow && msg->token == job->borrow->token && msg->source == job->borrow->asked)
        job->borrow->answered = true;
    return ISO_OK;
}

void iso_borrow_on_death(iso_job_t *job, uint32_t rank)
{
    if (job->borrow && job->borrow->asked == rank)
        job->borrow->answered = true;
}

/* ---- asking ---- */

/* Who is asked as number `i` of size - 1: the other ranks of the node, then the rest. */
static bool candidate(const iso_job_t *job, uint32_t i, uint32_t *rank_p)
{
    uint32_t in_node = 0;
    for (uint32_t n = 0; n < job->node.rank_count; n++) {
        if (job->node.ranks[n] == job->rank)
            continue;
        if (in_node++ == i) {
            *rank_p = job->node.ranks[n];
            return true;
        }
    }
    *rank_p = (job->rank + 1 + (i - in_node)) % job->size;
    return i - in_node < job->size - 1;
}

static void wait_once(iso_job_t *job, double until, iso_waiter_t *waiter)
{
    iso_waiter_advance(job, waiter);
    iso_job_unlock(job);
    iso_waiter_sleep(job, until, waiter);
    iso_job_lock(job);
}

static void ask(iso_job_t *job, iso_borrow_t *borrow, uint32_t rank, uint32_t count, double until)
{
    iso_peer_t *peer;
    iso_waiter_t waiter = {0};
    if (iso_peer_get(job, rank, &peer) != ISO_OK)
        return;
    borrow->asked = rank;
    borrow->token++;
    borrow->answered = false;
    iso_msg_t msg = {.type = ISO_MSG_SLOT_REQUEST, .token = borrow->token, .slots = count};
    iso_peer_send(job, peer, &msg);
    while (!borrow->answered && iso_os_now() < until)
        wait_once(job, until, &waiter);
}

iso_status_t iso_borrow_take(iso_job_t *job, uint32_t count, uint32_t *first_p)
{
    iso_status_t status = iso_slots_take(&job->slots, count, first_p);
    if (status == ISO_OK)
        return ISO_OK;
    iso_borrow_t borrow = {0};
    double until = iso_os_now() + job->params.timeout;
    iso_waiter_t waiter = {0};
    while (job->borrow && iso_os_now() < until) /* another thread is asking */
        wait_once(job, until, &waiter);
    if (job->size > 1 && !job->forked && count <= job->slots.total && !job->borrow) {
        uint32_t rank;
        /* cppcheck-suppress autoVariables ; taken away again below, under the lock */
        job->borrow = &borrow;
        borrow.token = job->borrow_token;
        status = iso_slots_take(&job->slots, count, first_p);
        for (uint32_t i = 0; status != ISO_OK && candidate(job, i, &rank); i++) {
            if (rank != job->rank && (i < job->node.rank_count || !iso_node_has(&job->node, rank)))
                ask(job, &borrow, rank, count, until);
            status = iso_slots_take(&job->slots, count, first_p);
            if (iso_os_now() >= until)
                break;
        }
        job->borrow_token = borrow.token;
        job->borrow = NULL;
    }
    /* a program that tries how much it can get does not want a line each time */
    uint64_t times = status == ISO_OK ? 0 : ++job->no_room;
    if (times > 0 && (times & (times - 1)) == 0)
        iso_log(
            &job->logger, ISO_LOG_ERROR,
            "the iso space has no %" PRIu32
            " adjacent free slots (%s) that this rank could get: this rank has %" PRIu32
            " free of %" PRIu32
            " in the space; set ISO_SPACE_SIZE to more (such a line comes at the 1st, 2nd, 4th, "
            "8th time and so on, this is no. %" PRIu64 ")",
            count, ISO_SIZE((uint64_t)count << ISO_SLOT_SHIFT), job->slots.free_count,
            job->slots.total, times);
    return status;
}
