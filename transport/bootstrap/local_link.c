/*
 * local_link.c - a rank's side of the socket to iso_run. See local_link.h.
 *
 * Every wait is a poll on the socket, never a spin. A send that finds no room takes in packets, so
 * that the two sides cannot block each other.
 */
#include "local_link.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void iso_local_log(const iso_local_link_t *link, iso_log_level_t level, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    link->log(level, text);
}

/* From here on every call fails: who waits for a barrier must learn it through event_fd too. */
static iso_status_t link_lose(iso_local_link_t *link, iso_status_t status)
{
    link->lost = true;
    if (link->barrier_open && !link->barrier_done) { /* one that has passed has passed */
        link->barrier_done = true;
        link->barrier_status = status;
    }
    /* A socket that has hung up stays readable for ever: nobody shall spin on it. */
    news_remove(&link->news, link->fd);
    return status;
}

static iso_status_t link_gone(iso_local_link_t *link, const char *call, int error)
{
    if (error == 0 || error == EPIPE)
        iso_local_log(link, ISO_LOG_ERROR,
                      "iso_run is gone (rank %u's connection to it was closed)", link->rank);
    else
        iso_local_log(link, ISO_LOG_ERROR, "iso_run is gone: %s on rank %u's socket %d: errno %d",
                      call, link->rank, link->fd, error);
    return link_lose(link, ISO_ERR_SYSTEM);
}

static void take_answer(iso_local_link_t *link, uint16_t request, size_t len)
{
    const iso_local_head_t *head = &link->packet.head;
    iso_local_wait_t *wait = &link->wait;

    if (wait->request != request || wait->done)
        return; /* nobody waits for it */
    if (head->type == ISO_LOCAL_ERROR) {
        wait->status = (iso_status_t)head->status;
        wait->done = true;
        iso_local_log(link, wait->status == ISO_ERR_PEER_DEAD ? ISO_LOG_WARN : ISO_LOG_ERROR,
                      "%.*s", (int)len, link->packet.payload);
        return;
    }
    if (head->offset == wait->have && head->total <= wait->room && len <= wait->room - wait->have)
        memcpy(wait->into + head->offset, link->packet.payload, len);
    wait->have += len;
    if (wait->have < head->total)
        return;
    wait->done = true;
    wait->status = ISO_OK;
    if (head->total > wait->room) {
        iso_local_log(link, ISO_LOG_ERROR,
                      "the answer of iso_run has %llu bytes where the caller has room for %llu",
                      (unsigned long long)head->total, (unsigned long long)wait->room);
        wait->status = ISO_ERR_INVALID;
    }
}

static void take_barrier(iso_local_link_t *link, size_t len)
{
    if (!link->barrier_open || link->barrier_done)
        return;
    link->barrier_done = true;
    link->barrier_status = ISO_OK;
    if (link->packet.head.type == ISO_LOCAL_ERROR) {
        link->barrier_status = (iso_status_t)link->packet.head.status;
        iso_local_log(link, ISO_LOG_ERROR, "%.*s", (int)len, link->packet.payload);
    }
}

static void take_death(iso_local_link_t *link)
{
    uint32_t rank = link->packet.head.rank;

    if (rank >= link->size)
        return;
    for (uint32_t i = 0; i < link->dead_count; i++)
        if (link->dead[i] == rank)
            return;
    link->dead[link->dead_count++] = rank;
}

static iso_status_t take_packet(iso_local_link_t *link, size_t len)
{
    const iso_local_head_t *head = &link->packet.head;

    if (len < sizeof head->version || head->version != ISO_LOCAL_PROTOCOL ||
        len < sizeof link->packet.head) {
        iso_local_log(
            link, ISO_LOG_ERROR,
            "iso_run speaks protocol %u and this module %u: use iso_run and the library of one "
            "installation",
            len < sizeof head->version ? 0 : head->version, ISO_LOCAL_PROTOCOL);
        return link_lose(link, ISO_ERR_VERSION);
    }
    if (head->join != link->join)
        return ISO_OK; /* meant for an earlier open of this socket */
    len -= sizeof link->packet.head;
    switch (head->type) {
    case ISO_LOCAL_WELCOME:
        take_answer(link, ISO_LOCAL_HELLO, len);
        break;
    case ISO_LOCAL_GATHERED:
        take_answer(link, ISO_LOCAL_ALLGATHER, len);
        break;
    case ISO_LOCAL_FOUND:
        take_answer(link, ISO_LOCAL_LOOKUP, len);
        break;
    case ISO_LOCAL_PASSED:
        take_barrier(link, len);
        break;
    case ISO_LOCAL_DEAD:
        take_death(link);
        break;
    case ISO_LOCAL_ERROR:
        if (head->answers == ISO_LOCAL_BARRIER)
            take_barrier(link, len);
        else
            take_answer(link, head->answers, len);
        break;
    default: /* a type that only a later protocol has */
        break;
    }
    return ISO_OK;
}

