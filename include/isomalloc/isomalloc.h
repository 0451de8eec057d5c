/*
 * isomalloc.h - memory at addresses that are unique in a whole parallel job.
 *
 * Every process (rank) of a job maps the same range of virtual addresses, the iso space. A heap
 * allocates blocks from it at addresses that no other rank hands out, and migrates: its live pages
 * are put, one-sided, to the identical addresses at another rank, so that every pointer into and
 * inside the heap stays valid. Nothing is packed.
 *
 * This header is all that a program needs. Read it from top to bottom: status codes, settings, job,
 * heaps, blocks, migration, progress, statistics.
 *
 * Threads. The thread level is a setting (iso_params_t::thread_level). At ISO_THREAD_MULTIPLE any
 * thread may call any function at any time, but one heap is used (iso_malloc, iso_free, iso_migrate,
 * ... on it) by one thread at a time unless it was made for many; blocks of different heaps may be
 * allocated and freed by different threads side by side. At ISO_THREAD_SERIALIZED any thread may
 * call, one at a time. At ISO_THREAD_SINGLE only the thread that called iso_init calls. Callbacks
 * run in the thread that makes progress, without any lock of the library held: they may call every
 * function but iso_finalize, and functions that wait (iso_wait, iso_barrier) only outside callbacks.
 * A callback returns: no exception, and no longjmp, leaves it.
 *
 * Heaps for many threads. A heap made with ISO_HEAP_SHARED may be used by any number of threads of
 * its rank at once, which may free, resize and ask about each other's blocks. Before iso_migrate or
 * iso_heap_destroy of it all other use has ended, as with any heap: a call that is inside is waited
 * for, and one that comes later aborts with a message. Heaps of one thread at a time are faster.
 *
 * Fork. The job is the process's that called iso_init. A child forked later may read the iso space
 * and must not allocate from it, free to it or write to it; functions that would speak for its parent
 * return ISO_ERR_INVALID. With backing anon the child sees the memory as it was at the fork, copied on
 * write; with the others it shares it: it sees what changes, and what it writes would be written. It
 * may exec. (Linux before 5.12 does not copy what an RDMA device has pinned: there, with backing anon
 * over such a device, a child has nothing in the iso space, and the log says so at level info.)
 *
 * Errors. A function that can fail returns an iso_status_t; the first place that knows an error
 * logs one line that names the value and what to do. Output arguments come last, end in _p and are
 * set only on success. A double free, a free of a pointer that is not the start of a block, and
 * metadata found damaged abort the process with a message that names address, heap and cause.
 */
#ifndef ISOMALLOC_ISOMALLOC_H
#define ISOMALLOC_ISOMALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ISO_API __attribute__((visibility("default")))
#define ISO_ALLOC_FN(size_args) __attribute__((malloc, warn_unused_result, alloc_size size_args))
#else
#define ISO_API
#define ISO_ALLOC_FN(size_args)
#endif

/* ---- version ------------------------------------------------------------------------------- */

#define ISO_VERSION_MAJOR 0
#define ISO_VERSION_MINOR 1
#define ISO_VERSION_PATCH 0

/* The version of the library that is loaded (the macros above are those compiled against), e.g.
 * "0.1.0". Each output may be NULL. Thread rules: none. */
ISO_API const char *iso_version(unsigned *major_p, unsigned *minor_p, unsigned *patch_p);

/* ---- status -------------------------------------------------------------------------------- */

