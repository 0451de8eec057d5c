/* tasks.c - see tasks.h. */
#include "tasks.h"
#include "fail.h"
#include "mail.h"
#include "plan.h"
#include <isomalloc/thread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STACK_BYTES ((size_t)64 << 10)

enum {
    ABOVE,
    BELOW
};
enum {
    KIND_ROW = 1,
    KIND_COSTS,
    KIND_PLAN,
    KIND_STRIP,
    KIND_TOTALS
};

typedef enum wait {
    WAITS_FOR_NOTHING,
    WAITS_FOR_ROWS,
    WAITS_FOR_ALL /* at the end of a period */
} wait_t;

/* The root of a strip's heap. All of it goes along. */
typedef struct task {
    uint32_t id, step;
    wait_t waits;
    uint32_t came[2][2]; /* side, step's parity: 1 + the step that the row is of */
    double *rows, *next; /* with one more above and below each */
    double *inbox[2][2]; /* rows that came, likewise */
    iso_thread_t *thread;
    double cost; /* seconds of processor in this period */
} task_t;

/* This rank's; what is in it means nothing in another one. */
static struct {
    iso_job_t *job;
    mail_t *mail;
    work_t work;
    uint32_t self, size, count; /* count: of all tasks */
    task_t **here;              /* by id; NULL: elsewhere */
    uint32_t *owners;
    iso_heap_t **leaving; /* heaps of those that have begun to, until they have left */
    uint32_t here_count, leaving_count, waiting, finished;
    iso_thread_t **ready; /* a ring, of as many as there are tasks */
    uint32_t ready_first, ready_count;
    /* rank 0: of this period */
    double *costs;
    uint32_t heard, strips_heard, totals_heard;
    bool planned; /* a plan has come */
    double *plane;
    totals_t totals;
} my;

static double clock_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- inside a thread ----------------------------------------------------------------------------- */

static uint32_t weight_of(const task_t *task)
{
    const work_t *work = &my.work;
    const uint64_t count = work->grid.strips;
    const uint64_t middle = (uint64_t)task->step * count / work->steps;
    const uint64_t apart = (task->id + count - middle) % count, near = count / 8;
    return (apart <= near || apart >= count - near ? work->weight : 1) * work->grain;
}

/* Is the row of that side there, which this step wants? */
static bool has_row(const task_t *task, int side)
{
    const bool at_edge = side == ABOVE ? task->id == 0 : task->id + 1 == my.count;
    return at_edge || task->came[side][task->step % 2] == task->step + 1;
}

static bool has_rows(const task_t *task)
{
    return has_row(task, ABOVE) && has_row(task, BELOW);
}

static void send_row(const task_t *task, uint32_t to, int side, const double *row)
{
    const frame_t frame = {.kind = KIND_ROW,
                           .length = (uint32_t)grid_row_bytes(&my.work.grid),
                           .task = to,
                           .side = (uint32_t)side,
                           .step = task->step};
    mail_send(my.mail, my.owners[to], frame, row);
}

static void wait_for(task_t *task, wait_t what)
{
    task->waits = what;
    my.waiting += what == WAITS_FOR_ALL;
    check(iso_thread_suspend(), "iso_thread_suspend"); /* perhaps in another process from here on */
}

static void exchange_rows(task_t *task)
{
    const grid_t *grid = &my.work.grid;
    const size_t columns = grid->columns, last = grid->rows * columns;
    if (task->id > 0)
        send_row(task, task->id - 1, BELOW, task->rows + columns);
    if (task->id + 1 < my.count)
        send_row(task, task->id + 1, ABOVE, task->rows + last);
    if (!has_rows(task))
        wait_for(task, WAITS_FOR_ROWS);
    const uint32_t parity = task->step % 2;
    if (task->id > 0)
        memcpy(task->rows, task->inbox[ABOVE][parity], grid_row_bytes(grid));
    if (task->id + 1 < my.count)
        memcpy(task->rows + last + columns, task->inbox[BELOW][parity], grid_row_bytes(grid));
}

static void *run_task(void *arg)
{
    task_t *task = arg;
    for (task->step = 0; task->step < my.work.steps;) {
        exchange_rows(task);
        for (uint32_t times = weight_of(task); times > 0; times--)
            grid_step(task->rows, task->next, my.work.grid.rows, my.work.grid.columns);
        double *rows = task->next;
        task->next = task->rows;
        task->rows = rows;
        task->step++;
        if (task->step % my.work.period == 0 && task->step < my.work.steps)
            wait_for(task, WAITS_FOR_ALL);
    }
    return NULL;
}

