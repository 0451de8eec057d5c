/* meet.c - see meet.h. */
#include "core/meet.h"
#include "core/exchange.h"
#include "core/heap.h"
#include "core/images.h"
#include "core/job.h"
#include "core/os.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct hello {
    iso_record_t head;
    uint32_t version, page_size;
    uint64_t layout, host;
    uint64_t base, size; /* proposed */
    uint64_t wish_base, wish_size;
    uint64_t images; /* a digest of those that are named */
    uint32_t backing, node_size;
    int32_t pid;
    uint64_t start; /* of the process */
    uint8_t cookie[16];
    char transport[32];
    /* of a combined one: the first that disagrees, if any */
    uint32_t other_hosts;
    uint32_t differs; /* 1 + the index in `agreed` of what it has otherwise; 0: nothing */
    uint32_t differs_rank, differs_from;
    uint64_t differs_theirs, differs_ours;
} hello_t;

/* How a value is said. */
typedef enum agreed_kind {
    NUMBER,
    VERSION, /* major, minor, patch: a byte each */
    BACKING,
    WORD /* of which the first letters count */
} agreed_kind_t;

/* What all ranks must have alike. */
static const struct {
    const char *what;
    agreed_kind_t kind;
    size_t offset, size;
    iso_status_t status;
} agreed[] = {
#define AGREED(field) offsetof(hello_t, field), sizeof((hello_t *)0)->field
    {"library version", VERSION, AGREED(version), ISO_ERR_VERSION},
    {"OS page size", NUMBER, AGREED(page_size), ISO_ERR_VERSION},
    {"heap layout (another build of the library)", NUMBER, AGREED(layout), ISO_ERR_VERSION},
    {"ISO_IMAGES (a digest of what the files hold)", NUMBER, AGREED(images), ISO_ERR_INVALID},
    {"ISO_SPACE_SIZE", NUMBER, AGREED(wish_size), ISO_ERR_INVALID},
    {"ISO_SPACE_BASE", NUMBER, AGREED(wish_base), ISO_ERR_INVALID},
    {"ISO_BACKING", BACKING, AGREED(backing), ISO_ERR_INVALID},
    {"ISO_NODE_SIZE", NUMBER, AGREED(node_size), ISO_ERR_INVALID},
    {"ISO_TRANSPORT", WORD, AGREED(transport), ISO_ERR_INVALID},
};

/* For messages: a number, or the first letters of a word. */
static uint64_t value_of(const void *field, size_t size)
{
    uint32_t half;
    uint64_t whole;
    memcpy(&half, field, sizeof half);
    if (size == sizeof half)
        return half;
    memcpy(&whole, field, sizeof whole);
    return whole;
}

#define VALUE_TEXT 24 /* bytes of a value as text */

static const char *value_text(agreed_kind_t kind, uint64_t value, char text[VALUE_TEXT])
{
    static const char *const backings[] = {"auto", "shared", "private", "anon"};
    char letters[sizeof value + 1] = "";

    if (kind == BACKING && value < sizeof backings / sizeof *backings)
        return backings[value];
    if (kind == WORD) {
        memcpy(letters, &value, sizeof value);
        snprintf(text, VALUE_TEXT, "%s", letters);
    } else if (kind == VERSION) {
        snprintf(text, VALUE_TEXT, "%u.%u.%u", (unsigned)(value >> 16),
                 (unsigned)(value >> 8 & 255), (unsigned)(value & 255));
    } else {
        snprintf(text, VALUE_TEXT, "%#" PRIx64, value);
    }
    return text;
}

static void compare(hello_t *into, const hello_t *from)
{
    for (size_t i = 0; i < sizeof agreed / sizeof *agreed && !into->differs; i++) {
        const char *ours = (const char *)into + agreed[i].offset;
        const char *theirs = (const char *)from + agreed[i].offset;
        if (memcmp(ours, theirs, agreed[i].size) == 0)
            continue;
        into->differs = (uint32_t)i + 1;
        into->differs_rank = from->head.rank;
        into->differs_from = into->head.rank;
        into->differs_theirs = value_of(theirs, agreed[i].size);
        into->differs_ours = value_of(ours, agreed[i].size);
    }
}

