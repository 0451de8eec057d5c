/*
 * track.h - which pages were written since an image was saved, so that an increment to it need not read the others
 * (ISO_TRACK_WRITES).
 *
 * Invariant: while `image` names one, every page of it that the kernel says was not written since is as it is in that image, if its
 * heap has the epoch that it has there: a heap that was elsewhere meanwhile may have been written to by ways that this process's
 * page tables know nothing of. Only the image that was saved last is known, and none once a checkpoint has begun that has not come to its end.
 */
#ifndef ISO_CORE_TRACK_H
#define ISO_CORE_TRACK_H

#include "core/contents.h"
#include "core/os.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_track {
    bool tried, on;
    iso_os_writes_t writes;
    uint64_t image; /* the checksum of its header; 0: none */
} iso_track_t;

/* A checkpoint begins, an increment to the image with this checksum (0: to none): its heaps are frozen. Is that the one that is
 * known? Opens what the setting asks for, and says what is in the way. Takes the job's lock. */
bool iso_track_begin(iso_job_t *job, uint64_t since);
/* Sets a bit, from number `first` on in the order of the runs, for each page of a heap's that may be other than when the image was
 * saved. false: it cannot be told. */
bool iso_track_take(iso_job_t *job, const iso_contents_t *contents, uint8_t *bits, uint64_t first);
/* All of its heaps were taken, and it has come to its end as this image. Takes the job's lock. */
void iso_track_end(iso_job_t *job, uint64_t image);
void iso_track_close(iso_track_t *track);

#ifdef __cplusplus
}
#endif

#endif