/* ---- tasks here ---------------------------------------------------------------------------------- */

static void on_ready(iso_thread_t *thread, void *arg)
{
    (void)arg;
    my.ready[(my.ready_first + my.ready_count++) % my.count] = thread;
}

static void enter(task_t *task)
{
    my.here[task->id] = task;
    my.here_count++;
    my.waiting += task->waits == WAITS_FOR_ALL;
}

static void on_arrival(iso_job_t *job, const iso_arrival_t *arrival, void *arg)
{
    (void)job, (void)arg;
    enter(iso_heap_root(arrival->heap));
}

static void *need(iso_heap_t *heap, size_t bytes)
{
    void *block = iso_malloc(heap, bytes);
    if (!block)
        fail("a strip", "no memory in the iso space");
    return block;
}

static void make_task(uint32_t id)
{
    const grid_t *grid = &my.work.grid;
    const iso_thread_attr_t attr = {
        .struct_size = sizeof attr, .stack_size = STACK_BYTES, .name = "strip"};
    iso_heap_t *heap;
    check(iso_heap_create(my.job, &heap), "a heap for a strip");
    task_t *task = need(heap, sizeof *task);
    *task = (task_t){.id = id};
    task->rows = need(heap, grid_strip_bytes(grid));
    task->next = need(heap, grid_strip_bytes(grid));
    grid_begin(task->rows, grid->rows, grid->columns, id == 0);
    grid_begin(task->next, grid->rows, grid->columns, id == 0);
    for (int side = 0; side < 2; side++)
        for (int parity = 0; parity < 2; parity++)
            task->inbox[side][parity] = need(heap, grid_row_bytes(grid));
    iso_heap_set_root(heap, task);
    enter(task);
    check(iso_thread_create(heap, run_task, task, &attr, &task->thread), "a thread");
}

static task_t *task_of(const iso_thread_t *thread)
{
    return iso_heap_root(iso_thread_heap(thread));
}

static void run_one(void)
{
    iso_thread_t *thread = my.ready[my.ready_first];
    iso_thread_state_t state;
    my.ready_first = (my.ready_first + 1) % my.count;
    my.ready_count--;
    const double start = clock_of(CLOCK_THREAD_CPUTIME_ID);
    check(iso_thread_resume(thread, &state), "iso_thread_resume");
    task_of(thread)->cost += clock_of(CLOCK_THREAD_CPUTIME_ID) - start;
    my.finished += state == ISO_THREAD_FINISHED;
}

/* ---- messages ------------------------------------------------------------------------------------ */

static void take_row(const frame_t *frame, const void *bytes)
{
    task_t *task = my.here[frame->task];
    if (!task || frame->length != grid_row_bytes(&my.work.grid))
        fail("a row", "its strip is not here, or it has another length");
    memcpy(task->inbox[frame->side][frame->step % 2], bytes, frame->length);
    task->came[frame->side][frame->step % 2] = frame->step + 1;
    if (task->waits != WAITS_FOR_ROWS || !has_rows(task))
        return;
    task->waits = WAITS_FOR_NOTHING;
    check(iso_thread_awaken(task->thread), "iso_thread_awaken");
}

static void take_frame(const frame_t *frame, const void *bytes)
{
    const grid_t *grid = &my.work.grid;
    const size_t strip = grid->rows * grid_row_bytes(grid);
    totals_t totals;
    switch (frame->kind) {
    case KIND_ROW:
        take_row(frame, bytes);
        break;
    case KIND_COSTS: /* of one rank's tasks, 0 for others' */
        for (uint32_t task = 0; task < my.count; task++) {
            double cost;
            memcpy(&cost, (const char *)bytes + task * sizeof cost, sizeof cost);
            my.costs[task] += cost;
        }
        my.heard++;
        break;
    case KIND_PLAN:
        memcpy(my.owners, bytes, my.count * sizeof *my.owners);
        my.planned = true;
        break;
    case KIND_STRIP:
        memcpy((char *)my.plane + grid_row_bytes(grid) + frame->task * strip, bytes, strip);
        my.strips_heard++;
        break;
    case KIND_TOTALS:
        memcpy(&totals, bytes, sizeof totals);
        my.totals.migrations += totals.migrations;
        my.totals.bytes += totals.bytes;
        my.totals_heard++;
        break;
    default:
        fail("a message", "its kind is unknown");
    }
}

