/* mail.c - see mail.h. */
#include "mail.h"
#include "fail.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLEEP_MS 10
#define HOST_MAX 256

/* Bytes that grow at the end and are used up from the start. */
typedef struct bytes {
    unsigned char *data;
    size_t first, end, room;
} bytes_t;

typedef struct stream {
    int fd; /* -1: this rank itself */
    bytes_t in, out;
} stream_t;

struct mail {
    iso_job_t *job;
    mail_fn fn;
    stream_t *streams;    /* by rank */
    struct pollfd *polls; /* the same, and the job's descriptor */
};

/* Where a rank can be reached. */
typedef struct card {
    uint32_t rank;
    uint16_t port;
    char host[HOST_MAX];
} card_t;

static void check_call(int result, const char *what)
{
    if (result < 0)
        fail(what, strerror(errno));
}

static unsigned char *room_for(bytes_t *bytes, size_t count)
{
    if (bytes->first > 0 && bytes->room - bytes->end < count) {
        memmove(bytes->data, bytes->data + bytes->first, bytes->end - bytes->first);
        bytes->end -= bytes->first;
        bytes->first = 0;
    }
    if (bytes->room - bytes->end < count) {
        bytes->room = 2 * bytes->room + count;
        bytes->data = realloc(bytes->data, bytes->room);
        if (!bytes->data)
            fail("messages", "no memory");
    }
    return bytes->data + bytes->end;
}

/* ---- meeting ---- */

static card_t *cards; /* while mail_open runs: by rank */
static uint32_t card_count;

static void take_card(iso_job_t *job, const iso_arrival_t *arrival, void *arg)
{
    card_t card;
    (void)job, (void)arg;
    if (arrival->header_len != sizeof card)
        fail("a card of another rank", "it has another length");
    memcpy(&card, arrival->header, sizeof card);
    cards[card.rank] = card;
    card_count++;
    iso_heap_destroy(arrival->heap);
}

static void send_card(iso_job_t *job, uint32_t rank, const card_t *card)
{
    iso_heap_t *heap;
    iso_request_t *request;
    iso_status_t status = iso_heap_create(job, &heap);
    if (status == ISO_OK)
        status = iso_migrate(heap, rank, card, sizeof *card, &request);
    if (status == ISO_OK)
        status = iso_wait(request);
    check(status, "telling another rank where this one is");
}

static int listen_here(card_t *card)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t length = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check_call(fd, "socket");
    check_call(bind(fd, (struct sockaddr *)&at, sizeof at), "bind");
    check_call(listen(fd, SOMAXCONN), "listen");
    check_call(getsockname(fd, (struct sockaddr *)&at, &length), "getsockname");
    check_call(gethostname(card->host, sizeof card->host - 1), "gethostname");
    card->port = ntohs(at.sin_port);
    return fd;
}

static int connect_to(iso_job_t *job, const card_t *card)
{
    bool same = false;
    char port[8];
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    int fd = -1;
    iso_same_node(job, card->rank, &same);
    const char *host = same ? "127.0.0.1" : card->host;
    snprintf(port, sizeof port, "%u", card->port);
    int error = getaddrinfo(host, port, &hints, &found);
    /* ranks of one machine may pretend to be several nodes, and the name of the machine may be unknown */
    if (error)
        error = getaddrinfo("127.0.0.1", port, &hints, &found);
    if (error)
        fail(host, gai_strerror(error));
    for (const struct addrinfo *at = found; at; at = at->ai_next) {
        fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, 0);
        check_call(fd, "socket");
        if (connect(fd, at->ai_addr, at->ai_addrlen) == 0)
            break;
        close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    check_call(fd, host);
    return fd;
}

