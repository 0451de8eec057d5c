/*
 * ucx_shared.c - a program that has UCX already and shares its context, its worker as well, or its worker
 * while a thread of its own progresses it. A heap goes round, messages of the program's go to and fro
 * meanwhile, and when the job has ended what was shared still works.
 *
 *   ucx_shared context|worker|thread
 */
#include <isomalloc/iso_ucx.h>
#include <isomalloc/isomalloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucp/api/ucp.h>

#define OWN_AM 3
#define SHARED_AM 4
#define ROUNDS 100
#define SIZE 300000

#define EXPECT(condition)                                                           \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

static atomic_uint own_messages;
static atomic_bool stop;
static unsigned own_sent;
static iso_heap_t *here;

static ucs_status_t on_own(void *arg, const void *header, size_t header_len, void *data, size_t len,
                           const ucp_am_recv_param_t *param)
{
    (void)arg, (void)header, (void)header_len, (void)data, (void)len, (void)param;
    atomic_fetch_add(&own_messages, 1);
    return UCS_OK;
}

static void *progress(void *worker)
{
    while (!atomic_load(&stop))
        if (ucp_worker_progress(worker) == 0)
            sched_yield();
    return NULL;
}

static void arrived(iso_job_t *job, const iso_arrival_t *arrival, void *arg)
{
    (void)job, (void)arg;
    here = arrival->heap;
}

/* A message of the program's own to itself. */
static void use(ucp_ep_h self)
{
    const ucp_request_param_t param = {.op_attr_mask = 0};
    const ucs_status_ptr_t request = ucp_am_send_nbx(self, OWN_AM, NULL, 0, "own", 4, &param);

    EXPECT(!UCS_PTR_IS_ERR(request));
    if (request != NULL)
        ucp_request_free(request);
    own_sent++;
}

static ucp_ep_h connect_to_self(ucp_worker_h worker)
{
    ucp_address_t *address;
    size_t len;
    ucp_ep_h ep;

    EXPECT(ucp_worker_get_address(worker, &address, &len) == UCS_OK);
    const ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS,
                                    .address = address};
    EXPECT(ucp_ep_create(worker, &params, &ep) == UCS_OK);
    ucp_worker_release_address(worker, address);
    return ep;
}

static void go_round(iso_job_t *job, ucp_ep_h self)
{
    const unsigned rank = iso_rank(job), size = iso_size(job);
    iso_request_t *request;

    if (rank == 0) {
        EXPECT(iso_heap_create(job, &here) == ISO_OK);
        iso_heap_set_root(here, iso_calloc(here, 1, SIZE));
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        while (here == NULL)
            EXPECT(iso_progress_wait(job, -1) == ISO_OK);
        unsigned char *bytes = iso_heap_root(here);
        for (unsigned i = 0; i < SIZE; i += 999) {
            EXPECT(bytes[i] == (unsigned char)(round * size + rank));
            bytes[i]++;
        }
        use(self);
        if (round == ROUNDS - 1 && rank == size - 1)
            break;
        EXPECT(iso_migrate(here, (rank + 1) % size, NULL, 0, &request) == ISO_OK);
        here = NULL;
        EXPECT(iso_wait(request) == ISO_OK);
    }
    EXPECT(iso_barrier(job) == ISO_OK);
}

int main(int argc, char **argv)
{
    const bool shares_worker = argc > 1 && strcmp(argv[1], "context") != 0;
    const bool has_thread = argc > 1 && strcmp(argv[1], "thread") == 0;
    const ucp_params_t params = {
        .field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED,
        .mt_workers_shared = 1,
        /* once without wake-up: the library polls then */
        .features = UCP_FEATURE_RMA | UCP_FEATURE_AM | (has_thread ? 0 : UCP_FEATURE_WAKEUP)};
    const ucp_worker_params_t worker_params = {
        .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
        .thread_mode = has_thread ? UCS_THREAD_MODE_MULTI : UCS_THREAD_MODE_SERIALIZED};
    const ucp_am_handler_param_t handler = {.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID |
                                                          UCP_AM_HANDLER_PARAM_FIELD_CB,
                                            .id = OWN_AM,
                                            .cb = on_own};
    iso_ucx_shared_t shared = ISO_UCX_SHARED_INIT;
    iso_params_t iso_params;
    ucp_context_h context;
    ucp_worker_h worker;
    pthread_t thread;
    iso_job_t *job;

    EXPECT(ucp_init(&params, NULL, &context) == UCS_OK);
    EXPECT(ucp_worker_create(context, &worker_params, &worker) == UCS_OK);
    EXPECT(ucp_worker_set_am_recv_handler(worker, &handler) == UCS_OK);
    ucp_ep_h self = connect_to_self(worker);

    EXPECT(iso_params_init(&iso_params) == ISO_OK);
    iso_params.transport_shared = &shared.head;
    iso_params.arrival = arrived;
    shared.context = context;
    if (shares_worker) {
        shared.worker = worker;
        shared.am_id = SHARED_AM;
    }
    if (has_thread)
        EXPECT(pthread_create(&thread, NULL, progress, worker) == 0);
    EXPECT(iso_init(&iso_params, &job) == ISO_OK);
    memset(&shared, 0, sizeof shared);
    EXPECT(strcmp(iso_transport_name(job), "ucx") == 0);
    go_round(job, self);
    EXPECT(iso_finalize(job) == ISO_OK);

    use(self); /* what was shared still works */
    for (unsigned long i = 0; atomic_load(&own_messages) < own_sent && i < 10000000; i++)
        if (has_thread)
            sched_yield();
        else
            ucp_worker_progress(worker);
    EXPECT(atomic_load(&own_messages) == own_sent && own_sent == ROUNDS + 1);
    atomic_store(&stop, true);
    if (has_thread)
        pthread_join(thread, NULL);
    ucp_worker_destroy(worker);
    ucp_cleanup(context);
    return 0;
}
