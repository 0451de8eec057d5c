/*
 * increment.h - an earlier image, as what a new one may refer to instead of writing pages again.
 *
 * A page is the same if it is at the same address and has the same checksum. So nothing has to be known of what was written in
 * between, by whom, and in which process: it works with every backing and transport, costs no page faults, and also for a heap that
 * was elsewhere meanwhile. What it costs is to read the heaps' memory, which takes a fraction of what writing it to a disk does; of
 * pages that the kernel has seen no write to, not even that (track.h).
 */
#ifndef ISO_CORE_INCREMENT_H
#define ISO_CORE_INCREMENT_H

#include "core/image.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_increment {
    iso_image_t *since;             /* NULL: nothing to refer to */
    struct iso_increment_run *runs; /* of all its heaps, ascending */
    uint64_t run_count, at;         /* at: the run that was found last */
    uint32_t heap_at;               /* the same of heaps */
} iso_increment_t;

/* For an image that will be at `path`. since NULL: of none. It is known by the name that it has without
 * symbolic links, since those are moved on. ISO_ERR_INVALID: it is in another folder, or it or one of its parents would be replaced; errors of
 * iso_image_open. Logged. An image whose chain is as long as it may be is not referred to, which is said at level info. */
iso_status_t iso_increment_open(iso_increment_t *increment, const iso_logger_t *logger,
                                const char *path, const char *since);
void iso_increment_close(iso_increment_t *increment);

/* Its parents, in the order that iso_increment_find has them: as many as that. */
uint64_t iso_increment_parents(const iso_increment_t *increment,
                               iso_image_parent_t parents[ISO_IMAGE_PARENTS_MAX]);
/* Is this heap in the earlier image as it was with this epoch? Quick where heaps come in the same order. */
bool iso_increment_has(iso_increment_t *increment, uint64_t heap, uint64_t epoch);
/* The page at this address in the earlier image, if there is one: its checksum, and where it is, as below. */
bool iso_increment_at(iso_increment_t *increment, uint64_t address, uint64_t *checksum_p,
                      uint64_t *file_p, uint64_t *offset_p);
/* Is the page in one of these? *file_p: 1 + its index, as in a run. Quick where addresses ascend. */
bool iso_increment_find(iso_increment_t *increment, uint64_t address, uint64_t checksum,
                        uint64_t *file_p, uint64_t *offset_p);

#ifdef __cplusplus
}
#endif

#endif