/* ISO_INPROGRESS: no packet is there. */
static iso_status_t take_one(iso_local_link_t *link)
{
    ssize_t len;

    if (link->lost)
        return ISO_ERR_SYSTEM;
    do {
        len = recv(link->fd, &link->packet, sizeof link->packet, MSG_DONTWAIT);
        /* ECONNRESET only says that iso_run left packets of ours unread; its own come after it. */
    } while (len < 0 && (errno == EINTR || errno == ECONNRESET));
    if (len < 0 && errno == EAGAIN)
        return ISO_INPROGRESS;
    if (len <= 0)
        return link_gone(link, "recv", len < 0 ? errno : 0);
    return take_packet(link, (size_t)len);
}

iso_status_t iso_local_take_all(iso_local_link_t *link)
{
    iso_status_t status;

    do {
        status = take_one(link);
    } while (status == ISO_OK);
    return status == ISO_INPROGRESS ? ISO_OK : status;
}

static iso_status_t link_sleep(iso_local_link_t *link, short events)
{
    struct pollfd pfd = {.fd = link->fd, .events = events};

    if (poll(&pfd, 1, -1) < 0 && errno != EINTR)
        return link_gone(link, "poll", errno);
    return ISO_OK;
}

static iso_status_t send_packet(iso_local_link_t *link, const struct msghdr *message)
{
    iso_status_t status;

    while (sendmsg(link->fd, message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        if (errno == EINTR || errno == ECONNRESET)
            continue;
        if (errno != EAGAIN)
            return link_gone(link, "sendmsg", errno);
        status = link_sleep(link, POLLIN | POLLOUT);
        if (status == ISO_OK)
            status = iso_local_take_all(link);
        if (status != ISO_OK)
            return status;
    }
    return ISO_OK;
}

iso_status_t iso_local_send(iso_local_link_t *link, uint16_t type, uint32_t rank, const void *data,
                            size_t len)
{
    iso_local_head_t head = {.version = ISO_LOCAL_PROTOCOL,
                             .type = type,
                             .join = link->join,
                             .rank = rank,
                             .total = len};
    struct iovec parts[2] = {{&head, sizeof head}, {NULL, 0}};
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    iso_status_t status;

    if (link->lost)
        return ISO_ERR_SYSTEM;
    if (type == ISO_LOCAL_ALLGATHER && len > ISO_LOCAL_MAX_GATHER / link->size)
        return send_packet(link, &message);
    do {
        parts[1].iov_base = len == 0 ? NULL : (char *)data + head.offset;
        parts[1].iov_len = len - head.offset;
        if (parts[1].iov_len > ISO_LOCAL_MAX_PAYLOAD)
            parts[1].iov_len = ISO_LOCAL_MAX_PAYLOAD;
        status = send_packet(link, &message);
        if (status != ISO_OK)
            return status;
        head.offset += parts[1].iov_len;
    } while (head.offset < len);
    return ISO_OK;
}

void iso_local_expect(iso_local_link_t *link, uint16_t request, void *into, uint64_t room)
{
    link->wait = (iso_local_wait_t){.request = request, .into = into, .room = room};
}

iso_status_t iso_local_wait(iso_local_link_t *link, uint64_t *len_p)
{
    iso_status_t status = iso_local_take_all(link);

    while (status == ISO_OK && !link->wait.done) {
        status = link_sleep(link, POLLIN);
        if (status == ISO_OK)
            status = iso_local_take_all(link);
    }
    /* An answer that came just before the end counts. */
    if (link->wait.done)
        status = link->wait.status;
    if (status == ISO_OK)
        *len_p = link->wait.have;
    link->wait.request = ISO_LOCAL_NONE;
    return status;
}

void iso_local_settle(iso_local_link_t *link)
{
    news_set(&link->news, link->barrier_done || link->dead_fetched < link->dead_count);
}
