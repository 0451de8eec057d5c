/*
 * fuzz_job.c - the job of which the fuzzer is all but rank 0: its bootstrap, its params, and what the library sends, which must
 * leave no put without a flush behind.
 */
#include "fuzz_job.h"
#include <dlfcn.h>
#include <isomalloc/bootstrap.h>
#include <string.h>

iso_job_t *fuzz_job;
fuzz_push_fn fuzz_push_message;
uint8_t fuzz_cookie[16];
uint64_t fuzz_space;
bool fuzz_peers_windows;
committed_t fuzz_committed[16];
unsigned char fuzz_object_type[8];
static unsigned committed_count;
static fuzz_unflushed_fn unflushed;

static iso_status_t allgather(void *ctx, const void *mine, void *all, size_t len)
{
    (void)ctx;
    for (int r = 0; r < RANKS; r++)
        memcpy((char *)all + (size_t)r * len, mine, len);
    return ISO_OK;
}

static iso_status_t at_once(void *ctx)
{
    (void)ctx;
    return ISO_OK;
}

static const iso_bootstrap_t bootstrap = {.abi_version = ISO_BOOTSTRAP_ABI,
                                          .name = "fuzz",
                                          .rank = 0,
                                          .size = RANKS,
                                          .allgather = allgather,
                                          .barrier_start = at_once,
                                          .barrier_test = at_once,
                                          .event_fd = -1};

static void on_sent(uint32_t dest, const void *data, size_t len)
{
    iso_msg_t msg;
    iso_msg_lists_t lists;
    if (len >= 20)
        memcpy(fuzz_cookie, (const char *)data + 12, 8);
    CHECK(iso_wire_decode(data, len, fuzz_cookie, &lists, &msg) == ISO_OK && msg.source == 0);
    if (msg.type == ISO_MSG_HELLO)
        memcpy(fuzz_cookie, msg.cookie, sizeof fuzz_cookie);
    if (msg.type == ISO_MSG_COMMIT || msg.type == ISO_MSG_CANCEL) /* nothing lands after them */
        CHECK(!unflushed(dest, msg.heap));
    for (uint32_t i = 0; msg.type == ISO_MSG_RETURN && i < WINDOW_SLOTS; i++) /* nor there */
        CHECK(!unflushed(dest,
                         fuzz_space + (uint64_t)(msg.slots * WINDOW_SLOTS + i) * ISO_SLOT_SIZE));
    if (msg.type == ISO_MSG_COMMIT) {
        unsigned i = committed_count++ % 16;
        fuzz_committed[i].heap = msg.heap;
        fuzz_committed[i].epoch = msg.epoch;
        fuzz_committed[i].promise = msg.promise;
        if (msg.flags & ISO_COMMIT_OBJECT)
            memcpy(fuzz_object_type, msg.data, sizeof fuzz_object_type);
        fuzz_committed[i].dest = dest;
    }
}

static void open_module(void)
{
    void *module = dlopen(FUZZ_MODULES "/libisomalloc-fuzz.so", RTLD_NOW);
    CHECK(module);
    fuzz_listen_fn listen;
    *(void **)&fuzz_push_message = dlsym(module, "fuzz_push");
    *(void **)&listen = dlsym(module, "fuzz_listen");
    *(void **)&unflushed = dlsym(module, "fuzz_unflushed");
    CHECK(fuzz_push_message && listen && unflushed);
    listen(on_sent);
}

void fuzz_params_fill(iso_params_t *params_p, unsigned how)
{
    if (!fuzz_push_message)
        open_module();
    committed_count = 0;
    memset(fuzz_committed, 0, sizeof fuzz_committed);
    CHECK(iso_params_init(params_p) == ISO_OK);
    params_p->caller_bootstrap = &bootstrap;
    params_p->transport = "fuzz";
    params_p->module_path = FUZZ_MODULES;
    params_p->node_size = 1;
    params_p->backing = ISO_BACKING_PRIVATE;
    params_p->space_size = (uint64_t)96 << 20; /* 48 slots */
    params_p->retain = (uint64_t)4 << 20;
    params_p->timeout = how % 4 == 0 ? 1e-6 : 1000; /* every step times out, or none */
    params_p->huge_pages = how >= 240 ? ISO_HUGE_PAGES_AUTO : ISO_HUGE_PAGES_NONE; /* slow */
    fuzz_peers_windows = how / 4 % 4 == 1;
    if (how / 16 % 4 == 1) {
        params_p->registration = ISO_REGISTER_WINDOW;
        params_p->pin_limit = (uint64_t)8 << 20;
    }
    params_p->poison = false; /* what peers put, and know of heaps, is read and stored here */
    params_p->log_level = ISO_LOG_ERROR;
}

void fuzz_look_at_space(void)
{
    void *base;
    size_t length;
    iso_space(fuzz_job, &base, &length);
    fuzz_space = (uintptr_t)base;
}
