/*
 * pmix_fence.h - a fence of all ranks that live.
 */
#ifndef ISO_PMIX_FENCE_H
#define ISO_PMIX_FENCE_H

#include "pmix_link.h"

/* Collective; the dead are not waited for. Logged. */
iso_status_t iso_pmix_fence(iso_pmix_link_t *link);

/* The same in two halves: test until it is no longer ISO_INPROGRESS. */
iso_status_t iso_pmix_fence_start(iso_pmix_link_t *link);
iso_status_t iso_pmix_fence_test(iso_pmix_link_t *link);

#endif
