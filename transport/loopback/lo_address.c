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

static const blob_kind_t address_kind = {0x6f6c2d6fu, LO_VERSION, "a loopback address", ""};

typedef struct address_body {
    int32_t inbox_fd;
    uint32_t zero;
    process_id_t process;
    process_place_t place;
} address_body_t;
static_assert(sizeof(blob_head_t) + sizeof(address_body_t) <= ISO_TRANSPORT_ADDRESS_MAX,
              "addresses have a limit");

iso_status_t lo_address(iso_transport_t *tp, void *buf, size_t *len_p)
{
    address_body_t body;

    memset(&body, 0, sizeof body);
    body.inbox_fd = tp->inbox_fd;
    body.process = tp->process;
    body.place = tp->place;
    return blob_write(tp->host, &address_kind, &body, sizeof body, NULL, 0, buf, len_p);
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
    address_body_t body;
    const char *why;
    const iso_status_t status =
        blob_read(tp->host, &address_kind, rank, address, len, &body, sizeof body, NULL, NULL);

    if (status != ISO_OK)
        return status;
    if (body.process.pid <= 0 || body.process.start == 0 || body.inbox_fd < 0) {
        lo_log(tp, ISO_LOG_ERROR, "the address of rank %u names no process or no inbox", rank);
        return ISO_ERR_INVALID;
    }
    why = apart(&body.place, &tp->place);
    if (why != NULL) {
        lo_log(tp, ISO_LOG_ERROR, "rank %u cannot be reached: it %s", rank, why);
        return ISO_ERR_UNREACHABLE;
    }
    *process_p = body.process;
    *inbox_fd_p = body.inbox_fd;
    return ISO_OK;
}
