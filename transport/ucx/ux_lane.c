/*
 * ux_lane.c - what UCX has here, and by which lane puts reach a peer.
 *
 * UCX tells neither through its interface (1.13), but prints both; what it prints is read here. What was
 * tried, with the target stopped: over rc the device writes, and the target's CPU does nothing. Over posix,
 * sysv, cma, tcp and ud a put to user memory is a message that the target's CPU copies: shared memory
 * segments and cma cannot be written at an address of user memory in the ways that UCX asks of an RMA lane.
 */
#include "ucx.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MDS_MAX 64

static bool among(const char *name, const char *const *list)
{
    for (; *list != NULL; list++)
        if (strcmp(name, *list) == 0)
            return true;
    return false;
}

static const char *const rdma_transports[] = {"rc_verbs", "rc_mlx5", "dc_mlx5", NULL};
static const char *const ib_transports[] = {"rc_verbs", "rc_mlx5", "dc_mlx5",
                                            "ud_verbs", "ud_mlx5", NULL};
static const char *const host_transports[] = {"self",  "posix", "sysv", "cma",
                                              "xpmem", "knem",  NULL};
/* Everything else is taken to pin what is registered. */
static const char *const not_pinning[] = {"self", "posix",  "sysv",   "cma", "xpmem",
                                          "tcp",  "sockcm", "rdmacm", NULL};

static void add_name(ux_devices_t *devices, const char *transport, const char *device)
{
    const size_t used = strlen(devices->names);

    snprintf(devices->names + used, sizeof devices->names - used, "%s%s/%s", used > 0 ? " " : "",
             transport, device);
}

/* One line of what ucp_context_print_info prints. */
static void read_line(ux_devices_t *devices, const char *line, bool pins[MDS_MAX],
                      char components[MDS_MAX][32])
{
    int number, component, md, device;
    char name[64], of[64];

    if (sscanf(line, "# component %d : %63s", &number, name) == 2 && number < MDS_MAX)
        snprintf(components[number], sizeof components[number], "%.31s", name);
    else if (sscanf(line, "# md %d : component %d", &number, &component) == 2 && number < MDS_MAX &&
             component < MDS_MAX)
        pins[number] = !among(components[component], not_pinning);
    else if (sscanf(line, "# resource %d : md %d dev %d flags %*s %63[^/]/%63s", &number, &md,
                    &device, name, of) == 5) {
        devices->rdma = devices->rdma || among(name, rdma_transports);
        devices->beyond_host = devices->beyond_host || !among(name, host_transports);
        devices->pins = devices->pins || md >= MDS_MAX || pins[md];
        devices->posix = devices->posix || strcmp(name, "posix") == 0;
        devices->sysv = devices->sysv || strcmp(name, "sysv") == 0;
        devices->tcp = devices->tcp || strcmp(name, "tcp") == 0;
        devices->ud_verbs = devices->ud_verbs || strcmp(name, "ud_verbs") == 0;
        devices->ud_mlx5 = devices->ud_mlx5 || strcmp(name, "ud_mlx5") == 0;
        devices->dc = devices->dc || strcmp(name, "dc_mlx5") == 0;
        devices->ib = devices->ib || among(name, ib_transports);
        add_name(devices, name, of);
    }
}

iso_status_t ux_devices_find(iso_transport_t *tp)
{
    bool pins[MDS_MAX] = {false};
    char components[MDS_MAX][32] = {{0}};
    char *text = NULL, *rest;
    size_t size;
    FILE *stream = open_memstream(&text, &size);

    if (stream == NULL)
        return ISO_ERR_NO_MEMORY;
    ucp_context_print_info(tp->context, stream);
    fclose(stream);
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
        read_line(&tp->devices, line, pins, components);
    free(text);
    if (tp->devices.names[0] == '\0') { /* whether something pins has to be known */
        ux_log(tp, ISO_LOG_ERROR,
               "this version of UCX says in words that are unknown here what devices it has: "
               "report that, "
               "and use another transport (ISO_TRANSPORT)");
        return ISO_ERR_SYSTEM;
    }
    ux_log(tp, ISO_LOG_INFO, "UCX has %s%s", tp->devices.names,
           tp->devices.pins ? "; what is registered is pinned" : "");
    return ISO_OK;
}

/* How many bytes go in one of UCX's fragments beside our header and UCX's. It does not tell; where it is more than what
 * fits the smallest of all lanes, and the user has not told UCX otherwise, it is known. */
static size_t piece_of(const iso_transport_t *tp, const char *lane)
{
    const size_t header = sizeof(ux_own_header_t), least = 512;
    const bool is_shared_memory = strcmp(lane, "posix") == 0 || strcmp(lane, "sysv") == 0;
    ucp_worker_attr_t attr = {.field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER};

    if (strcmp(lane, "tcp") == 0 && getenv("UCX_TCP_RX_SEG_SIZE") == NULL)
        return UX_TCP_PIECE;
    if (is_shared_memory && getenv("UCX_POSIX_SEG_SIZE") == NULL &&
        getenv("UCX_SYSV_SEG_SIZE") == NULL)
        return tp->shares_context ? UX_SHARED_PIECE_DEFAULT : UX_SHARED_PIECE;
    if (ucp_worker_query(tp->worker, &attr) != UCS_OK || attr.max_am_header < least + header)
        return least; /* what does not fit, UCX puts together */
    return (attr.max_am_header - header) / 64 * 64;
}

void ux_lane_tell(iso_endpoint_t *ep)
{
    char *text = NULL, *rest, transport[64], device[64], rdma[130] = "", am[130] = "nothing";
    char am_transport[64] = "";
    bool tells_rma = false; /* 1.13 does not: there what can be the lane of puts is it */
    size_t size;
    FILE *stream;

    if (ep->told || ep->ucp == NULL)
        return;
    ep->told = true;
    ep->piece = piece_of(ep->tp, "");
    stream = open_memstream(&text, &size);
    if (stream == NULL)
        return; /* own puts go by any lane */
    ucp_ep_print_info(ep->ucp, stream);
    fclose(stream);
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        if (sscanf(line, "# lane[%*d]: %*d:%63[^/]/%63s", transport, device) != 2)
            continue;
        const bool is_rma = strstr(line, " rma#0") != NULL;
        if (is_rma)
            rdma[0] = '\0'; /* what came before is for a rendezvous only */
        if (rdma[0] == '\0' && !tells_rma && among(transport, rdma_transports))
            snprintf(rdma, sizeof rdma, "%s/%s", transport, device);
        tells_rma = tells_rma || is_rma;
        const char *use = strstr(line, " am");
        if (use != NULL && (use[3] == ' ' || use[3] == '\0')) {
            snprintf(am, sizeof am, "%s/%s", transport, device);
            snprintf(am_transport, sizeof am_transport, "%s", transport);
        }
    }
    free(text);
    ep->one_sided = rdma[0] != '\0';
    ep->piece = piece_of(ep->tp, am_transport);
    if (rdma[0] != '\0')
        ux_log(ep->tp, ISO_LOG_INFO, "puts to rank %u: one-sided, lane %s", ep->peer->base.rank,
               rdma);
    else
        ux_log(ep->tp, ISO_LOG_INFO,
               "puts to rank %u: active messages of our own, which its CPU copies, lane %s",
               ep->peer->base.rank, am);
}
