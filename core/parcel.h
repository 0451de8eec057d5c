/*
 * parcel.h - an object that iso_migrate_pup moves: bytes and heaps that migrate as one.
 *
 * An object of one heap, and of few bytes beside it, is that heap with a header. Of any other the bytes that the routine
 * packed are in blocks of a heap that is made for it, the carrier; it is what the
 * protocol knows, and a migration like any other: one COMMIT decides for all of it, whoever dies. From the
 * freezing on the slots of the heaps that come along, the members, are the carrier's (iso_hold_merge), and what
 * slots are whose is written in it. Where the migration ends, at the target or back here, they are the members' again.
 *
 * A member keeps its hold all the while, without slots and in the state of the carrier's, at both ends: so that it is
 * nobody else's meanwhile, and no step that gives it back can fail.
 */
#ifndef ISO_CORE_PARCEL_H
#define ISO_CORE_PARCEL_H

#include "core/hold.h"

#ifdef __cplusplus
extern "C" {
#endif

struct iso_request;
struct iso_delivery;

/* ---- what is in the carrier, for the target; all pointers are into it ---- */

#define ISO_PARCEL_MAGIC UINT64_C(0x4c43524150305349) /* "IS0PARCL" */

/* Bytes, as they were packed. */
typedef struct iso_parcel_piece {
    struct iso_parcel_piece *next;
    uint64_t length, room;
    __extension__ unsigned char bytes[];
} iso_parcel_piece_t;

typedef struct iso_parcel_member {
    uint64_t heap, epoch;
    uint32_t extent_count;
    uint32_t zero;
} iso_parcel_member_t;

/* The carrier's root. Behind it: its members, and then their extents, in order. */
typedef struct iso_parcel_list {
    uint64_t magic;
    uint64_t type; /* a hash of its name */
    iso_parcel_piece_t *pieces;
    uint32_t member_count, extent_count;
} iso_parcel_list_t;

static inline iso_parcel_member_t *iso_parcel_members(iso_parcel_list_t *list)
{
    return (iso_parcel_member_t *)(list + 1);
}
static inline iso_extent_t *iso_parcel_extents(iso_parcel_list_t *list)
{
    return (iso_extent_t *)(iso_parcel_members(list) + list->member_count);
}

/* An object that is one heap and few bytes needs no carrier: the heap migrates with them in the header of its COMMIT,
 * behind its type's hash, which has so many bytes. */
#define ISO_OBJECT_HEADER sizeof(uint64_t)

/* ---- one under way, at either end ---- */

typedef struct iso_parcel {
    iso_hold_t *carrier; /* NULL: the object is one heap and what fits into the COMMIT's header */
    uint32_t member_count;
    iso_hold_t **members; /* from malloc */
    /* at the source: the object, and the routine that frees what is in it when it has gone */
    const struct iso_object_kind *kind;
    void *object;
    struct iso_delivery *delivery; /* for who is told how a doubt ended */
    bool stayed;                   /* so it ended */
} iso_parcel_t;

/* Is the heap a carrier? */
bool iso_parcel_is(const iso_heap_t *heap);
/* Is it one (NULL is none) without a carrier? */
static inline bool iso_parcel_is_header(const iso_parcel_t *parcel)
{
    return parcel && !parcel->carrier;
}

/* The list of these heaps, all at this rank, in a block of the carrier's, as its root; NULL: no room in the iso space. Without
 * the job's lock, since it may borrow slots. */
iso_parcel_list_t *iso_parcel_write(iso_heap_t *carrier, uint64_t type, iso_hold_t *const *members,
                                    uint32_t count);

/* All below are called under the job's lock. */

/* At the source, in this order, with the members' shared locks taken: they are frozen, which gives up what is empty of their
 * slots; their list is written; and the migration starts of the parcel, which is the request's from then on. What
 * is frozen and does not migrate is thawed. */
void iso_parcel_freeze(iso_parcel_t *parcel);
void iso_parcel_thaw(iso_parcel_t *parcel);
iso_status_t iso_parcel_send(iso_parcel_t *parcel, uint32_t dest, struct iso_request **request_p);

/* At the target, when the carrier's own pages have been checked: what it carries, with holds that wait for their
 * slots. ISO_ERR_INVALID: it cannot be; ISO_ERR_VERSION, ISO_ERR_NO_MEMORY. Nothing is changed then. */
iso_status_t iso_parcel_open(iso_job_t *job, iso_hold_t *carrier, void *arrival,
                             iso_parcel_t **parcel_p);

/* The members have their slots, and are owned here. */
void iso_parcel_split(iso_parcel_t *parcel);
/* They are not here any more, or will not come: there are none then. */
void iso_parcel_gone(iso_parcel_t *parcel);
void iso_parcel_set_state(iso_parcel_t *parcel, iso_heap_state_t state);
void iso_parcel_free(iso_parcel_t *parcel);

#ifdef __cplusplus
}
#endif

#endif
