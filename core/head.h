/*
 * head.h - a heap's head: its first slot's header, and the heap itself behind it. 8 KiB, of which little says
 * anything: how many units are in use, which lists are not empty.
 *
 * So it can be told in a few pieces, which are laid over the head of a heap that has nothing. The two together
 * are exact: all that anything reads of a frozen heap's head is as it was.
 */
#ifndef ISO_CORE_HEAD_H
#define ISO_CORE_HEAD_H

#include "core/heap.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_HEAD_SIZE ((size_t)2 * 4096) /* whatever the OS page is: part of the layout */

/* Calls emit for each piece of a frozen heap's head, ascending. false: emit has stopped it. */
bool iso_head_pieces(const iso_heap_t *heap, iso_live_run_fn emit, void *arg);

/* Makes the head at the heap's address such a one as the pieces can be laid over. By itself it is no heap: it has neither
 * magic number nor check word. */
void iso_head_make(iso_heap_t *heap);
/* When they are: the units that medium blocks go on in, which follow from the first one of each; a stack has many. Of the units
 * that are in use by the slot's header, as the others say nothing. What was laid there may be anything. */
void iso_head_complete(iso_heap_t *heap);

/* Is there nothing behind the head in its unit? */
bool iso_head_is_all(const iso_heap_t *heap);

#ifdef __cplusplus
}
#endif

#endif
