/*
 * aslr.c - a program that executes itself again, without randomisation of addresses. See isomalloc/stack.h.
 */
#include "core/log.h"
#include <errno.h>
#include <isomalloc/stack.h>
#include <string.h>
#include <sys/personality.h>
#include <unistd.h>

iso_status_t iso_restart_without_aslr(char **argv)
{
    iso_logger_t logger = iso_logger_default();
    int persona = personality(0xffffffff);
    if (persona != -1 && persona & ADDR_NO_RANDOMIZE)
        return ISO_OK;
    const char *what = "personality(ADDR_NO_RANDOMIZE)";
    if (persona != -1 && personality((unsigned long)persona | ADDR_NO_RANDOMIZE) != -1 &&
        personality(0xffffffff) & ADDR_NO_RANDOMIZE) {
        execv("/proc/self/exe", argv);
        what = "executing /proc/self/exe";
        personality((unsigned long)persona);
    }
    iso_log(&logger, ISO_LOG_ERROR,
            "randomisation of addresses cannot be turned off: %s: %s; in a container allow it "
            "(seccomp), or link the program statically and not position-independent",
            what, strerror(errno));
    return ISO_ERR_SYSTEM;
}
