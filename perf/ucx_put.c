/*
 * ucx_put.c - what UCX alone does with memory that the user has registered: the yardstick of migrations.
 *
 * Two processes, no library of ours. Without -L a loop of ucp_put_nbx from one to the other, with a
 * flush at its end; with -L a put, a flush and an active message to and fro, which is the least that a
 * migration of as many bytes can be made of. The memory is of memory objects, as the library's is with
 * backing private; UCX's own buffers, which ucx_perftest uses, are faster inside a node.
 */
#include "perftest/number.h"
#include "perftest/table.h"
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

#define CARD_MOST 65536 /* bytes of an address or an rkey */
#define AM_ID 1
#define TURNS_A_LOOK 100000

static const char usage[] =
    "usage: ucx_put [OPTIONS]\n"
    "Measures UCX between two processes of its own, without libisomalloc. UCX_TLS and "
    "UCX_NET_DEVICES\n"
    "choose the transport.\n"
    "  -s BYTES   size of a put; K, M and G may follow (8)\n"
    "  -n COUNT   iterations (by size)\n"
    "  -w COUNT   warm-up iterations (a tenth)\n"
    "  -O COUNT   puts in flight, each with memory of its own (as many as are 16 MiB, 1 to 16)\n"
    "  -L         latency: put, flush and active message to and fro, half of the round trip\n"
    "  -H BYTES   size of the active message of -L (128)\n"
    "  -e         endpoints with error handling, as libisomalloc's module has them\n"
    "  -R RANK    percentile that is called typical (50)\n"
    "  -f         print final numbers only\n"
    "  -v         print CSV\n"
    "  -N         print numbers with thousands apart\n"
    "  -h         this help\n";

typedef struct options {
    size_t size, iterations, warm_up, outstanding, message;
    bool latency, errors_handled;
    table_format_t format;
} options_t;

/* One of the two processes. */
typedef struct side {
    const options_t *options;
    bool source; /* puts first, and prints */
    pid_t child; /* of the source */
    int socket;  /* to the other side, for what is told before there are endpoints */
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_ep_h ep;
    ucp_rkey_h rkey;
    ucp_mem_h memh;
    char *memory;
    uint64_t remote; /* address of the other side's */
    size_t length;   /* of both */
    char *message;
    unsigned messages; /* that have come */
    unsigned awaited;  /* of them, by this side */
    unsigned turns;
} side_t;

static _Noreturn void fail(const char *what, const char *why)
{
    fprintf(stderr, "ucx_put: %s: %s\n", what, why);
    exit(1);
}

static void check(ucs_status_t status, const char *what)
{
    if (status != UCS_OK)
        fail(what, ucs_status_string(status));
}

/* ---- progress ---- */

static void turn(side_t *side)
{
    ucp_worker_progress(side->worker);
    if (side->child > 0 && ++side->turns % TURNS_A_LOOK == 0 &&
        waitpid(side->child, NULL, WNOHANG) == side->child)
        fail("the target", "has ended");
}

static void finish(side_t *side, ucs_status_ptr_t request, const char *what)
{
    ucs_status_t status;
    if (request == NULL)
        return;
    if (UCS_PTR_IS_ERR(request))
        fail(what, ucs_status_string(UCS_PTR_STATUS(request)));
    while ((status = ucp_request_check_status(request)) == UCS_INPROGRESS)
        turn(side);
    ucp_request_free(request);
    check(status, what);
}

static ucs_status_ptr_t put(side_t *side, size_t offset)
{
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_MEMH, .memh = side->memh};
    return ucp_put_nbx(side->ep, side->memory + offset, side->options->size, side->remote + offset,
                       side->rkey, &param);
}

static void flush(side_t *side)
{
    const ucp_request_param_t param = {0};
    finish(side, ucp_ep_flush_nbx(side->ep, &param), "a flush");
}

static void send_message(side_t *side)
{
    const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                       .flags = UCP_AM_SEND_FLAG_EAGER};
    finish(side,
           ucp_am_send_nbx(side->ep, AM_ID, NULL, 0, side->message, side->options->message, &param),
           "an active message");
}

