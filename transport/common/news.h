/*
 * news.h - the descriptor of a bootstrap that is readable while there is something to fetch.
 *
 * An epoll, so that other descriptors (a connection, a process) can make it readable as well, and an eventfd in
 * it that is raised by hand: for what has been taken in already, and would be slept through otherwise.
 */
#ifndef TRANSPORT_COMMON_NEWS_H
#define TRANSPORT_COMMON_NEWS_H

#include <stdbool.h>

typedef struct news {
    int event_fd;  /* epoll */
    int raised_fd; /* eventfd, in event_fd; its counter is `raised` */
    bool raised;
} news_t;

/* 0 or errno. */
int news_open(news_t *news);
void news_close(news_t *news);
/* Another descriptor makes event_fd readable while it is readable itself: 0 or errno. */
int news_add(news_t *news, int fd);
void news_remove(news_t *news, int fd);
/* Is there something to fetch? Cheap when nothing changes; cannot fail or block. */
void news_set(news_t *news, bool raised);

#endif
