/*
 * workload.h - what the allocators are made to do. The same requests, in the same order, in each.
 */
#ifndef ISO_PERF_MALLOCBENCH_WORKLOAD_H
#define ISO_PERF_MALLOCBENCH_WORKLOAD_H

typedef struct workload {
    const char *name, *help;
    void (*run)(void); /* frees what it allocates; ends the program if a block's contents changed */
} workload_t;

#define WORKLOADS 8
extern const workload_t workloads[WORKLOADS];

/* Touches the workloads' own tables, so that running one takes memory only from the allocator. */
void workload_prepare(void);

#endif
