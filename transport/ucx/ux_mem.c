/*
 * ux_mem.c - registered memory and the keys to it.
 *
 * A region is mapped by UCX once, ahead of use, with every device that wants it. Over tcp and shared memory
 * nothing is registered by that and it costs nothing, however large; a device that pins takes pages, and
 * the limit on those is looked at first, because all that UCX says of it is "Input/output error".
 *
 * The cache. UCX 1.13 takes no notice of a put's memory handle (ucp_put_nbx: src/ucp/rma/rma_send.c, ucp_rma_nonblocking), but has
 * the device register the source, for each put of 16 KiB and more. Its cache of registrations (rcache) finds that inside of
 * what is mapped, which costs nothing that can be measured; without a cache each put would pin its pages and unpin
 * them again. But what is unmapped stays in the cache, and pinned, until somebody unmaps the memory; so the cache is told that somebody
 * does (ucm_vm_munmap). Where UCX can have no cache, it uses none (UCX_MEM_EVENTS=n, Valgrind).
 *
 * On demand. UCP_MEM_MAP_NONBLOCK asks UCX for memory that the device fetches when it needs it, and where no
 * device does UCX (1.13: uct_ib_memh_access_flags, for lengths up to what it found the device to do) pins it without a
 * word. Nothing in UCX's interface tells the two apart, and ucx_info does not print it. So it is tried: untouched
 * memory is mapped that way, and if the kernel then counts more pages of this process as pinned (VmPin
 * of /proc/self/status, which every registering driver adds to), it was pinned.
 */
#include "ucx.h"
#include <inttypes.h>
#include <linux/capability.h>
#if UX_HAVE_UNMAP_EVENT
#include <ucm/api/ucm.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRIAL_BYTES (1 << 20)
#define USEFUL_WINDOWS (32u << 20) /* of registered memory: for advice */

static const blob_kind_t rkey_kind = {0x6b786375u /* "ucxk" */, UX_VERSION, "an rkey",
                                      ": name fewer devices in UCX_NET_DEVICES"};

typedef struct rkey_body {
    uint64_t address, length;
    uint32_t region, zero; /* its number */
} rkey_body_t;

/* Is the process free of RLIMIT_MEMLOCK? */
static bool may_lock_all(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    memset(data, 0, sizeof data);
    return syscall(SYS_capget, &header, data) == 0 &&
           (data[0].effective & (1u << CAP_IPC_LOCK)) != 0;
}

/* UCX pins buffers of its own with an RDMA device, for messages, the last of them when it has connected. Measured, UCX
 * 1.13 at its defaults, one device: 38 MiB once there is a worker, 77 connected to one peer and to three. Without
 * them it logs errors and goes on, and the ranks then wait for each other for ever. */
iso_status_t ux_mem_check_own(const iso_transport_t *tp)
{
    struct rlimit limit;

    if (!tp->devices.pins || getrlimit(RLIMIT_MEMLOCK, &limit) != 0 ||
        limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= UX_OWN_PINNED || may_lock_all())
        return ISO_OK;
    ux_log(tp, ISO_LOG_ERROR,
           "RLIMIT_MEMLOCK is %" PRIu64 " KiB, and UCX alone pins some 80 MiB for its own use with "
           "RDMA devices: set ulimit -l to %u or more",
           (uint64_t)limit.rlim_cur >> 10, (UX_OWN_PINNED + USEFUL_WINDOWS) >> 10);
    return ISO_ERR_LIMIT;
}

/* KiB of this process that the kernel counts as pinned; -1: it does not say. */
static long pinned_kib(void)
{
    FILE *status = fopen("/proc/self/status", "re");
    char line[256];
    long kib = -1;

    while (status != NULL && kib < 0 && fgets(line, sizeof line, status) != NULL)
        sscanf(line, "VmPin: %ld", &kib);
    if (status != NULL)
        fclose(status);
    return kib;
}

/* Bytes that are pinned, or will be when UCX has connected, and are no region's. */
static uint64_t pinned_beside(const iso_transport_t *tp)
{
    const long kib = pinned_kib();
    const uint64_t pinned = kib < 0 ? 0 : (uint64_t)kib << 10;
    const uint64_t others = pinned > tp->registered ? pinned - tp->registered : 0;

    return others > UX_OWN_PINNED ? others : UX_OWN_PINNED;
}

