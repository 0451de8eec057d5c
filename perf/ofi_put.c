/*
 * ofi_put.c - what libfabric alone does with memory that the user has registered: the yardstick of migrations.
 *
 * No library of ours. Without -L a loop of fi_write from one process to the other, as a program would have it that has
 * no wishes; at its end a write with FI_DELIVERY_COMPLETE, which over a stream is behind all others. With -L a write with
 * FI_DELIVERY_COMPLETE and a message to and fro. The memory is of memory objects, as the library's is with backing
 * private. Which provider: ISO_OFI_PROVIDER, as for the library's module; else the first that libfabric names.
 */
#include "bare.h"
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_MOST 1024 /* -O */
#define RECVS 8         /* buffers that wait for messages, of which one comes at a time */
#define MESSAGE_MOST 4096

typedef struct remote {
    uint64_t address, key;
} remote_t;

typedef struct request {
    struct fi_context2 context; /* first */
    bool under_way, is_recv;
} request_t;

typedef struct side {
    bare_side_t bare; /* first */
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_cq *cq;
    struct fid_av *av;
    struct fid_ep *ep;
    struct fid_mr *memory, *messages; /* registered */
    char received[RECVS][MESSAGE_MOST];
    fi_addr_t other;
    remote_t remote;
    request_t puts[SLOTS_MOST], last, message, recvs[RECVS];
    unsigned come;    /* messages */
    unsigned awaited; /* of them, by this side */
} side_t;

static side_t *of(bare_side_t *bare)
{
    return (side_t *)(void *)bare;
}

static void check(side_t *side, ssize_t error, const char *what)
{
    if (error != 0)
        bare_fail(&side->bare, what, fi_strerror((int)-error));
}

/* ---- progress ---- */

static void post(side_t *side, unsigned i)
{
    side->recvs[i].is_recv = true;
    check(side,
          fi_recv(side->ep, side->received[i], side->bare.options->message,
                  fi_mr_desc(side->messages), FI_ADDR_UNSPEC, &side->recvs[i].context),
          "fi_recv");
}

static void turn(side_t *side)
{
    struct fi_cq_entry entries[8];
    struct fi_cq_err_entry error = {.err_data_size = 0};
    const ssize_t count = fi_cq_read(side->cq, entries, 8);

    if (count == -FI_EAVAIL && fi_cq_readerr(side->cq, &error, 0) > 0)
        bare_fail(&side->bare, "an operation", fi_strerror(error.err));
    if (count < 0 && count != -FI_EAGAIN)
        check(side, count, "fi_cq_read");
    for (ssize_t i = 0; i < count; i++) {
        request_t *request = entries[i].op_context;
        request->under_way = false;
        if (request->is_recv) {
            side->come++;
            post(side, (unsigned)(request - side->recvs));
        }
    }
    bare_look(&side->bare);
}

static void finish(side_t *side, const request_t *request)
{
    while (request->under_way)
        turn(side);
}

static void write_to(side_t *side, request_t *request, size_t offset, size_t len, uint64_t flags)
{
    const struct iovec from = {.iov_base = side->bare.memory + offset, .iov_len = len};
    const struct fi_rma_iov to = {
        .addr = side->remote.address + offset, .len = len, .key = side->remote.key};
    void *desc = fi_mr_desc(side->memory);
    const struct fi_msg_rma message = {.msg_iov = &from,
                                       .desc = &desc,
                                       .iov_count = 1,
                                       .addr = side->other,
                                       .rma_iov = &to,
                                       .rma_iov_count = 1,
                                       .context = &request->context};
    ssize_t error;

    request->under_way = true;
    while ((error = flags != 0 ? fi_writemsg(side->ep, &message, flags | FI_COMPLETION)
                               : fi_write(side->ep, from.iov_base, len, desc, side->other, to.addr,
                                          to.key, &request->context)) == -FI_EAGAIN)
        turn(side);
    check(side, error, "fi_write");
}

static void put(bare_side_t *bare, size_t slot)
{
    side_t *side = of(bare);
    const size_t size = bare->options->size;
    write_to(side, &side->puts[slot], slot * size, size,
             bare->options->latency ? FI_DELIVERY_COMPLETE : 0);
}

static void finish_put(bare_side_t *bare, size_t slot)
{
    finish(of(bare), &of(bare)->puts[slot]);
}

static void flush(bare_side_t *bare)
{
    side_t *side = of(bare);
    if (bare->options->latency)
        return; /* what has finished is there */
    write_to(side, &side->last, 0, 1, FI_DELIVERY_COMPLETE);
    finish(side, &side->last);
}

static void send_message(bare_side_t *bare)
{
    side_t *side = of(bare);
    ssize_t error;
    side->message.under_way = true;
    while ((error = fi_send(side->ep, bare->message, bare->options->message, NULL, side->other,
                            &side->message.context)) == -FI_EAGAIN)
        turn(side);
    check(side, error, "fi_send");
    finish(side, &side->message);
}

static void await_message(bare_side_t *bare)
{
    side_t *side = of(bare);
    side->awaited++;
    while (side->come < side->awaited)
        turn(side);
}

/* ---- set-up ---- */

