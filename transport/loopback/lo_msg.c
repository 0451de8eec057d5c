/*
 * lo_msg.c - the inbox and its rings: sending and receiving messages.
 *
 * Guarantees: a message is in the ring whole or not at all, whenever its sender is killed; messages
 * of one sender arrive in order; a receiver that sleeps is woken; a sender that sleeps because a
 * ring was full is woken when it has room. A ring that holds garbage is never read out of its
 * bounds: it is reported once and left alone from then on.
 *
 * Two races are settled by a pair of full fences each, so that at least one side sees the other:
 *   sender   { head;  fence; bit seen clear -> set; fence; armed? -> ring the doorbell }
 *   receiver { clear bit; fence; head } and, to sleep, { armed; fence; any bit? -> stay awake }
 *   receiver { tail;  fence; sender_waits? -> ring the sender's doorbell }
 *   sender   { sender_waits; fence; room? -> stay awake }              (in lo_arm)
 */
#include "loopback.h"
#include "transport/common/hash.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u /* Linux 6.3 */
#endif

static lo_ring_t *ring_from(const iso_transport_t *tp, uint32_t rank)
{
    return (lo_ring_t *)(void *)(tp->inbox + lo_ring_offset(rank));
}

/* ---- the inbox ------------------------------------------------------------------------------- */

static void write_id(iso_transport_t *tp)
{
    lo_inbox_id_t *id = &tp->control->id;

    id->start = tp->process.start;
    id->pid = tp->process.pid;
    id->version = LO_VERSION;
    id->rank = tp->host->rank;
    id->size = tp->host->size;
    memcpy(id->cookie, tp->host->cookie, sizeof id->cookie);
    id->magic = LO_MAGIC;
    tp->control->doorbell = tp->doorbell;
}

iso_status_t lo_inbox_create(iso_transport_t *tp)
{
    static const char name[] = "isomalloc-inbox";
    const uint64_t length = lo_ring_offset(tp->host->size);
    iso_status_t status = object_limit(tp->host, length);

    if (status != ISO_OK)
        return status;
    tp->inbox_fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (tp->inbox_fd < 0 && errno == EINVAL)
        tp->inbox_fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (tp->inbox_fd < 0) {
        lo_log(tp, ISO_LOG_ERROR,
               "memfd_create for the inbox: %s; a container must allow the call (seccomp), and "
               "ulimit -n enough files",
               strerror(errno));
        return ISO_ERR_SYSTEM;
    }
    /* Sparse: 64 KiB of offsets a rank of the job, and memory only where one has written. */
    if (ftruncate(tp->inbox_fd, (off_t)length) != 0 ||
        fcntl(tp->inbox_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        lo_log(tp, ISO_LOG_ERROR, "cannot give the inbox its %" PRIu64 " bytes: %s", length,
               strerror(errno));
        goto close_fd;
    }
    /* One mapping for all rings: a mapping a sender would count against vm.max_map_count and could
     * fail when a message arrives. */
    tp->inbox =
        mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, tp->inbox_fd, 0);
    if (tp->inbox == MAP_FAILED) {
        lo_log(tp, ISO_LOG_ERROR,
               "cannot map the inbox (%" PRIu64 " bytes of addresses, set ulimit -v higher): %s",
               length, strerror(errno));
        goto close_fd;
    }
    madvise(tp->inbox, length, MADV_DONTDUMP);
    tp->control = (lo_control_t *)(void *)tp->inbox;
    write_id(tp);
    return ISO_OK;

close_fd:
    close(tp->inbox_fd);
    return ISO_ERR_SYSTEM;
}

static void wake_sender(iso_transport_t *tp, lo_peer_t *peer)
{
    lo_ring_t *ring = ring_from(tp, peer->base.rank);

    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&ring->sender_waits, memory_order_relaxed) == 0)
        return;
    atomic_store_explicit(&ring->sender_waits, 0, memory_order_relaxed);
    const lo_doorbell_name_t doorbell = ring->doorbell;
    lo_doorbell_ring(tp, &doorbell);
}

void lo_inbox_close(iso_transport_t *tp)
{
    atomic_store(&tp->control->closed, 1);
    for (peer_t *peer = tp->peers.first; peer != NULL; peer = peer->next)
        if (lo_peer(peer)->heard)
            wake_sender(tp, lo_peer(peer)); /* it will find out */
    munmap(tp->inbox, lo_ring_offset(tp->host->size));
    close(tp->inbox_fd);
}

