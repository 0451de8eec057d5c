/* bare_main.c - the two processes: one forked from the other, memory, and their end. */
#include "bare.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define TURNS_A_LOOK 100000

void bare_fail(const bare_side_t *side, const char *what, const char *why)
{
    fprintf(stderr, "%s: %s: %s\n", side->network->program, what, why);
    exit(1);
}

void bare_look(bare_side_t *side)
{
    if (side->child > 0 && ++side->looks % TURNS_A_LOOK == 0 &&
        waitpid(side->child, NULL, WNOHANG) == side->child)
        bare_fail(side, "the target", "has ended");
}

/* Of a memory object, as the library's is with backing private. */
static void make_memory(bare_side_t *side)
{
    int fd = memfd_create(side->network->program, MFD_CLOEXEC);
    side->length = side->options->size * side->options->outstanding;
    side->memory = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)side->length) == 0)
        side->memory = mmap(NULL, side->length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (side->memory == MAP_FAILED)
        bare_fail(side, "memory", strerror(errno));
    close(fd);
    memset(side->memory, side->source, side->length);
    side->message = calloc(1, side->options->message);
    if (!side->message)
        bare_fail(side, "the message", "no memory");
}

static void run(bare_side_t *side)
{
    const bare_options_t *options = side->options;
    const bare_network_t *network = side->network;
    char test[32];
    snprintf(test, sizeof test, "%s_%s", network->program, options->latency ? "lat" : "bw");
    table_t table = {.format = options->format,
                     .test = test,
                     .transport = network->transport,
                     .backing = "memfd",
                     .bytes = options->size,
                     .outstanding = (unsigned)options->outstanding,
                     .silent = !side->source};
    make_memory(side);
    network->note(side, &table);
    network->set_up(side);
    if (options->latency)
        bare_latency(side, &table);
    else
        bare_bandwidth(side, &table);
    network->tear_down(side);
    munmap(side->memory, side->length);
    free(side->message);
}

int bare_main(const bare_network_t *network, bare_side_t *side, int argc, char **argv)
{
    static bare_options_t options;
    int sockets[2];
    bare_options_read(network, argc, argv, &options);
    side->network = network;
    side->options = &options;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
        bare_fail(side, "socketpair", strerror(errno));
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        bare_fail(side, "fork", strerror(errno));
    close(sockets[child == 0 ? 0 : 1]);
    if (child == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent))
        exit(1);
    prctl(PR_SET_PTRACER, child ? child : parent, 0, 0, 0); /* where Yama is: cma may write here */
    side->source = child != 0;
    side->child = child;
    side->socket = sockets[child != 0 ? 0 : 1];
    run(side);
    int status = 0;
    if (child && (waitpid(child, &status, 0) != child || status != 0))
        bare_fail(side, "the target", "has failed");
    return 0;
}
