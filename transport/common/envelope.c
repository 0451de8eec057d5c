/* envelope.c - see envelope.h. */
#include "transport/common/envelope.h"
#include "transport/common/caller.h"

void envelope_drop(const iso_transport_host_t *host, uint64_t *dropped)
{
    if ((*dropped)++ == 0)
        caller_log(host, ISO_LOG_WARN,
                   "a message that is not of this job, or says what cannot be, was dropped (the "
                   "first; all are counted)");
}
