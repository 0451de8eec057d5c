/* report.c - see report.h. */
#include "report.h"
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static const char *path_name(const hop_t *hop)
{
    return hop->from == hop->to ? "self" : hop->shipped > 0 ? "put" : "handover";
}

static const char *place_name(const hop_t *hop)
{
    return hop->same_node ? "inside" : "between";
}

/* The hops of one path and place. */
typedef struct kind {
    const char *path, *place;
} kind_t;

/* Median over the hops of one kind; 0: there were none. */
static double median(const hop_t *hops, uint32_t ranks, const kind_t *kind, bool first_hop,
                     size_t field_offset)
{
    double values[1024];
    size_t count = 0;
    for (const hop_t *hop = hops; hop && count < 1024; hop = hop->previous)
        if (strcmp(path_name(hop), kind->path) == 0 && strcmp(place_name(hop), kind->place) == 0 &&
            (hop->number < ranks) == first_hop)
            memcpy(&values[count++], (const char *)hop + field_offset, sizeof *values);
    if (count == 0)
        return 0;
    qsort(values, count, sizeof *values, by_value);
    return values[count / 2];
}

static void print_hops(const hop_t *hop)
{
    if (!hop)
        return;
    print_hops(hop->previous);
    char rate[16] = "-";
    if (hop->shipped > 0)
        snprintf(rate, sizeof rate, "%.2f", (double)hop->shipped / hop->seconds * 1e-9);
    printf("%4u  %4u -> %-4u %-9s %-8s %9.1f %12.1f %11.3f %6s %12.1f %10.1f\n", hop->number + 1,
           hop->from, hop->to, path_name(hop), place_name(hop), (double)hop->live / 1048576,
           (double)hop->shipped / 1048576, hop->seconds * 1e3, rate, hop->first * 1e3,
           hop->again * 1e3);
}

static void print_kind(const hop_t *hops, uint32_t ranks, const kind_t *kind, double packing)
{
    double first = median(hops, ranks, kind, true, offsetof(hop_t, seconds));
    double warm = median(hops, ranks, kind, false, offsetof(hop_t, seconds));
    if (first <= 0 && warm <= 0)
        return;
    printf("%s %s nodes: ", kind->path, kind->place);
    if (first > 0)
        printf("first hop to a rank %.3f ms", first * 1e3);
    if (warm > 0)
        printf("%slater ones %.3f ms: pack+copy+unpack takes %.0f times as long",
               first > 0 ? ", " : "", warm * 1e3, packing / warm);
    if (first > 0)
        printf("\n          looking at all of it: %.1f ms on the first visit",
               median(hops, ranks, kind, true, offsetof(hop_t, first)) * 1e3);
    if (first > 0 && warm > 0)
        printf(", %.1f ms later", median(hops, ranks, kind, false, offsetof(hop_t, first)) * 1e3);
    printf("\n");
}

void report_tour(const index_t *index, uint32_t ranks, double packing, uint64_t packed)
{
    printf("%4s  %-12s %-9s %-8s %9s %12s %11s %6s %12s %10s\n", "hop", "from -> to", "path",
           "nodes", "live MiB", "shipped MiB", "time ms", "GB/s", "1st look ms", "2nd look");
    print_hops(index->hops);
    printf("\npack+copy+unpack of the same structure in one process: %.1f ms (%.1f MiB packed)\n",
           packing * 1e3, (double)packed / 1048576);
    /* a hop to the rank itself moves nothing, and is compared with nothing */
    static const kind_t kinds[] = {{"handover", "inside"}, {"put", "inside"}, {"put", "between"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        print_kind(index->hops, ranks, &kinds[i], packing);
}
