/* fuzz_transport.c - see fuzz_transport.h. Its puts go nowhere, but must lie in the peer's region; for
 * half of them there is no room at first. */
#include "fuzz_transport.h"
#include <stdlib.h>
#include <string.h>

struct iso_transport {
    const iso_transport_host_t *host;
};
struct iso_endpoint {
    uint32_t rank;
};
struct iso_region {
    iso_memory_t memory;
};
struct iso_rkey {
    uint64_t address, length;
};

typedef struct message {
    struct message *next;
    uint32_t source;
    size_t len;
    unsigned char data[];
} message_t;

#define RANKS 4
#define SLOT_SHIFT 21

typedef struct landing { /* slots that were put into since the last flush */
    uint64_t slots[64];
    unsigned count;
} landing_t;

static message_t *first, **last = &first;
static fuzz_sent_fn listener;
static landing_t landings[RANKS];
static unsigned puts;

ISO_API void fuzz_push(uint32_t source, const void *data, size_t len);
ISO_API void fuzz_listen(fuzz_sent_fn sent);
ISO_API bool fuzz_unflushed(uint32_t rank, uint64_t heap);

void fuzz_push(uint32_t source, const void *data, size_t len)
{
    message_t *message = malloc(sizeof *message + len);
    message->next = NULL;
    message->source = source;
    message->len = len;
    memcpy(message->data, data, len);
    *last = message;
    last = &message->next;
}

void fuzz_listen(fuzz_sent_fn sent)
{
    listener = sent;
}

bool fuzz_unflushed(uint32_t rank, uint64_t heap)
{
    for (unsigned i = 0; rank < RANKS && i < landings[rank].count; i++)
        if (landings[rank].slots[i] == heap >> SLOT_SHIFT)
            return true;
    return false;
}

static message_t *pop(void)
{
    message_t *message = first;
    if (message) {
        first = message->next;
        if (!first)
            last = &first;
    }
    return message;
}

static iso_status_t fuzz_probe(const char **why_p)
{
    (void)why_p;
    return ISO_OK;
}

static iso_status_t fuzz_open(const iso_transport_host_t *host, iso_transport_t **tp_p)
{
    iso_transport_t *tp = calloc(1, sizeof *tp);
    tp->host = host;
    memset(landings, 0, sizeof landings);
    puts = 0;
    *tp_p = tp;
    return ISO_OK;
}

static void fuzz_close(iso_transport_t *tp)
{
    for (message_t *message; (message = pop()) != NULL;)
        free(message);
    free(tp);
}

static void fuzz_query(iso_transport_t *tp, iso_transport_caps_t *caps_p)
{
    (void)tp;
    *caps_p = (iso_transport_caps_t){.struct_size = sizeof *caps_p,
                                     .one_sided = true,
                                     .max_send = ISO_TRANSPORT_MIN_SEND,
                                     .max_put = 4096, /* several puts a heap */
                                     .description = "the fuzzer"};
}

static iso_status_t fuzz_address(iso_transport_t *tp, void *buf, size_t *len_p)
{
    (void)tp;
    memcpy(buf, "f", 1);
    *len_p = 1;
    return ISO_OK;
}

static iso_status_t fuzz_connect(iso_transport_t *tp, uint32_t rank, const void *address,
                                 size_t len, iso_endpoint_t **ep_p)
{
    (void)tp;
    (void)address;
    (void)len;
    iso_endpoint_t *ep = calloc(1, sizeof *ep);
    ep->rank = rank;
    *ep_p = ep;
    return ISO_OK;
}

static void fuzz_disconnect(iso_endpoint_t *ep)
{
    free(ep);
}

static iso_status_t fuzz_register(iso_transport_t *tp, const iso_memory_t *memory,
                                  iso_region_t **region_p)
{
    (void)tp;
    iso_region_t *region = calloc(1, sizeof *region);
    region->memory = *memory;
    *region_p = region;
    return ISO_OK;
}

