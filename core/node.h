/*
 * node.h - the memory that the ranks of a node share for their arbitration: one word a slot.
 *
 * For the first slot of a heap the word decides, inside the node, who owns it: a migration is
 * MOVING(source -> target) and becomes OWNED(target) or, given up, OWNED(source) by one
 * compare-and-swap. No timeout and no message decides; a rank that dies cannot leave it undecided.
 *
 * With shared backing the node's pages are one set, and the word of a slot says who answers for them:
 * OWNED or MOVING when the slot is in the node (which of its ranks it is now says only the word of a
 * heap's first slot), LEFT(rank) for pages that a heap left behind, RELEASING(rank) while that rank
 * gives them back, CLAIMED(rank) when a heap from beyond the node is expected there, or NONE. A slot
 * that was never beyond the node may say NONE, too: no claim can speak of it.
 * One rank at a time has a claim, and nobody claims what is in the node: a reservation that its source
 * has given up may be read only when the heap is here already, by way of another rank. Claiming waits
 * for a RELEASING to end; what a rank had that is dead now stops nobody.
 *
 * A node of one rank has no segment: `words` is NULL and nobody asks.
 */
#ifndef ISO_CORE_NODE_H
#define ISO_CORE_NODE_H

#include "core/atomic.h"
#include "core/log.h"
#include "core/slots.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_node {
    uint32_t self;   /* this rank */
    uint32_t leader; /* lowest rank of the node */
    uint32_t rank_count;
    uint32_t *ranks;   /* ascending, from malloc */
    int32_t *pids;     /* of them */
    uint64_t *starts;  /* when those processes began: a pid may be used again */
    bool shared_pages; /* shared backing */
    int fd;            /* of the segment; -1: none */
    void *segment;
    size_t segment_size;
    ISO_ATOMIC(uint64_t) * words; /* one per slot */
} iso_node_t;

bool iso_node_has(const iso_node_t *node, uint32_t rank);
int32_t iso_node_pid(const iso_node_t *node, uint32_t rank);

/* The leader makes the segment; the others open it through the leader's process and check that it
 * is this job's. `slots` is the number of the space. */
iso_status_t iso_node_create(iso_node_t *node, const iso_logger_t *logger, const uint8_t cookie[16],
                             uint32_t slots);
iso_status_t iso_node_attach(iso_node_t *node, const iso_logger_t *logger, const uint8_t cookie[16],
                             uint32_t slots, int leader_fd);
void iso_node_close(iso_node_t *node);

/* Ownership, inside the node. `slot` is the heap's first, epoch the one the migration leads to. */
void iso_node_offer(iso_node_t *node, uint32_t slot, uint32_t target, uint64_t epoch);
bool iso_node_take(iso_node_t *node, uint32_t slot, uint32_t source, uint64_t epoch);
/* true: the heap stays with the source, whether the target refuses it or the source gives up. */
bool iso_node_decline(iso_node_t *node, uint32_t slot, uint32_t source, uint32_t target,
                      uint64_t epoch);
bool iso_node_taken(const iso_node_t *node, uint32_t slot, uint32_t source, uint32_t target,
                    uint64_t epoch);
/* A new heap of this rank: no offer stands. */
void iso_node_begin(iso_node_t *node, uint32_t slot);

/* Pages, with shared backing (otherwise they do nothing, and what they ask is true). */
void iso_node_leave(iso_node_t *node, uint32_t slot); /* its heap has left the node from here */
bool iso_node_release_begin(iso_node_t *node, uint32_t slot); /* false: claimed by another rank */
void iso_node_release_end(iso_node_t *node, uint32_t slot);

/* For a heap that is expected from beyond the node. `of_dead`: the heap's first slot was owned by a rank
 * that is dead, so that none of its slots is in the node. */
typedef enum iso_claim {
    ISO_CLAIM_NO,
    ISO_CLAIM_YES,
    ISO_CLAIM_OF_DEAD
} iso_claim_t;
iso_claim_t iso_node_claim(iso_node_t *node, uint32_t slot, bool of_dead);
/* The same for pages that this rank left under a grant: false when they are not its own any more. */
bool iso_node_claim_left(iso_node_t *node, uint32_t slot);
void iso_node_unclaim(iso_node_t *node, uint32_t slot); /* at once: as it was before the claim */
/* The heap will not come, its pages are left by this rank. false: others have the slot by now. */
bool iso_node_abandon(iso_node_t *node, uint32_t slot);
void iso_node_own(iso_node_t *node, uint32_t slot); /* what was claimed has come */
/* Free slots, from wherever, and to wherever. */
void iso_node_receive(iso_node_t *node, uint32_t slot);
void iso_node_give(iso_node_t *node, uint32_t slot);

#ifdef __cplusplus
}
#endif

#endif
