/*
 * iso_run_link.c - the conversation with each rank: packets in, packets out.
 *
 * A rank with answers that its socket has no room for is not read, so no rank can make the launcher
 * remember more than ISO_RUN_QUEUE answers: the one to the packet read last, that of the collective
 * that it is in, and a WELCOME. Deaths are no answers: the rank has a position in the job's list.
 * A packet that belongs to an earlier join of the rank, or to no protocol, changes nothing.
 */
#include "iso_run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- bytes ------------------------------------------------------------------------------------- */

iso_run_bytes_t *iso_run_bytes_new(uint64_t len)
{
    iso_run_bytes_t *bytes = calloc(1, sizeof *bytes + len);

    if (bytes == NULL)
        return NULL;
    bytes->refs = 1;
    bytes->len = len;
    return bytes;
}

iso_run_bytes_t *iso_run_bytes_copy(const void *data, size_t len)
{
    iso_run_bytes_t *bytes = iso_run_bytes_new(len);

    if (bytes == NULL) {
        iso_run_say("no memory left: the job is ended");
        exit(ISO_RUN_FAILED); /* the ranks die with us, and the keeper sees to the rest */
    }
    memcpy(bytes->data, data, len);
    return bytes;
}

void iso_run_bytes_drop(iso_run_bytes_t *bytes)
{
    if (bytes != NULL && --bytes->refs == 0)
        free(bytes);
}

/* ---- out --------------------------------------------------------------------------------------- */

static void queue_pop(iso_run_rank_t *rank)
{
    iso_run_bytes_drop(rank->queue[0].payload);
    rank->queued--;
    memmove(rank->queue, rank->queue + 1, rank->queued * sizeof *rank->queue);
}

void iso_run_link_clear(iso_run_rank_t *rank)
{
    while (rank->queued > 0)
        queue_pop(rank);
    rank->blocked = false;
}

/* False: no room, or nobody there. */
static bool send_packet(iso_run_rank_t *rank, const iso_local_head_t *head, const char *data,
                        size_t len)
{
    struct iovec parts[2] = {{(void *)head, sizeof *head}, {(void *)data, len}};
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

    while (sendmsg(rank->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        if (errno == EINTR || errno == ECONNRESET)
            continue;
        if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)
            rank->blocked = true;
        else
            iso_run_link_clear(rank); /* reading will find the end of the connection */
        return false;
    }
    return true;
}

/* Sends the next packet of the message at the front. */
static bool send_front(iso_run_rank_t *rank)
{
    iso_run_message_t *message = &rank->queue[0];
    uint64_t total = message->payload == NULL ? 0 : message->payload->len;
    size_t part = total - message->sent < ISO_LOCAL_MAX_PAYLOAD ? (size_t)(total - message->sent)
                                                                : ISO_LOCAL_MAX_PAYLOAD;

    message->head.total = total;
    message->head.offset = message->sent;
    if (!send_packet(rank, &message->head,
                     total == 0 ? NULL : message->payload->data + message->sent, part))
        return false;
    message->sent += part;
    if (message->sent == total)
        queue_pop(rank);
    return true;
}

static bool send_death(iso_run_job_t *job, iso_run_rank_t *rank)
{
    const iso_run_death_t *death = &job->deaths[rank->deaths_told];
    const iso_local_head_t head = {.version = ISO_LOCAL_PROTOCOL,
                                   .type = ISO_LOCAL_DEAD,
                                   .join = rank->join,
                                   .rank = death->rank};

    /* Who was in the job when it left in order knows that it left. */
    if ((!death->orderly || rank->deaths_told < rank->deaths_at_join) &&
        !send_packet(rank, &head, NULL, 0))
        return false;
    rank->deaths_told++;
    return true;
}

void iso_run_link_pump(iso_run_job_t *job, iso_run_rank_t *rank)
{
    bool sent = rank->fd >= 0;

    rank->blocked = false;
    while (sent) {
        /* Deaths before answers, so that who gets a result knows already whom it lacks; but after
         * the WELCOME, before which the rank drops everything. */
        bool welcome = rank->queued > 0 && rank->queue[0].head.type == ISO_LOCAL_WELCOME;

        if (!welcome && rank->joined && rank->deaths_told < job->death_count)
            sent = send_death(job, rank);
        else if (rank->queued > 0)
            sent = send_front(rank);
        else
            break;
    }
    iso_run_link_watch(job, rank);
}

