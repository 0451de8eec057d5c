/* life.c - see life.h. */
#include "transport/common/life.h"
#include "transport/common/caller.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

life_t life_new(uint32_t rank)
{
    return (life_t){.rank = rank, .pidfd = -1};
}

iso_status_t life_check(const lives_t *lives, const life_t *life, const process_id_t *process)
{
    if (life->state != LIFE_ALIVE || life->death_due) {
        caller_log(lives->host, ISO_LOG_ERROR, "rank %u cannot be reached: it %s", life->rank,
                   life->state == LIFE_DEAD || life->death_due ? "has ended"
                                                               : "could not be reached before");
        return ISO_ERR_UNREACHABLE;
    }
    if (life->process.pid != 0 && process->pid != 0 && !process_same(&life->process, process)) {
        caller_log(lives->host, ISO_LOG_ERROR,
                   "process %" PRId32 " says that it is rank %u, but process %" PRId32 " is",
                   process->pid, life->rank, life->process.pid);
        return ISO_ERR_UNREACHABLE;
    }
    return ISO_OK;
}

iso_status_t life_watch(lives_t *lives, life_t *life)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = life->rank};
    int pidfd, error;

    if (life->pidfd >= 0 || life->process.pid == 0 || life->rank == lives->host->rank)
        return ISO_OK;
    error = process_watch(&life->process, &pidfd);
    if (error == 0 && epoll_ctl(lives->watch_fd, EPOLL_CTL_ADD, pidfd, &event) != 0) {
        error = errno;
        close(pidfd);
    }
    if (error == 0) {
        life->pidfd = pidfd;
        return ISO_OK;
    }
    if (error == ESRCH) {
        caller_log(lives->host, ISO_LOG_ERROR,
                   "rank %u cannot be reached: its process %" PRId32 " has ended", life->rank,
                   life->process.pid);
        life->death_due = true;
        lives->undecided++;
        return ISO_ERR_UNREACHABLE;
    }
    if (error == EMFILE || error == ENFILE) {
        caller_log(lives->host, ISO_LOG_ERROR,
                   "cannot watch process %" PRId32 " of rank %u: raise ulimit -n",
                   life->process.pid, life->rank);
        return ISO_ERR_LIMIT;
    }
    caller_log(lives->host, ISO_LOG_INFO,
               "the end of process %" PRId32 " of rank %u is not watched: %s", life->process.pid,
               life->rank, strerror(error));
    return ISO_OK;
}

void life_unwatch(const lives_t *lives, life_t *life)
{
    if (life->pidfd < 0)
        return;
    /* Not left to close: a child forked meanwhile may still have the descriptor open. */
    epoll_ctl(lives->watch_fd, EPOLL_CTL_DEL, life->pidfd, NULL);
    close(life->pidfd);
    life->pidfd = -1;
}

iso_status_t life_usable(const life_t *life)
{
    switch (life->state) {
    case LIFE_DEAD:
        return ISO_ERR_PEER_DEAD;
    case LIFE_UNREACHABLE:
        return ISO_ERR_UNREACHABLE;
    case LIFE_FAILED:
        return ISO_ERR_AGAIN;
    case LIFE_ALIVE:
        break;
    }
    return ISO_OK;
}

bool life_failed(lives_t *lives, life_t *life, uint64_t now_ms)
{
    if (life->pidfd < 0)
        return false;
    life->state = LIFE_FAILED;
    life->decide_at = now_ms + LIFE_GRACE_MS;
    lives->undecided++;
    return true;
}

life_state_t life_verdict(const life_t *life, uint64_t now_ms)
{
    if (life->death_due ||
        (life->state == LIFE_FAILED && life->pidfd >= 0 && process_ended(life->pidfd)))
        return LIFE_DEAD;
    return life->state == LIFE_FAILED && now_ms >= life->decide_at ? LIFE_UNREACHABLE : LIFE_ALIVE;
}

void life_settle(lives_t *lives, life_t *life, life_state_t state)
{
    if (life->state == LIFE_FAILED || life->death_due)
        lives->undecided--;
    life->death_due = false;
    life->state = state;
    lives->host->peer_failed(lives->host->arg, life->rank,
                             state == LIFE_DEAD ? ISO_FAILURE_DEAD : ISO_FAILURE_UNREACHABLE);
}
