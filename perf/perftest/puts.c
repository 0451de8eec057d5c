/*
 * puts.c - tests of a transport alone, through its table: put_lat, put_bw, register.
 */
#include "options.h"
#include "port.h"
#include "table.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A put under way. The buffers of each are its own, at the same place in the peer's memory. */
typedef struct slot {
    iso_completion_t completion;
    bool busy;
} slot_t;

static void on_end(iso_completion_t *completion, iso_status_t status)
{
    slot_t *slot = (slot_t *)completion;
    pair_check(status, "a put");
    slot->busy = false;
}

static void wait_slot(port_t *port, const slot_t *slot)
{
    while (slot->busy)
        port_wait(port);
}

/* Waits while the transport has no room. */
static void put(port_t *port, slot_t *slot, const void *from, size_t len, uint64_t to)
{
    iso_status_t status;
    slot->completion.fn = on_end;
    slot->busy = true;
    while ((status = port->ops->put(port->ep, from, len, port->region, to, port->rkey,
                                    &slot->completion)) == ISO_ERR_AGAIN)
        port_turn(port);
    if (status == ISO_OK)
        slot->busy = false;
    else if (status != ISO_INPROGRESS)
        pair_fail("a put", status);
}

/* All puts are remotely complete after it. */
static void flush(port_t *port)
{
    slot_t slot = {.completion.fn = on_end, .busy = true};
    iso_status_t status;
    while ((status = port->ops->flush(port->ep, &slot.completion)) == ISO_ERR_AGAIN)
        port_turn(port);
    if (status == ISO_OK)
        slot.busy = false;
    else if (status != ISO_INPROGRESS)
        pair_fail("a flush", status);
    wait_slot(port, &slot);
}

static void port_begin(port_t *port, pair_t *pair, const plan_t *plan, table_t *table,
                       const char *job_transport, size_t length)
{
    port_open(port, pair, strcmp(job_transport, "none") == 0 ? "loopback" : job_transport);
    table->transport = port->ops->name;
    if (plan->size > port->caps.max_put) {
        fprintf(stderr, "iso_perftest: -s %zu: the longest put of transport %s is %zu\n",
                plan->size, port->ops->name, port->caps.max_put);
        exit(2);
    }
    port_connect(port, length);
    table_note(table, "transport %s: %s; puts are %s", port->ops->name,
               port->caps.description ? port->caps.description : "",
               port->caps.one_sided ? "one-sided" : "done with the target's processor");
}

/* ---- latency ---- */

/* Rank 0 puts a number, and rank 1 the same when it has come. The number is a put's last byte, never 0. */
static double ping_pong(port_t *port, size_t size, size_t turn)
{
    unsigned char number = (unsigned char)(1 + turn % 255), *source = port->memory.address;
    const volatile unsigned char *landing = source + size;
    slot_t slot;
    double start = table_now();
    source[size - 1] = number;
    if (port->pair->first)
        put(port, &slot, source, size, port->remote + size);
    while (landing[size - 1] != number)
        port_wait(port);
    if (!port->pair->first)
        put(port, &slot, source, size, port->remote + size);
    double seconds = table_now() - start;
    wait_slot(port, &slot);
    return seconds / 2;
}

/* Each waits for the last byte of the other's put, as ucx_perftest does; half of the round trip. */
void test_put_lat(pair_t *pair, const plan_t *plan, table_t *table)
{
    port_t port;
    series_t cold, series;
    port_begin(&port, pair, plan, table, iso_transport_name(pair->job), 2 * plan->size);
    size_t turn = 0;
    series_open(&cold, table, 1, plan->size);
    series_open(&series, table, plan->iterations, plan->size);
    series_add(&cold, ping_pong(&port, plan->size, turn++), 1, false);
    series_row(&cold, "Cold", false);
    for (size_t i = 0; i < plan->warm_up; i++)
        ping_pong(&port, plan->size, turn++);
    for (size_t i = 0; i < plan->iterations; i++)
        series_add(&series, ping_pong(&port, plan->size, turn++), 1, true);
    series_row(&series, "Final", true);
    series_close(&cold);
    series_close(&series);
    port_disconnect(&port);
    port_close(&port);
}

/* ---- bandwidth ---- */

typedef struct stream {
    port_t *port;
    slot_t *slots;
    size_t count, size, next;
} stream_t;

static void stream_one(stream_t *stream)
{
    port_t *port = stream->port;
    size_t i = stream->next, offset = i * stream->size;
    stream->next = (i + 1) % stream->count;
    wait_slot(port, &stream->slots[i]);
    put(port, &stream->slots[i], (const char *)port->memory.address + offset, stream->size,
        port->remote + offset);
}

static void stream_end(stream_t *stream)
{
    for (size_t i = 0; i < stream->count; i++)
        wait_slot(stream->port, &stream->slots[i]);
    flush(stream->port);
}

