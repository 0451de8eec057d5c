/* way.c - see way.h. */
#include "core/way.h"
#include "core/job.h"
#include <assert.h>

#define NO_WINDOW UINT32_MAX

static uint32_t window_of(const iso_request_t *request, uintptr_t address, uint32_t slots)
{
    return iso_space_slot(&request->job->space, (void *)address) / slots;
}

/* Shortens the put so that it ends where its window does. */
static void cut(const iso_request_t *request, uintptr_t address, uint32_t window, uint32_t slots,
                iso_way_t *way)
{
    uint64_t end = ((uint64_t)window + 1) * slots << ISO_SLOT_SHIFT;
    uint64_t left = end - iso_space_offset(&request->job->space, (void *)address);
    if (way->length > left)
        way->length = (size_t)left;
}

static void count(iso_request_t *request, uint32_t *at, uint32_t window, bool hit)
{
    if (*at == window)
        return;
    *at = window;
    *(hit ? &request->job->stats.window_hits : &request->job->stats.window_misses) += 1;
}

/* ---- there ---- */

/* Asks for those of the next few windows that this rank has no key of. */
static iso_status_t ask_ahead(iso_request_t *request)
{
    iso_peer_t *peer = request->peer;
    uint32_t most = peer->keys.lendable / 2 + 1, count = 0, windows[ISO_KEYS_AHEAD];
    if (most > ISO_KEYS_AHEAD)
        most = ISO_KEYS_AHEAD;
    for (size_t r = request->run_at; r < request->runs.count; r++) {
        const iso_run_t *run = &request->runs.list[r];
        size_t done = r == request->run_at ? request->run_done : 0;
        if (done == 0)
            done = iso_inline_skip(&request->inlined, &request->runs, r);
        if (done == run->length)
            continue;
        uint32_t window = window_of(request, run->address + done, peer->keys.slots);
        uint32_t last = window_of(request, run->address + run->length - 1, peer->keys.slots);
        for (; window <= last; window++) {
            if (count > 0 && windows[count - 1] == window)
                continue;
            if (count == most)
                return iso_keys_want(request->job, peer, windows, count);
            windows[count++] = window;
        }
    }
    return iso_keys_want(request->job, peer, windows, count);
}

void iso_way_begin(iso_request_t *request)
{
    request->key_at = request->window_at = NO_WINDOW;
    if (request->peer->keys.slots)
        ask_ahead(request); /* without memory for it: when its time has come */
}

static void leave_key(iso_request_t *request)
{
    if (request->key)
        request->key->users--;
    request->key = NULL;
}

static iso_status_t enter_window(iso_request_t *request, uint32_t window)
{
    iso_peer_t *peer = request->peer;
    leave_key(request);
    iso_key_t *key = iso_key_find(peer, window);
    bool is_new = request->key_at != window;
    count(request, &request->key_at, window, key && key->state == ISO_KEY_HELD);
    if (is_new || !key) {
        iso_status_t status = ask_ahead(request);
        if (status != ISO_OK)
            return status;
        key = iso_key_find(peer, window);
    }
    if (key->state == ISO_KEY_ASKED)
        return ISO_ERR_AGAIN;
    if (key->state == ISO_KEY_DECLINED)
        return iso_key_forget(key);
    key->users++; /* also if it has been recalled: who gets a key may use it once */
    request->key = key;
    return ISO_OK;
}

static iso_status_t find_key(iso_request_t *request, uintptr_t address, iso_way_t *way)
{
    uint32_t slots = request->peer->keys.slots, window = window_of(request, address, slots);
    if (!request->key || request->key->window != window) {
        iso_status_t status = enter_window(request, window);
        if (status != ISO_OK)
            return status;
    }
    assert(request->key && request->key->rkey);
    cut(request, address, window, slots, way);
    way->key = request->key;
    way->rkey = request->key->rkey;
    return ISO_OK;
}

/* ---- here ---- */

static iso_status_t find_window(iso_request_t *request, uintptr_t address, iso_way_t *way)
{
    const iso_windows_t *windows = request->peer->link->windows;
    uint32_t index = window_of(request, address, windows->slots);
    count(request, &request->window_at, index, windows->at[index] != NULL);
    iso_status_t status = iso_window_get(request->job, index, &way->window);
    if (status != ISO_OK)
        return status;
    cut(request, address, index, windows->slots, way);
    way->region = way->window->region;
    return ISO_OK;
}

iso_status_t iso_way_find(iso_request_t *request, uintptr_t address, iso_way_t *way)
{
    iso_status_t status = ISO_OK;
    if (request->peer->keys.slots)
        status = find_key(request, address, way);
    if (status == ISO_OK && request->peer->link->windows)
        status = find_window(request, address, way);
    return status;
}

void iso_way_end(iso_request_t *request)
{
    leave_key(request);
    request->key_at = request->window_at = NO_WINDOW;
}
