/*
 * iso_run_options.c - the command line of iso_run. A value that makes no sense is refused in one
 * line that names it, with status 2.
 */
#include "iso_run.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "Usage: iso_run -n N [OPTION]... [--] PROGRAM [ARGUMENT]...\n"
    "Starts N ranks of PROGRAM on this host as one job of libisomalloc.\n"
    "\n"
    "  -n N               the number of ranks\n"
    "      --keep-going   when a rank fails, let the others run on\n"
    "      --no-aslr      start the ranks without address space randomisation\n"
    "      --timeout S    end the job after S seconds, with status 124\n"
    "  -h, --help         print this and exit\n"
    "      --version      print the version and exit\n"
    "\n"
    "Standard input goes to rank 0. The exit status is that of the first rank that fails\n"
    "(128 + the signal that killed it), 0 if none does; see iso_run(1).\n";

void iso_run_say(const char *format, ...)
{
    static const char name[] = "iso_run: ";
    char line[ISO_RUN_LINE];
    size_t len = sizeof name - 1;
    va_list args;

    memcpy(line, name, len);
    va_start(args, format);
    vsnprintf(line + len, sizeof line - len - 1, format, args);
    va_end(args);
    len = strlen(line);
    line[len++] = '\n';
    if (write(STDERR_FILENO, line, len) < 0)
        return; /* nobody listens: the job goes on */
}

static bool read_size(const char *text, uint32_t *size_p)
{
    char *end;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 1 ||
        value > (long)ISO_LOCAL_MAX_RANKS) {
        iso_run_say("-n %s: the number of ranks must be a number from 1 to %u", text,
                    ISO_LOCAL_MAX_RANKS);
        return false;
    }
    *size_p = (uint32_t)value;
    return true;
}

static bool read_seconds(const char *text, double *seconds_p)
{
    char *end;
    double value;

    errno = 0;
    value = strtod(text, &end);
    if (errno != 0 || end == text || *end != '\0' || !isfinite(value) || value <= 0 ||
        value > 1e9) {
        iso_run_say("--timeout %s: must be a number of seconds above 0", text);
        return false;
    }
    *seconds_p = value;
    return true;
}

bool iso_run_options_read(int argc, char **argv, iso_run_options_t *options_p, int *exit_status_p)
{
    enum {
        KEEP_GOING = 256,
        NO_ASLR,
        TIMEOUT,
        VERSION
    };
    static const struct option table[] = {
        {"keep-going", no_argument, NULL, KEEP_GOING}, {"no-aslr", no_argument, NULL, NO_ASLR},
        {"timeout", required_argument, NULL, TIMEOUT}, {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, VERSION},       {NULL, 0, NULL, 0}};
    iso_run_options_t options = {0};
    int option;

    *exit_status_p = ISO_RUN_USAGE;
    while ((option = getopt_long(argc, argv, "+n:h", table, NULL)) != -1) {
        switch (option) {
        case 'n':
            if (!read_size(optarg, &options.size))
                return false;
            break;
        case KEEP_GOING:
            options.keep_going = true;
            break;
        case NO_ASLR:
            options.no_aslr = true;
            break;
        case TIMEOUT:
            if (!read_seconds(optarg, &options.timeout))
                return false;
            break;
        case 'h':
            *exit_status_p = fputs(usage, stdout) < 0 || fflush(stdout) != 0;
            return false;
        case VERSION:
            *exit_status_p = printf("iso_run %d.%d.%d\n", ISO_VERSION_MAJOR, ISO_VERSION_MINOR,
                                    ISO_VERSION_PATCH) < 0 ||
                             fflush(stdout) != 0;
            return false;
        default:
            return false; /* getopt has said why */
        }
    }
    if (options.size == 0) {
        iso_run_say("the number of ranks is missing: iso_run -n N PROGRAM (iso_run --help)");
        return false;
    }
    if (optind >= argc) {
        iso_run_say("the program is missing: iso_run -n %u PROGRAM (iso_run --help)", options.size);
        return false;
    }
    options.argv = argv + optind;
    *options_p = options;
    return true;
}
