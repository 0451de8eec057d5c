/* window.c - see window.h. */
#include "core/window.h"
#include "core/guard.h"
#include "core/job.h"
#include "core/os.h"
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#define PATIENCE \
    8 /* times in a timeout that one more window is recalled, if those before stay away */

iso_status_t iso_windows_open(iso_job_t *job, iso_link_t *link, uint64_t limit)
{
    uint32_t total = iso_space_slots(&job->space);
    uint64_t fit = limit >> ISO_SLOT_SHIFT;
    assert(fit >= ISO_WINDOWS_LEAST);
    iso_windows_t *windows = calloc(1, sizeof *windows);
    if (!windows)
        return ISO_ERR_NO_MEMORY;
    windows->link = link;
    windows->limit = limit;
    windows->slots = ISO_WINDOW_SLOTS_MAX;
    while (windows->slots > 1 && fit / windows->slots < ISO_WINDOWS_WISHED)
        windows->slots /= 2;
    windows->count = (total + windows->slots - 1) / windows->slots;
    windows->room =
        fit / windows->slots < UINT32_MAX ? (uint32_t)(fit / windows->slots) : UINT32_MAX;
    windows->wants_end = &windows->wants;
    windows->at = iso_os_table_map(windows->count * sizeof *windows->at);
    if (!windows->at) {
        free(windows);
        return ISO_ERR_NO_MEMORY;
    }
    job->windows = link->windows = windows;
    return ISO_OK;
}

/* ---- the list by use ---- */

static void list_remove(iso_windows_t *windows, iso_window_t *window)
{
    assert((window->newer == NULL) == (windows->newest == window));
    assert((window->older == NULL) == (windows->oldest == window));
    *(window->newer ? &window->newer->older : &windows->newest) = window->older;
    *(window->older ? &window->older->newer : &windows->oldest) = window->newer;
}

static void list_add(iso_windows_t *windows, iso_window_t *window)
{
    window->newer = NULL;
    window->older = windows->newest;
    *(window->older ? &window->older->newer : &windows->oldest) = window;
    windows->newest = window;
}

static void touch(iso_windows_t *windows, iso_window_t *window)
{
    if (windows->newest == window)
        return;
    list_remove(windows, window);
    list_add(windows, window);
}

void iso_windows_touch(iso_job_t *job, const iso_extent_t *extents, uint32_t count)
{
    iso_windows_t *windows = job->windows;
    for (uint32_t e = 0; windows && e < count; e++) {
        uint32_t last = (extents[e].first + iso_extent_slots(&extents[e]) - 1) / windows->slots;
        for (uint32_t index = extents[e].first / windows->slots; index <= last; index++)
            if (windows->at[index])
                touch(windows, windows->at[index]);
    }
}

/* ---- registering ---- */

static uint32_t slots_of(const iso_job_t *job, uint32_t index)
{
    uint32_t first = index * job->windows->slots, total = iso_space_slots(&job->space);
    return total - first < job->windows->slots ? total - first : job->windows->slots;
}

bool iso_windows_pin(const iso_job_t *job)
{
    return job->windows && job->windows->link->caps.pins_memory;
}

bool iso_window_pins(const iso_job_t *job, uint32_t slot)
{
    const iso_windows_t *windows = job->windows;
    return windows && windows->link->caps.pins_memory && windows->at[slot / windows->slots];
}

/* There is room for it. */
static iso_status_t register_one(iso_job_t *job, uint32_t index, iso_window_t **window_p)
{
    iso_windows_t *windows = job->windows;
    iso_link_t *link = windows->link;
    uint32_t first = index * windows->slots, count = slots_of(job, index);
    iso_memory_t memory = {.address = iso_space_slot_address(&job->space, first),
                           .length = (uint64_t)count << ISO_SLOT_SHIFT,
                           .fd = job->space.fd};
    if (memory.fd >= 0)
        memory.offset = (uint64_t)first << ISO_SLOT_SHIFT;
    iso_window_t *window = calloc(1, sizeof *window);
    if (!window)
        return ISO_ERR_NO_MEMORY;
    if (link->caps.pins_memory) /* which no page that faults can be */
        iso_guard_pause(job, first, count);
    iso_status_t status = link->ops->mem_register(link->tp, &memory, &window->region);
    if (link->caps.pins_memory)
        iso_guard_resume(job, first, count);
    if (status != ISO_OK) {
        free(window);
        return status;
    }
    window->index = index;
    window->id = ++windows->last_id;
    windows->at[index] = window;
    windows->registered++;
    list_add(windows, window);
    iso_stats_t *stats = &job->stats;
    stats->registrations++;
    stats->registered_bytes += memory.length;
    if (stats->registered_bytes > stats->registered_high)
        stats->registered_high = stats->registered_bytes;
    assert(windows->registered <= windows->room && windows->at[index] == window);
    assert(stats->registered_bytes <= windows->limit);
    *window_p = window;
    return ISO_OK;
}