typedef enum iso_status {
    ISO_OK = 0,
    ISO_INPROGRESS = 1,      /* started, not finished: make progress and test again */
    ISO_ERR_INVALID = -1,    /* an argument or a setting has a value that means nothing here */
    ISO_ERR_NO_MEMORY = -2,  /* the process has no memory left */
    ISO_ERR_NO_SPACE = -3,   /* the iso space has no free slots left that this rank could get */
    ISO_ERR_LIMIT = -4,      /* a limit of the machine or of a setting is too small */
    ISO_ERR_NO_MODULE = -5,  /* a transport or bootstrap module is not there or cannot be loaded */
    ISO_ERR_VERSION = -6,    /* versions, page sizes or data layouts differ */
    ISO_ERR_NOT_OWNER = -7,  /* the heap is not (any more) at this rank */
    ISO_ERR_BUSY = -8,       /* the object is in use: a migration of it is under way */
    ISO_ERR_RANK = -9,       /* no such rank in the job */
    ISO_ERR_REFUSED = -10,   /* the target does not admit the heap; the source still owns it */
    ISO_ERR_TIMED_OUT = -11, /* no answer within ISO_TIMEOUT; the source still owns the heap */
    ISO_ERR_IN_DOUBT = -12,  /* no answer when it counts: the heap is frozen until peers speak */
    ISO_ERR_PEER_DEAD = -13, /* the peer's process is known to be gone */
    ISO_ERR_UNREACHABLE = -14, /* no transport leads to the peer */
    ISO_ERR_NOT_MOVABLE = -15, /* the block was not allocated to move on its own */
    ISO_ERR_SYSTEM = -16,      /* a system call failed; the log line has its name and errno */
    ISO_ERR_AGAIN = -17,       /* no room right now (a transport's send queue): call again later */
    ISO_ERR_CANCELED = -18,    /* ended by the caller before it was decided */
    ISO_ERR_CODE =
        -19 /* the heap has stacks, and there other code, or at other addresses: stack.h */
} iso_status_t;

/* The meaning of a status in a few words; never NULL. Thread rules: none. */
ISO_API const char *iso_status_string(iso_status_t status);

/* ---- settings ------------------------------------------------------------------------------ */

typedef enum iso_thread_level {
    ISO_THREAD_SINGLE = 0,
    ISO_THREAD_SERIALIZED = 1,
    ISO_THREAD_MULTIPLE = 2
} iso_thread_level_t;

typedef enum iso_backing {
    ISO_BACKING_AUTO = 0,    /* shared where a node has several ranks, anon where it has one */
    ISO_BACKING_SHARED = 1,  /* one memory object per node: a migration inside it moves no bytes */
    ISO_BACKING_PRIVATE = 2, /* a memory object per rank, isolated from its node's other ranks */
    ISO_BACKING_ANON = 3     /* anonymous memory of the rank, reached where the system allows it:
                                tried by iso_init, which uses private (and says so) where it does not */
} iso_backing_t;

/* What faults when it is used, of a freed block that had slots of its own (more than 2 MiB). */
typedef enum iso_guard {
    ISO_GUARD_NONE = 0,
    ISO_GUARD_FIRST = 1, /* the page that it began in */
    ISO_GUARD_ALL = 2
} iso_guard_t;

typedef enum iso_huge_pages {
    ISO_HUGE_PAGES_AUTO = 0, /* where the kernel makes them, of memory that is about to be filled */
    ISO_HUGE_PAGES_NONE = 1  /* the default: making one waits for kernel threads */
} iso_huge_pages_t;

/* How much of the iso space is registered with the transport, which some devices take for pinned
 * memory. */
typedef enum iso_registration {
    ISO_REGISTER_AUTO = 0,  /* space, or window where a device would pin more than may be pinned */
    ISO_REGISTER_SPACE = 1, /* all of it, at the start */
    ISO_REGISTER_ODP = 2,   /* all of it, by a device that fetches pages on demand, else refused */
    ISO_REGISTER_WINDOW = 3 /* windows of it, ahead of use, within pin_limit */
} iso_registration_t;

typedef enum iso_log_level {
    ISO_LOG_ERROR = 0,
    ISO_LOG_WARN = 1,
    ISO_LOG_INFO = 2,
    ISO_LOG_DEBUG = 3
} iso_log_level_t;

typedef struct iso_job iso_job_t;   /* a process's membership of a job */
typedef struct iso_heap iso_heap_t; /* lies in the iso space: the same address at every rank */
typedef struct iso_request iso_request_t; /* one migration, seen from its source */
struct iso_bootstrap;                     /* bootstrap.h: how ranks find each other */
struct iso_transport_shared;              /* transport.h: what a program shares with a transport */
struct iso_image;                         /* checkpoint.h: heaps in a file */

