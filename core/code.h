/*
 * code.h - what code this process runs, and where it lies: what stacks depend on.
 *
 * The program and each library that was loaded when the first iso_init began, with address and build id (of those
 * that have none, a digest of their code), and the processor's features (which: see isomalloc/stack.h), since what was chosen by them is on
 * stacks as well. The vDSO is left out: it calls nothing, so nothing on a stack that waits leads there.
 *
 * A heap with stacks has the digest of the list, and where it may come to other code a copy of the list in a block of its own
 * (stack_code.c). Who receives the heap compares: one word where all is well.
 */
#ifndef ISO_CORE_CODE_H
#define ISO_CORE_CODE_H

#include <isomalloc/isomalloc.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Part of what migrates: fixed widths. */
typedef struct iso_code_object {
    uint64_t base; /* where it lies: what is added to the addresses in its file */
    uint64_t id;   /* of its contents */
    char name[48]; /* the last part of its path, or what it is; ends in 0 */
} iso_code_object_t;

typedef struct iso_code {
    uint64_t digest; /* of all the rest */
    uint64_t count;
    __extension__ iso_code_object_t objects[];
} iso_code_t;

#define ISO_CODE_OBJECTS_MAX 4096 /* more than this are a damaged list */

/* Makes the list of this process, if it is not made yet. ISO_ERR_NO_MEMORY. */
iso_status_t iso_code_open(void);
/* That list; NULL: it is not made. */
const iso_code_t *iso_code(void);
size_t iso_code_size(const iso_code_t *code);

/* Says in words what of the other list differs from ours. */
void iso_code_differ(const iso_code_t *other, char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif
