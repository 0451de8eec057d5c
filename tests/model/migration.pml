/*
 * migration.pml - the migration protocol of core/ as a model for spin: three ranks, one or two heaps.
 *
 * Steps, stages and messages have the names that they have in the code: core/migrate.h (ISO_STEP_*),
 * core/arrive.h (ISO_INCOMING_*), core/stage.h (ISO_STAGE_*), core/wire.h (ISO_MSG_*), core/left.h
 * (ISO_LEFT_*), core/node.c (WORD_*). What is modelled, what is left out and why that is sound, and what is
 * checked: README.md beside this file. check.sh runs it.
 */

/* ---- the configuration ---- */

#define N 3
#ifndef HEAPS
#define HEAPS 1
#endif
#ifndef NODES /* 1: each rank a node of its own; 2: ranks 0 and 1 are a node, 2 is another; 3: all are one */
#define NODES 1
#endif
#ifndef SHARED /* the node's pages are one set */
#define SHARED 0
#endif
#ifndef GRANTS /* COMMIT promises a standing grant on what is left: it fits ISO_RETAIN */
#define GRANTS 1
#endif
#ifndef PRESSURE /* what was left may have to go at any time: ISO_RETAIN is used up */
#define PRESSURE 1
#endif
#ifndef PAGES
#define PAGES 1
#endif
/* How often what is not a step of the protocol may happen, in all: */
#ifndef MOVES /* calls of iso_migrate */
#define MOVES 2
#endif
#ifndef LATES /* ISO_TIMEOUT passes (or iso_cancel is called) while all live and can be reached */
#define LATES 1
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef CUTS /* a connection is lost, for ever unless it heals */
#define CUTS 0
#endif
#ifndef HEALS
#define HEALS 0
#endif
#ifndef REFUSALS /* a target refuses, or has no memory */
#define REFUSALS 0
#endif
#ifndef HOME0 /* where the heaps begin */
#define HOME0 0
#endif
#ifndef HOME1
#define HOME1 1
#endif
#ifdef UNCHECKED /* only what a formula at the end says */
#define assert(condition) skip
#endif
#ifndef DEPTH /* of a channel: a check that fails when it is too small */
#define DEPTH 10
#endif

#if NODES == 1
#define node_of(r) (r)
#define same_node(a, b) 0
#elif NODES == 2
#define node_of(r) ((r) / 2)
#define same_node(a, b) ((a) / 2 == (b) / 2)
#else
#define node_of(r) 0
#define same_node(a, b) 1
#endif
#if SHARED
#define memory_of(r) node_of(r)
#define is_handover(a, b) same_node(a, b)
#else
#define memory_of(r) (r)
#define is_handover(a, b) 0
#endif

/* ---- what there is ---- */

mtype = {RESERVE, GRANT, COMMIT, ACK, NACK, DONE, CANCEL, REVOKE, UNGRANT};
mtype = {INVALID, REFUSED, AGAIN, BUSY}; /* reasons of a NACK */

/* iso_heap_state_t, and ARRIVING for a hold with an arrival */
#define ELSEWHERE 0
#define OWNED     1
#define MOVING    2
#define IN_DOUBT  3
#define ARRIVING  4
/* iso_step_t; 0: no request. FROZEN is left in the step that makes it, but for a retry */
#define NO_REQUEST 0
#define FROZEN     1
#define RESERVING  2
#define PUTTING    3
#define FLUSHING   4
#define COMMITTED  5
#define STOPPING   6
#define DOUBT      7
/* iso_incoming_step_t; LISTING is left in the step that makes it */
#define RESERVED 1
#define ARRIVED  2
/* iso_left_state_t; 0: nothing is left here */
#define LEFT_IDLE     1
#define LEFT_GRANTED  2
#define LEFT_REVOKING 3
#ifdef MUTANT_RELEASE_UNASKED
#define LEFT_REVOKED LEFT_IDLE
#else
#define LEFT_REVOKED LEFT_REVOKING
#endif
/* core/node.c */
#define WORD_NONE      0
#define WORD_OWNED     1
#define WORD_MOVING    2
#define WORD_LEFT      3
#define WORD_RELEASING 4
#define WORD_CLAIMED   5

/* What one rank knows of one heap. All 0: nothing. */
typedef view_t {
    /* iso_hold_t */
    unsigned state : 3;
    unsigned epoch : 5;
    unsigned grant_rank : 2;
    unsigned grant : 4; /* generation */
    /* iso_request_t */
    unsigned step : 3;
    unsigned dest : 2;
    unsigned to_epoch : 5;
    unsigned by_grant : 4;
    unsigned promise : 4;
    unsigned revoke_answer : 1;
    unsigned puts : 2; /* issued */
    /* iso_incoming_t */
    unsigned in_step : 2;
    unsigned in_source : 2;
    unsigned in_promise : 4;
    unsigned in_handover : 1;
    /* iso_left_t */
    unsigned left : 2;
    unsigned left_holder : 2;
    unsigned left_grant : 4;
    unsigned left_epoch : 5 /* that the heap left with */
}
view_t views[N * HEAPS];
#define at(r, h) views[(r) * HEAPS + (h)]

typedef word_t {
    unsigned state : 3;
    unsigned epoch : 5;
    unsigned source : 2;
    unsigned target : 2
}
#if NODES > 1
word_t words[2 * HEAPS]; /* a node's segment: the word of the heap's slot */
#define word(r, h) words[node_of(r) * HEAPS + (h)]
#endif

byte generations[N]; /* iso_retain_t */

/* messages: heap, epoch, generation (NACK: about), promise (RESERVE: handover; NACK: reason) */
chan link[N * N] = [DEPTH] of {mtype, byte, byte, byte, byte};
#define way(a, b) link[(a) * N + (b)]

/* Whole: the page has what the heap's owner has written. The owner writes as soon as it owns. */
#define NONE  0
#define WHOLE 1
#define BAD   2
typedef page_t {
    unsigned is : 2
}
page_t pages[N * HEAPS * PAGES]; /* of each memory object */
#define page(m, h, p) pages[((m) * HEAPS + (h)) * PAGES + (p)].is
page_t flights[N * N * HEAPS * PAGES]; /* puts that are under way, and what they bring */
#define flight(a, b, h, p) flights[(((a) * N + (b)) * HEAPS + (h)) * PAGES + (p)].is