/* A heap that has arrived, as the arrival and admission callbacks see it. */
typedef struct iso_arrival {
    iso_heap_t *heap;   /* do not look into it from the admission callback: it is not here yet */
    uint32_t source;    /* the rank that it comes from */
    uint64_t bytes;     /* bytes of live pages put here; 0 where none needed to be */
    const void *header; /* the sender's header: valid during the callback only */
    size_t header_len;  /* 0 in an admission that precedes the header */
} iso_arrival_t;

/* Called once for every heap that has become this rank's own. Runs in iso_progress (or in a
 * function that makes progress), without locks held. */
typedef void (*iso_arrival_fn)(iso_job_t *job, const iso_arrival_t *arrival, void *arg);

/* May a heap come here? false refuses it: the source keeps it, with ISO_ERR_REFUSED. Runs in
 * progress; must not call the library. */
typedef bool (*iso_admit_fn)(iso_job_t *job, const iso_arrival_t *arrival, void *arg);

/* Every setting. iso_params_init fills in the defaults and then what the environment says
 * (ISO_SPACE_SIZE for space_size and so on; `iso_info -c` lists all with default and meaning); what
 * the program assigns after that wins. Strings must live until iso_init returns. */
typedef struct iso_params {
    size_t struct_size; /* set by iso_params_init; leave alone */

    uint64_t space_size; /* bytes of the iso space; 0: what fits the machine */
    uint64_t space_base; /* its address; 0: the preferred base */
    iso_backing_t backing;
    uint32_t node_size;      /* ranks of a pretended node; 0: nodes as they are */
    const char *transport;   /* between nodes: auto or a module's name */
    const char *bootstrap;   /* auto or a module's name */
    const char *module_path; /* folders with modules, ':' between; "": the install's own */
    uint64_t retain;         /* bytes of unused pages a rank keeps resident */
    double timeout;          /* seconds: what "bounded time" means */
    iso_log_level_t log_level;
    iso_thread_level_t thread_level;
    bool core_dump;       /* iso space in core files (slow: the range is large) */
    bool progress_thread; /* the library makes progress, and calls back, in a thread of its own */
    uint32_t dump_signal; /* at which iso_dump writes to stderr; 0: none */
    bool
        fault_handler; /* says of a fault in the iso space what it is; then the handler before it runs */
    iso_guard_t guard;
    uint32_t guard_budget; /* guards at a time where each splits a mapping, before Linux 6.15 */
    bool poison; /* AddressSanitizer and Valgrind are told what is a block, where they run */
    bool verify_handover; /* metadata are looked over before a handover too, see iso_heap_stats */
    iso_huge_pages_t huge_pages;

    const struct iso_bootstrap *caller_bootstrap; /* the caller's own; NULL: by `bootstrap` */
    iso_arrival_fn arrival;
    void *arrival_arg;
    iso_admit_fn admit; /* NULL admits all */
    void *admit_arg;
    /* What the transport between nodes uses of the program's instead of its own (iso_ucx.h), which makes
     * it the one that `auto` means. NULL: nothing. */
    const struct iso_transport_shared *transport_shared;
    iso_registration_t registration; /* ISO_REGISTER */
    uint64_t pin_limit; /* bytes that may be registered at a time; 0: what the system allows */
    const char
        *ofi_provider; /* of transport ofi: libfabric's provider; "": the best that is there */
    /* Images whose heaps are to be restored (checkpoint.h), with ':' between their names, the same ones in every
     * rank. "": none */
    const char *images;
    bool map_images; /* iso_restart maps them, see iso_image_map */
    /* Which rank of `size` may restore this heap of an image: the same answer in every rank. NULL: the one that saved
     * it, modulo size. Must not call the library, but for what it may ask of the image. */
    uint32_t (*image_rank)(const struct iso_image *image, uint32_t number, uint32_t size,
                           void *arg);
    void *image_rank_arg;
    bool mixed_images;   /* also of different times of a job, see checkpoint.h */
    bool track_writes;   /* so that increments need not read all pages, see checkpoint.h */
    uint64_t inline_max; /* ISO_INLINE_MAX: bytes that ride in the message that ends a migration */
} iso_params_t;

