/* report.h - what the demo prints of its tour: every hop, and each kind of hop beside packing, copying and unpacking. */
#ifndef ISO_PERF_DEMO_REPORT_H
#define ISO_PERF_DEMO_REPORT_H

#include "index.h"

/* Of the log in the index. packing, packed: seconds and bytes of index_pack_copy_unpack. */
void report_tour(const index_t *index, uint32_t ranks, double packing, uint64_t packed);

#endif