static void await_message(side_t *side)
{
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
    (void)arg, (void)ep;
    fail("the connection", ucs_status_string(status));
}

static void tell(int fd, const void *data, size_t len)
{
    for (const char *at = data; len > 0;) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            fail("the other process", "has ended");
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
}

static void hear(int fd, void *data, size_t len)
{
    for (char *at = data; len > 0;) {
        ssize_t n = recv(fd, at, len, 0);
        if (n == 0 || (n < 0 && errno != EINTR))
            fail("the other process", "has ended");
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
}

/* A blob to the other side and back its own. The caller frees. */
static void *swap(int fd, const void *mine, uint64_t len)
{
    uint64_t theirs;
    tell(fd, &len, sizeof len);
    tell(fd, mine, len);
    hear(fd, &theirs, sizeof theirs);
    void *blob = theirs <= CARD_MOST ? malloc(theirs) : NULL;
    if (!blob)
        fail("the other process", "says what makes no sense");
    hear(fd, blob, theirs);
    return blob;
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
    check(ucp_config_read(NULL, NULL, &config), "UCX's settings");
    ucs_status_t status = ucp_init(&params, config, &side->context);
    ucp_config_release(config);
    check(status, "ucp_init");
    check(ucp_worker_create(side->context, &worker_params, &side->worker), "ucp_worker_create");
    check(ucp_worker_set_am_recv_handler(side->worker, &handler), "the message handler");
}

static void register_memory(side_t *side)
{
    int fd = memfd_create("ucx_put", MFD_CLOEXEC);
    side->memory = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)side->length) == 0)
        side->memory = mmap(NULL, side->length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (side->memory == MAP_FAILED)
        fail("memory", strerror(errno));
    close(fd);
    memset(side->memory, side->source, side->length);
    const ucp_mem_map_params_t params = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
                                                       UCP_MEM_MAP_PARAM_FIELD_LENGTH,
                                         .address = side->memory,
                                         .length = side->length};
    check(ucp_mem_map(side->context, &params, &side->memh), "ucp_mem_map");
}

static void connect_other(side_t *side)
{
    ucp_address_t *address;
    void *packed;
    size_t address_len, packed_len;
    uint64_t memory = (uintptr_t)side->memory;
    check(ucp_worker_get_address(side->worker, &address, &address_len), "the worker's address");
    check(ucp_rkey_pack(side->context, side->memh, &packed, &packed_len), "ucp_rkey_pack");
    void *their_address = swap(side->socket, address, address_len);
    void *their_key = swap(side->socket, packed, packed_len);
    void *their_memory = swap(side->socket, &memory, sizeof memory);
    const ucp_ep_params_t params = {
        .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .address = their_address,
        .err_mode =
            side->options->errors_handled ? UCP_ERR_HANDLING_MODE_PEER : UCP_ERR_HANDLING_MODE_NONE,
        .err_handler = {.cb = on_failure}};
    check(ucp_ep_create(side->worker, &params, &side->ep), "ucp_ep_create");
    check(ucp_ep_rkey_unpack(side->ep, their_key, &side->rkey), "ucp_ep_rkey_unpack");
    memcpy(&side->remote, their_memory, sizeof side->remote);
    ucp_worker_release_address(side->worker, address);
    ucp_rkey_buffer_release(packed);
    free(their_address);
    free(their_key);
    free(their_memory);
}

static void set_up(side_t *side)
{
    side->message = calloc(1, side->options->message);
    if (!side->message)
        fail("the message", "no memory");
    open_worker(side);
    register_memory(side);
    connect_other(side);
    send_message(side); /* connects, and the other side is set up when its own has come */
    await_message(side);
}

