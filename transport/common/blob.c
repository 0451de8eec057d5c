/* blob.c - see blob.h. */
#include "transport/common/blob.h"
#include "transport/common/caller.h"
#include "transport/common/hash.h"
#include <string.h>

iso_status_t blob_write(const iso_transport_host_t *host, const blob_kind_t *kind, const void *body,
                        size_t size, const void *rest, size_t rest_len, void *buf, size_t *len_p)
{
    const size_t len = sizeof(blob_head_t) + size + rest_len;
    unsigned char *at = (unsigned char *)buf + sizeof(blob_head_t);

    if (*len_p < len) {
        caller_log(host, ISO_LOG_ERROR, "%s takes %zu bytes, the room is %zu%s", kind->name, len,
                   *len_p, kind->remedy);
        return ISO_ERR_LIMIT;
    }
    memcpy(at, body, size);
    if (rest_len > 0)
        memcpy(at + size, rest, rest_len);
    const blob_head_t head = {.magic = kind->magic,
                              .version = kind->version,
                              .rank = host->rank,
                              .len = (uint32_t)(size + rest_len),
                              .hash = hash_bytes(HASH_START, at, size + rest_len)};
    memcpy(buf, &head, sizeof head);
    *len_p = len;
    return ISO_OK;
}

iso_status_t blob_read(const iso_transport_host_t *host, const blob_kind_t *kind, uint32_t rank,
                       const void *buf, size_t len, void *body, size_t size, const void **rest_p,
                       size_t *rest_len_p)
{
    const unsigned char *at = (const unsigned char *)buf + sizeof(blob_head_t);
    blob_head_t head;

    memset(&head, 0, sizeof head);
    memcpy(&head, buf, len < sizeof head ? len : sizeof head);
    if (head.magic == kind->magic && head.version != kind->version) {
        caller_log(host, ISO_LOG_ERROR, "rank %u speaks version %u of this transport, this rank %u",
                   rank, head.version, kind->version);
        return ISO_ERR_VERSION;
    }
    if (len < sizeof head + size || (rest_p == NULL && len > sizeof head + size) ||
        head.magic != kind->magic || head.rank != rank || head.len != len - sizeof head ||
        head.hash != hash_bytes(HASH_START, at, head.len)) {
        caller_log(host, ISO_LOG_ERROR, "%zu bytes are not %s of rank %u", len, kind->name, rank);
        return ISO_ERR_INVALID;
    }
    memcpy(body, at, size);
    if (rest_p != NULL) {
        *rest_p = at + size;
        *rest_len_p = head.len - size;
    }
    return ISO_OK;
}
