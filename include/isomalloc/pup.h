/*
 * pup.h - pack and unpack: one routine of the user's that sizes, packs, unpacks, saves and checks an object.
 *
 * The names and meanings are those of Converse (Charm++'s C interface to PUP), so that routines written
 * for it compile unchanged:
 *
 *     void pup_mesh(pup_er p, mesh_t *mesh)
 *     {
 *         pup_int(p, &mesh->points);
 *         if (pup_isUnpacking(p))
 *             mesh->weights = malloc(mesh->points * sizeof(double));
 *         pup_doubles(p, mesh->weights, mesh->points);
 *         iso_pup_heap(p, job, &mesh->heap);
 *         if (pup_isDeleting(p))
 *             free(mesh->weights);
 *     }
 *
 * The routine passes everything that belongs to the object, in the same order each time, to the pup_er; what
 * happens to it is the pup_er's business: a sizer counts, others copy it to memory or to a file, or back,
 * or compute a checksum. Ordinary memory goes in by value, as bytes of this machine. A heap of the iso space goes
 * in as its live pages, and is at the same addresses when it comes out: every pointer into it and inside it holds.
 *
 * Errors. The functions of Converse return nothing. A pup_er keeps its first error (iso_pup_status): from then
 * on it packs nothing more, and unpacks zeros, so that a routine needs no checks of its own: an array whose
 * length was lost has none. What knows the error logs one line.
 *
 * Threads. One thread uses a pup_er at a time. Different ones are independent of each other.
 */
#ifndef ISOMALLOC_PUP_H
#define ISOMALLOC_PUP_H

#include <isomalloc/isomalloc.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void *pup_er;

/* ---- kinds ------------------------------------------------------------------------------------ */

/* Each returns NULL when there is no memory, and is ended by pup_destroy. */

/* Counts the bytes that packing the same object would take: pup_size. */
ISO_API pup_er pup_new_sizer(void);

/* To and from memory of the caller's. Converse's have to be given as much as is packed and
 * unpacked; the others know where it ends: what is beyond is ISO_ERR_LIMIT (packing) or
 * ISO_ERR_INVALID (unpacking). */
ISO_API pup_er pup_new_toMem(void *buffer);
ISO_API pup_er pup_new_fromMem(const void *buffer);
ISO_API pup_er iso_pup_new_to_memory(void *buffer, size_t size);
ISO_API pup_er iso_pup_new_from_memory(const void *buffer, size_t size);

/* The same, of Converse's too, in a form that machines of other kinds read: the most significant
 * byte of each item first. */
ISO_API pup_er pup_new_network_sizer(void);
ISO_API pup_er pup_new_network_pack(void *buffer);
ISO_API pup_er pup_new_network_unpack(const void *buffer);

/* To and from a file, from where it stands; it stays open, and the caller's. By a descriptor:
 * small items are gathered and written at pup_destroy at the latest, iso_pup_flush does so before
 * and tells the status; what is read ahead is given back by pup_destroy, and of what cannot seek
 * (a pipe) nothing is read ahead. A file that ends too soon is ISO_ERR_INVALID, one that cannot be
 * written or read ISO_ERR_SYSTEM. */
ISO_API pup_er iso_pup_new_to_fd(int fd);
ISO_API pup_er iso_pup_new_from_fd(int fd);
ISO_API pup_er iso_pup_new_to_file(FILE *file);
ISO_API pup_er iso_pup_new_from_file(FILE *file);

/* Computes a checksum (XXH3, 64 bits) of what packing the same object would write: iso_pup_digest,
 * any time. */
ISO_API pup_er iso_pup_new_checksum(void);
ISO_API uint64_t iso_pup_digest(const pup_er p); /* 0: not a checksum */

/* Passes everything on to p with its type and count before it, and comments and syncs as well;
 * when it unpacks, it compares: a routine that unpacks other than it packed ends in
 * ISO_ERR_INVALID at the item that differs. Errors are p's, too, which stays the caller's, must
 * outlive it, and is not used on its own meanwhile. */
