/*
 * protect.h - protections of a heap's pages (iso_protect): a list in a block of the heap, so that it goes where the
 * heap goes, and what of it holds in this process.
 *
 * A protection is one process's, and nobody may meet one of a heap that is not theirs: who puts or saves a heap reads all
 * of its live pages, and slots that have left belong to somebody else next. So they hold in heaps that are here, owned and
 * not frozen, only (iso_hold_t::is_protected): made by iso_protect and in iso_heap_thaw, lifted in iso_heap_freeze, with the
 * block that they are in, and with the heap. That is done at each turn of a heap that goes to and fro, since each splits a
 * mapping anyhow.
 *
 * Each is of whole pages that hold nothing but one live block, which is no stack: no metadata ever have one, this
 * list included.
 *
 * The list changes under the job's lock: who registers memory in the middle of another thread's use of the heap looks at it.
 */
#ifndef ISO_CORE_PROTECT_H
#define ISO_CORE_PROTECT_H

#include "core/block.h"
#include "core/hold.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Part of what migrates: fixed widths. */
typedef struct iso_protection {
    uint64_t start, end;
    uint32_t
        protection;  /* PROT_*, which are the same numbers on all systems that the library is for */
    uint32_t unused; /* 0 */
} iso_protection_t;

/* In a block of the heap; ascending, apart, and never none. */
typedef struct iso_protections {
    uint64_t count, room;
    __extension__ iso_protection_t list[];
} iso_protections_t;

/* Can what the heap says of its protections be? What has come may be anything. */
bool iso_protect_is_sound(const iso_job_t *job, const iso_heap_t *heap);
/* What it is called where it cannot be. */
extern const char iso_protect_list[];

/* The heap is frozen, or ends: none holds here any more; it is thawed: all do. What cannot be made is logged. Under the job's
 * lock, or nobody else knows the heap. */
void iso_protect_lift(iso_hold_t *hold);
void iso_protect_make(iso_hold_t *hold);

/* The block is freed, or is about to be resized: its protections end. */
void iso_protect_end(const iso_block_t *block, const void *ptr);

/* Is any in this slot? */
bool iso_protect_is_in(const iso_heap_t *heap, const void *slot);

/* As iso_guard_pause and iso_guard_resume, whose parts they are: pages can be read and written for a while. */
void iso_protect_pause(iso_job_t *job, uint32_t first, uint32_t count);
void iso_protect_resume(iso_job_t *job, uint32_t first, uint32_t count);

/* Is the address in a protected page of this heap, which the slot table has? In a handler as well. */
bool iso_protect_has(const iso_job_t *job, const iso_heap_t *heap, uintptr_t address);

#ifdef __cplusplus
}
#endif

#endif
