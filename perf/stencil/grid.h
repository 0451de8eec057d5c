/*
 * grid.h - what is computed: Jacobi's iteration for Laplace's equation on a plane that is held at 1 at its upper edge and
 * at 0 at the other three, in strips of rows.
 *
 * A strip has its rows and one more above and below, those of its neighbours. Each value is computed by one expression, in one
 * function, so that it does not depend on how the plane is divided.
 */
#ifndef ISO_STENCIL_GRID_H
#define ISO_STENCIL_GRID_H

#include <stddef.h>
#include <stdint.h>

typedef struct grid {
    uint32_t strips, rows, columns; /* rows of a strip */
} grid_t;

static inline size_t grid_row_bytes(const grid_t *grid)
{
    return grid->columns * sizeof(double);
}
/* Of a strip with its two rows more, and of the whole plane with those around it. */
static inline size_t grid_strip_bytes(const grid_t *grid)
{
    return (grid->rows + 2) * grid_row_bytes(grid);
}
static inline size_t grid_plane_bytes(const grid_t *grid)
{
    return ((size_t)grid->strips * grid->rows + 2) * grid_row_bytes(grid);
}

/* What `rows` rows, and those around them, begin with. `first` is whether the upper edge is the plane's. */
void grid_begin(double *at, uint32_t rows, uint32_t columns, int first);
/* One step of `rows` rows, from one array into the other; the rows around them are left alone. */
void grid_step(const double *from, double *to, uint32_t rows, uint32_t columns);
/* The plane after so many steps, computed in one piece. The caller frees it; NULL: no memory. */
double *grid_serial(const grid_t *grid, uint32_t steps);

#endif
