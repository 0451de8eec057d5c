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
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <isomalloc/transport.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define RANKS_MAX 64
#define REGIONS_MAX 4096
#define LATE_TURNS 4 /* a put is held back for less */

/* ---- what other ranks see -------------------------------------------------------------------- */

typedef struct entry {
    _Atomic(uint64_t) id; /* 0: not registered */
    uint64_t address, length;
    _Atomic(uint32_t) puts[RANKS_MAX]; /* into it, not flushed yet, by rank */
} entry_t;

typedef struct registry {
    _Atomic(int32_t) pids[RANKS_MAX]; /* of those that are connected to this rank */
    entry_t entries[REGIONS_MAX];
} registry_t;

typedef struct address_blob {
    int32_t pid, fd;
} address_blob_t;

typedef struct rkey_blob {
    uint64_t id;
    uint32_t entry, len;
} rkey_blob_t;

/* ---- this instance --------------------------------------------------------------------------- */

struct iso_region {
    iso_transport_t *tp;
    iso_region_t *inner;
    iso_memory_t memory;
    uint32_t entry;
    uint32_t busy; /* puts from it that are under way */
};

struct iso_rkey {
    iso_transport_t *tp;
    iso_rkey_t *inner;
    uint64_t id;
    uint32_t entry;
};

typedef struct op {
    iso_completion_t completion; /* first: the inner transport's */
    struct op *next;
    iso_endpoint_t *ep;
    iso_completion_t *outer;
    uint64_t number; /* of its endpoint */
    unsigned turns;  /* until it goes */
    bool given;      /* to the inner transport */
    bool is_flush;
    /* of a put */
    const void *src;
    size_t len;
    iso_region_t *region;
    uint64_t remote;
    iso_rkey_t *rkey;
    entry_t *entry;
} op_t;

struct iso_endpoint {
    iso_transport_t *tp;
    iso_endpoint_t *inner;
    uint32_t rank;
    registry_t *registry; /* the peer's */
    uint64_t numbered;
    op_t *unflushed; /* puts that have ended here */
};

struct iso_transport {
    iso_transport_host_t host;
    void *handle;
    const iso_transport_ops_t *ops;
    iso_transport_t *inner;
    registry_t *registry;
    int fd;
    uint64_t next_id, limit, memlock, registered;
    bool pin;
    uint32_t regions, random;
    op_t *ops_under_way;
};

static void die(const iso_transport_t *tp, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));
static void die(const iso_transport_t *tp, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "checking: rank %u: %s\n", tp->host.rank, text);
    abort();
}

static bool is_alive(int32_t pid)
{
    char path[64], state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *stat = fopen(path, "re");
    if (stat == NULL)
        return false;
    if (fscanf(stat, "%*d (%*[^)]) %c", &state) != 1)
        state = 'Z';
    fclose(stat);
    return state != 'Z' && state != 'X';
}

/* ---- opening --------------------------------------------------------------------------------- */

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
    tp->fd = memfd_create("checking", MFD_CLOEXEC);
    if (tp->ops == NULL || tp->fd < 0 || ftruncate(tp->fd, sizeof *tp->registry) != 0)
        die(tp, "cannot be set up: %s", tp->ops == NULL ? dlerror() : strerror(errno));
    tp->registry = mmap(NULL, sizeof *tp->registry, PROT_READ | PROT_WRITE, MAP_SHARED, tp->fd, 0);
    if (tp->registry == MAP_FAILED)
        die(tp, "cannot map its registry");
    const iso_status_t status = tp->ops->open(&tp->host, &tp->inner);
    if (status == ISO_OK)
        *tp_p = tp;
    return status;
}

