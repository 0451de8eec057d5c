/*
 * ux_context.c - UCX's settings, context and worker.
 *
 * Some of UCX's settings decide whether what the library promises can be kept. Those are set here, each
 * unless the environment has it (UCX_<name>), which is then the user's to answer for. UCX warns of one
 * that nothing here uses, so a first context is opened to see what there is.
 */
#include "ucx.h"
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#if UX_HAVE_DISABLE_SIGNAL
#include <ucs/debug/debug.h>
#endif

#if UX_HAVE_FULL_NAMES /* ucp_config_modify knows them as the environment does; up to 1.16, as inside */
#define NAME(full, inside) full
#else
#define NAME(full, inside) inside
#endif
#define STRING_OF(value) #value
#define STRING(value) STRING_OF(value)

/* The parts of UCX that settings belong to. */
enum {
    OF_UCP = 1,
    OF_POSIX = 2,
    OF_SYSV = 4,
    OF_TCP = 8,
    OF_IB = 16,
    OF_UD_VERBS = 32,
    OF_UD_MLX5 = 64
};

static const struct {
    const char *variable, *name, *value;
    unsigned of;
    const char *other; /* that is the user's as well: inside of UCX both have one name */
    unsigned alike;    /* of UX_QUEUES: peers in shared memory must have the same */
} settings[] = {
    /* Shared memory takes endpoints with error handling only if told so; UCX silently does without
     * shared memory otherwise. */
    {"POSIX_ERROR_HANDLING", NAME("POSIX_ERROR_HANDLING", "MM_ERROR_HANDLING"), "y", OF_POSIX, NULL,
     0},
    {"SYSV_ERROR_HANDLING", NAME("SYSV_ERROR_HANDLING", "MM_ERROR_HANDLING"), "y", OF_SYSV, NULL,
     0},
    /* Longer fragments, for own puts (see UX_SHARED_PIECE), and fewer of them: they go round, and have
     * to stay in the caches. UCX writes to all that it makes at a time. */
    {"POSIX_SEG_SIZE", NAME("POSIX_SEG_SIZE", "MM_SEG_SIZE"), STRING(UX_SHARED_FRAGMENT), OF_POSIX,
     "SYSV_SEG_SIZE", 2},
    {"SYSV_SEG_SIZE", NAME("SYSV_SEG_SIZE", "MM_SEG_SIZE"), STRING(UX_SHARED_FRAGMENT), OF_SYSV,
     "POSIX_SEG_SIZE", 2},
    {"POSIX_FIFO_SIZE", NAME("POSIX_FIFO_SIZE", "MM_FIFO_SIZE"), "16", OF_POSIX, "SYSV_FIFO_SIZE",
     4},
    {"SYSV_FIFO_SIZE", NAME("SYSV_FIFO_SIZE", "MM_FIFO_SIZE"), "16", OF_SYSV, "POSIX_FIFO_SIZE", 4},
    {"POSIX_RX_BUFS_GROW", NAME("POSIX_RX_BUFS_GROW", "MM_RX_BUFS_GROW"), "64", OF_POSIX,
     "SYSV_RX_BUFS_GROW", 0},
    {"SYSV_RX_BUFS_GROW", NAME("SYSV_RX_BUFS_GROW", "MM_RX_BUFS_GROW"), "64", OF_SYSV,
     "POSIX_RX_BUFS_GROW", 0},
    /* The COMMIT of a small heap fits an element of shared memory's queues (as UCX has it, 128 bytes), instead of a buffer that
     * the element only leads to, whose cache lines both sides have to fetch as well. */
    {"POSIX_FIFO_ELEM_SIZE", NAME("POSIX_FIFO_ELEM_SIZE", "MM_FIFO_ELEM_SIZE"), "640", OF_POSIX,
     "SYSV_FIFO_ELEM_SIZE", 8},
    {"SYSV_FIFO_ELEM_SIZE", NAME("SYSV_FIFO_ELEM_SIZE", "MM_FIFO_ELEM_SIZE"), "640", OF_SYSV,
     "POSIX_FIFO_ELEM_SIZE", 8},
    /* The end of a process is noticed within about this time (20 s by default). */
    {"KEEPALIVE_INTERVAL", "KEEPALIVE_INTERVAL", "1s", OF_UCP, NULL, 0},
    /* An idle connection is not given up because a cable is out for a while: how long to wait is the
     * library's to say, and a connection that was given up does not come back. */
    {"TCP_KEEPIDLE", NAME("TCP_KEEPIDLE", "KEEPIDLE"), "inf", OF_TCP, NULL, 0},
    /* A cache of registrations, which a put of our memory finds in it: see ux_mem.c. "direct": where what is deregistered
     * could not be taken out of it. */
    {"IB_REG_METHODS", NAME("IB_REG_METHODS", "REG_METHODS"),
     UX_HAVE_UNMAP_EVENT ? "rcache,direct" : "direct", OF_IB, NULL, 0},
    /* Where only the wire-up goes over ud, UCX does not get over its failure (see ux_ep.c). */
    {"UD_VERBS_TIMEOUT", NAME("UD_VERBS_TIMEOUT", "UD_TIMEOUT"), "60m", OF_UD_VERBS, NULL, 0},
    {"UD_MLX5_TIMEOUT", NAME("UD_MLX5_TIMEOUT", "UD_TIMEOUT"), "60m", OF_UD_MLX5, NULL, 0},
    /* What comes first from a peer is looked for in progress, not by UCX's own thread some time. */
    {"ADAPTIVE_PROGRESS", "ADAPTIVE_PROGRESS", "n", OF_UCP, NULL, 0},
};