bit gone[N];          /* its process has ended */
bit dead[N * N];      /* iso_peer_t: [me, other] */
bit broken[N * N];    /* iso_peer_t */
bit down[N * N];      /* the connection, both ways: [lower, higher] */
#define knows_dead(a, b) dead[(a) * N + (b)]
#define is_broken(a, b) broken[(a) * N + (b)]
#define low(a, b) ((a) < (b) -> (a) : (b))
#define high(a, b) ((a) < (b) -> (b) : (a))
#if CUTS
#define is_down(a, b) down[low(a, b) * N + high(a, b)]
#else
#define is_down(a, b) 0
#endif

byte moves = MOVES, lates = LATES, crashes = CRASHES, cuts = CUTS, heals = HEALS, refusals = REFUSALS;
bit calm; /* nothing more comes from outside */
bit settled;

/* ghosts: what the checks know */
bit may_be_lost[HEAPS];    /* its owner, or its only decider, has ended */
bit orphan[HEAPS];         /* its source ended after COMMIT, and nothing is decided */
byte orphan_target[HEAPS], orphan_epoch[HEAPS];
bit nacked[HEAPS];         /* the target has answered no to the attempt that is under way */

/* scratch, never kept from one step to the next */
#ifdef SHORTEST /* the search in breadth does not know hidden variables */
#define hidden
#endif
hidden byte s, hh, ee, gg, xx, i, j, k;
hidden byte no, found, took;
hidden mtype mm;

/* ---- checks ---- */

/* The rank may use the heap from now on, and writes to it. */
inline may_use(r, h)
{
    printf("%d: OWNS heap %d\n", r, h);
    at(r, h).state = OWNED;
    for (i : 0 .. N - 1) {
        assert(i == r || gone[i] || at(i, h).state != OWNED); /* never two owners */
    }
    for (j : 0 .. PAGES - 1) {
        assert(page(memory_of(r), h, j) == WHOLE); /* contents whole */
        for (i : 0 .. N - 1) {
            if
            :: i != memory_of(r) && page(i, h, j) == WHOLE -> page(i, h, j) = BAD
            :: else
            fi;
            for (k : 0 .. N - 1) {
                if
                :: flight(i, k, h, j) == WHOLE -> flight(i, k, h, j) = BAD
                :: else
                fi
            }
        }
    }
    nacked[h] = 0;
    orphan[h] = 0
}

/* Nobody uses what is in this memory, and nobody may put there. */
inline check_release(r, m, h)
{
    for (i : 0 .. N - 1) {
        for (j : 0 .. N - 1) { /* i: whose pages; j: who might put there */
            if
            :: memory_of(i) == m && i != j ->
                assert(i != r || gone[j] || at(j, h).grant == 0 || at(j, h).grant_rank != i);
                assert(gone[j] || at(j, h).dest != i || gone[i] || (i != r && at(j, h).by_grant != 0) ||
                       (at(j, h).step != PUTTING && at(j, h).step != FLUSHING &&
                        at(j, h).step != STOPPING));
                for (k : 0 .. PAGES - 1) {
                    assert(gone[j] || gone[i] || (i != r && at(j, h).by_grant != 0) || flight(j, i, h, k) == NONE)
                }
            :: memory_of(i) == m && i == j -> assert(gone[i] || at(i, h).state != OWNED)
            :: else
            fi
        }
    }
}

inline punch(r, m, h)
{
    printf("%d: pages of heap %d given back\n", r, h);
    check_release(r, m, h);
    for (i : 0 .. PAGES - 1) {
        page(m, h, i) = BAD
    }
    skip /* a loop must not be the end of a d_step */
}

/* May this put land there now? */
inline check_landing(a, b, h)
{
    for (i : 0 .. N - 1) {
        assert(memory_of(i) != memory_of(b) || gone[i] || at(i, h).state != OWNED)
    }
    if
    :: gone[b]
    :: else ->
        assert((at(b, h).state == ARRIVING && at(b, h).in_step == RESERVED && at(b, h).in_source == a) ||
               (at(b, h).left >= LEFT_GRANTED && at(b, h).left_holder == a) ||
               (at(b, h).step == COMMITTED && at(b, h).dest == a && same_node(a, b)))
    fi
}

/* ---- messages ---- */

inline send(from_, to_, type_, heap_, epoch_, generation_, promise_)
{
    if
    :: knows_dead(from_, to_) || gone[to_]
    :: else ->
        assert(len(way(from_, to_)) < DEPTH);
        printf("%d: %e to %d, heap %d epoch %d generation %d, %d\n", from_, type_, to_, heap_, epoch_, generation_,
               promise_);
        way(from_, to_)!type_, heap_, epoch_, generation_, promise_
    fi
}

/* ---- grant.c ---- */

inline grant_drop(r, h)
{
    if
    :: at(r, h).grant != 0 ->
        send(r, at(r, h).grant_rank, UNGRANT, h, 0, at(r, h).grant, 0);
        at(r, h).grant = 0;
        at(r, h).grant_rank = 0
    :: else
    fi
}

inline grant_unused(r, h)
{
    if
    :: at(r, h).revoke_answer ->
        at(r, h).revoke_answer = 0;
        send(r, at(r, h).dest, UNGRANT, h, 0, at(r, h).by_grant, 0);
        if
        :: at(r, h).grant == at(r, h).by_grant ->
            at(r, h).grant = 0;
            at(r, h).grant_rank = 0
        :: else
        fi
    :: else
    fi
}

/* ---- left.c ---- */

inline left_set(r, h, state_, holder_, generation_, epoch_)
{
    at(r, h).left = state_;
    at(r, h).left_holder = holder_;
    at(r, h).left_grant = generation_;
    at(r, h).left_epoch = epoch_
}

/* ---- migrate.c ---- */

