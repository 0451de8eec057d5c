/*
 * checking.c - a transport for tests: another module's, watched. It behaves like a device that pins and that is
 * slow, and ends the process with a line (and the exit status of an abort) when the library does what such a device
 * would punish:
 *
 *   - more is registered than ISO_TEST_PIN_LIMIT bytes;
 *   - a put comes from, or goes to, memory that is not registered at that moment, or uses the key of a
 *     registration that is gone;
 *   - a region goes while a put from it is under way, or one into it has not been flushed by a rank that lives;
 *   - pages of a region went while it was registered (ISO_TEST_PIN=1, where all pages of a region are made
 *     resident, as pinning does; a guard page in it is an error, too);
 *   - at the close something is registered still.
 *
 * With ISO_TEST_MEMLOCK it registers no more than so many bytes, as a system does that allows less than it says.
 *
 * Puts are held back for a few turns of progress, in any order, and a flush until they have gone. What is
 * registered is told to other ranks through memory that they map (a memfd of the rank's, named in its
 * address), so all ranks must be on one host. The module that is watched is ISO_TEST_CHECKED (loopback).
 */
#include "checking.h"
#include <dlfcn.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void ck_die(const iso_transport_t *tp, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "checking: rank %u: %s\n", tp->host.rank, text);
    abort();
}

static iso_status_t probe(const char **why_p)
{
    (void)why_p;
    return ISO_OK;
}

static const iso_transport_ops_t *load(void **handle_p)
{
    const char *name = getenv("ISO_TEST_CHECKED");
    char file[4096];
    snprintf(file, sizeof file, "%s/libisomalloc-%s.so", CHECKING_MODULES,
             name != NULL ? name : "loopback");
    *handle_p = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    return *handle_p != NULL ? dlsym(*handle_p, ISO_TRANSPORT_MODULE_SYMBOL) : NULL;
}

static iso_status_t open_transport(const iso_transport_host_t *host, iso_transport_t **tp_p)
{
    const char *limit = getenv("ISO_TEST_PIN_LIMIT"), *pin = getenv("ISO_TEST_PIN");
    const char *memlock = getenv("ISO_TEST_MEMLOCK");
    iso_transport_t *tp = calloc(1, sizeof *tp);
    if (tp == NULL || host->size > RANKS_MAX)
        return ISO_ERR_LIMIT;
    tp->host = *host;
    tp->limit = limit != NULL ? strtoull(limit, NULL, 0) : UINT64_MAX;
    tp->memlock = memlock != NULL ? strtoull(memlock, NULL, 0) : UINT64_MAX;
    tp->pin = pin != NULL && *pin == '1';
    tp->random = host->rank * 2654435761u + 1;
    tp->ops = load(&tp->handle);
    if (tp->ops == NULL)
        ck_die(tp, "cannot be set up: %s", dlerror());
    ck_registry_open(tp);
    const iso_status_t status = tp->ops->open(&tp->host, &tp->inner);
    if (status == ISO_OK)
        *tp_p = tp;
    return status;
}

static void close_transport(iso_transport_t *tp)
{
    if (tp->regions != 0)
        ck_die(tp, "closed with %u regions registered, %" PRIu64 " bytes", tp->regions,
               tp->registered);
    tp->ops->close(tp->inner);
    ck_registry_close(tp);
    dlclose(tp->handle);
    free(tp);
}

static void query(iso_transport_t *tp, iso_transport_caps_t *caps_p)
{
    tp->ops->query(tp->inner, caps_p);
    caps_p->pins_memory = true;
    caps_p->one_sided = false; /* held back until this rank makes progress */
    caps_p->description = "another transport, watched";
}

static iso_status_t address(iso_transport_t *tp, void *buf, size_t *len_p)
{
    const address_blob_t blob = {(int32_t)getpid(), tp->fd};
    size_t len = *len_p - sizeof blob;
    const iso_status_t status = tp->ops->address(tp->inner, (char *)buf + sizeof blob, &len);
    memcpy(buf, &blob, sizeof blob);
    if (status == ISO_OK)
        *len_p = len + sizeof blob;
    return status;
}

static iso_status_t connect_to(iso_transport_t *tp, uint32_t rank, const void *bytes, size_t len,
                               iso_endpoint_t **ep_p)
{
    address_blob_t blob;
    iso_endpoint_t *ep = calloc(1, sizeof *ep);
    memcpy(&blob, bytes, sizeof blob);
    if (ep == NULL)
        return ISO_ERR_NO_MEMORY;
    ep->tp = tp;
    ep->rank = rank;
    ep->registry = ck_registry_map(&blob);
    const iso_status_t status = tp->ops->connect(tp->inner, rank, (const char *)bytes + sizeof blob,
                                                 len - sizeof blob, &ep->inner);
    if (status != ISO_OK || ep->registry == NULL) { /* it has ended */
        if (status == ISO_OK)
            tp->ops->disconnect(ep->inner);
        free(ep);
        return status != ISO_OK ? status : ISO_ERR_UNREACHABLE;
    }
    atomic_store(&ep->registry->pids[tp->host.rank], (int32_t)getpid());
    *ep_p = ep;
    return ISO_OK;
}

static void disconnect(iso_endpoint_t *ep)
{
    ck_ops_forget(ep);
    ep->tp->ops->disconnect(ep->inner);
    munmap(ep->registry, sizeof *ep->registry);
    free(ep);
}

static iso_status_t send_message(iso_endpoint_t *ep, const void *data, size_t len)
{
    return ep->tp->ops->send(ep->inner, data, len);
}

static bool is_sending(iso_transport_t *tp)
{
    return tp->ops->is_sending != NULL && tp->ops->is_sending(tp->inner);
}

static unsigned progress(iso_transport_t *tp)
{
    unsigned events = tp->ops->progress(tp->inner);
    while (ck_give_next(tp) > 0)
        events++;
    return events;
}

static int event_fd(iso_transport_t *tp)
{
    return tp->ops->event_fd(tp->inner);
}

static iso_status_t arm(iso_transport_t *tp)
{
    return ck_has_ungiven(tp) ? ISO_ERR_BUSY : tp->ops->arm(tp->inner);
}

extern ISO_API const iso_transport_ops_t iso_transport_module;
const iso_transport_ops_t iso_transport_module = {
    .abi_version = ISO_TRANSPORT_ABI,
    .struct_size = sizeof(iso_transport_ops_t),
    .name = "checking",
    .probe = probe,
    .open = open_transport,
    .close = close_transport,
    .query = query,
    .address = address,
    .connect = connect_to,
    .disconnect = disconnect,
    .mem_register = ck_mem_register,
    .mem_deregister = ck_mem_deregister,
    .rkey_pack = ck_rkey_pack,
    .rkey_unpack = ck_rkey_unpack,
    .rkey_destroy = ck_rkey_destroy,
    .put = ck_put,
    .fence = ck_fence,
    .flush = ck_flush,
    .send = send_message,
    .is_sending = is_sending,
    .progress = progress,
    .event_fd = event_fd,
    .arm = arm,
};
