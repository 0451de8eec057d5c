/* port.c - see port.h. */
#include "port.h"
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define TURNS_A_PAIR 1000 /* of port_wait */

/* ---- the module ---- */

typedef struct wanted {
    const char *name;
    char path[PATH_MAX]; /* "": not found yet */
    char others[256];    /* names of those that are there */
} wanted_t;

static void look_at(const iso_module_info_t *info, void *arg)
{
    wanted_t *wanted = arg;
    size_t used = strlen(wanted->others);
    if (strcmp(info->kind, "transport") != 0)
        return;
    snprintf(wanted->others + used, sizeof wanted->others - used, " %s", info->name);
    if (strcmp(info->name, wanted->name) != 0 || wanted->path[0])
        return;
    if (!info->usable) {
        fprintf(stderr, "iso_perftest: transport %s cannot be used here: %s\n", info->name,
                info->why);
        exit(1);
    }
    snprintf(wanted->path, sizeof wanted->path, "%s", info->path);
}

static void on_message(void *arg, uint32_t source, const void *data, size_t len)
{
    (void)arg, (void)source, (void)data, (void)len;
}

static void on_failure(void *arg, uint32_t rank, iso_failure_t failure)
{
    (void)arg, (void)rank, (void)failure;
    pair_fail("the transport lost the other rank", ISO_ERR_UNREACHABLE);
}

static void on_log(void *arg, iso_log_level_t level, const char *text)
{
    const port_t *port = arg;
    if (level <= port->pair->params.log_level)
        fprintf(stderr, "iso_perftest: %s: %s\n", port->ops->name, text);
}

void port_open(port_t *port, pair_t *pair, const char *name)
{
    wanted_t wanted = {.name = name};
    unsigned char cookie[16], theirs[16];
    iso_modules(&pair->params, look_at, &wanted);
    if (!wanted.path[0]) {
        fprintf(stderr, "iso_perftest: no transport module %s; there are:%s (ISO_MODULE_PATH)\n",
                name, *wanted.others ? wanted.others : " none");
        exit(1);
    }
    *port = (port_t){.pair = pair, .module = dlopen(wanted.path, RTLD_NOW | RTLD_LOCAL)};
    port->ops = port->module ? dlsym(port->module, ISO_TRANSPORT_MODULE_SYMBOL) : NULL;
    if (!port->ops) {
        fprintf(stderr, "iso_perftest: %s\n", dlerror());
        exit(1);
    }
    /* rank 0's, so that the two instances are of one job */
    if (getrandom(cookie, sizeof cookie, 0) != sizeof cookie)
        pair_fail("getrandom", ISO_ERR_SYSTEM);
    uint32_t size = iso_size(pair->job);
    if (size > 1)
        pair_exchange(pair, cookie, theirs, sizeof cookie, NULL, NULL);
    port->host = (iso_transport_host_t){.struct_size = sizeof port->host,
                                        .rank = iso_rank(pair->job),
                                        .size = size,
                                        .arg = port,
                                        .message = on_message,
                                        .peer_failed = on_failure,
                                        .log = on_log};
    memcpy(port->host.cookie, pair->first ? cookie : theirs, sizeof port->host.cookie);
    pair_check(port->ops->open(&port->host, &port->tp), "opening the transport");
    port->caps.struct_size = sizeof port->caps;
    port->ops->query(port->tp, &port->caps);
}

void port_close(port_t *port)
{
    port->ops->close(port->tp);
    dlclose(port->module);
}

void port_turn(void *arg)
{
    const port_t *port = arg;
    port->ops->progress(port->tp);
}

void port_wait(port_t *port)
{
    port_turn(port);
    if (++port->turns % TURNS_A_PAIR == 0)
        pair_turn(port->pair);
}

/* ---- memory ---- */

void port_map(iso_memory_t *memory, size_t length)
{
    int fd = memfd_create("iso_perftest", MFD_CLOEXEC);
    void *map = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)length) == 0)
        map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        perror("iso_perftest: memory to register");
        exit(1);
    }
    *memory = (iso_memory_t){map, length, fd, 0};
}

void port_unmap(const iso_memory_t *memory)
{
    munmap(memory->address, memory->length);
    close(memory->fd);
}

/* ---- the way to the peer ---- */

typedef struct card {
    uint32_t address_len, rkey_len;
    uint64_t memory;
    unsigned char rkey[ISO_TRANSPORT_RKEY_MAX];
} card_t;
#define ADDRESS_PART (ISO_TRANSPORT_ADDRESS_MAX / 2)
_Static_assert(sizeof(card_t) <= ISO_HEADER_MAX && ADDRESS_PART <= ISO_HEADER_MAX &&
                   ADDRESS_PART * 2 == ISO_TRANSPORT_ADDRESS_MAX,
               "they travel in headers");

void port_connect(port_t *port, size_t length)
{
    const iso_transport_ops_t *ops = port->ops;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    card_t mine = {0}, theirs;
    unsigned char address[ISO_TRANSPORT_ADDRESS_MAX] = {0}, to[ISO_TRANSPORT_ADDRESS_MAX];
    size_t address_len = sizeof address, rkey_len = sizeof mine.rkey;
    port_map(&port->memory, (length + page - 1) / page * page);
    memset(port->memory.address, 0, port->memory.length);
    pair_check(ops->mem_register(port->tp, &port->memory, &port->region), "registering memory");
    pair_check(ops->address(port->tp, address, &address_len), "the transport's address");
    pair_check(ops->rkey_pack(port->region, mine.rkey, &rkey_len), "packing the rkey");
    mine.address_len = (uint32_t)address_len;
    mine.rkey_len = (uint32_t)rkey_len;
    mine.memory = (uintptr_t)port->memory.address;
    pair_exchange(port->pair, &mine, &theirs, sizeof mine, port_turn, port);
    for (size_t at = 0; at < sizeof address; at += ADDRESS_PART)
        pair_exchange(port->pair, address + at, to + at, ADDRESS_PART, port_turn, port);
    pair_check(ops->connect(port->tp, port->pair->peer, to, theirs.address_len, &port->ep),
               "connecting the transport");
    pair_check(ops->rkey_unpack(port->ep, theirs.rkey, theirs.rkey_len, &port->rkey),
               "unpacking the rkey");
    port->remote = theirs.memory;
}

void port_disconnect(port_t *port)
{
    char mine = 0, theirs;
    pair_exchange(port->pair, &mine, &theirs, 1, port_turn, port); /* both are at the end */
    port->ops->rkey_destroy(port->rkey);
    port->ops->disconnect(port->ep);
    port->ops->mem_deregister(port->region);
    port_unmap(&port->memory);
}
