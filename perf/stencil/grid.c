/* grid.c - see grid.h. */
#include "grid.h"
#include <stdlib.h>
#include <string.h>

void grid_begin(double *at, uint32_t rows, uint32_t columns, int first)
{
    memset(at, 0, ((size_t)rows + 2) * columns * sizeof *at);
    for (uint32_t column = 0; first && column < columns; column++)
        at[column] = 1;
}

__attribute__((noinline)) void grid_step(const double *from, double *to, uint32_t rows,
                                         uint32_t columns)
{
    for (size_t row = 1; row <= rows; row++) {
        const double *above = from + (row - 1) * columns, *here = above + columns,
                     *below = here + columns;
        double *result = to + row * columns;
        for (uint32_t column = 0; column < columns; column++) {
            const double left = column > 0 ? here[column - 1] : 0;
            const double right = column + 1 < columns ? here[column + 1] : 0;
            result[column] = 0.25 * ((above[column] + below[column]) + (left + right));
        }
    }
}

double *grid_serial(const grid_t *grid, uint32_t steps)
{
    const uint32_t rows = grid->strips * grid->rows;
    double *from = malloc(grid_plane_bytes(grid)), *to = malloc(grid_plane_bytes(grid));
    if (!from || !to) {
        free(from);
        free(to);
        return NULL;
    }
    grid_begin(from, rows, grid->columns, 1);
    grid_begin(to, rows, grid->columns, 1);
    for (uint32_t step = 0; step < steps; step++) {
        double *next = to;
        grid_step(from, to, rows, grid->columns);
        to = from;
        from = next;
    }
    free(to);
    return from;
}
