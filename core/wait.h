/*
 * wait.h - sleeping until something has happened, and waking those who sleep.
 *
 * A thread that waits makes progress until its condition holds, yields a few times when nothing
 * happens (unless other programs want its core), then sleeps on the job's event descriptor. At ISO_THREAD_MULTIPLE another thread's
 * progress may handle what the sleeper waits for, or may disarm the transports' wake-ups and go
 * away: so every progress that made something happen wakes the sleepers, and every other one arms
 * the transports again for them. `activity` counts what happened: who saw an older number than it has
 * when he wants to sleep does not.
 */
#ifndef ISO_CORE_WAIT_H
#define ISO_CORE_WAIT_H

#include "core/atomic.h"
#include <isomalloc/isomalloc.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A thread in a loop of progress and sleep; {0} to begin with. */
typedef struct iso_waiter {
    unsigned idle; /* turns in a row in which nothing happened */
    uint64_t seen; /* the job's activity before the last look at the condition */
} iso_waiter_t;

/* A thread asleep, or the descriptor kept for the next one. */
typedef struct iso_sleeper {
    struct iso_sleeper *next;
    int fd; /* eventfd */
} iso_sleeper_t;

typedef struct iso_wait {
    int event_fd; /* epoll over links, bootstrap, timer and loop_fd: for the caller's loop, too */
    int timer_fd; /* deadlines */
    int loop_fd;  /* eventfd: wakes the caller's event loop */
    bool armed;   /* since the last look for deaths */
    bool loop_armed;                  /* the caller's event loop may be asleep */
    uint64_t activity;                /* times that progress made something happen */
    ISO_ATOMIC(double) crowded_until; /* nobody yields before that: see wait.c */
    iso_sleeper_t *sleepers, *spares;
} iso_wait_t;

iso_status_t iso_wait_open(iso_job_t *job);
void iso_wait_close(iso_job_t *job);

/* One turn: iso_progress, with the waiter's numbers kept. Look at the condition after it. */
unsigned iso_waiter_progress(iso_job_t *job, iso_waiter_t *waiter);
/* The same without callbacks to the user; the caller holds the lock. */
unsigned iso_waiter_advance(iso_job_t *job, iso_waiter_t *waiter);
/* Sleeps until something may have happened since the waiter's last turn, at most until `until`
 * (iso_os_now's clock). The lock is not held. */
void iso_waiter_sleep(iso_job_t *job, double until, const iso_waiter_t *waiter);

/* After a progress that made something happen, or did not. The caller holds the lock. */
void iso_wait_note(iso_job_t *job, unsigned events);

#ifdef __cplusplus
}
#endif
#endif