static bool user_has(const char *name)
{
    char variable[64];

    snprintf(variable, sizeof variable, "UCX_%s", name);
    return getenv(variable) != NULL;
}

static bool is_users(size_t i)
{
    return user_has(settings[i].variable) ||
           (settings[i].other != NULL && user_has(settings[i].other));
}

static unsigned parts_of(const ux_devices_t *devices)
{
    return OF_UCP | (devices->posix ? OF_POSIX : 0) | (devices->sysv ? OF_SYSV : 0) |
           (devices->tcp ? OF_TCP : 0) | (devices->ib ? OF_IB : 0) |
           (devices->ud_verbs ? OF_UD_VERBS : 0) | (devices->ud_mlx5 ? OF_UD_MLX5 : 0);
}

/* How many peers UCX should reckon with. It leaves out what it takes to be for few (rc: 256) where they are more, even if that leaves no
 * device that writes to the peer's memory: dc is for any number. Endpoints are made on first use, and most ranks
 * speak with few. (UCX_NUM_EPS is stronger.) */
static size_t peers_to_expect(const iso_transport_t *tp)
{
    const size_t few = 128;

    return tp->devices.dc || tp->host->size < few ? tp->host->size : few;
}

/* UCX's settings, with ours of these parts. */
static iso_status_t read_settings(const iso_transport_t *tp, unsigned parts,
                                  ucp_config_t **config_p)
{
    ucp_config_t *config;
    ucs_status_t status = ucp_config_read(NULL, NULL, &config);

    for (size_t i = 0; status == UCS_OK && i < sizeof settings / sizeof *settings; i++) {
        if ((settings[i].of & parts) == 0 || is_users(i))
            continue;
        status = ucp_config_modify(config, settings[i].name, settings[i].value);
        if (status != UCS_OK)
            ucp_config_release(config);
    }
    if (status != UCS_OK) {
        ux_log(tp, ISO_LOG_ERROR, "the settings of UCX (UCX_*) cannot be read: %s",
               ucs_status_string(status));
        return ISO_ERR_INVALID;
    }
    *config_p = config;
    return ISO_OK;
}

/* UCX takes the signals of faults when it is loaded, and prints a backtrace. They are the program's:
 * given back, unless the user has asked for that. */
static void give_signals_back(void)
{
#if UX_HAVE_DISABLE_SIGNAL
    static const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGABRT};
    Dl_info ucs, handler;
    struct sigaction action;

    if (user_has("HANDLE_ERRORS") || user_has("ERROR_SIGNALS") ||
        dladdr((void *)(uintptr_t)ucs_debug_disable_signal, &ucs) == 0)
        return;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (sigaction(signals[i], NULL, &action) == 0 && (action.sa_flags & SA_SIGINFO) != 0 &&
            dladdr((void *)(uintptr_t)action.sa_sigaction, &handler) != 0 &&
            handler.dli_fbase == ucs.dli_fbase)
            ucs_debug_disable_signal(signals[i]);
#endif
}

static iso_status_t open_worker(iso_transport_t *tp)
{
    const ucp_worker_params_t params = {
        .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
        .thread_mode = UCS_THREAD_MODE_SERIALIZED,
    };
    const iso_status_t fits = ux_mem_check_own(tp);
    if (fits != ISO_OK)
        return fits;
    const ucs_status_t status = ucp_worker_create(tp->context, &params, &tp->worker);
    if (status == UCS_OK)
        return ISO_OK;
    ux_log(tp, ISO_LOG_ERROR, "UCX cannot make a worker: %s%s", ucs_status_string(status),
           tp->devices.pins
               ? " (it pins some 80 MiB for its own use with RDMA devices: is ulimit -l "
                 "less, beside what is registered?)"
               : "");
    return ISO_ERR_SYSTEM;
}