/* Fills *params with the defaults and the environment's ISO_* values.
 * ISO_ERR_INVALID: an ISO_* value cannot be read; the log line names it. An unknown ISO_* name is
 * warned of once. Thread rules: none, but the environment must not change meanwhile. */
ISO_API iso_status_t iso_params_init_sized(iso_params_t *params, size_t struct_size);
static inline iso_status_t iso_params_init(iso_params_t *params)
{
    return iso_params_init_sized(params, sizeof *params);
}

/* One row of the table of settings, for programs that list them as iso_info does. */
typedef struct iso_setting {
    const char *name;          /* without ISO_, e.g. "SPACE_SIZE" */
    const char *default_value; /* as text */
    const char *help;
} iso_setting_t;

/* The table of settings; *count_p rows, static. Thread rules: none. */
ISO_API const iso_setting_t *iso_settings(size_t *count_p);

/* ---- job ----------------------------------------------------------------------------------- */

/* Joins the job: finds the other ranks, agrees with them on the iso space, maps it, opens the
 * transports. Collective over the job. params NULL: defaults and environment. The job is the
 * caller's until iso_finalize. A process started without a launcher is a job of one rank; one
 * started by a launcher that no bootstrap module here understands is refused (ISO_ERR_NO_MODULE).
 * Other errors: ISO_ERR_INVALID, ISO_ERR_LIMIT, ISO_ERR_VERSION, ISO_ERR_NO_SPACE (no common range
 * of addresses), ISO_ERR_SYSTEM. If one rank fails, all do. Thread rules: one thread; nothing else
 * of the library runs meanwhile. */
ISO_API iso_status_t iso_init(const iso_params_t *params, iso_job_t **job_p);

/* Leaves the job. Collective: makes progress until every rank that lives has called it, so that
 * migrations under way are settled first (each within the timeout). Heaps still here, and all
 * memory of the iso space, are gone. ISO_ERR_BUSY, and nothing happens: the caller's own stack is
 * in the iso space, or somebody runs on one there (ISO_STACK_RUNS, stack.h). Thread rules: one
 * thread, no other call running. */
ISO_API iso_status_t iso_finalize(iso_job_t *job);

ISO_API uint32_t iso_rank(const iso_job_t *job);
ISO_API uint32_t iso_size(const iso_job_t *job);

/* What a rank is to this one: do they share a (pretended) node? ISO_ERR_RANK. */
ISO_API iso_status_t iso_same_node(iso_job_t *job, uint32_t rank, bool *same_p);

/* Waits until every living rank has come here; makes progress meanwhile, so heaps may arrive.
 * Inside a host, a migration that ended at its source before the barrier has had its arrival
 * callback after it. Collective. Not from a callback. */
ISO_API iso_status_t iso_barrier(iso_job_t *job);

/* The iso space of the job: its first address and its length in bytes, the same in every rank. */
ISO_API void iso_space(const iso_job_t *job, void **base_p, size_t *size_p);

/* What was chosen, for people and logs: the effective backing and the transport between nodes (in
 * a job of one node that inside it, "none" in a job of one rank). The strings are static or live
 * as long as the job. */
ISO_API const char *iso_backing_name(const iso_job_t *job);
ISO_API const char *iso_transport_name(const iso_job_t *job);
/* What is registered with the transport (iso_params_t::registration), how much at a time, and why
 * so. */
ISO_API const char *iso_registration(const iso_job_t *job);

/* ---- heaps --------------------------------------------------------------------------------- */

/* Makes an empty heap at this rank; local, no message while the rank has free slots. It takes one
 * slot (2 MiB of addresses; of memory, one page). ISO_ERR_NO_SPACE. */
ISO_API iso_status_t iso_heap_create(iso_job_t *job, iso_heap_t **heap_p);

typedef enum iso_heap_flags {
    ISO_HEAP_SHARED =
        1 /* any number of threads may use it at once; so it stays where it migrates to */
} iso_heap_flags_t;

/* The same for a heap with properties: flags are or'ed together, 0 is iso_heap_create.
 * ISO_ERR_INVALID: an unknown flag; ISO_ERR_NO_MEMORY, ISO_ERR_NO_SPACE. */
