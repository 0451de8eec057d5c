/*
 * way.h - the way of a put: the region that it comes from, the key to where it goes, how long it may be.
 *
 * Where all of the space is registered at both ends that is the link's region and the peer's key, and
 * nothing here is called. Else a put lies in one window at each end (window.h, key.h), and a request works
 * its way through the windows of its live runs: it holds the key of the one that it is at, asks for some
 * ahead, and holds nothing else, so that a heap may be larger than what can be registered at once.
 */
#ifndef ISO_CORE_WAY_H
#define ISO_CORE_WAY_H

#include "core/migrate.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Keys that a request asks for before it needs them: what the peer registers meanwhile is not waited for. */
#define ISO_KEYS_AHEAD 4u

typedef struct iso_way {
    size_t length; /* of the put; cut at the windows' ends */
    iso_region_t *region;
    iso_rkey_t *rkey;
    iso_window_t *window; /* of ours; NULL: all is registered */
    iso_key_t *key;       /* NULL: one for all */
} iso_way_t;

/* Is the request's way by windows, at either end? */
static inline bool iso_way_has_windows(const iso_request_t *request)
{
    return request->peer->link->windows || request->peer->keys.slots;
}

/* Has the peer said how it is put to? */
static inline bool iso_way_is_known(const iso_peer_t *peer)
{
    return peer->rkey || peer->keys.slots;
}

/* Asks for the first keys that the request needs, as soon as the peer is known. */
void iso_way_begin(iso_request_t *request);
/* The way of `way->length` bytes from address. ISO_ERR_AGAIN: something that is under way must come first.
 * Other errors: there is none, logged. Not from a transport's callback. */
iso_status_t iso_way_find(iso_request_t *request, uintptr_t address, iso_way_t *way);
/* A put has been given to the transport on this way. */
static inline void iso_way_use(iso_way_t *way)
{
    if (way->window)
        iso_window_use(way->window);
    if (way->key)
        way->key->last_put = ++way->key->peer->keys.puts;
}
/* The request puts no more, or from the beginning. */
void iso_way_end(iso_request_t *request);

#ifdef __cplusplus
}
#endif
#endif
