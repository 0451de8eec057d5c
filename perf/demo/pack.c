/* pack.c - what programs do without isomalloc, for comparison: see index_pack_copy_unpack. */
#include "index.h"
#include <stdlib.h>
#include <string.h>

typedef struct buffer {
    char *bytes;
    size_t length, room;
} buffer_t;

static bool append(buffer_t *buffer, const void *data, size_t length)
{
    if (buffer->length + length > buffer->room) {
        size_t room = (buffer->length + length) * 2;
        char *bytes = realloc(buffer->bytes, room);
        if (!bytes)
            return false;
        buffer->bytes = bytes;
        buffer->room = room;
    }
    memcpy(buffer->bytes + buffer->length, data, length);
    buffer->length += length;
    return true;
}

/* length, text, number of places, lines, number of children, children */
static bool pack(buffer_t *buffer, const node_t *node)
{
    uint32_t places = 0, children = 0;
    for (const place_t *place = node->places; place; place = place->next)
        places++;
    for (const node_t *child = node->child; child; child = child->next)
        children++;
    bool good = append(buffer, &node->length, sizeof node->length) &&
                append(buffer, node->text, node->length) && append(buffer, &places, sizeof places);
    for (const place_t *place = node->places; good && place; place = place->next)
        good = append(buffer, &place->line, sizeof place->line);
    good = good && append(buffer, &children, sizeof children);
    for (const node_t *child = node->child; good && child; child = child->next)
        good = pack(buffer, child);
    return good;
}

static uint32_t take(const char **at)
{
    uint32_t value;
    memcpy(&value, *at, sizeof value);
    *at += sizeof value;
    return value;
}

static node_t *unpack(iso_heap_t *heap, index_t *index, node_t *parent, const char **at)
{
    uint32_t length = take(at);
    node_t *node = iso_malloc(heap, sizeof *node + length);
    if (!node)
        return NULL;
    *node = (node_t){.parent = parent, .length = length};
    memcpy(node->text, *at, length);
    *at += length;
    index->nodes++;
    place_t **place_end = &node->places;
    for (uint32_t places = take(at); places > 0; places--, index->places++) {
        place_t *place = iso_malloc(heap, sizeof *place);
        if (!place)
            return NULL;
        *place = (place_t){NULL, take(at)};
        *place_end = place;
        place_end = &place->next;
    }
    node_t **child_end = &node->child;
    for (uint32_t children = take(at); children > 0; children--) {
        *child_end = unpack(heap, index, node, at);
        if (!*child_end)
            return NULL;
        child_end = &(*child_end)->next;
    }
    return node;
}

bool index_pack_copy_unpack(iso_job_t *job, const index_t *index, const summary_t *expected,
                            double *seconds_p, uint64_t *bytes_p)
{
    iso_heap_t *heap;
    buffer_t buffer = {NULL, 0, 0};
    index_t copy = {.nodes = 0};
    if (iso_heap_create(job, &heap) != ISO_OK)
        return false;
    double start = demo_now();
    bool good = pack(&buffer, index->root);
    char *wire = good ? malloc(buffer.length) : NULL;
    good = wire != NULL;
    if (good) {
        memcpy(wire, buffer.bytes, buffer.length);
        const char *at = wire;
        copy.root = unpack(heap, &copy, NULL, &at);
        good = copy.root != NULL;
    }
    *seconds_p = demo_now() - start;
    *bytes_p = buffer.length;
    if (good) {
        summary_t found = index_check(heap, &copy);
        good = !found.fault && found.checksum == expected->checksum;
    }
    free(wire);
    free(buffer.bytes);
    return iso_heap_destroy(heap) == ISO_OK && good;
}
