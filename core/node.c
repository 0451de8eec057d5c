/* node.c - see node.h. */
#include "core/node.h"
#include "core/os.h"
#include "core/quantity.h"
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT_MAGIC UINT64_C(0x31676573646f6e69) /* "inodseg1" */
#define WORDS_OFFSET 4096

typedef struct segment_header {
    uint64_t magic;
    uint8_t cookie[16];
    uint32_t leader;
    uint32_t slots;
} segment_header_t;

/* word: state 4 | epoch 20 | source 20 | target 20. 20 bits of epoch tell apart what can be
 * outstanding at once by far; 20 bits of rank are a million ranks. CLAIMED keeps the word that it took
 * the place of: as epoch its state, as source its target. */
enum {
    WORD_NONE = 0,
    WORD_OWNED = 1,
    WORD_MOVING = 2,
    WORD_LEFT = 3,
    WORD_RELEASING = 4,
    WORD_CLAIMED = 5
};

static uint64_t word_make(uint64_t state, uint64_t epoch, uint64_t source, uint64_t target)
{
    return state << 60 | (epoch & 0xfffff) << 40 | (source & 0xfffff) << 20 | (target & 0xfffff);
}

static uint64_t word_state(uint64_t word)
{
    return word >> 60;
}

static uint32_t word_target(uint64_t word)
{
    return word & 0xfffff;
}

static uint64_t claimed_from(uint64_t word)
{
    uint64_t state = word >> 40 & 0xfffff, target = word >> 20 & 0xfffff;
    if (state == WORD_OWNED)
        return word_make(WORD_OWNED, 0, target, target);
    return state == WORD_LEFT ? word_make(WORD_LEFT, 0, 0, target) : 0;
}

/* rank_count: it is not of this node */
static uint32_t index_of(const iso_node_t *node, uint32_t rank)
{
    uint32_t low = 0, high = node->rank_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (node->ranks[middle] < rank)
            low = middle + 1;
        else
            high = middle;
    }
    return low < node->rank_count && node->ranks[low] == rank ? low : node->rank_count;
}

int32_t iso_node_pid(const iso_node_t *node, uint32_t rank)
{
    uint32_t i = index_of(node, rank);
    return i < node->rank_count ? node->pids[i] : 0;
}

bool iso_node_has(const iso_node_t *node, uint32_t rank)
{
    return iso_node_pid(node, rank) != 0;
}

static size_t segment_size(uint32_t slots)
{
    size_t page = iso_os_page_size();
    return (WORDS_OFFSET + (size_t)slots * sizeof(uint64_t) + page - 1) / page * page;
}

static iso_status_t segment_map(iso_node_t *node, const iso_logger_t *logger, int fd,
                                uint32_t slots)
{
    void *segment;
    size_t size = segment_size(slots);
    int error = iso_os_memfd_map(fd, 0, size, NULL, &segment);
    if (error) {
        iso_log(logger, ISO_LOG_ERROR, "cannot map the node's segment (%s): %s", ISO_SIZE(size),
                strerror(error));
        return ISO_ERR_SYSTEM;
    }
    iso_os_no_dump(segment, size);
    node->fd = fd;
    node->segment = segment;
    node->segment_size = size;
    node->words = (_Atomic(uint64_t) *)(void *)((char *)segment + WORDS_OFFSET);
    return ISO_OK;
}

iso_status_t iso_node_create(iso_node_t *node, const iso_logger_t *logger, const uint8_t cookie[16],
                             uint32_t slots)
{
    int fd, error = iso_os_memfd_create("iso-node", segment_size(slots), &fd);
    if (error) {
        iso_log(logger, ISO_LOG_ERROR, "cannot create the node's segment: memfd_create: %s",
                strerror(error));
        return ISO_ERR_SYSTEM;
    }
    iso_status_t status = segment_map(node, logger, fd, slots);
    if (status != ISO_OK) {
        close(fd);
        return status;
    }
    segment_header_t *header = node->segment;
    memcpy(header->cookie, cookie, sizeof header->cookie);
    header->leader = node->self;
    header->slots = slots;
    header->magic = SEGMENT_MAGIC;
    return ISO_OK;
}

