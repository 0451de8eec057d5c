/*
 * space.h - the iso space of this process: its addresses and the memory behind them, an object or
 * (backing anon) the process's own.
 */
#ifndef ISO_CORE_SPACE_H
#define ISO_CORE_SPACE_H

#include "core/log.h"
#include "core/os.h"
#include "core/slots.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_space {
    char *base; /* NULL: nothing reserved */
    uint64_t size;
    iso_backing_t backing; /* never AUTO once mapped */
    int fd;      /* the memfd behind it, this process's descriptor; -1: none yet, or anon */
    bool pinned; /* a transport has its pages pinned: they must not be given back */
} iso_space_t;

#define ISO_SPACE_HOLES 32 /* that a rank offers when the first proposal fails */

/* What rank 0 proposes when the settings leave it open: a base that is the same in every job on
 * every machine of a kind, clear of where kernels, ASLR and sanitizers put things. */
void iso_space_propose(const iso_params_t *params, uint64_t *base_p, uint64_t *size_p);

/* Takes the addresses. ISO_ERR_NO_SPACE: something is mapped there (not logged: other places can be
 * tried; iso_space_explain says what). ISO_ERR_LIMIT: too large for a limit, logged. */
iso_status_t iso_space_reserve(iso_space_t *space, const iso_logger_t *logger, uint64_t base,
                               uint64_t size);
void iso_space_release(iso_space_t *space);

/* Logs which mapping lies in [base, base+size), and what to set. */
void iso_space_explain(const iso_logger_t *logger, uint64_t base, uint64_t size);

/* The free ranges where a space of this size could be, largest first. */
size_t iso_space_holes(uint64_t size, iso_os_hole_t holes[ISO_SPACE_HOLES]);
/* The lowest base at which all of `sets` lists of holes have room; 0: none. */
uint64_t iso_space_intersect(const iso_os_hole_t *holes, const uint32_t *counts, size_t stride,
                             size_t sets, uint64_t size);

/* Maps the memory object over the reserved addresses. */
iso_status_t iso_space_map(iso_space_t *space, const iso_logger_t *logger, int fd, bool core_dump);
/* Makes the reserved addresses anonymous memory. 0 or errno, not logged: an object can still be mapped
 * over them. */
int iso_space_map_anon(iso_space_t *space, bool core_dump);

/* Gives pages of the range back to the system; where they were, zeros are read. Multiples of the OS
 * page. Logged. false: they are still there, pinned or refused. */
bool iso_space_give_back(const iso_space_t *space, const iso_logger_t *logger, uint64_t offset,
                         uint64_t length);

/* Where in the range the first page is that takes memory; `length`: there is none. */
uint64_t iso_space_first_page(const iso_space_t *space, uint64_t offset, uint64_t length);

static inline uint32_t iso_space_slots(const iso_space_t *space)
{
    return (uint32_t)(space->size >> ISO_SLOT_SHIFT);
}
static inline uint64_t iso_space_offset(const iso_space_t *space, const void *address)
{
    return (uint64_t)((const char *)address - space->base);
}
static inline uint32_t iso_space_slot(const iso_space_t *space, const void *address)
{
    return (uint32_t)(iso_space_offset(space, address) >> ISO_SLOT_SHIFT);
}
static inline char *iso_space_slot_address(const iso_space_t *space, uint32_t slot)
{
    return space->base + ((size_t)slot << ISO_SLOT_SHIFT);
}

#ifdef __cplusplus
}
#endif

#endif
