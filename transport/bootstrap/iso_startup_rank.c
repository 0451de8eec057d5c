/*
 * iso_startup_rank.c - one rank of what iso_startup measures: a program that joins the library's job, or one
 * that does no more than any PMIx program must. Prints what that took of this rank: processor time in
 * microseconds, and how many KiB of its own memory.
 *
 * It lies here, and not beside iso_startup, because it speaks PMIx itself.
 */
#include <isomalloc/isomalloc.h>

#include <pmix.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static double processor_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* Anonymous memory of this process that is resident. */
static long own_kib(void)
{
    FILE *status = fopen("/proc/self/status", "re");
    char line[256];
    long kib = -1;

    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "RssAnon: %ld", &kib) == 1)
            break;
    if (status != NULL)
        fclose(status);
    return kib;
}

static void report(double seconds, long kib)
{
    printf("rank %.0f %ld\n", (processor_seconds() - seconds) * 1e6, own_kib() - kib);
    fflush(stdout);
}

static int run_empty(void)
{
    double seconds = processor_seconds();
    long kib = own_kib();
    pmix_proc_t self;
    pmix_status_t status = PMIx_Init(&self, NULL, 0);

    if (status == PMIX_SUCCESS)
        status = PMIx_Fence(NULL, 0, NULL, 0);
    if (status != PMIX_SUCCESS) {
        fprintf(stderr, "iso_startup_rank: %s\n", PMIx_Error_string(status));
        return 1;
    }
    report(seconds, kib);
    PMIx_Fence(NULL, 0, NULL, 0);
    return PMIx_Finalize(NULL, 0) == PMIX_SUCCESS ? 0 : 1;
}

static int run_library(void)
{
    double seconds = processor_seconds();
    long kib = own_kib();
    iso_job_t *job;

    if (iso_init(NULL, &job) != ISO_OK)
        return 1;
    report(seconds, kib);
    return iso_finalize(job) == ISO_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "empty") == 0)
        return run_empty();
    if (argc == 2 && strcmp(argv[1], "iso_init") == 0)
        return run_library();
    fprintf(stderr, "usage: iso_startup_rank empty|iso_init, as iso_startup starts it\n");
    return 2;
}
