/*
 * wire.h - the messages between ranks: what they are, and their bytes.
 *
 * All integers are little-endian and packed. A message starts with 20 bytes: 'I' 'S', version, type,
 * length of all of it (4), source rank (4), the first 8 bytes of the job's cookie. Decoding checks
 * every length and every count against what is there; what a message asks for is checked against
 * the local state by who handles it, never here. The step of the protocol is in core/README.md.
 */
#ifndef ISO_CORE_WIRE_H
#define ISO_CORE_WIRE_H

#include "core/runs.h"
#include "core/slots.h"
#include <isomalloc/transport.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_WIRE_VERSION 7
#define ISO_WIRE_MAX ISO_TRANSPORT_MIN_SEND
#define ISO_WIRE_EXTENTS_MAX 512 /* in one message; lists that are longer go in parts */
#define ISO_WIRE_DENSE_MAX 64    /* ranges of slots */
#define ISO_WIRE_PIECES_MAX 128  /* of memory, that ride in a COMMIT */
/* What a COMMIT takes without its user header and its pieces, and what a piece takes beside its bytes. */
#define ISO_WIRE_COMMIT 60
#define ISO_WIRE_PIECE 10

typedef enum iso_msg_type {
    ISO_MSG_HELLO = 1,         /* first message to a peer: cookie, how the sender is put to */
    ISO_MSG_RESERVE = 2,       /* source: this heap, these slots, may it come? (in parts) */
    ISO_MSG_GRANT = 3,         /* target: put it */
    ISO_MSG_COMMIT = 4,        /* source: all of it is there */
    ISO_MSG_ACK = 5,           /* target: it is here */
    ISO_MSG_NACK = 6,          /* target: it is not, and will not be */
    ISO_MSG_DONE = 7,          /* source: it is yours (between nodes) */
    ISO_MSG_CANCEL = 8,        /* source: it will not come */
    ISO_MSG_REVOKE = 9,        /* giver of a standing grant: stop using it */
    ISO_MSG_UNGRANT = 10,      /* holder: I have stopped (asked or not) */
    ISO_MSG_SLOT_REQUEST = 11, /* who has a run of free slots? */
    ISO_MSG_SLOT_GIVE = 12,    /* free slots: an answer, or on their way home */
    ISO_MSG_WANT = 13,         /* the keys to these windows of yours, please */
    ISO_MSG_LEND = 14,         /* here is one; or why not */
    ISO_MSG_RECALL = 15,       /* lender: give it back */
    ISO_MSG_RETURN = 16,       /* borrower: nothing of mine can land by it any more */
    ISO_MSG_PREPARE = 17, /* owner: this heap, these slots, may come one day: a grant, please */
    ISO_MSG_OFFER = 18    /* giver: the standing grant that was asked for, or none */
} iso_msg_type_t;

#define ISO_RESERVE_HANDOVER 1u /* no bytes follow and no GRANT is wanted */
#define ISO_COMMIT_OBJECT \
    1u /* the header is not the user's: the heap is one of an object's (object.h) */
#define ISO_COMMIT_HEAD 2u /* the pieces are to be laid over an empty head of the heap (head.h) */

typedef struct iso_msg {
    iso_msg_type_t type;
    uint32_t source;
    uint64_t heap; /* its address; 0 where none is meant */
    uint64_t
        epoch; /* that the migration leads to; SLOT_GIVE: no heap was in them with a later one */
    uint32_t generation; /* GRANT, COMMIT and OFFER without one: 0 */
    uint32_t flags;
    uint64_t bytes;       /* RESERVE, COMMIT: live bytes */
    uint32_t part, parts; /* RESERVE: extents come in parts 0..parts-1 */
    uint32_t slots;       /* RESERVE: slots of all parts; SLOT_REQUEST: adjacent ones wanted; HELLO:
                             slots of a window, 0: one key for all; LEND, RECALL, RETURN: the window */
    uint32_t token;   /* SLOT_REQUEST; SLOT_GIVE: that of the request, 0: on their way home; HELLO:
                             windows that can be lent at a time; LEND, RECALL, RETURN: the
                             registration's number */
    uint32_t promise; /* COMMIT: generation of a grant for the way back, once it is taken */
    int32_t reason;   /* NACK, LEND: an iso_status_t */
    iso_msg_type_t about; /* NACK, LEND: which message is answered */
    uint8_t cookie[16];   /* HELLO */
    const void *data; /* HELLO, LEND: rkey; COMMIT: user header. Points into the bytes decoded */
    uint32_t data_len;
    uint32_t extent_count;
    uint32_t dense_count; /* RESERVE, last part: slots that will be (nearly) filled, a hint */
    uint32_t piece_count; /* COMMIT: bytes that come with it, and where they belong */
    const iso_extent_t *extents; /* WANT: of windows */
    const iso_extent_t *dense;
    const iso_run_t *pieces;
    const void
        *piece_bytes; /* of all pieces, one after the other; NULL: they are in their places */
} iso_msg_t;

/* The lists of a message that came: they are most of a message's room, few have them, and no more of it is written
 * than there is in a list. */
typedef struct iso_msg_lists {
    iso_extent_t extents[ISO_WIRE_EXTENTS_MAX], dense[ISO_WIRE_DENSE_MAX];
    iso_run_t pieces[ISO_WIRE_PIECES_MAX];
} iso_msg_lists_t;

/* Bytes written to buf (ISO_WIRE_MAX long). The message must be sound: counts within the limits. */
size_t iso_wire_encode(const iso_msg_t *msg, const uint8_t cookie[16], void *buf);

/* The lists become the message's. ISO_ERR_INVALID: not a message of ours, or cut, or with anything beyond its end; of another job.
 * *msg_p is then as it was, or has what could be read. ISO_ERR_VERSION: of another version. */
iso_status_t iso_wire_decode(const void *buf, size_t len, const uint8_t cookie[16],
                             iso_msg_lists_t *lists, iso_msg_t *msg_p);

const char *iso_msg_name(iso_msg_type_t type);

#ifdef __cplusplus
}
#endif

#endif
