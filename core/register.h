/*
 * register.h - how much of the iso space is registered, and when: the policy ISO_REGISTER.
 *
 *   space   all of it, at init: one region, one key a peer. What a device pins then is all of the space.
 *   odp     the same, of a device that fetches pages on demand and pins none.
 *   window  windows of it, ahead of use, within ISO_PIN_LIMIT (window.h).
 *   auto    space where nothing is pinned or all of it fits, else window.
 *
 * The policy is for the transport between nodes, in a job of one node for the one inside it: where both are
 * open, the one inside is loopback, which pins nothing and has all of the space. Ranks may differ: each tells
 * its peers in HELLO.
 */
#ifndef ISO_CORE_REGISTER_H
#define ISO_CORE_REGISTER_H

#include "core/link.h"

#ifdef __cplusplus
extern "C" {
#endif

/* When the space is mapped: registers it, or opens the windows. Says what was chosen and why, in the log
 * (info) and in job->registration. ISO_ERR_LIMIT, ISO_ERR_INVALID (a policy that cannot be), or the
 * transport's; logged. */
iso_status_t iso_register_open(iso_job_t *job);

/* What would be chosen for a transport with these caps and a space of so many bytes, in a line. */
void iso_register_describe(const iso_params_t *params, const iso_transport_caps_t *caps,
                           uint64_t space_size, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