static void queue_message(iso_run_job_t *job, iso_run_rank_t *rank, const iso_local_head_t *head,
                          iso_run_bytes_t *payload)
{
    if (rank->fd < 0)
        return;
    if (rank->queued == ISO_RUN_QUEUE) {
        iso_run_say("rank %u has too many answers waiting: a bug of iso_run", rank->rank);
        abort();
    }
    if (payload != NULL)
        payload->refs++;
    rank->queue[rank->queued] = (iso_run_message_t){.head = *head, .payload = payload};
    rank->queued++;
    iso_run_link_pump(job, rank);
}

void iso_run_link_answer(iso_run_job_t *job, iso_run_rank_t *rank, uint16_t type, uint32_t about,
                         iso_run_bytes_t *payload)
{
    const iso_local_head_t head = {
        .version = ISO_LOCAL_PROTOCOL, .type = type, .join = rank->join, .rank = about};

    queue_message(job, rank, &head, payload);
}

static void refuse_join(iso_run_job_t *job, iso_run_rank_t *rank, uint64_t join, uint16_t request,
                        iso_status_t status, iso_run_bytes_t *text)
{
    const iso_local_head_t head = {.version = ISO_LOCAL_PROTOCOL,
                                   .type = ISO_LOCAL_ERROR,
                                   .answers = request,
                                   .join = join,
                                   .status = status};

    queue_message(job, rank, &head, text);
}

void iso_run_link_refuse(iso_run_job_t *job, iso_run_rank_t *rank, uint16_t request,
                         iso_status_t status, iso_run_bytes_t *text)
{
    refuse_join(job, rank, rank->join, request, status, text);
}

static void refuse_text(iso_run_job_t *job, iso_run_rank_t *rank, uint64_t join, uint16_t request,
                        iso_status_t status, const char *text)
{
    iso_run_bytes_t *bytes = iso_run_bytes_copy(text, strlen(text));

    refuse_join(job, rank, join, request, status, bytes);
    iso_run_bytes_drop(bytes);
}

/* ---- in ---------------------------------------------------------------------------------------- */

/* Keeps an eye on the process that says HELLO: in a wrapper it is not the one that was started.
 * False with errno. */
static bool watch_member(iso_run_job_t *job, iso_run_rank_t *rank, pid_t pid)
{
    int fd = -1;

    if (rank->member_pid == pid)
        return true;
    if (pid != rank->pid) {
        fd = iso_run_pidfd_open(pid);
        if (fd < 0)
            return false;
        if (!iso_run_watch(job, EPOLL_CTL_ADD, fd, EPOLLIN, ISO_RUN_MEMBER, rank->rank)) {
            close(fd);
            return false;
        }
    }
    if (rank->member_fd >= 0)
        close(rank->member_fd);
    rank->member_pid = pid;
    rank->member_fd = fd;
    return true;
}

