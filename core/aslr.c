/*
 * aslr.c - a program that executes itself again, without randomisation of addresses. See isomalloc/stack.h.
 *
 * To execute a program that is set-user-ID or has capabilities of its own makes the kernel forget that, each time. So
 * the environment says that this process, by its id, has been executed again already: no child takes that as its own.
 */
#include "core/log.h"
#include <errno.h>
#include <isomalloc/stack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <unistd.h>

static const char mark[] = "ISO_RESTARTED_WITHOUT_ASLR";

static bool is_off(void)
{
    int persona = personality(0xffffffff);
    return persona != -1 && persona & ADDR_NO_RANDOMIZE;
}

/* Returns only if it fails: what could not be done, with errno. */
static const char *execute(char **argv, const char *process)
{
    int persona = personality(0xffffffff);
    if (persona == -1 || personality((unsigned long)persona | ADDR_NO_RANDOMIZE) == -1 || !is_off())
        return "personality(ADDR_NO_RANDOMIZE)";
    if (setenv(mark, process, 1) == 0)
        execv("/proc/self/exe", argv);
    int error = errno;
    unsetenv(mark);
    personality((unsigned long)persona);
    errno = error;
    return "executing /proc/self/exe";
}

iso_status_t iso_restart_without_aslr(char **argv)
{
    iso_logger_t logger = iso_logger_default();
    char process[24];
    const char *before = getenv(mark);
    snprintf(process, sizeof process, "%ld", (long)getpid());
    bool again = before && strcmp(before, process) == 0;
    unsetenv(mark); /* a setting of the library's it is not */
    if (is_off())
        return ISO_OK;
    if (again) {
        iso_log(
            &logger, ISO_LOG_ERROR,
            "randomisation of addresses was turned off, and came back as the program was executed "
            "again: the system does so where a program has capabilities or is set-user-ID; take "
            "those away, or link the program statically and not position-independent");
        return ISO_ERR_SYSTEM;
    }
    const char *what = execute(argv, process);
    iso_log(&logger, ISO_LOG_ERROR,
            "randomisation of addresses cannot be turned off: %s: %s; in a container allow it "
            "(seccomp), or link the program statically and not position-independent",
            what, strerror(errno));
    return ISO_ERR_SYSTEM;
}
