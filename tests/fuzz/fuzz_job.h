/*
 * fuzz_job.h - rank 0 of a job of three whose other ranks are the fuzzer: what its files share.
 *
 * fuzz_job.c has the job and what the library says, fuzz_peers.c what the others say, fuzz_messages.c the rank and its heaps.
 */
#ifndef ISO_TESTS_FUZZ_JOB_H
#define ISO_TESTS_FUZZ_JOB_H

#include "core/wire.h"
#include "fuzz_transport.h"
#include <stdio.h>
#include <stdlib.h>

#define RANKS 3
#define HEAPS 6
#define MARK_BYTES 5000
#define WINDOW_SLOTS 4 /* of the others' */

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                \
        }                                                                           \
    } while (0)

/* ---- the input ---- */

typedef struct input {
    const uint8_t *at, *end;
} input_t;

static inline unsigned fuzz_take(input_t *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static inline uint64_t fuzz_take_int(input_t *in, unsigned bytes)
{
    uint64_t value = 0;
    while (bytes-- > 0)
        value = value << 8 | fuzz_take(in);
    return value;
}

/* ---- the job: fuzz_job.c ---- */

extern iso_job_t *fuzz_job;
extern iso_heap_t *fuzz_heaps[HEAPS]; /* fuzz_messages.c's */
extern fuzz_push_fn fuzz_push_message;
extern uint8_t fuzz_cookie[16];
extern uint64_t fuzz_space;     /* its address */
extern bool fuzz_peers_windows; /* the others have windows */

typedef struct committed {
    uint64_t heap, epoch;
    uint32_t promise, dest;
} committed_t;
extern committed_t fuzz_committed[16]; /* the last COMMITs */
/* Of the last COMMIT of an object: what its header begins with. */
extern unsigned char fuzz_object_type[8];

/* Params of a job that begins; `how` is a byte of the input. */
void fuzz_params_fill(iso_params_t *params_p, unsigned how);
/* Once it has begun. */
void fuzz_look_at_space(void);

/* ---- what the other ranks say: fuzz_peers.c ---- */

void fuzz_say_hello(void);
/* Any message, most of them nearly right. One that is dropped has changed nothing. */
void fuzz_message(input_t *in);
/* The answer that a sound peer would give, so that what comes after a sound start is reached. */
void fuzz_answer(input_t *in, iso_msg_type_t type);
/* What a lender says of the window that a heap is in: here is its key, give it back. */
void fuzz_lend(input_t *in, iso_msg_type_t type);
/* A heap that left for a rank with a promised grant comes straight back: its pages are still here. */
void fuzz_come_back(input_t *in);

#endif