/* When neither side needs the other's progress any more. */
static void tear_down(side_t *side)
{
    char mine = 0, theirs;
    const ucp_request_param_t param = {0};
    flush(side);
    send_message(side); /* the last one */
    await_message(side);
    flush(side);
    tell(side->socket, &mine, 1);
    while (recv(side->socket, &theirs, 1, MSG_DONTWAIT) < 0)
        turn(side);
    ucp_rkey_destroy(side->rkey);
    if (!side->options->errors_handled) /* else the other's end may come first, as a failure */
        finish(side, ucp_ep_close_nbx(side->ep, &param), "ucp_ep_close_nbx");
    tell(side->socket, &mine, 1);
    while (recv(side->socket, &theirs, 1, MSG_DONTWAIT) < 0)
        turn(side);
    if (side->options->errors_handled)
        return; /* the end of the process closes the rest */
    check(ucp_mem_unmap(side->context, side->memh), "ucp_mem_unmap");
    ucp_worker_destroy(side->worker);
    ucp_cleanup(side->context);
    munmap(side->memory, side->length);
    free(side->message);
}

/* ---- bandwidth ---- */

/* Puts without a pause; a sample is of as many as are in flight. The last of them is remotely complete within
 * the series' time. */
static void stream(side_t *side, ucs_status_ptr_t *requests, size_t count, series_t *series)
{
    const options_t *options = side->options;
    unsigned since = 0; /* the last sample */
    double last = table_now();
    for (size_t i = 0; i < count; i++) {
        size_t slot = i % options->outstanding;
        finish(side, requests[slot], "a put");
        requests[slot] = put(side, slot * options->size);
        if (++since == options->outstanding || i + 1 == count) {
            double now = table_now();
            series_add(series, now - last, since, true);
            last = now;
            since = 0;
        }
    }
    for (size_t slot = 0; slot < options->outstanding; slot++) {
        finish(side, requests[slot], "a put");
        requests[slot] = NULL;
    }
    flush(side);
    series_add_time(series, table_now() - last);
}

static void bandwidth(side_t *side, table_t *table)
{
    const options_t *options = side->options;
    series_t cold, warm_up, series;
    if (!side->source)
        return; /* tear_down makes its progress */
    ucs_status_ptr_t *requests = calloc(options->outstanding, sizeof(ucs_status_ptr_t));
    if (!requests)
        fail("the puts in flight", "no memory");
    series_open(&cold, table, 1, options->size);
    series_open(&warm_up, table, 0, options->size);
    series_open(&series, table, options->iterations, options->size);
    double start = table_now();
    finish(side, put(side, 0), "a put");
    flush(side);
    series_add(&cold, table_now() - start, 1, false);
    series_row(&cold, "Cold", false);
    stream(side, requests, options->warm_up, &warm_up);
    stream(side, requests, options->iterations, &series);
    series_row(&series, "Final", true);
    series_close(&cold);
    series_close(&warm_up);
    series_close(&series);
    free(requests);
}

/* ---- latency ---- */

static double to_and_fro(side_t *side)
{
    double start = table_now();
    if (!side->source)
        await_message(side);
    finish(side, put(side, 0), "a put");
    flush(side);
    send_message(side);
    if (side->source)
        await_message(side);
    return (table_now() - start) / 2;
}

static void latency(side_t *side, table_t *table)
{
    const options_t *options = side->options;
    series_t cold, series;
    series_open(&cold, table, 1, options->size);
    series_open(&series, table, options->iterations, options->size);
    series_add(&cold, to_and_fro(side), 1, false);
    series_row(&cold, "Cold", false);
    for (size_t i = 0; i < options->warm_up; i++)
        to_and_fro(side);
    for (size_t i = 0; i < options->iterations; i++)
        series_add(&series, to_and_fro(side), 1, true);
    series_row(&series, "Final", true);
    series_close(&cold);
    series_close(&series);
}

/* ---- the program ---- */

static void run(side_t *side)
{
    const options_t *options = side->options;
    const char *tls = getenv("UCX_TLS");
    table_t table = {.format = options->format,
                     .test = options->latency ? "ucx_put_lat" : "ucx_put_bw",
                     .transport = "ucx",
                     .backing = "memfd",
                     .bytes = options->size,
                     .outstanding = (unsigned)options->outstanding,
                     .silent = !side->source};
    table_note(&table, "%s: UCX_TLS=%s, %zu bytes, %zu in flight, error handling %s",
               options->latency ? "put, flush and active message to and fro" : "puts",
               tls ? tls : "all", options->size, options->outstanding,
               options->errors_handled ? "peer" : "none");
    set_up(side);
    if (options->latency)
        latency(side, &table);
    else
        bandwidth(side, &table);
    tear_down(side);
}

