/*
 * pmix_get.h - what another rank has put.
 */
#ifndef ISO_PMIX_GET_H
#define ISO_PMIX_GET_H

#include "pmix_link.h"

/* Up to *len_p bytes of it; *len_p: its length. Waits for a rank that has not put it yet, but not for one
 * that has died: ISO_ERR_PEER_DEAD. */
iso_status_t iso_pmix_get(iso_pmix_link_t *link, uint32_t rank, const char *what, void *into,
                          size_t *len_p);

#endif