ISO_API iso_status_t iso_heap_create_flags(iso_job_t *job, uint32_t flags, iso_heap_t **heap_p);

/* Frees the heap with all its blocks. ISO_ERR_NOT_OWNER; ISO_ERR_BUSY: it is migrating, or the
 * caller's own stack is in it, or one that somebody runs on (ISO_STACK_RUNS, stack.h). */
ISO_API iso_status_t iso_heap_destroy(iso_heap_t *heap);

/* A pointer that travels with the heap: how the receiver finds the data. NULL in a new heap. */
ISO_API void iso_heap_set_root(iso_heap_t *heap, void *root);
ISO_API void *iso_heap_root(const iso_heap_t *heap);

typedef struct {
    uint64_t slots;       /* slots held */
    uint64_t blocks;      /* live blocks */
    uint64_t block_bytes; /* usable bytes in them */
    uint64_t live_bytes;  /* bytes of the live runs: pages of live blocks and of metadata */
    uint64_t live_runs;   /* their number: a migration puts that many ranges */
    uint64_t epoch;       /* grows with every migration of the heap, also with one that failed */
} iso_heap_stats_t;

/* Counts by a walk of the metadata, O(slots + their 4 KiB chunks in use), and looks for damage on
 * the way: where it finds any it aborts with a message, as a migration by puts does before it.
 * ISO_ERR_NOT_OWNER. */
ISO_API iso_status_t iso_heap_stats(iso_heap_t *heap, iso_heap_stats_t *stats_p);

/* Calls fn for every live block that was allocated from the heap, in address order within a slot
 * run; stops when fn returns false. fn must not allocate from or free to this heap. Other threads
 * that use a shared heap wait meanwhile. ISO_ERR_NOT_OWNER. */
typedef bool (*iso_block_fn)(void *block, size_t usable_size, void *arg);
ISO_API iso_status_t iso_heap_walk(iso_heap_t *heap, iso_block_fn fn, void *arg);

/* Maps all live pages of the heap into this process's page tables in one go, where first touches
 * would fault one by one (useful after an arrival, before a traversal). Never changes contents. */
ISO_API iso_status_t iso_heap_populate(iso_heap_t *heap);

/* ---- blocks -------------------------------------------------------------------------------- */

/* As in C: NULL with errno ENOMEM when the space has no room; a size of 0 gives a unique block.
 * Blocks are aligned to 16 bytes, power-of-two sizes up to 4 KiB to their size. Any size up to the
 * space. Contents are undefined (iso_calloc: zero). The heap must be one, and at this rank: NULL
 * is a fault. */
ISO_API void *iso_malloc(iso_heap_t *heap, size_t size) ISO_ALLOC_FN((2));
ISO_API void *iso_calloc(iso_heap_t *heap, size_t count, size_t size) ISO_ALLOC_FN((2, 3));
/* ptr NULL allocates from heap; otherwise heap must be ptr's own, or NULL. On failure ptr stays. A
 * size of 0 makes it a minimal block; it does not free. */
ISO_API void *iso_realloc(iso_heap_t *heap, void *ptr, size_t size)
    __attribute__((warn_unused_result, alloc_size(3)));
/* alignment: a power of two up to 2 MiB, else NULL with errno EINVAL. */
ISO_API void *iso_aligned_alloc(iso_heap_t *heap, size_t alignment, size_t size) ISO_ALLOC_FN((3));
/* NULL is ignored. O(1) from the address. A block of more than 2 MiB faults when it is used after
 * that, until its addresses are handed out again: its first page, or all of it
 * (iso_params_t::guard). */
ISO_API void iso_free(void *ptr);
/* Bytes that may be used at ptr, at least what was asked for. */
ISO_API size_t iso_usable_size(const void *ptr);