/* The system lets less be pinned than it seemed (the transport pins memory of its own, too, the more the more peers
 * there are): from here on no more windows than there are. ISO_ERR_AGAIN: with these it works. If all
 * of them are lent, our own puts have to wait for a peer, this once. The room shrinks each time, so to try again has
 * an end. */
static iso_status_t register_window(iso_job_t *job, uint32_t index, iso_window_t **window_p)
{
    iso_windows_t *windows = job->windows;
    iso_status_t status = register_one(job, index, window_p);
    uint32_t room = windows->registered;
    if (status != ISO_ERR_LIMIT || room < ISO_WINDOWS_LEAST)
        return status;
    iso_log(&job->logger, ISO_LOG_WARN,
            "no more than %" PRIu32 " windows of %" PRIu32 " MiB can be registered, %" PRIu32
            " were meant to be: go on with these; set ISO_PIN_LIMIT to less, or ulimit -l to more",
            room, (uint32_t)(windows->slots << (ISO_SLOT_SHIFT - 20)), windows->room);
    windows->room = room;
    return ISO_ERR_AGAIN;
}

/* Nothing can land in it or be read from it any more. */
static void remove_window(iso_job_t *job, iso_window_t *window)
{
    iso_windows_t *windows = job->windows;
    uint32_t index = window->index;
    assert(window->uses == 0 && window->loan_count == 0 && windows->at[index] == window);
    windows->link->ops->mem_deregister(window->region);
    job->stats.deregistrations++;
    job->stats.registered_bytes -= (uint64_t)slots_of(job, index) << ISO_SLOT_SHIFT;
    windows->registered--;
    windows->closing -= window->closing;
    windows->at[index] = NULL;
    list_remove(windows, window);
    free(window->loans);
    free(window);
}

static void deregister(iso_job_t *job, iso_window_t *window)
{
    uint32_t index = window->index;
    remove_window(job, window);
    if (iso_windows_pin(job))
        iso_retain_unpinned(job, index * job->windows->slots, slots_of(job, index));
}

static void recall(iso_job_t *job, iso_window_t *window)
{
    job->stats.window_evictions++;
    window->closing = true;
    job->windows->closing++;
    job->windows->patient_until = iso_os_now() + job->params.timeout / PATIENCE;
    for (uint32_t i = 0; i < window->loan_count; i++) {
        iso_msg_t msg = {.type = ISO_MSG_RECALL, .slots = window->index, .token = window->id};
        iso_peer_t *peer = iso_peer_find(job, window->loans[i]);
        job->stats.keys_recalled++;
        if (peer)
            iso_peer_send(job, peer, &msg);
    }
}

static void evict(iso_job_t *job, iso_window_t *window)
{
    job->stats.window_evictions++;
    deregister(job, window);
}

/* How many windows are on their way out at a time is bounded, so that a long queue does not recall
 * everything that others are using. One more when they take long: a borrower may be stopped. */
static bool may_recall(const iso_windows_t *windows, uint32_t most)
{
    return windows->closing < most || iso_os_now() >= windows->patient_until;
}

double iso_windows_deadline(const iso_job_t *job)
{
    const iso_windows_t *windows = job->windows;
    return windows && windows->wants && windows->closing ? windows->patient_until : INFINITY;
}

/* ---- for our own puts ---- */

/* Not at the cost of a loan: that would be to wait for somebody who may be waiting for us. But what is lent and
 * was used longer ago is recalled as well, so that it does not stay at our own windows' cost. */