/* What is registered with a device that pins must fit the limit and the machine, beside what UCX pins. */
static iso_status_t check_pinned(const iso_transport_t *tp, uint64_t length)
{
    const uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    struct rlimit limit;

    if (!tp->devices.pins || tp->devices.on_demand)
        return ISO_OK;
    if (length > memory) {
        ux_log(tp, ISO_LOG_ERROR,
               "registering %" PRIu64 " MiB with an RDMA device pins them, and this machine has "
               "%" PRIu64 " MiB: set ISO_SPACE_SIZE to less",
               length >> 20, memory >> 20);
        return ISO_ERR_LIMIT;
    }
    const uint64_t beside = pinned_beside(tp), needed = beside + tp->registered + length;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur >= needed || may_lock_all())
        return ISO_OK;
    ux_log(tp, ISO_LOG_ERROR,
           "registering %" PRIu64 " MiB with an RDMA device pins them, beside %" PRIu64 " MiB that "
           "are registered and %" PRIu64 " MiB that UCX pins, and RLIMIT_MEMLOCK is %" PRIu64
           " KiB: set ulimit -l to %" PRIu64 " or more, or ISO_REGISTER=window",
           length >> 20, tp->registered >> 20, beside >> 20, (uint64_t)limit.rlim_cur >> 10,
           (needed + 1023) >> 10);
    return ISO_ERR_LIMIT;
}

static unsigned map_flags(const iso_transport_t *tp)
{
    unsigned flags = 0;

    if (tp->devices.on_demand)
        flags |= UCP_MEM_MAP_NONBLOCK;
#if UX_HAVE_MAP_LOCK
    /* Newer UCX can be set to fetch pages on demand unasked (UCX_REG_NONBLOCK_MEM_TYPES), and what is counted
     * as pinned would not be. Only where something pins: it makes the pages of all of a region. */
    else if (tp->devices.pins)
        flags |= UCP_MEM_MAP_LOCK;
#endif
#if UX_HAVE_SYMMETRIC_RKEY
    flags |= UCP_MEM_MAP_SYMMETRIC_RKEY; /* a hint: keys of several ranks may be equal */
#endif
    return flags;
}

static ucs_status_t map_region(const iso_transport_t *tp, iso_region_t *region)
{
    const ucp_mem_map_params_t params = {
        .field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                      UCP_MEM_MAP_PARAM_FIELD_FLAGS,
        .address = region->memory.address,
        .length = (size_t)region->memory.length,
        .flags = map_flags(tp),
    };

    return ucp_mem_map(tp->context, &params, &region->memh);
}

/* The cache is told first that the memory goes, and forgets it: then the handle is the last to use the registration, which ends
 * with it. */
static ucs_status_t unmap_region(const iso_transport_t *tp, const iso_region_t *region)
{
#if UX_HAVE_UNMAP_EVENT
    if (tp->devices.ib)
        ucm_vm_munmap(region->memory.address, (size_t)region->memory.length);
#endif
    return ucp_mem_unmap(tp->context, region->memh);
}

