/*
 * ux_land.c - own puts at the rank they go to: what may land, and when all of it has.
 *
 * A piece is copied to its place in UCX's callback, which may run in a thread of the program's: so under a lock,
 * and what takes memory away (a region deregistered, a peer given up, disconnected or dead) takes the same lock
 * and can rely on it that nothing lands afterwards. Pieces that came too late for that, or name what is not
 * registered here, change nothing; they are counted, and the rank that put them is told by the answer to its next flush.
 *
 * Who gives a rank an rkey has connected to it before: pieces of a rank that is not known here are dropped.
 *
 * UCX promises no order among active messages. So pieces are counted for the flush that follows them: when
 * as many have come as the peer says there are, for this flush and all before it, it is answered. The peer
 * has at most UX_FLUSHES - 1 flushes without an answer, hence counts for so many.
 */
#include "ucx.h"
#include <string.h>

iso_status_t ux_landing_open(iso_transport_t *tp)
{
    return ux_lock_open(tp, &tp->landing.lock);
}

void ux_landing_close(iso_transport_t *tp)
{
    ux_lock_close(&tp->landing.lock);
}

void ux_landing_add(iso_transport_t *tp, iso_region_t *region)
{
    ux_landing_t *landing = &tp->landing;

    ux_lock(&landing->lock);
    region->number = ++landing->numbers;
    region->next = landing->regions;
    landing->regions = region;
    ux_unlock(&landing->lock);
}

void ux_landing_remove(iso_transport_t *tp, iso_region_t *region)
{
    ux_landing_t *landing = &tp->landing;

    ux_lock(&landing->lock);
    for (iso_region_t **at = &landing->regions; *at != NULL; at = &(*at)->next)
        if (*at == region) {
            *at = region->next;
            break;
        }
    if (landing->last == region)
        landing->last = NULL;
    ux_unlock(&landing->lock);
}

/* ---- what there is to say to a peer, or to hear of it ------------------------------------------ */

/* With the inbox locked. */
static void add_news(ux_inbox_t *inbox, ux_peer_t *peer)
{
    ux_inbox_added(inbox);
    if (peer->in_news)
        return;
    peer->in_news = true;
    peer->next_news = inbox->news;
    inbox->news = peer;
}

static void owe_answer(iso_transport_t *tp, ux_peer_t *peer)
{
    ux_lock(&tp->inbox.lock);
    peer->asked = true;
    add_news(&tp->inbox, peer);
    ux_unlock(&tp->inbox.lock);
}

static void let_go_on(iso_transport_t *tp, ux_peer_t *peer)
{
    ux_lock(&tp->inbox.lock);
    if (peer->waits)
        add_news(&tp->inbox, peer);
    ux_unlock(&tp->inbox.lock);
}

static void take_answer(iso_transport_t *tp, ux_peer_t *peer, const ux_own_header_t *header)
{
    ux_lock(&tp->inbox.lock);
    if (header->connection > peer->answered_connection ||
        (header->connection == peer->answered_connection && header->flush > peer->answered)) {
        peer->answered_connection = header->connection;
        peer->answered = header->flush;
        peer->answered_refused = header->address;
        add_news(&tp->inbox, peer);
    }
    ux_unlock(&tp->inbox.lock);
}

/* ---- peers ------------------------------------------------------------------------------------- */

void ux_landing_let(iso_transport_t *tp, ux_peer_t *peer)
{
    ux_lock(&tp->landing.lock);
    peer->landed.open = true;
    if (peer->landed.done > 0)
        owe_answer(tp, peer); /* there was no way to send it */
    ux_unlock(&tp->landing.lock);
}

void ux_landing_shut(iso_transport_t *tp, ux_peer_t *peer)
{
    ux_lock(&tp->landing.lock);
    peer->landed.open = false;
    ux_unlock(&tp->landing.lock);
}

/* ---- landing ----------------------------------------------------------------------------------- */

static iso_region_t *find_region(ux_landing_t *landing, uint32_t number)
{
    iso_region_t *region = landing->last;

    if (region != NULL && region->number == number)
        return region;
    for (region = landing->regions; region != NULL; region = region->next)
        if (region->number == number)
            return landing->last = region;
    return NULL;
}