static void take_hello(iso_run_job_t *job, iso_run_rank_t *rank, size_t len, pid_t sender)
{
    const iso_local_hello_t ours = {.rank = rank->rank, .size = job->options->size};
    const uint64_t join = job->packet.head.join;
    iso_local_hello_t theirs;
    iso_run_bytes_t *bytes;
    char text[ISO_LOCAL_MAX_TEXT];

    if (len != sizeof theirs)
        return;
    memcpy(&theirs, job->packet.payload, sizeof theirs);
    /* What an earlier process or join left half done is void. */
    iso_run_link_clear(rank);
    iso_run_collective_forget(job, rank);
    iso_run_bytes_drop(rank->blob);
    rank->blob = NULL;
    rank->joined = false;
    rank->verdict_at = 0;
    if (job->ending) {
        refuse_text(job, rank, join, ISO_LOCAL_HELLO, job->end_status, job->end_text);
        return;
    }
    if (rank->gone) {
        snprintf(text, sizeof text,
                 "rank %u has ended and the job goes on without it: process %d "
                 "cannot join",
                 rank->rank, (int)sender);
        refuse_text(job, rank, join, ISO_LOCAL_HELLO, ISO_ERR_BUSY, text);
        return;
    }
    if (!watch_member(job, rank, sender)) {
        snprintf(text, sizeof text, "iso_run cannot watch process %d, which joins as rank %u: %s",
                 (int)sender, rank->rank, strerror(errno));
        refuse_text(job, rank, join, ISO_LOCAL_HELLO, ISO_ERR_SYSTEM, text);
        return;
    }
    rank->join = join;
    /* A rank with a wrong idea of who it is learns the right one, and does not join. */
    rank->joined = theirs.rank == ours.rank && theirs.size == ours.size;
    rank->deaths_told = 0;
    rank->deaths_at_join = job->death_count;
    bytes = iso_run_bytes_copy(&ours, sizeof ours);
    iso_run_link_answer(job, rank, ISO_LOCAL_WELCOME, rank->rank, bytes);
    iso_run_bytes_drop(bytes);
}

static void take_lookup(iso_run_job_t *job, iso_run_rank_t *rank, uint32_t whose)
{
    char text[ISO_LOCAL_MAX_TEXT];
    const iso_run_rank_t *target;

    if (whose >= job->options->size)
        return; /* the module checks it */
    target = &job->ranks[whose];
    if (target->gone) {
        snprintf(text, sizeof text, "rank %u, whose blob rank %u looks up, has ended", whose,
                 rank->rank);
        refuse_text(job, rank, rank->join, ISO_LOCAL_LOOKUP, ISO_ERR_PEER_DEAD, text);
    } else if (target->blob == NULL) {
        snprintf(text, sizeof text,
                 "rank %u, whose blob rank %u looks up, has published none: publish before a "
                 "collective and look up after it",
                 whose, rank->rank);
        refuse_text(job, rank, rank->join, ISO_LOCAL_LOOKUP, ISO_ERR_INVALID, text);
    } else {
        iso_run_link_answer(job, rank, ISO_LOCAL_FOUND, whose, target->blob);
    }
}

static void take_packet(iso_run_job_t *job, iso_run_rank_t *rank, size_t len, pid_t sender)
{
    const iso_local_head_t *head = &job->packet.head;
    char text[ISO_LOCAL_MAX_TEXT];

    if (head->version != ISO_LOCAL_PROTOCOL) {
        snprintf(text, sizeof text, "iso_run speaks protocol %u, the module of rank %u another",
                 ISO_LOCAL_PROTOCOL, rank->rank);
        refuse_text(job, rank, 0, ISO_LOCAL_HELLO, ISO_ERR_VERSION, text);
        return;
    }
    if (head->type == ISO_LOCAL_HELLO) {
        take_hello(job, rank, len, sender);
        return;
    }
    if (!rank->joined || head->join != rank->join)
        return;
    switch (head->type) {
    case ISO_LOCAL_ALLGATHER:
    case ISO_LOCAL_BARRIER:
        iso_run_collective_part(job, rank, head, job->packet.payload, len);
        break;
    case ISO_LOCAL_PUBLISH:
        iso_run_bytes_drop(rank->blob);
        rank->blob = iso_run_bytes_copy(job->packet.payload, len);
        break;
    case ISO_LOCAL_LOOKUP:
        take_lookup(job, rank, head->rank);
        break;
    case ISO_LOCAL_BYE:
        rank->joined = false;
        break;
    default:
        break;
    }
}

/* A call of the next collective must wait until the current one has ended for all. */
static bool must_wait(const iso_run_job_t *job, const iso_run_rank_t *rank,
                      const iso_local_head_t *head)
{
    return rank->arrived && !job->ending && rank->joined && head->join == rank->join &&
           (head->type == ISO_LOCAL_ALLGATHER || head->type == ISO_LOCAL_BARRIER);
}

/* recv, or recvmsg, that does not wait; ECONNRESET only says that packets of ours were not read. */
static ssize_t receive(int fd, struct msghdr *message, int flags)
{
    ssize_t len;

    do {
        len = recvmsg(fd, message, flags | MSG_DONTWAIT);
    } while (len < 0 && (errno == EINTR || errno == ECONNRESET));
    return len;
}