static void choose(side_t *side)
{
    const char *name = getenv("ISO_OFI_PROVIDER");
    struct fi_info *hints = fi_allocinfo();

    if (!hints)
        bare_fail(&side->bare, "fi_allocinfo", "no memory");
    hints->caps = FI_MSG | FI_RMA;
    hints->mode = FI_CONTEXT | FI_CONTEXT2;
    hints->ep_attr->type = FI_EP_RDM;
    /* of what may be asked for, what needs no more than is done here */
    hints->domain_attr->mr_mode = FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    hints->domain_attr->control_progress = FI_PROGRESS_MANUAL;
    hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
    hints->tx_attr->msg_order = hints->rx_attr->msg_order = FI_ORDER_SAS;
    if (name && *name)
        hints->fabric_attr->prov_name = strdup(name);
    check(side, fi_getinfo(FI_VERSION(1, 17), NULL, NULL, 0, hints, &side->info),
          "fi_getinfo finds no such provider");
    fi_freeinfo(hints);
}

static void open_endpoint(side_t *side)
{
    struct fi_cq_attr cq = {.size = 512, .format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_NONE};
    struct fi_av_attr av = {.type = FI_AV_TABLE};
    check(side, fi_fabric(side->info->fabric_attr, &side->fabric, NULL), "fi_fabric");
    check(side, fi_domain(side->fabric, side->info, &side->domain, NULL), "fi_domain");
    check(side, fi_cq_open(side->domain, &cq, &side->cq, NULL), "fi_cq_open");
    check(side, fi_av_open(side->domain, &av, &side->av, NULL), "fi_av_open");
    check(side, fi_endpoint(side->domain, side->info, &side->ep, NULL), "fi_endpoint");
    check(side, fi_ep_bind(side->ep, &side->av->fid, 0), "fi_ep_bind");
    check(side, fi_ep_bind(side->ep, &side->cq->fid, FI_TRANSMIT | FI_RECV), "fi_ep_bind");
    check(side, fi_enable(side->ep), "fi_enable");
}

static void register_memory(side_t *side)
{
    check(side,
          fi_mr_reg(side->domain, side->bare.memory, side->bare.length, FI_WRITE | FI_REMOTE_WRITE,
                    0, 1, 0, &side->memory, NULL),
          "fi_mr_reg");
    check(side,
          fi_mr_reg(side->domain, side->received, sizeof side->received, FI_RECV, 0, 2, 0,
                    &side->messages, NULL),
          "fi_mr_reg");
    for (unsigned i = 0; i < RECVS; i++)
        post(side, i);
}

static void connect_other(side_t *side)
{
    const bool by_address = (side->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR) != 0;
    const remote_t mine = {.address = by_address ? (uintptr_t)side->bare.memory : 0,
                           .key = fi_mr_key(side->memory)};
    char name[1024] = "";
    size_t len = sizeof name;
    check(side, fi_getname(&side->ep->fid, name, &len), "fi_getname");
    void *their_name = bare_swap(&side->bare, name, len, NULL);
    void *their_key = bare_swap(&side->bare, &mine, sizeof mine, NULL);
    if (fi_av_insert(side->av, their_name, 1, &side->other, 0, NULL) != 1)
        bare_fail(&side->bare, "fi_av_insert", "not an address");
    memcpy(&side->remote, their_key, sizeof side->remote);
    free(their_name);
    free(their_key);
}

static void set_up(bare_side_t *bare)
{
    side_t *side = of(bare);
    choose(side);
    open_endpoint(side);
    register_memory(side);
    connect_other(side);
    send_message(bare); /* connects, and the other side is set up when its own has come */
    await_message(bare);
}

/* When neither side needs the other's progress any more. */
static void tear_down(bare_side_t *bare)
{
    side_t *side = of(bare);
    char mine = 0;
    send_message(bare); /* the last one */
    await_message(bare);
    bare_tell(bare, &mine, 1);
    while (!bare_heard(bare))
        turn(side);
    fi_close(&side->ep->fid);
    fi_close(&side->memory->fid);
    fi_close(&side->messages->fid);
    fi_close(&side->av->fid);
    fi_close(&side->cq->fid);
    fi_close(&side->domain->fid);
    fi_close(&side->fabric->fid);
    fi_freeinfo(side->info);
}

/* ---- the program ---- */

static void note(const bare_side_t *bare, table_t *table)
{
    const bare_options_t *options = bare->options;
    const char *name = getenv("ISO_OFI_PROVIDER");
    table_note(table, "%s: provider %s, %zu bytes, %zu in flight",
               options->latency ? "write and message to and fro" : "writes",
               name && *name ? name : "libfabric's first", options->size, options->outstanding);
}

int main(int argc, char **argv)
{
    static const bare_network_t ofi = {
        .program = "ofi_put",
        .transport = "ofi",
        .purpose = "Measures libfabric between two processes of its own, without libisomalloc. "
                   "ISO_OFI_PROVIDER names\nthe provider.\n",
        .note = note,
        .set_up = set_up,
        .put = put,
        .finish = finish_put,
        .flush = flush,
        .send = send_message,
        .await = await_message,
        .tear_down = tear_down,
    };
    static side_t side;
    return bare_main(&ofi, &side.bare, argc, argv);
}