/* One turn of all that makes progress; sleeps if there was none. */
static void turn(void)
{
    if (mail_turn(my.mail) + iso_threads_progress(my.job) == 0 && my.ready_count == 0)
        mail_wait(my.mail);
}

/* ---- balancing ----------------------------------------------------------------------------------- */

static void tell_costs(void)
{
    double *costs = calloc(my.count, sizeof *costs);
    if (!costs)
        fail("costs", "no memory");
    for (uint32_t id = 0; id < my.count; id++)
        if (my.here[id]) {
            costs[id] = my.here[id]->cost;
            my.here[id]->cost = 0;
        }
    const frame_t frame = {.kind = KIND_COSTS, .length = my.count * (uint32_t)sizeof *costs};
    mail_send(my.mail, 0, frame, costs);
    free(costs);
}

/* Rank 0: everybody's costs are there. */
static uint32_t make_plan(share_t *shares)
{
    double *loads = malloc(my.size * sizeof *loads);
    uint32_t *owners = malloc(my.count * sizeof *owners), moved = 0;
    if (!loads || !owners)
        fail("a plan", "no memory");
    memcpy(owners, my.owners, my.count * sizeof *owners);
    plan_loads(owners, my.costs, my.count, loads, my.size);
    for (uint32_t rank = 0; rank < my.size; rank++)
        shares[rank].seconds = loads[rank];
    if (my.work.balance)
        moved = plan_refine(owners, my.costs, my.count, my.size);
    plan_loads(owners, my.costs, my.count, loads, my.size);
    for (uint32_t rank = 0; rank < my.size; rank++)
        shares[rank].planned = loads[rank];
    const frame_t frame = {.kind = KIND_PLAN, .length = my.count * (uint32_t)sizeof *owners};
    for (uint32_t rank = my.size; rank-- > 0;) /* this one last: it changes what is known here */
        mail_send(my.mail, rank, frame, owners);
    memset(my.costs, 0, my.count * sizeof *my.costs);
    my.heard = 0;
    free(owners);
    free(loads);
    return moved;
}

/* What has begun to leave may stay after all: nobody would compute it, and its new rank would wait for it for ever. */
static bool all_have_left(void)
{
    for (uint32_t i = my.leaving_count; i-- > 0;) {
        const iso_heap_state_t state = iso_heap_state(my.leaving[i]);
        if (state == ISO_HEAP_ELSEWHERE)
            my.leaving[i] = my.leaving[--my.leaving_count];
        else if (state == ISO_HEAP_OWNED || state == ISO_HEAP_IN_DOUBT)
            fail("a strip did not leave", "a line of the library's says why");
    }
    return my.leaving_count == 0;
}

static void carry_out(void)
{
    uint32_t wanted = 0;
    for (uint32_t id = 0; id < my.count; id++) {
        wanted += my.owners[id] == my.self;
        if (!my.here[id] || my.owners[id] == my.self)
            continue;
        iso_heap_t *heap = iso_thread_heap(my.here[id]->thread);
        my.here[id] = NULL;
        my.here_count--;
        my.waiting--;
        check(iso_threads_move_heap(heap, my.owners[id]), "iso_threads_move_heap");
        my.leaving[my.leaving_count++] = heap;
    }
    while (!all_have_left() || my.here_count < wanted)
        turn();
}

/* All tasks of this rank have come to the end of a period; at its end all ranks' have, and are where they belong. */
static uint32_t end_period(share_t *shares)
{
    uint32_t moved = 0;
    tell_costs();
    while (my.self == 0 && my.heard < my.size)
        turn();
    if (my.self == 0)
        moved = make_plan(shares);
    while (!my.planned)
        turn();
    my.planned = false;
    carry_out();
    check(iso_barrier(my.job),
          "iso_barrier");         /* nobody sends a row to where its strip is not yet */
    iso_threads_progress(my.job); /* what has left is seen to have left */
    return moved;
}

static void go_on(void)
{
    for (uint32_t id = 0; id < my.count; id++) {
        task_t *task = my.here[id];
        if (!task)
            continue;
        task->waits = WAITS_FOR_NOTHING;
        check(iso_thread_awaken(task->thread), "iso_thread_awaken");
    }
    my.waiting = 0;
}

/* ---- a run --------------------------------------------------------------------------------------- */

static void *new_array(size_t count, size_t size)
{
    void *array = calloc(count, size);
    if (!array)
        fail("lists of strips", "no memory");
    return array;
}