static void ready_stream(stream_t *stream, int fd)
{
    int on = 1;
    stream->fd = fd;
    check_call(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
}

/* Each rank connects to those before it, and says who it is. */
static void connect_all(mail_t *mail, int listener)
{
    uint32_t self = iso_rank(mail->job), size = iso_size(mail->job);
    for (uint32_t rank = 0; rank < self; rank++) {
        ready_stream(&mail->streams[rank], connect_to(mail->job, &cards[rank]));
        check_call((int)send(mail->streams[rank].fd, &self, sizeof self, MSG_NOSIGNAL),
                   "a first word");
    }
    for (uint32_t rank = self + 1; rank < size; rank++) {
        uint32_t who;
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        check_call(fd, "accept");
        if (recv(fd, &who, sizeof who, MSG_WAITALL) != sizeof who || who <= self || who >= size)
            fail("accept", "somebody who is no rank of this job");
        ready_stream(&mail->streams[who], fd);
    }
}

mail_t *mail_open(iso_job_t *job, mail_fn fn)
{
    uint32_t self = iso_rank(job), size = iso_size(job);
    mail_t *mail = calloc(1, sizeof *mail);
    card_t mine = {.rank = self};
    cards = calloc(size, sizeof *cards);
    card_count = 1;
    if (mail) {
        mail->streams = calloc(size, sizeof *mail->streams);
        mail->polls = calloc(size + 1, sizeof *mail->polls);
    }
    if (!cards || !mail || !mail->streams || !mail->polls)
        fail("messages", "no memory");
    mail->job = job;
    mail->fn = fn;
    mail->streams[self].fd = -1;
    int listener = listen_here(&mine);
    iso_set_arrival(job, take_card, NULL);
    for (uint32_t rank = 0; rank < size; rank++)
        if (rank != self)
            send_card(job, rank, &mine);
    while (card_count < size)
        iso_progress_wait(job, 1);
    iso_set_arrival(job, NULL, NULL);
    connect_all(mail, listener);
    close(listener);
    free(cards);
    return mail;
}

void mail_close(mail_t *mail)
{
    for (uint32_t rank = 0; rank < iso_size(mail->job); rank++) {
        if (mail->streams[rank].fd >= 0)
            close(mail->streams[rank].fd);
        free(mail->streams[rank].in.data);
        free(mail->streams[rank].out.data);
    }
    free(mail->streams);
    free(mail->polls);
    free(mail);
}

/* ---- sending and receiving ---- */

static void push(stream_t *stream)
{
    bytes_t *out = &stream->out;
    while (out->first < out->end) {
        ssize_t n = send(stream->fd, out->data + out->first, out->end - out->first,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        check_call((int)n, "send");
        out->first += (size_t)n;
    }
}

void mail_send(mail_t *mail, uint32_t rank, frame_t frame, const void *bytes)
{
    stream_t *stream = &mail->streams[rank];
    frame.from = iso_rank(mail->job);
    if (stream->fd < 0) {
        mail->fn(&frame, bytes);
        return;
    }
    unsigned char *to = room_for(&stream->out, sizeof frame + frame.length);
    memcpy(to, &frame, sizeof frame);
    if (frame.length > 0)
        memcpy(to + sizeof frame, bytes, frame.length);
    stream->out.end += sizeof frame + frame.length;
    push(stream);
}

bool mail_sent(const mail_t *mail)
{
    for (uint32_t rank = 0; rank < iso_size(mail->job); rank++)
        if (mail->streams[rank].out.first < mail->streams[rank].out.end)
            return false;
    return true;
}

static void pull(stream_t *stream)
{
    for (;;) {
        unsigned char *to = room_for(&stream->in, 1 << 16);
        ssize_t n = recv(stream->fd, to, 1 << 16, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        check_call((int)n, "recv");
        if (n == 0)
            return; /* the other rank is at its end: nobody waits for it any more */
        stream->in.end += (size_t)n;
        if (n < 1 << 16)
            return;
    }
}

static unsigned hand_over(mail_t *mail, stream_t *stream)
{
    unsigned count = 0;
    bytes_t *in = &stream->in;
    for (frame_t frame; in->end - in->first >= sizeof frame; count++) {
        memcpy(&frame, in->data + in->first, sizeof frame);
        if (in->end - in->first - sizeof frame < frame.length)
            break;
        mail->fn(&frame, in->data + in->first + sizeof frame);
        in->first += sizeof frame + frame.length;
    }
    return count;
}

unsigned mail_turn(mail_t *mail)
{
    unsigned count = 0;
    for (uint32_t rank = 0; rank < iso_size(mail->job); rank++) {
        stream_t *stream = &mail->streams[rank];
        if (stream->fd < 0)
            continue;
        push(stream);
        pull(stream);
        count += hand_over(mail, stream);
    }
    return count;
}

void mail_wait(mail_t *mail)
{
    const uint32_t size = iso_size(mail->job);
    if (iso_event_arm(mail->job) != ISO_OK)
        return;
    for (uint32_t rank = 0; rank < size; rank++) {
        const stream_t *stream = &mail->streams[rank];
        mail->polls[rank] = (struct pollfd){
            .fd = stream->fd,
            .events = (short)(stream->out.first < stream->out.end ? POLLIN | POLLOUT : POLLIN)};
    }
    mail->polls[size] = (struct pollfd){.fd = iso_event_fd(mail->job), .events = POLLIN};
    poll(mail->polls, size + 1, SLEEP_MS);
}