/* ---- who sends ------------------------------------------------------------------------------- */

/* Never 0. Garbage must not name a process that does not exist: that would be a death. */
static uint64_t sender_check(const iso_transport_t *tp, const process_id_t *sender, uint32_t rank,
                             const lo_doorbell_name_t *doorbell)
{
    uint64_t hash = hash_bytes(HASH_START, tp->host->cookie, sizeof tp->host->cookie);

    hash = hash_bytes(hash, &rank, sizeof rank);
    hash = hash_bytes(hash, &sender->pid, sizeof sender->pid);
    hash = hash_bytes(hash, &sender->start, sizeof sender->start);
    hash = hash_bytes(hash, doorbell, sizeof *doorbell);
    return hash | 1;
}

iso_status_t lo_ring_claim(iso_endpoint_t *ep)
{
    const iso_transport_t *tp = ep->tp;
    lo_ring_t *ring = ep->ring;

    if (atomic_load_explicit(&ring->sender_check, memory_order_acquire) != 0 &&
        !process_same(&ring->sender, &tp->process)) {
        lo_log(tp, ISO_LOG_ERROR,
               "process %" PRId32 " sends to rank %u as rank %u already: two processes have one "
               "rank",
               ring->sender.pid, ep->peer->base.rank, tp->host->rank);
        return ISO_ERR_UNREACHABLE;
    }
    ring->sender = tp->process;
    ring->doorbell = tp->doorbell;
    atomic_store_explicit(&ring->sender_check,
                          sender_check(tp, &tp->process, tp->host->rank, &tp->doorbell),
                          memory_order_release);
    /* Not 0 if this process was connected before. */
    ep->head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    ep->tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    if (ep->head - ep->tail > LO_RING_DATA || (ep->head | ep->tail) % sizeof(lo_record_t) != 0) {
        lo_log(tp, ISO_LOG_ERROR,
               "the ring to rank %u holds garbage: head %" PRIu64 ", tail %" PRIu64,
               ep->peer->base.rank, ep->head, ep->tail);
        return ISO_ERR_UNREACHABLE;
    }
    return ISO_OK;
}

/* ---- sending --------------------------------------------------------------------------------- */

static uint32_t record_check(uint64_t position, uint32_t len)
{
    return (uint32_t)(position >> 3) * 2654435761u ^ len ^ 0x69736f6du;
}

static uint64_t record_bytes(size_t len)
{
    return sizeof(lo_record_t) + (((uint64_t)len + 7) & ~(uint64_t)7);
}

static void copy_in(lo_ring_t *ring, uint64_t position, const void *bytes, size_t len)
{
    const size_t at = position % LO_RING_DATA;
    const size_t first = len < LO_RING_DATA - at ? len : LO_RING_DATA - at;

    if (len == 0)
        return; /* bytes may be NULL */
    memcpy(ring->data + at, bytes, first);
    memcpy(ring->data, (const unsigned char *)bytes + first, len - first);
}

static void copy_out(const lo_ring_t *ring, uint64_t position, void *bytes, size_t len)
{
    const size_t at = position % LO_RING_DATA;
    const size_t first = len < LO_RING_DATA - at ? len : LO_RING_DATA - at;

    memcpy(bytes, ring->data + at, first);
    memcpy((unsigned char *)bytes + first, ring->data, len - first);
}

/* A send found out that nothing gets through any more: progress reports it. */
static iso_status_t lose(iso_endpoint_t *ep, const char *why)
{
    ep->peer->base.state = PEER_UNREACHABLE;
    ep->peer->unreachable_due = true;
    ep->tp->reports_due++;
    lo_log(ep->tp, ISO_LOG_WARN, "nothing can be sent to rank %u any more: %s", ep->peer->base.rank,
           why);
    return ISO_ERR_UNREACHABLE;
}

/* ISO_OK: there is room for `need` bytes; ISO_ERR_AGAIN: not now. */
static iso_status_t find_room(iso_endpoint_t *ep, uint64_t need)
{
    if (LO_RING_DATA - (ep->head - ep->tail) >= need)
        return ISO_OK;
    const uint64_t tail = atomic_load_explicit(&ep->ring->tail, memory_order_acquire);
    if (ep->head - tail > LO_RING_DATA || tail % sizeof(lo_record_t) != 0) {
        ep->peer->broken = true;
        return lose(ep, "it has overwritten its inbox");
    }
    ep->tail = tail;
    return LO_RING_DATA - (ep->head - tail) >= need ? ISO_OK : ISO_ERR_AGAIN;
}

