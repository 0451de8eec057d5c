/*
 * object.h - objects that a pup routine describes, on their way (iso_migrate_pup): packed into a parcel, and
 * unpacked where it arrives.
 */
#ifndef ISO_CORE_OBJECT_H
#define ISO_CORE_OBJECT_H

#include "core/parcel.h"
#include "core/pup.h"

#ifdef __cplusplus
extern "C" {
#endif

struct iso_delivery;

/* A registered type. */
typedef struct iso_object_kind {
    struct iso_object_kind *next;
    uint64_t id; /* a hash of its name: the same in every rank */
    iso_object_type_t type;
} iso_object_kind_t;
void iso_object_kinds_close(iso_job_t *job);

/* A carrier has arrived. is_known: is its type registered? Under the lock. The other makes the object and
 * calls back; without the lock. false: there is no memory to begin with, and nothing is changed. */
bool iso_object_is_known(const iso_job_t *job, const struct iso_delivery *delivery);
bool iso_object_arrived(iso_job_t *job, const struct iso_delivery *delivery);

/* The object of a parcel from here is elsewhere: frees what was in it, and the parcel. Without the lock. */
void iso_object_gone(iso_job_t *job, iso_parcel_t *parcel);
/* There was a doubt, and it has ended: so that progress calls the other, which frees what has gone, and tells of what
 * has stayed. The first under the lock, the other without. */
void iso_object_doubt_ended(iso_job_t *job, iso_parcel_t *parcel, bool stayed);
void iso_object_settled(iso_job_t *job, iso_parcel_t *parcel);

#ifdef __cplusplus
}
#endif

#endif
