/* index.c - see index.h. */
#include "index.h"
#include <string.h>
#include <time.h>

double demo_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static node_t *node_new(iso_heap_t *heap, index_t *index, node_t *parent, const char *text,
                        uint32_t length)
{
    node_t *node = iso_malloc(heap, sizeof *node + length);
    if (!node)
        return NULL;
    *node = (node_t){.parent = parent, .length = length};
    if (length > 0)
        memcpy(node->text, text, length);
    index->nodes++;
    return node;
}

index_t *index_create(iso_heap_t *heap)
{
    index_t *index = iso_calloc(heap, 1, sizeof *index);
    if (!index)
        return NULL;
    index->root = node_new(heap, index, NULL, "", 0);
    return index->root ? index : NULL;
}

static node_t *child_with(const node_t *node, char first)
{
    node_t *child = node->child;
    while (child && child->text[0] != first)
        child = child->next;
    return child;
}

static uint32_t common(const node_t *node, const char *word, uint32_t length)
{
    uint32_t i = 0;
    while (i < node->length && i < length && node->text[i] == word[i])
        i++;
    return i;
}

/* The node keeps the first `at` bytes of its text; the rest goes to a new child. */
static bool split(iso_heap_t *heap, index_t *index, node_t *node, uint32_t at)
{
    node_t *rest = node_new(heap, index, node, node->text + at, node->length - at);
    if (!rest)
        return false;
    rest->child = node->child;
    rest->places = node->places;
    for (node_t *child = rest->child; child; child = child->next)
        child->parent = rest;
    node->child = rest;
    node->places = NULL;
    node->length = at;
    return true;
}

bool index_add(iso_heap_t *heap, index_t *index, const char *word, uint32_t length, uint32_t line)
{
    node_t *node = index->root;
    while (length > 0) {
        node_t *child = child_with(node, word[0]);
        if (!child) {
            child = node_new(heap, index, node, word, length);
            if (!child)
                return false;
            child->next = node->child;
            node->child = child;
        }
        uint32_t same = common(child, word, length);
        if (same < child->length && !split(heap, index, child, same))
            return false;
        word += same;
        length -= same;
        node = child;
    }
    place_t *place = iso_malloc(heap, sizeof *place);
    if (!place)
        return false;
    *place = (place_t){node->places, line};
    node->places = place;
    index->places++;
    return true;
}

const node_t *index_find(const index_t *index, const char *word, uint32_t length)
{
    const node_t *node = index->root;
    while (length > 0) {
        node = child_with(node, word[0]);
        if (!node || common(node, word, length) < node->length)
            return NULL;
        word += node->length;
        length -= node->length;
    }
    return node->places ? node : NULL;
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 29;
}

static void check_node(const iso_heap_t *heap, const node_t *node, summary_t *summary)
{
    summary->nodes++;
    for (uint32_t i = 0; i < node->length; i++)
        summary->checksum = mix(summary->checksum, (unsigned char)node->text[i]);
    for (const place_t *place = node->places; place; place = place->next) {
        if (iso_heap_of(place) != heap) {
            summary->fault = "a place is not in the heap";
            return;
        }
        summary->places++;
        summary->checksum = mix(summary->checksum, place->line);
    }
    for (const node_t *child = node->child; child && !summary->fault; child = child->next) {
        if (iso_heap_of(child) != heap)
            summary->fault = "a child is not in the heap";
        else if (child->parent != node)
            summary->fault = "a child's parent is another node";
        else
            check_node(heap, child, summary);
    }
}

summary_t index_check(const iso_heap_t *heap, const index_t *index)
{
    summary_t summary = {.checksum = 1};
    check_node(heap, index->root, &summary);
    if (!summary.fault && (summary.nodes != index->nodes || summary.places != index->places))
        summary.fault = "the number of nodes or places is not what was counted";
    return summary;
}
