/* parcel.c - see parcel.h. */
#include "core/parcel.h"
#include "core/grant.h"
#include "core/heap.h"
#include "core/heap_layout.h"
#include "core/job.h"
#include "core/migrate.h"
#include "core/stack.h"
#include "core/verify.h"
#include <stdlib.h>
#include <string.h>

bool iso_parcel_is(const iso_heap_t *heap)
{
    return heap->flags & ISO_HEAP_CARRIER;
}

void iso_parcel_free(iso_parcel_t *parcel)
{
    if (!parcel)
        return;
    free(parcel->delivery);
    free(parcel->members);
    free(parcel);
}

void iso_parcel_set_state(iso_parcel_t *parcel, iso_heap_state_t state)
{
    for (uint32_t i = 0; i < parcel->member_count; i++)
        parcel->members[i]->state = state;
}

/* ---- at the source ------------------------------------------------------------------------------ */

iso_parcel_list_t *iso_parcel_write(iso_heap_t *carrier, uint64_t type, iso_hold_t *const *members,
                                    uint32_t count)
{
    uint32_t extents = 0;
    iso_parcel_list_t *before = iso_heap_root(carrier);
    for (uint32_t i = 0; i < count; i++)
        extents += members[i]->extent_count;
    iso_parcel_list_t *list =
        iso_malloc(carrier, sizeof *list + count * sizeof(iso_parcel_member_t) +
                                extents * sizeof(iso_extent_t));
    if (!list)
        return NULL;
    *list = (iso_parcel_list_t){.magic = ISO_PARCEL_MAGIC,
                                .type = type,
                                .pieces = before ? before->pieces : NULL,
                                .member_count = count,
                                .extent_count = extents};
    iso_extent_t *at = iso_parcel_extents(list);
    for (uint32_t i = 0; i < count; i++) {
        const iso_hold_t *hold = members[i];
        iso_parcel_members(list)[i] =
            (iso_parcel_member_t){(uintptr_t)hold->heap, hold->epoch, hold->extent_count, 0};
        memcpy(at, hold->extents, hold->extent_count * sizeof *at);
        at += hold->extent_count;
    }
    iso_heap_set_root(carrier, list);
    iso_free(before);
    return list;
}

void iso_parcel_freeze(iso_parcel_t *parcel)
{
    for (uint32_t i = 0; i < parcel->member_count; i++) {
        iso_hold_t *hold = parcel->members[i];
        iso_heap_verify(hold);
        iso_heap_freeze(hold);
        iso_grant_drop(hold); /* of slots that are another's for a while */
        iso_heap_set_epoch(hold->heap, ++hold->epoch);
        hold->state = ISO_HEAP_MOVING;
    }
}

void iso_parcel_thaw(iso_parcel_t *parcel)
{
    for (uint32_t i = 0; i < parcel->member_count; i++)
        iso_heap_thaw(parcel->members[i]);
    iso_parcel_set_state(parcel, ISO_HEAP_OWNED);
}

iso_status_t iso_parcel_send(iso_parcel_t *parcel, uint32_t dest, iso_request_t **request_p)
{
    iso_hold_t *carrier = parcel->carrier;
    const iso_parcel_list_t *list = iso_heap_root(carrier->heap);
    iso_request_t *request = NULL;
    iso_status_t status = iso_hold_room(carrier, list->extent_count);
    if (status == ISO_OK)
        status = iso_request_open(carrier, dest, NULL, 0, &request);
    if (status != ISO_OK)
        return status;
    for (uint32_t i = 0; i < parcel->member_count; i++)
        request->has_stacks |= iso_stack_code(parcel->members[i]->heap) != 0;
    /* the members' runs are listed by who knows them */
    for (uint32_t i = 0; i < parcel->member_count && request->path == ISO_PATH_PUT; i++)
        iso_request_list(request, parcel->members[i]);
    if (request->status != ISO_OK) {
        iso_request_free(request);
        return ISO_ERR_NO_MEMORY;
    }
    status = iso_request_freeze(request);
    if (status != ISO_OK)
        return status;
    for (uint32_t i = 0; i < parcel->member_count; i++)
        iso_hold_merge(carrier, parcel->members[i]);
    request->parcel = parcel;
    *request_p = request;
    iso_migrate_begin(request);
    return ISO_OK;
}

/* ---- at the target ------------------------------------------------------------------------------ */

/* They end, too: there are no more than have room. */
static bool are_pieces(const iso_hold_t *carrier, const iso_parcel_piece_t *piece)
{
    uint64_t room = (uint64_t)carrier->slot_count << ISO_SLOT_SHIFT;
    for (; piece; piece = piece->next) {
        if ((uintptr_t)piece % _Alignof(iso_parcel_piece_t) != 0 ||
            !iso_hold_covers(carrier, (uintptr_t)piece, sizeof *piece) || room < sizeof *piece)
            return false;
        room -= sizeof *piece;
        if (piece->length > piece->room || piece->room > room ||
            !iso_hold_covers(carrier, (uintptr_t)piece, sizeof *piece + piece->room))
            return false;
        room -= piece->room;
    }
    return true;
}