inline request_clear(r, h)
{
    at(r, h).step = NO_REQUEST;
    at(r, h).dest = 0;
    at(r, h).to_epoch = 0;
    at(r, h).by_grant = 0;
    at(r, h).promise = 0;
    at(r, h).revoke_answer = 0;
    at(r, h).puts = 0
}

inline end_here(r, h)
{
    grant_unused(r, h);
    at(r, h).epoch = at(r, h).to_epoch;
    request_clear(r, h);
    may_use(r, h)
}

inline end_gone(r, h)
{
    printf("%d: heap %d is GONE to %d\n", r, h, at(r, h).dest);
    if
    :: is_handover(r, at(r, h).dest)
    :: else -> /* iso_left_leave */
        if
#ifndef MUTANT_PROMISE_FORGOTTEN
        :: at(r, h).promise != 0 -> left_set(r, h, LEFT_GRANTED, at(r, h).dest, at(r, h).promise, at(r, h).to_epoch)
#endif
        :: else -> left_set(r, h, LEFT_IDLE, 0, 0, 0)
        fi;
        node_leave(r, h)
    fi;
    if
    :: !same_node(r, at(r, h).dest) -> send(r, at(r, h).dest, DONE, h, at(r, h).to_epoch, 0, 0)
    :: else
    fi;
    request_clear(r, h);
    at(r, h).state = ELSEWHERE;
    at(r, h).epoch = 0;
    grant_drop(r, h)
}

inline in_flight(r, h)
{
    found = 0;
    for (i : 0 .. PAGES - 1) {
        found = found || flight(r, at(r, h).dest, h, i) != NONE
    }
}

inline stop(r, h)
{
    in_flight(r, h);
    if
#ifndef MUTANT_STOP_UNFLUSHED
    :: found -> at(r, h).step = STOPPING
#endif
    :: else ->
        if
#ifndef MUTANT_NO_CANCEL
        :: at(r, h).step > FROZEN && at(r, h).by_grant == 0 ->
            send(r, at(r, h).dest, CANCEL, h, at(r, h).to_epoch, 0, 0)
#endif
        :: else
        fi;
        end_here(r, h)
    fi
}

#if NODES > 1
#define is_word(r, h, st, e, a, b) \
    (word(r, h).state == st && word(r, h).epoch == (e) && word(r, h).source == (a) && word(r, h).target == (b))
#ifdef MUTANT_TAKEN_IS_OWNED
#define is_taken(r, h) is_word(r, h, WORD_OWNED, at(r, h).to_epoch, r, at(r, h).dest)
#else
#define is_taken(r, h) \
    (!is_word(r, h, WORD_MOVING, at(r, h).to_epoch, r, at(r, h).dest) && \
     !is_word(r, h, WORD_OWNED, at(r, h).to_epoch, at(r, h).dest, r))
#endif

inline set_word(r, h, st, e, a, b)
{
    word(r, h).state = st;
    word(r, h).epoch = e;
    word(r, h).source = a;
    word(r, h).target = b
}
#if SHARED
inline node_leave(r, h)
{
    if
#ifndef MUTANT_CLAIM_ANY
    :: at(r, h).state == ARRIVING && !is_word(r, h, WORD_CLAIMED, 0, 0, r) /* somebody has it by now */
#endif
    :: else -> set_word(r, h, WORD_LEFT, 0, 0, r)
    fi
}
#else
inline node_leave(r, h) { skip }
#endif
inline decide_by_node(r, h)
{
    if
#ifdef MUTANT_DECLINE_BY_STORE
    :: true ->
#else
    :: is_word(r, h, WORD_MOVING, at(r, h).to_epoch, r, at(r, h).dest) -> /* iso_node_decline */
#endif
        set_word(r, h, WORD_OWNED, at(r, h).to_epoch, at(r, h).dest, r);
        send(r, at(r, h).dest, CANCEL, h, at(r, h).to_epoch, 0, 0);
        end_here(r, h)
    :: else ->
        if
        :: is_taken(r, h) -> end_gone(r, h)
        :: else -> end_here(r, h)
        fi
    fi
}
inline settle(r)
{
    for (j : 0 .. HEAPS - 1) {
        if
        :: at(r, j).step == COMMITTED && same_node(r, at(r, j).dest) && is_taken(r, j) -> end_gone(r, j)
        :: else
        fi
    }
}
#else
#define is_taken(r, h) 0
inline node_leave(r, h) { skip }
inline decide_by_node(r, h) { skip }
inline settle(r) { skip }
#endif

/* request->in_doubt: the caller is told. The steps STOPPING and DOUBT go on, and settle it. */
#define in_doubt(r, h) (at(r, h).state == IN_DOUBT)

inline fall_in_doubt(r, h)
{
    printf("%d: is in DOUBT of heap %d\n", r, h);
    if
    :: at(r, h).step == STOPPING ->
#ifdef MUTANT_STOPPING_OWNS
        send(r, at(r, h).dest, CANCEL, h, at(r, h).to_epoch, 0, 0);
        end_here(r, h)
#else
        at(r, h).state = IN_DOUBT
#endif
    :: else ->
#ifdef MUTANT_TIMEOUT_OWNS
        end_here(r, h)
#else
        at(r, h).step = DOUBT;
        at(r, h).state = IN_DOUBT
#endif
    fi
}

inline give_up(r, h)
{
    printf("%d: gives up heap %d\n", r, h);
    if
    :: at(r, h).step < COMMITTED -> stop(r, h)
    :: at(r, h).step == COMMITTED && same_node(r, at(r, h).dest) -> decide_by_node(r, h)
    :: else
    fi
}

/* Ends with the step COMMITTED, or at the stage OFFERED. */
inline send_commit(r, h)
{
    if
    :: GRANTS && !is_handover(r, at(r, h).dest) ->
        generations[r]++;
        at(r, h).promise = generations[r]
    :: else
    fi;
    if
#if NODES > 1
    :: same_node(r, at(r, h).dest) ->
        set_word(r, h, WORD_MOVING, at(r, h).to_epoch, r, at(r, h).dest);
        stage = OFFERED;
        stage_heap = h
#endif
    :: !same_node(r, at(r, h).dest) -> commit_sent(r, h)
    fi
}