static void close_transport(iso_transport_t *tp)
{
    if (tp->regions != 0)
        die(tp, "closed with %u regions registered, %" PRIu64 " bytes", tp->regions,
            tp->registered);
    tp->ops->close(tp->inner);
    munmap(tp->registry, sizeof *tp->registry);
    close(tp->fd);
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

static registry_t *map_registry(const address_blob_t *blob)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)blob->pid, (int)blob->fd);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    registry_t *registry = mmap(NULL, sizeof *registry, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return registry != MAP_FAILED ? registry : NULL;
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
    ep->registry = map_registry(&blob);
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
    for (op_t **at = &ep->tp->ops_under_way; *at != NULL;) {
        op_t *op = *at;
        if (op->ep != ep) {
            at = &op->next;
            continue;
        }
        if (op->given) /* the inner one has it still */
            die(ep->tp, "disconnected from rank %u with an operation under way", ep->rank);
        *at = op->next;
        free(op);
    }
    for (op_t *op = ep->unflushed, *next; op != NULL; op = next) {
        next = op->next;
        free(op);
    }
    ep->tp->ops->disconnect(ep->inner);
    munmap(ep->registry, sizeof *ep->registry);
    free(ep);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* The trial of anonymous memory registers a page, and does not flush. */
static bool is_trial(const iso_memory_t *memory)
{
    return memory->length <= (uint64_t)sysconf(_SC_PAGESIZE);
}

static iso_status_t mem_register(iso_transport_t *tp, const iso_memory_t *memory,
                                 iso_region_t **region_p)
{
    registry_t *registry = tp->registry;
    uint32_t at = 0;
    if (!is_trial(memory) && tp->registered + memory->length > tp->limit)
        die(tp, "%" PRIu64 " bytes would be registered, ISO_TEST_PIN_LIMIT is %" PRIu64,
            tp->registered + memory->length, tp->limit);
    if (!is_trial(memory) && tp->registered + memory->length > tp->memlock)
        return ISO_ERR_LIMIT;
    while (at < REGIONS_MAX && atomic_load(&registry->entries[at].id) != 0)
        at++;
    if (at == REGIONS_MAX)
        return ISO_ERR_LIMIT;
    if (tp->pin && madvise(memory->address, memory->length, MADV_POPULATE_WRITE) != 0)
        die(tp, "pages at %p + %" PRIu64 " cannot be pinned: %s", memory->address, memory->length,
            strerror(errno));
    iso_region_t *region = calloc(1, sizeof *region);
    if (region == NULL)
        return ISO_ERR_NO_MEMORY;
    const iso_status_t status = tp->ops->mem_register(tp->inner, memory, &region->inner);
    if (status != ISO_OK) {
        free(region);
        return status;
    }
    region->tp = tp;
    region->memory = *memory;
    region->entry = at;
    registry->entries[at].address = (uintptr_t)memory->address;
    registry->entries[at].length = memory->length;
    atomic_store(&registry->entries[at].id, ++tp->next_id);
    tp->regions++;
    tp->registered += memory->length;
    *region_p = region;
    return ISO_OK;
}

static void check_pages(const iso_region_t *region)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = region->memory.length / page;
    unsigned char *resident = malloc(pages);
    if (resident == NULL || mincore(region->memory.address, region->memory.length, resident) != 0)
        die(region->tp, "mincore: %s", strerror(errno));
    for (size_t i = 0; i < pages; i++)
        if ((resident[i] & 1) == 0)
            die(region->tp, "the page at %p went while it was registered",
                (void *)((char *)region->memory.address + i * page));
    free(resident);
}

static void mem_deregister(iso_region_t *region)
{
    iso_transport_t *tp = region->tp;
    entry_t *entry = &tp->registry->entries[region->entry];
    atomic_store(&entry->id, 0);
    for (uint32_t rank = 0; rank < RANKS_MAX; rank++) {
        const uint32_t puts = atomic_exchange(&entry->puts[rank], 0);
        if (puts > 0 && !is_trial(&region->memory) &&
            is_alive(atomic_load(&tp->registry->pids[rank])))
            die(tp, "the region at %p goes, and %u puts of rank %u into it were not flushed",
                region->memory.address, puts, rank);
    }
    if (region->busy > 0)
        die(tp, "the region at %p goes, and %u puts from it are under way", region->memory.address,
            region->busy);
    if (tp->pin && !is_trial(&region->memory))
        check_pages(region);
    tp->ops->mem_deregister(region->inner);
    tp->regions--;
    tp->registered -= region->memory.length;
    free(region);
}

