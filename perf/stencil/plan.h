/*
 * plan.h - who computes what: a balancer that measures, and moves as little as it has to.
 *
 * Greedy refinement, as Charm++'s RefineLB does it: from the rank with the most to the rank with the least goes the task that
 * brings the two closest together, until the busiest rank is near the mean or nothing helps. What a task will cost is
 * taken to be what it did cost since the last time. Every rank that is given the same figures gets the same plan.
 */
#ifndef ISO_STENCIL_PLAN_H
#define ISO_STENCIL_PLAN_H

#include <stdint.h>

/* owners[task] is changed; costs[task] in any unit. Returns how many tasks change hands. */
uint32_t plan_refine(uint32_t *owners, const double *costs, uint32_t tasks, uint32_t ranks);
/* loads[rank] = what its tasks cost. */
void plan_loads(const uint32_t *owners, const double *costs, uint32_t tasks, double *loads,
                uint32_t ranks);

#endif