static void tell_receiver(iso_endpoint_t *ep)
{
    const uint32_t rank = ep->tp->host->rank;
    lo_control_t *control = ep->control;
    _Atomic(uint64_t) *ready = &control->ready[rank / 64];
    const uint64_t bit = (uint64_t)1 << rank % 64;

    atomic_thread_fence(memory_order_seq_cst);
    /* A bit still set will be seen, with the new head; setting it again would only cost. */
    if ((atomic_load_explicit(ready, memory_order_relaxed) & bit) == 0) {
        atomic_fetch_or(ready, bit);
        atomic_fetch_or(&control->summary[rank / 4096], (uint64_t)1 << rank / 64 % 64);
        atomic_thread_fence(memory_order_seq_cst);
    }
    /* Once a sleep is enough. The receiver clears `armed`, not we: a sender that dies between
     * clearing it and ringing would let all others believe that somebody has rung. */
    const uint32_t armed = atomic_load(&control->armed);
    if (armed != 0 && armed != ep->rung) {
        ep->rung = armed;
        lo_doorbell_ring(ep->tp, &ep->doorbell);
    }
}

static void block(iso_endpoint_t *ep, uint64_t need)
{
    if (ep->need == 0) {
        ep->next_blocked = ep->tp->blocked;
        ep->tp->blocked = ep;
    }
    ep->need = need;
}

void lo_ep_forget_blocked(iso_endpoint_t *ep)
{
    if (ep->need == 0)
        return;
    iso_endpoint_t **link = &ep->tp->blocked;
    while (*link != ep)
        link = &(*link)->next_blocked;
    *link = ep->next_blocked;
    ep->need = 0;
}

bool lo_ep_unblocked(iso_endpoint_t *ep)
{
    return ep->peer->base.state != PEER_ALIVE || /* the next send says so */
           atomic_load_explicit(&ep->control->closed, memory_order_relaxed) != 0 ||
           find_room(ep, ep->need) != ISO_ERR_AGAIN;
}

iso_status_t lo_send(iso_endpoint_t *ep, const void *data, size_t len)
{
    const uint64_t need = record_bytes(len);

    if (len > LO_MAX_SEND) {
        lo_log(ep->tp, ISO_LOG_ERROR, "a message of %zu bytes to rank %u: at most %u can be sent",
               len, ep->peer->base.rank, LO_MAX_SEND);
        return ISO_ERR_INVALID;
    }
    if (ep->peer->base.state != PEER_ALIVE)
        return peer_usable(&ep->peer->base);
    if (atomic_load_explicit(&ep->control->closed, memory_order_relaxed) != 0)
        return lose(ep, "it has closed the transport");
    const iso_status_t status = find_room(ep, need);
    if (status == ISO_ERR_AGAIN)
        block(ep, need);
    if (status != ISO_OK)
        return status;
    lo_ep_forget_blocked(ep);

    const lo_record_t record = {(uint32_t)len, record_check(ep->head, (uint32_t)len)};
    copy_in(ep->ring, ep->head, &record, sizeof record);
    copy_in(ep->ring, ep->head + sizeof record, data, len);
    ep->head += need;
    atomic_store_explicit(&ep->ring->head, ep->head, memory_order_release);
    tell_receiver(ep);
    return ISO_OK;
}

/* ---- receiving ------------------------------------------------------------------------------- */

/* From here on nothing of the ring is read. Counts as an event. */
static unsigned break_off(iso_transport_t *tp, lo_peer_t *peer, const char *what)
{
    peer->broken = true;
    lo_log(tp, ISO_LOG_ERROR,
           "the ring of rank %u holds garbage at position %" PRIu64 " (%s): nothing more is taken "
           "from it",
           peer->base.rank, peer->tail, what);
    peers_settle(&tp->peers, &peer->base, PEER_UNREACHABLE);
    return 1;
}

/* Delivers one record of a ring that is filled up to head. */
static unsigned deliver(iso_transport_t *tp, lo_peer_t *peer, lo_ring_t *ring, uint64_t head)
{
    lo_record_t record;

    copy_out(ring, peer->tail, &record, sizeof record);
    if (record.len > LO_MAX_SEND || record_bytes(record.len) > head - peer->tail ||
        record.check != record_check(peer->tail, record.len))
        return break_off(tp, peer, "not a record");
    /* Copied, so that the callback sees bytes that do not change under it, in one piece. */
    copy_out(ring, peer->tail + sizeof record, tp->message, record.len);
    peer->tail += record_bytes(record.len);
    atomic_store_explicit(&ring->tail, peer->tail, memory_order_release);
    tp->host->message(tp->host->arg, peer->base.rank, tp->message, record.len);
    return 1;
}

