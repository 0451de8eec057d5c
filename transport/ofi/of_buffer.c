/*
 * of_buffer.c - buffers for messages, in memory that is registered where the provider asks for that.
 *
 * They are made in chunks, used again, and given back at the end. How many there are is bounded by what is
 * received ahead (OF_RECVS) and by OF_SENDS a peer.
 */
#include "ofi.h"
#include <stdlib.h>

#define CHUNK_BUFFERS 32

static of_chunk_t *make_chunk(iso_transport_t *tp)
{
    of_chunk_t *chunk = calloc(1, sizeof *chunk);
    of_buffer_t *buffers = calloc(CHUNK_BUFFERS, sizeof *buffers);

    if (chunk == NULL || buffers == NULL) {
        of_log(tp, ISO_LOG_ERROR, "no memory for messages");
        goto free_both;
    }
    if ((tp->info->domain_attr->mr_mode & FI_MR_LOCAL) != 0 &&
        of_mem_open(tp, buffers, CHUNK_BUFFERS * sizeof *buffers, FI_SEND | FI_RECV, &chunk->mr) !=
            ISO_OK)
        goto free_both;
    chunk->memory = buffers;
    for (size_t i = 0; i < CHUNK_BUFFERS; i++) {
        buffers[i].tp = tp;
        buffers[i].desc = chunk->mr != NULL ? fi_mr_desc(chunk->mr) : NULL;
        of_buffer_put(tp, &buffers[i]);
    }
    return chunk;

free_both:
    free(buffers);
    free(chunk);
    return NULL;
}

of_buffer_t *of_buffer_get(iso_transport_t *tp)
{
    if (tp->spare_buffers == NULL) {
        of_chunk_t *chunk = make_chunk(tp);
        if (chunk == NULL)
            return NULL;
        chunk->next = tp->chunks;
        tp->chunks = chunk;
    }
    of_buffer_t *buffer = tp->spare_buffers;
    tp->spare_buffers = buffer->next;
    buffer->next = NULL;
    return buffer;
}

void of_buffer_put(iso_transport_t *tp, of_buffer_t *buffer)
{
    buffer->ep = NULL;
    buffer->next = tp->spare_buffers;
    tp->spare_buffers = buffer;
}

void of_buffers_free(iso_transport_t *tp)
{
    for (of_chunk_t *chunk; (chunk = tp->chunks) != NULL;) {
        tp->chunks = chunk->next;
        if (chunk->mr != NULL)
            fi_close(&chunk->mr->fid);
        free(chunk->memory);
        free(chunk);
    }
    tp->spare_buffers = NULL;
}
