/*
 * checkpoint.h - heaps in files: saved by one job, at the same addresses again in a later one.
 *
 *     rank r saves:     iso_checkpoint(job, "step.r", heaps, count, NULL);
 *     later, any size:  ISO_IMAGES=step.0:step.1:step.2 iso_run -n 2 program
 *                       which calls iso_restart(job, restored, arg)
 *
 * An image is a file with any number of heaps of one rank: their live pages, which pages those are, and the root
 * pointer of each. Restored, a heap is what it was, at its old addresses, so that every pointer in it and every pointer
 * from one of them into another holds: to restore what points into each other, save it together. What lies elsewhere
 * (malloc, the stack, functions) is not in it.
 *
 * A new image takes the place of an old one of the same name when it is whole and on the disk: if the process is killed
 * meanwhile, or the disk is full, the old one is there as it was. (A symbolic link of that name is replaced, not what
 * it leads to.) Until then it is called as the image with ".part" behind; what a killed process left of that name, the
 * next checkpoint to the same name writes over, but no other file. (Where the file system has no locks it cannot be
 * told from one that is being written, and is to be removed by hand.) Its permissions are those that umask leaves.
 *
 * That is one image. Those of a job's ranks are not replaced together: if it ends in between, some are of one
 * checkpoint and some of the next, and heaps that migrated meanwhile are in two of them or in none. So give each
 * checkpoint names of its own (step.42.r), number it (iso_checkpoint_params_t::set), and remove the images of the one
 * before after an iso_barrier that follows the new one. Images of one job and different sets are refused together
 * (ISO_MIXED_IMAGES=y takes them). Without a number what counts is how often the job had been at iso_barrier: the last
 * images of all ranks must be from between the same two. (A program whose ranks save one after the other, with barriers
 * in between, has to give numbers; of one with barriers of another library no more than sets is known; nor are two
 * checkpoints between the same two barriers told apart.)
 *
 * Everything in an image has a checksum (XXH3, 64 bits): one that is cut anywhere, or has a byte changed anywhere, is
 * refused with a line that says where, and the process is as before. That is against accidents: whoever can write the
 * file can make one that is accepted. Images are of one layout of heaps (ISO_ERR_VERSION otherwise), and of machines
 * with one byte order.
 *
 * Migratable threads (thread.h) whose stacks are in a heap are saved with it, as they stand. Before:
 * iso_threads_let_go, so that none of them runs; after, and after the heap was restored: iso_threads_take_in. A thread
 * cannot save the heap that its own stack is in. A heap with stacks is restored only where the program and its
 * libraries are the same, at the same addresses (ISO_ERR_CODE): see stack.h.
 *
 * Thread rules: those of isomalloc.h. An image is used by one thread at a time.
 */
#ifndef ISOMALLOC_CHECKPOINT_H
#define ISOMALLOC_CHECKPOINT_H

#include <isomalloc/isomalloc.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- saving -------------------------------------------------------------------------------- */

/* All that is optional. Set struct_size, leave at 0 what you do not want. */
typedef struct iso_checkpoint_params {
    size_t struct_size; /* sizeof(iso_checkpoint_params_t) */
    const void *user;  /* bytes of the program's own that go into the image: see iso_image_info_t */
    size_t user_len;   /* 1 MiB at most */
    const char *since; /* an earlier image: write only pages that it has not; NULL: all pages */
    uint64_t set;      /* its number, e.g. the step: the same at all ranks; 0: none, see below */
} iso_checkpoint_params_t;

/* An increment (iso_checkpoint_params_t::since) has only those pages that differ from what the earlier image has at the
 * same address, and refers to that for the others; that may be an increment, too. It is an image as any, of all the
 * heaps that are named, but needs the earlier ones, in the same folder and under the same names (those behind symbolic
 * links), as long as it is to be restored: if one is missing, or was replaced, that is said. All pages are read to know
 * which differ (by 64-bit checksums): so it works with any backing and transport, and for a heap that was at other
 * ranks since, or restored. With ISO_TRACK_WRITES=y pages that were not written since are not read either, where the
 * kernel tells (backing anon, Linux 6.7; a warning says so else) and since is the image that this rank saved last; not
 * of a heap that has migrated meanwhile, or is at addresses that iso_image_map has used. The first write to a page
 * after each checkpoint takes some microseconds then, and huge pages are split; what a device writes to blocks that the
 * program itself has registered with it is not seen. 32 others is the most that one may need: then all is written, and
 * the log says so at level info. */