/* Protects pages of a block of the heap as mprotect does: `protection` is PROT_NONE, or of
 * PROT_READ, PROT_WRITE and PROT_EXEC (<sys/mman.h>); PROT_READ | PROT_WRITE ends it. address
 * begins a page; length is rounded up to whole pages, in which nothing but that one block may lie:
 * align what is to be protected, and let small blocks be whole pages long.
 *
 * The protection is the heap's: it holds at whatever rank the heap is, also restored from an image
 * or unpacked. While the heap is frozen (it migrates, or is packed or saved) it is lifted, and what
 * is saved is what the pages hold. It ends with the block: iso_free and iso_realloc of a block with
 * protected pages may be called, and end its protections (not an iso_realloc that fails). A later
 * call takes the place of an earlier one where they overlap. Frees of blocks of up to 32 KiB are
 * somewhat slower where their 2 MiB slot has protected pages.
 *
 * Where the heap arrives, a protection that the system does not let be made (each may take two
 * mappings: vm.max_map_count) is logged, left out there, and tried again with the heap's next move.
 * After mprotect by other means the library knows of nothing, and what it is not told of faults in
 * its next user.
 *
 * ISO_ERR_INVALID: it is not of one block's pages alone, or is of a stack (stack.h), or
 * `protection` means nothing; ISO_ERR_NOT_OWNER; ISO_ERR_BUSY: the heap is migrating;
 * ISO_ERR_NO_MEMORY: the heap has no room to note it; ISO_ERR_LIMIT: the process has too many
 * mappings; ISO_ERR_SYSTEM: the system refuses. Nothing is changed then. */
ISO_API iso_status_t iso_protect(iso_heap_t *heap, void *address, size_t length, int protection);

/* A block that moves on its own: the only one of a heap that is made for it, which iso_heap_of
 * tells, to be migrated or packed (iso_pup_block). It begins a 2 MiB slot; beside its own pages it
 * takes three, and 6 MiB of addresses, or 4 MiB more than it is long: for many small ones a heap
 * is better. iso_realloc and iso_free do with it as with any block; freeing it ends its heap, and
 * it faults when it is used after that, until its addresses are handed out again. NULL with errno
 * ENOMEM. */
ISO_API void *iso_movable_alloc(iso_job_t *job, size_t size)
    __attribute__((malloc, warn_unused_result, alloc_size(2)));
/* Bytes that were asked for of such a block (iso_usable_size may be more); 0: it is none that is
 * here. */
ISO_API size_t iso_movable_length(const void *block);

/* The heap at this rank that ptr points into (any address in its slots), or NULL. O(1). */
ISO_API iso_heap_t *iso_heap_of(const void *ptr);
/* Does the address lie in an iso space of this process, whoever owns it? O(1). */
ISO_API bool iso_in_range(const void *ptr);

/* ---- migration ----------------------------------------------------------------------------- */

#define ISO_SLOT_SIZE ((size_t)2 << 20) /* the unit in which addresses are owned */
#define ISO_HEADER_MAX 2048             /* bytes of a user header */

/* Starts to move the heap to rank dest, with header_len bytes (copied) for its arrival callback.
 * From the call on the heap is frozen: no call on it and no access to its blocks, until the
 * request ends; if it ends in ISO_OK the heap is dest's. If it ends in ISO_ERR_IN_DOUBT the heap
 * stays frozen, see iso_heap_state. Any other end leaves the heap here, unchanged and usable;
 * ISO_ERR_BUSY as an end: dest, or its node, has not yet read that an earlier attempt was given
 * up. dest may be this rank: no byte moves, the arrival callback runs. Many migrations may be
 * under way at once. Errors at once, with nothing changed: ISO_ERR_NOT_OWNER, ISO_ERR_BUSY
 * (migrating, or the caller's own stack is in it, or one that somebody runs on: ISO_STACK_RUNS,
 * stack.h), ISO_ERR_RANK, ISO_ERR_INVALID (header too long, or NULL with a length),
 * ISO_ERR_PEER_DEAD, ISO_ERR_CODE (stack.h). The request is the caller's: iso_wait or iso_test
 * frees it when it has ended. */
ISO_API iso_status_t iso_migrate(iso_heap_t *heap, uint32_t dest, const void *header,
                                 size_t header_len, iso_request_t **request_p);