static bool copy(ux_landing_t *landing, const ux_own_header_t *header, const void *data, size_t len)
{
    const iso_region_t *region = find_region(landing, header->region);

    if (region == NULL || !caller_inside((uintptr_t)region->memory.address, region->memory.length,
                                         header->address, len))
        return false;
    memcpy((void *)(uintptr_t)header->address, data, len);
    return true;
}

/* Of a connection that has been replaced nothing is to be known any more; one that is new begins. */
static bool is_current(ux_landed_t *landed, uint32_t connection)
{
    if (connection > landed->connection) {
        const bool open = landed->open;
        memset(landed, 0, sizeof *landed);
        landed->open = open;
        landed->connection = connection;
    }
    return connection == landed->connection;
}

/* A number of a flush that this connection can be at. */
static bool is_due(const ux_landed_t *landed, uint32_t flush)
{
    return flush > landed->done && flush - landed->done < UX_FLUSHES;
}

/* What all pieces have come of is done: who asked is answered, and what waited for it may go on. */
static void finish_flushes(iso_transport_t *tp, ux_peer_t *peer)
{
    ux_landed_t *landed = &peer->landed;
    const uint32_t before = landed->done;
    bool asked = false;

    for (;;) {
        const uint32_t at = (landed->done + 1) % UX_FLUSHES;
        if (landed->asked[at] == 0 || landed->pieces[at] != landed->asked[at] - 1)
            break;
        landed->asked[at] = landed->pieces[at] = 0;
        asked |= (landed->questions >> at & 1) != 0;
        landed->questions &= ~(1u << at);
        landed->done++;
    }
    if (asked)
        owe_answer(tp, peer);
    else if (landed->done != before)
        let_go_on(tp, peer);
}

/* With the landing locked. */
static bool land_at(iso_transport_t *tp, ux_peer_t *peer, const ux_own_header_t *header,
                    const void *data, size_t len)
{
    ux_landed_t *landed = &peer->landed;

    if (!is_current(landed, header->connection)) {
        tp->landing.refused += header->kind == UX_OWN_PIECE;
        return true;
    }
    if (!is_due(landed, header->flush))
        return false;
    if (header->kind == UX_OWN_ASK || header->pieces > 0) {
        landed->asked[header->flush % UX_FLUSHES] = (uint64_t)header->pieces + 1;
        landed->questions |= 1u << header->flush % UX_FLUSHES;
    }
    if (header->kind == UX_OWN_PIECE) {
        landed->pieces[header->flush % UX_FLUSHES]++;
        if (!landed->open || !copy(&tp->landing, header, data, len)) {
            landed->refused++;
            tp->landing.refused++;
        }
    }
    finish_flushes(tp, peer);
    return true;
}

bool ux_landed_before(iso_transport_t *tp, ux_peer_t *peer, const ux_header_t *header)
{
    ux_landed_t *landed = &peer->landed;

    if (header->flush == 0)
        return true;
    ux_lock(&tp->landing.lock);
    bool ready =
        !is_current(landed, header->connection); /* of puts of another one nothing is to be known */
    if (!ready && is_due(landed, header->flush) && header->pieces > 0) {
        landed->asked[header->flush % UX_FLUSHES] = header->pieces;
        finish_flushes(tp, peer);
    }
    ready |= header->flush <= landed->done;
    ux_unlock(&tp->landing.lock);
    return ready;
}

bool ux_land(iso_transport_t *tp, const ux_own_header_t *header, const void *data, size_t len)
{
    bool taken = false;

    if (header->version != UX_VERSION || header->source >= tp->host->size ||
        header->connection == 0 ||
        memcmp(header->cookie, tp->host->cookie, sizeof header->cookie) != 0)
        return false;
    ux_lock(&tp->landing.lock);
    ux_peer_t *peer = peers_find(&tp->peers, header->source);
    if (peer == NULL) {
        /* nobody here has given it an rkey */
    } else if (header->kind == UX_OWN_ANSWER && len == 0) {
        take_answer(tp, peer, header);
        taken = true;
    } else if ((header->kind == UX_OWN_ASK && len == 0) ||
               (header->kind == UX_OWN_PIECE && len > 0)) {
        taken = land_at(tp, peer, header, data, len);
    }
    ux_unlock(&tp->landing.lock);
    return taken;
}