/* Saves `count` heaps of this rank (0: an image of none) in the file `path`, whose folder is there and on the same file
 * system. Returns when the image is on the disk. The heaps are all saved as of one moment: they are frozen meanwhile,
 * as while they migrate, and usable again, unchanged, when it returns, whatever it returns. Only the live pages are
 * read, from where they are; nothing is copied but by the kernel. Those of zeros take no room on the disk, and those
 * that were never touched get no memory. params NULL: nothing optional. Local: no other rank is asked; what belongs
 * together is saved between two iso_barrier.
 * ISO_ERR_NOT_OWNER, ISO_ERR_BUSY: a heap is not here, or migrating, or named twice, or the caller's stack is in it, or one that somebody
 * runs on (ISO_STACK_RUNS, stack.h); or
 * another process is writing an image of this name. ISO_ERR_SYSTEM: the file cannot be written, and the log line says
 * why (no room on the disk, ulimit -f: it also says how much is needed); or it is there, but it is not certain that its
 * name is on the disk, which is said. ISO_ERR_INVALID: path is something else than a file, or ends in ".part", or what
 * is called as it with ".part" behind is the user's; too much user data, or no struct_size; since is in another folder,
 * or it, or an image that it needs, is what would be replaced. Errors of iso_image_open, of since. ISO_ERR_NO_MEMORY.
 */
ISO_API iso_status_t iso_checkpoint(iso_job_t *job, const char *path, iso_heap_t *const *heaps,
                                    uint32_t count, const iso_checkpoint_params_t *params);

/* ---- what is in an image --------------------------------------------------------------------- */

typedef struct iso_image iso_image_t; /* an image that is open for reading */

/* Opens an image, and reads and checks all of it but the pages. Wants no job. The image is the caller's until
 * iso_image_close. The file may be replaced meanwhile: what is open stays the old one.
 * ISO_ERR_SYSTEM: it cannot be read. ISO_ERR_INVALID: it is no image, is cut, or damaged. ISO_ERR_VERSION: it is of
 * another version of the library, or of another kind of machine. */
ISO_API iso_status_t iso_image_open(const char *path, iso_image_t **image_p);
/* NULL is ignored. Heaps that were restored from it do not need it. */
ISO_API void iso_image_close(iso_image_t *image);

typedef struct iso_image_info {
    uint32_t heaps;      /* how many: 0 .. heaps-1 are their numbers here */
    uint32_t rank, size; /* which rank saved them, of a job of how many */
    uint32_t page_size;  /* of the machine that saved them */
    uint64_t space_base; /* where the iso space was, and is to be again: ISO_SPACE_BASE */
    uint64_t space_size; /* how long it was: more will do, too */
    uint32_t parents;    /* images in the same folder that it needs, as an increment */
    uint64_t bytes;      /* of the file */
    uint64_t page_bytes; /* of the heaps' live pages, in it and in its parents */
    double time;         /* when it was saved, in seconds since 1970 */
    const void *user;    /* what iso_checkpoint was given, valid until iso_image_close */
    size_t user_len;
    uint64_t set; /* iso_checkpoint_params_t::set */
} iso_image_info_t;
ISO_API void iso_image_query(const iso_image_t *image, iso_image_info_t *info_p);

typedef struct {
    iso_heap_t *heap; /* its address: it is not here because of that */
    uint64_t slots;   /* that it wants, see ISO_SLOT_SIZE */
    uint64_t bytes;   /* of its live pages */
} iso_image_heap_t;
/* ISO_ERR_INVALID: the image has no heap of this number. */
ISO_API iso_status_t iso_image_heap(const iso_image_t *image, uint32_t number,
                                    iso_image_heap_t *heap_p);

