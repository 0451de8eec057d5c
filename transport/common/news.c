/* news.c - see news.h. */
#include "news.h"
#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

int news_add(news_t *news, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    return epoll_ctl(news->event_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : errno;
}

void news_remove(news_t *news, int fd)
{
    epoll_ctl(news->event_fd, EPOLL_CTL_DEL, fd, NULL);
}

int news_open(news_t *news)
{
    int error;

    *news = (news_t){.event_fd = epoll_create1(EPOLL_CLOEXEC), .raised_fd = -1};
    if (news->event_fd < 0)
        return errno;
    news->raised_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    error = news->raised_fd < 0 ? errno : news_add(news, news->raised_fd);
    if (error == 0)
        return 0;
    if (news->raised_fd >= 0)
        close(news->raised_fd);
    close(news->event_fd);
    return error;
}

void news_close(news_t *news)
{
    close(news->raised_fd);
    close(news->event_fd);
}

void news_set(news_t *news, bool raised)
{
    eventfd_t count = 1;

    if (raised == news->raised)
        return;
    /* the counter goes between 0 and 1 */
    if (raised)
        eventfd_write(news->raised_fd, count);
    else
        eventfd_read(news->raised_fd, &count);
    news->raised = raised;
}
