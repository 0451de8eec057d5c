/*
 * stack_code.c - what code the stacks of a heap depend on: the heap has a digest of it, and on some ways the list (code.h).
 *
 * The list is wanted only to say in words what differs. So it is a block of the heap only where the heap goes to who may
 * have other code: into a file, or to a rank that no stacks have gone to from here yet, nor come from. To all others
 * heaps go without: it would be a page more for each, where a thread takes three.
 */
#include "core/code.h"
#include "core/heap_layout.h"
#include "core/job.h"
#include "core/peer.h"
#include "core/stack.h"
#include <string.h>

uint64_t iso_stack_code(const iso_heap_t *heap)
{
    return heap->code_digest;
}

void iso_stack_code_note(iso_heap_t *heap)
{
    heap->code_digest = iso_code()->digest;
}

static void drop_list(iso_heap_t *heap)
{
    iso_code_t *list = heap->code;
    heap->code = NULL;
    iso_free(list);
}

void iso_stack_code_forget(iso_heap_t *heap)
{
    heap->code_digest = 0;
    drop_list(heap);
}

/* This process's: a heap whose stacks depend on anything else is not here. */
static void add_list(iso_heap_t *heap)
{
    const iso_code_t *ours = iso_code();
    heap->code = iso_malloc(heap, iso_code_size(ours));
    if (heap->code) /* else who refuses it can name nothing */
        memcpy(heap->code, ours, iso_code_size(ours));
}

void iso_stack_code_leave(const iso_hold_t *hold, const iso_peer_t *peer)
{
    iso_job_t *job = hold->job;
    iso_heap_t *heap = hold->heap;
    const bool wanted = !peer || !peer->same_code;
    if (heap->stacks == 0 || wanted == (heap->code != NULL))
        return;
    iso_job_unlock(job); /* whoever waits for room of the space does so without */
    if (wanted)
        add_list(heap);
    else
        drop_list(heap);
    iso_job_lock(job);
}

/* By what the slot says: where the heap is a part of an object, the table names another one until it has arrived. */
static bool is_list_of(const iso_heap_t *heap, const iso_code_t *code)
{
    const iso_slot_t *slot = iso_slot_of(code);
    const uintptr_t offset = (uintptr_t)code & ISO_SLOT_MASK;
    return iso_heap_of(code) && iso_check_holds(slot) && slot->heap == (uintptr_t)heap &&
           offset >= ISO_SLOT_HEADER && offset + sizeof *code <= ISO_SLOT_SIZE &&
           code->count <= ISO_CODE_OBJECTS_MAX && offset + iso_code_size(code) <= ISO_SLOT_SIZE;
}

iso_status_t iso_stack_code_check(const iso_job_t *job, const iso_heap_t *heap)
{
    char what[256] = "other code is here, and which the heap does not say";
    const iso_code_t *code = heap->code;
    if (code && !is_list_of(heap, code))
        return ISO_ERR_INVALID;
    if (heap->code_digest == iso_code()->digest)
        return ISO_OK;
    if (code)
        iso_code_differ(code, what, sizeof what);
    iso_log(&job->logger, ISO_LOG_ERROR, "heap %p has stacks and cannot come here: %s",
            (const void *)heap, what);
    return ISO_ERR_CODE;
}
