/* key.c - see key.h. */
#include "core/key.h"
#include "core/job.h"
#include <inttypes.h>
#include <stdlib.h>

/* ---- the table ---- */

static iso_key_t **bucket(const iso_keys_t *keys, uint32_t window)
{
    return &keys->buckets[window & (keys->bucket_count - 1)];
}

static iso_status_t grow(iso_keys_t *keys)
{
    if (keys->count < keys->bucket_count)
        return ISO_OK;
    iso_keys_t larger = *keys;
    larger.bucket_count = keys->bucket_count ? keys->bucket_count * 2 : 16;
    larger.buckets = calloc(larger.bucket_count, sizeof(iso_key_t *));
    if (!larger.buckets)
        return ISO_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < keys->bucket_count; i++)
        for (iso_key_t *key = keys->buckets[i], *next; key; key = next) {
            next = key->next;
            key->next = *bucket(&larger, key->window);
            *bucket(&larger, key->window) = key;
        }
    free(keys->buckets);
    keys->buckets = larger.buckets;
    keys->bucket_count = larger.bucket_count;
    return ISO_OK;
}

iso_key_t *iso_key_find(const iso_peer_t *peer, uint32_t window)
{
    if (peer->keys.bucket_count == 0)
        return NULL;
    iso_key_t *key = *bucket(&peer->keys, window);
    while (key && key->window != window)
        key = key->next;
    return key;
}

static void dispose(iso_key_t *key)
{
    if (key->rkey)
        key->peer->link->ops->rkey_destroy(key->rkey);
    free(key);
}

static void destroy(iso_key_t *key)
{
    iso_keys_t *keys = &key->peer->keys;
    iso_key_t **at = bucket(keys, key->window);
    while (*at != key)
        at = &(*at)->next;
    *at = key->next;
    keys->count--;
    dispose(key);
}

iso_status_t iso_key_forget(iso_key_t *key)
{
    iso_status_t why = key->why;
    destroy(key);
    return why;
}

/* ---- asked for ---- */

static iso_status_t enter(iso_peer_t *peer, uint32_t window)
{
    iso_key_t *key = calloc(1, sizeof *key);
    if (!key || grow(&peer->keys) != ISO_OK) {
        free(key);
        return ISO_ERR_NO_MEMORY;
    }
    key->peer = peer;
    key->window = window;
    key->state = ISO_KEY_ASKED;
    key->next = *bucket(&peer->keys, window);
    *bucket(&peer->keys, window) = key;
    peer->keys.count++;
    return ISO_OK;
}

iso_status_t iso_keys_want(iso_job_t *job, iso_peer_t *peer, const uint32_t *windows,
                           uint32_t count)
{
    iso_status_t status = ISO_OK;
    iso_extent_t extents[ISO_WIRE_EXTENTS_MAX];
    iso_msg_t msg = {.type = ISO_MSG_WANT, .extents = extents};
    for (uint32_t i = 0; i < count && status == ISO_OK; i++) {
        if (iso_key_find(peer, windows[i]))
            continue;
        status = enter(peer, windows[i]);
        if (status != ISO_OK)
            break;
        iso_extent_t *last = msg.extent_count ? &extents[msg.extent_count - 1] : NULL;
        if (last && last->first + last->count == windows[i])
            last->count++;
        else
            extents[msg.extent_count++] = (iso_extent_t){windows[i], 1};
        if (msg.extent_count == ISO_WIRE_EXTENTS_MAX) {
            iso_peer_send(job, peer, &msg);
            msg.extent_count = 0;
        }
    }
    if (msg.extent_count > 0)
        iso_peer_send(job, peer, &msg);
    return status;
}

static void give_back(iso_job_t *job, iso_peer_t *peer, uint32_t window, uint32_t id)
{
    iso_msg_t msg = {.type = ISO_MSG_RETURN, .slots = window, .token = id};
    iso_peer_send(job, peer, &msg);
}

iso_status_t iso_keys_on_lend(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_key_t *key = iso_key_find(peer, msg->slots);
    if (!key || key->state != ISO_KEY_ASKED || msg->reason > 0)
        return ISO_ERR_INVALID;
    iso_status_t status = (iso_status_t)msg->reason;
    if (status == ISO_OK) {
        key->id = msg->token;
        status = peer->ep
                     ? peer->link->ops->rkey_unpack(peer->ep, msg->data, msg->data_len, &key->rkey)
                     : ISO_ERR_UNREACHABLE;
        if (status != ISO_OK) /* the transport has said why */
            give_back(job, peer, key->window, key->id);
    }
    key->why = status;
    key->state = status == ISO_OK ? ISO_KEY_HELD : ISO_KEY_DECLINED;
    return ISO_OK;
}

/* ---- given back ---- */

iso_status_t iso_keys_on_recall(iso_job_t *job, iso_peer_t *peer, const iso_msg_t *msg)
{
    iso_key_t *key = iso_key_find(peer, msg->slots);
    if (!key || key->state != ISO_KEY_HELD || key->id != msg->token)
        return ISO_OK; /* it could not be used, and is on its way back already */
    if (key->recalled)
        return ISO_ERR_INVALID;
    key->recalled = true;
    key->next_recalled = job->keys_recalled;
    job->keys_recalled = key;
    return ISO_OK;
}

static void on_flush_end(iso_completion_t *completion, iso_status_t status)
{
    iso_key_flush_t *flush = (iso_key_flush_t *)completion;
    flush->busy = false;
    if (status != ISO_OK)
        flush->failed = true;
    else if (flush->covers > flush->peer->keys.flushed)
        flush->peer->keys.flushed = flush->covers;
}

/* What has been put so far will have landed when it ends. */
static void start_flush(iso_job_t *job, iso_peer_t *peer)
{
    iso_key_flush_t *flush = &peer->keys.flush;
    if (flush->busy || flush->failed || !peer->ep || peer->broken)
        return;
    *flush = (iso_key_flush_t){
        .completion = {on_flush_end}, .job = job, .peer = peer, .covers = peer->keys.puts};
    iso_status_t status = peer->link->ops->flush(peer->ep, &flush->completion);
    flush->busy = status == ISO_INPROGRESS;
    if (status != ISO_INPROGRESS && status != ISO_ERR_AGAIN)
        on_flush_end(&flush->completion, status);
}

static bool is_quiet(iso_job_t *job, const iso_key_t *key)
{
    iso_peer_t *peer = key->peer;
    if (key->last_put > peer->keys.flushed)
        start_flush(job, peer);
    return key->last_put <= peer->keys.flushed;
}

unsigned iso_keys_advance(iso_job_t *job)
{
    unsigned events = 0;
    for (iso_key_t **at = &job->keys_recalled; *at;) {
        iso_key_t *key = *at;
        if (key->users > 0 || !is_quiet(job, key)) {
            at = &key->next_recalled;
            continue;
        }
        *at = key->next_recalled;
        give_back(job, key->peer, key->window, key->id);
        destroy(key);
        events++;
    }
    return events;
}

void iso_keys_close(iso_job_t *job, iso_peer_t *peer)
{
    iso_keys_t *keys = &peer->keys;
    for (iso_key_t **at = &job->keys_recalled; *at;)
        if ((*at)->peer == peer)
            *at = (*at)->next_recalled;
        else
            at = &(*at)->next_recalled;
    for (uint32_t i = 0; i < keys->bucket_count; i++)
        for (iso_key_t *key = keys->buckets[i], *next; key; key = next) {
            next = key->next;
            dispose(key);
        }
    free(keys->buckets);
    *keys = (iso_keys_t){.slots = keys->slots, .lendable = keys->lendable};
}
