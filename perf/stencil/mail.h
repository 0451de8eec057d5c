/*
 * mail.h - the program's own messages: frames over a stream between any two ranks, by TCP.
 *
 * Where a rank can be reached travels in the user header of an empty heap that migrates there. Sending never blocks: what a
 * stream does not take waits in memory. Frames from one rank to another come in order. One thread. Whatever fails ends
 * the process with a line.
 */
#ifndef ISO_STENCIL_MAIL_H
#define ISO_STENCIL_MAIL_H

#include <isomalloc/isomalloc.h>

typedef struct mail mail_t;

typedef struct frame {
    uint32_t kind, length; /* of the bytes behind it */
    uint32_t from;         /* rank */
    uint32_t task, side, step;
} frame_t;
typedef void (*mail_fn)(const frame_t *frame, const void *bytes);

/* Collective. Takes the job's arrival callback over while it runs, and sets none at its end. fn is called by mail_turn, and by
 * mail_send for what is to go to this rank itself. */
mail_t *mail_open(iso_job_t *job, mail_fn fn);
/* Everything has been received that was sent. Collective, by an iso_barrier before it. */
void mail_close(mail_t *mail);

void mail_send(mail_t *mail, uint32_t rank, frame_t frame, const void *bytes);
/* Has all gone that was sent? */
bool mail_sent(const mail_t *mail);
/* Sends and receives what can be; returns how many frames came. */
unsigned mail_turn(mail_t *mail);
/* Sleeps until there may be something for mail_turn or for the job's progress, at most for 10 ms. */
void mail_wait(mail_t *mail);

#endif