static bool is_list(const iso_hold_t *carrier, iso_parcel_list_t *list)
{
    if ((uintptr_t)list % _Alignof(iso_parcel_list_t) != 0 ||
        !iso_hold_covers(carrier, (uintptr_t)list, sizeof *list) ||
        list->magic != ISO_PARCEL_MAGIC || list->member_count > carrier->slot_count ||
        list->extent_count > carrier->slot_count)
        return false;
    uint64_t extents = 0;
    if (!iso_hold_covers(carrier, (uintptr_t)list,
                         sizeof *list + list->member_count * sizeof(iso_parcel_member_t) +
                             list->extent_count * sizeof(iso_extent_t)) ||
        !are_pieces(carrier, list->pieces))
        return false;
    for (uint32_t i = 0; i < list->member_count; i++)
        extents += iso_parcel_members(list)[i].extent_count;
    return extents == list->extent_count;
}

static int by_first(const void *a, const void *b)
{
    const iso_extent_t *left = a, *right = b;
    return left->first < right->first ? -1 : left->first > right->first;
}

/* Sorts them; is no slot in two? (Those of different heaps differ in their slots' headers.) */
static bool are_apart(iso_extent_t *extents, uint32_t count)
{
    qsort(extents, count, sizeof *extents, by_first);
    for (uint32_t i = 1; i < count; i++)
        if (extents[i].first - extents[i - 1].first < iso_extent_slots(&extents[i - 1]))
            return false;
    return true;
}

static iso_status_t open_member(iso_job_t *job, iso_parcel_t *parcel, void *arrival,
                                const iso_parcel_member_t *member, const iso_extent_t *extents)
{
    iso_heap_t *heap = (iso_heap_t *)(uintptr_t)member->heap;
    iso_hold_t *hold;
    bool has_heap = false;
    for (uint32_t i = 0; i < member->extent_count; i++) {
        if (!iso_hold_has(parcel->carrier, &extents[i]) || /* else it cannot part with it */
            !iso_extent_is_of(job, &extents[i], member->heap))
            return ISO_ERR_INVALID;
        has_heap |= iso_heap_slot_of(heap) -
                        (uintptr_t)iso_space_slot_address(&job->space, extents[i].first) <
                    (uint64_t)iso_extent_slots(&extents[i]) << ISO_SLOT_SHIFT;
    }
    if (!has_heap || iso_heap_at_slot(iso_heap_slot_of(heap)) != heap)
        return ISO_ERR_INVALID;
    iso_status_t status =
        iso_heap_check_arrived(heap, member->epoch, extents, member->extent_count);
    if (status == ISO_OK)
        status = iso_hold_expect(job, heap, member->extent_count, &hold);
    if (status != ISO_OK)
        return status;
    hold->arrival = arrival;
    hold->epoch = member->epoch;
    parcel->members[parcel->member_count++] = hold;
    memcpy(hold->extents, extents, member->extent_count * sizeof *extents);
    if (!are_apart(hold->extents, member->extent_count))
        return ISO_ERR_INVALID;
    return iso_heap_take_in(job, heap);
}

iso_status_t iso_parcel_open(iso_job_t *job, iso_hold_t *carrier, void *arrival,
                             iso_parcel_t **parcel_p)
{
    iso_parcel_list_t *list = iso_heap_root(carrier->heap);
    if (!is_list(carrier, list))
        return ISO_ERR_INVALID;
    iso_parcel_t *parcel = calloc(1, sizeof *parcel);
    if (parcel)
        parcel->members = calloc(list->member_count + 1, sizeof *parcel->members);
    if (!parcel || !parcel->members || iso_hold_room(carrier, list->extent_count) != ISO_OK) {
        iso_parcel_free(parcel);
        return ISO_ERR_NO_MEMORY;
    }
    parcel->carrier = carrier;
    iso_status_t status = ISO_OK;
    const iso_extent_t *extents = iso_parcel_extents(list);
    for (uint32_t i = 0; i < list->member_count && status == ISO_OK; i++) {
        const iso_parcel_member_t *member = &iso_parcel_members(list)[i];
        status = open_member(job, parcel, arrival, member, extents);
        extents += member->extent_count;
    }
    if (status != ISO_OK) {
        iso_parcel_gone(parcel);
        iso_parcel_free(parcel);
        return status;
    }
    *parcel_p = parcel;
    return ISO_OK;
}

/* ---- both ----------------------------------------------------------------------------------------- */

void iso_parcel_split(iso_parcel_t *parcel)
{
    if (!parcel->carrier)
        return;
    iso_job_t *job = parcel->carrier->job;
    iso_parcel_list_t *list = iso_heap_root(parcel->carrier->heap);
    for (uint32_t i = 0; i < parcel->member_count; i++) {
        iso_hold_t *hold = parcel->members[i];
        iso_hold_split(parcel->carrier, hold, hold->extents,
                       iso_parcel_members(list)[i].extent_count);
        hold->arrival = NULL;
        hold->state = ISO_HEAP_OWNED;
        job->stats.heaps += !hold->counted;
        hold->counted = true;
        iso_node_begin(&job->node, iso_space_slot(&job->space, hold->heap));
        iso_heap_thaw(hold);
    }
}

void iso_parcel_gone(iso_parcel_t *parcel)
{
    for (uint32_t i = 0; i < parcel->member_count; i++)
        iso_hold_drop(parcel->members[i], false); /* it has no slots */
    parcel->member_count = 0;
}