static bool make_own_room(iso_job_t *job)
{
    iso_windows_t *windows = job->windows;
    iso_window_t *lent = NULL, *window = windows->oldest;
    for (; window; window = window->newer) {
        if (window->loan_count == 0 && window->uses == 0)
            break;
        if (!lent && window->loan_count > 0 && !window->closing)
            lent = window;
    }
    if (lent && may_recall(windows, 1))
        recall(job, lent);
    if (window)
        evict(job, window);
    return window != NULL;
}

iso_status_t iso_window_get(iso_job_t *job, uint32_t index, iso_window_t **window_p)
{
    iso_windows_t *windows = job->windows;
    iso_window_t *window = windows->at[index];
    if (window && window->closing && window->loan_count == 0)
        return ISO_ERR_AGAIN; /* who waits for its end has waited long enough */
    while (!window) {
        if (windows->registered >= windows->room && !make_own_room(job))
            return ISO_ERR_AGAIN;
        iso_status_t status = register_window(job, index, &window);
        if (status != ISO_ERR_AGAIN && status != ISO_OK)
            return status;
    }
    touch(windows, window);
    *window_p = window;
    return ISO_OK;
}

/* ---- for peers ---- */

static bool is_lent_to(const iso_window_t *window, uint32_t rank)
{
    for (uint32_t i = 0; i < window->loan_count; i++)
        if (window->loans[i] == rank)
            return true;
    return false;
}

static iso_status_t loan_add(iso_job_t *job, iso_window_t *window, uint32_t rank)
{
    if (is_lent_to(window, rank))
        return ISO_OK;
    if (window->loan_count == window->loan_room) {
        uint32_t room = window->loan_room ? window->loan_room * 2 : 2;
        uint32_t *loans = realloc(window->loans, room * sizeof *loans);
        if (!loans)
            return ISO_ERR_NO_MEMORY;
        window->loans = loans;
        window->loan_room = room;
    }
    job->windows->lent += window->loan_count == 0;
    window->loans[window->loan_count++] = rank;
    assert(job->windows->lent < job->windows->room);
    return ISO_OK;
}

static bool loan_remove(iso_job_t *job, iso_window_t *window, uint32_t rank)
{
    for (uint32_t i = 0; i < window->loan_count; i++) {
        if (window->loans[i] != rank)
            continue;
        window->loans[i] = window->loans[--window->loan_count];
        job->windows->lent -= window->loan_count == 0;
        return true;
    }
    return false;
}

static void answer(iso_job_t *job, iso_peer_t *peer, uint32_t index, iso_status_t status)
{
    const iso_windows_t *windows = job->windows;
    iso_window_t *window = windows->at[index];
    unsigned char rkey[ISO_TRANSPORT_RKEY_MAX];
    size_t len = sizeof rkey;
    iso_msg_t msg = {
        .type = ISO_MSG_LEND, .about = ISO_MSG_WANT, .slots = index, .data = rkey, .data_len = 0};
    if (status == ISO_OK)
        status = windows->link->ops->rkey_pack(window->region, rkey, &len);
    if (status == ISO_OK)
        status = loan_add(job, window, peer->rank);
    if (status == ISO_OK) {
        msg.token = window->id;
        msg.data_len = (uint32_t)len;
    } else {
        iso_log(&job->logger, ISO_LOG_ERROR,
                "rank %" PRIu32 " cannot put to the window at %p, which cannot be registered: %s",
                peer->rank, (void *)iso_space_slot_address(&job->space, index * windows->slots),
                iso_status_string(status));
    }
    msg.reason = status;
    iso_peer_send(job, peer, &msg);
}

/* Makes room for a loan: true at once, or starts what will. */
static bool make_lent_room(iso_job_t *job, bool must_be_lent)
{
    iso_windows_t *windows = job->windows;
    uint32_t most = windows->room / 4 + 1;
    if (most > windows->want_count)
        most = windows->want_count;
    iso_window_t *window = windows->oldest;
    for (; window && may_recall(windows, most); window = window->newer) {
        if (window->closing)
            continue;
        if (window->loan_count > 0)
            recall(job, window);
        else if (window->uses == 0 && !must_be_lent)
            break;
    }
    if (!window || window->closing || window->loan_count > 0 || window->uses > 0 || must_be_lent)
        return false;
    evict(job, window);
    return true;
}