static size_t clamp(size_t value, size_t least, size_t most)
{
    return value < least ? least : value > most ? most : value;
}

static void number(int letter, size_t least, size_t most, size_t *value_p)
{
    if (number_parse(optarg, least, most, value_p))
        return;
    fprintf(stderr, "ucx_put: -%c %s: not a number from %zu to %zu (-h lists the options)\n",
            letter, optarg, least, most);
    exit(2);
}

static void read_percentile(options_t *options)
{
    char *end;
    options->format.rank = strtod(optarg, &end);
    if (*optarg >= '0' && *optarg <= '9' && !*end && options->format.rank <= 100)
        return;
    fprintf(stderr, "ucx_put: -R %s: not a percentile from 0 to 100 (-h lists the options)\n",
            optarg);
    exit(2);
}

static void read_options(options_t *options, int argc, char **argv)
{
    static const struct option longs[] = {{"help", no_argument, NULL, 'h'}, {0}};
    bool warm_up_given = false;
    *options = (options_t){.size = 8, .message = 128, .format.rank = 50};
    for (int c; (c = getopt_long(argc, argv, "s:n:w:O:LH:eR:fvNh", longs, NULL)) != -1;) {
        switch (c) {
        case 's':
            number(c, 1, (size_t)1 << 36, &options->size);
            break;
        case 'n':
            number(c, 1, 10000000, &options->iterations);
            break;
        case 'w':
            number(c, 0, 10000000, &options->warm_up);
            warm_up_given = true;
            break;
        case 'O':
            number(c, 1, 1024, &options->outstanding);
            break;
        case 'H':
            number(c, 1, 4096, &options->message);
            break;
        case 'L':
            options->latency = true;
            break;
        case 'e':
            options->errors_handled = true;
            break;
        case 'R':
            read_percentile(options);
            break;
        case 'f':
            options->format.final_only = true;
            break;
        case 'v':
            options->format.csv = true;
            break;
        case 'N':
            options->format.thousands = true;
            break;
        default:
            fputs(usage, c == 'h' ? stdout : stderr);
            exit(c == 'h' ? 0 : 2);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "ucx_put: %s: no option (-h lists them)\n", argv[optind]);
        exit(2);
    }
    if (options->iterations == 0)
        options->iterations = clamp(((size_t)4 << 30) / options->size, 21, 10000);
    if (!warm_up_given)
        options->warm_up = clamp(options->iterations / 10, 3, 1000);
    if (options->outstanding == 0)
        options->outstanding = clamp(((size_t)16 << 20) / options->size, 1, 16);
    if (options->latency)
        options->outstanding = 1;
    if (options->outstanding > ((size_t)1 << 38) / options->size) {
        fprintf(stderr, "ucx_put: -s %zu -O %zu: more memory than there can be\n", options->size,
                options->outstanding);
        exit(2);
    }
}

/* Shared memory takes endpoints with error handling only if told so; the library's module does the same. UCX
 * warns of settings of what UCX_TLS leaves out. */
static void allow_errors_handled(void)
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
            fail("setenv", strerror(errno));
}

int main(int argc, char **argv)
{
    options_t options;
    int sockets[2];
    read_options(&options, argc, argv);
    if (options.errors_handled)
        allow_errors_handled();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
        fail("socketpair", strerror(errno));
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        fail("fork", strerror(errno));
    close(sockets[child == 0 ? 0 : 1]);
    if (child == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent))
        exit(1);
    prctl(PR_SET_PTRACER, child ? child : parent, 0, 0, 0); /* where Yama is: cma may write here */
    size_t length = options.size * options.outstanding;
    side_t side = {.options = &options,
                   .source = child != 0,
                   .child = child,
                   .socket = sockets[child != 0 ? 0 : 1],
                   .length = length};
    run(&side);
    int status = 0;
    if (child && (waitpid(child, &status, 0) != child || status != 0))
        fail("the target", "has failed");
    return 0;
}