static pid_t sender_of(struct msghdr *message)
{
    const struct cmsghdr *control = CMSG_FIRSTHDR(message);
    struct ucred sender;

    if (control == NULL || control->cmsg_level != SOL_SOCKET ||
        control->cmsg_type != SCM_CREDENTIALS)
        return 0;
    memcpy(&sender, CMSG_DATA(control), sizeof sender);
    return sender.pid;
}

/* False: nothing can be read now. */
static bool read_one(iso_run_job_t *job, iso_run_rank_t *rank)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec part = {&job->packet, sizeof job->packet};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    struct iovec glance = {&job->packet.head, sizeof job->packet.head};
    struct msghdr peek = {.msg_iov = &glance, .msg_iovlen = 1};
    ssize_t len = receive(rank->fd, &peek, MSG_PEEK);

    if (len == 0)
        rank->closed = true;
    if (len <= 0)
        return false;
    if (len == (ssize_t)sizeof job->packet.head && must_wait(job, rank, &job->packet.head)) {
        rank->suspended = true;
        return false;
    }
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    len = receive(rank->fd, &message, 0);
    if (len < 0)
        return false;
    if (len >= (ssize_t)sizeof job->packet.head)
        take_packet(job, rank, (size_t)len - sizeof job->packet.head, sender_of(&message));
    return true;
}

void iso_run_link_read(iso_run_job_t *job, iso_run_rank_t *rank, unsigned limit)
{
    while (limit-- > 0 && rank->fd >= 0 && !rank->suspended && !rank->blocked)
        if (!read_one(job, rank))
            break;
    if (rank->closed && rank->joined && rank->verdict_at == 0)
        rank->verdict_at = iso_run_now() + ISO_RUN_VERDICT; /* its end should be known until then */
    iso_run_link_watch(job, rank);
}

/* ---- events ------------------------------------------------------------------------------------ */

void iso_run_link_watch(iso_run_job_t *job, iso_run_rank_t *rank)
{
    uint32_t events = rank->blocked ? EPOLLOUT : rank->suspended ? 0 : EPOLLIN;
    int operation = rank->in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (rank->fd < 0)
        return;
    if (rank->closed) { /* it would be reported for ever */
        if (rank->in_epoll)
            iso_run_watch(job, EPOLL_CTL_DEL, rank->fd, 0, ISO_RUN_LINK, rank->rank);
        rank->in_epoll = false;
        return;
    }
    if (rank->in_epoll && rank->watched == events)
        return;
    if (!iso_run_watch(job, operation, rank->fd, events, ISO_RUN_LINK, rank->rank)) {
        iso_run_say("epoll_ctl for rank %u: %s: the job is ended", rank->rank, strerror(errno));
        exit(ISO_RUN_FAILED);
    }
    rank->in_epoll = true;
    rank->watched = events;
}

void iso_run_link_event(iso_run_job_t *job, iso_run_rank_t *rank, uint32_t events)
{
    const unsigned turn = 32; /* packets, so that no rank keeps the others waiting */

    if (rank->fd < 0)
        return;
    if (rank->blocked)
        iso_run_link_pump(job, rank);
    if (rank->suspended && (events & (EPOLLHUP | EPOLLERR)) != 0) {
        /* Its last packets wait for the collective; until then it would be reported for ever. */
        iso_run_watch(job, EPOLL_CTL_DEL, rank->fd, 0, ISO_RUN_LINK, rank->rank);
        rank->in_epoll = false;
        return;
    }
    iso_run_link_read(job, rank, turn);
}

void iso_run_link_close(iso_run_job_t *job, iso_run_rank_t *rank)
{
    if (rank->fd < 0)
        return;
    iso_run_link_clear(rank);
    if (rank->in_epoll)
        iso_run_watch(job, EPOLL_CTL_DEL, rank->fd, 0, ISO_RUN_LINK, rank->rank);
    rank->in_epoll = false;
    close(rank->fd);
    rank->fd = -1;
    iso_run_bytes_drop(rank->blob);
    rank->blob = NULL;
}
