/*
 * ucx_put.c - what UCX alone does with memory that the user has registered: the yardstick of migrations.
 *
 * No library of ours. Without -L a loop of ucp_put_nbx from one process to the other, with a flush at its end; with -L
 * a put, a flush and an active message to and fro. The memory is of memory objects, as the library's is with
 * backing private; UCX's own buffers, which ucx_perftest uses, are faster inside a node.
 */
#include "bare.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <ucp/api/ucp.h>

#define AM_ID 1
#define SLOTS_MOST 1024 /* -O */

typedef struct side {
    bare_side_t bare; /* first */
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_ep_h ep;
    ucp_rkey_h rkey;
    ucp_mem_h memh;
    uint64_t remote; /* address of the other side's memory */
    ucs_status_ptr_t requests[SLOTS_MOST];
    unsigned messages; /* that have come */
    unsigned awaited;  /* of them, by this side */
} side_t;

static side_t *of(bare_side_t *bare)
{
    return (side_t *)(void *)bare;
}

static void check(side_t *side, ucs_status_t status, const char *what)
{
    if (status != UCS_OK)
        bare_fail(&side->bare, what, ucs_status_string(status));
}

/* ---- progress ---- */

static void turn(side_t *side)
{
    ucp_worker_progress(side->worker);
    bare_look(&side->bare);
}

static void finish(side_t *side, ucs_status_ptr_t request, const char *what)
{
    ucs_status_t status;
    if (request == NULL)
        return;
    if (UCS_PTR_IS_ERR(request))
        bare_fail(&side->bare, what, ucs_status_string(UCS_PTR_STATUS(request)));
    while ((status = ucp_request_check_status(request)) == UCS_INPROGRESS)
        turn(side);
    ucp_request_free(request);
    check(side, status, what);
}

static void put(bare_side_t *bare, size_t slot)
{
    side_t *side = of(bare);
    const size_t size = bare->options->size, offset = slot * size;
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_MEMH, .memh = side->memh};
    side->requests[slot] = ucp_put_nbx(side->ep, bare->memory + offset, size, side->remote + offset,
                                       side->rkey, &param);
}

static void finish_put(bare_side_t *bare, size_t slot)
{
    side_t *side = of(bare);
    finish(side, side->requests[slot], "a put");
    side->requests[slot] = NULL;
}

static void flush(bare_side_t *bare)
{
    const ucp_request_param_t param = {0};
    finish(of(bare), ucp_ep_flush_nbx(of(bare)->ep, &param), "a flush");
}

static void send_message(bare_side_t *bare)
{
    side_t *side = of(bare);
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                       .flags = UCP_AM_SEND_FLAG_EAGER};
    finish(side,
           ucp_am_send_nbx(side->ep, AM_ID, NULL, 0, bare->message, bare->options->message, &param),
           "an active message");
}

static void await_message(bare_side_t *bare)
{
    side_t *side = of(bare);
    side->awaited++;
    while (side->messages < side->awaited)
        turn(side);
}

/* ---- set-up ---- */

static ucs_status_t on_message(void *arg, const void *header, size_t header_length, void *data,
                               size_t length, const ucp_am_recv_param_t *param)
{
    (void)header, (void)header_length, (void)data, (void)length, (void)param;
    ((side_t *)arg)->messages++;
    return UCS_OK;
}

static void on_failure(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    (void)ep;
    bare_fail(arg, "the connection", ucs_status_string(status));
}

static void open_worker(side_t *side)
{
    const ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES,
                                 .features = UCP_FEATURE_RMA | UCP_FEATURE_AM};
    const ucp_worker_params_t worker_params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                               .thread_mode = UCS_THREAD_MODE_SINGLE};
    const ucp_am_handler_param_t handler = {.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID |
                                                          UCP_AM_HANDLER_PARAM_FIELD_CB |
                                                          UCP_AM_HANDLER_PARAM_FIELD_ARG,
                                            .id = AM_ID,
                                            .cb = on_message,
                                            .arg = side};
    ucp_config_t *config;
    check(side, ucp_config_read(NULL, NULL, &config), "UCX's settings");
    ucs_status_t status = ucp_init(&params, config, &side->context);
    ucp_config_release(config);
    check(side, status, "ucp_init");
    check(side, ucp_worker_create(side->context, &worker_params, &side->worker),
          "ucp_worker_create");
    check(side, ucp_worker_set_am_recv_handler(side->worker, &handler), "the message handler");
}

