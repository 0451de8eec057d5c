/* fail.c - see fail.h. */
#include "fail.h"
#include <stdio.h>
#include <stdlib.h>

static char program[40] = "iso_stencil";

void fail_as_rank(uint32_t rank)
{
    snprintf(program, sizeof program, "iso_stencil: rank %u", rank);
}

void fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s: %s\n", program, what, why);
    exit(1);
}

void check(iso_status_t status, const char *what)
{
    if (status != ISO_OK)
        fail(what, iso_status_string(status));
}
