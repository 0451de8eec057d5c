/*
 * put.h - the puts and flushes of a request: from its runs to where its peer has them.
 *
 * A few are in the transport's hands at a time, none longer than ISO_PUT_PIECE. What failed first is in
 * request->put_status, and then no more are issued.
 */
#ifndef ISO_CORE_PUT_H
#define ISO_CORE_PUT_H

#include "core/migrate.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As many as have room now, up to a turn's bytes. 0: none had. */
unsigned iso_puts_issue(iso_request_t *request);
/* Orders what was put before messages that are sent from now on, where that saves a wait for the peer. Then COMMIT may go
 * as soon as no put is in the transport's hands any more. */
bool iso_puts_fence(iso_request_t *request);
/* Asks for the remote completion of what was put. ISO_ERR_AGAIN: no room now. */
iso_status_t iso_puts_flush(iso_request_t *request);
/* Can nothing that the request has put land any more? Does what it takes. */
bool iso_puts_are_quiet(iso_request_t *request);
/* Are operations to this peer still in the transport's hands? */
bool iso_puts_to(const iso_job_t *job, const iso_peer_t *peer);

#ifdef __cplusplus
}
#endif

#endif
