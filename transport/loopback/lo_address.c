/*
 * lo_address.c - the address blob, which says who and where a process is.
 *
 * Pids, start times and abstract sockets mean
 * something only inside one PID, time and network namespace of one running kernel: an address says
 * which, and one from elsewhere is refused before anything of it is used.
 */
#include "loopback.h"
#include <inttypes.h>
#include <string.h>

#define ADDRESS_MAGIC 0x6f6c2d6fu

typedef struct address_blob {
    uint32_t magic, version;
    uint32_t rank;
    int32_t inbox_fd;
    process_id_t process;
    process_place_t place;
} address_blob_t;
static_assert(sizeof(address_blob_t) <= ISO_TRANSPORT_ADDRESS_MAX, "addresses have a limit");

iso_status_t lo_address(iso_transport_t *tp, void *buf, size_t *len_p)
{
    address_blob_t blob;

    if (*len_p < sizeof blob) {
        lo_log(tp, ISO_LOG_ERROR, "an address takes %zu bytes, the room is %zu", sizeof blob,
               *len_p);
        return ISO_ERR_INVALID;
    }
    memset(&blob, 0, sizeof blob);
    blob.magic = ADDRESS_MAGIC;
    blob.version = LO_VERSION;
    blob.rank = tp->host->rank;
    blob.inbox_fd = tp->inbox_fd;
    blob.process = tp->process;
    blob.place = tp->place;
    memcpy(buf, &blob, sizeof blob);
    *len_p = sizeof blob;
    return ISO_OK;
}

/* Why pids of one place mean nothing in the other; NULL if they are the same place. */
static const char *apart(const process_place_t *a, const process_place_t *b)
{
    if (memcmp(a->boot_id, b->boot_id, sizeof a->boot_id) != 0)
        return "runs on another host: use a transport between nodes";
    if (a->pid_ns != b->pid_ns)
        return "is in another PID namespace: run the host's ranks in one container, or share its "
               "PID namespace (--pid)";
    if (a->net_ns != b->net_ns)
        return "is in another network namespace: run the host's ranks in one container, or share "
               "its network namespace (--net)";
    if (a->time_ns != b->time_ns)
        return "is in another time namespace: start the host's ranks in the same one";
    return NULL;
}

iso_status_t lo_address_read(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                             process_id_t *process_p, int *inbox_fd_p)
{
    address_blob_t blob;
    const char *why;

    memset(&blob, 0, sizeof blob);
    memcpy(&blob, address, len < sizeof blob ? len : sizeof blob);
    if (blob.magic == ADDRESS_MAGIC && blob.version != LO_VERSION) {
        lo_log(tp, ISO_LOG_ERROR, "rank %u speaks version %u of loopback, this rank %u", rank,
               blob.version, LO_VERSION);
        return ISO_ERR_VERSION;
    }
    if (len != sizeof blob || blob.magic != ADDRESS_MAGIC || blob.rank != rank ||
        blob.process.pid <= 0 || blob.process.start == 0 || blob.inbox_fd < 0) {
        lo_log(tp, ISO_LOG_ERROR, "%zu bytes are not a loopback address of rank %u", len, rank);
        return ISO_ERR_INVALID;
    }
    why = apart(&blob.place, &tp->place);
    if (why != NULL) {
        lo_log(tp, ISO_LOG_ERROR, "rank %u cannot be reached: it %s", rank, why);
        return ISO_ERR_UNREACHABLE;
    }
    *process_p = blob.process;
    *inbox_fd_p = blob.inbox_fd;
    return ISO_OK;
}
