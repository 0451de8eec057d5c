/*
 * ux_fork.c - a child that the program forks has the registered memory, too.
 *
 * Of what it registers with a verbs device UCX (1.13 to 1.21) says MADV_DONTFORK, so that a child has nothing at those
 * addresses: all of the iso space would be gone there, and a registration would split its mapping. That was to keep
 * a parent's pages where the device knows them, which memory objects need not (a fork shares their pages and copies
 * none), nor anonymous memory since Linux 5.12, which copies pinned pages for the child. libibverbs knows whether
 * the kernel does. Where it does not, anonymous memory is left as UCX has it.
 */
#include "ucx.h"
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define FORK_UNNEEDED \
    2 /* IBV_FORK_UNNEEDED of libibverbs, which is not linked: UCX has it, or there is no device */

static bool kernel_copies_pinned(void)
{
    void *verbs = dlopen("libibverbs.so.1", RTLD_LAZY | RTLD_NOLOAD);
    int (*state)(void) = NULL;

    if (verbs == NULL)
        return false;
    *(void **)&state = dlsym(verbs, "ibv_is_fork_initialized");
    const bool copies = state != NULL && state() == FORK_UNNEEDED;
    dlclose(verbs);
    return copies;
}

void ux_fork_allow(const iso_transport_t *tp, const iso_memory_t *memory)
{
    if (!tp->devices.pins)
        return;
    if (memory->fd < 0 && !kernel_copies_pinned())
        ux_log(
            tp, ISO_LOG_INFO,
            "after fork() a child has nothing in the iso space: backing is anon, and this kernel, "
            "older than Linux 5.12, would not copy pinned pages");
    else if (madvise(memory->address, (size_t)memory->length, MADV_DOFORK) != 0)
        ux_log(tp, ISO_LOG_WARN, "after fork() a child has nothing at %p: madvise(MADV_DOFORK): %s",
               memory->address, strerror(errno));
}
