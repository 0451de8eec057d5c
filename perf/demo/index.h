/*
 * index.h - the demo's data: an index of the words of a text, full of pointers, in one heap.
 *
 * A radix tree: each node has a piece of text, a pointer to its parent, to its first child and to
 * its next sibling, and a list of the lines where the word that ends in it occurs. Words can be added at
 * any rank. Everything, the log of the tour included, is allocated from the heap.
 */
#ifndef ISO_PERF_DEMO_INDEX_H
#define ISO_PERF_DEMO_INDEX_H

#include <isomalloc/isomalloc.h>

typedef struct place {
    struct place *next;
    uint32_t line;
} place_t;

typedef struct node {
    struct node *parent, *child, *next;
    place_t *places; /* of the word that ends here, the latest first; NULL: none does */
    uint32_t length;
    char text[];
} node_t;

/* One hop of the tour, written by who received the heap. */
typedef struct hop {
    struct hop *previous;
    uint32_t number, from, to;
    bool same_node;
    uint64_t live, shipped; /* bytes */
    double seconds;         /* iso_migrate to arrival callback */
    double first, again;    /* seconds to check everything, on arrival and once more */
} hop_t;

typedef struct index {
    node_t *root;
    uint64_t nodes, places;
    hop_t *hops;   /* the latest first */
    void *scratch; /* a block that every rank frees and allocates anew */
} index_t;

/* What is found by looking at every node: compared with what the sender found. */
typedef struct summary {
    uint64_t checksum, nodes, places;
    const char *fault; /* NULL: every pointer is right */
} summary_t;

/* NULL: no memory. */
index_t *index_create(iso_heap_t *heap);
bool index_add(iso_heap_t *heap, index_t *index, const char *word, uint32_t length, uint32_t line);
const node_t *index_find(const index_t *index, const char *word, uint32_t length);

/* Follows every pointer: each must lead into the heap, and back where it is from. */
summary_t index_check(const iso_heap_t *heap, const index_t *index);

/* The same the traditional way: pack into a buffer, copy it (the wire), unpack into another heap,
 * where every node is allocated again. false: no memory, or the result is not the same. */
bool index_pack_copy_unpack(iso_job_t *job, const index_t *index, const summary_t *expected,
                            double *seconds_p, uint64_t *bytes_p);

double demo_now(void);

#endif