inline commit_sent(r, h)
{
    send(r, at(r, h).dest, COMMIT, h, at(r, h).to_epoch, at(r, h).by_grant, at(r, h).promise);
    at(r, h).step = COMMITTED;
    grant_unused(r, h);
    at(r, h).grant = 0;
    at(r, h).grant_rank = 0
}

inline begin(r, h)
{
    if
    :: is_handover(r, at(r, h).dest) ->
        grant_drop(r, h);
        send(r, at(r, h).dest, RESERVE, h, at(r, h).to_epoch, 0, 1);
        stage = RESERVE_SENT;
        stage_heap = h
    :: else ->
        if
        :: at(r, h).grant != 0 && at(r, h).grant_rank == at(r, h).dest ->
            at(r, h).by_grant = at(r, h).grant;
            at(r, h).step = PUTTING
        :: else ->
            grant_drop(r, h);
            send(r, at(r, h).dest, RESERVE, h, at(r, h).to_epoch, 0, 0);
            at(r, h).step = RESERVING
        fi
    fi
}

#ifdef MUTANT_NO_EPOCH
#define same_epoch(a, b) 1
#else
#define same_epoch(a, b) ((a) == (b))
#endif
#define is_mine(r, a, h, e) (at(r, h).step != NO_REQUEST && at(r, h).dest == a && same_epoch(at(r, h).to_epoch, e))

inline on_grant(r, a, h, e)
{
    if
#ifndef MUTANT_GRANT_UNHEARD
    :: is_mine(r, a, h, e) && at(r, h).step == RESERVING -> at(r, h).step = PUTTING
#endif
    :: else
    fi
}

#ifdef MUTANT_DOUBT_IS_DEAF
#define doubt_hears(r, h) 0
#else
#define doubt_hears(r, h) (at(r, h).step == DOUBT)
#endif

inline on_ack(r, a, h, e)
{
    if
    :: same_node(r, a)
    :: !same_node(r, a) && is_mine(r, a, h, e) && (at(r, h).step == COMMITTED || doubt_hears(r, h)) ->
        end_gone(r, h)
    :: else
    fi
}

inline on_nack(r, a, h, e, about, reason)
{
    if
    :: !is_mine(r, a, h, e)
    :: else ->
        if
        :: about == RESERVE && at(r, h).step == RESERVING ->
            at(r, h).step = FROZEN;
            stop(r, h)
        :: else ->
            if
            :: at(r, h).step != COMMITTED && at(r, h).step != DOUBT
            :: else ->
                if
                :: reason == AGAIN && at(r, h).by_grant != 0 && at(r, h).step == COMMITTED &&
                   !(same_node(r, a) && is_taken(r, h)) ->
                    at(r, h).by_grant = 0;
                    at(r, h).to_epoch = at(r, h).to_epoch + 1;
                    at(r, h).puts = 0;
                    at(r, h).promise = 0;
                    at(r, h).step = FROZEN;
                    nacked[h] = 0;
                    begin(r, h)
                :: else ->
                    if
                    :: same_node(r, a) -> decide_by_node(r, h)
                    :: else -> end_here(r, h)
                    fi
                fi
            fi
        fi
    fi
}

/* ---- arrive.c ---- */

inline incoming_clear(r, h)
{
    at(r, h).in_step = 0;
    at(r, h).in_source = 0;
    at(r, h).in_promise = 0;
    at(r, h).in_handover = 0
}

inline abandon(r, h)
{
    if
    :: at(r, h).in_handover
    :: else -> /* iso_left_leave */
        left_set(r, h, LEFT_IDLE, 0, 0, 0);
        node_leave(r, h)
    fi;
    incoming_clear(r, h);
    at(r, h).state = ELSEWHERE;
    at(r, h).epoch = 0
}

inline own(r, h)
{
    if
    :: at(r, h).in_promise != 0 ->
        at(r, h).grant_rank = at(r, h).in_source;
        at(r, h).grant = at(r, h).in_promise
    :: else
    fi;
#if SHARED && NODES > 1 && !defined(MUTANT_CLAIM_ANY)
    if
    :: !at(r, h).in_handover -> set_word(r, h, WORD_OWNED, 0, r, r) /* iso_node_own */
    :: else
    fi;
#endif
    incoming_clear(r, h);
    may_use(r, h)
}

/* iso_node_claim; granted: by a COMMIT under a standing grant of this rank */
#if SHARED && NODES > 1
#ifdef MUTANT_CLAIM_ANY
#define can_claim(r, h, granted) 1
#else
#define can_claim(r, h, granted) \
    ((granted) -> is_word(r, h, WORD_LEFT, 0, 0, r) \
               : (word(r, h).state != WORD_MOVING && \
                  (word(r, h).state != WORD_OWNED || (word(r, h).target != r && gone[word(r, h).target])) && \
                  (word(r, h).state != WORD_CLAIMED || word(r, h).target == r || gone[word(r, h).target])))
#endif
#else
#define can_claim(r, h, granted) 1
#endif

inline enter(r, a, h, e, handover)
{
    at(r, h).state = ARRIVING;
    at(r, h).epoch = e;
    at(r, h).in_step = RESERVED;
    at(r, h).in_source = a;
    at(r, h).in_handover = handover;
    left_set(r, h, 0, 0, 0, 0); /* iso_left_claim: what was left is void */
#if SHARED && NODES > 1
    if
    :: !handover -> set_word(r, h, WORD_CLAIMED, 0, 0, r)
    :: else
    fi
#endif
}

inline send_nack(r, a, h, e, about, reason)
{
    send(r, a, NACK, h, e, about, reason);
    if
    :: gone[a] && orphan[h] && orphan_epoch[h] == e && orphan_target[h] == r -> may_be_lost[h] = 1
    :: !gone[a] && at(a, h).to_epoch == e && at(a, h).dest == r -> nacked[h] = 1
    :: else
    fi
}

