/*
 * test_module.c - a module for the tests of module.c, transport and bootstrap in one. Built several
 * times, each with its own fault:
 *   TEST_ABI_STEP=<n>  its ABI version is that many ahead
 *   TEST_INCOMPLETE    a function is missing in its tables
 *   TEST_NO_PROBE      says that this machine will not do
 *   TEST_NO_OPEN       fails to open
 *   TEST_NEEDS_LIBRARY needs a symbol that nobody has, as when a library is missing
 */
#include <isomalloc/bootstrap.h>
#include <isomalloc/transport.h>
#include <stdlib.h>

#ifndef TEST_ABI_STEP
#define TEST_ABI_STEP 0
#endif

struct iso_transport {
    int unused;
};
static struct iso_transport the_transport;

#ifdef TEST_NEEDS_LIBRARY
extern int iso_test_symbol_of_a_missing_library(void);
#endif

static iso_status_t probe(const char **why_p)
{
#if defined(TEST_NEEDS_LIBRARY)
    *why_p = NULL;
    return iso_test_symbol_of_a_missing_library() == 0 ? ISO_OK : ISO_ERR_SYSTEM;
#elif defined(TEST_NO_PROBE)
    *why_p = "there is no such device";
    return ISO_ERR_SYSTEM;
#else
    (void)why_p;
    return ISO_OK;
#endif
}

static iso_status_t open_transport(const iso_transport_host_t *host, iso_transport_t **tp_p)
{
#ifdef TEST_NO_OPEN
    host->log(host->arg, ISO_LOG_WARN, "this is only a warning");
    host->log(host->arg, ISO_LOG_ERROR, "the device is busy");
    host->log(host->arg, ISO_LOG_ERROR, "so it cannot be opened");
    (void)tp_p;
    return ISO_ERR_SYSTEM;
#else
    if (host->struct_size < sizeof *host || host->rank != 0 || host->size != 1)
        return ISO_ERR_INVALID;
    *tp_p = &the_transport;
    return ISO_OK;
#endif
}

static void close_transport(iso_transport_t *tp)
{
    if (tp != &the_transport)
        abort();
}

static void query(iso_transport_t *tp, iso_transport_caps_t *caps_p)
{
    (void)tp;
    caps_p->pins_memory = true;
    caps_p->one_sided = true;
    caps_p->max_send = ISO_TRANSPORT_MIN_SEND;
    caps_p->max_put = 1 << 20;
    caps_p->description = "for tests only";
}

/* The library never gets as far as calling these. */
static iso_status_t get_address(iso_transport_t *tp, void *buf, size_t *len_p)
{
    (void)tp, (void)buf, (void)len_p;
    return ISO_ERR_INVALID;
}
static iso_status_t connect(iso_transport_t *tp, uint32_t rank, const void *address, size_t len,
                            iso_endpoint_t **ep_p)
{
    (void)tp, (void)rank, (void)address, (void)len, (void)ep_p;
    return ISO_ERR_INVALID;
}
static void disconnect(iso_endpoint_t *ep)
{
    (void)ep;
}
static iso_status_t mem_register(iso_transport_t *tp, const iso_memory_t *memory,
                                 iso_region_t **region_p)
{
    (void)tp, (void)memory, (void)region_p;
    return ISO_ERR_INVALID;
}
static void mem_deregister(iso_region_t *region)
{
    (void)region;
}
static iso_status_t rkey_pack(iso_region_t *region, void *buf, size_t *len_p)
{
    (void)region, (void)buf, (void)len_p;
    return ISO_ERR_INVALID;
}
static iso_status_t rkey_unpack(iso_endpoint_t *ep, const void *buf, size_t len,
                                iso_rkey_t **rkey_p)
{
    (void)ep, (void)buf, (void)len, (void)rkey_p;
    return ISO_ERR_INVALID;
}
static void rkey_destroy(iso_rkey_t *rkey)
{
    (void)rkey;
}
static iso_status_t put(iso_endpoint_t *ep, const void *src, size_t len, iso_region_t *region,
                        uint64_t remote, iso_rkey_t *rkey, iso_completion_t *completion)
{
    (void)ep, (void)src, (void)len, (void)region, (void)remote, (void)rkey, (void)completion;
    return ISO_ERR_INVALID;
}
static iso_status_t fence(iso_endpoint_t *ep)
{
    (void)ep;
    return ISO_ERR_INVALID;
}
static iso_status_t flush(iso_endpoint_t *ep, iso_completion_t *completion)
{
    (void)ep, (void)completion;
    return ISO_ERR_INVALID;
}
static iso_status_t send_message(iso_endpoint_t *ep, const void *data, size_t len)
{
    (void)ep, (void)data, (void)len;
    return ISO_ERR_INVALID;
}
static unsigned progress(iso_transport_t *tp)
{
    (void)tp;
    return 0;
}
static int event_fd(iso_transport_t *tp)
{
    (void)tp;
    return -1;
}
static iso_status_t arm(iso_transport_t *tp)
{
    (void)tp;
    return ISO_OK;
}

ISO_API extern const iso_transport_ops_t iso_transport_module;
const iso_transport_ops_t iso_transport_module = {
    .abi_version = ISO_TRANSPORT_ABI + TEST_ABI_STEP,
    .struct_size = sizeof(iso_transport_ops_t),
    .name = "test",
    .probe = probe,
    .open = open_transport,
    .close = close_transport,
    .query = query,
    .address = get_address,
    .connect = connect,
    .disconnect = disconnect,
    .mem_register = mem_register,
    .mem_deregister = mem_deregister,
    .rkey_pack = rkey_pack,
    .rkey_unpack = rkey_unpack,
    .rkey_destroy = rkey_destroy,
    .put = put,
    .fence = fence,
    .flush = flush,
    .send = send_message,
    .progress = progress,
    .event_fd = event_fd,
#ifndef TEST_INCOMPLETE
    .arm = arm,
#endif
};

static bool detect(void)
{
    return getenv("ISO_TEST_DETECTED") != NULL;
}

#ifndef TEST_INCOMPLETE
static iso_status_t open_bootstrap(void (*log)(iso_log_level_t level, const char *text),
                                   iso_bootstrap_t **bootstrap_p)
{
    (void)bootstrap_p;
    log(ISO_LOG_ERROR, "the test module joins nothing");
    return ISO_ERR_SYSTEM;
}
#else
iso_status_t (*iso_test_unused)(iso_transport_t *) = arm;
#endif

ISO_API extern const iso_bootstrap_module_t iso_bootstrap_module;
const iso_bootstrap_module_t iso_bootstrap_module = {
    .abi_version = ISO_BOOTSTRAP_ABI + TEST_ABI_STEP,
    .name = "test",
    .detect = detect,
#ifndef TEST_INCOMPLETE
    .open = open_bootstrap,
#endif
};
