/*
 * backing.h - which backing ISO_BACKING=auto means on this node.
 *
 * A node of one rank has nobody to share with: anon, whose pages cost less than a memory
 * object's (measured: 3.3 us instead of 5 to touch a new one, 0.6 instead of 1.5 to give it back). Where
 * anon cannot be had it is private, see trial.h.
 *
 * With several ranks, what a heap's first visit to a rank costs is measured on a few pages: handed over (shared), a page must only be mapped
 * by a fault; put (private), it is copied to a page that is new, and then faulted as well. Private is
 * chosen where it is clearly cheaper (by a third): later visits and memory speak for shared, and the
 * measurement is noisy. The figures are logged at level info.
 */
#ifndef ISO_CORE_BACKING_H
#define ISO_CORE_BACKING_H

#include "core/log.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Never AUTO. ranks: of the node. Takes a few milliseconds when it measures. */
iso_backing_t iso_backing_choose(const iso_logger_t *logger, iso_backing_t wish, uint32_t ranks);

#ifdef __cplusplus
}
#endif

#endif
