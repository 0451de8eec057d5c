/*
 * queue.c - those that can be resumed, in turn, for programs that have no scheduler of their own.
 *
 * Who waits has a place here, in this process's memory, and knows which; the place is what counts. A heap may be destroyed,
 * or a stack, while a thread of it waits: it is found out when its turn comes, from what the heap's metadata say, before
 * anything of it is looked at.
 */
#include "core/thread/thread.h"
#include <stdlib.h>

typedef struct iso_queued {
    iso_thread_t *thread; /* NULL: the place is free */
    const void *low;      /* of its stack: what can be asked for when it may be gone */
    uint32_t next, prev;  /* 1 + place; 0: none */
} iso_queued_t;

void iso_queue_open(iso_queue_t *queue)
{
    *queue = (iso_queue_t){.room = 0};
    pthread_mutex_init(&queue->lock, NULL);
}

void iso_queue_close(iso_queue_t *queue)
{
    pthread_mutex_destroy(&queue->lock);
    free(queue->all);
}

/* ---- places, with the lock ---- */

/* Its own place, if it is in. */
static uint32_t place_of(const iso_queue_t *queue, const iso_thread_t *thread)
{
    uint32_t place = thread->place;
    return place > 0 && place <= queue->room && queue->all[place - 1].thread == thread ? place : 0;
}

static void put_last(iso_queue_t *queue, uint32_t place, iso_thread_t *thread)
{
    queue->all[place - 1] =
        (iso_queued_t){.thread = thread, .low = thread->stack->low, .prev = queue->last};
    if (queue->last)
        queue->all[queue->last - 1].next = place;
    else
        queue->first = place;
    queue->last = place;
    queue->count++;
    thread->place = place;
}

/* Frees the place; the thread is not touched. */
static void clear(iso_queue_t *queue, uint32_t place)
{
    iso_queued_t *at = &queue->all[place - 1];
    if (at->prev)
        queue->all[at->prev - 1].next = at->next;
    else
        queue->first = at->next;
    if (at->next)
        queue->all[at->next - 1].prev = at->prev;
    else
        queue->last = at->prev;
    *at = (iso_queued_t){.next = queue->unused};
    queue->unused = place;
    queue->count--;
}

/* Is who has this place still there? Its memory may be anything by now. */
static bool is_there(const iso_threads_t *threads, uint32_t place)
{
    const iso_queued_t *at = &threads->queue.all[place - 1];
    iso_stack_t *stack = iso_stack_find(at->low);
    const iso_thread_t *thread = stack ? iso_thread_of_stack(stack) : NULL;
    return thread && thread == at->thread && iso_thread_is_here(threads, thread) &&
           thread->place == place;
}

static void clear_those_gone(iso_threads_t *threads)
{
    iso_queue_t *queue = &threads->queue;
    for (uint32_t place = queue->first, next; place; place = next) {
        next = queue->all[place - 1].next;
        if (!is_there(threads, place))
            clear(queue, place);
    }
}

/* For `count` more. */
static bool make_room(iso_threads_t *threads, size_t count)
{
    iso_queue_t *queue = &threads->queue;
    if (queue->room - queue->count >= count)
        return true;
    clear_those_gone(
        threads); /* of a program that never asks for the next one, too, they do not pile up */
    if (queue->room - queue->count >= count)
        return true;
    size_t room = 2 * (size_t)queue->room + count + 16;
    iso_queued_t *all = room < UINT32_MAX ? realloc(queue->all, room * sizeof *all) : NULL;
    if (!all)
        return false;
    queue->all = all;
    for (uint32_t place = (uint32_t)room; place > queue->room; place--) {
        all[place - 1] = (iso_queued_t){.next = queue->unused};
        queue->unused = place;
    }
    queue->room = (uint32_t)room;
    return true;
}

/* ---- in and out ---- */

iso_status_t iso_queue_push(iso_threads_t *threads, iso_thread_t *const *list, size_t count)
{
    iso_queue_t *queue = &threads->queue;
    pthread_mutex_lock(&queue->lock);
    bool room = make_room(threads, count);
    for (size_t i = 0; i < count && room; i++) {
        uint32_t place = queue->unused;
        if (place_of(queue, list[i]))
            continue;
        queue->unused = queue->all[place - 1].next;
        put_last(queue, place, list[i]);
    }
    pthread_mutex_unlock(&queue->lock);
    return room ? ISO_OK
                : iso_thread_refuse("the scheduler", list[0],
                                    "no memory for its queue: it is not resumed before "
                                    "iso_threads_take_in is called for its heap",
                                    ISO_ERR_NO_MEMORY);
}

void iso_queue_remove(iso_threads_t *threads, iso_thread_t *thread)
{
    iso_queue_t *queue = &threads->queue;
    pthread_mutex_lock(&queue->lock);
    uint32_t place = place_of(queue, thread);
    if (place)
        clear(queue, place);
    thread->place = 0;
    pthread_mutex_unlock(&queue->lock);
}

iso_thread_t *iso_queue_pop(iso_threads_t *threads)
{
    iso_queue_t *queue = &threads->queue;
    iso_thread_t *thread = NULL;
    pthread_mutex_lock(&queue->lock);
    while (queue->first && !thread) {
        uint32_t place = queue->first;
        if (is_there(threads, place)) {
            thread = queue->all[place - 1].thread;
            thread->place = 0;
        }
        clear(queue, place);
    }
    pthread_mutex_unlock(&queue->lock);
    return thread;
}
