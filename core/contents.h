/*
 * contents.h - what a heap consists of, to be copied out of it as bytes and to be filled in again: which heap it is, its
 * slots, and its live runs.
 *
 * Out: the heap is frozen and its runs are listed; whoever wants their bytes reads them where they are. The heap's own
 * header, which is the beginning of the first run, says that it is frozen, and with which epoch, as after a migration; and
 * the same is checked when it comes in.
 *
 * In: slots are entered before the first byte comes, and given back, with nothing of the heap left but warm pages, if what
 * comes is not that heap. Whose they are until then depends. A heap that moved here, or that is of an image named when the job began,
 * has its own slots (own_slots): nobody was given them, so that they are unknown here, and are entered as those of an arriving heap are.
 * Of a copy they must be free here.
 *
 * `call` is the public function in whose name errors are logged.
 */
#ifndef ISO_CORE_CONTENTS_H
#define ISO_CORE_CONTENTS_H

#include "core/hold.h"
#include "core/runs.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_contents {
    uint64_t heap, epoch;
    bool own_slots;        /* they are unknown here, else it is a copy */
    iso_extent_t *extents; /* from malloc */
    uint32_t extent_count;
    iso_runs_t runs;
    iso_runs_t idle; /* its pages go nowhere */
    uint32_t *warm;  /* a copy that comes in: units of each of its slots that were resident */
} iso_contents_t;

void iso_contents_free(iso_contents_t *contents);

/* Logs, and returns the status. */
iso_status_t iso_contents_refuse(const iso_job_t *job, const char *call, iso_status_t status,
                                 uint64_t heap, const char *why);

/* ---- out ---- */

/* Freezes the heap and lists what is in it; moves: with an epoch of its own. The lists are the caller's also when it
 * fails, with the heap as it was: ISO_ERR_NOT_OWNER, ISO_ERR_BUSY, ISO_ERR_NO_MEMORY. Takes the heap's lock and the job's. */
iso_status_t iso_contents_take(iso_job_t *job, const char *call, const iso_heap_t *heap, bool moves,
                               iso_hold_t **hold_p, iso_contents_t *contents);
/* The heap is usable again. Under the job's lock. */
void iso_contents_put_back(iso_hold_t *hold);
/* The heap is where its bytes went, and nobody's until it comes out of them. Under the job's lock. */
void iso_contents_let_go(iso_job_t *job, iso_hold_t *hold, iso_contents_t *contents);

/* ---- in ---- */

/* Can a heap of so many slots and runs be? Before there are lists. ISO_ERR_INVALID. */
iso_status_t iso_contents_check(const iso_job_t *job, const char *call,
                                const iso_contents_t *contents);
/* Can its slots be? ISO_ERR_INVALID, ISO_ERR_NO_MEMORY. */
iso_status_t iso_contents_check_slots(const iso_job_t *job, const char *call,
                                      iso_contents_t *contents);
/* Makes the slots the heap's. ISO_ERR_BUSY. ISO_ERR_INVALID: its runs are not of its slots. Under the job's lock. */
iso_status_t iso_contents_enter(iso_job_t *job, const char *call, const iso_contents_t *contents,
                                iso_hold_t **hold_p);
/* The bytes are there: do the headers of the heap and of its slots say that they are it? ISO_ERR_INVALID, ISO_ERR_VERSION, ISO_ERR_CODE. */
iso_status_t iso_contents_looks_sound(const iso_job_t *job, const char *call,
                                      const iso_hold_t *hold);
/* The same, and they are that heap, which is this rank's from here on; or they are not, and it is to be abandoned, as it is
 * for want of memory (ISO_ERR_NO_MEMORY, logged). Takes the job's lock. */
iso_status_t iso_contents_own(iso_job_t *job, const char *call, iso_hold_t *hold,
                              const iso_contents_t *contents);
/* The bytes have not come: nothing of it stays but warm pages. Takes the job's lock. */
void iso_contents_abandon(iso_job_t *job, iso_hold_t *hold, const iso_contents_t *contents);

#ifdef __cplusplus
}
#endif

#endif
