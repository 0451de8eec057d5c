/*
 * object_pup.h - what an object's routine is run with on the object's way (iso_migrate_pup): three kinds of pup_er.
 *
 * One packs bytes, into what will be a COMMIT's header as long as they fit, then into pieces, which are blocks of the
 * carrier, and picks the heaps that are to come along. One takes them out again at the target. And one passes over
 * everything, so that the routine frees what has gone.
 */
#ifndef ISO_CORE_OBJECT_PUP_H
#define ISO_CORE_OBJECT_PUP_H

#include "core/parcel.h"
#include "core/pup.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What one run of a routine packs, or unpacks. */
typedef struct iso_pass {
    iso_job_t *job;
    iso_heap_t *carrier;       /* NULL: all bytes are in the header */
    iso_parcel_piece_t *piece; /* packing: the last; unpacking: the one to go on with */
    uint64_t at;               /* unpacking: in it, or in the header */
    uint64_t type;             /* packing: its hash */
    iso_hold_t **members;      /* packing: picked so far */
    uint32_t member_count, member_room;
    iso_heap_t *heap; /* unpacking without a carrier: the one that has come, until it is taken */
    const unsigned char *header; /* unpacking: what comes behind the type */
    size_t header_len;
    unsigned char packed[ISO_HEADER_MAX]; /* packing: the header, of header_len bytes */
} iso_pass_t;

extern const iso_pup_kind_t iso_pass_packer;   /* context: a pass */
extern const iso_pup_kind_t iso_pass_unpacker; /* the same */
extern const iso_pup_kind_t iso_pass_freer;    /* none */

/* Packing: from here on there is a carrier, which has what was in the header. ISO_ERR_NO_SPACE, ISO_ERR_NO_MEMORY. */
iso_status_t iso_pass_make_carrier(iso_pass_t *pass);

/* Is the pup_er one of an object's on its way? Then heaps do not go through its bytes. */
bool iso_object_is_by(const pup_er p);
/* One of an object's that has gone. */
bool iso_object_is_gone(const pup_er p);
/* iso_pup_heap, by any of the three. */
void iso_object_heap(pup_er p, iso_job_t *job, iso_heap_t **heap_p);

#ifdef __cplusplus
}
#endif

#endif
