/* pup.h - a pup_er from inside. What it guarantees stands in <isomalloc/pup.h>. */
#ifndef ISO_CORE_PUP_H
#define ISO_CORE_PUP_H

#include <isomalloc/pup.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_pup {
    const iso_pup_kind_t *kind;
    void *context;
    unsigned use;        /* iso_pup_use_t */
    iso_status_t status; /* the first error */
    size_t size;
} iso_pup_t;

/* iso_pup_new of a kind of ours, whose context, from malloc, is given to it also when it fails. NULL context: there
 * was no memory for it. */
pup_er iso_pup_new_own(const iso_pup_kind_t *kind, void *context);

/* What kinds in memory go on from. */
typedef struct iso_pup_memory {
    unsigned char *at; /* unpacking only reads it */
    size_t left;       /* SIZE_MAX: the caller answers for it */
} iso_pup_memory_t;

/* iso_pup_new of a kind whose context is an iso_pup_memory_t, which its destroy, free, gives back. */
pup_er iso_pup_new_in_memory(const iso_pup_kind_t *kind, const void *buffer, size_t size);

/* Any items: those of one type, of this size. */
void iso_pup_items(pup_er p, void *data, size_t count, size_t size, iso_pup_type_t type);

/* The pup_er below, of one that labels what it passes on (pup_new_fmt); else NULL. */
iso_pup_t *iso_pup_below(const iso_pup_t *pup);
/* It packs, and keeps nothing. */
bool iso_pup_is_checksum(const iso_pup_t *pup);

#ifdef __cplusplus
}
#endif

#endif