/* From rank 0 to rank 1, -O at a time. The last of it is remotely complete within the time. */
static void stream_all(stream_t *stream, const plan_t *plan, table_t *table)
{
    series_t cold, series;
    series_open(&cold, table, 1, plan->size);
    series_open(&series, table, plan->iterations, plan->size);
    unsigned since = 0; /* the last sample, which is of as many as are in flight */
    double start = table_now(), last;
    stream_one(stream);
    stream_end(stream);
    series_add(&cold, table_now() - start, 1, false);
    series_row(&cold, "Cold", false);
    for (size_t i = 0; i < plan->warm_up; i++)
        stream_one(stream);
    stream_end(stream);
    last = table_now();
    for (size_t i = 0; i < plan->iterations; i++) {
        stream_one(stream);
        if (++since == stream->count || i + 1 == plan->iterations) {
            double now = table_now();
            series_add(&series, now - last, since, true);
            last = now;
            since = 0;
        }
    }
    stream_end(stream);
    series_add_time(&series, table_now() - last);
    series_row(&series, "Final", true);
    series_close(&cold);
    series_close(&series);
}

void test_put_bw(pair_t *pair, const plan_t *plan, table_t *table)
{
    port_t port;
    char mine = 0, theirs;
    stream_t stream = {.port = &port, .count = plan->outstanding, .size = plan->size};
    stream.slots = calloc(stream.count, sizeof *stream.slots);
    if (!stream.slots)
        pair_fail("the puts in flight", ISO_ERR_NO_MEMORY);
    port_begin(&port, pair, plan, table, iso_transport_name(pair->job), stream.count * plan->size);
    if (pair->first)
        memset(port.memory.address, 1, stream.count * plan->size);
    pair_exchange(pair, &mine, &theirs, 1, port_turn, &port);
    if (pair->first)
        stream_all(&stream, plan, table);
    pair_exchange(pair, &mine, &theirs, 1, port_turn, &port); /* rank 1 makes progress in it */
    for (size_t i = 0; !pair->first && i < plan->size; i++)
        if (((const char *)port.memory.address)[i] != 1) {
            fprintf(stderr, "iso_perftest: WRONG CONTENTS after puts, at byte %zu\n", i);
            exit(1);
        }
    free(stream.slots);
    port_disconnect(&port);
    port_close(&port);
}

/* ---- registration ---- */

/* Bytes that the kernel counts as pinned by this process. */
static double pinned(void)
{
    char line[256];
    double bytes = 0;
    unsigned long kib;
    FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmPin: %lu kB", &kib) == 1)
            bytes = (double)kib * 1024;
    if (status)
        fclose(status);
    return bytes;
}

typedef struct costs {
    series_t in, out;
    double pinned; /* by the last one */
} costs_t;

static void costs_open(costs_t *costs, table_t *table, size_t room)
{
    series_open(&costs->in, table, room, table->bytes);
    series_open(&costs->out, table, room, table->bytes);
}

static void costs_close(costs_t *costs)
{
    series_close(&costs->in);
    series_close(&costs->out);
}

static void register_once(port_t *port, const iso_memory_t *memory, costs_t *costs)
{
    iso_region_t *region;
    double before = pinned(), start = table_now();
    pair_check(port->ops->mem_register(port->tp, memory, &region), "registering memory");
    double registered = table_now();
    costs->pinned = pinned() - before;
    double leaving = table_now();
    port->ops->mem_deregister(region);
    series_add(&costs->in, registered - start, 1, false);
    series_add(&costs->out, table_now() - leaving, 1, false);
}

/* Of memory that nobody has touched, new each time, and of the same memory over and over. */
static void measure_registration(port_t *port, const plan_t *plan, table_t *table)
{
    iso_memory_t memory;
    costs_t cold, warm_up, warm;
    costs_open(&cold, table, plan->iterations);
    costs_open(&warm_up, table, plan->warm_up);
    costs_open(&warm, table, plan->iterations);
    for (size_t i = 0; i < plan->iterations; i++) {
        port_map(&memory, plan->size);
        register_once(port, &memory, &cold);
        port_unmap(&memory);
    }
    port_map(&memory, plan->size);
    memset(memory.address, 1, plan->size);
    for (size_t i = 0; i < plan->warm_up; i++)
        register_once(port, &memory, &warm_up);
    for (size_t i = 0; i < plan->iterations; i++)
        register_once(port, &memory, &warm);
    port_unmap(&memory);
    series_row(&cold.in, "Untouched", false);
    series_row(&cold.out, "Deregister", false);
    series_row(&warm.out, "Deregister", false);
    series_row(&warm.in, "Final", true);
    table_result(
        table, "pinned bytes %.0f of %zu untouched, %.0f resident; the transport %s memory",
        cold.pinned, plan->size, warm.pinned, port->caps.pins_memory ? "pins" : "does not pin");
    costs_close(&cold);
    costs_close(&warm_up);
    costs_close(&warm);
}

void test_register(pair_t *pair, const plan_t *plan, table_t *table)
{
    port_t port;
    const char *name = iso_transport_name(pair->job);
    if (strcmp(name, "none") == 0) /* a job of one rank has no transport */
        name = strcmp(pair->params.transport, "auto") == 0 ? "loopback" : pair->params.transport;
    port_open(&port, pair, name);
    table->transport = port.ops->name;
    table_note(table, "transport %s: %s", port.ops->name,
               port.caps.description ? port.caps.description : "");
    if (pair->first)
        measure_registration(&port, plan, table);
    port_close(&port);
}
