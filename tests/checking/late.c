/*
 * late.c - operations that a slow device would still have before it: puts go a few turns of progress later, in any
 * order, and a flush when all before it have gone. Each put is checked as a device would, when it is made and when it goes.
 */
#include "checking.h"
#include <inttypes.h>
#include <stdlib.h>

#define LATE_TURNS 4 /* a put is held back for less */

static bool inside(uint64_t start, uint64_t length, uint64_t at, size_t len)
{
    return at >= start && at - start <= length && len <= length - (at - start);
}

/* Would the device let it? */
static void check_key(const op_t *op)
{
    const iso_transport_t *tp = op->ep->tp;
    if (atomic_load(&op->entry->id) == op->rkey->id &&
        inside(op->entry->address, op->entry->length, op->remote, op->len))
        return;
    if (ck_is_alive(atomic_load(&tp->registry->pids[op->ep->rank])))
        ck_die(tp,
               "a put of %zu bytes to %#" PRIx64
               " of rank %u: its key is of a registration that is gone",
               op->len, op->remote, op->ep->rank);
}

static op_t *op_new(iso_endpoint_t *ep, iso_completion_t *outer)
{
    op_t **at = &ep->tp->ops_under_way, *op = calloc(1, sizeof *op);
    if (op == NULL)
        ck_die(ep->tp, "no memory");
    op->ep = ep;
    op->outer = outer;
    op->number = ++ep->numbered;
    while (*at != NULL)
        at = &(*at)->next;
    *at = op;
    return op;
}

static void unlink_op(op_t *op)
{
    op_t **at = &op->ep->tp->ops_under_way;
    while (*at != op)
        at = &(*at)->next;
    *at = op->next;
}

iso_status_t ck_put(iso_endpoint_t *ep, const void *src, size_t len, iso_region_t *region,
                    uint64_t remote, iso_rkey_t *rkey, iso_completion_t *completion)
{
    iso_transport_t *tp = ep->tp;
    if (region == NULL ||
        !inside((uintptr_t)region->memory.address, region->memory.length, (uintptr_t)src, len))
        ck_die(tp, "a put of %zu bytes from %p, which is not in its region", len, src);
    if (rkey == NULL)
        ck_die(tp, "a put without a key");
    op_t *op = op_new(ep, completion);
    op->src = src;
    op->len = len;
    op->region = region;
    op->remote = remote;
    op->rkey = rkey;
    op->entry = &ep->registry->entries[rkey->entry];
    tp->random = tp->random * 1664525u + 1013904223u;
    op->turns = (tp->random >> 16) % LATE_TURNS;
    atomic_fetch_add(&op->entry->puts[tp->host.rank], 1);
    region->busy++;
    check_key(op);
    return ISO_INPROGRESS;
}

iso_status_t ck_fence(iso_endpoint_t *ep)
{
    (void)ep;
    return ISO_ERR_INVALID;
}

iso_status_t ck_flush(iso_endpoint_t *ep, iso_completion_t *completion)
{
    op_t *op = op_new(ep, completion);
    op->is_flush = true;
    return ISO_INPROGRESS;
}

static void flushed(iso_endpoint_t *ep, uint64_t before)
{
    for (op_t **at = &ep->unflushed; *at != NULL;) {
        op_t *op = *at;
        if (op->number > before) {
            at = &op->next;
            continue;
        }
        /* a region that went was checked then, and counts anew */
        if (atomic_load(&op->entry->puts[ep->tp->host.rank]) > 0)
            atomic_fetch_sub(&op->entry->puts[ep->tp->host.rank], 1);
        *at = op->next;
        free(op);
    }
}

static void end(op_t *op, iso_status_t status)
{
    iso_completion_t *outer = op->outer;
    iso_endpoint_t *ep = op->ep;
    unlink_op(op);
    if (op->is_flush) {
        if (status == ISO_OK)
            flushed(ep, op->number);
        free(op);
    } else {
        op->region->busy--;
        op->rkey = NULL;
        op->next = ep->unflushed;
        ep->unflushed = op;
    }
    outer->fn(outer, status);
}

static void on_end(iso_completion_t *completion, iso_status_t status)
{
    end((op_t *)completion, status);
}

/* A flush goes after all that came before it. */
static bool is_next(const op_t *flush_op)
{
    for (const op_t *op = flush_op->ep->tp->ops_under_way; op != flush_op; op = op->next)
        if (op->ep == flush_op->ep && !op->is_flush)
            return false;
    return true;
}

static bool give(op_t *op)
{
    const iso_transport_ops_t *ops = op->ep->tp->ops;
    iso_status_t status;
    op->completion.fn = on_end;
    if (op->is_flush) {
        status = ops->flush(op->ep->inner, &op->completion);
    } else {
        check_key(op);
        status = ops->put(op->ep->inner, op->src, op->len, op->region->inner, op->remote,
                          op->rkey->inner, &op->completion);
    }
    if (status == ISO_ERR_AGAIN)
        return false;
    op->given = true;
    if (status != ISO_INPROGRESS)
        end(op, status);
    return true;
}

unsigned ck_give_next(iso_transport_t *tp)
{
    for (op_t *op = tp->ops_under_way; op != NULL; op = op->next) {
        if (op->given || (op->is_flush && !is_next(op)))
            continue;
        if (op->turns > 0) {
            op->turns--;
            continue;
        }
        if (give(op))
            return 1; /* the list may have changed */
    }
    return 0;
}

bool ck_has_ungiven(const iso_transport_t *tp)
{
    for (const op_t *op = tp->ops_under_way; op != NULL; op = op->next)
        if (!op->given)
            return true;
    return false;
}

void ck_ops_forget(iso_endpoint_t *ep)
{
    for (op_t **at = &ep->tp->ops_under_way; *at != NULL;) {
        op_t *op = *at;
        if (op->ep != ep) {
            at = &op->next;
            continue;
        }
        if (op->given) /* the inner one has it still */
            ck_die(ep->tp, "disconnected from rank %u with an operation under way", ep->rank);
        *at = op->next;
        free(op);
    }
    for (op_t *op = ep->unflushed, *next; op != NULL; op = next) {
        next = op->next;
        free(op);
    }
}
