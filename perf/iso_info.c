/*
 * iso_info - what the library finds on this machine: limits, the iso space, backings, modules, and
 * advice. Started by a launcher it shows the job that it is in; rank 0 speaks.
 *
 * Status: 0; 1 when no iso space could be had or the output could not be written; 2 when it was
 * called wrongly.
 */
#include "machine.h"
#include <getopt.h>
#include <inttypes.h>
#include <isomalloc/isomalloc.h>
#include <isomalloc/transport.h>
#include <stdio.h>
#include <string.h>

static void print_usage(FILE *out)
{
    fprintf(out, "usage: iso_info [-c | -v | -h]\n"
                 "Shows what libisomalloc finds on this machine.\n"
                 "  -c, --config   list all settings: ISO_NAME=default and meaning\n"
                 "  -v, --version  show the version only\n"
                 "  -h, --help     show this\n");
}

static void print_settings(void)
{
    size_t count;
    const iso_setting_t *settings = iso_settings(&count);

    for (size_t i = 0; i < count; i++) {
        char assignment[128];
        snprintf(assignment, sizeof assignment, "ISO_%s=%s", settings[i].name,
                 settings[i].default_value);
        printf("%-26s  %s\n", assignment, settings[i].help);
    }
}

static void print_job(const iso_job_t *job)
{
    char buf[MACHINE_BYTES_TEXT];
    void *base;
    size_t size;

    iso_space(job, &base, &size);
    printf("iso space\n");
    printf("  ranks             %" PRIu32 "\n", iso_size(job));
    printf("  base              %p\n", base);
    printf("  size              %s, %zu slots\n", machine_bytes_text(size, buf),
           size / ISO_SLOT_SIZE);
    printf("  backing           %s\n", iso_backing_name(job));
    printf("  transport         %s (between nodes)\n", iso_transport_name(job));
    printf("  registered        %s\n\n", iso_registration(job));
}

/* Only for a process that is a job of its own: joining several times is collective otherwise. */
static void print_backing(const iso_params_t *given, iso_backing_t backing, const char *name)
{
    iso_params_t params = *given;
    iso_job_t *job;
    iso_status_t status;

    params.backing = backing;
    status = iso_init(&params, &job);
    if (status != ISO_OK) {
        printf("  %-16s  not available: %s\n", name, iso_status_string(status));
        return;
    }
    if (backing == ISO_BACKING_AUTO)
        printf("  %-16s  chooses %s here\n", name, iso_backing_name(job));
    else if (strcmp(iso_backing_name(job), name) != 0)
        printf("  %-16s  not available: %s instead\n", name, iso_backing_name(job));
    else
        printf("  %-16s  available\n", name);
    iso_finalize(job);
}

static void print_backings(const iso_params_t *params)
{
    printf("backings\n");
    print_backing(params, ISO_BACKING_SHARED, "shared");
    print_backing(params, ISO_BACKING_PRIVATE, "private");
    print_backing(params, ISO_BACKING_ANON, "anon");
    print_backing(params, ISO_BACKING_AUTO, "auto");
    printf("\n");
}

static void print_transport(const iso_module_info_t *info)
{
    char buf[MACHINE_BYTES_TEXT];

    printf("  %-16s  %s\n", "", info->caps.description);
    printf("  %-16s  %s, %s%s, messages up to %s\n", "",
           info->caps.one_sided ? "one-sided" : "needs the target's progress",
           info->caps.pins_memory ? "pins memory" : "does not pin memory",
           info->caps.shares_host ? ", reaches this host only" : "",
           machine_bytes_text(info->caps.max_send, buf));
    printf("  %-16s  registers %s\n", "", info->registration);
}

/* The library's own modules, which are built where what they need is there. */
static const struct {
    const char *kind, *name, *needs;
} known_modules[] = {{"transport", "loopback", NULL},
                     {"transport", "ofi", "libfabric"},
                     {"transport", "ucx", "UCX"},
                     {"bootstrap", "local", NULL},
                     {"bootstrap", "pmix", "PMIx"}};
#define KNOWN_MODULES (sizeof known_modules / sizeof known_modules[0])

typedef struct module_list {
    const char *kind;
    unsigned count;
    bool listed[KNOWN_MODULES];
} module_list_t;

static void print_module(const iso_module_info_t *info, void *arg)
{
    module_list_t *list = arg;

    if (strcmp(info->kind, list->kind) != 0)
        return;
    list->count++;
    for (size_t i = 0; i < KNOWN_MODULES; i++)
        list->listed[i] |= strcmp(info->name, known_modules[i].name) == 0;
    printf("  %-16s  %s\n", info->name, info->path);
    if (!info->usable)
        printf("  %-16s  not usable here: %s\n", "", info->why);
    else if (strcmp(info->kind, "transport") == 0)
        print_transport(info);
    else
        printf("  %-16s  its launcher started this process\n", "");
}

static void print_absent(const char *name, const char *needs)
{
    printf("  %-16s  not here: no libisomalloc-%s.so among the modules", name, name);
    if (needs != NULL)
        printf(" (it is built where %s is found)", needs);
    printf("\n");
}

static void print_modules(const iso_params_t *params, const char *kind)
{
    module_list_t list = {.kind = kind};

    printf("%ss\n", kind);
    iso_modules(params, print_module, &list);
    for (size_t i = 0; i < KNOWN_MODULES; i++)
        if (strcmp(known_modules[i].kind, kind) == 0 && !list.listed[i])
            print_absent(known_modules[i].name, known_modules[i].needs);
    if (list.count == 0)
        printf("  none found: name the folder that has modules in ISO_MODULE_PATH\n");
    printf("\n");
}

static int show_everything(void)
{
    iso_params_t params;
    iso_job_t *job = NULL;
    iso_status_t status;
    bool alone = true;

    if (iso_params_init(&params) != ISO_OK)
        return 1; /* the library has said which setting */
    status = iso_init(&params, &job);
    if (status == ISO_OK && iso_rank(job) != 0) {
        iso_finalize(job);
        return 0;
    }

    printf("libisomalloc %s\n\n", iso_version(NULL, NULL, NULL));
    machine_print();
    if (status == ISO_OK) {
        alone = iso_size(job) == 1;
        print_job(job);
        iso_finalize(job);
        if (alone)
            print_backings(&params);
    } else {
        printf("iso space\n  not available: %s\n\n", iso_status_string(status));
    }
    print_modules(&params, "transport");
    print_modules(&params, "bootstrap");
    machine_advise();
    return status == ISO_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"config", no_argument, NULL, 'c'},
                                            {"version", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const int option = getopt_long(argc, argv, "cvh", options, NULL);
    int result = 0;

    if (option == '?')
        return 2; /* getopt has named the option */
    if (optind < argc) {
        fprintf(stderr, "iso_info: '%s' is not understood: it takes one option, see iso_info -h\n",
                argv[optind]);
        return 2;
    }
    switch (option) {
    case 'c':
        print_settings();
        break;
    case 'v':
        printf("%s\n", iso_version(NULL, NULL, NULL));
        break;
    case 'h':
        print_usage(stdout);
        break;
    default:
        result = show_everything();
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("iso_info: cannot write the output");
        return 1;
    }
    return result;
}
