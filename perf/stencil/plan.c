/* plan.c - see plan.h. */
#include "plan.h"
#include <math.h>
#include <stdlib.h>

#define NEAR 1.03 /* times the mean: near enough */

void plan_loads(const uint32_t *owners, const double *costs, uint32_t tasks, double *loads,
                uint32_t ranks)
{
    for (uint32_t rank = 0; rank < ranks; rank++)
        loads[rank] = 0;
    for (uint32_t task = 0; task < tasks; task++)
        loads[owners[task]] += costs[task];
}

/* The task of `from` whose move makes the greater of the two loads least; `tasks`: none makes it less than it is. */
static uint32_t choose(const uint32_t *owners, const double *costs, uint32_t tasks, uint32_t from,
                       double most, double least)
{
    uint32_t best = tasks;
    double greater = most;
    for (uint32_t task = 0; task < tasks; task++) {
        const double then = fmax(most - costs[task], least + costs[task]);
        if (owners[task] == from && then < greater) {
            greater = then;
            best = task;
        }
    }
    return best;
}

uint32_t plan_refine(uint32_t *owners, const double *costs, uint32_t tasks, uint32_t ranks)
{
    uint32_t moves = 0;
    double *loads = malloc(ranks * sizeof *loads), sum = 0;
    if (!loads)
        return 0;
    plan_loads(owners, costs, tasks, loads, ranks);
    for (uint32_t rank = 0; rank < ranks; rank++)
        sum += loads[rank];
    for (; moves < tasks; moves++) {
        uint32_t most = 0, least = 0;
        for (uint32_t rank = 1; rank < ranks; rank++) {
            most = loads[rank] > loads[most] ? rank : most;
            least = loads[rank] < loads[least] ? rank : least;
        }
        if (loads[most] <= NEAR * sum / ranks)
            break;
        const uint32_t task = choose(owners, costs, tasks, most, loads[most], loads[least]);
        if (task == tasks)
            break;
        owners[task] = least;
        loads[most] -= costs[task];
        loads[least] += costs[task];
    }
    free(loads);
    return moves;
}
