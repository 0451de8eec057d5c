/* inline.c - see inline.h. */
#include "core/inline.h"
#include "core/head.h"
#include "core/job.h"
#include "core/live.h"
#include <string.h>

/* A run of more than so many pages is put: it is not looked into. */
#define RUN_PAGES 4
/* Room for less is not worth a look into another run. */
#define LEAST_ROOM 64
/* So little between two pieces costs less than another piece does. */
#define GAP_MOST 16

_Static_assert(ISO_WIRE_MAX <= UINT16_MAX, "the length of a piece has 16 bits in a message");

/* ---- the source ---- */

typedef struct draft {
    iso_runs_t *pieces;
    size_t first; /* of the attempt */
    size_t room;  /* bytes of the message */
} draft_t;

static bool add_piece(void *address, size_t length, void *arg)
{
    draft_t *draft = arg;
    iso_runs_t *pieces = draft->pieces;
    const uintptr_t start = (uintptr_t)address;
    if (pieces->count > draft->first) { /* with what is between, which is nobody's */
        iso_run_t *last = &pieces->list[pieces->count - 1];
        const uintptr_t end = last->address + last->length;
        if (start - end <= GAP_MOST) {
            const size_t more = start - end + length;
            if (more > draft->room)
                return false;
            last->length += more;
            pieces->bytes += more;
            draft->room -= more;
            return true;
        }
    }
    if (pieces->count == ISO_WIRE_PIECES_MAX || length + ISO_WIRE_PIECE > draft->room ||
        !iso_runs_add(pieces, start, length))
        return false;
    draft->room -= length + ISO_WIRE_PIECE;
    return true;
}

/* The pieces of the head, or what is live of a run, if all of it has room. */
static bool try(draft_t *draft, iso_hold_t *hold, const iso_run_t *run, size_t from)
{
    const size_t room = draft->room;
    const uint64_t bytes = draft->pieces->bytes;
    draft->first = draft->pieces->count;
    if (run ? iso_live_bytes(hold, run, from, add_piece, draft)
            : iso_head_pieces(hold->heap, add_piece, draft))
        return true;
    draft->pieces->count = draft->first;
    draft->pieces->bytes = bytes;
    draft->room = room;
    return false;
}

/* Which run begins with the heap's head? Mostly the first one. */
static size_t find_head(const iso_heap_t *heap, const iso_runs_t *runs)
{
    size_t run = 0;
    while (run < runs->count && run < ISO_INLINE_RUNS &&
           runs->list[run].address != iso_heap_slot_of(heap))
        run++;
    return run;
}

void iso_inline_plan(iso_hold_t *hold, const iso_runs_t *runs, size_t header_len,
                     iso_inline_t *plan)
{
    const size_t most = ISO_WIRE_MAX - ISO_WIRE_COMMIT - header_len, page = iso_os_page_size();
    const uint64_t wanted = hold->job->params.inline_max;
    draft_t draft = {&plan->pieces, 0, wanted < most ? (size_t)wanted : most};
    plan->pieces.count = 0;
    plan->pieces.bytes = plan->whole = plan->head = 0;
    const size_t head_run = find_head(hold->heap, runs);
    if (head_run < runs->count && head_run < ISO_INLINE_RUNS && try(&draft, hold, NULL, 0)) {
        const size_t length = runs->list[head_run].length;
        const size_t head = iso_head_is_all(hold->heap) ? ISO_UNIT_SIZE : ISO_HEAD_SIZE;
        plan->head_run = head_run;
        plan->head = head < length ? head : length;
    }
    for (size_t r = 0; r < runs->count && r < ISO_INLINE_RUNS && draft.room >= LEAST_ROOM; r++) {
        const iso_run_t *run = &runs->list[r];
        const size_t from = iso_inline_skip(plan, runs, r);
        if (from == run->length ||
            (run->length - from <= RUN_PAGES * page && try(&draft, hold, run, from)))
            plan->whole |= UINT64_C(1) << r;
    }
}

size_t iso_inline_skip(const iso_inline_t *plan, const iso_runs_t *runs, size_t run)
{
    if (run < ISO_INLINE_RUNS && plan->whole >> run & 1)
        return runs->list[run].length;
    return run == plan->head_run ? plan->head : 0;
}

/* ---- the target ---- */

iso_status_t iso_inline_land(const iso_hold_t *hold, const iso_msg_t *msg)
{
    const char *bytes = msg->piece_bytes;
    uintptr_t known =
        iso_heap_slot_of(hold->heap); /* a slot of the heap: most pieces are in the one before's */
    for (uint32_t i = 0; i < msg->piece_count; i++) {
        const uintptr_t address = msg->pieces[i].address, offset = address - known;
        const size_t length = msg->pieces[i].length;
        if (offset < ISO_SLOT_SIZE && length > 0 && length <= ISO_SLOT_SIZE - offset)
            continue;
        if (!iso_hold_covers(hold, address, length))
            return ISO_ERR_INVALID;
        known = address & ~(uintptr_t)ISO_SLOT_MASK;
    }
    if (msg->flags & ISO_COMMIT_HEAD)
        iso_head_make(hold->heap);
    for (uint32_t i = 0; i < msg->piece_count; i++) {
        memcpy((void *)msg->pieces[i].address, bytes, msg->pieces[i].length);
        bytes += msg->pieces[i].length;
    }
    if (msg->flags & ISO_COMMIT_HEAD)
        iso_head_complete(hold->heap);
    return ISO_OK;
}
