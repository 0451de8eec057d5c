/*
 * images.h - the images that are named when the job begins: ISO_IMAGES.
 *
 * Invariant: the slots of a heap in them that was not restored yet are in no rank's free set and in nobody's table. All ranks read the
 * same lists of heaps and slots (iso_meet compares), and of each image one rank reads the lists of its pages, which are most of what an image has beside
 * pages; each leaves out of its own strip what they name. Which rank may enter them is the same
 * everywhere, too: so no message is needed for a heap to be restored once only.
 *
 * The files are open during iso_init and while heaps are restored, not in between: a job may have thousands.
 */
#ifndef ISO_CORE_IMAGES_H
#define ISO_CORE_IMAGES_H

#include <isomalloc/checkpoint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Reads what ISO_IMAGES names, and has the settings say where the space is. ISO_ERR_INVALID: an image is damaged, of another space than the
 * others or than the settings say, or of another set, or another time, than others of their job, or two have the same addresses. A set that is not whole is warned of. */
iso_status_t iso_images_open(iso_job_t *job);
/* Of what all the images hold; 0: there are none. */
uint64_t iso_images_digest(const iso_job_t *job);
/* Leaves their slots out of this rank's free ones. ISO_ERR_INVALID: the space is too short for them. */
iso_status_t iso_images_carve(iso_job_t *job);
void iso_images_close(iso_job_t *job);

/* Is the heap one of these that this rank may restore now? *own_slots_p: it is, and nobody else can from here on; unclaim if it
 * fails. Not: it is of another image, or was restored before, and is a copy like any. ISO_ERR_NOT_OWNER, ISO_ERR_RANK: logged. Under
 * the job's lock. */
iso_status_t iso_images_claim(iso_job_t *job, const iso_image_t *image, uint32_t number,
                              bool *own_slots_p);
void iso_images_unclaim(iso_job_t *job, const iso_image_t *image, uint32_t number);

#ifdef __cplusplus
}
#endif

#endif