static void combine_hellos(void *into_record, const void *from_record)
{
    hello_t *into = into_record;
    const hello_t *from = from_record;
    if (from->other_hosts || from->host != into->host)
        into->other_hosts = 1;
    if (into->differs)
        return;
    compare(into, from);
    if (into->differs || !from->differs)
        return;
    into->differs = from->differs;
    into->differs_rank = from->differs_rank;
    into->differs_from = from->differs_from;
    into->differs_theirs = from->differs_theirs;
    into->differs_ours = from->differs_ours;
}

static iso_status_t agree(const iso_job_t *job, const hello_t *total)
{
    if (!total->differs)
        return ISO_OK;
    const agreed_kind_t kind = agreed[total->differs - 1].kind;
    char theirs[VALUE_TEXT], ours[VALUE_TEXT];
    if (job->rank == 0)
        iso_log(&job->logger, ISO_LOG_ERROR,
                "rank %" PRIu32 " has %s %s, rank %" PRIu32
                " has %s: all ranks of a job must have the same",
                total->differs_rank, agreed[total->differs - 1].what,
                value_text(kind, total->differs_theirs, theirs), total->differs_from,
                value_text(kind, total->differs_ours, ours));
    return agreed[total->differs - 1].status;
}

static bool same_node(const hello_t *a, uint32_t rank_a, const hello_t *b, uint32_t rank_b,
                      uint32_t node_size)
{
    return a->host == b->host && (node_size == 0 || rank_a / node_size == rank_b / node_size);
}

/* Which ranks are this one's node, among those of its host. */
static iso_status_t find_node(iso_job_t *job, const hello_t *mine, const hello_t *hellos)
{
    iso_node_t *node = &job->node;
    uint32_t host_count, count = 0;
    const uint32_t *host = iso_exchange_host(job, &host_count);
    for (uint32_t i = 0; i < host_count; i++)
        count += same_node(mine, job->rank, &hellos[i], host ? host[i] : i, job->params.node_size);
    if (count == 0) /* not even this rank: who was to tell has died */
        return ISO_ERR_PEER_DEAD;
    node->self = job->rank;
    node->ranks = malloc(count * sizeof *node->ranks);
    node->pids = malloc(count * sizeof *node->pids);
    node->starts = malloc(count * sizeof *node->starts);
    if (!node->ranks || !node->pids || !node->starts)
        return ISO_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < host_count; i++) {
        uint32_t rank = host ? host[i] : i;
        if (!same_node(mine, job->rank, &hellos[i], rank, job->params.node_size))
            continue;
        node->ranks[node->rank_count] = rank;
        node->starts[node->rank_count] = hellos[i].start;
        node->pids[node->rank_count++] = hellos[i].pid;
    }
    node->leader = node->ranks[0];
    return ISO_OK;
}

iso_status_t iso_meet(iso_job_t *job, iso_status_t so_far, iso_meeting_t *meeting_p,
                      iso_status_t *own_p)
{
    unsigned major, minor, patch;
    iso_version(&major, &minor, &patch);
    hello_t mine = {.head = {.magic = ISO_RECORD_MAGIC, .status = so_far},
                    .version = major << 16 | minor << 8 | patch,
                    .page_size = (uint32_t)iso_os_page_size(),
                    .layout = iso_heap_layout_digest(),
                    .host = iso_os_host_key(),
                    .wish_base = job->params.space_base,
                    .wish_size = job->params.space_size,
                    .images = iso_images_digest(job),
                    .backing = job->params.backing,
                    .node_size = job->params.node_size,
                    .pid = (int32_t)getpid(),
                    .start = iso_os_start_time((int32_t)getpid())};
    hello_t total;
    strncpy(mine.transport, job->params.transport, sizeof mine.transport - 1);
    iso_space_propose(&job->params, &mine.base, &mine.size);
    if (so_far == ISO_OK)
        mine.head.status = iso_os_random(mine.cookie, sizeof mine.cookie);
    if (so_far == ISO_OK && mine.head.status != ISO_OK)
        iso_log(
            &job->logger, ISO_LOG_ERROR,
            "no random bytes for the job's cookie: getrandom: %s; a container must allow the call",
            strerror(errno));
    void *hellos;
    iso_status_t status = iso_exchange(job, &mine, sizeof mine, combine_hellos, &total, &hellos);
    if (status != ISO_OK)
        return status;
    status = agree(job, &total);
    if (status == ISO_OK) {
        memcpy(job->cookie, total.cookie, sizeof job->cookie); /* rank 0's */
        *meeting_p = (iso_meeting_t){total.base, total.size, total.other_hosts};
        *own_p = find_node(job, &mine, hellos);
    }
    free(hellos);
    return status;
}