static iso_status_t rkey_pack(iso_region_t *region, void *buf, size_t *len_p)
{
    rkey_blob_t blob = {.id = atomic_load(&region->tp->registry->entries[region->entry].id),
                        .entry = region->entry};
    size_t len = *len_p - sizeof blob;
    const iso_status_t status =
        region->tp->ops->rkey_pack(region->inner, (char *)buf + sizeof blob, &len);
    blob.len = (uint32_t)len;
    memcpy(buf, &blob, sizeof blob);
    if (status == ISO_OK)
        *len_p = len + sizeof blob;
    return status;
}

static iso_status_t rkey_unpack(iso_endpoint_t *ep, const void *buf, size_t len,
                                iso_rkey_t **rkey_p)
{
    rkey_blob_t blob;
    if (len < sizeof blob)
        return ISO_ERR_INVALID;
    memcpy(&blob, buf, sizeof blob);
    iso_rkey_t *rkey = calloc(1, sizeof *rkey);
    if (rkey == NULL)
        return ISO_ERR_NO_MEMORY;
    const iso_status_t status = ep->tp->ops->rkey_unpack(ep->inner, (const char *)buf + sizeof blob,
                                                         len - sizeof blob, &rkey->inner);
    if (status != ISO_OK) {
        free(rkey);
        return status;
    }
    rkey->tp = ep->tp;
    rkey->id = blob.id;
    rkey->entry = blob.entry;
    *rkey_p = rkey;
    return ISO_OK;
}

static void rkey_destroy(iso_rkey_t *rkey)
{
    for (const op_t *op = rkey->tp->ops_under_way; op != NULL; op = op->next)
        if (op->rkey == rkey)
            die(rkey->tp, "a key goes, and a put with it is under way");
    rkey->tp->ops->rkey_destroy(rkey->inner);
    free(rkey);
}

/* ---- puts ------------------------------------------------------------------------------------ */

static bool inside(uint64_t start, uint64_t length, uint64_t at, size_t len)
{
    return at >= start && at - start <= length && len <= length - (at - start);
}

/* Would the device let it? */
static void check_key(const op_t *op)
{
    const iso_transport_t *tp = op->ep->tp;
    if (atomic_load(&op->entry->id) == op->rkey->id &&
        inside(op->entry->address, op->entry->length, op->remote, op->len))
        return;
    if (is_alive(atomic_load(&tp->registry->pids[op->ep->rank])))
        die(tp,
            "a put of %zu bytes to %#" PRIx64
            " of rank %u: its key is of a registration that is gone",
            op->len, op->remote, op->ep->rank);
}

static op_t *op_new(iso_endpoint_t *ep, iso_completion_t *outer)
{
    op_t **at = &ep->tp->ops_under_way, *op = calloc(1, sizeof *op);
    if (op == NULL)
        die(ep->tp, "no memory");
    op->ep = ep;
    op->outer = outer;
    op->number = ++ep->numbered;
    while (*at != NULL)
        at = &(*at)->next;
    *at = op;
    return op;
}

static void unlink_op(op_t *op)
{
    op_t **at = &op->ep->tp->ops_under_way;
    while (*at != op)
        at = &(*at)->next;
    *at = op->next;
}

static iso_status_t put(iso_endpoint_t *ep, const void *src, size_t len, iso_region_t *region,
                        uint64_t remote, iso_rkey_t *rkey, iso_completion_t *completion)
{
    iso_transport_t *tp = ep->tp;
    if (region == NULL ||
        !inside((uintptr_t)region->memory.address, region->memory.length, (uintptr_t)src, len))
        die(tp, "a put of %zu bytes from %p, which is not in its region", len, src);
    if (rkey == NULL)
        die(tp, "a put without a key");
    op_t *op = op_new(ep, completion);
    op->src = src;
    op->len = len;
    op->region = region;
    op->remote = remote;
    op->rkey = rkey;
    op->entry = &ep->registry->entries[rkey->entry];
    tp->random = tp->random * 1664525u + 1013904223u;
    op->turns = (tp->random >> 16) % LATE_TURNS;
    atomic_fetch_add(&op->entry->puts[tp->host.rank], 1);
    region->busy++;
    check_key(op);
    return ISO_INPROGRESS;
}