/* ISO_ERR_AGAIN: not yet. Otherwise it has been answered. */
static iso_status_t lend(iso_job_t *job, iso_peer_t *peer, uint32_t index)
{
    iso_windows_t *windows = job->windows;
    iso_window_t *window = windows->at[index];
    iso_status_t status;
    if (window && window->closing)
        return ISO_ERR_AGAIN;
    do {
        bool is_lent = window && window->loan_count > 0;
        if (!is_lent && windows->lent + 1 >= windows->room) {
            make_lent_room(job, true);
            return ISO_ERR_AGAIN;
        }
        if (!window && windows->registered >= windows->room && !make_lent_room(job, false))
            return ISO_ERR_AGAIN;
        status = window ? ISO_OK : register_window(job, index, &window);
    } while (status == ISO_ERR_AGAIN);
    answer(job, peer, index, status);
    if (status == ISO_OK)
        touch(windows, window);
    return ISO_OK;
}

static void want_remove(iso_windows_t *windows, iso_want_t **at)
{
    iso_want_t *want = *at;
    *at = want->next;
    if (!want->next)
        windows->wants_end = at;
    windows->want_count--;
    free(want);
}

unsigned iso_windows_advance(iso_job_t *job)
{
    iso_windows_t *windows = job->windows;
    unsigned events = 0;
    if (!windows)
        return 0;
    for (iso_window_t *window = windows->closing ? windows->oldest : NULL, *newer; window;
         window = newer) {
        newer = window->newer;
        if (!window->closing || window->uses > 0 || window->loan_count > 0)
            continue;
        deregister(job, window);
        events++;
    }
    while (windows->wants) { /* in order: nobody's want is passed over for ever */
        const iso_want_t *want = windows->wants;
        iso_peer_t *peer = iso_peer_find(job, want->rank);
        if (lend(job, peer, want->window) == ISO_ERR_AGAIN)
            break;
        want_remove(windows, &windows->wants);
        events++;
    }
    if (windows->wants && iso_os_now() >= windows->patient_until) /* there was none to recall */
        windows->patient_until = iso_os_now() + job->params.timeout / PATIENCE;
    return events;
}

iso_status_t iso_windows_on_want(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_windows_t *windows = job->windows;
    if (!windows || peer->link != windows->link)
        return ISO_ERR_INVALID;
    for (uint32_t e = 0; e < msg->extent_count; e++)
        if (msg->extents[e].count > windows->count ||
            msg->extents[e].first > windows->count - msg->extents[e].count)
            return ISO_ERR_INVALID;
    for (uint32_t e = 0; e < msg->extent_count; e++)
        for (uint32_t i = 0; i < msg->extents[e].count; i++) {
            iso_want_t *want = malloc(sizeof *want);
            if (!want) {
                answer(job, peer, msg->extents[e].first + i, ISO_ERR_NO_MEMORY);
                continue;
            }
            *want = (iso_want_t){.rank = peer->rank, .window = msg->extents[e].first + i};
            *windows->wants_end = want;
            windows->wants_end = &want->next;
            windows->want_count++;
        }
    return ISO_OK;
}

iso_status_t iso_windows_on_return(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    const iso_windows_t *windows = job->windows;
    iso_window_t *window = windows && msg->slots < windows->count ? windows->at[msg->slots] : NULL;
    if (!window || window->id != msg->token || !loan_remove(job, window, peer->rank))
        return ISO_ERR_INVALID;
    return ISO_OK;
}

void iso_windows_on_death(iso_job_t *job, uint32_t rank)
{
    iso_windows_t *windows = job->windows;
    if (!windows)
        return;
    for (iso_window_t *window = windows->oldest; window; window = window->newer)
        loan_remove(job, window, rank);
    for (iso_want_t **at = &windows->wants; *at;)
        if ((*at)->rank == rank)
            want_remove(windows, at);
        else
            at = &(*at)->next;
}

void iso_windows_close(iso_job_t *job)
{
    iso_windows_t *windows = job->windows;
    if (!windows)
        return;
    while (windows->wants)
        want_remove(windows, &windows->wants);
    for (iso_window_t *window = windows->oldest, *newer; window; window = newer) {
        newer = window->newer;
        window->loan_count = window->uses = 0; /* the job is over: nobody puts any more */
        remove_window(job, window);
    }
    iso_os_table_unmap(windows->at, windows->count * sizeof *windows->at);
    windows->link->windows = NULL;
    free(windows);
    job->windows = NULL;
}
