/*
 * of_cq.c - asks libfabric what has ended, and puts it where of_progress finds it.
 *
 * Asking is also what makes the provider go on (FI_PROGRESS_MANUAL): pieces of peers' puts land meanwhile.
 */
#include "ofi.h"

#define AT_ONCE 16

static void received(iso_transport_t *tp, of_buffer_t *buffer, size_t len, int error)
{
    tp->posted--;
    if (error != 0) { /* nothing came, or a sender has died while it came */
        of_buffer_put(tp, buffer);
        return;
    }
    buffer->len = len;
    buffer->at = 0;
    buffer->next = NULL;
    *tp->arrived_last = buffer;
    tp->arrived_last = &buffer->next;
}

/* Of a peer's write: no operation of this rank. */
static bool is_landing(uint64_t flags)
{
    const uint64_t both = FI_REMOTE_WRITE | FI_REMOTE_CQ_DATA;

    return (flags & both) == both;
}

static void completed(iso_transport_t *tp, void *context, size_t len, int error)
{
    if (context == NULL)
        return; /* of nothing in particular */
    switch (((const of_context_t *)context)->kind) {
    case OF_RECV:
        received(tp, context, len, error);
        break;
    case OF_SEND:
        of_sent(context, error);
        break;
    case OF_WRITE:
        of_piece_put(context, error);
        break;
    }
}

static bool take_error(iso_transport_t *tp)
{
    struct fi_cq_err_entry entry = {.err_data_size = 0};
    const ssize_t got = fi_cq_readerr(tp->cq, &entry, 0);

    if (got <= 0)
        return false;
    if (!is_landing(entry.flags)) /* one that has not come is not counted */
        completed(tp, entry.op_context, entry.len, entry.err != 0 ? entry.err : FI_EOTHER);
    return true;
}

unsigned of_cq_take(iso_transport_t *tp)
{
    struct fi_cq_data_entry entries[AT_ONCE];
    const ssize_t count = fi_cq_read(tp->cq, entries, AT_ONCE);

    if (count == -FI_EAVAIL)
        return take_error(tp);
    for (ssize_t i = 0; i < count; i++)
        if (is_landing(entries[i].flags))
            of_landed(tp, entries[i].data);
        else
            completed(tp, entries[i].op_context, entries[i].len, 0);
    return count > 0 ? (unsigned)count : 0;
}