static void register_memory(side_t *side)
{
    const ucp_mem_map_params_t params = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
                                                       UCP_MEM_MAP_PARAM_FIELD_LENGTH,
                                         .address = side->bare.memory,
                                         .length = side->bare.length};
    check(side, ucp_mem_map(side->context, &params, &side->memh), "ucp_mem_map");
}

static void connect_other(side_t *side)
{
    ucp_address_t *address;
    void *packed;
    size_t address_len, packed_len;
    uint64_t memory = (uintptr_t)side->bare.memory;
    check(side, ucp_worker_get_address(side->worker, &address, &address_len),
          "the worker's address");
    check(side, ucp_rkey_pack(side->context, side->memh, &packed, &packed_len), "ucp_rkey_pack");
    void *their_address = bare_swap(&side->bare, address, address_len, NULL);
    void *their_key = bare_swap(&side->bare, packed, packed_len, NULL);
    void *their_memory = bare_swap(&side->bare, &memory, sizeof memory, NULL);
    const ucp_ep_params_t params = {
        .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .address = their_address,
        .err_mode = side->bare.options->errors_handled ? UCP_ERR_HANDLING_MODE_PEER
                                                       : UCP_ERR_HANDLING_MODE_NONE,
        .err_handler = {.cb = on_failure, .arg = side}};
    check(side, ucp_ep_create(side->worker, &params, &side->ep), "ucp_ep_create");
    check(side, ucp_ep_rkey_unpack(side->ep, their_key, &side->rkey), "ucp_ep_rkey_unpack");
    memcpy(&side->remote, their_memory, sizeof side->remote);
    ucp_worker_release_address(side->worker, address);
    ucp_rkey_buffer_release(packed);
    free(their_address);
    free(their_key);
    free(their_memory);
}

/* Shared memory takes endpoints with error handling only if told so; the library's module does the same. UCX
 * warns of settings of what UCX_TLS leaves out. */
static void allow_errors_handled(const bare_side_t *bare)
{
    static const char *const names[][2] = {{"posix", "UCX_POSIX_ERROR_HANDLING"},
                                           {"sysv", "UCX_SYSV_ERROR_HANDLING"}};
    static const char *const all[] = {"all", "shm", "sm", "mm"};
    const char *tls = getenv("UCX_TLS");
    bool any = !tls;
    for (size_t i = 0; tls && i < sizeof all / sizeof *all; i++)
        any = any || strstr(tls, all[i]);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((any || strstr(tls, names[i][0])) && setenv(names[i][1], "y", 0) != 0)
            bare_fail(bare, "setenv", strerror(errno));
}

static void set_up(bare_side_t *bare)
{
    side_t *side = of(bare);
    if (bare->options->errors_handled)
        allow_errors_handled(bare);
    open_worker(side);
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
    const ucp_request_param_t param = {0};
    flush(bare);
    send_message(bare); /* the last one */
    await_message(bare);
    flush(bare);
    bare_tell(bare, &mine, 1);
    while (!bare_heard(bare))
        turn(side);
    ucp_rkey_destroy(side->rkey);
    if (!bare->options->errors_handled) /* else the other's end may come first, as a failure */
        finish(side, ucp_ep_close_nbx(side->ep, &param), "ucp_ep_close_nbx");
    bare_tell(bare, &mine, 1);
    while (!bare_heard(bare))
        turn(side);
    if (bare->options->errors_handled)
        return; /* the end of the process closes the rest */
    check(side, ucp_mem_unmap(side->context, side->memh), "ucp_mem_unmap");
    ucp_worker_destroy(side->worker);
    ucp_cleanup(side->context);
}

/* ---- the program ---- */

static void note(const bare_side_t *bare, table_t *table)
{
    const bare_options_t *options = bare->options;
    const char *tls = getenv("UCX_TLS");
    table_note(table, "%s: UCX_TLS=%s, %zu bytes, %zu in flight, error handling %s",
               options->latency ? "put, flush and active message to and fro" : "puts",
               tls ? tls : "all", options->size, options->outstanding,
               options->errors_handled ? "peer" : "none");
}

int main(int argc, char **argv)
{
    static const bare_network_t ucx = {
        .program = "ucx_put",
        .transport = "ucx",
        .purpose =
            "Measures UCX between two processes of its own, without libisomalloc. UCX_TLS and "
            "UCX_NET_DEVICES\nchoose the transport.\n",
        .knows_errors = true,
        .of_error =
            "  -e         endpoints with error handling, as libisomalloc's module has them\n",
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
    return bare_main(&ucx, &side.bare, argc, argv);
}