/* Gets ready what a migration of the heap to rank dest will need, and moves nothing: the way to
 * dest, its consent for these slots (unless its node shares memory) and, where memory is registered
 * in windows (ISO_REGISTER), the windows that the heap lies in, at both ends, as far as the limits
 * go. For a load balancer that knows what it will move: what is prepared, iso_migrate does not wait
 * for. The heap is used as before; it may grow, migrate or end meanwhile. What is prepared may be
 * displaced by what is used later. The request is one as iso_migrate's: iso_wait or iso_test frees
 * it when it has ended, iso_cancel ends it. Ends and errors are those of iso_migrate; a heap that
 * cannot be prepared may still migrate. */
ISO_API iso_status_t iso_prepare(iso_heap_t *heap, uint32_t dest, iso_request_t **request_p);

/* How a request stands: ISO_INPROGRESS, or its end, which also frees it. iso_test makes progress
 * once; iso_wait until the end, sleeping when nothing happens. */
ISO_API iso_status_t iso_test(iso_request_t *request);
ISO_API iso_status_t iso_wait(iso_request_t *request);

/* Gives up a migration: possible until its commit is sent (inside a node: until the target has
 * taken it). ISO_OK: the request, still the caller's, will end in ISO_ERR_CANCELED, and the heap
 * is usable here then. ISO_ERR_BUSY: too late, the target decides; of a small heap that dest was
 * ready for, the commit may have been sent before iso_migrate returned. */
ISO_API iso_status_t iso_cancel(iso_request_t *request);

typedef enum iso_migration_path {
    ISO_PATH_SELF = 0,     /* to the rank itself: nothing to do */
    ISO_PATH_HANDOVER = 1, /* inside a node, shared backing: no bytes */
    ISO_PATH_PUT = 2       /* live runs put by a transport */
} iso_migration_path_t;

/* What a migration has done so far: for measuring and for people. */
typedef struct iso_request_info {
    const char *step; /* the protocol step that it has reached, as the docs name it */
    iso_migration_path_t path;
    bool granted_before; /* a standing grant saved the reservation round trip */
    uint64_t live_bytes; /* of its live pages */
    uint64_t bytes_put;  /* put and locally complete */
    uint64_t puts;       /* put operations */
    bool puts_complete;  /* all of them remotely complete */
    /* Of the live pages bytes that are not put: what means anything of them, in a few pieces, rides
     * in the message that ends the migration (ISO_INLINE_MAX), of so many bytes. */
    uint64_t bytes_inline;
} iso_request_info_t;
/* Valid until the request has been freed. */
ISO_API void iso_request_query(const iso_request_t *request, iso_request_info_t *info_p);

typedef enum iso_heap_state {
    ISO_HEAP_ELSEWHERE = 0, /* not at this rank */
    ISO_HEAP_OWNED = 1,
    ISO_HEAP_MOVING = 2, /* leaving, or arriving and not usable yet */
    ISO_HEAP_IN_DOUBT =
        3 /* frozen: the commit was sent, or puts are under way, and no answer came */
} iso_heap_state_t;
/* The state of a heap as this rank knows it. Any heap address may be asked for, but that of a heap
 * that another thread destroys at the same time. */
ISO_API iso_heap_state_t iso_heap_state(const iso_heap_t *heap);

/* The caller asserts that a rank's process is gone (it learned so from its resource manager).
 * Heaps in doubt with it are settled: those it did not acknowledge are here again. Asserting this
 * of a living rank can give a heap two owners. ISO_ERR_RANK. */
ISO_API iso_status_t iso_peer_declare_dead(iso_job_t *job, uint32_t rank);

/* Replaces the arrival callback; arrivals that waited for one are delivered by the next progress.
 * When it returns no other thread is inside of the one before (so hold no lock that it takes),
 * unless it was called from a callback. */
ISO_API void iso_set_arrival(iso_job_t *job, iso_arrival_fn fn, void *arg);

/* For a library on top of this one that keeps something for each job: fn(job, arg) is called in
 * iso_finalize, when nothing can arrive any more and the heaps are still here. One at a time; NULL:
 * none. */
typedef void (*iso_end_fn)(iso_job_t *job, void *arg);
ISO_API void iso_set_end(iso_job_t *job, iso_end_fn fn, void *arg);