inline on_reserve(r, a, h, e, handover)
{
    settle(r);
    if
    :: at(r, h).state != ELSEWHERE -> send_nack(r, a, h, e, RESERVE, BUSY)
    :: else ->
        if
        :: no -> send_nack(r, a, h, e, RESERVE, REFUSED)
#ifndef MUTANT_STALE_RESERVE
        :: !no && at(r, h).left >= LEFT_GRANTED && e <= at(r, h).left_epoch -> send_nack(r, a, h, e, RESERVE, BUSY)
#endif
        :: !no && !handover && !can_claim(r, h, 0) -> send_nack(r, a, h, e, RESERVE, BUSY)
        :: else ->
            enter(r, a, h, e, handover);
            if
            :: handover
            :: else -> send(r, a, GRANT, h, e, 0, 0)
            fi
        fi
    fi
}

/* A NACK of a COMMIT: within a node the word is declined before. */
inline decline_nack(r, a, h, e, reason)
{
#if NODES > 1
    if
    :: same_node(r, a) ->
        if
        :: is_word(r, h, WORD_MOVING, e, a, r) -> set_word(r, h, WORD_OWNED, e, r, a)
        :: else
        fi;
        stage = DECLINED;
        stage_heap = h;
        stage_peer = a;
        stage_epoch = e;
        stage_reason = reason
    :: else -> send_nack(r, a, h, e, COMMIT, reason)
    fi
#else
    send_nack(r, a, h, e, COMMIT, reason)
#endif
}

#define is_incoming(r, a, h) \
    (at(r, h).state == ARRIVING && at(r, h).in_source == a)

inline on_commit(r, a, h, e, g, promised)
{
    found = is_incoming(r, a, h);
    took = 0; /* is there an arrival to go on with? */
    if
    :: !found && g != 0 ->
        settle(r);
        if
#ifdef MUTANT_GRANT_UNCHECKED
        :: at(r, h).state == ELSEWHERE ->
#else
        :: at(r, h).left >= LEFT_GRANTED && at(r, h).left_holder == a && at(r, h).left_grant == g &&
            can_claim(r, h, 1) ->
#endif
            if
            :: no -> decline_nack(r, a, h, e, REFUSED)
            :: else ->
                enter(r, a, h, e, 0);
                took = 1
            fi
        :: else -> decline_nack(r, a, h, e, AGAIN)
        fi
    :: !found && g == 0 ->
        if
        :: same_node(r, a)
        :: else -> send_nack(r, a, h, e, COMMIT, INVALID)
        fi
    :: else ->
        if
        :: at(r, h).in_step != RESERVED || at(r, h).epoch != e -> send_nack(r, a, h, e, COMMIT, INVALID)
        :: else -> took = 1
        fi
    fi;
    if
    :: !took
    :: else ->
        at(r, h).in_promise = promised;
        if
        :: no && g == 0 -> /* no memory for the delivery */
#if NODES > 1
            if
            :: same_node(r, a) && !is_word(r, h, WORD_MOVING, e, a, r) -> abandon(r, h)
            :: else ->
                decline_nack(r, a, h, e, REFUSED);
                abandon(r, h)
            fi
#else
            decline_nack(r, a, h, e, REFUSED);
            abandon(r, h)
#endif
        :: else ->
            if
            :: !same_node(r, a) ->
                send(r, a, ACK, h, e, 0, 0);
#ifdef MUTANT_OWN_AT_COMMIT
                own(r, h)
#else
                at(r, h).in_step = ARRIVED
#endif
#if NODES > 1
#ifdef MUTANT_TAKE_BY_STORE
            :: same_node(r, a) ->
#else
            :: same_node(r, a) && is_word(r, h, WORD_MOVING, e, a, r) -> /* iso_node_take */
#endif
                set_word(r, h, WORD_OWNED, e, a, r);
                own(r, h);
                send(r, a, ACK, h, e, 0, 0)
#endif
            :: else -> abandon(r, h)
            fi
        fi
    fi
}

inline on_done(r, a, h, e)
{
    if
    :: is_incoming(r, a, h) && at(r, h).in_step == ARRIVED && at(r, h).epoch == e -> own(r, h)
    :: else
    fi
}

inline on_cancel(r, a, h, e)
{
    if
    :: is_incoming(r, a, h) && at(r, h).in_step != ARRIVED && at(r, h).epoch == e -> abandon(r, h)
    :: else
    fi
}

#ifdef MUTANT_STOPPING_UNGRANTS
#define revoke_waits(r, h) (!in_doubt(r, h))
#else
#define revoke_waits(r, h) 1
#endif

inline on_revoke(r, a, h, g)
{
    if
    :: at(r, h).grant == g && at(r, h).grant_rank == a ->
        if
#ifndef MUTANT_UNGRANT_IN_USE
        :: at(r, h).by_grant == g && at(r, h).dest == a && revoke_waits(r, h) -> at(r, h).revoke_answer = 1
#endif
        :: else ->
            at(r, h).grant = 0;
            at(r, h).grant_rank = 0;
            send(r, a, UNGRANT, h, 0, g, 0)
        fi
    :: else -> send(r, a, UNGRANT, h, 0, g, 0)
    fi
}

inline on_ungrant(r, a, h, g)
{
    if
    :: at(r, h).left >= LEFT_GRANTED && at(r, h).left_holder == a && at(r, h).left_grant == g ->
        left_set(r, h, LEFT_IDLE, 0, 0, 0)
    :: else
    fi
}

/* ---- dispatch.c ---- */

inline dispatch(r, a)
{
    way(a, r)?mm, hh, ee, gg, xx;
    printf("%d:     hears %e of %d, heap %d epoch %d\n", r, mm, a, hh, ee);
    if
    :: mm == RESERVE -> on_reserve(r, a, hh, ee, xx)
    :: mm == GRANT -> on_grant(r, a, hh, ee)
    :: mm == COMMIT -> on_commit(r, a, hh, ee, gg, xx)
    :: mm == ACK -> on_ack(r, a, hh, ee)
    :: mm == NACK -> on_nack(r, a, hh, ee, gg, xx)
    :: mm == DONE -> on_done(r, a, hh, ee)
    :: mm == CANCEL -> on_cancel(r, a, hh, ee)
    :: mm == REVOKE -> on_revoke(r, a, hh, gg)
    :: mm == UNGRANT -> on_ungrant(r, a, hh, gg)
    fi
}

