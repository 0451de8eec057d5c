/*
 * loaded.c LIBRARY before|after - a program that loads libisomalloc-thread itself, before iso_init, or after: when ranks do not
 * compare any more where it lies, and it refuses.
 */
#include <dlfcn.h>
#include <isomalloc/thread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECT(condition)                                                           \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "loaded: line %d: not so: %s\n", __LINE__, #condition); \
            _Exit(1);                                                               \
        }                                                                           \
    } while (0)

static void *of_library(const char *path, const char *name)
{
    void *handle = dlopen(path, RTLD_NOW);
    EXPECT(handle);
    void *symbol = dlsym(handle, name);
    EXPECT(symbol);
    return symbol;
}

static const char mine[] = "of the program";

int main(int argc, char **argv)
{
    iso_job_t *job;
    iso_status_t (*open)(iso_job_t *, const iso_threads_params_t *), (*close)(iso_job_t *) = NULL;
    EXPECT(argc == 3);
    const bool before = strcmp(argv[2], "before") == 0;
    EXPECT(!iso_code_is_compared(mine)); /* not yet */
    if (before)
        of_library(argv[1], "iso_threads_open");
    EXPECT(iso_init(NULL, &job) == ISO_OK);
    void *symbol = of_library(argv[1], "iso_threads_open");
    memcpy(&open, &symbol, sizeof open);
    EXPECT(iso_code_is_compared(mine) && iso_code_is_compared(symbol) == before);
    EXPECT(!iso_code_is_compared(&job)); /* on a stack */
    EXPECT(open(job, NULL) == (before ? ISO_OK : ISO_ERR_CODE));
    symbol = of_library(argv[1], "iso_threads_close");
    memcpy(&close, &symbol, sizeof close);
    EXPECT(close(job) == (before ? ISO_OK : ISO_ERR_INVALID));
    EXPECT(iso_finalize(job) == ISO_OK);
    return 0;
}
