/*
 * pmix_watch.h - which process is a rank, and whether it is still there.
 *
 * A rank listens on an abstract socket under its own name, which the kernel gives to one process at a
 * time and takes back when that ends. The next lower rank of the host, in a ring, connects to it and
 * learns from that which process to watch (a pidfd). Who leaves in order says so to whoever watches it.
 * What a watcher finds it tells the host: so the death of a process is known even where the launcher
 * tells nobody. It finds it in its own calls, as a rank answers others only in its own calls.
 * The watch begins with the first fence, and no rank is through a second one before it has begun.
 */
#ifndef ISO_PMIX_WATCH_H
#define ISO_PMIX_WATCH_H

#include "pmix_link.h"

/* Makes this process the one that speaks for the rank, until it ends, and before it says anything to the
 * launcher. ISO_ERR_BUSY: another one does. Logged. */
iso_status_t iso_pmix_claim(iso_pmix_link_t *link, uint32_t rank);
/* Tells the watchers that this rank leaves in order, and ends the watch. */
void iso_pmix_watch_leave(iso_pmix_link_t *link);

/* Puts what others need to watch this rank. Logged. */
iso_status_t iso_pmix_watch_offer(iso_pmix_link_t *link);
/* After every fence that passes, all ranks having offered before: the first begins the watch. */
void iso_pmix_watch_begin(iso_pmix_link_t *link);
/* Looks whether the watched rank is gone. */
void iso_pmix_watch_look(iso_pmix_link_t *link);

#endif