/* iso_dispatch_death */
inline on_death(r, a)
{
    printf("%d: hears of the death of %d\n", r, a);
    knows_dead(r, a) = 1;
    for (hh : 0 .. HEAPS - 1) {
        if
        :: at(r, hh).step != NO_REQUEST && at(r, hh).dest == a ->
            if
            :: at(r, hh).step >= COMMITTED && !same_node(r, a) && at(r, hh).step != STOPPING -> end_here(r, hh)
            :: else -> give_up(r, hh)
            fi
        :: else
        fi;
        if
        :: is_incoming(r, a, hh) ->
            if
#ifndef MUTANT_DEATH_ABANDONS
            :: at(r, hh).in_step == ARRIVED -> own(r, hh)
#endif
            :: else -> abandon(r, hh)
            fi
        :: else
        fi;
        if
        :: at(r, hh).left >= LEFT_GRANTED && at(r, hh).left_holder == a -> /* iso_left_holder_dead */
            left_set(r, hh, LEFT_IDLE, 0, 0, 0)
        :: else
        fi
    }
}

inline on_unreachable(r, a)
{
    is_broken(r, a) = 1;
    for (hh : 0 .. HEAPS - 1) {
        if
        :: at(r, hh).step != NO_REQUEST && at(r, hh).dest == a && at(r, hh).step < COMMITTED -> give_up(r, hh)
        :: else
        fi
    }
}

/* ---- a rank ends ---- */

inline crash(r)
{
    printf("%d: ENDS\n", r);
    crashes--;
    gone[r] = 1;
    for (hh : 0 .. HEAPS - 1) {
        if
        :: orphan[hh] && orphan_target[hh] == r -> may_be_lost[hh] = 1 /* and its source had ended before */
        :: else
        fi;
        if
        :: at(r, hh).state == OWNED -> may_be_lost[hh] = 1
        :: at(r, hh).state == ARRIVING && at(r, hh).in_step == ARRIVED -> may_be_lost[hh] = 1
        :: at(r, hh).state == MOVING || at(r, hh).state == IN_DOUBT ->
            if
            :: (at(r, hh).step != COMMITTED && at(r, hh).step != DOUBT) || nacked[hh] -> may_be_lost[hh] = 1
#if NODES > 1
            :: at(r, hh).step == COMMITTED && same_node(r, at(r, hh).dest) && !nacked[hh] &&
                is_word(r, hh, WORD_OWNED, at(r, hh).to_epoch, at(r, hh).dest, r) -> may_be_lost[hh] = 1
            :: at(r, hh).step == COMMITTED && same_node(r, at(r, hh).dest) && !nacked[hh] && is_taken(r, hh)
#endif
            :: else -> /* the target decides, if it has not ended, too */
                orphan[hh] = 1;
                orphan_target[hh] = at(r, hh).dest;
                orphan_epoch[hh] = at(r, hh).to_epoch;
                if
                :: gone[at(r, hh).dest] -> may_be_lost[hh] = 1
                :: else
                fi
            fi
        :: else
        fi;
        request_clear(r, hh);
        incoming_clear(r, hh);
        at(r, hh).state = ELSEWHERE;
        at(r, hh).epoch = 0;
        at(r, hh).grant = 0;
        at(r, hh).grant_rank = 0;
        left_set(r, hh, 0, 0, 0, 0);
        for (i : 0 .. N - 1) {
            for (j : 0 .. PAGES - 1) {
                flight(i, r, hh, j) = NONE
            }
        }
    }
    for (i : 0 .. N - 1) {
        do
        :: len(way(i, r)) > 0 -> way(i, r)?mm, hh, ee, gg, xx
        :: else -> break
        od
    }
}

/* ---- processes ---- */

mtype = {RUNNING, RESERVE_SENT, OFFERED, DECLINED, RELEASING};

#if SHARED && NODES > 1
/* iso_node_claim waits for a rank that is giving these pages back, unless it has ended. */
#define claim_waits(r, h) \
    (word(r, h).state == WORD_RELEASING && word(r, h).target != r && !gone[word(r, h).target])
#if HEAPS > 1
#define must_wait(r) (claim_waits(r, 0) || claim_waits(r, 1))
#else
#define must_wait(r) claim_waits(r, 0)
#endif
#else
#define must_wait(r) 0
#endif

#define hears(r, a) \
    ((a) != (r) && !knows_dead(r, a) && !is_down(r, a) && len(way(a, r)) > 0 && !must_wait(r))

#define MIGRATE(h, d) \
    :: d_step { \
        stage == RUNNING && moves > 0 && me != d && at(me, h).state == OWNED && !knows_dead(me, d) && \
            !is_broken(me, d) -> \
        moves--; \
        printf("%d: iso_migrate heap %d to %d\n", me, h, d); \
        at(me, h).state = MOVING; \
        at(me, h).dest = d; \
        at(me, h).to_epoch = at(me, h).epoch + 1; \
        begin(me, h) \
    }

/* put_turn; flush_turn follows in the same call once all are issued */
#define PUT(h) \
    :: d_step { \
        stage == RUNNING && at(me, h).step == PUTTING -> \
        flight(me, at(me, h).dest, h, at(me, h).puts) = page(memory_of(me), h, at(me, h).puts); \
        at(me, h).puts++; \
        if \
        :: at(me, h).puts == PAGES -> at(me, h).step = FLUSHING \
        :: else \
        fi \
    }

#define landed(r, h) (flight(r, at(r, h).dest, h, 0) == NONE && flight(r, at(r, h).dest, h, PAGES - 1) == NONE)

#ifdef MUTANT_STOPPING_IS_DEAF
#define stopping_looks(r, h) (!in_doubt(r, h))
#else
#define stopping_looks(r, h) 1
#endif