static iso_status_t fence(iso_endpoint_t *ep)
{
    (void)ep;
    return ISO_ERR_INVALID;
}

static iso_status_t flush(iso_endpoint_t *ep, iso_completion_t *completion)
{
    op_t *op = op_new(ep, completion);
    op->is_flush = true;
    return ISO_INPROGRESS;
}

static void flushed(iso_endpoint_t *ep, uint64_t before)
{
    for (op_t **at = &ep->unflushed; *at != NULL;) {
        op_t *op = *at;
        if (op->number > before) {
            at = &op->next;
            continue;
        }
        /* a region that went was checked then, and counts anew */
        if (atomic_load(&op->entry->puts[ep->tp->host.rank]) > 0)
            atomic_fetch_sub(&op->entry->puts[ep->tp->host.rank], 1);
        *at = op->next;
        free(op);
    }
}

static void end(op_t *op, iso_status_t status)
{
    iso_completion_t *outer = op->outer;
    iso_endpoint_t *ep = op->ep;
    unlink_op(op);
    if (op->is_flush) {
        if (status == ISO_OK)
            flushed(ep, op->number);
        free(op);
    } else {
        op->region->busy--;
        op->rkey = NULL;
        op->next = ep->unflushed;
        ep->unflushed = op;
    }
    outer->fn(outer, status);
}

static void on_end(iso_completion_t *completion, iso_status_t status)
{
    end((op_t *)completion, status);
}

/* A flush goes after all that came before it. */
static bool is_next(const op_t *flush_op)
{
    for (const op_t *op = flush_op->ep->tp->ops_under_way; op != flush_op; op = op->next)
        if (op->ep == flush_op->ep && !op->is_flush)
            return false;
    return true;
}

static bool give(op_t *op)
{
    const iso_transport_ops_t *ops = op->ep->tp->ops;
    iso_status_t status;
    op->completion.fn = on_end;
    if (op->is_flush) {
        status = ops->flush(op->ep->inner, &op->completion);
    } else {
        check_key(op);
        status = ops->put(op->ep->inner, op->src, op->len, op->region->inner, op->remote,
                          op->rkey->inner, &op->completion);
    }
    if (status == ISO_ERR_AGAIN)
        return false;
    op->given = true;
    if (status != ISO_INPROGRESS)
        end(op, status);
    return true;
}

static unsigned give_next(iso_transport_t *tp)
{
    for (op_t *op = tp->ops_under_way; op != NULL; op = op->next) {
        if (op->given || (op->is_flush && !is_next(op)))
            continue;
        if (op->turns > 0) {
            op->turns--;
            continue;
        }
        if (give(op))
            return 1; /* the list may have changed */
    }
    return 0;
}

static iso_status_t send_message(iso_endpoint_t *ep, const void *data, size_t len)
{
    return ep->tp->ops->send(ep->inner, data, len);
}

static bool has_ungiven(const iso_transport_t *tp)
{
    for (const op_t *op = tp->ops_under_way; op != NULL; op = op->next)
        if (!op->given)
            return true;
    return false;
}

static unsigned progress(iso_transport_t *tp)
{
    unsigned events = tp->ops->progress(tp->inner);
    while (give_next(tp) > 0)
        events++;
    return events;
}

static int event_fd(iso_transport_t *tp)
{
    return tp->ops->event_fd(tp->inner);
}

static iso_status_t arm(iso_transport_t *tp)
{
    return has_ungiven(tp) ? ISO_ERR_BUSY : tp->ops->arm(tp->inner);
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
    .arm = arm,
};