static void begin(const work_t *work, double *plane)
{
    my.work = *work;
    my.count = work->grid.strips;
    my.plane = plane;
    my.here = new_array(my.count, sizeof *my.here);
    my.owners = new_array(my.count, sizeof *my.owners);
    my.ready = new_array(my.count, sizeof *my.ready);
    my.leaving = new_array(my.count, sizeof(iso_heap_t *));
    my.costs = new_array(my.count, sizeof *my.costs);
    my.here_count = my.leaving_count = my.waiting = my.finished = my.strips_heard =
        my.totals_heard = 0;
    my.totals = (totals_t){0};
    const iso_threads_params_t params = {
        .struct_size = sizeof params, .ready = on_ready, .arrival = on_arrival};
    check(iso_threads_open(my.job, &params), "iso_threads_open");
    for (uint32_t id = 0; id < my.count; id++) {
        my.owners[id] = (uint32_t)((uint64_t)id * my.size / my.count);
        if (my.owners[id] == my.self)
            make_task(id);
    }
    check(iso_barrier(my.job), "iso_barrier");
}

/* The results go to rank 0, the strips go. */
static void collect(const iso_stats_t *before)
{
    const grid_t *grid = &my.work.grid;
    iso_stats_t after;
    iso_stats(my.job, &after);
    for (uint32_t id = 0; id < my.count; id++) {
        task_t *task = my.here[id];
        if (!task)
            continue;
        iso_heap_t *heap = iso_thread_heap(task->thread);
        const frame_t frame = {
            .kind = KIND_STRIP, .length = grid->rows * (uint32_t)grid_row_bytes(grid), .task = id};
        mail_send(my.mail, 0, frame, task->rows + grid->columns);
        check(iso_thread_join(task->thread, NULL), "iso_thread_join");
        check(iso_heap_destroy(heap), "iso_heap_destroy");
    }
    const totals_t totals = {.migrations = after.migrations_out - before->migrations_out,
                             .bytes = after.bytes_put - before->bytes_put};
    mail_send(my.mail, 0, (frame_t){.kind = KIND_TOTALS, .length = sizeof totals}, &totals);
    while (my.self == 0 && (my.strips_heard < my.count || my.totals_heard < my.size))
        turn();
}

static void end(void)
{
    for (bool all = false; !all; turn()) /* what was sent has gone */
        all = mail_sent(my.mail);
    check(iso_barrier(my.job), "iso_barrier");
    check(iso_threads_close(my.job), "iso_threads_close");
    free(my.here);
    free(my.owners);
    free(my.ready);
    free(my.leaving);
    free(my.costs);
}

/* Runs this rank's tasks until all of them wait for all others', or have finished. */
static void run_period(void)
{
    while (my.waiting + my.finished < my.here_count) {
        if (my.ready_count > 0)
            run_one();
        turn();
    }
}

static void add_up(totals_t *totals, const period_t *period)
{
    double busiest = 0;
    for (uint32_t rank = 0; rank < my.size; rank++) {
        const double seconds = period->shares[rank].seconds;
        busiest = seconds > busiest ? seconds : busiest;
        totals->work += seconds;
    }
    totals->busiest += busiest;
    totals->balancing += period->balancing;
    totals->elapsed += period->elapsed + period->balancing;
}

void tasks_open(iso_job_t *job)
{
    my.job = job;
    my.self = iso_rank(job);
    fail_as_rank(my.self);
    my.size = iso_size(job);
    my.mail = mail_open(job, take_frame);
}

void tasks_close(void)
{
    mail_close(my.mail);
}

void tasks_run(const work_t *work, void (*told)(const period_t *period, void *arg), void *arg,
               double *plane, totals_t *totals_p)
{
    iso_stats_t before;
    begin(work, plane);
    iso_stats(my.job, &before);
    share_t *shares = new_array(my.size, sizeof *shares);
    for (uint32_t step = 0; step < work->steps;) {
        const double start = clock_of(CLOCK_MONOTONIC);
        run_period();
        step = step + work->period < work->steps ? step + work->period : work->steps;
        const double computed = clock_of(CLOCK_MONOTONIC);
        my.work.balance = work->balance && step < work->steps;
        period_t period = {.step = step, .shares = shares};
        period.moved = end_period(shares);
        period.elapsed = computed - start;
        period.balancing = clock_of(CLOCK_MONOTONIC) - computed;
        if (step < work->steps)
            go_on();
        if (my.self == 0) {
            add_up(&my.totals, &period);
            told(&period, arg);
        }
    }
    collect(&before);
    *totals_p = my.totals;
    free(shares);
    end();
}
