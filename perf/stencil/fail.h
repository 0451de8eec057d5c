/* fail.h - what all of iso_stencil does where something fails: a line, and the process ends; the launcher ends the rest. */
#ifndef ISO_STENCIL_FAIL_H
#define ISO_STENCIL_FAIL_H

#include <isomalloc/isomalloc.h>

/* From here on lines say which rank it is. */
void fail_as_rank(uint32_t rank);
__attribute__((noreturn)) void fail(const char *what,
                                    const char *why); /* cppcheck overlooks _Noreturn */
void check(iso_status_t status, const char *what);

#endif
