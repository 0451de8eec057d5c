/*
 * inline.h - what of a heap rides in its COMMIT instead of being put.
 *
 * A put costs as much as some KiB of a message do, and the flush or fence after the last one more. So the heap's head goes in
 * pieces (head.h), and so do small live runs, byte by byte of what is live in them, as long as all of it is within
 * ISO_INLINE_MAX and fits the message. The smallest heaps, and threads that use little of their stack, are one message.
 *
 * The target writes the pieces when it has accepted the COMMIT: when the pages are the arriving heap's, and before it
 * looks at the heap. So they are there when the puts are, and who owns the heap when is as without them.
 */
#ifndef ISO_CORE_INLINE_H
#define ISO_CORE_INLINE_H

#include "core/hold.h"
#include "core/runs.h"
#include "core/wire.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_INLINE_RUNS 64 /* only the first live runs of a heap are looked at */

/* Begins as all zeros: all is put. */
typedef struct iso_inline {
    iso_runs_t pieces;
    uint64_t whole;  /* bit r: of run r nothing is put */
    size_t head;     /* bytes that run head_run begins with, and that are not put; 0: none */
    size_t head_run; /* less than ISO_INLINE_RUNS */
} iso_inline_t;

/* Chooses, of a frozen heap and its live runs, of which nothing was put yet, what rides in a COMMIT with so long a
 * user header. Without memory for the pieces: nothing. */
void iso_inline_plan(iso_hold_t *hold, const iso_runs_t *runs, size_t header_len,
                     iso_inline_t *plan);
/* Bytes at the beginning of this run that are not put: its length, where nothing of it is. */
size_t iso_inline_skip(const iso_inline_t *plan, const iso_runs_t *runs, size_t run);

/* At the target: the pieces of a COMMIT for the heap of this hold go to their places. ISO_ERR_INVALID: some do not belong to
 * the heap; nothing was written. */
iso_status_t iso_inline_land(const iso_hold_t *hold, const iso_msg_t *msg);

#ifdef __cplusplus
}
#endif

#endif