iso_status_t iso_node_attach(iso_node_t *node, const iso_logger_t *logger, const uint8_t cookie[16],
                             uint32_t slots, int leader_fd)
{
    int32_t pid = iso_node_pid(node, node->leader);
    int fd, error = iso_os_memfd_open_of(pid, leader_fd, &fd);
    struct stat st;
    if (error || fstat(fd, &st) != 0 || (size_t)st.st_size != segment_size(slots)) {
        iso_log(logger, ISO_LOG_ERROR,
                "cannot open the node's segment at rank %" PRIu32 " (/proc/%" PRId32 "/fd/%d): %s; "
                "ranks of a node must be processes of one user that can see each other; "
                "ISO_NODE_SIZE=1 makes every rank a node of its own",
                node->leader, pid, leader_fd, error ? strerror(error) : "it is something else");
        if (!error)
            close(fd);
        return ISO_ERR_SYSTEM;
    }
    iso_status_t status = segment_map(node, logger, fd, slots);
    if (status != ISO_OK) {
        close(fd);
        return status;
    }
    const segment_header_t *header = node->segment;
    if (header->magic != SEGMENT_MAGIC || header->leader != node->leader ||
        header->slots != slots || memcmp(header->cookie, cookie, sizeof header->cookie) != 0) {
        iso_log(logger, ISO_LOG_ERROR, "what rank %" PRIu32 " shares is not this job's segment",
                node->leader);
        return ISO_ERR_INVALID;
    }
    return ISO_OK;
}

void iso_node_close(iso_node_t *node)
{
    if (node->segment)
        iso_os_unmap(node->segment, node->segment_size);
    if (node->fd >= 0)
        close(node->fd);
    free(node->ranks);
    free(node->pids);
    free(node->starts);
    memset(node, 0, sizeof *node);
    node->fd = -1;
}

void iso_node_offer(iso_node_t *node, uint32_t slot, uint32_t target, uint64_t epoch)
{
    atomic_store(&node->words[slot], word_make(WORD_MOVING, epoch, node->self, target));
}

bool iso_node_take(iso_node_t *node, uint32_t slot, uint32_t source, uint64_t epoch)
{
    uint64_t offer = word_make(WORD_MOVING, epoch, source, node->self);
    return atomic_compare_exchange_strong(&node->words[slot], &offer,
                                          word_make(WORD_OWNED, epoch, source, node->self));
}

bool iso_node_decline(iso_node_t *node, uint32_t slot, uint32_t source, uint32_t target,
                      uint64_t epoch)
{
    uint64_t offer = word_make(WORD_MOVING, epoch, source, target);
    return atomic_compare_exchange_strong(&node->words[slot], &offer,
                                          word_make(WORD_OWNED, epoch, target, source));
}

/* Not "is OWNED(target) now": the target may have sent the heap on since. It was taken if the offer
 * is gone and the source did not get it back. */
bool iso_node_taken(const iso_node_t *node, uint32_t slot, uint32_t source, uint32_t target,
                    uint64_t epoch)
{
    uint64_t word = atomic_load(&node->words[slot]);
    return word != word_make(WORD_MOVING, epoch, source, target) &&
           word != word_make(WORD_OWNED, epoch, target, source);
}

static uint64_t word_here(const iso_node_t *node)
{
    return word_make(WORD_OWNED, 0, node->self, node->self);
}

void iso_node_begin(iso_node_t *node, uint32_t slot)
{
    if (node->words)
        atomic_store(&node->words[slot], word_here(node));
}

static bool shares(const iso_node_t *node)
{
    return node->words && node->shared_pages;
}

void iso_node_leave(iso_node_t *node, uint32_t slot)
{
    if (shares(node))
        atomic_store(&node->words[slot], word_make(WORD_LEFT, 0, 0, node->self));
}

bool iso_node_release_begin(iso_node_t *node, uint32_t slot)
{
    if (!shares(node))
        return true;
    uint64_t left = word_make(WORD_LEFT, 0, 0, node->self);
    return atomic_compare_exchange_strong(&node->words[slot], &left,
                                          word_make(WORD_RELEASING, 0, 0, node->self));
}