static iso_status_t open_context(iso_transport_t *tp, unsigned parts)
{
    const ucp_params_t params = {
        .field_mask =
            UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS | UCP_PARAM_FIELD_NAME,
        .features = UCP_FEATURE_RMA | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
        .estimated_num_eps = peers_to_expect(tp),
        .name = "isomalloc",
    };
    ucp_config_t *config;
    const iso_status_t status = read_settings(tp, parts, &config);

    if (status != ISO_OK)
        return status;
    const ucs_status_t opened = ucp_init(&params, config, &tp->context);
    ucp_config_release(config);
    if (opened == UCS_OK)
        return ISO_OK;
    const char *tls = getenv("UCX_TLS");
    ux_log(tp, ISO_LOG_ERROR,
           "UCX cannot be used: %s (UCX_TLS is %s; ucx_info -d lists what there is)",
           ucs_status_string(opened), tls != NULL ? tls : "not set");
    return opened == UCS_ERR_NO_MEMORY ? ISO_ERR_NO_MEMORY : ISO_ERR_SYSTEM;
}

/* Once it is known what there is. */
static unsigned queues_of(const iso_transport_t *tp)
{
    const unsigned parts = parts_of(&tp->devices) & (OF_POSIX | OF_SYSV);
    unsigned queues = parts != 0 ? UX_QUEUES : 0;

    for (size_t i = 0; !tp->shares_context && i < sizeof settings / sizeof *settings; i++)
        if ((settings[i].of & parts) != 0 && !is_users(i))
            queues |= settings[i].alike;
    return queues;
}

/* What the program has, in the place of ours. */
static iso_status_t share(iso_transport_t *tp, const iso_ucx_shared_t *shared)
{
    ucp_worker_attr_t attr = {.field_mask = UCP_WORKER_ATTR_FIELD_THREAD_MODE};

    if (shared->head.struct_size < sizeof *shared || shared->context == NULL) {
        ux_log(tp, ISO_LOG_ERROR,
               "what the program shares has %zu bytes (%zu are needed) and context %p: start from "
               "ISO_UCX_SHARED_INIT and assign the context",
               shared->head.struct_size, sizeof *shared, (void *)shared->context);
        return ISO_ERR_INVALID;
    }
    tp->context = shared->context;
    tp->shares_context = true;
    const iso_status_t status = ux_devices_find(tp);
    if (status != ISO_OK)
        return status;
    tp->queues = queues_of(tp);
    if (shared->worker == NULL) {
        ux_log(tp, ISO_LOG_INFO, "UCX's context is the program's, with its settings");
        return open_worker(tp);
    }
    if (ucp_worker_query(shared->worker, &attr) != UCS_OK)
        attr.thread_mode = UCS_THREAD_MODE_SINGLE;
    ux_log(tp, ISO_LOG_INFO, "UCX's context and worker are the program's, with their settings; %s",
           attr.thread_mode == UCS_THREAD_MODE_MULTI
               ? "both may use the worker at the same time"
               : "the program may use the worker only while no call of the library runs");
    tp->worker = shared->worker;
    tp->shares_worker = true;
    tp->am_id = shared->am_id;
    return ISO_OK;
}

iso_status_t ux_context_open(iso_transport_t *tp)
{
    iso_status_t status;

    tp->am_id = UX_AM_ID;
    if (tp->host->shared != NULL)
        return share(tp, (const iso_ucx_shared_t *)(const void *)tp->host->shared);
    give_signals_back();
    status = open_context(tp, OF_UCP);
    if (status != ISO_OK)
        return status;
    status = ux_devices_find(tp);
    if (status == ISO_OK && parts_of(&tp->devices) != OF_UCP) {
        ucp_cleanup(tp->context);
        status = open_context(tp, parts_of(&tp->devices));
        if (status != ISO_OK)
            return status;
    }
    tp->queues = queues_of(tp);
    if (status == ISO_OK)
        status = open_worker(tp);
    if (status != ISO_OK)
        ucp_cleanup(tp->context);
    return status;
}

void ux_context_close(iso_transport_t *tp)
{
    const ucp_am_handler_param_t none = {.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID |
                                                       UCP_AM_HANDLER_PARAM_FIELD_CB,
                                         .id = tp->am_id,
                                         .cb = NULL};

    if (tp->shares_worker)
        ucp_worker_set_am_recv_handler(tp->worker, &none);
    else if (tp->unclosed == 0)
        ucp_worker_destroy(tp->worker);
    if (tp->unclosed == 0 && (!tp->shares_worker || tp->closing == 0))
        ux_mem_free_gone(tp);
    if (!tp->shares_context && tp->unclosed == 0)
        ucp_cleanup(tp->context);
}
