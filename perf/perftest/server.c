/*
 * server.c - see server.h.
 *
 * On the connection there are messages of one kind after the other: the client's text, then what the
 * two say in the collective calls of the bootstrap, in the same order at both ends.
 */
#include "server.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x7066736fu /* grows by one with every change of what is said here */
#define TEXT_MOST ((uint64_t)1 << 20)
#define REACH_SECONDS 5 /* a server that is being started is waited for */
#define REACH_TRIES 20  /* a second */
#define ANSWER_SECONDS 10

enum {
    KIND_TEXT = 1,
    KIND_READY = 2, /* the server's answer to it */
    KIND_GATHER = 3,
    KIND_BARRIER = 4
};

typedef server_frame_t frame_t;

static _Noreturn void fail(const char *what, const char *why)
{
    fprintf(stderr, "iso_perftest: %s: %s\n", what, why);
    exit(1);
}

static _Noreturn void fail_gone(void)
{
    fail("the other process", "is gone (its output says why)");
}

/* ---- bytes ---- */

static bool write_all(int fd, const void *data, size_t len)
{
    for (const char *at = data; len > 0;) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return false;
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool read_all(int fd, void *data, size_t len)
{
    for (char *at = data; len > 0;) {
        ssize_t n = recv(fd, at, len, 0);
        if (n == 0 || (n < 0 && errno != EINTR))
            return false;
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool write_frame(int fd, uint32_t kind, const void *data, uint64_t len)
{
    frame_t frame = {MAGIC, kind, len};
    return write_all(fd, &frame, sizeof frame) && write_all(fd, data, len);
}

static bool is_frame(const frame_t *frame, uint32_t kind, uint64_t most)
{
    return frame->magic == MAGIC && frame->kind == kind && frame->length <= most;
}

/* ---- the bootstrap ---- */

/* The library says which call of it has failed, and knows no more. */
static iso_status_t broken(const char *why)
{
    fprintf(stderr, "iso_perftest: the connection to the other process: %s\n", why);
    return ISO_ERR_SYSTEM;
}

static iso_status_t allgather(void *ctx, const void *mine, void *all, size_t len)
{
    const server_t *server = ctx;
    const int fd = server->fd;
    char *slots = all;
    uint32_t rank = server->table.rank;
    frame_t frame;
    memcpy(slots + rank * len, mine, len);
    if (!write_frame(fd, KIND_GATHER, mine, len) || !read_all(fd, &frame, sizeof frame))
        return broken("it has ended");
    if (!is_frame(&frame, KIND_GATHER, len) || frame.length != len)
        return broken("the two are not at the same step");
    return read_all(fd, slots + (1 - rank) * len, len) ? ISO_OK : broken("it has ended");
}

static iso_status_t barrier_start(void *ctx)
{
    server_t *server = ctx;
    server->barrier_got = 0;
    return write_frame(server->fd, KIND_BARRIER, NULL, 0) ? ISO_OK : broken("it has ended");
}

static iso_status_t barrier_test(void *ctx)
{
    server_t *server = ctx;
    char *to = (char *)&server->barrier + server->barrier_got;
    size_t left = sizeof server->barrier - server->barrier_got;
    ssize_t n = recv(server->fd, to, left, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return ISO_INPROGRESS;
    if (n <= 0)
        return broken("it has ended");
    server->barrier_got += (size_t)n;
    if (server->barrier_got < sizeof server->barrier)
        return ISO_INPROGRESS;
    return is_frame(&server->barrier, KIND_BARRIER, 0) ? ISO_OK
                                                       : broken("the two are not at the same step");
}

/* Both ends of a connection that is up. A network that fails is found out in less than a minute. */
static void begin(server_t *server, int fd, uint32_t rank)
{
    int on = 1, idle = 10, interval = 5, count = 4, unanswered = 30000;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered, sizeof unanswered);
    *server = (server_t){.fd = fd,
                         .table = {.abi_version = ISO_BOOTSTRAP_ABI,
                                   .name = "iso_perftest's connection",
                                   .ctx = server,
                                   .rank = rank,
                                   .size = 2,
                                   .allgather = allgather,
                                   .barrier_start = barrier_start,
                                   .barrier_test = barrier_test,
                                   .event_fd = fd}};
}

/* ---- meeting ---- */

static struct addrinfo *look_up(const char *host, size_t port, int flags)
{
    char service[16];
    struct addrinfo *list, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
    snprintf(service, sizeof service, "%zu", port);
    int error = getaddrinfo(host, service, &hints, &list);
    if (error)
        fail(host ? host : "this host's addresses", gai_strerror(error));
    return list;
}

static int try_addresses(const struct addrinfo *list)
{
    for (const struct addrinfo *a = list; a; a = a->ai_next) {
        int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0)
            return fd;
        int error = errno;
        if (fd >= 0)
            close(fd);
        errno = error;
    }
    return -1;
}

/* A server answers at once, or ends the connection. */
static bool is_answered(int fd)
{
    const struct timeval patience = {.tv_sec = ANSWER_SECONDS}, none = {0};
    frame_t frame;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    bool good = read_all(fd, &frame, sizeof frame) && is_frame(&frame, KIND_READY, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
    return good;
}

void server_reach(server_t *server, const char *host, size_t port, const char *text)
{
    struct addrinfo *list = look_up(host, port, 0);
    const struct timespec moment = {.tv_nsec = 1000000000 / REACH_TRIES};
    int fd = -1, error = 0;
    for (int i = 0; fd < 0 && i < REACH_SECONDS * REACH_TRIES; i++) {
        fd = try_addresses(list);
        error = errno;
        if (fd < 0 && error != ECONNREFUSED)
            break;
        if (fd < 0)
            nanosleep(&moment, NULL);
    }
    freeaddrinfo(list);
    if (fd < 0) {
        fprintf(stderr, "iso_perftest: %s port %zu: %s%s\n", host, port, strerror(error),
                error == ECONNREFUSED ? ": start iso_perftest there first, with the same -p" : "");
        exit(1);
    }
    begin(server, fd, 0);
    if (write_frame(fd, KIND_TEXT, text, strlen(text) + 1) && is_answered(fd))
        return;
    fprintf(
        stderr,
        "iso_perftest: %s port %zu: no iso_perftest of this release that is ready answers there\n",
        host, port);
    exit(1);
}

/* A socket that listens on all addresses; of both families where the host has both. */
static int listen_on(size_t port)
{
    struct addrinfo *list = look_up(NULL, port, AI_PASSIVE);
    int fd = -1, on = 1, off = 0, error = 0;
    for (int family = AF_INET6; fd < 0 && family; family = family == AF_INET6 ? AF_INET : 0)
        for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
            if (a->ai_family != family)
                continue;
            fd = socket(family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
            if (fd < 0) {
                error = errno;
                continue;
            }
            setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
            if (family == AF_INET6)
                setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
            if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 1) != 0) {
                error = errno;
                close(fd);
                fd = -1;
            }
        }
    freeaddrinfo(list);
    if (fd < 0) {
        fprintf(stderr, "iso_perftest: cannot wait on port %zu: %s: name another one (-p)\n", port,
                strerror(error));
        exit(1);
    }
    return fd;
}

void server_await(server_t *server, size_t port, char **text_p)
{
    int listening = listen_on(port), fd;
    frame_t frame;
    fprintf(stderr, "iso_perftest: waits for a client on port %zu\n", port);
    do
        fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0)
        fail("accept", strerror(errno));
    close(listening);
    begin(server, fd, 1);
    if (!read_all(fd, &frame, sizeof frame) || !is_frame(&frame, KIND_TEXT, TEXT_MOST) ||
        frame.length == 0)
        fail("the client", "is no iso_perftest of this release");
    char *text = malloc(frame.length);
    if (!text || !read_all(fd, text, frame.length))
        fail_gone();
    text[frame.length - 1] = '\0';
    *text_p = text;
}

void server_ready(const server_t *server)
{
    if (!write_frame(server->fd, KIND_READY, NULL, 0))
        fail_gone();
}

void server_check(const server_t *server)
{
    char byte;
    ssize_t n = recv(server->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        fail_gone();
}

void server_close(server_t *server)
{
    if (server->fd >= 0)
        close(server->fd);
    server->fd = -1;
}