void ux_mem_try_on_demand(iso_transport_t *tp)
{
    iso_region_t trial = {.tp = tp, .memory = {.length = TRIAL_BYTES, .fd = -1}};

    if (!tp->devices.pins)
        return;
    trial.memory.address = mmap(NULL, TRIAL_BYTES, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (trial.memory.address == MAP_FAILED)
        return;
    const long before = pinned_kib();
    tp->devices.on_demand = true;
    const ucs_status_t mapped = map_region(tp, &trial);
    const long more = pinned_kib() - before;
    if (mapped == UCS_OK)
        unmap_region(tp, &trial);
    tp->devices.on_demand = mapped == UCS_OK && before >= 0 && more < TRIAL_BYTES / 2048;
    ux_log(tp, ISO_LOG_INFO, "on demand: %s (%ld KiB of %d were pinned)",
           tp->devices.on_demand ? "the device fetches pages" : "no device fetches pages", more,
           TRIAL_BYTES / 1024);
    munmap(trial.memory.address, TRIAL_BYTES);
}

iso_status_t ux_mem_register(iso_transport_t *tp, const iso_memory_t *memory,
                             iso_region_t **region_p)
{
    iso_status_t status;

    if (memory->length == 0 || memory->length > UINT64_MAX - (uintptr_t)memory->address) {
        ux_log(tp, ISO_LOG_ERROR, "cannot register %" PRIu64 " bytes at %p", memory->length,
               memory->address);
        return ISO_ERR_INVALID;
    }
    status = check_pinned(tp, memory->length);
    if (status != ISO_OK)
        return status;
    iso_region_t *region = calloc(1, sizeof *region);
    if (region == NULL) {
        ux_log(tp, ISO_LOG_ERROR, "no memory for a region");
        return ISO_ERR_NO_MEMORY;
    }
    region->tp = tp;
    region->memory = *memory;
    const ucs_status_t mapped = map_region(tp, region);
    if (mapped != UCS_OK) {
        ux_log(tp, ISO_LOG_ERROR, "UCX cannot register %" PRIu64 " MiB at %p: %s",
               memory->length >> 20, memory->address, ucs_status_string(mapped));
        free(region);
        return ux_status(mapped) == ISO_ERR_NO_MEMORY ? ISO_ERR_NO_MEMORY : ISO_ERR_LIMIT;
    }
    ux_fork_allow(tp, memory);
    ux_landing_add(tp, region);
    tp->regions++;
    tp->registered += memory->length;
    *region_p = region;
    return ISO_OK;
}

void ux_mem_free_gone(iso_transport_t *tp)
{
    for (iso_region_t *region; (region = tp->gone) != NULL;) {
        tp->gone = region->next;
        const ucs_status_t status = unmap_region(tp, region);
        if (status != UCS_OK)
            ux_log(tp, ISO_LOG_WARN, "UCX cannot deregister %" PRIu64 " MiB at %p: %s",
                   region->memory.length >> 20, region->memory.address, ucs_status_string(status));
        tp->registered -= region->memory.length;
        free(region);
    }
}

/* UCX may still read for an endpoint that was closed by force, and a device that reads what is not registered any more is
 * as wrong as UCX with a handle that is none. So a region stays UCX's until UCX has let go. What a device sends meanwhile may be
 * bytes of the memory's next use: they land where the put went, in slots that the peer keeps for it as long as it has not heard of
 * an end. */
void ux_mem_deregister(iso_region_t *region)
{
    iso_transport_t *tp = region->tp;

    ux_landing_remove(tp, region);
    tp->regions--;
    region->next = tp->gone;
    tp->gone = region;
    if (ux_ops_quiesce(tp))
        ux_mem_free_gone(tp);
    else
        ux_log(tp, ISO_LOG_WARN,
               "%" PRIu64 " MiB at %p stay registered with UCX until it has let go of them",
               region->memory.length >> 20, region->memory.address);
}

static ucs_status_t pack(const iso_region_t *region, void **bytes_p, size_t *len_p)
{
#if UX_HAVE_MEMH_PACK
    const ucp_memh_pack_params_t params = {.field_mask = 0};

    return ucp_memh_pack(region->memh, &params, bytes_p, len_p);
#else
    return ucp_rkey_pack(region->tp->context, region->memh, bytes_p, len_p);
#endif
}

static void release(void *bytes)
{
#if UX_HAVE_MEMH_PACK
    const ucp_memh_buffer_release_params_t params = {.field_mask = 0};

    ucp_memh_buffer_release(bytes, &params);
#else
    ucp_rkey_buffer_release(bytes);
#endif
}

iso_status_t ux_rkey_pack(iso_region_t *region, void *buf, size_t *len_p)
{
    iso_transport_t *tp = region->tp;
    const rkey_body_t body = {.address = (uintptr_t)region->memory.address,
                              .length = region->memory.length,
                              .region = region->number};
    void *bytes;
    size_t len;
    const ucs_status_t packed = pack(region, &bytes, &len);

    if (packed != UCS_OK) {
        ux_log(tp, ISO_LOG_ERROR, "UCX cannot pack an rkey: %s", ucs_status_string(packed));
        return ISO_ERR_SYSTEM;
    }
    const iso_status_t status =
        blob_write(tp->host, &rkey_kind, &body, sizeof body, bytes, len, buf, len_p);
    release(bytes);
    return status;
}

iso_status_t ux_rkey_unpack(iso_endpoint_t *ep, const void *buf, size_t len, iso_rkey_t **rkey_p)
{
    iso_transport_t *tp = ep->tp;
    const uint32_t rank = ep->peer->base.rank;
    const void *ucp;
    size_t ucp_len;
    rkey_body_t body;
    const iso_status_t good =
        blob_read(tp->host, &rkey_kind, rank, buf, len, &body, sizeof body, &ucp, &ucp_len);

    if (good != ISO_OK)
        return good;
    if (body.length == 0 || body.length > UINT64_MAX - body.address || body.zero != 0) {
        ux_log(tp, ISO_LOG_ERROR, "an rkey of rank %u makes no sense", rank);
        return ISO_ERR_INVALID;
    }
    if (ep->ucp == NULL)
        return ep->peer->base.state == PEER_DEAD ? ISO_ERR_PEER_DEAD : ISO_ERR_UNREACHABLE;
    iso_rkey_t *rkey = calloc(1, sizeof *rkey);
    if (rkey == NULL) {
        ux_log(tp, ISO_LOG_ERROR, "no memory for an rkey of rank %u", rank);
        return ISO_ERR_NO_MEMORY;
    }
    const ucs_status_t status = ucp_ep_rkey_unpack(ep->ucp, ucp, &rkey->ucp);
    if (status != UCS_OK) {
        ux_log(tp, ISO_LOG_ERROR, "UCX cannot use the rkey of rank %u: %s", rank,
               ucs_status_string(status));
        free(rkey);
        return ux_status(status);
    }
    rkey->tp = tp;
    rkey->rank = rank;
    rkey->address = body.address;
    rkey->length = body.length;
    rkey->region = body.region;
    tp->rkeys++;
    ux_lane_tell(ep); /* the peer has spoken: its lanes are settled */
    *rkey_p = rkey;
    return ISO_OK;
}

void ux_rkey_destroy(iso_rkey_t *rkey)
{
    rkey->tp->rkeys--;
    ucp_rkey_destroy(rkey->ucp);
    free(rkey);
}