void iso_node_release_end(iso_node_t *node, uint32_t slot)
{
    if (!shares(node))
        return;
    uint64_t releasing = word_make(WORD_RELEASING, 0, 0, node->self);
    atomic_compare_exchange_strong(&node->words[slot], &releasing, 0);
}

static bool rank_is_gone(const iso_node_t *node, uint32_t rank)
{
    int fd;
    bool dead;
    uint32_t i = index_of(node, rank);
    if (i == node->rank_count ||
        iso_os_process_watch(node->pids[i], node->starts[i], &fd, &dead) != 0)
        return false;
    if (fd >= 0)
        close(fd);
    return dead;
}

/* The word, once no other rank is giving the slot's pages back. */
static uint64_t word_at_rest(const iso_node_t *node, uint32_t slot)
{
    for (unsigned spins = 1;; spins++) {
        uint64_t word = atomic_load(&node->words[slot]);
        if (word_state(word) != WORD_RELEASING || word_target(word) == node->self ||
            (spins % 64 == 0 && rank_is_gone(node, word_target(word))))
            return word;
        sched_yield();
    }
}

static iso_claim_t claimable(const iso_node_t *node, uint64_t word, bool of_dead)
{
    switch (word_state(word)) {
    case WORD_MOVING:
        return ISO_CLAIM_NO; /* its target takes it, or it ended with both */
    case WORD_OWNED:
        if (of_dead)
            return ISO_CLAIM_YES;
        return word_target(word) != node->self && rank_is_gone(node, word_target(word))
                   ? ISO_CLAIM_OF_DEAD
                   : ISO_CLAIM_NO;
    case WORD_CLAIMED:
        return word_target(word) == node->self || rank_is_gone(node, word_target(word))
                   ? ISO_CLAIM_YES
                   : ISO_CLAIM_NO;
    default:
        return ISO_CLAIM_YES;
    }
}

iso_claim_t iso_node_claim(iso_node_t *node, uint32_t slot, bool of_dead)
{
    if (!shares(node))
        return ISO_CLAIM_YES;
    for (;;) {
        uint64_t word = word_at_rest(node, slot);
        iso_claim_t answer = claimable(node, word, of_dead);
        if (answer == ISO_CLAIM_NO ||
            atomic_compare_exchange_strong(
                &node->words[slot], &word,
                word_make(WORD_CLAIMED, word_state(word), word_target(word), node->self)))
            return answer;
    }
}

bool iso_node_claim_left(iso_node_t *node, uint32_t slot)
{
    uint64_t left = word_make(WORD_LEFT, 0, 0, node->self);
    return !shares(node) || atomic_compare_exchange_strong(
                                &node->words[slot], &left,
                                word_make(WORD_CLAIMED, WORD_LEFT, node->self, node->self));
}

/* From CLAIMED(self) to `word`. */
static bool claim_ends(iso_node_t *node, uint32_t slot, bool as_before)
{
    uint64_t word = atomic_load(&node->words[slot]);
    return word_state(word) == WORD_CLAIMED && word_target(word) == node->self &&
           atomic_compare_exchange_strong(&node->words[slot], &word,
                                          as_before ? claimed_from(word)
                                                    : word_make(WORD_LEFT, 0, 0, node->self));
}

void iso_node_unclaim(iso_node_t *node, uint32_t slot)
{
    if (shares(node))
        claim_ends(node, slot, true);
}

bool iso_node_abandon(iso_node_t *node, uint32_t slot)
{
    return !shares(node) || claim_ends(node, slot, false);
}

void iso_node_own(iso_node_t *node, uint32_t slot)
{
    if (shares(node))
        atomic_store(&node->words[slot], word_here(node));
}

void iso_node_receive(iso_node_t *node, uint32_t slot)
{
    if (!shares(node))
        return;
    for (;;) {
        uint64_t word = word_at_rest(node, slot);
        if (atomic_compare_exchange_strong(&node->words[slot], &word, word_here(node)))
            return;
    }
}

void iso_node_give(iso_node_t *node, uint32_t slot)
{
    if (shares(node))
        atomic_store(&node->words[slot], 0);
}