/* Everything up to the head of now: a sender that goes on sets its bit again. */
static unsigned take(iso_transport_t *tp, lo_peer_t *peer)
{
    lo_ring_t *ring = ring_from(tp, peer->base.rank);
    const uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    unsigned events = 0;

    if (head - peer->tail > LO_RING_DATA || head % sizeof(lo_record_t) != 0)
        return break_off(tp, peer, "its head is out of range");
    while (peer->tail != head && !peer->broken)
        events += deliver(tp, peer, ring, head);
    if (events > 0)
        wake_sender(tp, peer);
    return events;
}

/* The first sign of life: learns which process it is, to learn of its death. ESRCH: it is gone
 * already; -1: the ring's head is garbage, and that has been reported. */
static int hear(iso_transport_t *tp, lo_peer_t *peer)
{
    const lo_ring_t *ring = ring_from(tp, peer->base.rank);
    const uint64_t check = atomic_load_explicit(&ring->sender_check, memory_order_acquire);
    const process_id_t sender = ring->sender;
    const lo_doorbell_name_t doorbell = ring->doorbell;

    if (sender.pid <= 0 || check != sender_check(tp, &sender, peer->base.rank, &doorbell) ||
        (peer->base.process.pid != 0 && !process_same(&peer->base.process, &sender))) {
        break_off(tp, peer, "its sender is not known");
        return -1;
    }
    peer->heard = true;
    peer->base.process = sender;
    const int error = peers_watch(&tp->peers, &peer->base);
    if (error != 0 && error != ESRCH) {
        peer->unwatched = true;
        tp->unwatched++;
        lo_log(tp, ISO_LOG_WARN,
               "process %" PRId32 " of rank %u cannot be watched, its end might go unnoticed; "
               "trying again: %s",
               sender.pid, peer->base.rank, strerror(error));
        return 0;
    }
    return error;
}

static unsigned receive_from(iso_transport_t *tp, uint32_t rank)
{
    lo_peer_t *peer = rank < tp->host->size ? peers_get(&tp->peers, rank) : NULL;

    if (peer == NULL || peer->broken || peer->base.state == PEER_DEAD)
        return 0;
    const int error = peer->heard ? 0 : hear(tp, peer);
    if (error < 0)
        return 1;
    if (error == ESRCH)
        return lo_peer_ended(tp, peer);
    return take(tp, peer);
}

bool lo_inbox_ready(const iso_transport_t *tp)
{
    for (uint32_t i = 0; i * 4096u < tp->host->size; i++)
        if (atomic_load_explicit(&tp->control->summary[i], memory_order_relaxed) != 0)
            return true;
    return false;
}

static unsigned receive_word(iso_transport_t *tp, uint32_t word)
{
    uint64_t bits = atomic_exchange(&tp->control->ready[word], 0);
    unsigned events = 0;

    atomic_thread_fence(memory_order_seq_cst);
    for (; bits != 0; bits &= bits - 1)
        events += receive_from(tp, word * 64 + (uint32_t)__builtin_ctzll(bits));
    return events;
}

unsigned lo_inbox_receive(iso_transport_t *tp)
{
    unsigned events = 0;

    for (uint32_t i = 0; i * 4096u < tp->host->size; i++) {
        _Atomic(uint64_t) *summary = &tp->control->summary[i];
        if (atomic_load_explicit(summary, memory_order_relaxed) == 0)
            continue;
        for (uint64_t words = atomic_exchange(summary, 0); words != 0; words &= words - 1)
            events += receive_word(tp, i * 64 + (uint32_t)__builtin_ctzll(words));
    }
    return events;
}

unsigned lo_ring_drain(iso_transport_t *tp, lo_peer_t *peer)
{
    const lo_ring_t *ring = ring_from(tp, peer->base.rank);

    if (!peer->heard) {
        if (atomic_load_explicit(&ring->sender_check, memory_order_acquire) == 0)
            return 0; /* it had never come as far as sending */
        if (hear(tp, peer) < 0)
            return 1;
    }
    return take(tp, peer);
}