static void fuzz_deregister(iso_region_t *region)
{
    free(region);
}

static iso_status_t fuzz_rkey_pack(iso_region_t *region, void *buf, size_t *len_p)
{
    const iso_rkey_t key = {(uintptr_t)region->memory.address, region->memory.length};
    memcpy(buf, &key, sizeof key);
    *len_p = sizeof key;
    return ISO_OK;
}

static iso_status_t fuzz_rkey_unpack(iso_endpoint_t *ep, const void *buf, size_t len,
                                     iso_rkey_t **rkey_p)
{
    (void)ep;
    if (len != sizeof(iso_rkey_t))
        return ISO_ERR_INVALID;
    iso_rkey_t *rkey = calloc(1, sizeof *rkey);
    memcpy(rkey, buf, len);
    *rkey_p = rkey;
    return ISO_OK;
}

static void fuzz_rkey_destroy(iso_rkey_t *rkey)
{
    free(rkey);
}

static volatile unsigned char sink;

static iso_status_t fuzz_put(iso_endpoint_t *ep, const void *src, size_t len, iso_region_t *region,
                             uint64_t remote, iso_rkey_t *rkey, iso_completion_t *completion)
{
    (void)completion;
    const uint64_t base = (uintptr_t)region->memory.address;
    if ((uintptr_t)src != remote || (uintptr_t)src - base >= region->memory.length ||
        len > region->memory.length - ((uintptr_t)src - base))
        abort();
    (void)rkey; /* the fuzzer chose it: nothing to hold it against */
    if (puts++ % 8 >= 4)
        return ISO_ERR_AGAIN;
    sink = *(const volatile unsigned char *)src;
    landing_t *landing = &landings[ep->rank % RANKS];
    if (landing->count < sizeof landing->slots / sizeof *landing->slots)
        landing->slots[landing->count++] = remote >> SLOT_SHIFT;
    return ISO_OK;
}

static iso_status_t fuzz_fence(iso_endpoint_t *ep)
{
    (void)ep;
    return ISO_OK;
}

static iso_status_t fuzz_flush(iso_endpoint_t *ep, iso_completion_t *completion)
{
    (void)completion;
    landings[ep->rank % RANKS].count = 0;
    return ISO_OK;
}

static iso_status_t fuzz_send(iso_endpoint_t *ep, const void *data, size_t len)
{
    if (listener)
        listener(ep->rank, data, len);
    return ISO_OK;
}

static unsigned fuzz_progress(iso_transport_t *tp)
{
    unsigned events = 0;
    for (message_t *message; (message = pop()) != NULL; events++) {
        tp->host->message(tp->host->arg, message->source, message->data, message->len);
        free(message);
    }
    return events;
}

static int fuzz_event_fd(iso_transport_t *tp)
{
    (void)tp;
    return -1;
}

static iso_status_t fuzz_arm(iso_transport_t *tp)
{
    (void)tp;
    return first ? ISO_ERR_BUSY : ISO_OK;
}

extern ISO_API const iso_transport_ops_t iso_transport_module;
const iso_transport_ops_t iso_transport_module = {
    .abi_version = ISO_TRANSPORT_ABI,
    .struct_size = sizeof(iso_transport_ops_t),
    .name = "fuzz",
    .probe = fuzz_probe,
    .open = fuzz_open,
    .close = fuzz_close,
    .query = fuzz_query,
    .address = fuzz_address,
    .connect = fuzz_connect,
    .disconnect = fuzz_disconnect,
    .mem_register = fuzz_register,
    .mem_deregister = fuzz_deregister,
    .rkey_pack = fuzz_rkey_pack,
    .rkey_unpack = fuzz_rkey_unpack,
    .rkey_destroy = fuzz_rkey_destroy,
    .put = fuzz_put,
    .fence = fuzz_fence,
    .flush = fuzz_flush,
    .send = fuzz_send,
    .progress = fuzz_progress,
    .event_fd = fuzz_event_fd,
    .arm = fuzz_arm,
};