/* Reads the pages of all heaps as well, to see that they are not damaged, and keeps nothing. Restoring checks by itself
 * what it reads. ISO_ERR_INVALID, ISO_ERR_SYSTEM. */
ISO_API iso_status_t iso_image_verify(iso_image_t *image);

/* ---- restoring ------------------------------------------------------------------------------- */

/* Two ways to have the addresses that a heap wants.
 *
 * Images that are named when the job begins (ISO_IMAGES, iso_params_t::images), the same ones in every rank, with ':'
 * between: so their names have none. If they are of one job they must be of one checkpoint of it (see above), and if
 * images of some of a set's ranks are missing, that is warned of. The iso space is where it was, and at least as long:
 * ISO_SPACE_BASE and ISO_SPACE_SIZE need not be set, and if something else is mapped there iso_init fails in every
 * rank, with a line that says what. The addresses of all heaps in these images are left out of all ranks' share of the
 * space before anybody allocates, and stay out of use until the heap is restored. How many ranks there were, and are,
 * does not matter. Each rank reads which addresses every image wants, some bytes a heap, so they are to be readable at
 * every host; the lists of pages and the parents of an image one rank at the start, and pages only the rank that
 * restores the heap. A heap belongs to the rank that saved it, modulo the size of the job now, or to the one that
 * iso_params_t::image_rank names: only that rank can restore it, so that it is never at two. From there it may migrate.
 *
 * Any other image, at any time: the slots that the heap had must be free at this rank. In a job of one rank that has
 * used none of them they are; in the job that saved the image, at the rank where the heap ended. */

/* Restores one heap. *heap_p is its address, where it was; it belongs to this rank. ISO_ERR_BUSY: it is here, or its
 * slots are not free here; so a heap whose original lives in this job, at whatever rank, is refused. ISO_ERR_NOT_OWNER:
 * the image was named when the job began, and the heap is another rank's to restore. ISO_ERR_INVALID: the image is
 * damaged where the heap's pages are, or is of an iso space at another address than the job's, or of one that was
 * longer; or it has no heap of this number. ISO_ERR_CODE: it has stacks, and the code is another. ISO_ERR_RANK:
 * iso_params_t::image_rank gives no rank. ISO_ERR_SYSTEM, ISO_ERR_NO_MEMORY. Whatever fails, nothing of the heap is
 * here. */
ISO_API iso_status_t iso_image_restore(iso_job_t *job, iso_image_t *image, uint32_t number,
                                       iso_heap_t **heap_p);

/* The same, but the heap's pages are not read: they are mapped, copy-on-write, and come from the file when they are
 * touched. The file stays as it is, and takes room on its disk as long as the job has these addresses, also when the
 * heap is gone; it must not be written to meanwhile (a new image of the same name is another file). Pages are not
 * compared with their checksums: iso_image_verify does that. Each piece of the heap is a mapping of its own. Where that
 * cannot be (a backing other than anon, a transport that pins memory, more than 1,000 pieces) the heap is read after
 * all, and a line of the log says why. */
ISO_API iso_status_t iso_image_map(iso_job_t *job, iso_image_t *image, uint32_t number,
                                   iso_heap_t **heap_p);

/* Called for a heap that has been restored and is this rank's own. The image is good during the
 * call. No lock is held. */
typedef void (*iso_restored_fn)(iso_job_t *job, iso_heap_t *heap, const iso_image_t *image,
                                uint32_t number, void *arg);

/* Restores (ISO_MAP_IMAGES=y: maps) all heaps of the images that were named when the job began that
 * belong to this rank, and were not restored yet, image by image in the order of their names; fn
 * (NULL: nothing) is called after each. Local: other ranks do the same for theirs, and what points
 * into those may be followed after an iso_barrier. Stops at the first that fails, and returns its
 * error, those of iso_image_open and iso_image_restore; ISO_ERR_INVALID also if an image was
 * replaced since iso_init. A job without such images: ISO_OK, nothing to do. One thread of a rank
 * calls it: of two at once one may get ISO_ERR_BUSY for a heap that the other has just restored. */
ISO_API iso_status_t iso_restart(iso_job_t *job, iso_restored_fn fn, void *arg);

#ifdef __cplusplus
}
#endif

#endif
