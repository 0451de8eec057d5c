/*
 * link.h - an open transport, with this rank's iso space registered: all of it, or in windows (register.h).
 *
 * A job has one inside its node and one beyond it; they may be the same.
 */
#ifndef ISO_CORE_LINK_H
#define ISO_CORE_LINK_H

#include "core/module.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_LINK_QUOTE 512 /* bytes of a transport's message, the last one 0 */

typedef struct iso_link {
    iso_job_t *job;
    iso_module_t module;
    const iso_transport_ops_t *ops;
    iso_transport_t *tp;
    iso_transport_caps_t caps;
    iso_transport_host_t host;
    iso_region_t *region;        /* of all of the space; NULL: see windows */
    struct iso_windows *windows; /* NULL: all of the space is registered */
    unsigned char address[ISO_TRANSPORT_ADDRESS_MAX];
    size_t address_len;
    unsigned char rkey[ISO_TRANSPORT_RKEY_MAX];
    size_t rkey_len; /* 0: none for all */
    char *quote; /* not NULL: something is tried that may fail, and the first message goes there */
} iso_link_t;

/* Opens the module's transport for the job, with what the program shares with it, or NULL. */
iso_status_t iso_link_open(iso_job_t *job, const char *module, const iso_transport_shared_t *shared,
                           iso_link_t **link_p);
/* All of the space, when it is mapped. */
iso_status_t iso_link_register(iso_link_t *link);
void iso_link_close(iso_link_t *link);

#ifdef __cplusplus
}
#endif
#endif
