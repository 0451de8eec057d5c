/*
 * allocator.c - opening the allocators. mimalloc and jemalloc are loaded beside glibc's malloc, which
 * stays the one of the rest of the process.
 */
#include "allocator.h"
#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <stdio.h>

allocator_t allocator;
const char *const allocator_names[ALLOCATORS] = {"iso", "iso-shared", "glibc", "mimalloc",
                                                 "jemalloc"};
static void *library;
static iso_heap_t *shared_heap;

void die(const char *what)
{
    fprintf(stderr, "iso_mallocbench: %s\n", what);
    exit(1);
}

/* What dlsym finds is a function, which ISO C has no conversion for. */
static bool find(const char *name, void *function_p)
{
    void *symbol = dlsym(library, name);
    *(void **)function_p = symbol;
    return symbol != NULL;
}

static bool load(const char *file, const char *names[3])
{
    library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library && find(names[0], &allocator.malloc) && find(names[1], &allocator.realloc) &&
        find(names[2], &allocator.free))
        return true;
    fprintf(stderr, "iso_mallocbench: left out: %s\n", dlerror());
    return false;
}

static void open_job(iso_job_t **job_p)
{
    iso_status_t status = iso_init(NULL, job_p);
    if (status != ISO_OK)
        die(iso_status_string(status));
}

static void *shared_malloc(size_t size)
{
    return iso_malloc(shared_heap, size);
}

static void *shared_realloc(void *ptr, size_t size)
{
    return iso_realloc(shared_heap, ptr, size);
}

static bool open_shared(void)
{
    iso_job_t *job;
    open_job(&job);
    iso_status_t status = iso_heap_create_flags(job, ISO_HEAP_SHARED, &shared_heap);
    if (status != ISO_OK)
        die(iso_status_string(status));
    allocator = (allocator_t){.malloc = shared_malloc, .realloc = shared_realloc, .free = iso_free};
    return true;
}

bool allocator_open(allocator_id_t id)
{
    allocator = (allocator_t){.malloc = malloc, .realloc = realloc, .free = free};
    if (id == MIMALLOC)
        return load("libmimalloc.so.2", (const char *[]){"mi_malloc", "mi_realloc", "mi_free"});
    if (id == JEMALLOC)
        return load("libjemalloc.so.2", (const char *[]){"malloc", "realloc", "free"});
    if (id == ISO_SHARED)
        return open_shared();
    if (id == ISO) {
        allocator.iso_malloc = iso_malloc;
        allocator.iso_realloc = iso_realloc;
        allocator.free = iso_free;
        open_job(&allocator.job);
    }
    return true;
}

const char *allocator_version(allocator_id_t id)
{
    static char text[16];
    int (*mi_version)(void), (*mallctl)(const char *, void *, size_t *, void *, size_t);
    if (id == ISO || id == ISO_SHARED)
        return iso_version(NULL, NULL, NULL);
    if (id == GLIBC)
        return gnu_get_libc_version();
    const char *version = "";
    size_t length = sizeof version;
    if (id == JEMALLOC && find("mallctl", &mallctl) &&
        mallctl("version", &version, &length, NULL, 0) == 0)
        return version;
    if (id == MIMALLOC && find("mi_version", &mi_version)) {
        int number = mi_version();
        snprintf(text, sizeof text, "%d.%d.%d", number / 100, number / 10 % 10, number % 10);
        return text;
    }
    return "";
}

iso_heap_t *heap_new(void)
{
    iso_heap_t *heap;
    if (!allocator.job)
        return NULL;
    iso_status_t status = iso_heap_create(allocator.job, &heap);
    if (status != ISO_OK)
        die(iso_status_string(status));
    return heap;
}