ISO_API pup_er pup_new_fmt(pup_er p);

/* NULL is ignored. Ends the pup_er; the memory or file that it was made with stays. */
ISO_API void pup_destroy(pup_er p);

/* ---- what kind it is --------------------------------------------------------------------------- */

/* 1 or 0. Of sizing, packing and unpacking one is true. (A checksum packs.) */
ISO_API int pup_isSizing(const pup_er p);
ISO_API int pup_isPacking(const pup_er p);
ISO_API int pup_isUnpacking(const pup_er p);
/* The object goes once it is packed: the routine frees what it has allocated. */
ISO_API int pup_isDeleting(const pup_er p);
/* The object has gone already (iso_migrate_pup): the routine runs to free, and packs nothing. Its
 * heaps are not to be touched: they are elsewhere, or they are back, as another object's. */
ISO_API int iso_pup_is_gone(const pup_er p);
ISO_API int pup_isUserlevel(const pup_er p);  /* the program's own use, not the runtime's */
ISO_API int pup_isRestarting(const pup_er p); /* from a checkpoint of an earlier job */
ISO_API int pup_isCheckpoint(const pup_er p);
ISO_API int pup_isMigration(const pup_er p);
/* The kind's name, static. */
ISO_API char *pup_typeString(const pup_er p);

/* What the routine is told of its use; new ones say no to all. or'ed together. */
typedef enum iso_pup_use {
    ISO_PUP_DELETING = 1,
    ISO_PUP_USERLEVEL = 2,
    ISO_PUP_RESTARTING = 4,
    ISO_PUP_CHECKPOINT = 8,
    ISO_PUP_MIGRATION = 16
} iso_pup_use_t;
/* Before the first item. ISO_ERR_INVALID, and nothing changed: an unknown bit, or DELETING where
 * nothing is packed. */
ISO_API iso_status_t iso_pup_set_use(pup_er p, unsigned use);

/* Bytes that have been sized, packed or unpacked so far. */
ISO_API size_t pup_size(const pup_er p);

/* The first error, or ISO_OK. Of a file that is packed to, what iso_pup_flush has not written yet
 * may still fail. */
ISO_API iso_status_t iso_pup_status(const pup_er p);
/* Writes what was gathered. Returns the status. */
ISO_API iso_status_t iso_pup_flush(pup_er p);
/* For routines that find something wrong: sets the status, if it has none yet. */
ISO_API void iso_pup_fail(pup_er p, iso_status_t status);

/* ---- items ------------------------------------------------------------------------------------ */

/* pup_int(p, &i) one, pup_ints(p, array, count) count of them; the others alike. */
/* NOLINTBEGIN(bugprone-macro-parentheses): a type */
#define ISO_PUP_TYPE(name, type)                \
    ISO_API void pup_##name(pup_er p, type *v); \
    ISO_API void pup_##name##s(pup_er p, type *array, size_t count);
/* NOLINTEND(bugprone-macro-parentheses) */
ISO_PUP_TYPE(char, char)
ISO_PUP_TYPE(short, short)
ISO_PUP_TYPE(int, int)
ISO_PUP_TYPE(long, long)
ISO_PUP_TYPE(uchar, unsigned char)
ISO_PUP_TYPE(ushort, unsigned short)
ISO_PUP_TYPE(uint, unsigned int)
ISO_PUP_TYPE(ulong, unsigned long)
ISO_PUP_TYPE(float, float)
ISO_PUP_TYPE(double, double)
ISO_PUP_TYPE(pointer,
             void *)        /* its value: meaningful where what it points to is in the iso space */
ISO_PUP_TYPE(int8, int64_t) /* 8 bytes, as Converse names it */
ISO_PUP_TYPE(size_t, size_t)
#undef ISO_PUP_TYPE
ISO_API void pup_bytes(pup_er p, void *bytes, size_t count);

