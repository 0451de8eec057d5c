/*
 * load.h - what the tests' heaps are filled with: one block, or linked nodes.
 *
 * The contents follow from the addresses, so that whoever has the heap can tell that they are right.
 */
#ifndef ISO_PERFTEST_LOAD_H
#define ISO_PERFTEST_LOAD_H

#include "pair.h"

/* A heap at this rank with `size` bytes in a block, or in nodes of node_size each if that is not 0. */
iso_heap_t *load_new(pair_t *pair, size_t size, size_t node_size);
/* Ends the process where the contents are not what load_new wrote. */
void load_check(iso_heap_t *heap, size_t size, size_t node_size);
/* Reads a byte of each page of its one block; seconds. */
double load_look(iso_heap_t *heap, size_t size);

#endif