/* ---- progress ------------------------------------------------------------------------------ */

/* Does what can be done without waiting: sends, receives, completes, calls callbacks. Returns the
 * number of things that happened. A rank that expects heaps must call it (or a function that
 * waits) from time to time. */
ISO_API unsigned iso_progress(iso_job_t *job);

/* Makes progress until something has happened, in this thread or by another's progress, or
 * `seconds` have passed (negative: no limit), sleeping meanwhile. ISO_OK, or ISO_ERR_TIMED_OUT
 * when nothing happened. */
ISO_API iso_status_t iso_progress_wait(iso_job_t *job, double seconds);

/* For event loops: a descriptor that becomes readable when progress has work, provided that it was
 * armed: iso_event_arm after iso_progress returned 0; ISO_ERR_BUSY means that something happened
 * meanwhile: make progress instead of sleeping. The descriptor is the job's; do not close it. At
 * ISO_THREAD_MULTIPLE one thread at a time arms it and sleeps on it, and since other threads'
 * progress may have ended its requests before it armed, it tests them once more before it sleeps. */
ISO_API int iso_event_fd(iso_job_t *job);
ISO_API iso_status_t iso_event_arm(iso_job_t *job);

/* ---- looking at a job that hangs ------------------------------------------------------------- */

/* Writes to descriptor fd, at once, a block of text on what this rank is doing: heaps on their way
 * with step, epoch and time left, heaps in doubt, peers and what is queued for them, grants,
 * slots. For people; the format may change. With ISO_DUMP_SIGNAL set a signal does the same, to
 * stderr, also while every thread of the program is busy or hangs. */
ISO_API void iso_dump(iso_job_t *job, int fd);

/* ---- statistics ---------------------------------------------------------------------------- */

/* Counters of this rank since iso_init, but for those marked "now". */
typedef struct {
    uint64_t migrations_out;      /* heaps that left, by any path */
    uint64_t migrations_in;       /* heaps that arrived */
    uint64_t handovers_out;       /* of those that left: without moving bytes */
    uint64_t migrations_failed;   /* ended with the heap still here */
    uint64_t migrations_in_doubt; /* now */
    uint64_t bytes_put;
    uint64_t puts;
    uint64_t reservations;   /* reservation round trips */
    uint64_t grants_used;    /* migrations that a standing grant spared one */
    uint64_t grants_revoked; /* at this rank's wish */
    uint64_t messages_sent;
    uint64_t messages_received;
    uint64_t messages_dropped; /* malformed, of no rank of this job, or stale: changed nothing */
    uint64_t nacks_sent;
    uint64_t slots_total; /* now: owned by this rank, free or in heaps here */
    uint64_t slots_free;  /* now */
    uint64_t slots_given; /* sent to other ranks, home or on request */
    uint64_t slots_received;
    uint64_t heaps;          /* now: owned */
    uint64_t retained_bytes; /* now: resident pages that hold nothing (upper bound) */
    uint64_t released_bytes; /* given back to the system */
    uint64_t
        registered_bytes; /* now, with the transport that ISO_REGISTER is about; pinned, if it pins */
    uint64_t guards; /* now: ranges of freed large blocks, and pages below stacks, that fault */
    uint64_t guards_not_made; /* the kernel's limit or ISO_GUARD_BUDGET was reached */
    uint64_t peers;           /* now: ranks this one has talked to, or knows to be dead */
    uint64_t registrations;   /* regions that were registered */
    uint64_t deregistrations;
    uint64_t registered_high; /* the most bytes that were registered at a time */
    /* With windows (ISO_REGISTER): times that a migration from here came to another window, at either end,
     * which was registered, and the key here, or was not */
    uint64_t window_hits;
    uint64_t window_misses;
    uint64_t window_evictions; /* windows given up for others */
    uint64_t keys_recalled;    /* of these, loans to other ranks that were called back */
    uint64_t bytes_inline;     /* of heaps, that went in messages: ISO_INLINE_MAX */
} iso_stats_t;
ISO_API void iso_stats(iso_job_t *job, iso_stats_t *stats_p);

#ifdef __cplusplus
}
#endif
#endif