#define FLUSHED(h) \
    :: d_step { \
        stage == RUNNING && at(me, h).step == FLUSHING && landed(me, h) -> \
        send_commit(me, h) \
    } \
    :: d_step { \
        stage == RUNNING && at(me, h).step == STOPPING && landed(me, h) && stopping_looks(me, h) -> \
        stop(me, h) \
    }

#if NODES > 1
#define SEE_TAKEN(h) \
    :: d_step { \
        stage == RUNNING && at(me, h).step == COMMITTED && same_node(me, at(me, h).dest) && is_taken(me, h) -> \
        end_gone(me, h) \
    }
#else
#define SEE_TAKEN(h)
#endif

/* Puts inside a node are loopback's: the target has no part in them, and they end in less than ISO_TIMEOUT. */
#ifdef MUTANT_STOPPING_WAITS
#define may_stop_late(r, h) 0
#else
#define may_stop_late(r, h) (at(r, h).step == STOPPING && !in_doubt(r, h) && !same_node(r, at(r, h).dest))
#endif

/* ISO_TIMEOUT has passed: without a fault this is false suspicion */
#define DEADLINE(h) \
    :: d_step { \
        stage == RUNNING && \
            ((at(me, h).step >= RESERVING && at(me, h).step <= COMMITTED) || may_stop_late(me, h)) && \
            (lates > 0 || is_down(me, at(me, h).dest)) -> \
        if \
        :: !is_down(me, at(me, h).dest) -> lates-- \
        :: else \
        fi; \
        if \
        :: at(me, h).step == STOPPING || (at(me, h).step == COMMITTED && !same_node(me, at(me, h).dest)) -> \
            fall_in_doubt(me, h) \
        :: else -> give_up(me, h) \
        fi \
    }

/* the transport reports that a put has failed: it does not write any more. Between nodes, what is not reported by
 * the time that all is calm never is: a pulled cable may give no error. */
#define PUT_FAILS(h) \
    :: d_step { \
        stage == RUNNING && (!calm || same_node(me, at(me, h).dest)) && at(me, h).step >= PUTTING && \
            at(me, h).step != COMMITTED && at(me, h).step != DOUBT && is_down(me, at(me, h).dest) -> \
        for (i : 0 .. PAGES - 1) { \
            flight(me, at(me, h).dest, h, i) = NONE \
        } \
        stop(me, h) \
    }

#if SHARED && NODES > 1
#define RELEASE(h) \
    if \
    :: is_word(me, h, WORD_LEFT, 0, 0, me) -> \
        set_word(me, h, WORD_RELEASING, 0, 0, me); \
        stage = RELEASING; \
        stage_heap = h \
    :: else \
    fi
#else
#define RELEASE(h) punch(me, memory_of(me), h)
#endif

/* iso_retain_trim */
#define TRIM(h) \
    :: d_step { \
        stage == RUNNING && PRESSURE && at(me, h).left == LEFT_IDLE -> \
        left_set(me, h, 0, 0, 0, 0); \
        RELEASE(h); \
        skip \
    } \
    :: d_step { \
        stage == RUNNING && PRESSURE && at(me, h).left == LEFT_GRANTED -> \
        at(me, h).left = LEFT_REVOKED; \
        send(me, at(me, h).left_holder, REVOKE, h, 0, at(me, h).left_grant, 0) \
    }

#define can_bury(r, a) \
    ((a) != (r) && gone[a] && !knows_dead(r, a) && (all_heard(r, a) || is_down(r, a)) && !lands(a, r))
#ifdef MUTANT_DEATH_BEFORE_WORDS
#define all_heard(r, a) 1
#else
#define all_heard(r, a) (len(way(a, r)) == 0)
#endif
#define flies(a, b, h) (flight(a, b, h, 0) != NONE || flight(a, b, h, PAGES - 1) != NONE)
#if HEAPS > 1
#define lands(a, b) (flies(a, b, 0) || flies(a, b, 1))
#else
#define lands(a, b) flies(a, b, 0)
#endif

/* what a process that has ended said, and could not be delivered on a broken way, is lost */
#define BURY(a) \
    :: d_step { \
        stage == RUNNING && can_bury(me, a) -> \
        do \
        :: len(way(a, me)) > 0 -> \
            way(a, me)?mm, hh, ee, gg, xx; \
            if \
            :: is_down(me, a) && mm == COMMIT && orphan[hh] && orphan_target[hh] == me && orphan_epoch[hh] == ee -> \
                may_be_lost[hh] = 1 \
            :: else \
            fi \
        :: else -> break \
        od; \
        on_death(me, a); \
        skip \
    }

#define UNREACHABLE(a) \
    :: d_step { \
        stage == RUNNING && a != me && is_down(me, a) && !is_broken(me, a) && !knows_dead(me, a) -> \
        on_unreachable(me, a); \
        skip \
    }

#define OF_HEAP(h) \
    MIGRATE(h, 0) MIGRATE(h, 1) MIGRATE(h, 2) PUT(h) FLUSHED(h) SEE_TAKEN(h) DEADLINE(h) TRIM(h)

