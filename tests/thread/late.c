/*
 * late.c LIBRARY between|inside|elsewhere - a program without C++ whose threads throw and catch all the same, in a library that is
 * loaded when they have been running already: between two resumes, by one of the threads, or by another thread of the system.
 */
#include <dlfcn.h>
#include <isomalloc/thread.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 3

typedef int (*catches_fn)(void (*stop)(void), int value);

static const char *library, *loads;
static catches_fn catches;
static int right;

#define EXPECT(condition)                                                         \
    do {                                                                          \
        if (!(condition)) {                                                       \
            fprintf(stderr, "late: line %d: not so: %s\n", __LINE__, #condition); \
            _Exit(1);                                                             \
        }                                                                         \
    } while (0)

static void *load(void *arg)
{
    void *handle =
        dlopen(library, RTLD_NOW | RTLD_LOCAL); /* not in the scope that others look into */
    EXPECT(handle);
    void *symbol = dlsym(handle, "late_catches");
    EXPECT(symbol);
    memcpy(&catches, &symbol, sizeof catches);
    return arg;
}

static void stop(void)
{
    EXPECT(iso_thread_migrate(0) == ISO_ERR_BUSY); /* in a catch block */
    EXPECT(iso_thread_yield() == ISO_OK);
}

static void *work(void *arg)
{
    const int value = (int)(uintptr_t)arg;
    EXPECT(iso_thread_yield() == ISO_OK);
    if (value == 1 && strcmp(loads, "inside") == 0)
        load(NULL);
    right += catches(stop, value);
    return arg;
}

int main(int argc, char **argv)
{
    iso_job_t *job;
    iso_heap_t *heap;
    iso_thread_t *threads[THREADS];
    EXPECT(argc == 3);
    library = argv[1];
    loads = argv[2];
    EXPECT(!dlsym(RTLD_DEFAULT, "__cxa_get_globals")); /* else nothing is tested */
    EXPECT(iso_init(NULL, &job) == ISO_OK && iso_threads_open(job, NULL) == ISO_OK &&
           iso_heap_create(job, &heap) == ISO_OK);
    for (uintptr_t i = 0; i < THREADS; i++)
        EXPECT(iso_thread_create(heap, work, (void *)(i + 1), NULL, &threads[i]) == ISO_OK &&
               iso_thread_resume(threads[i], NULL) == ISO_OK);
    if (strcmp(loads, "between") == 0)
        load(NULL);
    if (strcmp(loads, "elsewhere") == 0) {
        pthread_t other;
        EXPECT(pthread_create(&other, NULL, load, NULL) == 0 && pthread_join(other, NULL) == 0);
    }
    for (int i = 0; i < THREADS; i++) /* all are in their catch blocks */
        EXPECT(iso_thread_resume(threads[i], NULL) == ISO_OK);
    for (int i = 0; i < THREADS; i++) { /* and leave them in the order in which they came */
        iso_thread_state_t state;
        EXPECT(iso_thread_resume(threads[i], &state) == ISO_OK && state == ISO_THREAD_FINISHED);
    }
    EXPECT(right == THREADS);
    EXPECT(iso_threads_close(job) == ISO_OK && iso_finalize(job) == ISO_OK);
    return 0;
}