/* Marks between items, for pup_new_fmt; elsewhere they do nothing. `sync` numbers must agree when
 * it unpacks, messages are for people. */
ISO_API void pup_syncComment(const pup_er p, unsigned sync, const char *message);
ISO_API void pup_comment(const pup_er p, const char *message);
ISO_API void pup_fmt_sync_begin_object(pup_er p);
ISO_API void pup_fmt_sync_end_object(pup_er p);
ISO_API void pup_fmt_sync_begin_array(pup_er p);
ISO_API void pup_fmt_sync_end_array(pup_er p);
ISO_API void pup_fmt_sync_item(pup_er p);

/* A heap: its live pages, with what tells where they belong. Sizing and packing, *heap_p is a heap
 * that is here, and stays what it is; it is frozen during the call, as in a migration. Unpacking,
 * *heap_p becomes the heap, owned by this rank, at the addresses that it had; contents that no
 * block has are undefined.
 * Packed without ISO_PUP_DELETING it is a copy: it can be unpacked where all of its slots are free
 * at this rank, in this job when the heap has been destroyed, or in another job with the same
 * base. Packed with it the heap moves: it is gone here (*heap_p becomes NULL), its slots stay
 * reserved, and it is unpacked once, at any rank of this job. It is gone when its own bytes are
 * out: if a later item of the routine fails (room, or a disk, that ends), the heaps that were
 * packed before it are in what was packed, and nowhere else: unpack them from there, as far as it
 * goes. Who wants all or nothing packs a copy, and destroys the heaps when all of it is safe;
 * iso_migrate_pup is all or nothing by itself.
 * Errors, in the pup_er's status; *heap_p and the heap are as before: ISO_ERR_NOT_OWNER,
 * ISO_ERR_BUSY (migrating, or the caller's own stack is in it, or one that somebody runs on:
 * ISO_STACK_RUNS, stack.h; or, unpacking, slots are in use here, or free at another rank),
 * ISO_ERR_VERSION (of another version or layout), ISO_ERR_INVALID (no heap, of a space at another
 * base, or with slots that are not its own), ISO_ERR_NO_MEMORY. Bytes that were damaged in between
 * are not found: only images (checkpoint.h) have checksums. Unpacking a heap that moved a second
 * time, when it is not at this rank any more, cannot be found out: it would have two owners. */
ISO_API void iso_pup_heap(pup_er p, iso_job_t *job, iso_heap_t **heap_p);

/* The same for a block of iso_movable_alloc, with the heap that is its own. ISO_ERR_NOT_MOVABLE:
 * it is another's. */
ISO_API void iso_pup_block(pup_er p, iso_job_t *job, void **block_p);

/* A size in two bytes, rounded down by less than 0.5 %: 1,023 and less stay what they are. The code
 * is our own: Converse's keeps 8,191 and less. */
ISO_API uint16_t pup_encodeSize(size_t s);
ISO_API size_t pup_decodeSize(uint16_t a);

/* ---- kinds of one's own
 * ------------------------------------------------------------------------- */

typedef enum iso_pup_direction {
    ISO_PUP_SIZING = 1,
    ISO_PUP_PACKING = 2,
    ISO_PUP_UNPACKING = 3
} iso_pup_direction_t;

typedef enum iso_pup_type {
    ISO_PUP_BYTES,
    ISO_PUP_CHAR,
    ISO_PUP_SHORT,
    ISO_PUP_INT,
    ISO_PUP_LONG,
    ISO_PUP_UCHAR,
    ISO_PUP_USHORT,
    ISO_PUP_UINT,
    ISO_PUP_ULONG,
    ISO_PUP_FLOAT,
    ISO_PUP_DOUBLE,
    ISO_PUP_POINTER,
    ISO_PUP_INT8,
    ISO_PUP_SIZE
} iso_pup_type_t;

