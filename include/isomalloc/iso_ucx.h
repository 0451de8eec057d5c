/*
 * iso_ucx.h - for programs that have a UCX context, and perhaps a worker, already: the transport `ucx` uses
 * theirs instead of opening its own.
 *
 *   iso_ucx_shared_t shared = ISO_UCX_SHARED_INIT;
 *   shared.context = context;
 *   shared.worker = worker;     (or left NULL: the library makes a worker of its own in the context)
 *   shared.am_id = 17;          (an active message that the program does not use on that worker)
 *   params.transport_shared = &shared.head;
 *   iso_init(&params, &job);
 *
 * The context must have UCP_FEATURE_RMA and UCP_FEATURE_AM, and UCP_FEATURE_WAKEUP if ranks are to sleep
 * instead of polling (without it the library polls a thousand times a second). Its settings are the
 * program's: those that the transport would make (README, UCX) are not, so that over shared memory
 * UCX_POSIX_ERROR_HANDLING=y and UCX_SYSV_ERROR_HANDLING=y have to be in the environment or its config. If other
 * ranks of the host do not share theirs, UCX_POSIX_FIFO_SIZE, UCX_POSIX_FIFO_ELEM_SIZE and UCX_POSIX_SEG_SIZE, or
 * those of UCX_SYSV_, have to be in the environment of all: ranks that differ there refuse each other.
 *
 * Both stay the program's. They must live until iso_finalize has returned; the struct, until iso_init has.
 *
 * Threads. A shared worker is progressed by both, each for both. Made with UCS_THREAD_MODE_MULTI, program and
 * library may use it at the same time. Otherwise the program calls UCX on it only while no call of the
 * library runs, in any thread (so no ISO_PROGRESS_THREAD), and with UCS_THREAD_MODE_SINGLE in the same
 * thread. No function of the library is called from a callback of UCX.
 */
#ifndef ISOMALLOC_ISO_UCX_H
#define ISOMALLOC_ISO_UCX_H

#include <isomalloc/transport.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ucp_context; /* what a ucp_context_h points to */
struct ucp_worker;  /* and a ucp_worker_h */

typedef struct iso_ucx_shared {
    iso_transport_shared_t head;
    struct ucp_context *context;
    struct ucp_worker *worker; /* NULL: none is shared */
    unsigned am_id;            /* with a worker only */
} iso_ucx_shared_t;

#define ISO_UCX_SHARED_INIT                              \
    {                                                    \
        {"ucx", sizeof(iso_ucx_shared_t)}, NULL, NULL, 0 \
    }

#ifdef __cplusplus
}
#endif
#endif
