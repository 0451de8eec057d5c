/*
 * port.h - a transport of the program's own, opened through the table of its module as the library does,
 * beside the job's: what puts and registrations cost without heaps.
 */
#ifndef ISO_PERFTEST_PORT_H
#define ISO_PERFTEST_PORT_H

#include "pair.h"
#include <isomalloc/transport.h>

typedef struct port {
    pair_t *pair;
    void *module; /* of dlopen */
    const iso_transport_ops_t *ops;
    iso_transport_host_t host;
    iso_transport_t *tp;
    iso_transport_caps_t caps;

    iso_memory_t memory; /* registered as `region`, for port_connect */
    iso_region_t *region;
    iso_endpoint_t *ep; /* to the peer, with what it takes to put into its memory */
    iso_rkey_t *rkey;
    uint64_t remote;
    unsigned turns;
} port_t;

/* Opens the module of that name. Ends the process where that fails. */
void port_open(port_t *port, pair_t *pair, const char *name);
void port_close(port_t *port);

/* Memory of a memory object, which is mapped and holds nothing yet; and gives it back. */
void port_map(iso_memory_t *memory, size_t length);
void port_unmap(const iso_memory_t *memory);

/* Registers `length` bytes here, and connects to the peer's, which does the same. */
void port_connect(port_t *port, size_t length);
/* Both ranks: when neither puts any more. */
void port_disconnect(port_t *port);

/* Progress of the transport; arg is a port_t *, as pair_exchange wants it. */
void port_turn(void *arg);
/* One turn of a wait: the same, and now and then pair_turn. */
void port_wait(port_t *port);

#endif