typedef struct iso_pup_kind {
    size_t struct_size; /* sizeof(iso_pup_kind_t) */
    const char *name;   /* pup_typeString */
    iso_pup_direction_t direction;
    /* `count` items of `size` bytes each: out of `data`, or (unpacking) into it. A heap comes as BYTES, its pages
     * straight out of it or into it. An error becomes the pup_er's status. */
    iso_status_t (*items)(void *context, void *data, size_t count, size_t size,
                          iso_pup_type_t type);
    /* NULL: nothing to do. */
    iso_status_t (*mark)(void *context, unsigned sync, const char *message);
    iso_status_t (*flush)(void *context);
    void (*destroy)(void *context);
} iso_pup_kind_t;

/* The kind must outlive the pup_er; the context is its destroy's to free. NULL: no memory, or the
 * kind lacks `items` or is of another size (logged); destroy is not called then. */
ISO_API pup_er iso_pup_new(const iso_pup_kind_t *kind, void *context);

/* ---- objects that migrate
 * ----------------------------------------------------------------------- */

typedef void (*iso_pup_fn)(pup_er p, void *object);

/* A type of objects. All ranks register the same names for the same routines. */
typedef struct iso_object_type {
    size_t struct_size; /* sizeof(iso_object_type_t) */
    const char *name;
    size_t size;    /* of an object: where one arrives it is made, zeroed, by calloc */
    iso_pup_fn pup; /* of everything in it */
    /* An object has come; it is the program's, to be freed by free(). Runs as an iso_arrival_fn does. `status` is
     * ISO_OK, or the error with which its routine unpacked (iso_pup_status, logged): then what was not unpacked is
     * zero, and heaps that were not have arrivals of their own. */
    void (*arrived)(iso_job_t *job, void *object, uint32_t source, iso_status_t status, void *arg);
    /* Or NULL. The migration of an object from here ended in ISO_ERR_IN_DOUBT, and now it is known that it has not
     * gone: it is here, whole, and the program's again. (If it has gone the routine runs to free it.) */
    void (*stayed)(iso_job_t *job, void *object, void *arg);
    void *arg;
} iso_object_type_t;

/* From here on objects of this type may arrive; those that did before have waited for it. What the
 * pointers point to is copied, but for arg. ISO_ERR_INVALID: something is missing, or the name is
 * taken (logged); ISO_ERR_NO_MEMORY. */
ISO_API iso_status_t iso_pup_register(iso_job_t *job, const iso_object_type_t *type);

/* Moves an object to rank dest. The routine packs it, once: what is passed by value is copied,
 * once, and heaps and blocks that it passes to iso_pup_heap and iso_pup_block come along as they
 * are, their live pages put to the same addresses as iso_migrate does; no other memory is needed
 * than for that copy, at either end. All of it migrates as one, whoever dies: it is there, or it is
 * here. If there is no memory there for the `size` bytes of a new object when it comes, it waits,
 * and a later progress makes it (logged). Until the request ends the object and its heaps are not
 * touched, as with iso_migrate, whose rules, ends and errors hold:
 *   - ISO_OK: the routine runs once more, packing nothing, with ISO_PUP_DELETING, in iso_test or
 *     iso_wait (or in progress, if a doubt was settled; not after iso_finalize), and frees what the
 *     object has allocated; pointers to its heaps are NULL then. The object's own `size` bytes stay
 *     the caller's. At dest the routine unpacks a new one, in progress there.
 *   - ISO_ERR_IN_DOUBT: the object is not touched before the type's `stayed` says that it is here,
 *     or the routine frees it.
 *   - else the object is here and whole, as it was.
 * `type` is a registered name. Errors at once, beside those of iso_migrate, with nothing changed:
 * ISO_ERR_INVALID (no such type), ISO_ERR_BUSY (a heap twice), ISO_ERR_NO_SPACE, and what the
 * routine sets (iso_pup_fail). Statistics count it as one heap. */
ISO_API iso_status_t iso_migrate_pup(iso_job_t *job, uint32_t dest, const char *type, void *object,
                                     iso_request_t **request_p);

#ifdef __cplusplus
}
#endif
#endif