proctype Rank(byte me)
{
    mtype stage = RUNNING; /* in the middle of a call: who ends here has done so much of it */
    byte stage_heap, stage_peer, stage_epoch, stage_reason;
end:
    do
    OF_HEAP(0)
#if HEAPS > 1
    OF_HEAP(1)
#endif
#if CUTS
    PUT_FAILS(0) UNREACHABLE(0) UNREACHABLE(1) UNREACHABLE(2)
#if HEAPS > 1
    PUT_FAILS(1)
#endif
#endif
#if CRASHES
    BURY(0) BURY(1) BURY(2)
    :: d_step { crashes > 0 -> crash(me); stage = RUNNING; stage_heap = 0; stage_peer = 0; stage_epoch = 0;
        stage_reason = 0 } -> break
#endif
    :: atomic {
        stage == RUNNING && (hears(me, 0) || hears(me, 1) || hears(me, 2)) ->
        if
        :: hears(me, 0) -> s = 0
        :: hears(me, 1) -> s = 1
        :: hears(me, 2) -> s = 2
        fi;
        if
        :: no = 0
#if REFUSALS
        :: refusals > 0 && (way(s, me)?[RESERVE, hh, ee, gg, xx] || way(s, me)?[COMMIT, hh, ee, gg, xx]) ->
            no = 1;
            refusals--
#endif
        fi;
        d_step { dispatch(me, s) }
    }
#if NODES > 1
#if SHARED
    :: d_step { stage == RESERVE_SENT -> send_commit(me, stage_heap) }
#endif
    :: d_step { stage == OFFERED -> stage = RUNNING; commit_sent(me, stage_heap); stage_heap = 0 }
    :: d_step {
        stage == DECLINED ->
        send_nack(me, stage_peer, stage_heap, stage_epoch, COMMIT, stage_reason);
        stage = RUNNING;
        stage_heap = 0;
        stage_peer = 0;
        stage_epoch = 0;
        stage_reason = 0
    }
#if SHARED
    :: d_step { stage == RELEASING && is_word(me, stage_heap, WORD_RELEASING, 0, 0, me) ->
        punch(me, memory_of(me), stage_heap);
        set_word(me, stage_heap, WORD_NONE, 0, 0, 0);
        stage = RUNNING;
        stage_heap = 0
    }
#endif
#endif
    od
}

/* Puts arrive in any order and at any time until they are flushed. */
#define LAND(a, b, h, p) \
    :: d_step { \
        flight(a, b, h, p) != NONE && !is_down(a, b) -> \
        printf("%d: put into %d of heap %d lands\n", a, b, h); \
        check_landing(a, b, h); \
        page(memory_of(b), h, p) = flight(a, b, h, p); \
        flight(a, b, h, p) = NONE \
    } \
    :: d_step { flight(a, b, h, p) != NONE && (gone[a] || gone[b]) -> flight(a, b, h, p) = NONE }

#if PAGES > 1
#define LAND_PAGES(a, b, h) LAND(a, b, h, 0) LAND(a, b, h, 1)
#else
#define LAND_PAGES(a, b, h) LAND(a, b, h, 0)
#endif
#if HEAPS > 1
#define LANDS(a, b) LAND_PAGES(a, b, 0) LAND_PAGES(a, b, 1)
#else
#define LANDS(a, b) LAND_PAGES(a, b, 0)
#endif

proctype Transport()
{
end:
    do
    LANDS(0, 1) LANDS(0, 2) LANDS(1, 0) LANDS(1, 2) LANDS(2, 0) LANDS(2, 1)
    od
}

#define CUT(a, b) \
    :: d_step { cuts > 0 && !is_down(a, b) -> cuts--; is_down(a, b) = 1 } \
    :: d_step { heals > 0 && is_down(a, b) -> heals--; is_down(a, b) = 0 }

/* Nothing happens any more: has everything ended, and has every heap an owner? */
inline check_settled()
{
    for (hh : 0 .. HEAPS - 1) {
        found = may_be_lost[hh];
        for (i : 0 .. N - 1) {
            if
            :: gone[i]
            :: else ->
                found = found || at(i, hh).state == OWNED || in_doubt(i, hh) || at(i, hh).in_step == ARRIVED;
                /* doubt is settled unless the peer lives and cannot be spoken with */
                assert(at(i, hh).step == NO_REQUEST ||
                       (in_doubt(i, hh) && is_down(i, at(i, hh).dest) && !gone[at(i, hh).dest]));
                assert(at(i, hh).in_step == 0 ||
                       (is_down(i, at(i, hh).in_source) && !gone[at(i, hh).in_source]));
                assert(at(i, hh).left != LEFT_REVOKING ||
                       (is_down(i, at(i, hh).left_holder) && !gone[at(i, hh).left_holder]))
            fi
        }
        assert(found)
    }
}

proctype World()
{
    do
    :: d_step {
        !calm ->
        calm = 1;
        moves = 0;
        lates = 0;
        crashes = 0;
        cuts = 0;
        heals = 0;
        refusals = 0
    }
#if CUTS
    CUT(0, 1) CUT(0, 2) CUT(1, 2)
#endif
    :: timeout -> break
    od;
    skip;
    d_step {
        check_settled();
        settled = 1
    }
}

init {
    atomic {
        at(HOME0, 0).state = OWNED;
        at(HOME0, 0).epoch = 1;
        for (i : 0 .. PAGES - 1) {
            for (j : 0 .. N - 1) {
                page(j, 0, i) = BAD
            }
            page(memory_of(HOME0), 0, i) = WHOLE
        }
#if HEAPS > 1
        at(HOME1, 1).state = OWNED;
        at(HOME1, 1).epoch = 1;
        for (i : 0 .. PAGES - 1) {
            for (j : 0 .. N - 1) {
                page(j, 1, i) = BAD
            }
            page(memory_of(HOME1), 1, i) = WHOLE
        }
#endif
#if NODES > 1
        set_word(HOME0, 0, WORD_OWNED, 0, HOME0, HOME0);
#if HEAPS > 1
        set_word(HOME1, 1, WORD_OWNED, 0, HOME1, HOME1);
#endif
#endif
        run World();
        run Transport();
        run Rank(0);
        run Rank(1);
        run Rank(2)
    }
}

#ifdef LTL
#define moves_away(r) (at(r, 0).state == MOVING)
#define two_owners                                                                        \
    ((at(0, 0).state == OWNED && at(1, 0).state == OWNED) ||                              \
     (at(1, 0).state == OWNED && at(2, 0).state == OWNED) ||                              \
     (at(0, 0).state == OWNED && at(2, 0).state == OWNED))
/* A migration ends: with an owner, or in doubt. All comes to rest, in a state that check_settled finds good. */
ltl ends { [](moves_away(0) -> <>!moves_away(0)) && [](moves_away(1) -> <>!moves_away(1)) &&
           [](moves_away(2) -> <>!moves_away(2)) }
ltl rests { <>settled }
ltl one_owner { []!two_owners }
/* Without a fault there is no doubt, and the heap is at somebody. */
ltl no_doubt { [](at(0, 0).state != IN_DOUBT && at(1, 0).state != IN_DOUBT && at(2, 0).state != IN_DOUBT) }
#endif
