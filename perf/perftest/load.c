/* load.c - see load.h. */
#include "load.h"
#include "table.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A piece of contents: its words follow from their addresses. A node's first word is the next one's. */
static void fill(uintptr_t *words, size_t from, size_t size)
{
    for (size_t i = from; i < size / sizeof *words; i++)
        words[i] = (uintptr_t)&words[i] * 0x9e3779b97f4a7c15u;
}

static void check(const uintptr_t *words, size_t from, size_t size)
{
    for (size_t i = from; i < size / sizeof *words; i++)
        if (words[i] != (uintptr_t)&words[i] * 0x9e3779b97f4a7c15u) {
            fprintf(stderr, "iso_perftest: WRONG CONTENTS after migrations, at %p\n",
                    (const void *)&words[i]);
            exit(1);
        }
}

iso_heap_t *load_new(pair_t *pair, size_t size, size_t node_size)
{
    iso_heap_t *heap = NULL;
    size_t piece = node_size ? node_size : size, count = node_size ? size / node_size : 1;
    uintptr_t *next = NULL;
    pair_check(iso_heap_create(pair->job, &heap), "iso_heap_create");
    for (size_t i = 0; i < count; i++) {
        uintptr_t *words = iso_malloc(heap, piece);
        if (!words)
            pair_fail("iso_malloc", ISO_ERR_NO_SPACE);
        if (node_size)
            words[0] = (uintptr_t)next;
        fill(words, node_size ? 1 : 0, piece);
        next = words;
    }
    iso_heap_set_root(heap, next);
    return heap;
}

void load_check(iso_heap_t *heap, size_t size, size_t node_size)
{
    const uintptr_t *words = iso_heap_root(heap);
    size_t count = 0;
    if (!node_size) {
        check(words, 0, size);
        return;
    }
    for (; words; words = (const uintptr_t *)words[0], count++)
        check(words, 1, node_size);
    if (count != size / node_size) {
        fprintf(stderr, "iso_perftest: WRONG CONTENTS after migrations: %zu nodes instead of %zu\n",
                count, size / node_size);
        exit(1);
    }
}

double load_look(iso_heap_t *heap, size_t size)
{
    const volatile unsigned char *bytes = iso_heap_root(heap);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    double start = table_now();
    for (size_t i = 0; i < size; i += page)
        (void)bytes[i];
    return table_now() - start;
}
